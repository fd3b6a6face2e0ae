"""Residual layers: the pre-activation module of every hourglass (systems 000, 002), the plain sum (001, 003)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from fastpose import _checks

Skip = Literal["conv", "bn_relu_conv"]
SKIPS: tuple[Skip, ...] = ("conv", "bn_relu_conv")


def norm_relu(channels: int) -> tuple[nn.Module, nn.Module]:
    """Return a batch norm and the rectifier behind it, in place since the norm keeps its input, not its output."""
    return nn.BatchNorm2d(channels), nn.ReLU(inplace=True)


def bottleneck(in_channels: int, out_channels: int, middle: int | None = None) -> nn.Sequential:
    """Return the body of a residual module without its skip: three convolutions, each behind a norm and a rectifier.

    (B, in_channels, H, W) -> (B, out_channels, H, W); in between ``middle``, half of the output unless given.
    """
    middle = out_channels // 2 if middle is None else middle
    return nn.Sequential(
        *norm_relu(in_channels),
        nn.Conv2d(in_channels, middle, kernel_size=1),
        *norm_relu(middle),
        nn.Conv2d(middle, middle, kernel_size=3, padding=1),
        *norm_relu(middle),
        nn.Conv2d(middle, out_channels, kernel_size=1),
    )


def skip_connection(in_channels: int, out_channels: int, kind: Skip = "conv") -> nn.Module:
    """Return the way around a residual body: the identity where the channels agree, else a 1x1 convolution.

    ``conv`` is the plain convolution of Newell et al. and of pytorch-pose; ``bn_relu_conv`` puts a norm and a rectifier
    before it, as PyraNet and the released Hg-SAGAN do.
    """
    _checks.choice("skip", kind, SKIPS)
    if in_channels == out_channels:
        return nn.Identity()
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size=1)
    return convolution if kind == "conv" else nn.Sequential(*norm_relu(in_channels), convolution)


class Residual(nn.Module):
    """Newell et al.'s residual module, a pre-activation bottleneck: ``body(x) + skip(x)``.

    (B, in_channels, H, W) -> (B, out_channels, H, W). ``middle`` is the width of the bottleneck, half of the output
    unless given; ``skip`` names the connection where the channels differ (see `skip_connection`).
    """

    def __init__(self, in_channels: int, out_channels: int, *, middle: int | None = None, skip: Skip = "conv") -> None:
        super().__init__()
        self.body = bottleneck(in_channels, out_channels, middle)
        self.skip = skip_connection(in_channels, out_channels, skip)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.skip(x)


class ResidualSum(nn.Module):
    """A body of one's own and a sum with nothing behind it: ``x + body(x)``, (B, C, H, W) -> the same shape."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)
