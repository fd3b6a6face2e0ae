"""Heatmaps: what the public functions take, check and return."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fastpose import _checks
from fastpose.ops._autograd import Differentiable, Signature
from fastpose.ops._dispatch import Inputs, Operation
from fastpose.ops.heatmap import _arguments, _profiles, _results
from fastpose.ops.heatmap._results import wide

METHODS = ("argmax", "quarter", "dark", "dark_udp", "softargmax")
REDUCTIONS = ("mean", "sum", "none")
HEATMAP_PROFILES, DEPTH_PROFILES = tuple(_profiles.HEATMAPS), tuple(_profiles.DEPTH_MAPS)
_SIZE = (("height", "SymInt"), ("width", "SymInt"), ("profile", "str"), ("dtype", "ScalarType"))

RENDER = Operation("render_gaussian_heatmaps", "heatmap", "cpu", "cuda", "triton", "reference")
_render = Differentiable(
    RENDER,
    Signature(("keypoints", "sigma", "visible?"), ("keypoints", "sigma"), _SIZE, outputs=1, results=1, reads=()),
    allocate=_results.empty_heatmaps,
)
RENDER_DEPTH = Operation("render_depth_maps", "heatmap", "cpu", "cuda", "triton", "reference")
_render_depth = Differentiable(
    RENDER_DEPTH,
    Signature(
        ("keypoints", "sigma", "depth", "visible?"),
        ("keypoints", "sigma", "depth"),
        _SIZE,
        outputs=1,
        results=1,
        reads=(),
    ),
    allocate=_results.empty_heatmaps,
)
LOSS = Operation("heatmap_mse_loss", "heatmap", "cpu", "cuda", "triton", "reference")
_loss = Differentiable(
    LOSS,
    Signature(
        inputs=("prediction", "keypoints", "sigma", "visible?", "weight?"),
        differentiable=("prediction", "keypoints", "sigma"),
        parameters=(("profile", "str"), ("divisor", "SymInt")),
        outputs=1,
        results=1,
        reads=(),
    ),
    allocate=_results.empty_loss,
)
DECODE = Operation("decode_heatmaps", "heatmap", "cpu", "cuda", "triton", "reference")
_decode = Differentiable(
    DECODE,
    Signature(("heatmaps",), (), (("method", "str"), ("kernel", "int"), ("max_step", "float")), outputs=2, results=2),
    allocate=_results.empty_points,
)
SOFTARGMAX = Operation("softargmax", "heatmap", "cpu", "cuda", "triton", "reference")
_softargmax = Differentiable(
    SOFTARGMAX,
    Signature(("heatmaps",), ("heatmaps",), (("beta", "float"),), outputs=2, results=3),
    allocate=_results.empty_soft_points,
)
FLIP = Operation("flip_average", "heatmap", "cpu", "cuda", "triton", "reference")
_flip = Differentiable(
    FLIP,
    Signature(
        ("heatmaps", "flipped"),
        ("heatmaps", "flipped"),
        (("permutation", "int[]"),),
        outputs=1,
        results=1,
        reads=(),
    ),
    allocate=_results.empty_average,
)
OPERATIONS = (RENDER, RENDER_DEPTH, LOSS, DECODE, FLIP)  # by their public names


# --------------------------------------------------------------------------------------------------------- rendering


def render_gaussian_heatmaps(
    keypoints: Tensor,
    size: Sequence[int],
    sigma: float | Tensor,
    *,
    visibility: Tensor | None = None,
    profile: str = "gaussian",
    out: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Draw a bell of height 1 for every joint on a plane of its own.

    Args:
        keypoints: (B, K, 2) as (x, y) in heatmap pixels, pixel centres at integers.
        size: (H, W).
        sigma: width in pixels, one number or a tensor (K,) or (B, K).
        visibility: (B, K), > 0 where the joint is to be drawn; everything by default.
        profile: value at distance d from the joint:
            "gaussian": exp(-d^2 / (2 sigma^2)) about the exact point, on the whole plane (systems 000, 002, 004;
            MMPose "unbiased");
            "gaussian_rounded": the same about the nearest pixel int(x + 0.5) (system 001 as released, sigma 6);
            "msra": about the nearest pixel, zero outside its square of +-3 sigma (hourglass, Simple Baselines, MMPose);
            "udp": about the exact point, zero outside the square of +-3 sigma around the nearest pixel (MMPose UDP);
            "wide": exp(-d^2 / sigma^2) about the exact point (system 001, eq. 1);
            "binary": 1 at the nearest pixel (system 003).
        out: (B, K, H, W) to draw into and return, of the keypoints' dtype or (but for float64) 16 bits; strides without
            overlap. Reused memory is far faster than fresh memory. Not differentiable.
        backend: "auto", "reference", "cpu", "cuda" or "triton".

    Returns:
        (B, K, H, W) of the keypoints' dtype; arithmetic in float32 (float64 for float64).

    A plane is all zero where its joint is not visible, not finite, has a sigma that is not positive and finite, or lies
    outside the plane by more than 3 sigma and a pixel (MMPose's rule).
    Differentiable twice in keypoints and in a sigma tensor for "gaussian" and "wide", any number of times with
    ``backend="reference"``; the gradient of an all-zero plane is zero. Constant for the other profiles.

    Raises:
        TypeError: keypoints or a sigma tensor is not floating-point, or ``out`` has another dtype.
        ValueError: sizes do not match, unknown profile, sigma not positive, ``out`` together with a gradient.
    """
    _checks.choice("profile", profile, HEATMAP_PROFILES)
    height, width = _arguments.check_size(size)
    if out is None:
        direct = RENDER.direct(backend, keypoints, height, width, sigma, visibility, profile)
        if direct is not None:
            return direct
    _arguments.check_joints(keypoints)
    points, widths = _arguments.joints(keypoints, sigma, profile, wide(keypoints.dtype))
    inputs = (points, widths, _arguments.visible(visibility, keypoints))
    if out is not None:
        return _render_into(backend, inputs, (height, width, profile), keypoints, out)
    chosen = RENDER.choose(backend, inputs, (height, width, profile, keypoints.dtype))
    (heatmaps,) = _render(chosen, inputs, (height, width, profile, keypoints.dtype))
    return heatmaps


