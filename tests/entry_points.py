"""A right call of every function of the extension, and the ways in which one argument of a call can be wrong.

Results are filled with ``UNTOUCHED`` beforehand: a call that is refused has written nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastpose import _native
from fastpose.ops.heatmap._profiles import blur_weights

UNTOUCHED = 7.0
B, K, H, W = 2, 3, 5, 7
CK, CV, NQ, NK = 4, 3, 6, 5
P, D = 4, 3
REFUSALS = (ValueError, TypeError, RuntimeError, NotImplementedError)

Arguments = list[Any]
Shapes = tuple[tuple[int, ...], ...]


def given(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def result(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.full(shape, UNTOUCHED, dtype=dtype)


def _results(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [result(*shape, dtype=dtype) for shape in shapes]


QUERY, KEY, VALUE, OUT = (B, CK, NQ), (B, CK, NK), (B, CV, NK), (B, CV, NQ)
PLANES, STACKS, POINTS, JOINTS = (B, K, H, W), (B, 1, K, H, W), (B, K, 2), (B, K)
COORDINATES, PAIRS = (B, P, D), (B, 2 * D, P, P)


def _attention(dtype: torch.dtype = torch.float32) -> Arguments:
    return [given(*shape, dtype=dtype) for shape in (QUERY, KEY, VALUE, OUT)] + [given(B, NQ)]


def _joints() -> Arguments:
    """Key points, sigma, depth, visibility and profile."""
    return [given(*POINTS), given(*JOINTS).abs() + 1, given(*JOINTS), given(*JOINTS) > -1, "gaussian"]


def _loss() -> Arguments:
    points, sigma, _, visible, profile = _joints()
    return [given(*STACKS), points, sigma, visible, given(B, 1, K), profile, 0.5]


def _soft() -> Arguments:
    return [given(*PLANES), 2.0, given(*POINTS), given(*JOINTS), given(*JOINTS).abs() + 1]


def _points_back() -> list[Tensor]:
    return _results(POINTS, JOINTS, JOINTS)


def _partials() -> Tensor:
    return result(*JOINTS, dtype=torch.float64)


BF16 = torch.bfloat16
KERNELS: dict[str, Callable[[], Arguments]] = {
    "attention_serves_bf16": list,
    "attention_fwd": lambda: [*_attention()[:3], result(*OUT), result(B, NQ), 1],
    "attention_bwd": lambda: [*_attention(), given(*OUT), *_results(QUERY, KEY, VALUE), 1],
    "attention_bwd2": lambda: [
        *_attention(),
        *(given(*shape) for shape in (OUT, QUERY, KEY, VALUE)),
        *_results(QUERY, KEY, VALUE, OUT),
        1,
    ],
    "attention_fwd_bf16": lambda: [*_attention(BF16)[:3], result(*OUT, dtype=BF16), result(B, NQ), 0.5, 1],
    "attention_bwd_bf16": lambda: [
        *_attention(BF16),
        given(*OUT, dtype=BF16),
        *_results(QUERY, KEY, VALUE, dtype=BF16),
        0.5,
        1,
    ],
    "descriptor_fwd": lambda: [given(*COORDINATES), result(*PAIRS), 1],
    "descriptor_bwd": lambda: [given(*COORDINATES), given(*PAIRS), result(*COORDINATES), 1],
    "descriptor_bwd2": lambda: [
        given(*COORDINATES),
        given(*PAIRS),
        given(*COORDINATES),
        *_results(COORDINATES, PAIRS),
        1,
    ],
    "heatmap_render": lambda: [*_joints(), result(*PLANES), 1],
    "heatmap_render_bwd": lambda: [*_joints(), given(*PLANES), *_points_back(), 1],
    "heatmap_render_bwd2": lambda: [
        *_joints(),
        *(given(*shape) for shape in (PLANES, POINTS, JOINTS, JOINTS)),
        *_points_back(),
        result(*PLANES),
        1,
    ],
    "heatmap_mse_loss": lambda: [*_loss(), _partials(), result(), 1],
    "heatmap_mse_loss_bwd": lambda: [*_loss(), given(), *_results(STACKS, POINTS, JOINTS), 1],
    "heatmap_mse_loss_bwd2": lambda: [
        *_loss(),
        *(given(*shape) for shape in ((), STACKS, POINTS, JOINTS)),
        *_results(STACKS, POINTS, JOINTS),
        _partials(),
        result(),
        1,
    ],
    "heatmap_decode": lambda: [given(*PLANES), "dark", list(blur_weights(5)), math.inf, *_results(POINTS, JOINTS), 1],
    "softargmax": lambda: [given(*PLANES), 2.0, *_results(POINTS, JOINTS, JOINTS), 1],
    "softargmax_bwd": lambda: [*_soft(), given(*POINTS), result(*PLANES), 1],
    "softargmax_bwd2": lambda: [*_soft(), given(*POINTS), given(*PLANES), *_results(PLANES, POINTS), 1],
    "flip_average": lambda: [given(*PLANES), given(*PLANES), [1, 0, 2], result(*PLANES), 1],
    "nearest_poses": lambda: [
        given(4, K, 2),
        given(5, K, 2),
        True,
        result(4),
        result(4).long(),
        result(5),
        result(5).long(),
        1,
    ],
}
DIRECT: dict[str, Callable[[], Arguments]] = {
    "nonlocal_attention": lambda: [*_attention()[:3], 1.0],
    "nonlocal_attention_residual": lambda: [*_attention()[:3], given(*OUT), given(1), 1.0],
    "pairwise_descriptor": lambda: [given(*COORDINATES)],
    "render_gaussian_heatmaps": lambda: [given(*POINTS), H, W, given(*JOINTS).abs(), given(*JOINTS) > 0, "gaussian"],
    "render_depth_maps": lambda: [given(*POINTS), given(*JOINTS), H, W, 1.5, given(*JOINTS) > 0, "patch"],
    "heatmap_mse_loss": lambda: [given(*PLANES), given(*POINTS), 1.5, None, "udp", given(K), True],
    "decode_heatmaps": lambda: [given(*PLANES), "dark", lambda taps: (0.25, 0.5, 0.25), 3, 1.0, 2.0],
    "flip_average": lambda: [given(*PLANES), given(*PLANES), ((0, 1),)],
}
MODULE: dict[str, Callable[[], Arguments]] = {
    "build_info": list,
    "set_simd": lambda: [_native.build_info()["simd"]],
    "multiply_add": lambda: [2, 1],
    "prefer_huge_pages": lambda: [given(2**20)],
    "ordinary": lambda: [given(2), None],
    "cuda_problem": list,
}
# Planes that no other argument has to be like: they may be of another size and of 16 bits.
ALONE = {
    ("heatmap_decode", 0),
    ("softargmax", 0),
    ("heatmap_render", 5),
    ("heatmap_render_bwd", 5),
    ("heatmap_mse_loss", 0),
}


def _freed(tensor: Tensor, offset: int) -> Tensor:
    room = torch.zeros(offset + tensor.numel(), dtype=tensor.dtype)
    tensor = room[offset:].view(tensor.shape)
    room.untyped_storage().resize_(0)
    return tensor


def wrong_tensors(tensor: Tensor) -> Iterator[tuple[str, Any]]:
    """What no entry point may take in the place of a tensor."""
    yield from (("a list", tensor.tolist()), ("an array", tensor.float().numpy()), ("a word", "float32"))
    yield from (("rank + 1", tensor[None]), ("rank 7", tensor.view(*[1] * (7 - tensor.dim()), *tensor.shape)))
    if tensor.dim():
        yield "rank - 1", tensor[0]
    for dtype in (torch.complex64, torch.int8, torch.int32, torch.float16, torch.float64, torch.bool, torch.int64):
        if dtype != tensor.dtype:
            yield str(dtype), tensor.to(dtype)
    yield from (("meta", tensor.to("meta")), ("sparse", tensor.to_sparse()))
    if tensor.element_size() > 1:
        yield "off its alignment", off_alignment(tensor)
    yield from (("freed", _freed(tensor, 0)), ("freed under an offset", _freed(tensor, 600)))
    if tensor.dim():
        yield "an endless axis", tensor[:1].expand(2**40, *tensor.shape[1:])


def wrong_sizes(tensor: Tensor) -> Iterator[tuple[int, Tensor]]:
    """The tensor with one axis longer, shorter and empty, and which axis."""
    for axis, size in enumerate(tensor.shape):
        for count in (size + 1, size - 1, 0):
            yield axis, tensor.repeat_interleave(2, axis).narrow(axis, 0, count)


def other_layouts(tensor: Tensor) -> Iterator[tuple[str, Any]]:
    """What an entry point takes or refuses: either way nothing but its results may be written."""
    yield "None", None
    backwards = tuple(reversed(range(tensor.dim())))
    yield "transposed", tensor.permute(backwards).contiguous().permute(backwards)
    yield "with gaps", torch.stack((tensor, tensor), -1)[..., 0]
    yield "under an offset", torch.cat((tensor.reshape(-1), tensor.reshape(-1)))[tensor.numel() :].view(tensor.shape)
    yield "expanded", tensor.reshape(-1)[:1].expand(tensor.shape) if tensor.dim() else tensor


def off_alignment(tensor: Tensor) -> Tensor:
    """The same numbers, at an address that is no multiple of their size."""
    if tensor.numel() == 0:
        return tensor
    raw = np.zeros(tensor.numel() * tensor.element_size() + 1, dtype=np.uint8)
    raw[1:] = (
        tensor.detach().resolve_neg().flatten().clone(memory_format=torch.contiguous_format).view(torch.uint8).numpy()
    )
    return torch.frombuffer(raw.data, dtype=tensor.dtype, offset=1, count=tensor.numel()).view(tensor.shape)


SCALARS = (None, "x", 1.5, math.nan, math.inf, -1, 0, 2**31, 2**63, -(2**63), 10**400, [], [-1, 0, 1], [0, 1], object())
