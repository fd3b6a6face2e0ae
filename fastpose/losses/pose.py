"""The pose loss: heatmaps of every stack against Gaussians rendered on the fly (system 000, eq. 4 and 5)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastpose import _checks, ops

REDUCTIONS = ("mean", "half_sum")
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

    Args:
        predictions: heatmaps of each stack, S tensors (B, K, h, w).
        keypoints: (B, K, 2) as (x, y) in heatmap pixels.
        sigma: width of the target Gaussian in heatmap pixels (1 in the paper, 1.75 in the Torch codes).
        visibility: (B, K), > 0 where the joint is labelled.
        missing: a joint without label is asked to be an all-"zero" plane (published codes), or "ignore"d.
        reduction: "mean" over the elements of a stack, summed over stacks (released code), or "half_sum",
            1/2 of the sum over stacks, joints and positions, averaged over the batch (eq. 5).
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
    return loss * len(predictions) if reduction == "mean" else 0.5 * loss / max(stacked.shape[0], 1)
