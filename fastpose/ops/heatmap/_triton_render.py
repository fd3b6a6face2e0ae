# mypy: disallow-untyped-defs=False
"""Rendering of joints and its two derivatives in Triton, as csrc/heatmap/render_cpu.cpp computes them in float32.

``heatmap_render`` has a program per plane and strip of columns, the derivatives one per plane, so that every sum has
one writer and a fixed order. Planes may have any strides. The last argument of the functions is the other kernel sets'
and not used here.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from fastpose.ops._triton_device import flat_strides, plane_at, strides, tile_at
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


@triton.jit(do_not_specialize=JOINT_STRIDES)
def render_kernel(
    keypoints, sigma, depth, visible,
    keypoints_b, keypoints_k, keypoints_c, sigma_b, sigma_k, depth_b, depth_k, visible_b, visible_k,
    out, out_b, out_k, out_y, out_x,
    joints, height, width,
    EXPONENT: tl.constexpr, ROUNDED: tl.constexpr, WINDOW: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Write one strip of columns of one plane."""
    b, k = tl.program_id(0) // joints, tl.program_id(0) % joints
    present, x, y, near_x, near_y, spread, sharpness, amplitude = load_joint(
        keypoints, sigma, depth, visible,
        keypoints_b, keypoints_k, keypoints_c, sigma_b, sigma_k, depth_b, depth_k, visible_b, visible_k,
        b, k, height, width, EXPONENT, ROUNDED,
    )  # fmt: skip
    left = tl.program_id(1) * COLUMNS
    columns, in_x, _u, across = bell_axis(left, width, x, near_x, spread, sharpness, present, WINDOW, COLUMNS)
    target = plane_at(out, b, k, out_b, out_k)
    for top in range(0, height, ROWS):
        rows, in_y, _v, down = bell_axis(top, height, y, near_y, spread, sharpness, present, WINDOW, ROWS)
        values = across[None, :] * (down * amplitude)[:, None]
        at = tile_at(target, rows, columns, out_y, out_x)
        tl.store(at, values.to(out.dtype.element_ty), mask=in_y[:, None] & in_x[None, :])


