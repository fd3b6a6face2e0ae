# mypy: disallow-untyped-defs=False
"""Soft-argmax with two derivatives, and the flip average, in Triton, as the files of csrc/heatmap do.

Planes are float32, bfloat16 or float16, arithmetic is float32. A program owns a plane and walks over it in row-major
order (the flip average and the first derivative of soft-argmax, which sum nothing, split large planes), so every result
is deterministic. The list of partners is a compile-time constant: nothing is copied to the device. The last argument of
the functions is the other kernel sets' and not used here.
"""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from fastpose.ops._triton_device import finite, flat_strides, plane_at
from fastpose.ops._triton_launch import launch
from fastpose.ops.heatmap._triton_walk import (
    BLOCKS_PER_PROGRAM,
    advanced,
    block_of,
    distances,
    find_peak,
    joined,
    split_grid,
)


@triton.jit
def _weights(value, beta, peak):
    """exp(beta (h - peak)), zero where h is not finite."""
    usable = finite(value)
    return tl.where(usable, tl.exp((tl.where(usable, value, peak) - peak) * beta), 0.0)


@triton.jit
def _softargmax_kernel(
    heatmaps, coordinates, scores, totals, joints, height, width,
    batch_stride, joint_stride, row_stride, column_stride, beta,
    JOINED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    joint = tl.program_id(0)
    plane = plane_at(heatmaps, joint // joints, joint % joints, batch_stride, joint_stride)
    peak, _ = find_peak(plane, height, width, row_stride, column_stride, JOINED, BLOCK)
    found = peak > float("-inf")
    score = tl.where(found, peak, 0.0)
    lane = tl.arange(0, BLOCK)
    x, y = lane % width, lane // width
    total = tl.zeros([BLOCK], tl.float32)
    along_x, along_y = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    pixels = height * width
    for start in range(0, pixels, BLOCK):
        address = plane + distances(start + lane, x, y, row_stride, column_stride, JOINED)
        value = tl.load(address, mask=start + lane < pixels, other=float("-inf")).to(tl.float32)
        weight = _weights(value, beta, score)
        total += weight
        along_x += weight * x
        along_y += weight * y
        x, y = advanced(x, y, width, BLOCK)
    whole = tl.where(found, tl.sum(total), float("inf"))  # infinite: every weight is zero in the derivatives
    tl.store(coordinates + 2 * joint.to(tl.int64), tl.sum(along_x) / whole)
    tl.store(coordinates + 2 * joint.to(tl.int64) + 1, tl.sum(along_y) / whole)
    tl.store(scores + joint, score)
    tl.store(totals + joint, whole)


@triton.jit
def _soft_joint(coordinates, scores, totals, joint):
    """The expectation, the peak and the factor that makes the weights a softmax."""
    first = coordinates + 2 * joint.to(tl.int64)
    return tl.load(first), tl.load(first + 1), tl.load(scores + joint), 1.0 / tl.load(totals + joint)


@triton.jit
def _softargmax_backward_kernel(
    heatmaps, coordinates, scores, totals, grad_coordinates, grad_heatmaps, joints, height, width,
    batch_stride, joint_stride, row_stride, column_stride,
    point_batch_stride, point_joint_stride, point_axis_stride,
    grad_batch_stride, grad_joint_stride, grad_row_stride, grad_column_stride, beta,
    JOINED: tl.constexpr, GRAD_JOINED: tl.constexpr, BLOCK: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """grad_h = beta p q with q = gx (x - X) + gy (y - Y)."""
    joint = tl.program_id(0)
    b, k = joint // joints, joint % joints
    plane = plane_at(heatmaps, b, k, batch_stride, joint_stride)
    gradient = plane_at(grad_heatmaps, b, k, grad_batch_stride, grad_joint_stride)
    point = plane_at(grad_coordinates, b, k, point_batch_stride, point_joint_stride)
    grad_x, grad_y = tl.load(point), tl.load(point + point_axis_stride)
    mean_x, mean_y, peak, scale = _soft_joint(coordinates, scores, totals, joint)
    scale *= beta
    pixel = tl.program_id(1) * BLOCKS * BLOCK + tl.arange(0, BLOCK)
    x, y = pixel % width, pixel // width
    for _ in range(BLOCKS):
        inside = pixel < height * width
        offsets = distances(pixel, x, y, row_stride, column_stride, JOINED)
        value = tl.load(plane + offsets, mask=inside, other=float("-inf")).to(tl.float32)
        q = (x - mean_x) * grad_x + (y - mean_y) * grad_y
        result = _weights(value, beta, peak) * q * scale
        targets = gradient + distances(pixel, x, y, grad_row_stride, grad_column_stride, GRAD_JOINED)
        tl.store(targets, result.to(grad_heatmaps.dtype.element_ty), mask=inside)
        pixel += BLOCK
        x, y = advanced(x, y, width, BLOCK)


@triton.jit
def _cotangent_sums(
    plane, cotangent, mean_x, mean_y, peak, scale, beta, height, width, row_stride, column_stride,
    cot_row_stride, cot_column_stride, JOINED: tl.constexpr, COT_JOINED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Sums over the plane of p U, p U (x - X) and p U (y - Y)."""
    lane = tl.arange(0, BLOCK)
    x, y = lane % width, lane // width
    total = tl.zeros([BLOCK], tl.float32)
    along_x, along_y = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    pixels = height * width
    for start in range(0, pixels, BLOCK):
        pixel = start + lane
        address = plane + distances(pixel, x, y, row_stride, column_stride, JOINED)
        value = tl.load(address, mask=pixel < pixels, other=float("-inf")).to(tl.float32)
        address = cotangent + distances(pixel, x, y, cot_row_stride, cot_column_stride, COT_JOINED)
        given = tl.load(address, mask=pixel < pixels, other=0.0).to(tl.float32)
        weight = _weights(value, beta, peak) * (given * scale)
        total += weight
        along_x += weight * (x - mean_x)
        along_y += weight * (y - mean_y)
        x, y = advanced(x, y, width, BLOCK)
    return tl.sum(total), tl.sum(along_x), tl.sum(along_y)


@triton.jit
def _softargmax_double_backward_kernel(
    heatmaps, coordinates, scores, totals, grad_coordinates, cot_heatmaps, grad_heatmaps, grad_grad_coordinates,
    joints, height, width,
    batch_stride, joint_stride, row_stride, column_stride,
    point_batch_stride, point_joint_stride, point_axis_stride,
    cot_batch_stride, cot_joint_stride, cot_row_stride, cot_column_stride,
    grad_batch_stride, grad_joint_stride, grad_row_stride, grad_column_stride, beta,
    JOINED: tl.constexpr, COT_JOINED: tl.constexpr, GRAD_JOINED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """grad_h = beta^2 p ((U - mean U) q - covariance(U, q)), the gradient of beta covariance(U, q)."""
    joint = tl.program_id(0)
    b, k = joint // joints, joint % joints
    plane = plane_at(heatmaps, b, k, batch_stride, joint_stride)
    cotangent = plane_at(cot_heatmaps, b, k, cot_batch_stride, cot_joint_stride)
    gradient = plane_at(grad_heatmaps, b, k, grad_batch_stride, grad_joint_stride)
    point = plane_at(grad_coordinates, b, k, point_batch_stride, point_joint_stride)
    grad_x, grad_y = tl.load(point), tl.load(point + point_axis_stride)
    mean_x, mean_y, peak, scale = _soft_joint(coordinates, scores, totals, joint)
    mean, along_x, along_y = _cotangent_sums(
        plane, cotangent, mean_x, mean_y, peak, scale, beta, height, width, row_stride, column_stride,
        cot_row_stride, cot_column_stride, JOINED, COT_JOINED, BLOCK,
    )  # fmt: skip
    tl.store(grad_grad_coordinates + 2 * joint.to(tl.int64), beta * along_x)
    tl.store(grad_grad_coordinates + 2 * joint.to(tl.int64) + 1, beta * along_y)
    covariance = grad_x * along_x + grad_y * along_y
    scale *= beta * beta
    lane = tl.arange(0, BLOCK)
    x, y = lane % width, lane // width
    pixels = height * width
    for start in range(0, pixels, BLOCK):
        pixel = start + lane
        inside = pixel < pixels
        address = plane + distances(pixel, x, y, row_stride, column_stride, JOINED)
        value = tl.load(address, mask=inside, other=float("-inf")).to(tl.float32)
        address = cotangent + distances(pixel, x, y, cot_row_stride, cot_column_stride, COT_JOINED)
        given = tl.load(address, mask=inside, other=0.0).to(tl.float32)
        q = (x - mean_x) * grad_x + (y - mean_y) * grad_y
        result = _weights(value, beta, peak) * scale * ((given - mean) * q - covariance)
        address = gradient + distances(pixel, x, y, grad_row_stride, grad_column_stride, GRAD_JOINED)
        tl.store(address, result.to(grad_heatmaps.dtype.element_ty), mask=inside)
        x, y = advanced(x, y, width, BLOCK)


# -------------------------------------------------------------------------------------------------------- flip average


@triton.jit
def _flip_average_kernel(
    direct, mirrored, out, joints, height, width,
    direct_batch_stride, direct_joint_stride, direct_row_stride, direct_column_stride,
    mirrored_batch_stride, mirrored_joint_stride, mirrored_row_stride, mirrored_column_stride,
    out_batch_stride, out_joint_stride, out_row_stride, out_column_stride,
    PARTNER: tl.constexpr, JOINTS: tl.constexpr, DIRECT_JOINED: tl.constexpr, OUT_JOINED: tl.constexpr,
    BLOCK: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """out[b, k, y, x] = (direct[b, k, y, x] + mirrored[b, PARTNER[k], y, W - 1 - x]) / 2; None counts as zero."""
    b, k = tl.program_id(0) // joints, tl.program_id(0) % joints
    partner = k
    for j in tl.static_range(JOINTS):
        partner = tl.where(k == j, PARTNER[j], partner)
    target = plane_at(out, b, k, out_batch_stride, out_joint_stride)
    pixel = tl.program_id(1) * BLOCKS * BLOCK + tl.arange(0, BLOCK)
    x, y = pixel % width, pixel // width
    for _ in range(BLOCKS):
        inside = pixel < height * width
        total = tl.zeros([BLOCK], tl.float32)
        if direct is not None:
            plane = plane_at(direct, b, k, direct_batch_stride, direct_joint_stride)
            address = plane + distances(pixel, x, y, direct_row_stride, direct_column_stride, DIRECT_JOINED)
            total += tl.load(address, mask=inside, other=0.0).to(tl.float32)
        if mirrored is not None:
            plane = plane_at(mirrored, b, partner, mirrored_batch_stride, mirrored_joint_stride)
            address = plane + distances(pixel, width - 1 - x, y, mirrored_row_stride, mirrored_column_stride, False)
            total += tl.load(address, mask=inside, other=0.0).to(tl.float32)
        address = target + distances(pixel, x, y, out_row_stride, out_column_stride, OUT_JOINED)
        tl.store(address, (total * 0.5).to(out.dtype.element_ty), mask=inside)
        pixel += BLOCK
        x, y = advanced(x, y, width, BLOCK)


# -------------------------------------------------------------------------------------------------------------- launch


def softargmax(heatmaps: Tensor, beta: float, coordinates: Tensor, scores: Tensor, totals: Tensor, where: int) -> None:
    """Expected pixels (B, K, 2) of planes (B, K, H, W), their peaks and sum exp(beta (h - peak)) (B, K)."""
    batch, joints, height, width = heatmaps.shape
    block, warps = block_of(heatmaps)
    arguments = (heatmaps, coordinates, scores, totals, joints, height, width, *heatmaps.stride(), beta)
    constants = {"JOINED": joined(heatmaps), "BLOCK": block}
    launch(_softargmax_kernel, (batch * joints,), arguments, constants, warps=warps, near=heatmaps)


def softargmax_bwd(
    heatmaps: Tensor, beta: float, coordinates: Tensor, scores: Tensor, totals: Tensor,
    grad_coordinates: Tensor, grad_heatmaps: Tensor, where: int,
) -> None:  # fmt: skip
    """Gradient in the planes from that in the expected pixels."""
    block, warps = block_of(heatmaps)
    arguments = (
        *(heatmaps, coordinates, scores, totals, grad_coordinates, grad_heatmaps, *heatmaps.shape[1:]),
        *flat_strides((heatmaps, 4), (grad_coordinates, 3), (grad_heatmaps, 4)),
        beta,
    )
    layouts = {"JOINED": joined(heatmaps), "GRAD_JOINED": joined(grad_heatmaps)}
    constants = {**layouts, "BLOCK": block, "BLOCKS": BLOCKS_PER_PROGRAM}
    grid = split_grid(heatmaps, block)
    launch(_softargmax_backward_kernel, grid, arguments, constants, warps=warps, near=heatmaps)


def softargmax_bwd2(
    heatmaps: Tensor, beta: float, coordinates: Tensor, scores: Tensor, totals: Tensor,
    grad_coordinates: Tensor, cot_heatmaps: Tensor, grad_heatmaps: Tensor, grad_grad_coordinates: Tensor, where: int,
) -> None:  # fmt: skip
    """Gradients in the planes and in ``grad_coordinates`` of the first derivative, with cotangent ``cot_heatmaps``."""
    batch, joints, height, width = heatmaps.shape
    block, warps = block_of(heatmaps)
    arguments = (
        *(heatmaps, coordinates, scores, totals, grad_coordinates, cot_heatmaps, grad_heatmaps, grad_grad_coordinates),
        *(joints, height, width),
        *flat_strides((heatmaps, 4), (grad_coordinates, 3), (cot_heatmaps, 4), (grad_heatmaps, 4)),
        beta,
    )
    layouts = {"JOINED": joined(heatmaps), "COT_JOINED": joined(cot_heatmaps), "GRAD_JOINED": joined(grad_heatmaps)}
    constants = {**layouts, "BLOCK": block}
    launch(_softargmax_double_backward_kernel, (batch * joints,), arguments, constants, warps=warps, near=heatmaps)


def flip_average(
    direct: Tensor | None, mirrored: Tensor | None, partner: Sequence[int], out: Tensor, where: int
) -> None:
    """Mean of planes (B, K, H, W) and of mirrored ones turned back, joints exchanged; None counts as zero."""
    block, warps = block_of(out)
    arguments = (
        *(direct, mirrored, out, *out.shape[1:]),
        *flat_strides((direct, 4), (mirrored, 4), (out, 4)),
    )
    layouts = {"DIRECT_JOINED": direct is not None and joined(direct), "OUT_JOINED": joined(out)}
    sizes = {"JOINTS": len(partner), "BLOCK": block, "BLOCKS": BLOCKS_PER_PROGRAM}
    constants = {"PARTNER": tuple(partner), **layouts, **sizes}
    launch(_flip_average_kernel, split_grid(out, block), arguments, constants, warps=warps, near=out)
