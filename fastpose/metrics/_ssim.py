"""Structural similarity of Wang et al. on blocks of images, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_K1, _K2 = 0.01, 0.03
# Values of one image block: few enough to stay in a CPU's cache, many enough to fill a GPU.
_BLOCK = {"cpu": 2**18, "cuda": 2**22}


def gaussian(radius: int = 5, sigma: float = 1.5) -> tuple[float, ...]:
    """Return the 2 radius + 1 weights of a Gaussian window along one axis; their sum is 1."""
    weights = [math.exp(-(offset**2) / (2 * sigma**2)) for offset in range(-radius, radius + 1)]
    return tuple(weight / sum(weights) for weight in weights)


def uniform(size: int = 7) -> tuple[float, ...]:
    """Return ``size`` equal weights."""
    return (1 / size,) * size


def in_blocks(measure: Callable[[Tensor, Tensor], Tensor], first: Tensor, second: Tensor) -> Tensor:
    """Return ``measure`` of images (B, 3, H, W) as (B,), some at a time, so that memory does not grow with B."""
    if not len(first):
        return first.new_zeros(0, dtype=torch.float64)
    size = max(1, _BLOCK.get(first.device.type, _BLOCK["cpu"]) // first[0].numel())
    parts = zip(first.split(size), second.split(size), strict=True)
    return torch.cat([measure(*(part.contiguous() for part in pair)) for pair in parts])


def ssim(first: Tensor, second: Tensor, data_range: Tensor, weights: Sequence[float], *, sample: bool) -> Tensor:
    """Return the mean structural similarity of each pair, (B,) float64.

    Args:
        first, second: (B, 3, H, W) uint8, at least the window's size.
        data_range: (B,) float64, the range R in C1 = (0.01 R)^2 and C2 = (0.03 R)^2.
        weights: of the window along one axis; only windows that lie inside the image count.
        sample: whether variances are divided by n - 1 for a window of n pixels, instead of n.
    """
    x, y = first.to(torch.float64), second.to(torch.float64)
    mean_x, mean_y = _window(x, weights), _window(y, weights)  # (B, 3, h, w)
    scale = len(weights) ** 2 / (len(weights) ** 2 - 1) if sample else 1.0
    covariance = (_window(x * y, weights) - mean_x * mean_y) * scale
    variances = (_window(x.square() + y.square(), weights) - mean_x.square() - mean_y.square()) * scale
    c1, c2 = ((k * data_range.view(-1, 1, 1, 1)).square() for k in (_K1, _K2))
    luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    return (luminance * (2 * covariance + c2) / (variances + c2)).mean((1, 2, 3))


def _window(maps: Tensor, weights: Sequence[float]) -> Tensor:
    """Return the weighted window means of (B, C, H, W) that need nothing from outside: (B, C, H - n + 1, W - n + 1).

    A sum of shifted copies is several times faster in float64 on a CPU than a convolution.
    """
    for dim in (2, 3):
        length = maps.shape[dim] - len(weights) + 1
        total = maps.narrow(dim, 0, length) * weights[0]
        for offset, weight in enumerate(weights[1:], start=1):
            total.add_(maps.narrow(dim, offset, length), alpha=weight)
        maps = total
    return maps
