"""Heatmaps: rendering, the loss, decoding and the flip test."""

import pytest

from fastpose.benchmark import orders
from fastpose.benchmark.cases import HEATMAP


@pytest.mark.parametrize("job", orders.jobs(HEATMAP), ids=str)
def test_heatmap(measure, job):
    measure(job)
