"""Joints as coordinates in the crop's cube, from heatmaps and depths, differentiable twice (system 002).

The crop spans -1..1 along each axis: x runs right, y down, z away from the camera with the root joint at 0, in units of
half a crop side. The column u of a heatmap of width W stands at x = 2 u / W - 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from fastpose import _checks, ops

Method = Literal["softargmax", "straight_through"]
METHODS: tuple[Method, ...] = ("softargmax", "straight_through")
TEMPERATURE = 0.1
"""A bell of sigma 1 is found within 0.16 pixels wherever it stands, one of 1.75 within 0.02; at 0.04 within 0.3."""
REACH = 4
"""Pixels each way from the maximum in which the soft maximum looks: a second maximum elsewhere has no part in it."""
FAINT = 0.01
"""Heatmaps whose peak is lower are not brought to height 1: noise is no joint."""


def joints_3d(
    heatmaps: Tensor,
    depth: Tensor,
    *,
    method: Method = "softargmax",
    temperature: float = TEMPERATURE,
) -> Tensor:
    """Return the joints (B, K, 3) in the crop's cube that heatmaps (B, K, H, W) and depths (B, K) say.

    The paper does not say how coordinates reach its discriminator; both ways are ours. ``softargmax`` is the expected
    pixel, within `REACH` of the maximum, under softmax(heatmap at height 1 / temperature): how high a peak is does not
    matter, so that an unsure joint stands where it is found at test. ``straight_through`` is the pixel of the maximum
    with the derivatives of the soft one. Differentiable twice in heatmaps and depth; the result has the heatmaps' type,
    float32 for 16 bits. Raises ``ValueError`` for shapes that do not agree, an unknown method, a temperature that is
    not positive.
    """
    _checks.choice("method", method, METHODS)
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature: expected a positive finite number, got {temperature!r}")
    found, _ = ops.decode_heatmaps(heatmaps, method="argmax")  # (B, K, 2)
    near = at_height_one(heatmaps).masked_fill(~_near(found, heatmaps.shape[-2:]), -math.inf)
    points, _ = ops.decode_heatmaps(near, method="softargmax", beta=1 / temperature)  # (B, K, 2)
    if method == "straight_through":
        points = found + (points - points.detach())  # the value of the first, exactly: the rest is 0
    height, width = heatmaps.shape[-2:]
    return cube(points, depth, (height, width))


def at_height_one(heatmaps: Tensor) -> Tensor:
    """Return heatmaps (B, K, H, W) over the peaks of their planes, over `FAINT` where those are lower."""
    return heatmaps / heatmaps.amax((2, 3), keepdim=True).clamp(min=FAINT)


def cube(keypoints: Tensor, depth: Tensor, size: Sequence[int]) -> Tensor:
    """Return key points (B, K, 2) in pixels of heatmaps of ``size`` (H, W) with depths (B, K) as joints (B, K, 3).

    x = 2 u / W - 1, y = 2 v / H - 1, z = depth. Raises ``ValueError`` for shapes that do not agree.
    """
    _checks.tensor("keypoints", keypoints, "(B, K, 2)")
    _checks.shape("keypoints", keypoints, (None, None, 2), "(B, K, 2)")
    _checks.tensor("depth", depth, "(B, K)")
    _checks.shape("depth", depth, keypoints.shape[:2], "(B, K)")
    height, width = _checked_size(size)
    x, y = keypoints.unbind(-1)  # (B, K)
    return torch.stack((2 * x / width - 1, 2 * y / height - 1, depth.to(x.dtype)), dim=-1)  # (B, K, 3)


def heatmap_pixels(joints: Tensor, size: Sequence[int]) -> Tensor:
    """Return joints (B, K, 3) in the crop's cube as key points (B, K, 2) in pixels of heatmaps of ``size`` (H, W)."""
    _checks.tensor("joints", joints, "(B, K, 3)")
    _checks.shape("joints", joints, (None, None, 3), "(B, K, 3)")
    height, width = _checked_size(size)
    x, y, _ = joints.unbind(-1)  # (B, K)
    return torch.stack(((x + 1) * width / 2, (y + 1) * height / 2), dim=-1)  # (B, K, 2)


def _near(points: Tensor, size: Sequence[int]) -> Tensor:
    """Return which pixels (B, K, H, W) are within `REACH` of points (B, K, 2)."""
    x, y = points.unbind(-1)  # (B, K)
    rows, columns = (torch.arange(length, device=points.device) for length in size)
    across = (columns - x[..., None]).abs() <= REACH  # (B, K, W)
    down = (rows - y[..., None]).abs() <= REACH  # (B, K, H)
    return down[..., None] & across[..., None, :]


def _checked_size(size: Sequence[int]) -> Sequence[int]:
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size: expected (H, W) of at least 1 x 1, got {tuple(size)}")
    return size
