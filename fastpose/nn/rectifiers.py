"""Rectifiers of image-to-image networks, in place since the norms before them keep their inputs, not their outputs."""

from __future__ import annotations

from torch import nn


def relu() -> nn.Module:
    """Return the rectifier max(x, 0)."""
    return nn.ReLU(inplace=True)


def leaky_relu() -> nn.Module:
    """Return the rectifier of DCGAN's and pix2pix's discriminators: max(x, 0.2 x)."""
    return nn.LeakyReLU(0.2, inplace=True)
