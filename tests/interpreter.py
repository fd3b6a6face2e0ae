"""Triton's interpreter as the tests need it: kernels run on CPU tensors, slowly, through NumPy."""

from __future__ import annotations

import pytest

from fastpose.ops import _dispatch

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
