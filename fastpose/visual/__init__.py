"""Pictures: skeletons, heatmaps, poses in space and from captions, pose transfer, features, films, curves, reports."""

from fastpose.visual import (
    captions,
    composition,
    curves,
    features,
    grids,
    heatmaps,
    histograms,
    measurements,
    poses3d,
    report,
    sequences,
    skeletons,
    study,
    transfer,
)

__all__ = [
    "captions",
    "composition",
    "curves",
    "features",
    "grids",
    "heatmaps",
    "histograms",
    "measurements",
    "poses3d",
    "report",
    "sequences",
    "skeletons",
    "study",
    "transfer",
]
