"""Seeded random calls of every operation: sizes, memory layouts, dtypes, values and arguments, right and wrong.

``CALLS[name](draw)`` makes one call. The same seed makes the same call, so that a failure can be repeated by its
number.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from entry_points import off_alignment
from torch import Tensor

from fastpose import ops
from fastpose.metrics.two_sample import neighbours

POOL = torch.randn(1 << 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
SIDES = (1, 2, 3, 4, 5, 7, 8, 9, 13, 15, 16, 17, 31, 33)  # around the vectors' widths
POSITIONS = (0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129, 131)  # and the tiles'
CHANNELS = (0, 1, 2, 3, 7, 8, 17, 33)
DTYPES = (torch.float32,) * 5 + (torch.float64,) * 3 + (torch.bfloat16, torch.float16)
WILD = (float("nan"), float("inf"), float("-inf"), 1e30, -1e30, 1e-42, -0.0, 0.0)
NUMBERS = (0, -1, 1e-30, 1e30, float("nan"), float("inf"), True, None, "1", 10**400, np.float32(0.5), torch.tensor(0.5))


@dataclass
class Call:
    """A call of an operation; ``exact`` unless what is computed is too wild for numbers to be compared."""

    function: Callable[..., Any]
    arguments: list[Any]
    keywords: dict[str, Any] = field(default_factory=dict)
    exact: bool = True
    huge: bool = False  # sizes that only an empty result can have

    def run(self, backend: str) -> Any:
        return self.function(*self.arguments, **self.keywords, backend=backend)

    def wide(self) -> bool:
        """Whether all numbers are of double precision, in which derivatives are told from their rounding."""
        return all(tensor.dtype in (torch.float64, torch.bool) for tensor in self.tensors())

    def tensors(self) -> list[Tensor]:
        given = (*self.arguments, *self.keywords.values())
        return [tensor for tensor in given if isinstance(tensor, Tensor)]


class Draw:
    """The choices of one call."""

    def __init__(self, seed: str) -> None:
        self.random = random.Random(seed)
        self.wild = self.chance(0.15)
        self.derive = self.chance(0.2)
        self.mistakes = 1 if self.chance(0.25) else 0  # at most one a call, so that each is met alone
        self.strange = False
        self.unserved = False  # whether a tensor is one that no kernel takes, though torch does

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def one_of(self, choices: Sequence[Any]) -> Any:
        return choices[self.random.randrange(len(choices))]

    def mistake(self, share: float = 0.2) -> bool:
        if self.mistakes and self.chance(share):
            self.mistakes -= 1
            return True
        return False

    def number(self, usual: Any) -> Any:
        """The usual number, or one of NUMBERS."""
        if not self.mistake(0.5):
            return usual
        self.strange = True
        return self.one_of(NUMBERS)

    def tensor(self, shape: Sequence[int], dtype: torch.dtype, *, derivable: bool = True) -> Any:
        """Random numbers in a random layout; now and then of another size, or nothing that can be served."""
        if self.mistake(0.15):
            shape = self.other_shape(list(shape))
        start = self.random.randrange(len(POOL) // 2)
        count = int(np.prod(shape, dtype=np.int64))
        numbers = POOL.repeat(count // (len(POOL) // 2) + 1)[start : start + count].clone()
        if self.wild and count:
            for _ in range(self.random.randrange(4)):
                numbers[self.random.randrange(count)] = self.one_of(WILD)
        tensor = self.laid_out(numbers.to(dtype).view(shape))
        if self.mistake(0.25):
            self.strange = True
            made = self.one_of(STRANGE)
            self.unserved = made is off_alignment
            return made(tensor)
        return tensor.requires_grad_() if derivable and self.derive and self.chance(0.7) else tensor

    def other_shape(self, shape: list[int]) -> list[int]:
        if not shape or self.chance(0.3):
            return [*shape, 1] if self.chance(0.5) else shape[1:]
        axis = self.random.randrange(len(shape))
        shape[axis] = max(shape[axis] + self.one_of((-1, 1)), 0)
        return shape

    def laid_out(self, tensor: Tensor) -> Tensor:
        return self.one_of(LAYOUTS)(self, tensor) if tensor.dim() and self.chance(0.6) else tensor


def _permuted(draw: Draw, tensor: Tensor) -> Tensor:
    order = list(range(tensor.dim()))
    draw.random.shuffle(order)
    return tensor.permute(order).contiguous().permute([order.index(axis) for axis in range(len(order))])


def _expanded(draw: Draw, tensor: Tensor) -> Tensor:
    axis = draw.random.randrange(tensor.dim())
    return tensor.narrow(axis, 0, min(1, tensor.shape[axis])).expand(tensor.shape)


def _sliced(draw: Draw, tensor: Tensor) -> Tensor:
    room = tensor.new_full([size + 3 for size in tensor.shape], 5.0)
    inner = room[tuple(slice(draw.random.randrange(3), None) for _ in tensor.shape)]
    return inner[tuple(slice(0, size) for size in tensor.shape)].copy_(tensor)


def _any_stride_of_one(draw: Draw, tensor: Tensor) -> Tensor:
    """An axis of one number may have any stride."""
    strides = list(tensor.stride())
    for axis, size in enumerate(tensor.shape):
        strides[axis] = draw.one_of((0, 1, 7, 2**40, 2**62)) if size == 1 else strides[axis]
    return tensor.as_strided(tensor.shape, strides)


LAYOUTS: tuple[Callable[[Draw, Tensor], Tensor], ...] = (
    _permuted,
    _permuted,
    _expanded,
    _sliced,
    _any_stride_of_one,
    lambda draw, tensor: torch.stack((tensor, tensor), -1)[..., 0],
    lambda draw, tensor: torch.cat((tensor.new_zeros(1), tensor.reshape(-1)))[1:].view(tensor.shape),
    lambda draw, tensor: torch.nn.Parameter(tensor, requires_grad=False),
    lambda draw, tensor: torch._neg_view(tensor),
)


class Special(Tensor):
    """A class of torch's users."""


