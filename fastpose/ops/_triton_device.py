# mypy: disallow-untyped-defs=False
"""What the Triton files of heatmaps and descriptors share: strides, and small device functions.

Imports triton: only files of Triton kernels may import this module.
"""

from __future__ import annotations

from collections.abc import Iterator

import triton
import triton.language as tl
from torch import Tensor


def strides(tensor: Tensor | None, rank: int) -> tuple[int, ...]:
    """The tensor's strides in elements; zeros for an absent one, whose strides nobody reads."""
    return (0,) * rank if tensor is None else tensor.stride()


def flat_strides(*tensors: tuple[Tensor | None, int]) -> Iterator[int]:
    """The strides of several (tensor, rank) one after another, as kernels take them."""
    for tensor, rank in tensors:
        yield from strides(tensor, rank)


# ---------------------------------------------------------------------------------------------------- device functions


@triton.jit
def truncated(value):
    """Round toward zero; unlike a conversion to int32 it knows no largest number."""
    return tl.where(value < 0, tl.ceil(value), tl.floor(value))


@triton.jit
def finite(value):
    return tl.abs(value) < float("inf")


@triton.jit
def plane_at(pointer, b, k, batch_stride, joint_stride):
    """Address of plane (b, k) in 64 bits: a batch of large planes has more than 2^31 elements."""
    return pointer + b.to(tl.int64) * batch_stride + k.to(tl.int64) * joint_stride


@triton.jit
def tile_at(pointer, rows, columns, row_stride, column_stride):
    """Addresses (rows, columns) of a plane; rows and columns are vectors of pixel numbers."""
    return pointer + (rows.to(tl.int64) * row_stride)[:, None] + (columns.to(tl.int64) * column_stride)[None, :]
