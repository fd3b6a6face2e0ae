"""Operations on feature maps, heatmaps and joints; see each function's docstring."""

from fastpose.ops._explain import explain, operations
from fastpose.ops.attention.functional import attention_rows, nonlocal_attention, nonlocal_attention_residual
from fastpose.ops.geometry.functional import pairwise_descriptor
from fastpose.ops.heatmap.functional import (
    decode_heatmaps,
    flip_average,
    heatmap_mse_loss,
    render_depth_maps,
    render_gaussian_heatmaps,
)

__all__ = [
    "attention_rows",
    "decode_heatmaps",
    "explain",
    "flip_average",
    "heatmap_mse_loss",
    "nonlocal_attention",
    "nonlocal_attention_residual",
    "operations",
    "pairwise_descriptor",
    "render_depth_maps",
    "render_gaussian_heatmaps",
]