def _quantized(tensor: Tensor) -> Tensor:
    with warnings.catch_warnings(action="ignore"):
        return torch.quantize_per_tensor(tensor.float().nan_to_num(), 0.1, 0, torch.qint8)


def readable(tensor: Tensor) -> bool:
    """Whether torch itself can read the numbers."""
    usual = type(tensor) is Tensor and tensor.layout == torch.strided and not tensor.is_nested
    return usual and tensor.device.type == "cpu" and not tensor.is_quantized


STRANGE: tuple[Callable[[Tensor], Any], ...] = (
    lambda tensor: None,
    lambda tensor: "tensor",
    lambda tensor: tensor.tolist(),
    lambda tensor: tensor.float().resolve_neg().numpy(),
    lambda tensor: tensor.long(),
    lambda tensor: tensor > 0,
    lambda tensor: tensor.to(torch.complex64),
    lambda tensor: tensor.half(),
    lambda tensor: tensor.double(),
    lambda tensor: tensor.to("meta"),
    lambda tensor: tensor.to_sparse(),
    lambda tensor: torch.nested.nested_tensor([tensor]),
    lambda tensor: tensor.as_subclass(Special),
    off_alignment,
    _quantized,
)


# ----------------------------------------------------------------------------------------------------- the operations


def _maps(draw: Draw) -> tuple[list[Any], tuple[int, ...], torch.dtype]:
    """query, key and value, the shape of the result, and their dtype."""
    batch, ck, cv = draw.one_of((0, 1, 1, 2, 3)), draw.one_of(CHANNELS), draw.one_of(CHANNELS)
    queries, keys = (draw.one_of(POSITIONS),), (draw.one_of(POSITIONS),)
    if draw.chance(0.4):
        queries, keys = (draw.one_of(SIDES), draw.one_of(SIDES[:8])), (draw.one_of(SIDES[:8]), draw.one_of(SIDES))
    dtype = draw.one_of(DTYPES)
    shapes = ((batch, ck, *queries), (batch, ck, *keys), (batch, cv, *keys))
    return [draw.tensor(shape, dtype) for shape in shapes], (batch, cv, *queries), dtype


