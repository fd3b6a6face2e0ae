"""Where the operations' own kernels run: on the CPU, on a GPU in CUDA C++, on a GPU in Triton.

Every place has the same functions with the same arguments (a kernel set), so that the code around them is written once,
in each folder's ``_kernels.py``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastpose import _native
from fastpose.ops import _dispatch
from fastpose.ops._dispatch import Backend, Inputs, Parameters

_LARGE = 4 * 2**20  # bytes, csrc/common/huge_pages.h: asking costs a call


@dataclass(frozen=True)
class Place:
    """One set of kernels.

    Attributes:
        name: the backend's name, "cpu", "cuda" or "triton".
        reasons: inputs -> sentences against it that hold for every operation, empty when it can serve them.
        kernels: folder of an operation, for example "heatmap" -> the functions, found on first use.
        where: a tensor of the call -> the kernels' last argument: threads, or the address of the current stream.
    """

    name: str
    reasons: Callable[[Inputs], list[str]]
    kernels: Callable[[str], Any]
    where: Callable[[Tensor], int]


def _stream(tensor: Tensor) -> int:
    """The emulation that stands in for a GPU in tests has CPU tensors and no streams."""
    return torch._C._cuda_getCurrentRawStream(tensor.get_device()) if tensor.is_cuda else 0


def _triton_kernels(folder: str) -> Any:
    return importlib.import_module(f"fastpose.ops.{folder}._triton_kernels")


CPU = Place("cpu", _dispatch.cpu_reasons, lambda folder: _native.module().cpu, lambda tensor: torch.get_num_threads())
CUDA = Place("cuda", _dispatch.cuda_reasons, lambda folder: _native.module().cuda, _stream)
TRITON = Place("triton", _dispatch.triton_reasons, _triton_kernels, lambda tensor: 0)


class Kernels:
    """An operation's orders at a place; what they compute around the kernels is the subclass's.

    ``forward``, ``backward`` and ``double_backward`` have the arguments of :class:`Backend`'s fwd, bwd and bwd2.
    """

    folder: str
    forward: Callable[..., tuple[Tensor, ...]]
    backward: Callable[..., tuple[Tensor | None, ...]] | None = None
    double_backward: Callable[..., tuple[Tensor | None, ...]] | None = None

    def __init__(self, place: Place, *, any_size: bool = True) -> None:
        """``any_size``: as in :class:`Backend`."""
        self.place = place
        self.any_size = any_size

    def backend(self) -> Backend:
        orders = (self.forward, self.backward, self.double_backward)
        return Backend(self.place.name, self.reasons, *orders, any_size=self.any_size)

    def reasons(self, inputs: Inputs, parameters: Parameters) -> list[str]:
        return self.place.reasons(inputs)

    def run(self, function: str, near: Tensor, *arguments: Any) -> None:
        """Call a kernel on the device (and current stream) of ``near``."""
        getattr(self.place.kernels(self.folder), function)(*arguments, self.place.where(near))


def fresh(tensor: Tensor) -> Tensor:
    """The tensor, to which nothing was written yet; a large one on the CPU may lie in huge pages.

    The C library hands out blocks of this size unmapped: without huge pages most of the time of writing them goes into
    page faults. Not for memory of the user's.
    """
    if tensor.nbytes >= _LARGE and tensor.is_cpu:
        _native.module().prefer_huge_pages(tensor)
    return tensor


def empty(tensors: Inputs, needs: tuple[bool, ...]) -> list[Any]:
    """Uninitialised gradients where they are wanted."""
    return [fresh(torch.empty_like(tensor)) if need else None for tensor, need in zip(tensors, needs, strict=True)]


def kept(gradients: list[Any], needs: tuple[bool, ...]) -> tuple[Any, ...]:
    """None in the place of gradients that were computed on the way but are not wanted."""
    return tuple(gradient if need else None for gradient, need in zip(gradients, needs, strict=True))
