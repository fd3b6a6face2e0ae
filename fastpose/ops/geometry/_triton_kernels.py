# mypy: disallow-untyped-defs=False
"""The pairwise descriptor in Triton: float32 arithmetic on numbers of any type, 16-bit results rounded once.

What csrc/geometry/geometry_cpu.cpp computes; equations: csrc/geometry/geometry_math.h. Derivatives sum t_ij - t_ji over
j, so a program owns rows (b, i) and reads the gradient at (i, j) and at (j, i): every sum has a fixed order.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from fastpose.ops._triton_device import flat_strides
from fastpose.ops._triton_launch import launch

PAIRS = 512  # pairs of joints that a program of the forward takes
TILE = 256  # pairs that a program of the derivatives takes at once: twice as many need over 128 registers
WIDEST = 32  # columns of that tile


@triton.jit
def _joint(joints, b, i, d, batch_stride, point_stride, axis_stride):
    return joints + b.to(tl.int64) * batch_stride + i.to(tl.int64) * point_stride + tl.cast(d, tl.int64) * axis_stride


@triton.jit
def _pair(pairs, b, channel, i, j, batch_stride, channel_stride, row_stride, column_stride):
    """Addresses of (b, channel, i, j)."""
    along = i.to(tl.int64) * row_stride + j.to(tl.int64) * column_stride
    return pairs + b.to(tl.int64) * batch_stride + tl.cast(channel, tl.int64) * channel_stride + along


@triton.jit
def _load(address, mask):
    return tl.load(address, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _forward_kernel(
    joints, out, batch,
    joint_batch_stride, joint_point_stride, joint_axis_stride,
    batch_stride, channel_stride, row_stride, column_stride,
    POINTS: tl.constexpr, DIMENSIONS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Pairs of the whole batch in one row, so that no program is cut short by the size of a sample."""
    first = tl.program_id(0).to(tl.int64) * BLOCK
    pair = (first % (POINTS * POINTS)).to(tl.int32) + tl.arange(0, BLOCK)
    b = first // (POINTS * POINTS) + pair // (POINTS * POINTS)
    i = (pair // POINTS) % POINTS
    j = pair % POINTS
    inside = b < batch
    for d in range(DIMENSIONS):
        left = _joint(joints, b, i, d, joint_batch_stride, joint_point_stride, joint_axis_stride)
        right = _joint(joints, b, j, d, joint_batch_stride, joint_point_stride, joint_axis_stride)
        difference = _load(left, inside) - _load(right, inside)
        target = _pair(out, b, d, i, j, batch_stride, channel_stride, row_stride, column_stride)
        tl.store(target, difference.to(out.dtype.element_ty), mask=inside)
        target += DIMENSIONS * tl.cast(channel_stride, tl.int64)
        tl.store(target, (difference * difference).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _load_both(pairs, b, channel, i, j, inside, batch_stride, channel_stride, row_stride, column_stride):
    """The numbers at (i, j) and at (j, i)."""
    forth = _pair(pairs, b, channel, i, j, batch_stride, channel_stride, row_stride, column_stride)
    back = _pair(pairs, b, channel, j, i, batch_stride, channel_stride, row_stride, column_stride)
    return _load(forth, inside), _load(back, inside)


@triton.jit
def _rows(POINTS: tl.constexpr, ROWS: tl.constexpr):
    """The sample and the point of each of this program's rows, as columns of a tile."""
    first = tl.program_id(0).to(tl.int64) * ROWS
    row = (first % POINTS).to(tl.int32) + tl.arange(0, ROWS)[:, None]
    return first // POINTS + row // POINTS, row % POINTS


@triton.jit
def _backward_kernel(
    joints, grad_out, grad_joints, batch,
    joint_batch_stride, joint_point_stride, joint_axis_stride,
    batch_stride, channel_stride, row_stride, column_stride,
    grad_batch_stride, grad_point_stride, grad_axis_stride,
    POINTS: tl.constexpr, DIMENSIONS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    b, i = _rows(POINTS, ROWS)
    for d in range(DIMENSIONS):
        total = tl.zeros([ROWS, COLUMNS], tl.float32)
        address = _joint(joints, b, i, d, joint_batch_stride, joint_point_stride, joint_axis_stride)
        own = _load(address, b < batch)
        for first in range(0, POINTS, COLUMNS):
            j = first + tl.arange(0, COLUMNS)[None, :]
            inside = (b < batch) & (j < POINTS)
            others = _joint(joints, b, j, d, joint_batch_stride, joint_point_stride, joint_axis_stride)
            difference = own - _load(others, inside)
            linear, linear_back = _load_both(
                grad_out, b, d, i, j, inside, batch_stride, channel_stride, row_stride, column_stride
            )
            square, square_back = _load_both(
                grad_out, b, DIMENSIONS + d, i, j, inside, batch_stride, channel_stride, row_stride, column_stride
            )
            slope = difference + difference
            total += (linear + slope * square) - (linear_back - slope * square_back)
        address = _joint(grad_joints, b, i, d, grad_batch_stride, grad_point_stride, grad_axis_stride)
        tl.store(address, tl.sum(total, axis=1)[:, None].to(grad_joints.dtype.element_ty), mask=b < batch)


@triton.jit
def _double_backward_kernel(
    joints, grad_out, cot_joints, grad_joints, grad_grad_out, batch,
    joint_batch_stride, joint_point_stride, joint_axis_stride,
    batch_stride, channel_stride, row_stride, column_stride,
    cot_batch_stride, cot_point_stride, cot_axis_stride,
    grad_batch_stride, grad_point_stride, grad_axis_stride,
    out_batch_stride, out_channel_stride, out_row_stride, out_column_stride,
    POINTS: tl.constexpr, DIMENSIONS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    b, i = _rows(POINTS, ROWS)
    element = grad_grad_out.dtype.element_ty
    for d in range(DIMENSIONS):
        total = tl.zeros([ROWS, COLUMNS], tl.float32)
        address = _joint(joints, b, i, d, joint_batch_stride, joint_point_stride, joint_axis_stride)
        own = _load(address, b < batch)
        address = _joint(cot_joints, b, i, d, cot_batch_stride, cot_point_stride, cot_axis_stride)
        own_cotangent = _load(address, b < batch)
        for first in range(0, POINTS, COLUMNS):
            j = first + tl.arange(0, COLUMNS)[None, :]
            inside = (b < batch) & (j < POINTS)
            others = _joint(joints, b, j, d, joint_batch_stride, joint_point_stride, joint_axis_stride)
            difference = own - _load(others, inside)
            others = _joint(cot_joints, b, j, d, cot_batch_stride, cot_point_stride, cot_axis_stride)
            cotangent = own_cotangent - _load(others, inside)
            square, square_back = _load_both(
                grad_out, b, DIMENSIONS + d, i, j, inside, batch_stride, channel_stride, row_stride, column_stride
            )
            total += (cotangent + cotangent) * square + (cotangent + cotangent) * square_back
            target = _pair(
                grad_grad_out, b, d, i, j, out_batch_stride, out_channel_stride, out_row_stride, out_column_stride
            )
            tl.store(target, cotangent.to(element), mask=inside)
            target += DIMENSIONS * tl.cast(out_channel_stride, tl.int64)
            tl.store(target, ((difference + difference) * cotangent).to(element), mask=inside)
        address = _joint(grad_joints, b, i, d, grad_batch_stride, grad_point_stride, grad_axis_stride)
        tl.store(address, tl.sum(total, axis=1)[:, None].to(grad_joints.dtype.element_ty), mask=b < batch)


# -------------------------------------------------------------------------------------------------------------- launch


def _tile(points: int) -> tuple[int, int]:
    """Rows and columns of a program's tile."""
    columns = min(WIDEST, triton.next_power_of_2(max(points, 1)))
    return TILE // columns, columns


def descriptor_fwd(joints: Tensor, out: Tensor, where: int) -> None:
    """Differences of all pairs of joints (B, P, D) and their squares: (B, 2D, P, P)."""
    batch, points, dimensions = joints.shape
    arguments = (joints, out, batch, *joints.stride(), *out.stride())
    constants = {"POINTS": points, "DIMENSIONS": dimensions, "BLOCK": PAIRS}
    launch(_forward_kernel, (triton.cdiv(batch * points * points, PAIRS),), arguments, constants, near=joints)


def descriptor_bwd(joints: Tensor, grad_out: Tensor, grad_joints: Tensor, where: int) -> None:
    """Gradient in the joints from that in the descriptor."""
    batch, points, dimensions = joints.shape
    rows, columns = _tile(points)
    strides = flat_strides((joints, 3), (grad_out, 4), (grad_joints, 3))
    arguments = (joints, grad_out, grad_joints, batch, *strides)
    constants = {"POINTS": points, "DIMENSIONS": dimensions, "ROWS": rows, "COLUMNS": columns}
    launch(_backward_kernel, (triton.cdiv(batch * points, rows),), arguments, constants, near=joints)


def descriptor_bwd2(
    joints: Tensor, grad_out: Tensor, cot_joints: Tensor, grad_joints: Tensor, grad_grad_out: Tensor, where: int
) -> None:
    """Gradients in the joints and in ``grad_out`` of the first derivative, with cotangent ``cot_joints``."""
    batch, points, dimensions = joints.shape
    rows, columns = _tile(points)
    strides = flat_strides((joints, 3), (grad_out, 4), (cot_joints, 3), (grad_joints, 3), (grad_grad_out, 4))
    arguments = (joints, grad_out, cot_joints, grad_joints, grad_grad_out, batch, *strides)
    constants = {"POINTS": points, "DIMENSIONS": dimensions, "ROWS": rows, "COLUMNS": columns}
    launch(_double_backward_kernel, (triton.cdiv(batch * points, rows),), arguments, constants, near=joints)
