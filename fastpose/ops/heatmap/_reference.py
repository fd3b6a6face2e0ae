"""Heatmaps in plain tensor code: the definitions, and the oracle of every other backend."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from fastpose.ops._dispatch import Backend, Inputs, Parameters
from fastpose.ops.heatmap._profiles import DEPTH_MAPS, REACH, blur_weights
from fastpose.ops.heatmap._results import wide

# --------------------------------------------------------------------------------------------------------- rendering


def planes(keypoints: Tensor, sigma: Tensor, visible: Tensor | None, size: tuple[int, int], profile: str) -> Tensor:
    """Footprints (B, K, H, W) of key points (B, K, 2) with widths sigma (B, K)."""
    footprint = DEPTH_MAPS[profile]
    nearest = torch.trunc(keypoints + 0.5)  # (B, K, 2)
    centre = nearest if footprint.rounded else keypoints
    present = _present(centre, sigma, footprint.exponent, size)  # (B, K)
    if visible is not None:
        present = present & visible
    centre = torch.where(present[..., None], centre, 0.0)  # no NaN may enter, or it would enter the gradient
    sigma = torch.where(present, sigma, 1.0)
    x, y = _offsets(centre, size)  # (B, K, W), (B, K, H)
    square = x[..., None, :].square() + y[..., :, None].square()  # (B, K, H, W)
    values = torch.exp(-square * (footprint.exponent / sigma.square())[..., None, None])
    covered = present[..., None, None]
    if footprint.window is not None:
        x, y = _offsets(torch.where(present[..., None], nearest, 0.0), size)
        reach = (footprint.window * sigma)[..., None]  # (B, K, 1)
        covered = covered & (x.abs() <= reach)[..., None, :] & (y.abs() <= reach)[..., :, None]
    return torch.where(covered, values, 0.0)


def _present(centre: Tensor, sigma: Tensor, exponent: float, size: tuple[int, int]) -> Tensor:
    """Whether a joint (B, K) has finite numbers and is near enough to the plane to mark it."""
    height, width = size
    reach = REACH * sigma
    square = sigma.square()
    finite = torch.isfinite(centre).all(-1) & (sigma > 0) & torch.isfinite(square) & torch.isfinite(exponent / square)
    x, y = centre.unbind(-1)
    inside_x = (x - reach < width) & (x + reach + 1 >= 0)
    inside_y = (y - reach < height) & (y + reach + 1 >= 0)
    return finite & inside_x & inside_y


def _offsets(centre: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Distances of all columns and all rows from the centre: (B, K, W), (B, K, H)."""
    height, width = size
    columns = torch.arange(width, dtype=centre.dtype, device=centre.device)
    rows = torch.arange(height, dtype=centre.dtype, device=centre.device)
    return columns - centre[..., 0, None], rows - centre[..., 1, None]


def _render(inputs: Inputs, parameters: Parameters) -> tuple[Tensor]:
    keypoints, sigma, visible, *out = inputs
    height, width, profile, dtype = parameters
    values = planes(keypoints, sigma, visible, (height, width), profile)
    return (out[0].copy_(values) if out else values.to(dtype),)


def _render_depth(inputs: Inputs, parameters: Parameters) -> tuple[Tensor]:
    keypoints, sigma, depth, visible = inputs
    height, width, profile, dtype = parameters
    usable = torch.isfinite(depth) if visible is None else torch.isfinite(depth) & visible  # (B, K)
    values = planes(keypoints, sigma, usable, (height, width), profile)
    return ((torch.where(usable, depth, 0.0)[..., None, None] * values).to(dtype),)


# --------------------------------------------------------------------------------------------------------------- loss


