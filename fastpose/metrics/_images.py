"""Checks of images that are compared: uint8 RGB tensors (B, 3, H, W)."""

from __future__ import annotations

import torch
from torch import Tensor


def check_images(argument: str, images: object) -> Tensor:
    """Return ``images``; ``TypeError`` or ``ValueError`` unless it is a uint8 tensor (B, 3, H, W)."""
    if not isinstance(images, Tensor):
        raise TypeError(f"{argument}: expected a uint8 tensor (B, 3, H, W), got {type(images).__name__}")
    if images.dtype != torch.uint8:
        raise TypeError(
            f"{argument}: expected uint8 images of 0..255, got {images.dtype}; from [-1, 1] they are "
            "((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)"
        )
    if images.dim() != 4 or images.shape[1] != 3 or 0 in images.shape[2:]:
        raise ValueError(f"{argument}: expected (B, 3, H, W), got {tuple(images.shape)}")
    return images


def check_pair(generated: object, target: object) -> tuple[Tensor, Tensor]:
    """Return both; raise unless they are images of one shape on one device."""
    ours, truth = check_images("generated", generated), check_images("target", target)
    if ours.shape != truth.shape:
        raise ValueError(f"generated: expected {tuple(truth.shape)} as the target has, got {tuple(ours.shape)}")
    if ours.device != truth.device:
        raise ValueError(f"generated: expected device {truth.device} (that of target), got {ours.device}")
    return ours, truth