def render_depth_maps(
    keypoints: Tensor,
    depth: Tensor,
    size: Sequence[int],
    sigma: float | Tensor,
    *,
    visibility: Tensor | None = None,
    profile: str = "patch",
    backend: str = "auto",
) -> Tensor:
    """Draw every joint's depth inside its heatmap footprint, zero elsewhere (system 002).

    Args:
        keypoints: (B, K, 2) as (x, y) in heatmap pixels.
        depth: (B, K) in any unit, of the keypoints' dtype.
        size: (H, W).
        sigma: width of the footprint in pixels, one number or a tensor (K,) or (B, K).
        visibility: (B, K), > 0 where the joint is to be drawn.
        profile: depth times this footprint: "patch": 1 in the square of +-3 sigma around the nearest pixel;
            "constant": 1 on the whole plane; or a profile of :func:`render_gaussian_heatmaps`: "gaussian" fades the
            depth out with the distance, "binary" marks one pixel.
        backend: "auto", "reference", "cpu", "cuda" or "triton".

    Returns:
        (B, K, H, W) of the keypoints' dtype. Planes of invisible, non-finite or far joints and of non-finite depths are
        all zero.

    Differentiable twice in depth, and for "gaussian" and "wide" in keypoints and a sigma tensor.

    Raises:
        TypeError, ValueError: as :func:`render_gaussian_heatmaps`; ``depth`` of another shape.
    """
    _checks.choice("profile", profile, DEPTH_PROFILES)
    height, width = _arguments.check_size(size)
    direct = RENDER_DEPTH.direct(backend, keypoints, depth, height, width, sigma, visibility, profile)
    if direct is not None:
        return direct
    _arguments.check_joints(keypoints)
    _checks.tensor("depth", depth, "(B, K)")
    _checks.shape("depth", depth, keypoints.shape[:2], "(B, K)")
    _checks.same_dtype(keypoints=keypoints, depth=depth)
    _checks.same_device(keypoints=keypoints, depth=depth)
    arithmetic = wide(keypoints.dtype)
    points, widths = _arguments.joints(keypoints, sigma, profile, arithmetic)
    inputs = (points, widths, depth.to(arithmetic), _arguments.visible(visibility, keypoints))
    parameters = (height, width, profile, keypoints.dtype)
    (maps,) = _render_depth(RENDER_DEPTH.choose(backend, inputs, parameters), inputs, parameters)
    return maps


