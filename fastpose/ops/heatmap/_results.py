"""What every backend of the heatmap operations shares: its arithmetic, and the results' shapes and strides."""

from __future__ import annotations

import torch
from torch import Tensor

from fastpose.ops._dispatch import Inputs, Parameters


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype that arithmetic on ``dtype`` is done in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _empty(like: Tensor, size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Uninitialised, on the device of ``like``; to name a dtype costs half a microsecond."""
    return like.new_empty(size) if like.dtype == dtype else like.new_empty(size, dtype=dtype)


def empty_heatmaps(inputs: Inputs, parameters: Parameters) -> tuple[Tensor]:
    """Uninitialised planes (B, K, H, W)."""
    keypoints = inputs[0]
    height, width, _, dtype = parameters
    batch, joints, _ = keypoints.shape
    return (_empty(keypoints, (batch, joints, height, width), dtype),)


def empty_loss(inputs: Inputs, parameters: Parameters) -> tuple[Tensor]:
    """Uninitialised scalar."""
    return (_empty(inputs[0], (), wide(inputs[0].dtype)),)


def empty_points(inputs: Inputs, parameters: Parameters) -> tuple[Tensor, Tensor]:
    """Uninitialised coordinates (B, K, 2) and scores (B, K)."""
    (heatmaps,) = inputs
    batch, joints, _, _ = heatmaps.shape
    dtype = wide(heatmaps.dtype)
    return _empty(heatmaps, (batch, joints, 2), dtype), _empty(heatmaps, (batch, joints), dtype)


def empty_soft_points(inputs: Inputs, parameters: Parameters) -> tuple[Tensor, Tensor, Tensor]:
    """Uninitialised coordinates (B, K, 2), scores (B, K) and sums of the weights (B, K)."""
    coordinates, scores = empty_points(inputs, parameters)
    return coordinates, scores, torch.empty_like(scores)


def empty_average(inputs: Inputs, parameters: Parameters) -> tuple[Tensor]:
    """Uninitialised (B, K, H, W)."""
    return (torch.empty_like(inputs[0]),)
