"""The pose loss: heatmaps of every stack against Gaussians rendered on the fly, depth against the known one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastpose import _checks, ops

REDUCTIONS = ("mean", "half_sum", "sum")
DEPTH_REDUCTIONS = ("mean", "sum")
OVER = ("batch", "known")
MISSING = ("zero", "ignore")


def pose_loss(
    predictions: Sequence[Tensor],
    keypoints: Tensor,
    sigma: float,
    *,
    visibility: Tensor | None = None,
    missing: str = "zero",
    reduction: str = "mean",
    backend: str = "auto",
) -> Tensor:
    """Return the intermediate supervision of all stacks in one call; the target is never written to memory.

    It is eq. 4 and 5 of system 000 and the first term of eq. 2 of system 002.

    Args:
        predictions: heatmaps of each stack, S tensors (B, K, h, w).
        keypoints: (B, K, 2) as (x, y) in heatmap pixels.
        sigma: width of the target Gaussian in heatmap pixels (1 in the paper, 1.75 in the Torch codes).
        visibility: (B, K), > 0 where the joint is labelled.
        missing: a joint without label is asked to be an all-"zero" plane (published codes), or "ignore"d.
        reduction: "mean" over the elements of a stack, summed over stacks (released code), or "half_sum",
            1/2 of the sum over stacks, joints and positions, averaged over the batch (system 000, eq. 5), or "sum",
            the same without 1/2 (system 002, eq. 2).
        backend: of ``ops.heatmap_mse_loss``.

    Returns:
        a float32 (or wider) scalar, differentiable in the predictions.

    Raises:
        ValueError: no prediction, unequal shapes, unknown ``missing`` or ``reduction``.
    """
    _checks.choice("missing", missing, MISSING)
    _checks.choice("reduction", reduction, REDUCTIONS)
    if not predictions:
        raise ValueError("predictions: expected the heatmaps of at least one stack, got none")
    stacked = torch.stack(tuple(predictions), dim=1)  # (B, S, K, h, w)
    weight = (visibility > 0).to(stacked.dtype) if missing == "ignore" and visibility is not None else None
    loss = ops.heatmap_mse_loss(
        stacked,
        keypoints,
        sigma,
        visibility=visibility,
        weight=weight,
        reduction="mean" if reduction == "mean" else "sum",
        backend=backend,
    )
    if reduction == "mean":
        return loss * len(predictions)
    return (0.5 if reduction == "half_sum" else 1.0) * loss / max(stacked.shape[0], 1)


def depth_loss(depth: Tensor, target: Tensor, known: Tensor, *, reduction: str = "mean", over: str = "batch") -> Tensor:
    """Return the squared distance between predicted and known depth (system 002, eq. 2, second term).

    Args:
        depth: (B, K), of every joint.
        target: (B, K) in the same unit.
        known: (B, K), > 0 where ``target`` is the truth; elsewhere it may hold anything.
        reduction: "mean" over joints (released code of the backbone) or "sum" over joints (eq. 2); both averaged over
            samples.
        over: which samples: all of the "batch", so that those without truth count as 0 (released code; the share of
            3D samples in a batch scales the loss), or those that are "known", of the "mean" the known joints alone.

    Returns:
        a float32 (or wider) scalar, differentiable in ``depth``; 0 where nothing is known.

    Raises:
        ValueError: shapes differ, unknown ``reduction`` or ``over``.
    """
    _checks.choice("reduction", reduction, DEPTH_REDUCTIONS)
    _checks.choice("over", over, OVER)
    _checks.tensor("depth", depth, "(B, K)", ranks=(2,))
    _checks.shape("target", target, depth.shape, "(B, K)")
    _checks.shape("known", known, depth.shape, "(B, K)")
    wide, used = torch.promote_types(depth.dtype, torch.float32), known > 0
    total = torch.where(used, depth.to(wide) - target.to(wide), 0).square().sum()
    if over == "batch":
        return total / max(depth.numel() if reduction == "mean" else depth.shape[0], 1)
    return total / (used if reduction == "mean" else used.any(1)).sum().clamp(min=1)