def _render_into(
    backend: str, inputs: Inputs, parameters: tuple[int, int, str], keypoints: Tensor, out: Tensor
) -> Tensor:
    height, width, _ = parameters
    _checks.tensor("out", out, "(B, K, H, W)")
    _checks.shape("out", out, (*keypoints.shape[:2], height, width), "(B, K, H, W)")
    _checks.same_device(keypoints=keypoints, out=out)
    narrow = () if keypoints.dtype == torch.float64 else (torch.bfloat16, torch.float16)
    if out.dtype not in (keypoints.dtype, *narrow):
        expected = " or ".join(str(dtype) for dtype in dict.fromkeys((keypoints.dtype, *narrow)))
        raise TypeError(f"out: expected {expected} for key points in {keypoints.dtype}, got {out.dtype}")
    if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in (*inputs, out)):
        raise ValueError(
            "out: expected no gradient through out=, got a tensor that requires grad; detach it, or drop out"
        )
    if _arguments.overlaps(out):
        raise ValueError(f"out: expected elements that do not share memory, got strides {out.stride()}")
    chosen = RENDER.choose(backend, (*inputs, out), (*parameters, keypoints.dtype))  # one that can write to it
    if torch.compiler.is_compiling():
        return out.copy_(_render(chosen, inputs, (*parameters, out.dtype))[0])
    chosen.fwd((*inputs, out), (*parameters, out.dtype))
    torch.autograd.graph.increment_version(out)  # a graph that saved the old contents must notice
    return out


# --------------------------------------------------------------------------------------------------------------- loss


def heatmap_mse_loss(
    prediction: Tensor,
    keypoints: Tensor,
    sigma: float | Tensor,
    *,
    visibility: Tensor | None = None,
    profile: str = "gaussian",
    weight: Tensor | None = None,
    reduction: str = "mean",
    backend: str = "auto",
) -> Tensor:
    """Mean squared error against heatmaps that are rendered on the fly and never written to memory.

    ``weight * (prediction - target)^2`` with ``target = render_gaussian_heatmaps(keypoints, (H, W), sigma,
    visibility=visibility, profile=profile)``, reduced over all elements. Several stacks (intermediate supervision)
    share one call and one target.

    Args:
        prediction: (B, K, H, W), or (B, S, K, H, W) for S stacks.
        keypoints: (B, K, 2) as (x, y) in heatmap pixels, of any floating-point dtype.
        sigma: width in pixels, one number or a tensor (K,) or (B, K).
        visibility: (B, K), > 0 where the joint is to be drawn. The target of every other joint is an all-zero plane,
            which still counts, as in the published Torch codes; ``weight=(visibility > 0).float()`` leaves such joints
            out of the loss instead, as pytorch-pose and MMPose do.
        profile: as :func:`render_gaussian_heatmaps`.
        weight: (K,), (B, K) or, for stacks, (B, S, K): factor of the squared error of a plane, a constant. A plane of
            weight 0 is not read: NaN in it does no harm.
        reduction: "mean" over the elements of the prediction (weights do not change the divisor; S stacks give the mean
            of the S losses), "sum", or "none".
        backend: "auto", "reference", "cpu", "cuda" or "triton".

    Returns:
        a scalar in float32 (float64 for float64 predictions), also under autocast and for 16-bit predictions; for
        "none" a tensor shaped like the prediction, for which alone the target is rendered. An empty batch gives 0.

    Differentiable twice in prediction and, for "gaussian" and "wide", in keypoints and a sigma tensor; any number of
    times with ``backend="reference"``.

    Raises:
        TypeError: a tensor is not floating-point.
        ValueError: sizes do not match, unknown profile or reduction, sigma not positive, a weight that requires grad.
    """
    _checks.choice("profile", profile, HEATMAP_PROFILES)
    _checks.choice("reduction", reduction, REDUCTIONS)
    if reduction != "none":
        mean = reduction == "mean"
        direct = LOSS.direct(backend, prediction, keypoints, sigma, visibility, profile, weight, mean)
        if direct is not None:
            return direct
    _checks.tensor("prediction", prediction, "(B, K, H, W) or (B, S, K, H, W)", ranks=(4, 5))
    _arguments.check_joints(keypoints)
    stacks = prediction if prediction.dim() == 5 else prediction[:, None]  # (B, S, K, H, W)
    _arguments.check_prediction(prediction, stacks, keypoints)
    arithmetic = wide(prediction.dtype)
    points, widths = _arguments.joints(keypoints, sigma, profile, arithmetic)
    inputs = (
        stacks,
        points,
        widths,
        _arguments.visible(visibility, keypoints),
        _arguments.plane_weights(weight, stacks, arithmetic),
    )
    if reduction == "none":
        return _squared_errors(inputs, profile, backend).view(prediction.shape)
    parameters = (profile, max(prediction.numel(), 1) if reduction == "mean" else 1)
    (total,) = _loss(LOSS.choose(backend, inputs, parameters), inputs, parameters)
    return total


