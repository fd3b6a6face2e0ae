"""The kernel set of heatmaps in Triton: the same names and arguments as the sets in C++ and CUDA."""

from __future__ import annotations

from fastpose.ops.heatmap._triton_decode import heatmap_decode
from fastpose.ops.heatmap._triton_loss import heatmap_mse_loss, heatmap_mse_loss_bwd, heatmap_mse_loss_bwd2
from fastpose.ops.heatmap._triton_render import heatmap_render, heatmap_render_bwd, heatmap_render_bwd2
from fastpose.ops.heatmap._triton_softargmax import flip_average, softargmax, softargmax_bwd, softargmax_bwd2

__all__ = [
    "flip_average",
    "heatmap_decode",
    "heatmap_mse_loss",
    "heatmap_mse_loss_bwd",
    "heatmap_mse_loss_bwd2",
    "heatmap_render",
    "heatmap_render_bwd",
    "heatmap_render_bwd2",
    "softargmax",
    "softargmax_bwd",
    "softargmax_bwd2",
]
