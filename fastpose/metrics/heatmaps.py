"""Monitors and decoding on heatmaps as pytorch-pose's training code has them; the monitor is not PCKh."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastpose import _checks
from fastpose.metrics._arrays import ArrayLike, as_double, as_mask, as_points
from fastpose.metrics.report import Result

MPII_MONITOR_JOINTS = (0, 1, 2, 3, 4, 5, 10, 11, 14, 15)  # without pelvis, thorax, head and shoulders


def heatmap_argmax(heatmaps: Tensor) -> tuple[Tensor, Tensor]:
    """Return the greatest cell of each plane.

    Args:
        heatmaps: (B, K, H, W).

    Returns:
        (B, K, 2) float32 cells as (x, y), 0-based, and (B, K) bool, false where the maximum is not above 0 (the cell
        is then (-1, -1), which lies outside the map).
    """
    _checks.tensor("heatmaps", heatmaps, "(B, K, H, W)", ranks=(4,))
    width = heatmaps.shape[-1]
    score, index = heatmaps.detach().flatten(2).max(-1)  # (B, K)
    found = score > 0  # NaN compares false
    cells = torch.stack((index % width, index.div(width, rounding_mode="floor")), dim=-1)  # (B, K, 2)
    return torch.where(found[..., None], cells, -1).float(), found


def heatmap_accuracy(
    heatmaps: Tensor,
    target: ArrayLike,
    visibility: ArrayLike | None = None,
    *,
    joints: Sequence[int] | None = None,
    threshold: float = 0.5,
    names: Sequence[str] | None = None,
) -> Result:
    """Share of joints whose heatmap peaks within ``threshold`` x W/10 cells of the target: a training monitor.

    Args:
        heatmaps: (B, K, H, W) prediction.
        target: (B, K, H, W) heatmaps, or (B, K, 2) key points in heatmap cells (rounded to the nearest cell).
        visibility: (B, K), > 0 where the joint counts; None counts every joint.
        joints: indices that enter the value (``MPII_MONITOR_JOINTS`` as published); None takes all.
        threshold: fraction of W/10.
        names: K joint names.

    Returns:
        a result whose value is the mean of the joints' percentages. As published, a target in the first row or column
        counts as missing. A batch without any joint gives value 0 with count 0.
    """
    predicted = heatmap_argmax(heatmaps)[0].to("cpu", torch.float64)  # (B, K, 2)
    truth = _cells(heatmaps, target)
    used = (truth > 0).all(-1) & as_mask("visibility", visibility, tuple(truth.shape[:2]))
    unit = heatmaps.shape[-1] / 10
    near = torch.linalg.vector_norm(predicted - truth, dim=-1) / unit <= threshold
    chosen = range(truth.shape[1]) if joints is None else joints
    counted = {k: int(used[:, k].sum()) for k in chosen}
    values = {k: 100.0 * int((near & used)[:, k].sum()) / number for k, number in counted.items() if number}
    return Result(
        name=f"heatmap accuracy@{threshold:g}",
        protocol=f"training monitor, not PCKh: heatmap peak <= {threshold:g} x W/10 cells from the target's, "
        "mean of the joints",
        value=sum(values.values()) / len(values) if values else 0.0,
        count=sum(counted.values()),
        per_joint={names[k] if names is not None else f"joint {k}": value for k, value in values.items()},
    )


def _cells(heatmaps: Tensor, target: ArrayLike) -> Tensor:
    """Return target cells (B, K, 2) float64 from heatmaps or key points."""
    if isinstance(target, Tensor) and target.dim() == 4:
        if target.shape != heatmaps.shape:
            raise ValueError(f"target: expected {tuple(heatmaps.shape)}, got {tuple(target.shape)}")
        return heatmap_argmax(target)[0].to("cpu", torch.float64)
    points = as_points("target", target, heatmaps.shape[1])
    if len(points) != len(heatmaps):
        raise ValueError(f"target: expected {tuple(heatmaps.shape[:2])} + (2,), got {tuple(points.shape)}")
    return torch.nan_to_num(points, nan=-1.0).add(0.5).floor()


def published_keypoints(heatmaps: Tensor, center: ArrayLike, scale: ArrayLike) -> Tensor:
    """Key points in image pixels as pytorch-pose's evaluation takes them from heatmaps.

    Quarter offset towards the higher neighbour (strictly inside the map), then half a cell, then the inverse crop
    transform with its truncation to whole pixels. Coordinates are 1-based, as in MPII's annotation.

    Args:
        heatmaps: (B, K, H, W).
        center: (B, 2) crop centres.
        scale: (B,) person size / 200 px.

    Returns:
        (B, K, 2) float64 whole numbers.
    """
    cells, _ = heatmap_argmax(heatmaps)
    one_based = (cells + 1).to("cpu", torch.float64)
    shifted = one_based + 0.25 * _uphill(heatmaps, cells) + 0.5
    return _to_image(shifted, as_double("center", center), as_double("scale", scale), heatmaps.shape[-2:])


def _uphill(heatmaps: Tensor, cells: Tensor) -> Tensor:
    """Return the sign of the central difference at each cell as (x, y), 0 outside the published interior."""
    height, width = heatmaps.shape[-2:]
    x, y = cells.long().unbind(-1)  # (B, K)
    # the released test is 1 < p < size in 1-based cells: the last row and column have no neighbour either
    inside = (x > 0) & (x < width - 1) & (y > 0) & (y < height - 1)
    x, y = x.clamp(1, max(width - 2, 1)), y.clamp(1, max(height - 2, 1))
    flat = heatmaps.detach().flatten(2)

    def at(row: Tensor, column: Tensor) -> Tensor:
        index = (row * width + column).clamp(0, height * width - 1)
        return flat.gather(2, index[..., None])[..., 0]

    difference = torch.stack((at(y, x + 1) - at(y, x - 1), at(y + 1, x) - at(y - 1, x)), dim=-1)
    return (difference.sign() * inside[..., None]).to("cpu", torch.float64)


def _to_image(points: Tensor, center: Tensor, scale: Tensor, size: Sequence[int]) -> Tensor:
    """Return 1-based heatmap points in 1-based image pixels: the inverse of the crop, truncated towards zero."""
    if center.shape != (len(points), 2) or scale.shape != (len(points),):
        raise ValueError(
            f"center and scale: expected {(len(points), 2)} and {(len(points),)}, "
            f"got {tuple(center.shape)} and {tuple(scale.shape)}"
        )
    side = 200.0 * scale[:, None, None]
    extent = torch.tensor([size[1], size[0]], dtype=torch.float64)  # (W, H)
    return ((points - 1) * side / extent + center[:, None] - side / 2).trunc() + 1