def _loss(inputs: Inputs, parameters: Parameters) -> tuple[Tensor]:
    """Sum over the elements of weight * (prediction - target)^2 / divisor; planes of weight 0 are not looked at."""
    prediction, keypoints, sigma, visible, weight = inputs  # (B, S, K, H, W), ..., (B, S, K)
    profile, divisor = parameters
    target = planes(keypoints, sigma, visible, prediction.shape[-2:], profile)[:, None]  # (B, 1, K, H, W)
    difference = prediction.to(wide(prediction.dtype)) - target
    if weight is None:
        return (difference.square().sum() / divisor,)
    weights = weight[..., None, None]
    return ((weights * torch.where(weights == 0, 0.0, difference).square()).sum() / divisor,)


# ----------------------------------------------------------------------------------------------------------- decoding


def _decode(inputs: Inputs, parameters: Parameters) -> tuple[Tensor, Tensor]:
    """First maximum among the finite values of each plane, refined by ``method``."""
    (heatmaps,) = inputs
    method, kernel, max_step = parameters
    values = heatmaps.to(wide(heatmaps.dtype))  # (B, K, H, W)
    finite = torch.isfinite(values)
    scores, index = values.masked_fill(~finite, -math.inf).flatten(2).max(-1)  # first of equals
    scores = torch.where(finite.flatten(2).any(-1), scores, 0.0)  # (B, K)
    x, y = index % values.shape[3], index // values.shape[3]
    peak = torch.stack((x, y), -1).to(values.dtype)  # (B, K, 2)
    if method == "argmax":
        return peak, scores
    if method == "quarter":
        return peak + _quarter_step(values, x, y), scores
    step = _dark_step(values, x, y, scores, kernel, udp=method == "dark_udp")
    taken = (step.abs() <= max_step).all(-1, keepdim=True)  # false for NaN
    return peak + torch.where(taken & torch.isfinite(step), step, 0.0), scores


def _at(planes: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Values (B, K) at pixels (x, y) of each plane, those of the border beyond it."""
    height, width = planes.shape[2:]
    index = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
    return planes.flatten(2).gather(2, index[..., None])[..., 0]


def _quarter_step(values: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """A quarter pixel toward the higher neighbour (B, K, 2), with the bounds of MMPose's ``refine_keypoints``."""
    height, width = values.shape[2:]

    def toward(higher: Tensor, lower: Tensor, allowed: Tensor) -> Tensor:
        return torch.where(allowed, 0.25 * ((higher > lower).to(values.dtype) - (higher < lower).to(values.dtype)), 0.0)

    step_x = toward(_at(values, x + 1, y), _at(values, x - 1, y), (x > 1) & (x < width - 1) & (y > 0))
    step_y = toward(_at(values, x, y + 1), _at(values, x, y - 1), (y > 1) & (y < height - 1) & (x > 0))
    return torch.stack((step_x, step_y), -1)


def _blurred(values: Tensor, kernel: int) -> Tensor:
    """Planes (B, K, H, W) blurred with zeros beyond the border and rescaled to their old maximum."""
    values = torch.where(torch.isfinite(values), values, 0.0)
    height, width = values.shape[2:]
    half, taps = kernel // 2, blur_weights(kernel)
    rows = F.pad(values, (half, half))  # (B, K, H, W + kernel - 1)
    blurred = torch.zeros_like(values)
    for i, tap in enumerate(taps):
        blurred = blurred + tap * rows[..., i : i + width]
    columns = F.pad(blurred, (0, 0, half, half))  # (B, K, H + kernel - 1, W)
    blurred = torch.zeros_like(values)
    for i, tap in enumerate(taps):
        blurred = blurred + tap * columns[..., i : i + height, :]
    return blurred * (values.amax((2, 3), keepdim=True) / blurred.amax((2, 3), keepdim=True))


def _dark_step(values: Tensor, x: Tensor, y: Tensor, scores: Tensor, kernel: int, *, udp: bool) -> Tensor:
    """Newton step (B, K, 2) of the logarithm of the blurred planes (Zhang et al., CVPR 2020); NaN where singular."""
    if values.numel() == 0:
        return values.new_zeros(*scores.shape, 2)
    height, width = values.shape[2:]
    blurred = _blurred(values.double(), kernel)
    logs = (blurred.clamp(1e-3, 50.0) if udp else blurred.clamp_min(1e-10)).log()

    def at(dx: int, dy: int) -> Tensor:
        return _at(logs, x + dx, y + dy)

    gradient = (0.5 * (at(1, 0) - at(-1, 0)), 0.5 * (at(0, 1) - at(0, -1)))
    if udp:
        eps = torch.finfo(torch.float32).eps
        xx = at(1, 0) - 2 * at(0, 0) + at(-1, 0) + eps
        yy = at(0, 1) - 2 * at(0, 0) + at(0, -1) + eps
        xy = 0.5 * (at(1, 1) - at(1, 0) - at(0, 1) + 2 * at(0, 0) - at(-1, 0) - at(0, -1) + at(-1, -1))
        allowed = scores > 0
    else:
        xx = 0.25 * (at(2, 0) - 2 * at(0, 0) + at(-2, 0))
        yy = 0.25 * (at(0, 2) - 2 * at(0, 0) + at(0, -2))
        xy = 0.25 * (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1))
        allowed = (scores > 0) & (x > 1) & (x < width - 2) & (y > 1) & (y < height - 2)
    determinant = xx * yy - xy * xy
    step_x = -(yy * gradient[0] - xy * gradient[1]) / determinant
    step_y = -(xx * gradient[1] - xy * gradient[0]) / determinant
    step = torch.stack((step_x, step_y), -1)
    return torch.where(allowed[..., None], step, 0.0).to(values.dtype)


