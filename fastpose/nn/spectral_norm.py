"""Spectral norm of convolutions, in full precision under autocast too (Miyato et al., ICLR 2018; system 001)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

FIRST_ITERATIONS = 15
"""Power iterations before the first step, as PyTorch's parametrization does."""


class SpectralNorm(nn.Module):
    """A weight (out, ...) divided by its largest singular value as a matrix (out, rest) -> the same shape.

    The equations, buffers and key names of ``torch.nn.utils.parametrizations.spectral_norm``: one power iteration at
    each use in training mode, none in evaluation mode. That one multiplies in 16 bits under CUDA's autocast, which
    moves the singular value by up to a hundredth; here all is float32 (or wider) whatever autocast says.
    """

    _u: Tensor
    _v: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        matrix = _matrix(weight.detach())
        for name, size in zip(("_u", "_v"), matrix.shape, strict=True):
            drawn = matrix.new_empty(size).normal_(0, 1)
            self.register_buffer(name, functional.normalize(drawn, dim=0).to(weight.dtype))
        if not matrix.is_meta:  # shapes alone have no singular value, and torch takes a second for the attempt
            self._iterate(matrix, FIRST_ITERATIONS)

    def forward(self, weight: Tensor) -> Tensor:
        with _full_precision(weight.device):
            matrix = _matrix(weight)
            if self.training:
                self._iterate(matrix.detach(), 1)
            # copies: the next iteration must not change what a backward pass waits for
            u, v = (vector.to(matrix.dtype, copy=True) for vector in (self._u, self._v))
            return (weight / torch.vdot(u, torch.mv(matrix, v))).to(weight.dtype)

    @torch.no_grad()
    def _iterate(self, matrix: Tensor, times: int) -> None:
        u, v = self._u.to(matrix.dtype), self._v.to(matrix.dtype)
        for _ in range(times):
            u = functional.normalize(torch.mv(matrix, v), dim=0)
            v = functional.normalize(torch.mv(matrix.mT, u), dim=0)
        self._u.copy_(u)
        self._v.copy_(v)


def normalise_spectra(network: nn.Module) -> None:
    """Divide the weight of every convolution in a network by its largest singular value, from now on."""
    for module in [module for module in network.modules() if isinstance(module, nn.Conv2d)]:
        parametrize.register_parametrization(module, "weight", SpectralNorm(module.weight))


def _matrix(weight: Tensor) -> Tensor:
    """The weight as a matrix (out, rest), float32 at least."""
    return weight.flatten(1).to(torch.promote_types(weight.dtype, torch.float32))


def _full_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Autocast switched off where the device has one; "meta" has none."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
