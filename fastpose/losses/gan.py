"""The adversarial criteria: scores against labels (system 001, eq. 9; 002, eq. 3 and 4; 003), and a critic's scores."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from fastpose import _checks

CRITERIA = ("bce", "lsgan")


def gan_loss(scores: Tensor, real: bool, *, criterion: str = "lsgan", probabilities: bool = False) -> Tensor:
    """Return how far a discriminator's scores are from "all real" (1) or "all generated" (0), the mean over all.

    Args:
        scores: of any shape, (B, C, h, w) or (B, 1, h, w) of a patch discriminator.
        real: the label wanted: true for real images and for the generator's own loss, false for generated ones.
        criterion: "bce" (log losses of eq. 9) or "lsgan" (squared distance to the label).
        probabilities: of "bce": the scores went through a sigmoid already (as released for system 001). Logits, the
            default, give the same value and keep their gradient where a sigmoid is saturated.

    Returns:
        a float32 (or wider) scalar, also under autocast; finite, with a finite gradient, for all finite scores.

    Raises:
        ValueError: unknown criterion, or no score.
    """
    _checks.choice("criterion", criterion, CRITERIA)
    wide = _wide(scores)
    if criterion == "lsgan":
        return (wide - float(real)).square().mean()
    label = torch.full_like(wide, float(real))
    with torch.autocast(wide.device.type, enabled=False):  # torch refuses the first of these under it
        if probabilities:
            return functional.binary_cross_entropy(wide, label)
        return functional.binary_cross_entropy_with_logits(wide, label)


def wasserstein_loss(scores: Tensor, real: bool) -> Tensor:
    """Return what a critic's scores cost: minus their mean for real samples, their mean for generated ones.

    The critic minimises the sum of both, with a penalty on its gradient (see ``gradient_penalty``); the generator
    minimises that of its samples with ``real`` true (Arjovsky et al. 2017).

    Args:
        scores: of any shape, (B,) or (B, ...); no sigmoid before it.
        real: as in ``gan_loss``.

    Returns:
        a float32 (or wider) scalar, also under autocast.

    Raises:
        ValueError: no score.
    """
    mean = _wide(scores).mean()
    return -mean if real else mean


def _wide(scores: Tensor) -> Tensor:
    """Return the scores as float32 or wider; raises unless there is one."""
    _checks.tensor("scores", scores, "(B, ...)")
    if scores.numel() == 0:
        raise ValueError(f"scores: expected at least one, got {tuple(scores.shape)}")
    return scores.to(torch.promote_types(scores.dtype, torch.float32))
