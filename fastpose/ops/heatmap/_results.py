"""What every backend of the heatmap operations shares: its arithmetic, and the results' shapes and strides."""

from __future__ import annotations

import torch
from torch import Tensor

from fastpose.ops._dispatch import Inputs, Parameters


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype that arithmetic on ``dtype`` is done in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def empty_heatmaps(inputs: Inputs, parameters: Parameters) -> tuple[Tensor]:
    """Uninitialised planes (B, K, H, W)."""
    keypoints = inputs[0]
    height, width, _, dtype = parameters
    return (keypoints.new_empty((*keypoints.shape[:2], height, width), dtype=dtype),)


def empty_loss(inputs: Inputs, parameters: Parameters) -> tuple[Tensor]:
    """Uninitialised scalar."""
    return (inputs[0].new_empty((), dtype=wide(inputs[0].dtype)),)


def empty_points(inputs: Inputs, parameters: Parameters) -> tuple[Tensor, Tensor]:
    """Uninitialised coordinates (B, K, 2) and scores (B, K)."""
    (heatmaps,) = inputs
    scores = heatmaps.new_empty(heatmaps.shape[:2], dtype=wide(heatmaps.dtype))
    return scores.new_empty((*heatmaps.shape[:2], 2)), scores


def empty_soft_points(inputs: Inputs, parameters: Parameters) -> tuple[Tensor, Tensor, Tensor]:
    """Uninitialised coordinates (B, K, 2), scores (B, K) and sums of the weights (B, K)."""
    coordinates, scores = empty_points(inputs, parameters)
    return coordinates, scores, torch.empty_like(scores)


def empty_average(inputs: Inputs, parameters: Parameters) -> tuple[Tensor]:
    """Uninitialised (B, K, H, W)."""
    return (torch.empty_like(inputs[0]),)
