"""The pairwise descriptor."""

import pytest

from fastpose.benchmark import orders
from fastpose.benchmark.cases import GEOMETRY


@pytest.mark.parametrize("job", orders.jobs(GEOMETRY), ids=str)
def test_geometry(measure, job):
    measure(job)
