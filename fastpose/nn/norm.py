"""Normalisation of image-to-image networks by name: over each image (``instance``) or over the batch (``batch``)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastpose import _checks

Norm = Literal["instance", "batch"]
NORMS: tuple[Norm, ...] = ("instance", "batch")
EPSILON = 1e-5


class InstanceNorm(nn.Module):
    """Each channel of each image at mean 0 and deviation 1 over its positions, (B, C, H, W) -> the same shape.

    ``torch.nn.InstanceNorm2d`` without weights and running statistics, in the memory order of its input: that one
    brings channels-last maps into the other order, and with them every layer behind it.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        if x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last):
            return functional.group_norm(x, self.channels, eps=EPSILON)
        if len(x) == 1:  # one image is its own batch, whose norm reads and writes less
            return functional.batch_norm(x, None, None, training=True, eps=EPSILON)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        centred = wide - wide.mean((2, 3), keepdim=True)  # first, since E[x^2] - E[x]^2 cancels
        variance = centred.square().mean((2, 3), keepdim=True)  # (B, C, 1, 1)
        return (centred * torch.rsqrt(variance + EPSILON)).to(x.dtype)

    def extra_repr(self) -> str:
        return str(self.channels)


def norm_layer(kind: Norm, channels: int) -> nn.Module:
    """Return the normalisation ``kind`` of ``channels`` channels; only ``batch`` has weights and running statistics."""
    _checks.choice("norm", kind, NORMS)
    return InstanceNorm(channels) if kind == "instance" else nn.BatchNorm2d(channels)


def needs_bias(kind: Norm) -> bool:
    """Return whether a convolution before this normalisation was given a bias: where the norm has none of its own."""
    return kind == "instance"
