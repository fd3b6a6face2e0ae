# mypy: disallow-untyped-defs=False
"""Decoding of heatmaps in Triton: the peak and its refinement, as csrc/heatmap/decode_cpu.cpp computes them.

A program owns a plane (float32, bfloat16 or float16) and walks over it in row-major order, so every result is
deterministic. The blur of "dark" and its Newton step are float64, as on the CPU. The taps are compile-time constants:
nothing is copied to the device. The last argument of the functions is the other kernel sets' and not used here.
"""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from fastpose.ops._triton_device import finite, plane_at
from fastpose.ops._triton_launch import launch
from fastpose.ops.heatmap._triton_walk import block_of, find_peak, joined

# Compiler options of "dark". Within the bound ptxas takes what it needs; without one, it spills a register or two to
# make room for another block.
DARK_OPTIONS = {"maxnreg": 128}

# ------------------------------------------------------------------------------------------------------ dark refinement


@triton.jit
def _tap(i, TAPS: tl.constexpr, KERNEL: tl.constexpr):
    """TAPS[i], zero outside."""
    value = tl.zeros(i.shape, tl.float64)
    for t in tl.static_range(KERNEL):
        value = tl.where(i == t, tl.full([], TAPS[t], tl.float64), value)
    return value


@triton.jit
def _blurred(
    plane, rows, columns, first, last, height, width, row_stride, column_stride,
    TAPS: tl.constexpr, KERNEL: tl.constexpr,
):  # fmt: skip
    """The blurred plane at rows x columns; rows first <= j < last contribute, what is not finite counts as zero."""
    result = tl.zeros([rows.shape[0], columns.shape[0]], tl.float64)
    for j in range(tl.maximum(first, 0), tl.minimum(last, height)):
        address = plane + tl.cast(j, tl.int64) * row_stride + columns.to(tl.int64) * column_stride
        along = tl.zeros([columns.shape[0]], tl.float64)
        for t in tl.static_range(KERNEL):
            x = (columns + (t - KERNEL // 2)).to(tl.uint32)  # beyond the left border it is large
            beside = (t - KERNEL // 2) * tl.cast(column_stride, tl.int64)
            value = tl.load(address + beside, mask=x < width, other=0.0)
            value = value.to(tl.float32).to(tl.float64)
            along += tl.where(finite(value), value, 0.0) * tl.full([], TAPS[t], tl.float64)
        result += _tap(j - rows + KERNEL // 2, TAPS, KERNEL)[:, None] * along[None, :]
    return result


@triton.jit
def _blurred_maximum(
    plane, height, width, row_stride, column_stride, TAPS: tl.constexpr, KERNEL: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    maximum = tl.full([], float("-inf"), tl.float64)
    for top in range(0, height, ROWS):
        rows = top + tl.arange(0, ROWS)
        first, last = top - KERNEL // 2, top + ROWS + KERNEL // 2
        for left in range(0, width, COLUMNS):
            columns = left + tl.arange(0, COLUMNS)
            values = _blurred(
                plane, rows, columns, first, last, height, width, row_stride, column_stride, TAPS, KERNEL
            )  # fmt: skip
            inside = (rows < height)[:, None] & (columns < width)[None, :]
            maximum = tl.maximum(maximum, tl.max(tl.where(inside, values, float("-inf"))))
    return maximum


@triton.jit
def _at(tile, dx: tl.constexpr, dy: tl.constexpr):
    """The number beside the middle (2, 2) of an 8 x 8 tile."""
    i = tl.arange(0, 8)
    return tl.sum(tl.where((i == 2 + dy)[:, None] & (i == 2 + dx)[None, :], tile, 0.0))


@triton.jit
def _newton_step(logs, max_step, UDP: tl.constexpr):
    """The step of dark_step and dark_udp_step in csrc/heatmap/heatmap_math.h; zero unless finite and short enough."""
    dx = 0.5 * (_at(logs, 1, 0) - _at(logs, -1, 0))
    dy = 0.5 * (_at(logs, 0, 1) - _at(logs, 0, -1))
    middle = _at(logs, 0, 0)
    if UDP:
        epsilon = tl.full([], 1.1920928955078125e-07, tl.float64)
        xx = _at(logs, 1, 0) - 2 * middle + _at(logs, -1, 0) + epsilon
        yy = _at(logs, 0, 1) - 2 * middle + _at(logs, 0, -1) + epsilon
        sides = _at(logs, 1, 0) + _at(logs, 0, 1) + _at(logs, -1, 0) + _at(logs, 0, -1)
        xy = 0.5 * (_at(logs, 1, 1) + _at(logs, -1, -1) - sides + 2 * middle)
    else:
        xx = 0.25 * (_at(logs, 2, 0) - 2 * middle + _at(logs, -2, 0))
        yy = 0.25 * (_at(logs, 0, 2) - 2 * middle + _at(logs, 0, -2))
        xy = 0.25 * (_at(logs, 1, 1) - _at(logs, 1, -1) - _at(logs, -1, 1) + _at(logs, -1, -1))
    determinant = xx * yy - xy * xy
    step_x = -(yy * dx - xy * dy) / determinant
    step_y = -(xx * dy - xy * dx) / determinant
    taken = finite(step_x) & finite(step_y) & (tl.abs(step_x) <= max_step) & (tl.abs(step_y) <= max_step)
    return tl.where(taken, step_x, 0.0), tl.where(taken, step_y, 0.0)


@triton.jit
def _refine_dark(
    plane, peak, x, y, height, width, row_stride, column_stride, max_step,
    UDP: tl.constexpr, TAPS: tl.constexpr, KERNEL: tl.constexpr,
):  # fmt: skip
    """The whole plane is blurred only where a clamp may depend on its maximum, as on the CPU."""
    low = tl.full([], 1e-3 if UDP else 1e-10, tl.float64)
    high = tl.full([], 50.0 if UDP else float("inf"), tl.float64)
    i = tl.arange(0, 8)  # 5 x 5 pixels about the peak; beyond the plane the border is repeated
    columns = tl.minimum(tl.maximum(x - 2 + i, 0), width - 1)
    rows = tl.minimum(tl.maximum(y - 2 + i, 0), height - 1)
    reach: tl.constexpr = 2 + KERNEL // 2
    tile = _blurred(
        plane, rows, columns, y - reach, y + reach + 1, height, width, row_stride, column_stride, TAPS, KERNEL
    )  # fmt: skip
    near = (i < 5)[:, None] & (i < 5)[None, :]
    least = tl.min(tl.where(near, tile, float("inf")))
    most = tl.max(tl.where(near, tile, float("-inf")))
    scale = tl.full([], 1.0, tl.float64)  # any other cancels in the logarithms' differences
    if (least < low) | (most * (peak / _at(tile, 0, 0)) > high):
        scale = peak / _blurred_maximum(plane, height, width, row_stride, column_stride, TAPS, KERNEL, 8, 32)
    tile *= scale
    tile = tl.where(tile < low, low, tl.where(tile > high, high, tile))  # NaN stays, and its step is not taken
    return _newton_step(tl.log(tile), max_step, UDP)


# -------------------------------------------------------------------------------------------------------------- decode


@triton.jit
def _quarter(address, beside, inside):
    """A quarter pixel toward the higher of two neighbours; false comparisons (equal, NaN) give none."""
    higher = tl.load(address + beside, mask=inside, other=0.0).to(tl.float32)
    lower = tl.load(address - beside, mask=inside, other=0.0).to(tl.float32)
    return tl.where(higher > lower, 0.25, tl.where(higher < lower, -0.25, 0.0)).to(tl.float64)


@triton.jit
def _decode_kernel(
    heatmaps, coordinates, scores, joints, height, width,
    batch_stride, joint_stride, row_stride, column_stride, max_step,
    METHOD: tl.constexpr, TAPS: tl.constexpr, KERNEL: tl.constexpr, JOINED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    joint = tl.program_id(0)
    plane = plane_at(heatmaps, joint // joints, joint % joints, batch_stride, joint_stride)
    peak, position = find_peak(plane, height, width, row_stride, column_stride, JOINED, BLOCK)
    found = peak > float("-inf")
    position = tl.where(found, position, 0)
    x, y = position % width, position // width
    step_x, step_y = tl.full([], 0.0, tl.float64), tl.full([], 0.0, tl.float64)
    if METHOD == "quarter":
        address = plane + x.to(tl.int64) * column_stride + y.to(tl.int64) * row_stride
        step_x = _quarter(address, column_stride, (x > 1) & (x < width - 1) & (y > 0))
        step_y = _quarter(address, row_stride, (y > 1) & (y < height - 1) & (x > 0))
    elif METHOD != "argmax":
        UDP: tl.constexpr = METHOD == "dark_udp"
        allowed = found & (peak > 0)
        if not UDP:
            allowed = allowed & (x > 1) & (x < width - 2) & (y > 1) & (y < height - 2)
        if allowed:
            step_x, step_y = _refine_dark(
                plane, peak.to(tl.float64), x, y, height, width, row_stride, column_stride, max_step, UDP, TAPS, KERNEL
            )
    tl.store(coordinates + 2 * joint.to(tl.int64), (x.to(tl.float64) + step_x).to(tl.float32))
    tl.store(coordinates + 2 * joint.to(tl.int64) + 1, (y.to(tl.float64) + step_y).to(tl.float32))
    tl.store(scores + joint, tl.where(found, peak, 0.0))


# -------------------------------------------------------------------------------------------------------------- launch


def heatmap_decode(
    heatmaps: Tensor,
    method: str,
    taps: Sequence[float],
    max_step: float,
    coordinates: Tensor,
    scores: Tensor,
    where: int,
) -> None:
    """Peaks (B, K, 2) and scores (B, K) of planes (B, K, H, W)."""
    batch, joints, height, width = heatmaps.shape
    used = tuple(taps) if method in ("dark", "dark_udp") else ()
    block, warps = block_of(heatmaps)
    arguments = (heatmaps, coordinates, scores, joints, height, width, *heatmaps.stride(), max_step)
    constants = {"METHOD": method, "TAPS": used, "KERNEL": len(used), "JOINED": joined(heatmaps), "BLOCK": block}
    options = DARK_OPTIONS if used else {}
    launch(_decode_kernel, (batch * joints,), arguments, constants, warps=warps, near=heatmaps, **options)
