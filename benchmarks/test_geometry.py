"""The pairwise descriptor."""

import pytest

from fastpose.benchmark import orders
from fastpose.benchmark.cases import GEOMETRY


@pytest.mark.parametrize("group", orders.groups(GEOMETRY), ids=orders.named)
def test_geometry(measure, group):
    measure(group)
