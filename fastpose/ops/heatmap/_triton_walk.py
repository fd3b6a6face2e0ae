# mypy: disallow-untyped-defs=False
"""How decoding's Triton kernels walk over a plane: blocks of pixels in row-major order, whatever the strides.

What they share: the search for the peak, and how many pixels a program takes.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from fastpose.ops._triton_device import finite

BLOCKS_PER_PROGRAM = 4  # of a kernel that splits its planes
LARGE_PLANE = 16384  # pixels


@triton.jit
def distances(pixel, x, y, row_stride, column_stride, JOINED: tl.constexpr):
    """Distances of pixels from their plane's first; JOINED: the rows follow each other at equal steps."""
    if JOINED:
        return pixel.to(tl.int64) * column_stride
    return y.to(tl.int64) * row_stride + x.to(tl.int64) * column_stride


@triton.jit
def advanced(x, y, width, BLOCK: tl.constexpr):
    """The positions BLOCK pixels later, without a division for each of them."""
    x += BLOCK % width
    y += BLOCK // width
    beyond = x >= width
    return tl.where(beyond, x - width, x), tl.where(beyond, y + 1, y)


@triton.jit
def find_peak(plane, height, width, row_stride, column_stride, JOINED: tl.constexpr, BLOCK: tl.constexpr):
    """The largest finite value and its first position in row-major order; -inf where no value is finite."""
    lane = tl.arange(0, BLOCK)
    x, y = lane % width, lane // width
    best = tl.full([BLOCK], float("-inf"), tl.float32)
    position = tl.zeros([BLOCK], tl.int32)
    pixels = height * width
    for start in range(0, pixels, BLOCK):
        pixel = start + lane
        address = plane + distances(pixel, x, y, row_stride, column_stride, JOINED)
        value = tl.load(address, mask=pixel < pixels, other=float("-inf")).to(tl.float32)
        better = finite(value) & (value > best)
        best = tl.where(better, value, best)
        position = tl.where(better, pixel, position)
        x, y = advanced(x, y, width, BLOCK)
    peak = tl.max(best)
    return peak, tl.min(tl.where(best == peak, position, pixels))


# -------------------------------------------------------------------------------------------------------------- launch


def joined(planes: Tensor) -> bool:
    return planes.stride(2) == planes.stride(3) * planes.shape[3]


def block_of(planes: Tensor) -> tuple[int, int]:
    """Pixels that a program takes at once, and its warps."""
    return (2048, 8) if planes.shape[2] * planes.shape[3] > LARGE_PLANE else (1024, 4)


def split_grid(planes: Tensor, pixels_at_once: int) -> tuple[int, int]:
    pixels = planes.shape[2] * planes.shape[3]
    return planes.shape[0] * planes.shape[1], triton.cdiv(pixels, pixels_at_once * BLOCKS_PER_PROGRAM)
