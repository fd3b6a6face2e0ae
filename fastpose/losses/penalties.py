"""Penalties on the gradient of a critic (Gulrajani et al. 2017; one-sided: Petzka et al. 2018)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fastpose import _checks

FORMS = ("gp", "lp")


def gradient_penalty(
    critic: Callable[..., Tensor],
    real: Sequence[Tensor],
    fake: Sequence[Tensor],
    *,
    form: str = "gp",
    separate: bool = False,
    share: Tensor | None = None,
) -> Tensor:
    """Return how far the critic's gradient is from norm 1 between real and generated samples, the mean over samples.

    Each sample is a point on the line from a real to a generated one, all its inputs at the same place of the line. A
    condition that both have in common is an input where the critic is to be smooth in it too (system 004, eq. 9), else
    it belongs into ``critic`` itself.

    Args:
        critic: (input, ...) -> scores (B, ...), one or several per sample; samples must not influence each other, as
            they do through batch norm in training mode.
        real, fake: the critic's inputs, one tensor (B, ...) each, of equal shapes; they get no gradient.
        form: "gp", (norm - 1)^2, or "lp", the same where the norm is above 1, else 0.
        separate: the norm of each input's gradient is penalised by itself and the penalties are added (system 004,
            eq. 9 as printed); else one norm is over all inputs together (as released for it). An input that the critic
            does not read adds nothing.
        share: (B,) how much of each point is real; drawn uniformly from 0 to 1 when None.

    Returns:
        a float32 (or wider) scalar, also under autocast, differentiable twice in the critic's parameters; value and
        derivatives are finite where the critic's gradient is zero, or too small for its square (1e-19 in float32):
        such a sample counts by its value alone.

    Raises:
        ValueError: unknown form, no input, or shapes that differ.
    """
    _checks.choice("form", form, FORMS)
    _check_pairs(real, fake)
    count, device = real[0].shape[0], real[0].device
    with torch.autocast(device.type, enabled=False), torch.enable_grad():
        if share is None:
            share = torch.rand(count, device=device)
        points = [_between(*pair, share).requires_grad_() for pair in zip(real, fake, strict=True)]
        scores = critic(*points)
        gradients = torch.autograd.grad(scores.sum(), points, create_graph=True, allow_unused=True)
        seen = [gradient.flatten(1) for gradient in gradients if gradient is not None]
        if not seen:
            raise ValueError("critic: expected scores that depend on its inputs, got none that do")
        groups = seen if separate else [torch.cat(seen, dim=1)]
        return torch.stack([_excess(group, form) for group in groups]).sum()


def _excess(gradient: Tensor, form: str) -> Tensor:
    """Return how far the norms of the rows (B, D) are from 1, or above it, squared; the mean over rows."""
    # The norm of a zero vector has the subgradient 0 in torch, but NaN beyond it: rows that are zero, or so
    # small that their squares lose their digits, pass no derivative at all.
    flat = torch.linalg.vector_norm(gradient.detach(), dim=1) < torch.finfo(gradient.dtype).tiny ** 0.5  # (B,)
    norm = torch.linalg.vector_norm(torch.where(flat[:, None], 1.0, gradient), dim=1)
    excess = torch.where(flat, 0.0, norm) - 1
    return (excess if form == "gp" else excess.clamp(min=0)).square().mean()


def _between(real: Tensor, fake: Tensor, share: Tensor) -> Tensor:
    """Return share * real + (1 - share) * fake, float32 or wider, without history."""
    wide = torch.promote_types(real.dtype, torch.float32)
    weight = share.to(wide).view(-1, *[1] * (real.dim() - 1))  # (B, 1, ...)
    return torch.lerp(fake.detach().to(wide), real.detach().to(wide), weight)


def _check_pairs(real: Sequence[Tensor], fake: Sequence[Tensor]) -> None:
    shapes, others = [tuple(one.shape) for one in real], [tuple(one.shape) for one in fake]
    if not shapes or shapes != others or any(not shape or shape[0] < 1 for shape in shapes):
        raise ValueError(f"real, fake: expected inputs of equal shapes (B, ...) with B >= 1, got {shapes} and {others}")
