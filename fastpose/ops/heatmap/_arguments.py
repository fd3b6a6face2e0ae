"""Arguments of the heatmap operations: checked, each with one sentence, and brought into the form the kernels take."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastpose import _checks
from fastpose.ops._dispatch import ordinary
from fastpose.ops.heatmap import _profiles

_WIDTHS: dict[tuple[Any, ...], Tensor] = {}  # tensors filled with one sigma


def check_joints(keypoints: Tensor) -> None:
    _checks.tensor("keypoints", keypoints, "(B, K, 2)", ranks=(3,))
    _checks.shape("keypoints", keypoints, (None, None, 2), "(B, K, 2)")


def check_size(size: Sequence[int]) -> tuple[int, int]:
    if type(size) is tuple and len(size) == 2 and type(size[0]) is type(size[1]) is int and min(size) > 0:
        return size  # the usual case
    pair = tuple(size) if isinstance(size, Sequence) else ()
    if len(pair) != 2 or not all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in pair):
        raise ValueError(f"size: expected (height, width) in whole pixels, at least 1, got {size!r}")
    return pair


def check_planes(argument: str, planes: Tensor) -> None:
    if planes.shape[-1] == 0 or planes.shape[-2] == 0:
        raise ValueError(f"{argument}: expected planes of at least one pixel, got {tuple(planes.shape)}")


def joints(keypoints: Tensor, sigma: float | Tensor, profile: str, arithmetic: torch.dtype) -> tuple[Tensor, Tensor]:
    """Key points (B, K, 2) and sigma (B, K) in the operation's arithmetic, constants unless the profile is smooth."""
    points = keypoints if keypoints.dtype == arithmetic else keypoints.to(arithmetic)
    widths = _widths(keypoints, sigma, arithmetic)
    if not _profiles.DEPTH_MAPS[profile].smooth:
        points, widths = points.detach(), widths.detach()
    return points, widths


def _widths(keypoints: Tensor, sigma: float | Tensor, arithmetic: torch.dtype) -> Tensor:
    shape = keypoints.shape[:2]
    if not isinstance(sigma, Tensor):
        largest = torch.finfo(arithmetic).max
        if isinstance(sigma, bool) or not isinstance(sigma, int | float) or not 0 < sigma <= largest:
            raise ValueError(
                "sigma: expected a positive finite number or a tensor (K,) or (B, K), "
                f"got {reprlib.repr(sigma)} for {arithmetic}"
            )
        return _constant_widths(keypoints, float(sigma), arithmetic)
    _checks.tensor("sigma", sigma, "(K,) or (B, K)", ranks=(0, 1, 2))
    _checks.shape("sigma", sigma, shape[2 - sigma.dim() :], ("()", "(K,)", "(B, K)")[sigma.dim()])
    _checks.same_device(keypoints=keypoints, sigma=sigma)
    return sigma.to(arithmetic).expand(shape)


def _constant_widths(keypoints: Tensor, sigma: float, arithmetic: torch.dtype) -> Tensor:
    """One sigma for all joints (B, K), remembered: to fill it costs a launch, and rendering should cost one in all.

    Remembered by stream, on which later calls come after the filling, and only where nothing of torch looks on. A CUDA
    graph fills its own: it must not depend on memory that is not its.
    """
    shape = keypoints.shape[:2]
    device = keypoints.device
    if not ordinary((keypoints,)) or (keypoints.is_cuda and torch.cuda.is_current_stream_capturing()):
        return keypoints.new_full((), sigma, dtype=arithmetic).expand(shape)
    stream = torch._C._cuda_getCurrentRawStream(device.index) if keypoints.is_cuda else 0
    key = (sigma, shape, arithmetic, device, stream)
    widths = _WIDTHS.get(key)
    if widths is None:
        with torch.inference_mode(False):
            widths = torch.full((), sigma, dtype=arithmetic, device=device).expand(shape)
        if len(_WIDTHS) >= 64:
            _WIDTHS.clear()
        _WIDTHS[key] = widths
    return widths


def visible(visibility: Tensor | None, keypoints: Tensor) -> Tensor | None:
    """Where a joint is to be drawn, (B, K) bool."""
    if visibility is None:
        return None
    _checks.dense("visibility", visibility, "(B, K)")
    if visibility.is_complex() or visibility.is_quantized:
        raise TypeError(f"visibility: expected bool or real numbers, got {visibility.dtype}")
    _checks.shape("visibility", visibility, keypoints.shape[:2], "(B, K)")
    _checks.same_device(keypoints=keypoints, visibility=visibility)
    return visibility if visibility.dtype == torch.bool else visibility > 0


def overlaps(tensor: Tensor) -> bool:
    """Whether two elements of the tensor may lie at one address."""
    steps = sorted((step, count) for step, count in zip(tensor.stride(), tensor.shape, strict=True) if count > 1)
    reach = 0
    for step, count in steps:
        if step <= reach:
            return True
        reach += step * (count - 1)
    return False


def check_prediction(prediction: Tensor, stacks: Tensor, keypoints: Tensor) -> None:
    if (stacks.shape[0], stacks.shape[2]) != tuple(keypoints.shape[:2]):
        raise ValueError(
            f"keypoints: expected (B, K, 2) with B and K of prediction {tuple(prediction.shape)}, "
            f"got {tuple(keypoints.shape)}"
        )
    check_planes("prediction", prediction)
    _checks.same_device(prediction=prediction, keypoints=keypoints)


def plane_weights(weight: Tensor | None, stacks: Tensor, arithmetic: torch.dtype) -> Tensor | None:
    """The weight as (B, S, K) in the loss's arithmetic."""
    if weight is None:
        return None
    _checks.tensor("weight", weight, "(K,), (B, K) or (B, S, K)", ranks=(1, 2, 3))
    if weight.requires_grad:
        raise ValueError("weight: expected a constant, got a tensor that requires grad; pass weight.detach()")
    _checks.same_device(prediction=stacks, weight=weight)
    batch, _, joints = stacks.shape[:3]
    expected = {1: (joints,), 2: (batch, joints), 3: tuple(stacks.shape[:3])}[weight.dim()]
    _checks.shape("weight", weight, expected, ("(K,)", "(B, K)", "(B, S, K)")[weight.dim() - 1])
    spread = weight[:, None] if weight.dim() == 2 else weight  # (B, 1, K), or as it was
    return spread.to(arithmetic).expand(stacks.shape[:3])


def permutation(pairs: Sequence[tuple[int, int]], joints: int) -> list[int]:
    partner = list(range(joints))
    seen: set[int] = set()
    for pair in pairs:
        if len(pair) != 2:
            raise ValueError(f"pairs: expected (left, right) joints, got {pair!r}")
        left, right = (int(joint) for joint in pair)
        if not (0 <= left < joints and 0 <= right < joints):
            raise ValueError(f"pairs: expected joints from 0 to {joints - 1}, got {(left, right)}")
        if left == right or left in seen or right in seen:
            raise ValueError(f"pairs: expected every joint at most once, got {(left, right)} again in {list(pairs)}")
        seen |= {left, right}
        partner[left], partner[right] = right, left
    return partner
