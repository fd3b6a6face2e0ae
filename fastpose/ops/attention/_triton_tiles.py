# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False
"""What attention's Triton kernels share: how a tensor travels, tiles of it, and products in slices.

A tensor travels as a ``Map``: its pointer and three strides, of which the one that is 1 becomes a constant. So the two
layouts (positions contiguous, channels contiguous) are served by the same source, each with its own coalesced loads.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor


class Map(NamedTuple):
    """A tensor (B, C, N) as kernels see it."""

    data: Tensor
    batch: int
    position: int
    channel: int


def dtype_of(dtype: torch.dtype) -> tl.dtype:
    """float32 or float64 in Triton's words."""
    return tl.float64 if dtype == torch.float64 else tl.float32


LOG2E: tl.constexpr = tl.constexpr(1.4426950408889634)
LN2: tl.constexpr = tl.constexpr(0.6931471805599453)


@triton.jit
def addresses(map, b, positions, channels):
    """Addresses of a tile (positions, channels) of one sample."""
    start = map.data + b.to(tl.int64) * map.batch
    return start + (positions[:, None] * map.position + channels[None, :] * map.channel)


@triton.jit
def is_inside(positions, channels, count, WIDTH: tl.constexpr, CHUNKS: tl.constexpr):
    """Which elements of a tile exist; the channels are not compared where the chunks fill the width."""
    inside = (positions < count)[:, None]
    if channels.shape[0] * CHUNKS != WIDTH:
        inside = inside & (channels < WIDTH)[None, :]
    return inside


@triton.jit
def load_tile(map, b, positions, channels, count, WIDTH: tl.constexpr, CHUNKS: tl.constexpr):
    """Tile (positions, channels), zero outside."""
    inside = is_inside(positions, channels, count, WIDTH, CHUNKS)
    return tl.load(addresses(map, b, positions, channels), mask=inside, other=0.0)


@triton.jit
def store_tile(map, b, positions, channels, count, tile, WIDTH: tl.constexpr, CHUNKS: tl.constexpr):
    inside = is_inside(positions, channels, count, WIDTH, CHUNKS)
    tl.store(addresses(map, b, positions, channels), tile.to(map.data.dtype.element_ty), mask=inside)


@triton.jit
def row_values(pointer, b, rows, queries, outside):
    """One float32 per query position, from a contiguous (B, Nq)."""
    return tl.load(pointer + b.to(tl.int64) * queries + rows, mask=rows < queries, other=outside)


@triton.jit
def store_row_values(pointer, b, rows, queries, values):
    tl.store(pointer + b.to(tl.int64) * queries + rows, values, mask=rows < queries)


@triton.jit
def multiplier(gamma, GAMMA: tl.constexpr, WIDE: tl.constexpr):
    """The factor of a fused residual, or 1."""
    factor = 1.0
    if GAMMA:
        factor = tl.load(gamma).to(WIDE)
    return factor


@triton.jit
def sliced_product(
    left, right, b, left_positions, right_positions, left_count, right_count,
    CV: tl.constexpr, BLOCK_CV: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """left right^T over all value channels, DEPTH of them at a time: whole operands would not fit the registers."""
    product = tl.zeros([left_positions.shape[0], right_positions.shape[0]], WIDE)
    for start in range(0, BLOCK_CV, DEPTH):
        channels = start + tl.arange(0, DEPTH)
        x = load_tile(left, b, left_positions, channels, left_count, CV, BLOCK_CV // DEPTH)
        y = load_tile(right, b, right_positions, channels, right_count, CV, BLOCK_CV // DEPTH)
        product = tl.dot(x, tl.trans(y), product, input_precision=PRECISION, out_dtype=WIDE)
    return product
