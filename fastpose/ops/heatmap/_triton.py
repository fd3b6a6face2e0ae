"""Heatmaps by the Triton kernels."""

from fastpose.ops import _places
from fastpose.ops.heatmap._kernels import backends

(
    render_gaussian_heatmaps,
    render_depth_maps,
    heatmap_mse_loss,
    decode_heatmaps,
    softargmax,
    flip_average,
) = backends(_places.TRITON)
