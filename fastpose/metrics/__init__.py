"""Metrics as named protocols: PCK, PCKh, curves and AUC, OKS-AP, streaming accumulators, results and their table."""

from fastpose.metrics import accumulate, heatmaps, keypoints_2d, oks, protocols, report
from fastpose.metrics.accumulate import PCKAccumulator
from fastpose.metrics.report import Result

__all__ = [
    "PCKAccumulator",
    "Result",
    "accumulate",
    "heatmaps",
    "keypoints_2d",
    "oks",
    "protocols",
    "report",
]
