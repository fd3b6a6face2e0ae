"""Pictures: skeleton overlays, heatmaps, attention maps, pose transfer, features, films, grids, curves and reports."""

from fastpose.visual import curves, features, grids, heatmaps, report, sequences, skeletons, study, transfer

__all__ = ["curves", "features", "grids", "heatmaps", "report", "sequences", "skeletons", "study", "transfer"]
