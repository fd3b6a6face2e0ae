"""Triton's interpreter as the tests need it: kernels run on CPU tensors, slowly, through NumPy.

Where there is no GPU, conftest.py sets TRITON_INTERPRET=1 before anything imports triton. The interpreter rounds
bfloat16 toward zero where a GPU rounds to nearest, an error within the table's. Also what the tests of Triton kernels
share: the C++ functions they are compared with, and outputs that show what a kernel left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fastpose import _native
from fastpose.ops import _dispatch

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Outputs = dict[str, Any]  # tensors; None for one that is not wanted

needs_interpreter = pytest.mark.skipif(
    not (_dispatch.TRITON and _dispatch.INTERPRETED),
    reason="Triton's interpreter is off: it needs TRITON_INTERPRET=1 before the start, which a GPU leaves unset",
)


def widen_bfloat16_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the interpreter multiply bfloat16 numbers; by itself it multiplies the integers they are stored as."""
    import numpy as np
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    plain = InterpreterBuilder.create_dot

    def widened(handle):
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        return TensorHandle((handle.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    def create_dot(self, a, b, d, input_precision, max_num_imprecise_acc):
        return plain(self, widened(a), widened(b), d, input_precision, max_num_imprecise_acc)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", create_dot)


# --------------------------------------------------------------------------------- against the C++ functions


def native(name: str) -> Callable[..., None]:
    """The C++ function of this name with the kernel sets' arguments, the number of threads last."""
    return getattr(_native.module().cpu, name)


def run_both(
    kernels: Any, name: str, arguments: Callable[[Outputs], tuple[Any, ...]], like: Outputs
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Run ``name`` of a Triton set and of the C++ set on the CPU; return what each wrote, by name, on the CPU.

    ``arguments(outputs)`` are the contract's without ``where``. The outputs arrive full of NaN, with the shapes, dtypes
    and strides of ``like``.
    """
    found = {key: on(poisoned(tensor), DEVICE) for key, tensor in like.items()}
    expected = {key: poisoned(tensor) for key, tensor in like.items()}
    getattr(kernels, name)(*[on(argument, DEVICE) for argument in arguments(found)], 0)
    native(name)(*arguments(expected), 1)
    return ({key: on(tensor, "cpu") for key, tensor in found.items() if tensor is not None},
            {key: tensor for key, tensor in expected.items() if tensor is not None})  # fmt: skip


def on(value: Any, device: str) -> Any:
    """A tensor on a device with its strides kept; anything else as it is."""
    if not isinstance(value, Tensor) or value.device.type == device:
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=device).copy_(value)


def poisoned(like: Tensor | None) -> Tensor | None:
    """NaN with the shape, dtype and strides of ``like``."""
    if like is None:
        return None
    return torch.empty_strided(like.shape, like.stride(), dtype=like.dtype).fill_(float("nan"))