def attention(draw: Draw) -> Call:
    maps, _, _ = _maps(draw)
    keywords = {"scale": draw.number(draw.one_of((1.0, 1.0, 0.3, -0.5)))}
    return Call(ops.nonlocal_attention, maps, keywords, exact=not draw.wild and not draw.strange)


def residual(draw: Draw) -> Call:
    maps, shape, dtype = _maps(draw)
    rest = [draw.tensor(shape, dtype), draw.tensor(draw.one_of(((), (1,), (1, 1))), dtype)]
    return Call(ops.nonlocal_attention_residual, [*maps, *rest], exact=not draw.wild and not draw.strange)


def descriptor(draw: Draw) -> Call:
    shape = (draw.one_of((0, 1, 2, 3)), draw.one_of((0, *SIDES)), draw.one_of((2, 3)))
    return Call(ops.pairwise_descriptor, [draw.tensor(shape, draw.one_of(DTYPES))], exact=not draw.wild)


@dataclass
class Joints:
    """What operations on joints have in common."""

    batch: int
    count: int
    size: Any
    dtype: torch.dtype
    points: Any
    sigma: Any
    visibility: Any


def _joints(draw: Draw) -> Joints:
    batch, count, size = draw.one_of((0, 1, 2, 3)), draw.one_of((0, 1, 3, 5)), (draw.one_of(SIDES), draw.one_of(SIDES))
    dtype = draw.one_of(DTYPES)
    points = draw.tensor((batch, count, 2), dtype)
    if isinstance(points, Tensor) and points.is_leaf and not points.requires_grad and draw.chance(0.8):
        points = points * 6 + 5 if not draw.strange else points
    sigma = draw.number(draw.one_of((0.7, 1.5, 3)))
    if draw.chance(0.5):
        sigma = draw.tensor(draw.one_of(((count,), (batch, count))), dtype)
        sigma = sigma.detach().abs() if isinstance(sigma, Tensor) and draw.chance(0.8) and not draw.strange else sigma
    visibility = draw.tensor((batch, count), dtype, derivable=False) if draw.chance(0.4) else None
    if isinstance(visibility, Tensor) and draw.chance(0.5) and not draw.strange:
        visibility = visibility > 0
    return Joints(batch, count, size, dtype, points, sigma, visibility)


SIZES = ((0, 5), (-1, 3), (True, 3), (5.0, 3), None, 5, "ab", (5,), (5, 7, 9), (np.int64(3), 4), (2**62, 4), (2**63, 1))


def _size(draw: Draw, joints: Joints) -> Any:
    return draw.one_of(SIZES) if draw.mistake(0.3) else joints.size


def _drawn(draw: Draw, function: Callable[..., Any], joints: Joints, arguments: list[Any], profiles: Any) -> Call:
    size = _size(draw, joints)
    keywords = {"visibility": joints.visibility, "profile": draw.one_of(profiles)}
    if draw.mistake(0.2):
        keywords["profile"] = draw.one_of((None, "gausian", 3))
    huge = isinstance(size, tuple) and any(isinstance(side, int) and side > 2**30 for side in size)
    return Call(function, [*arguments, size, joints.sigma], keywords, huge=huge)


PROFILES = ("gaussian", "gaussian", "gaussian_rounded", "msra", "udp", "wide", "binary")


def heatmaps(draw: Draw) -> Call:
    joints = _joints(draw)
    call = _drawn(draw, ops.render_gaussian_heatmaps, joints, [joints.points], PROFILES)
    if draw.chance(0.25) and not call.huge:
        out = draw.tensor((joints.batch, joints.count, *joints.size), draw.one_of((joints.dtype, torch.bfloat16)))
        call.keywords["out"] = out
    return call


