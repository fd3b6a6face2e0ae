"""Pictures: skeleton overlays, heatmaps, attention maps, grids, curves and the report page."""

from fastpose.visual import curves, grids, heatmaps, report, skeletons

__all__ = ["curves", "grids", "heatmaps", "report", "skeletons"]
