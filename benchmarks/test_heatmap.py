"""Heatmaps: rendering, the loss, decoding and the flip test."""

import pytest

from fastpose.benchmark import orders
from fastpose.benchmark.cases import HEATMAP


@pytest.mark.parametrize("group", orders.groups(HEATMAP), ids=orders.named)
def test_heatmap(measure, group):
    measure(group)
