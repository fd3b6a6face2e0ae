"""Pictures: skeleton overlays, poses in space and from captions, heatmaps, attention maps, pose transfer, features, films,
histograms, reports."""

from fastpose.visual import (
    captions,
    composition,
    curves,
    features,
    grids,
    heatmaps,
    histograms,
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
    "poses3d",
    "report",
    "sequences",
    "skeletons",
    "study",
    "transfer",
]
