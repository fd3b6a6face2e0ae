"""A seeded call of every operation, large enough for several threads, and its results as bytes.

Processes of the tests run this file's calls too, so it leans on nothing else of the tests.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fastpose import ops

METHODS = ("argmax", "quarter", "dark", "dark_udp", "softargmax")


def calls(seed: int = 0) -> dict[str, Callable[[], bytes]]:
    """Every operation by name; no gradient is wanted."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    query, key, value = normal(2, 8, 20, 20), normal(2, 8, 10, 10), normal(2, 16, 10, 10)
    residual, gamma = normal(2, 16, 20, 20), normal(1)
    points, planes, other = normal(4, 17, 2) * 20 + 24, normal(4, 17, 40, 48), normal(4, 17, 40, 48)
    joints, depth = normal(64, 17, 3), normal(4, 17)
    return {
        "attention": lambda: raw(ops.nonlocal_attention(query, key, value)),
        "residual": lambda: raw(ops.nonlocal_attention_residual(query, key, value, residual, gamma)),
        "descriptor": lambda: raw(ops.pairwise_descriptor(joints)),
        "heatmaps": lambda: raw(ops.render_gaussian_heatmaps(points, (40, 48), 2.0)),
        "depth maps": lambda: raw(ops.render_depth_maps(points, depth, (40, 48), 2.0)),
        "loss": lambda: raw(ops.heatmap_mse_loss(planes, points, 2.0)),
        "flip": lambda: raw(ops.flip_average(planes, other, ((0, 1), (2, 5)))),
        **{
            method: lambda method=method: raw(*ops.decode_heatmaps(planes, method))  # type: ignore[misc]
            for method in METHODS
        },
    }


def gradients(seed: int = 0) -> dict[str, Callable[[], bytes]]:
    """First and second derivatives of the operations that have them."""
    generator = torch.Generator().manual_seed(seed)

    def leaf(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).requires_grad_()

    maps = leaf(2, 8, 12, 12), leaf(2, 8, 6, 6), leaf(2, 16, 6, 6)
    points, planes, joints = leaf(4, 17, 2), leaf(4, 17, 32, 48), leaf(32, 17, 2)
    return {
        "attention": lambda: twice(ops.nonlocal_attention, *maps),
        "descriptor": lambda: twice(ops.pairwise_descriptor, joints),
        "heatmaps": lambda: twice(lambda p: ops.render_gaussian_heatmaps(p, (32, 48), 2.0), points),
        "loss": lambda: twice(lambda x, p: ops.heatmap_mse_loss(x, p, 2.0), planes, points),
        "softargmax": lambda: twice(lambda x: ops.decode_heatmaps(x, "softargmax", beta=2.0)[0], planes),
        "flip": lambda: twice(lambda x: ops.flip_average(x, x, ((0, 1),)), planes),
    }


def twice(function: Callable[..., Tensor], *leaves: Tensor) -> bytes:
    """The first and second derivatives of a sum of squares of the result."""
    first = torch.autograd.grad(function(*leaves).square().sum(), leaves, create_graph=True)
    second = torch.autograd.grad(sum(gradient.square().sum() for gradient in first), leaves)
    return raw(*first, *second)


def raw(*tensors: Tensor) -> bytes:
    return b"".join(tensor.detach().numpy().tobytes() for tensor in tensors)
