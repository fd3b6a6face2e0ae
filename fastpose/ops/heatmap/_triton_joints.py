# mypy: disallow-untyped-defs=False
"""Device functions of joints and their bells, the Triton twin of csrc/heatmap/heatmap_math.h.

A bell is separable: value(x, y) = columns[x] * rows[y], so that a tile needs two vectors of exponentials and one
product per pixel. An absent joint is a bell of zeros whose derivatives are zero whatever arrives.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from fastpose.ops._triton_device import finite, flat_strides, plane_at, truncated
from fastpose.ops.heatmap._profiles import DEPTH_MAPS, REACH

TILE = {"ROWS": 16, "COLUMNS": 64}
WARPS_OF_SUMS = 8  # 4 pixels a thread: six running sums fit 128 registers
# Without the limit the compiler aims at fewer registers, for one more block beside the others, and spills some.
OF_SUMS = {"warps": WARPS_OF_SUMS, "maxnreg": 128}
# Arguments whose values shall not compile a kernel anew.
JOINT_STRIDES = [
    "keypoints_b", "keypoints_k", "keypoints_c", "sigma_b", "sigma_k", "depth_b", "depth_k", "visible_b", "visible_k"
]  # fmt: skip
GRADIENT_STRIDES = ["gk_b", "gk_k", "gk_c", "gs_b", "gs_k"]
COTANGENT_STRIDES = ["ck_b", "ck_k", "ck_c", "cs_b", "cs_k"]
_REACH = tl.constexpr(REACH)


def joint_arguments(
    keypoints: Tensor, sigma: Tensor, depth: Tensor | None, visible: Tensor | None
) -> tuple[Tensor | int | None, ...]:
    """A kernel's arguments from ``keypoints`` to ``visible_k``."""
    strides = flat_strides((keypoints, 3), (sigma, 2), (depth, 2), (visible, 2))
    return (keypoints, sigma, depth, visible, *strides)


def gradient_arguments(keypoints: Tensor | None, sigma: Tensor | None) -> tuple[Tensor | int | None, ...]:
    """Gradients or cotangents of key points and sigma with their strides."""
    return (keypoints, sigma, *flat_strides((keypoints, 3), (sigma, 2)))


def profile_constants(profile: str) -> dict[str, float | bool]:
    """A profile as a kernel's constants; a negative window is the whole plane."""
    shape = DEPTH_MAPS[profile]
    window = -1.0 if shape.window is None else shape.window
    return {"EXPONENT": shape.exponent, "ROUNDED": shape.rounded, "WINDOW": window}


@triton.jit
def touches(centre, reach, count):
    """Whether a mark of half side ``reach`` touches ``count`` pixels (MMPose's rule, with a pixel to spare)."""
    return (centre - reach < count) & (centre + reach + 1 >= 0)


@triton.jit
def load_joint(
    keypoints, sigma, depth, visible,
    keypoints_b, keypoints_k, keypoints_c, sigma_b, sigma_k, depth_b, depth_k, visible_b, visible_k,
    b, k, height, width, EXPONENT: tl.constexpr, ROUNDED: tl.constexpr,
):  # fmt: skip
    """Return (present, x, y, nearest x, nearest y, sigma, sharpness, amplitude), harmless numbers for an absent joint.

    The value at (px, py) is amplitude * exp(-sharpness ((px - x)^2 + (py - y)^2)).
    """
    point = plane_at(keypoints, b, k, keypoints_b, keypoints_k)
    x = tl.load(point)
    y = tl.load(point + keypoints_c)
    width_of_bell = tl.load(plane_at(sigma, b, k, sigma_b, sigma_k))
    amplitude = 1.0
    present = (width_of_bell > 0) & finite(x) & finite(y)
    if depth is not None:
        amplitude = tl.load(plane_at(depth, b, k, depth_b, depth_k))
        present = present & finite(amplitude)
    if visible is not None:
        present = present & (tl.load(plane_at(visible, b, k, visible_b, visible_k)) != 0)
    square = width_of_bell * width_of_bell
    sharpness = EXPONENT / square
    nearest_x = truncated(x + 0.5)
    nearest_y = truncated(y + 0.5)
    if ROUNDED:
        x = nearest_x
        y = nearest_y
    reach = _REACH * width_of_bell
    present = present & finite(square) & finite(sharpness) & touches(x, reach, width) & touches(y, reach, height)
    x, y = tl.where(present, x, 0.0), tl.where(present, y, 0.0)
    nearest_x, nearest_y = tl.where(present, nearest_x, 0.0), tl.where(present, nearest_y, 0.0)
    sharpness, width_of_bell = tl.where(present, sharpness, 0.0), tl.where(present, width_of_bell, 1.0)
    return present, x, y, nearest_x, nearest_y, width_of_bell, sharpness, tl.where(present, amplitude, 0.0)


