# mypy: disallow-untyped-defs=False
"""The fused squared error and its two derivatives in Triton: what csrc/heatmap/loss_cpu.cpp computes, float32
arithmetic.

A program per joint (b, k) walks over the stacks, so that every sum has one writer and a fixed order; the total is the
sum of one float64 number per joint by a single small program. A plane of weight zero is not read. The last argument of
the functions is the other kernel sets' and not used here.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from fastpose.ops._triton_device import plane_at, strides, tile_at
from fastpose.ops._triton_launch import launch
from fastpose.ops.heatmap._triton_joints import (
    COTANGENT_STRIDES,
    GRADIENT_STRIDES,
    JOINT_STRIDES,
    OF_SUMS,
    TILE,
    add_strip,
    bell_axis,
    bending,
    first_gradient,
    gather,
    gradient_arguments,
    joint_arguments,
    load_direction,
    load_joint,
    log_derivative,
    profile_constants,
    store_gradient,
)

WEIGHT_STRIDES = ["weight_b", "weight_s", "weight_k"]
SUM_BLOCK = 1024


@triton.jit
def load_weight(weight, weight_b, weight_s, weight_k, b, s, k):
    """Return the weight of stack s and whether the plane counts; a plane of weight zero is not read."""
    value = tl.full((), 1.0, tl.float32)
    if weight is not None:
        value = tl.load(plane_at(weight, b, k, weight_b, weight_k) + s * weight_s)
    return value, value != 0


@triton.jit(do_not_specialize=[*JOINT_STRIDES, *WEIGHT_STRIDES])
def loss_kernel(
    keypoints, sigma, depth, visible,
    keypoints_b, keypoints_k, keypoints_c, sigma_b, sigma_k, depth_b, depth_k, visible_b, visible_k,
    prediction, prediction_b, prediction_s, prediction_k, prediction_y, prediction_x,
    weight, weight_b, weight_s, weight_k,
    partials,
    stacks, joints, height, width,
    EXPONENT: tl.constexpr, ROUNDED: tl.constexpr, WINDOW: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Write one joint's sum of weight (prediction - bell)^2 over its stacks."""
    b, k = tl.program_id(0) // joints, tl.program_id(0) % joints
    present, x, y, near_x, near_y, spread, sharpness, _amplitude = load_joint(
        keypoints, sigma, depth, visible,
        keypoints_b, keypoints_k, keypoints_c, sigma_b, sigma_k, depth_b, depth_k, visible_b, visible_k,
        b, k, height, width, EXPONENT, ROUNDED,
    )  # fmt: skip
    total = tl.full((), 0.0, tl.float64)
    for s in range(stacks):
        importance, counts = load_weight(weight, weight_b, weight_s, weight_k, b, s, k)
        source = plane_at(prediction, b, k, prediction_b, prediction_k) + tl.cast(s, tl.int64) * prediction_s
        bottom = tl.where(counts, height, 0)
        squares = tl.zeros((ROWS, COLUMNS), tl.float32)
        for left in range(0, width, COLUMNS):
            columns, in_x, _u, across = bell_axis(left, width, x, near_x, spread, sharpness, present, WINDOW, COLUMNS)
            for top in range(0, bottom, ROWS):
                rows, in_y, _v, down = bell_axis(top, height, y, near_y, spread, sharpness, present, WINDOW, ROWS)
                at = tile_at(source, rows, columns, prediction_y, prediction_x)
                given = tl.load(at, mask=in_y[:, None] & in_x[None, :], other=0.0).to(tl.float32)
                difference = given - across[None, :] * down[:, None]
                squares += difference * difference
        total += tl.where(counts, importance.to(tl.float64) * tl.sum(squares).to(tl.float64), 0.0)
    tl.store(partials + tl.program_id(0), total)


@triton.jit(do_not_specialize=["count"])
def sum_kernel(partials, total, factor, count, BLOCK: tl.constexpr):
    """``factor`` times the sum of ``count`` numbers in a fixed order, by one program."""
    sums = tl.zeros((BLOCK,), tl.float64)
    for start in range(0, count, BLOCK):
        items = start + tl.arange(0, BLOCK)
        sums += tl.load(partials + items, mask=items < count, other=0.0)
    tl.store(total, (tl.sum(sums) * factor).to(tl.float32))


