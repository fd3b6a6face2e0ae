"""The pairwise descriptor."""

import orders
import pytest
from cases import GEOMETRY


@pytest.mark.parametrize("job", orders.jobs(GEOMETRY), ids=str)
def test_geometry(measure, job):
    measure(job)