@triton.jit
def bell_axis(
    start, count, centre, nearest, sigma, sharpness, shown, WINDOW: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Return (pixels, inside, offsets, values) of one axis from pixel ``start``; values beyond ``count`` are zero.

    A window is the pixels within window * sigma of the nearest one. Nothing is shown of an absent joint.
    """
    pixels = start + tl.arange(0, BLOCK)
    inside = pixels < count
    place = pixels.to(tl.float32)
    offsets = place - centre
    visible = pixels < tl.where(shown, count, 0)  # not `inside & shown`: the interpreter cannot spread a single truth
    if WINDOW >= 0:
        visible = visible & (tl.abs(place - nearest) <= WINDOW * sigma)
    return pixels, inside, offsets, tl.where(visible, tl.exp(-(offsets * offsets) * sharpness), 0.0)


# ------------------------------------------------------------------------------------------------------------- moments


@triton.jit
def gather(f, v, zeroth, first, second):
    """Add a tile of f to the tiles of f, f v and f v^2; v are the rows' offsets."""
    times = f * v[:, None]
    return zeroth + f, first + times, second + times * v[:, None]


@triton.jit
def add_strip(total, moment_x, moment_y, square, zeroth, first, second, u):
    """Add a strip of columns with offsets u, as ``gather`` left it, to the sums of f, f u, f v and f (u^2 + v^2)."""
    along = zeroth * u[None, :]
    curved = second + along * u[None, :]
    return total + tl.sum(zeroth), moment_x + tl.sum(along), moment_y + tl.sum(first), square + tl.sum(curved)


# --------------------------------------------------------------------------------------------------------- derivatives


@triton.jit
def load_direction(
    cot_keypoints, cot_sigma, keypoints_b, keypoints_k, keypoints_c, sigma_b, sigma_k, b, k, present
):  # fmt: skip
    """Return (x, y, sigma): the direction in which a joint moves; absent cotangents and absent joints do not move."""
    x, y, width_of_bell = 0.0, 0.0, 0.0
    if cot_keypoints is not None:
        point = plane_at(cot_keypoints, b, k, keypoints_b, keypoints_k)
        x, y = tl.load(point), tl.load(point + keypoints_c)
    if cot_sigma is not None:
        width_of_bell = tl.load(plane_at(cot_sigma, b, k, sigma_b, sigma_k))
    return tl.where(present, x, 0.0), tl.where(present, y, 0.0), tl.where(present, width_of_bell, 0.0)


@triton.jit
def log_derivative(offset, sharpness, sigma, along, along_sigma):
    """One axis' share of the derivative of the bell's logarithm along a direction."""
    slope = 2 * sharpness
    return offset * (slope * along + slope / sigma * along_sigma * offset)


@triton.jit
def first_gradient(moment_x, moment_y, square, sharpness, sigma, present):
    """Gradient of sum(f g) for the bell g in (x, y, sigma), from the moments of f g."""
    slope = 2 * sharpness
    x, y, of_sigma = slope * moment_x, slope * moment_y, slope / sigma * square
    return tl.where(present, x, 0.0), tl.where(present, y, 0.0), tl.where(present, of_sigma, 0.0)


@triton.jit
def bending(total, moment_x, moment_y, square, sharpness, sigma, move_x, move_y, move_sigma, present):
    """What phi' itself contributes to the second gradient in (x, y, sigma), from the moments of f g; see
    second_gradient() in heatmap_math.h."""
    slope = 2 * sharpness
    bend = 2 * slope / sigma
    x = slope * move_x * total + bend * move_sigma * moment_x
    y = slope * move_y * total + bend * move_sigma * moment_y
    of_sigma = bend * (move_x * moment_x + move_y * moment_y) + 3 * slope / (sigma * sigma) * move_sigma * square
    return tl.where(present, x, 0.0), tl.where(present, y, 0.0), tl.where(present, of_sigma, 0.0)


@triton.jit
def store_gradient(
    grad_keypoints, grad_sigma, keypoints_b, keypoints_k, keypoints_c, sigma_b, sigma_k, b, k, x, y, of_sigma
):  # fmt: skip
    if grad_keypoints is not None:
        point = plane_at(grad_keypoints, b, k, keypoints_b, keypoints_k)
        tl.store(point, x)
        tl.store(point + keypoints_c, y)
    if grad_sigma is not None:
        tl.store(plane_at(grad_sigma, b, k, sigma_b, sigma_k), of_sigma)
