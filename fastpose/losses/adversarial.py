"""Reconstruction losses of a discriminator that redraws its input (system 000, eq. 6, 8, 9 and 10)."""

from __future__ import annotations

import torch
from torch import Tensor

from fastpose import _checks

REDUCTIONS = ("mean", "half_sum")


def reconstruction_loss(reconstruction: Tensor, heatmaps: Tensor, *, reduction: str = "mean") -> Tensor:
    """Return how far a discriminator's redrawing is from the heatmaps it was shown.

    Args:
        reconstruction: D(heatmaps, image), (B, K, h, w).
        heatmaps: what the discriminator saw, (B, K, h, w); detach it where it is to be a constant target.
        reduction: "mean" over all elements (released code) or "half_sum", 1/2 of the sum over joints and
            positions, averaged over the batch (eq. 6, 8, 9).

    Returns:
        a scalar, differentiable twice in both arguments.

    Raises:
        ValueError: shapes differ or the reduction is unknown.
    """
    _checks.choice("reduction", reduction, REDUCTIONS)
    if reconstruction.shape != heatmaps.shape:
        raise ValueError(
            f"reconstruction: expected {tuple(heatmaps.shape)} (that of heatmaps), got {tuple(reconstruction.shape)}"
        )
    wide = torch.promote_types(reconstruction.dtype, torch.float32)  # 16-bit squares would underflow
    squared = (reconstruction.to(wide) - heatmaps.to(wide)).square()  # (B, K, h, w)
    if reduction == "mean":
        return squared.mean()
    return 0.5 * squared.sum() / max(heatmaps.shape[0], 1)


def discriminator_loss(real: Tensor, fake: Tensor, weight: Tensor | float) -> Tensor:
    """Return L_D = L_real - weight * L_gen (eq. 10); ``weight`` is lambda_D, or k_t under the equilibrium."""
    return real - weight * fake


def generator_loss(pose: Tensor, adversarial: Tensor, weight: float) -> Tensor:
    """Return L_G = L_mse + weight * L_adv (eq. 7); ``weight`` is lambda_G, 0.1 in the paper."""
    return pose + weight * adversarial