@triton.jit(do_not_specialize=[*JOINT_STRIDES, *WEIGHT_STRIDES, *GRADIENT_STRIDES])
def loss_bwd_kernel(
    keypoints, sigma, depth, visible,
    keypoints_b, keypoints_k, keypoints_c, sigma_b, sigma_k, depth_b, depth_k, visible_b, visible_k,
    prediction, prediction_b, prediction_s, prediction_k, prediction_y, prediction_x,
    weight, weight_b, weight_s, weight_k,
    grad_total, factor,
    grad_prediction, grad_b, grad_s, grad_k, grad_y, grad_x,
    grad_keypoints, grad_sigma, gk_b, gk_k, gk_c, gs_b, gs_k,
    stacks, joints, height, width, OF_JOINTS: tl.constexpr,
    EXPONENT: tl.constexpr, ROUNDED: tl.constexpr, WINDOW: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """One joint: write g = 2 factor weight grad_total (prediction - bell), gather the moments of -g bell."""
    b, k = tl.program_id(0) // joints, tl.program_id(0) % joints
    present, x, y, near_x, near_y, spread, sharpness, _amplitude = load_joint(
        keypoints, sigma, depth, visible,
        keypoints_b, keypoints_k, keypoints_c, sigma_b, sigma_k, depth_b, depth_k, visible_b, visible_k,
        b, k, height, width, EXPONENT, ROUNDED,
    )  # fmt: skip
    total, moment_x, moment_y, square = 0.0, 0.0, 0.0, 0.0
    for s in range(stacks):
        importance, counts = load_weight(weight, weight_b, weight_s, weight_k, b, s, k)
        slope = tl.where(counts, 2 * factor * tl.load(grad_total) * importance, 0.0)
        bottom = tl.where(counts, height, 0)
        source = plane_at(prediction, b, k, prediction_b, prediction_k) + tl.cast(s, tl.int64) * prediction_s
        for left in range(0, width, COLUMNS):
            columns, in_x, u, across = bell_axis(left, width, x, near_x, spread, sharpness, present, WINDOW, COLUMNS)
            zeroth = tl.zeros((ROWS, COLUMNS), tl.float32)
            first = tl.zeros((ROWS, COLUMNS), tl.float32)
            second = tl.zeros((ROWS, COLUMNS), tl.float32)
            for top in range(0, height, ROWS):
                rows, in_y, v, down = bell_axis(top, height, y, near_y, spread, sharpness, present, WINDOW, ROWS)
                inside = in_y[:, None] & in_x[None, :]
                at = tile_at(source, rows, columns, prediction_y, prediction_x)
                given = tl.load(at, mask=inside & (rows < bottom)[:, None], other=0.0).to(tl.float32)
                value = across[None, :] * down[:, None]
                gradient = tl.where(counts, (given - value) * slope, 0.0)
                if grad_prediction is not None:
                    target = plane_at(grad_prediction, b, k, grad_b, grad_k) + tl.cast(s, tl.int64) * grad_s
                    at = tile_at(target, rows, columns, grad_y, grad_x)
                    tl.store(at, gradient.to(grad_prediction.dtype.element_ty), mask=inside)
                if OF_JOINTS:
                    zeroth, first, second = gather(-gradient * value, v, zeroth, first, second)
            if OF_JOINTS:
                total, moment_x, moment_y, square = add_strip(
                    total, moment_x, moment_y, square, zeroth, first, second, u
                )  # fmt: skip
    if OF_JOINTS:
        of_x, of_y, of_sigma = first_gradient(moment_x, moment_y, square, sharpness, spread, present)
        store_gradient(grad_keypoints, grad_sigma, gk_b, gk_k, gk_c, gs_b, gs_k, b, k, of_x, of_y, of_sigma)


@triton.jit(do_not_specialize=[*JOINT_STRIDES, *WEIGHT_STRIDES, *COTANGENT_STRIDES, *GRADIENT_STRIDES])
def loss_bwd2_kernel(
    keypoints, sigma, depth, visible,
    keypoints_b, keypoints_k, keypoints_c, sigma_b, sigma_k, depth_b, depth_k, visible_b, visible_k,
    prediction, prediction_b, prediction_s, prediction_k, prediction_y, prediction_x,
    weight, weight_b, weight_s, weight_k,
    grad_total, factor,
    cot_prediction, cot_b, cot_s, cot_k, cot_y, cot_x,
    cot_keypoints, cot_sigma, ck_b, ck_k, ck_c, cs_b, cs_k,
    grad_prediction, grad_b, grad_s, grad_k, grad_y, grad_x,
    grad_keypoints, grad_sigma, gk_b, gk_k, gk_c, gs_b, gs_k,
    partials,
    stacks, joints, height, width,
    EXPONENT: tl.constexpr, ROUNDED: tl.constexpr, WINDOW: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """One joint. With U the cotangent of grad_prediction and bell' the bell's change along the joint's cotangents, the
    first derivatives' product with all cotangents is 2 factor weight grad_total sum (prediction - bell) (U - bell')."""
    b, k = tl.program_id(0) // joints, tl.program_id(0) % joints
    present, x, y, near_x, near_y, spread, sharpness, _amplitude = load_joint(
        keypoints, sigma, depth, visible,
        keypoints_b, keypoints_k, keypoints_c, sigma_b, sigma_k, depth_b, depth_k, visible_b, visible_k,
        b, k, height, width, EXPONENT, ROUNDED,
    )  # fmt: skip
    move_x, move_y, move_sigma = load_direction(
        cot_keypoints, cot_sigma, ck_b, ck_k, ck_c, cs_b, cs_k, b, k, present
    )  # fmt: skip
    of_total = tl.full((), 0.0, tl.float64)
    answer, answer_x, answer_y, answer_square = 0.0, 0.0, 0.0, 0.0
    total, moment_x, moment_y, square = 0.0, 0.0, 0.0, 0.0
    for s in range(stacks):
        twice, counts = load_weight(weight, weight_b, weight_s, weight_k, b, s, k)
        twice = 2 * twice
        slope = tl.where(counts, twice * (factor * tl.load(grad_total)), 0.0)
        bottom = tl.where(counts, height, 0)
        source = plane_at(prediction, b, k, prediction_b, prediction_k) + tl.cast(s, tl.int64) * prediction_s
        target = plane_at(grad_prediction, b, k, grad_b, grad_k) + tl.cast(s, tl.int64) * grad_s
        products = tl.zeros((ROWS, COLUMNS), tl.float32)
        for left in range(0, width, COLUMNS):
            columns, in_x, u, across = bell_axis(left, width, x, near_x, spread, sharpness, present, WINDOW, COLUMNS)
            change_x = log_derivative(u, sharpness, spread, move_x, move_sigma)
            response = tl.zeros((ROWS, COLUMNS), tl.float32)
            response_1 = tl.zeros((ROWS, COLUMNS), tl.float32)
            response_2 = tl.zeros((ROWS, COLUMNS), tl.float32)
            weighted = tl.zeros((ROWS, COLUMNS), tl.float32)
            weighted_1 = tl.zeros((ROWS, COLUMNS), tl.float32)
            weighted_2 = tl.zeros((ROWS, COLUMNS), tl.float32)
            for top in range(0, height, ROWS):
                rows, in_y, v, down = bell_axis(top, height, y, near_y, spread, sharpness, present, WINDOW, ROWS)
                change = change_x[None, :] + log_derivative(v, sharpness, spread, move_y, move_sigma)[:, None]
                inside = in_y[:, None] & in_x[None, :]
                value = across[None, :] * down[:, None]
                at = tile_at(source, rows, columns, prediction_y, prediction_x)
                difference = tl.load(at, mask=inside & (rows < bottom)[:, None], other=0.0).to(tl.float32) - value
                rest = -value * change
                if cot_prediction is not None:
                    at = plane_at(cot_prediction, b, k, cot_b, cot_k) + tl.cast(s, tl.int64) * cot_s
                    at = tile_at(at, rows, columns, cot_y, cot_x)
                    rest += tl.load(at, mask=inside & (rows < bottom)[:, None], other=0.0).to(tl.float32)
                at = tile_at(target, rows, columns, grad_y, grad_x)
                written = tl.where(counts, rest * slope, 0.0)
                tl.store(at, written.to(grad_prediction.dtype.element_ty), mask=inside)
                products += difference * rest
                f = value * (rest + difference * change) * -slope
                response, response_1, response_2 = gather(f, v, response, response_1, response_2)
                f = value * difference * -slope
                weighted, weighted_1, weighted_2 = gather(f, v, weighted, weighted_1, weighted_2)
            answer, answer_x, answer_y, answer_square = add_strip(
                answer, answer_x, answer_y, answer_square, response, response_1, response_2, u
            )  # fmt: skip
            total, moment_x, moment_y, square = add_strip(
                total, moment_x, moment_y, square, weighted, weighted_1, weighted_2, u
            )  # fmt: skip
        of_total += tl.where(counts, twice * tl.sum(products), 0.0).to(tl.float64)
    of_x, of_y, of_sigma = first_gradient(answer_x, answer_y, answer_square, sharpness, spread, present)
    bent_x, bent_y, bent_sigma = bending(
        total, moment_x, moment_y, square, sharpness, spread, move_x, move_y, move_sigma, present
    )  # fmt: skip
    store_gradient(
        grad_keypoints, grad_sigma, gk_b, gk_k, gk_c, gs_b, gs_k, b, k, of_x - bent_x, of_y - bent_y,
        of_sigma - bent_sigma,
    )  # fmt: skip
    tl.store(partials + tl.program_id(0), of_total)


# -------------------------------------------------------------------------------------------------------------- launch


def _joints_and_planes(
    prediction: Tensor, keypoints: Tensor, sigma: Tensor, visible: Tensor | None, weight: Tensor | None
) -> tuple[Tensor | int | None, ...]:
    """What the three kernels begin with: joints without depth, the prediction and the weights."""
    joints = joint_arguments(keypoints, sigma, None, visible)
    return (*joints, prediction, *prediction.stride(), weight, *strides(weight, 3))


def _sum(partials: Tensor, factor: float, total: Tensor) -> None:
    arguments = (partials, total, factor, partials.numel())
    launch(sum_kernel, (1,), arguments, {"BLOCK": SUM_BLOCK}, near=partials)


def heatmap_mse_loss(
    prediction: Tensor, keypoints: Tensor, sigma: Tensor, visible: Tensor | None, weight: Tensor | None, profile: str,
    factor: float, partials: Tensor, total: Tensor, where: int,
) -> None:  # fmt: skip
    """Write factor sum weight (prediction - target)^2 into ``total`` (); ``partials`` (B, K) float64 is overwritten."""
    batch, stacks, joints, height, width = prediction.shape
    arguments = (
        *_joints_and_planes(prediction, keypoints, sigma, visible, weight),
        *(partials, stacks, joints, height, width),
    )
    constants = {**profile_constants(profile), **TILE}
    launch(loss_kernel, (batch * joints,), arguments, constants, near=prediction)
    _sum(partials, factor, total)


def heatmap_mse_loss_bwd(
    prediction: Tensor, keypoints: Tensor, sigma: Tensor, visible: Tensor | None, weight: Tensor | None, profile: str,
    factor: float, grad_total: Tensor, grad_prediction: Tensor | None, grad_keypoints: Tensor | None,
    grad_sigma: Tensor | None, where: int,
) -> None:  # fmt: skip
    """Write the wanted gradients of the loss."""
    batch, stacks, joints, height, width = prediction.shape
    arguments = (
        *_joints_and_planes(prediction, keypoints, sigma, visible, weight),
        *(grad_total, factor, grad_prediction, *strides(grad_prediction, 5)),
        *gradient_arguments(grad_keypoints, grad_sigma),
        *(stacks, joints, height, width),
    )
    of_joints = grad_keypoints is not None or grad_sigma is not None
    constants = {"OF_JOINTS": of_joints, **profile_constants(profile), **TILE}
    launch(loss_bwd_kernel, (batch * joints,), arguments, constants, **OF_SUMS, near=prediction)


def heatmap_mse_loss_bwd2(
    prediction: Tensor, keypoints: Tensor, sigma: Tensor, visible: Tensor | None, weight: Tensor | None, profile: str,
    factor: float, grad_total: Tensor, cot_prediction: Tensor | None, cot_keypoints: Tensor | None,
    cot_sigma: Tensor | None, grad_prediction: Tensor, grad_keypoints: Tensor | None, grad_sigma: Tensor | None,
    partials: Tensor, grad_grad_total: Tensor, where: int,
) -> None:  # fmt: skip
    """Write the gradients of <cotangents, heatmap_mse_loss_bwd> with respect to its inputs and to grad_total."""
    batch, stacks, joints, height, width = prediction.shape
    arguments = (
        *_joints_and_planes(prediction, keypoints, sigma, visible, weight),
        *(grad_total, factor, cot_prediction, *strides(cot_prediction, 5)),
        *gradient_arguments(cot_keypoints, cot_sigma),
        *(grad_prediction, *grad_prediction.stride()),
        *gradient_arguments(grad_keypoints, grad_sigma),
        *(partials, stacks, joints, height, width),
    )
    constants = {**profile_constants(profile), **TILE}
    launch(loss_bwd2_kernel, (batch * joints,), arguments, constants, **OF_SUMS, near=prediction)
    _sum(partials, factor, grad_grad_total)