def _softargmax(inputs: Inputs, parameters: Parameters) -> tuple[Tensor, Tensor]:
    """Expected pixel under softmax(beta * heatmap), non-finite values aside."""
    (heatmaps,) = inputs
    (beta,) = parameters
    values = heatmaps.to(wide(heatmaps.dtype)).flatten(2)  # (B, K, H * W)
    finite = torch.isfinite(values)
    alive = finite.any(-1)  # (B, K)
    values = torch.where(finite, values, 0.0)
    scores = values.masked_fill(~finite & alive[..., None], -math.inf).amax(-1).detach()  # (B, K)
    logits = beta * (values - scores[..., None])  # at most 0: no overflow
    logits = logits.masked_fill(~finite & alive[..., None], -math.inf)
    probabilities = torch.softmax(logits, -1).unflatten(2, heatmaps.shape[2:])  # (B, K, H, W)
    rows, columns = (torch.arange(n, dtype=values.dtype, device=values.device) for n in heatmaps.shape[2:])
    x, y = (probabilities.sum(2) * columns).sum(-1), (probabilities.sum(3) * rows).sum(-1)  # (B, K)
    coordinates = torch.where(alive[..., None], torch.stack((x, y), -1), 0.0)
    return coordinates, scores


def _flip_average(inputs: Inputs, parameters: Parameters) -> tuple[Tensor]:
    """Mean of the heatmaps and the mirrored ones turned back, joints exchanged by ``permutation``."""
    heatmaps, flipped = inputs
    (permutation,) = parameters
    back = flipped[:, list(permutation)].flip(-1)  # (B, K, H, W)
    arithmetic = wide(heatmaps.dtype)
    return (((heatmaps.to(arithmetic) + back.to(arithmetic)) * 0.5).to(heatmaps.dtype),)


def _always(inputs: Inputs, parameters: Parameters) -> list[str]:
    return []


render_gaussian_heatmaps = Backend("reference", _always, _render)
render_depth_maps = Backend("reference", _always, _render_depth)
heatmap_mse_loss = Backend("reference", _always, _loss)
decode_heatmaps = Backend("reference", _always, _decode)
softargmax = Backend("reference", _always, _softargmax)
flip_average = Backend("reference", _always, _flip_average)