def depth_maps(draw: Draw) -> Call:
    joints = _joints(draw)
    depth = draw.tensor((joints.batch, joints.count), joints.dtype)
    return _drawn(draw, ops.render_depth_maps, joints, [joints.points, depth], (*PROFILES, "patch", "constant"))


def loss(draw: Draw) -> Call:
    joints = _joints(draw)
    stacks = draw.one_of((0, 1, 2)) if draw.chance(0.5) else None
    shape = (joints.batch, *(() if stacks is None else (stacks,)), joints.count, *joints.size)
    prediction = draw.tensor(shape, draw.one_of((joints.dtype, joints.dtype, *DTYPES)))
    keywords = {"visibility": joints.visibility, "profile": draw.one_of(PROFILES)}
    if draw.chance(0.4):
        shapes = [(joints.count,), (joints.batch, joints.count), (joints.batch, stacks or 1, joints.count)]
        keywords["weight"] = draw.tensor(draw.one_of(shapes), joints.dtype, derivable=False)
    keywords["reduction"] = draw.one_of(("mean", "mean", "sum", "none"))
    return Call(ops.heatmap_mse_loss, [prediction, joints.points, joints.sigma], keywords, exact=not draw.wild)


def decode(draw: Draw) -> Call:
    shape = (draw.one_of((0, 1, 2)), draw.one_of((0, 1, 3)), draw.one_of(SIDES), draw.one_of(SIDES))
    method = draw.one_of(("argmax", "quarter", "dark", "dark_udp", "softargmax"))
    keywords = {"kernel": draw.one_of((1, 3, 5, 11)), "beta": draw.number(draw.one_of((1.0, 3.0)))}
    if draw.chance(0.5):
        keywords["max_step"] = draw.number(1.0)
    if draw.mistake(0.3):
        keywords["kernel"] = draw.one_of((0, 2, -3, 1025, 2**63 + 1, 3.0, None, True))
    smooth = method in ("argmax", "quarter") or (method == "softargmax" and not draw.wild)
    return Call(ops.decode_heatmaps, [draw.tensor(shape, draw.one_of(DTYPES)), method], keywords, exact=smooth)


def flip(draw: Draw) -> Call:
    shape = (draw.one_of((0, 1, 2)), draw.one_of((0, 1, 3, 5)), draw.one_of(SIDES), draw.one_of(SIDES))
    dtype = draw.one_of(DTYPES)
    pairs: Any = ((0, 1),) if shape[1] > 1 and draw.chance(0.5) else ()
    if draw.mistake(0.4):
        pairs = draw.one_of((((0, 0),), ((0, 99),), ((-1, 0),), ((0, 1, 2),), None, 5, ((2**63, 0),), (("a", "b"),)))
    return Call(ops.flip_average, [draw.tensor(shape, dtype), draw.tensor(shape, dtype), pairs], exact=not draw.wild)


def _distances(real: Any, fake: Any, *, backend: str) -> tuple[Tensor, ...]:
    """The extension's kernel, or the tiles in tensor code that serve where it is absent."""
    found = neighbours(real, fake, block=None if backend == "auto" else (8, 16))
    return tuple(distance for distance, _ in (found.real, found.fake, found.real_to_fake, found.fake_to_real))


def nearest_poses(draw: Draw) -> Call:
    shape, dtype = (draw.one_of((0, 1, *SIDES)), draw.one_of((0, 1, 2, 17)), 2), draw.one_of(DTYPES)
    return Call(_distances, [draw.tensor(shape, dtype, derivable=False) for _ in range(2)], exact=not draw.wild)


CALLS = {
    call.__name__: call
    for call in (attention, residual, descriptor, heatmaps, depth_maps, loss, decode, flip, nearest_poses)
}
