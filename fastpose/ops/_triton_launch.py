"""How a Triton kernel is started: on the tensors' device, with its constants and its warps."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def on_device(tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Make the tensor's device current: Triton starts kernels on the current one.

    On the CPU Triton's interpreter, which is NumPy, is silent about infinities and NaN, as a GPU is.
    """
    if not tensor.is_cuda:
        import numpy as np

        return np.errstate(all="ignore")
    if tensor.device.index == torch.cuda.current_device():
        return contextlib.nullcontext()
    return torch.cuda.device(tensor.device)


def launch(
    kernel: Any,
    grid: tuple[int, ...],
    arguments: Sequence[Any],
    constants: dict[str, Any],
    *,
    warps: int = 4,
    stages: int = 2,
    near: Tensor,
    **options: int,
) -> None:
    """Start ``kernel`` on the device of ``near``, with the compiler's further options; a grid without programs starts
    nothing."""
    if 0 in grid:
        return
    with on_device(near):
        start(kernel, grid, tuple(arguments), constants, warps, stages, options)


def start(
    kernel: Any,
    grid: tuple[int, ...],
    arguments: tuple[Any, ...],
    constants: dict[str, Any],
    warps: int,
    stages: int,
    options: dict[str, int],
) -> None:
    """The one place where a kernel starts; tests put a recorder here."""
    kernel[grid](*arguments, **constants, num_warps=warps, num_stages=stages, **options)