def _squared_errors(inputs: Inputs, profile: str, backend: str) -> Tensor:
    """weight * (prediction - target)^2 (B, S, K, H, W): the output is as large as the target, which is rendered."""
    stacks, *joints, weight = inputs
    dtype = wide(stacks.dtype)
    parameters = (stacks.shape[3], stacks.shape[4], profile, dtype)
    (target,) = _render(RENDER.choose(backend, tuple(joints), parameters), tuple(joints), parameters)  # (B, K, H, W)
    difference = stacks.to(dtype) - target[:, None]
    if weight is None:
        return difference.square()
    factor = weight[..., None, None]
    return factor * torch.where(factor == 0, 0.0, difference).square()


# ----------------------------------------------------------------------------------------------------------- decoding


def decode_heatmaps(
    heatmaps: Tensor,
    method: str = "argmax",
    *,
    kernel: int = 11,
    beta: float = 25.0,
    max_step: float | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Find every joint on its plane.

    Args:
        heatmaps: (B, K, H, W).
        method:
            "argmax": the first pixel in row-major order among those of the largest finite value.
            "quarter": a quarter pixel from there toward the higher of the two neighbours on each axis, none where they
            are equal. Bounds of MMPose 1.3.2: along x where 1 < x < W-1 and y > 0, along y where 1 < y < H-1 and x > 0
            (HRNet asks 1 < x < W-1 and 1 < y < H-1 for both).
            "dark": one Newton step on the logarithm of the plane blurred with ``kernel`` (Zhang et al., CVPR 2020),
            where 1 < x < W-2 and 1 < y < H-2. Beyond the border the plane counts as zero; the blurred plane is scaled
            to its old maximum and clamped at 1e-10.
            "dark_udp": the same with the stencil of MMPose's UDP codec: neighbours at distance 1, also at the border,
            clamped to [1e-3, 50].
            "softargmax": the expected pixel under softmax(beta * heatmap).
        kernel: taps of the blur along each axis for "dark" and "dark_udp", odd (11 for sigma 2, 17 for sigma 3);
            its sigma is OpenCV's 0.3 ((kernel - 1) / 2 - 1) + 0.8.
        beta: sharpness of "softargmax".
        max_step: a "dark" step that is longer than this on either axis leaves the cell in which the expansion holds and
            is not taken; 1 is a good guard. By default every finite step is taken, as in MMPose.
        backend: "auto", "reference", "cpu", "cuda" or "triton".

    Returns:
        coordinates (B, K, 2) as (x, y) in heatmap pixels and scores (B, K), the largest finite value of the plane; both
        float32 (float64 for float64 heatmaps). Values that are not finite are ignored (for the blur they count as 0).
        A plane without a finite value scores 0 at (0, 0), an all-zero plane scores 0 at (0, 0) (at the plane's centre
        with "softargmax"). A step that is not finite (singular Hessian) is not taken, nor one from a peak that is not
        positive.

    The coordinates of "softargmax" are differentiable twice in the heatmaps (any number of times with
    ``backend="reference"``); all other results are constants.

    Raises:
        TypeError: heatmaps is no floating-point tensor.
        ValueError: wrong rank, no pixels, unknown method, kernel that is not odd, beta or max_step not positive.
    """
    _checks.choice("method", method, METHODS)
    if isinstance(kernel, bool) or not isinstance(kernel, int) or kernel < 1 or kernel % 2 == 0 or kernel > 1023:
        raise ValueError(f"kernel: expected an odd number of taps from 1 to 1023, got {kernel!r}")
    _checks.real("beta", beta)
    if not 0 < beta < math.inf:
        raise ValueError(f"beta: expected a positive finite number, got {beta!r}")
    if max_step is not None:
        _checks.real("max_step", max_step)
    if max_step is not None and not max_step > 0:
        raise ValueError(f"max_step: expected a positive number of pixels or None, got {max_step!r}")
    steps = math.inf if max_step is None else float(max_step)
    direct = DECODE.direct(backend, heatmaps, method, _profiles.blur_weights, kernel, steps, float(beta))
    if direct is not None:
        return direct
    _checks.tensor("heatmaps", heatmaps, "(B, K, H, W)", ranks=(4,))
    _arguments.check_planes("heatmaps", heatmaps)
    if method == "softargmax":
        chosen = SOFTARGMAX.choose(backend, (heatmaps,), (float(beta),))
        coordinates, scores = _softargmax(chosen, (heatmaps,), (float(beta),))
        return coordinates, scores.detach()
    parameters = (method, kernel, steps)
    inputs = (heatmaps.detach() if heatmaps.requires_grad else heatmaps,)
    coordinates, scores = _decode(DECODE.choose(backend, inputs, parameters), inputs, parameters)
    return coordinates, scores


def flip_average(
    heatmaps: Tensor, flipped: Tensor, pairs: Sequence[tuple[int, int]], *, backend: str = "auto"
) -> Tensor:
    """Join the two halves of a flip test: the mean of the heatmaps and of the mirrored image's, turned back.

    ``out[b, k, y, x] = (heatmaps[b, k, y, x] + flipped[b, partner(k), y, W - 1 - x]) / 2``

    Args:
        heatmaps: (B, K, H, W) of the image.
        flipped: (B, K, H, W) of the image mirrored left to right.
        pairs: (left, right) joints that change places in a mirror, for example ``skeletons.MPII.flip_pairs``.
        backend: "auto", "reference", "cpu", "cuda" or "triton".

    Returns:
        (B, K, H, W) in the dtype of the heatmaps; 16-bit values are averaged in float32.

    Differentiable twice in heatmaps and flipped (it is linear).

    Raises:
        TypeError: a tensor is not floating-point, or the dtypes differ.
        ValueError: wrong rank, sizes that differ, pairs out of range or with a joint named twice.
    """
    if (direct := FLIP.direct(backend, heatmaps, flipped, pairs)) is not None:
        return direct
    _checks.tensor("heatmaps", heatmaps, "(B, K, H, W)", ranks=(4,))
    _checks.tensor("flipped", flipped, "(B, K, H, W)")
    _checks.shape("flipped", flipped, heatmaps.shape, "(B, K, H, W)")
    _checks.same_dtype(heatmaps=heatmaps, flipped=flipped)
    _checks.same_device(heatmaps=heatmaps, flipped=flipped)
    parameters = (_arguments.permutation(pairs, heatmaps.shape[1]),)
    inputs = (heatmaps, flipped)
    (average,) = _flip(FLIP.choose(backend, inputs, parameters), inputs, parameters)
    return average
