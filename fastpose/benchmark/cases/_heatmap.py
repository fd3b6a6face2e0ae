"""Heatmaps at the sizes of the published systems: rendering, the loss, decoding and the flip test."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fastpose import ops, skeletons
from fastpose.benchmark import baselines
from fastpose.benchmark.cases._case import BACKWARD, DOUBLE, FORWARD, Case, Tensors, Work, random


def keypoints(shape: tuple[int, int, int, int]) -> tuple[tuple[int, int, int], float]:
    """Return the shape (B, K, 2) and the scale of key points for heatmaps (B, K, H, W)."""
    return (*shape[:2], 2), float(min(shape[2:]))


def planes_bytes(*shape: int) -> float:
    """Return the bytes of float32 planes."""
    return 4.0 * torch.Size(shape).numel()


def render(shape: tuple[int, int, int, int], sigma: float, *, profile: str = "gaussian", out: bool = False) -> Case:
    """Return a case of render_gaussian_heatmaps, into fresh memory or into ``out``."""
    points, scale = keypoints(shape)
    size, full = shape[2:], planes_bytes(*shape)
    into = random(points, *([shape] * out), scale=scale)

    def call(tensors: Tensors, **backend: Any) -> Tensor:
        target = tensors[1] if out else None
        return ops.render_gaussian_heatmaps(tensors[0], size, sigma, profile=profile, out=target, **backend)

    work = {FORWARD: Work(written=full)}
    if not out and profile == "gaussian":
        work |= {BACKWARD: Work(read=full, written=full), DOUBLE: Work(read=full, written=full)}
    others = {}
    if profile == "gaussian":
        others["broadcast"] = partial(baselines.render_broadcast, size=size, sigma=sigma)
        others["separable"] = partial(baselines.render_separable, size=size, sigma=sigma)
    words = f"{shape} sigma {sigma:g} {profile}{', out=' if out else ''}"
    return Case("render_gaussian_heatmaps", words, into, call, "render_gaussian_heatmaps", others, work, wanting=(0,))


def depth_maps(shape: tuple[int, int, int, int], sigma: float) -> Case:
    """Return a case of render_depth_maps: key points (B, K, 2) and depths (B, K)."""
    points, scale = keypoints(shape)
    return Case(
        "render_depth_maps",
        f"{shape} sigma {sigma:g}",
        random(points, shape[:2], scale=scale),
        lambda tensors, **backend: ops.render_depth_maps(tensors[0], tensors[1], shape[2:], sigma, **backend),
        "render_depth_maps",
        {"broadcast": partial(baselines.depth_maps_broadcast, size=shape[2:], sigma=sigma)},
        {FORWARD: Work(written=planes_bytes(*shape))},
    )


def mse_loss(shape: tuple[int, ...], sigma: float) -> Case:
    """Return a case of heatmap_mse_loss; ``shape`` is (B, K, H, W) or, with S stacks, (B, S, K, H, W)."""
    points, scale = keypoints((shape[0], shape[-3], shape[-2], shape[-1]))
    full = planes_bytes(*shape)
    return Case(
        "heatmap_mse_loss",
        f"{shape} sigma {sigma:g}",
        random(shape, points, scale=scale),
        lambda tensors, **backend: ops.heatmap_mse_loss(tensors[0], tensors[1], sigma, **backend),
        "heatmap_mse_loss",
        {"render + mse_loss": partial(baselines.render_then_mse, sigma=sigma)},
        {
            FORWARD: Work(read=full),
            BACKWARD: Work(read=full, written=full),
            DOUBLE: Work(read=2 * full, written=full),  # prediction and cotangent in, second gradient out
        },
        wanting=(0,),
    )


def decode(shape: tuple[int, int, int, int], method: str) -> Case:
    """Return a case of decode_heatmaps on joints rendered in the middle half of the planes, with noise."""
    points, scale = keypoints(shape)
    full = planes_bytes(*shape)

    def make(device: str) -> Tensors:
        centres, noise = random(points, shape, scale=scale)(device)
        planes = baselines.render_separable((scale / 4 + centres / 2,), size=shape[2:], sigma=2.0)
        return (planes + 1e-3 / scale * noise,)

    orders = {FORWARD: Work(read=full)}
    if method == "softargmax":
        orders |= {BACKWARD: Work(read=2 * full, written=full), DOUBLE: Work(read=2 * full, written=full)}
    return Case(
        "decode_heatmaps",
        f"{shape} {method}",
        make,
        lambda tensors, **backend: ops.decode_heatmaps(tensors[0], method, **backend)[0],
        "decode_heatmaps",
        baselines.DECODERS[method],
        orders,
        wanting=(0,) if method == "softargmax" else (),
    )


def decode_on_one_core(shape: tuple[int, int, int, int], method: str) -> Case:
    """Return a case of decode_heatmaps on one thread, beside MMPose's codec of that method, which has no more."""
    case = decode(shape, method)
    others = {**case.others, "mmpose codec": baselines.CODECS[method]}
    return replace(case, size=f"{case.size}, one core", others=others, threads=1, device="cpu")


def flip_average(shape: tuple[int, int, int, int]) -> Case:
    """Return a case of flip_average."""
    full = planes_bytes(*shape)
    pairs = skeletons.COCO.flip_pairs
    return Case(
        "flip_average",
        f"{shape}",
        random(shape, shape),
        lambda tensors, **backend: ops.flip_average(tensors[0], tensors[1], pairs, **backend),
        "flip_average",
        {"flip + index": partial(baselines.flip_and_index, permutation=skeletons.COCO.flip_permutation)},
        {
            FORWARD: Work(read=2 * full, written=full),
            BACKWARD: Work(read=3 * full, written=3 * full),
            DOUBLE: Work(read=2 * full, written=full),
        },
        wanting=(0, 1),
    )


HEATMAP = (
    render((128, 17, 64, 64), 2.0),
    render((128, 17, 64, 64), 2.0, out=True),
    render((128, 17, 64, 64), 2.0, profile="msra", out=True),
    render((6, 16, 64, 64), 1.0),  # a batch of system 000
    render((8, 18, 256, 256), 6.0),  # pose maps of systems 001 and 003
    render((8, 18, 256, 256), 6.0, out=True),
    depth_maps((32, 16, 64, 64), 1.0),  # system 002
    mse_loss((32, 4, 16, 64, 64), 1.0),  # four stacks of system 000
    mse_loss((128, 17, 64, 64), 2.0),
    *(decode((128, 17, 64, 64), method) for method in ("argmax", "quarter", "dark", "softargmax")),
    *(decode_on_one_core((128, 17, 64, 64), method) for method in ("quarter", "dark")),
    flip_average((128, 17, 64, 64)),
)
