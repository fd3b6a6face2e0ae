"""Pictures: skeleton overlays, poses in space, heatmaps, attention maps, pose transfer, features, films, reports."""

from fastpose.visual import curves, features, grids, heatmaps, poses3d, report, sequences, skeletons, study, transfer

__all__ = [
    "curves",
    "features",
    "grids",
    "heatmaps",
    "poses3d",
    "report",
    "sequences",
    "skeletons",
    "study",
    "transfer",
]