@triton.jit(do_not_specialize=[*JOINT_STRIDES, *GRADIENT_STRIDES, "gd_b", "gd_k"])
def render_bwd_kernel(
    keypoints, sigma, depth, visible,
    keypoints_b, keypoints_k, keypoints_c, sigma_b, sigma_k, depth_b, depth_k, visible_b, visible_k,
    grad_out, out_b, out_k, out_y, out_x,
    grad_keypoints, grad_sigma, gk_b, gk_k, gk_c, gs_b, gs_k,
    grad_depth, gd_b, gd_k,
    joints, height, width,
    EXPONENT: tl.constexpr, ROUNDED: tl.constexpr, WINDOW: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Gradients of one joint from the moments of grad_out * bell."""
    b, k = tl.program_id(0) // joints, tl.program_id(0) % joints
    present, x, y, near_x, near_y, spread, sharpness, amplitude = load_joint(
        keypoints, sigma, depth, visible,
        keypoints_b, keypoints_k, keypoints_c, sigma_b, sigma_k, depth_b, depth_k, visible_b, visible_k,
        b, k, height, width, EXPONENT, ROUNDED,
    )  # fmt: skip
    source = plane_at(grad_out, b, k, out_b, out_k)
    total, moment_x, moment_y, square = 0.0, 0.0, 0.0, 0.0
    bottom = tl.where(present, height, 0)  # an absent joint's plane is not read
    for left in range(0, width, COLUMNS):
        columns, in_x, u, across = bell_axis(left, width, x, near_x, spread, sharpness, present, WINDOW, COLUMNS)
        zeroth = tl.zeros((ROWS, COLUMNS), tl.float32)
        first = tl.zeros((ROWS, COLUMNS), tl.float32)
        second = tl.zeros((ROWS, COLUMNS), tl.float32)
        for top in range(0, bottom, ROWS):
            rows, in_y, v, down = bell_axis(top, height, y, near_y, spread, sharpness, present, WINDOW, ROWS)
            at = tile_at(source, rows, columns, out_y, out_x)
            grad = tl.load(at, mask=in_y[:, None] & in_x[None, :], other=0.0).to(tl.float32)
            zeroth, first, second = gather(grad * (across[None, :] * down[:, None]), v, zeroth, first, second)
        total, moment_x, moment_y, square = add_strip(
            total, moment_x, moment_y, square, zeroth, first, second, u
        )  # fmt: skip
    of_x, of_y, of_sigma = first_gradient(moment_x, moment_y, square, sharpness, spread, present)
    store_gradient(
        grad_keypoints, grad_sigma, gk_b, gk_k, gk_c, gs_b, gs_k, b, k,
        amplitude * of_x, amplitude * of_y, amplitude * of_sigma,
    )  # fmt: skip
    if grad_depth is not None:
        tl.store(plane_at(grad_depth, b, k, gd_b, gd_k), total)


@triton.jit(do_not_specialize=[*JOINT_STRIDES, *COTANGENT_STRIDES, "cd_b", "cd_k", *GRADIENT_STRIDES, "gd_b", "gd_k"])
def render_bwd2_kernel(
    keypoints, sigma, depth, visible,
    keypoints_b, keypoints_k, keypoints_c, sigma_b, sigma_k, depth_b, depth_k, visible_b, visible_k,
    grad_out, out_b, out_k, out_y, out_x,
    cot_keypoints, cot_sigma, ck_b, ck_k, ck_c, cs_b, cs_k,
    cot_depth, cd_b, cd_k,
    grad_keypoints, grad_sigma, gk_b, gk_k, gk_c, gs_b, gs_k,
    grad_depth, gd_b, gd_k,
    grad_grad_out, moved_b, moved_k, moved_y, moved_x,
    joints, height, width,
    EXPONENT: tl.constexpr, ROUNDED: tl.constexpr, WINDOW: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """One joint: write grad_grad_out = d(amplitude bell) along the cotangents; gradients from the moments of grad_out
    times it (response) and times the bell (weighted)."""
    b, k = tl.program_id(0) // joints, tl.program_id(0) % joints
    present, x, y, near_x, near_y, spread, sharpness, amplitude = load_joint(
        keypoints, sigma, depth, visible,
        keypoints_b, keypoints_k, keypoints_c, sigma_b, sigma_k, depth_b, depth_k, visible_b, visible_k,
        b, k, height, width, EXPONENT, ROUNDED,
    )  # fmt: skip
    move_x, move_y, move_sigma = load_direction(
        cot_keypoints, cot_sigma, ck_b, ck_k, ck_c, cs_b, cs_k, b, k, present
    )  # fmt: skip
    extra = 0.0
    if cot_depth is not None:
        extra = tl.where(present, tl.load(plane_at(cot_depth, b, k, cd_b, cd_k)), 0.0)
    source = plane_at(grad_out, b, k, out_b, out_k)
    bottom = tl.where(present, height, 0)  # an absent joint's plane is not read
    target = plane_at(grad_grad_out, b, k, moved_b, moved_k)
    answer, answer_x, answer_y, answer_square = 0.0, 0.0, 0.0, 0.0
    total, moment_x, moment_y, square = 0.0, 0.0, 0.0, 0.0
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
            change_y = log_derivative(v, sharpness, spread, move_y, move_sigma)
            value = across[None, :] * down[:, None]
            moved = value * ((change_x[None, :] + change_y[:, None]) * amplitude + extra)
            inside = in_y[:, None] & in_x[None, :]
            at = tile_at(target, rows, columns, moved_y, moved_x)
            tl.store(at, moved.to(grad_grad_out.dtype.element_ty), mask=inside)
            at = tile_at(source, rows, columns, out_y, out_x)
            grad = tl.load(at, mask=inside & (rows < bottom)[:, None], other=0.0).to(tl.float32)
            response, response_1, response_2 = gather(grad * moved, v, response, response_1, response_2)
            weighted, weighted_1, weighted_2 = gather(grad * value, v, weighted, weighted_1, weighted_2)
        answer, answer_x, answer_y, answer_square = add_strip(
            answer, answer_x, answer_y, answer_square, response, response_1, response_2, u
        )  # fmt: skip
        total, moment_x, moment_y, square = add_strip(
            total, moment_x, moment_y, square, weighted, weighted_1, weighted_2, u
        )  # fmt: skip
    of_x, of_y, of_sigma = first_gradient(answer_x, answer_y, answer_square, sharpness, spread, present)
    bent_x, bent_y, bent_sigma = bending(
        total, moment_x, moment_y, square, sharpness, spread, move_x, move_y, move_sigma, present
    )  # fmt: skip
    store_gradient(
        grad_keypoints, grad_sigma, gk_b, gk_k, gk_c, gs_b, gs_k, b, k,
        of_x - amplitude * bent_x, of_y - amplitude * bent_y, of_sigma - amplitude * bent_sigma,
    )  # fmt: skip
    if grad_depth is not None:
        of_depth = 2 * sharpness * (moment_x * move_x + moment_y * move_y + square / spread * move_sigma)
        tl.store(plane_at(grad_depth, b, k, gd_b, gd_k), of_depth)


# -------------------------------------------------------------------------------------------------------------- launch


def heatmap_render(
    keypoints: Tensor, sigma: Tensor, depth: Tensor | None, visible: Tensor | None, profile: str, out: Tensor,
    where: int,
) -> None:  # fmt: skip
    """Draw every joint's footprint, times its depth, into ``out`` (B, K, H, W)."""
    batch, joints, height, width = out.shape
    grid = (batch * joints, triton.cdiv(width, TILE["COLUMNS"]))
    arguments = (*joint_arguments(keypoints, sigma, depth, visible), out, *out.stride(), joints, height, width)
    launch(render_kernel, grid, arguments, {**profile_constants(profile), **TILE}, near=out)


def heatmap_render_bwd(
    keypoints: Tensor, sigma: Tensor, depth: Tensor | None, visible: Tensor | None, profile: str, grad_out: Tensor,
    grad_keypoints: Tensor | None, grad_sigma: Tensor | None, grad_depth: Tensor | None, where: int,
) -> None:  # fmt: skip
    """Write the wanted gradients of the joints."""
    batch, joints, height, width = grad_out.shape
    arguments = (
        *joint_arguments(keypoints, sigma, depth, visible),
        *(grad_out, *grad_out.stride()),
        *gradient_arguments(grad_keypoints, grad_sigma),
        *(grad_depth, *strides(grad_depth, 2), joints, height, width),
    )
    constants = {**profile_constants(profile), **TILE}
    launch(render_bwd_kernel, (batch * joints,), arguments, constants, **OF_SUMS, near=grad_out)


def heatmap_render_bwd2(
    keypoints: Tensor, sigma: Tensor, depth: Tensor | None, visible: Tensor | None, profile: str, grad_out: Tensor,
    cot_keypoints: Tensor | None, cot_sigma: Tensor | None, cot_depth: Tensor | None,
    grad_keypoints: Tensor | None, grad_sigma: Tensor | None, grad_depth: Tensor | None,
    grad_grad_out: Tensor, where: int,
) -> None:  # fmt: skip
    """Write the gradients of <cotangents, heatmap_render_bwd> with respect to the joints and to grad_out."""
    batch, joints, height, width = grad_out.shape
    arguments = (
        *joint_arguments(keypoints, sigma, depth, visible),
        *(grad_out, *grad_out.stride()),
        *gradient_arguments(cot_keypoints, cot_sigma),
        *(cot_depth, *strides(cot_depth, 2)),
        *gradient_arguments(grad_keypoints, grad_sigma),
        *(grad_depth, *strides(grad_depth, 2)),
        *(grad_grad_out, *flat_strides((grad_grad_out, 4)), joints, height, width),
    )
    constants = {**profile_constants(profile), **TILE}
    launch(render_bwd2_kernel, (batch * joints,), arguments, constants, **OF_SUMS, near=grad_out)
