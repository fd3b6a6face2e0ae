"""Shapes, layouts and helpers of the attention tests. Sizes come from the kernel's tiles: 48 lanes, blocks of 128."""

from __future__ import annotations

import torch
from torch import Tensor

from fastpose import ops

# (B, Ck, Cv, Nq, Nk)
SHAPES = [
    (1, 1, 1, 1, 1),
    (2, 3, 5, 1, 9),
    (2, 8, 16, 47, 127),
    (1, 16, 33, 48, 128),
    (1, 17, 8, 49, 129),
    (3, 4, 6, 99, 259),
    (1, 32, 64, 400, 70),
    (5, 2, 4, 16, 4),
]
LAYOUTS = ("positions", "channels", "sliced", "strided")


def arrange(tensor: Tensor, layout: str) -> Tensor:
    """The same numbers (B, C, N) in another memory layout."""
    if layout == "channels":
        return tensor.transpose(1, 2).contiguous().transpose(1, 2)
    if layout == "sliced":  # a slice of channels of a larger map, as a fused 1x1 convolution gives
        room = torch.full((tensor.shape[0], tensor.shape[1] + 5, tensor.shape[2]), 7.0, dtype=tensor.dtype)
        room[:, 2:-3] = tensor
        return room[:, 2:-3]
    if layout == "strided":  # no unit stride at all
        room = torch.full((*tensor.shape, 3), 7.0, dtype=tensor.dtype)
        room[..., 1] = tensor
        return room[..., 1]
    return tensor.contiguous()


def inputs(shape: tuple[int, ...], dtype: torch.dtype = torch.float64, layout: str = "positions") -> list[Tensor]:
    """Seeded query, key and value that require a gradient."""
    batch, ck, cv, nq, nk = shape
    generator = torch.Generator().manual_seed(sum(shape))
    sizes = ((batch, ck, nq), (batch, ck, nk), (batch, cv, nk))
    tensors = [torch.randn(size, dtype=torch.float64, generator=generator) for size in sizes]
    return [arrange(tensor.to(dtype), layout).requires_grad_() for tensor in tensors]


def three_orders(tensors: list[Tensor], backend: str, scale: float = 0.7) -> list[Tensor]:
    """Output, first gradients, and gradients of a fixed linear function of those: 1 + 3 + 4 tensors."""
    out = ops.nonlocal_attention(*tensors, scale=scale, backend=backend)
    generator = torch.Generator().manual_seed(1)

    def fixed(like: Tensor) -> Tensor:
        return torch.randn(like.shape, dtype=torch.float64, generator=generator).to(like.dtype)

    grad_out = fixed(out).requires_grad_()
    first = torch.autograd.grad(out, tensors, grad_out, create_graph=True)
    scalar = sum((gradient * fixed(gradient)).sum() for gradient in first)
    second = torch.autograd.grad(scalar, (*tensors, grad_out))
    return [out, *first, *second]


NAMES = ("out", "dq", "dk", "dv", "second q", "second k", "second v", "second do")
ORDERS = (0, 1, 1, 1, 2, 2, 2, 2)
