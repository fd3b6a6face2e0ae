"""Argument checks shared by every room: each failure is one sentence with what was found and what was expected."""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Iterable, Sequence
from numbers import Integral

import torch
from torch import Tensor

FLOATING = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest known name(s), or an empty string."""
    matches = difflib.get_close_matches(name, list(known), n=2, cutoff=0.5)
    if not matches:
        return ""
    return "; did you mean " + " or ".join(repr(match) for match in matches) + "?"


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the sentence for a name that does not exist: the nearest names, or all of them when none is near."""
    known = list(known)
    return f"unknown {kind} {name!r}" + (nearest(name, known) or f"; known: {', '.join(sorted(known))}")


def choice(argument: str, value: str, known: Sequence[str]) -> None:
    """Raise ``ValueError`` unless ``value`` is one of ``known``."""
    if value not in known:
        raise ValueError(f"{argument}: expected one of {', '.join(known)}, got {value!r}{nearest(str(value), known)}")


def not_negative(argument: str, value: float) -> None:
    """Raise ``ValueError`` unless ``value`` is a number of 0 or more."""
    if not value >= 0:
        raise ValueError(f"{argument}: expected 0 or more, got {value}")


def positive(argument: str, value: float) -> None:
    """Raise ``ValueError`` unless a value is a positive finite number."""
    if not 0 < value < math.inf:
        raise ValueError(f"{argument}: expected a positive finite number, got {value}")


def real(argument: str, value: float) -> None:
    """Raise ``ValueError`` for an int beyond every float."""
    if isinstance(value, int) and abs(value) > sys.float_info.max:
        raise ValueError(f"{argument}: expected a number that a float can hold, got one of {value.bit_length()} bits")


def whole(argument: str, value: object, least: int) -> None:
    """Raise ``ValueError`` unless a value is a whole number of at least ``least`` that a seed can be."""
    if isinstance(value, bool) or not isinstance(value, Integral) or not least <= int(value) < 2**63:
        raise ValueError(f"{argument}: expected a whole number of {least} or more, got {value!r}")


def counts(**counts: int) -> None:
    """Raise ``ValueError`` for a count below 1; the first underscore of a name stands for the dot of its section."""
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name.replace('_', '.', 1)}: expected 1 or more, got {count}")


def tensor(argument: str, given: object, shape: str, *, ranks: Sequence[int] | None = None) -> Tensor:
    """Raise unless ``given`` is a dense floating-point tensor of one of ``ranks``; ``shape`` names its axes."""
    value = dense(argument, given, shape)
    if ranks is not None and value.dim() not in ranks:
        raise ValueError(f"{argument}: expected {shape}, got {tuple(value.shape)}")
    if value.dtype not in FLOATING:
        raise TypeError(f"{argument}: expected float32, float64, bfloat16 or float16, got {value.dtype}")
    return value


def dense(argument: str, value: object, shape: str) -> Tensor:
    """Raise unless ``value`` is a dense tensor of any dtype."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{argument}: expected a torch.Tensor {shape}, got {type(value).__name__}")
    if value.layout != torch.strided or value.is_nested:
        found = "a nested one" if value.is_nested else value.layout
        raise TypeError(f"{argument}: expected a dense tensor {shape}, got {found}; make it one, as by to_dense()")
    return value


def same_device(**tensors: Tensor | None) -> None:
    """Raise unless all tensors that are given live on one device."""
    name, value, first, expected = _odd_one(tensors, "device")
    if name:
        raise ValueError(f"{name}: expected device {expected} (that of {first}), got {value}")


def same_dtype(**tensors: Tensor | None) -> None:
    """Raise unless all tensors that are given have one dtype."""
    name, value, first, expected = _odd_one(tensors, "dtype")
    if name:
        raise TypeError(f"{name}: expected {expected} (that of {first}), got {value}")


def _odd_one(tensors: dict[str, Tensor | None], attribute: str) -> tuple[str, object, str, object]:
    """The first tensor that differs from the one before all: its name and value, that one's name and value."""
    first, expected = "", None
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        value = getattr(tensor, attribute)
        if not first:
            first, expected = name, value
        elif value != expected:
            return name, value, first, expected
    return "", None, first, expected


def shape(argument: str, value: Tensor, expected: Sequence[int | None], names: str) -> None:
    """Raise unless ``value`` has the expected sizes; ``None`` admits any size, ``names`` spells the layout."""
    found = value.shape
    if len(found) == len(expected):
        for have, want in zip(found, expected, strict=True):
            if want is not None and have != want:
                break
        else:
            return
    spelled = "(" + ", ".join("any" if want is None else str(want) for want in expected) + ")"
    raise ValueError(f"{argument}: expected {names} = {spelled}, got {tuple(found)}")


def pixels(positions: Tensor | Sequence[Sequence[int]], features: Tensor) -> tuple[Tensor, Tensor]:
    """Return columns and rows (P,) of integer positions (P, 2) as (x, y) in a map (B, C, H, W).

    Raises ``ValueError`` unless all are integers inside the map; a compiled program reads no values, and leaves that to
    the indexing.
    """
    points = torch.as_tensor(positions, device=features.device)
    integer = not points.is_floating_point() and not points.is_complex() and points.dtype != torch.bool
    if points.dim() != 2 or points.shape[1] != 2 or not integer:
        raise ValueError(f"positions: expected (P, 2) integers (x, y), got {points.dtype} {tuple(points.shape)}")
    points = points.long()
    height, width = features.shape[2:]
    if not torch.compiler.is_compiling():
        inside = (points >= 0).all() and (points[:, 0] < width).all() and (points[:, 1] < height).all()
        if not bool(inside):
            raise ValueError(f"positions: expected 0 <= x < {width} and 0 <= y < {height}, got {points.tolist()}")
    return points[:, 0], points[:, 1]
