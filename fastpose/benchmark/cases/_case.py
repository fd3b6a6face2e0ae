"""What a case is: an operation at one size, its tensors, its rivals, and the least work it has to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Tensors = tuple[Tensor, ...]
FORWARD, BACKWARD, DOUBLE = ORDERS = ("forward", "forward+backward", "double backward")
PENALTY = "gradient penalty"  # forward, first gradients with their graph, and the gradient of those, in one number
AVX2, FLOAT32 = ALSO = ("cpu avx2", "cpu float32")  # the CPU kernels held to AVX2; and in float32 on the same numbers


@dataclass(frozen=True)
class Work:
    """The least a call has to do: floating-point operations, bytes read and bytes written once each."""

    flop: float = 0
    read: float = 0
    written: float = 0


@dataclass(frozen=True)
class Case:
    """One operation at one size.

    Attributes:
        operation: name in ``fastpose.ops``.
        size: the size in words; with the operation it names the case.
        make: device -> the tensors of the call, the same numbers every time.
        call: the operation on those tensors, with ``backend=`` where ``table`` is given.
        table: whose list of backends holds for it; None for an operation without backends.
        others: other ways to compute the same in PyTorch, by name.
        work: what each order has to do; the orders timed are its keys.
        also: further ways of ours: of ``ALSO``.
        wanting: indices of the tensors whose gradient is taken.
        left_out: (other way, order) pairs that are not timed.
        dtype: of the tensors.
        device: "any", or the only kind of device for which the case is meant.
        precision: of float32 matrix products, as in ``torch.set_float32_matmul_precision``.
        map_bytes: of one N x N map of attention; 0 elsewhere.
        threads: of PyTorch and OpenCV; 0 leaves the process' own.
    """

    operation: str
    size: str
    make: Callable[[str], Tensors]
    call: Callable[..., Any]
    table: str | None
    others: Mapping[str, Callable[..., Any]]
    work: Mapping[str, Work]
    also: tuple[str, ...] = ()
    wanting: tuple[int, ...] = ()
    left_out: frozenset[tuple[str, str]] = frozenset()
    dtype: str = "float32"
    device: str = "any"
    precision: str = "highest"
    map_bytes: float = 0.0
    threads: int = 0


def random(*shapes: tuple[int, ...], scale: float = 1.0, dtype: str = "float32") -> Callable[[str], Tensors]:
    """Return a maker of seeded uniform tensors in [0, scale), drawn on the device."""

    def make(device: str) -> Tensors:
        generator = torch.Generator(device).manual_seed(0)
        numbers = (torch.rand(shape, generator=generator, device=device) * scale for shape in shapes)
        return tuple(tensor.to(device, getattr(torch, dtype)) for tensor in numbers)

    return make


def channels_last(make: Callable[[str], Tensors]) -> Callable[[str], Tensors]:
    """Return the same maker with (B, C, H, W) tensors stored with channels contiguous."""
    return lambda device: tuple(tensor.contiguous(memory_format=torch.channels_last) for tensor in make(device))
