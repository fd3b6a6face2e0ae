"""Inputs of the metrics: tensors or arrays in, checked float64 copies on the CPU out; nothing of the caller changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

ArrayLike: TypeAlias = Tensor | np.ndarray | Sequence


def as_double(argument: str, value: ArrayLike | float) -> Tensor:
    """Return ``value`` as a float64 CPU tensor; ``TypeError`` when it holds no numbers."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", torch.float64)
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{argument}: expected numbers in a tensor or array, got {array.dtype}")
    return torch.from_numpy(array.astype(np.float64))


def as_points(argument: str, value: ArrayLike, joints: int | None = None) -> Tensor:
    """Return key points as float64 (N, K, 2); ``ValueError`` unless rank, K and the last axis fit."""
    points = as_double(argument, value)
    if points.dim() != 3 or points.shape[-1] != 2 or (joints is not None and points.shape[1] != joints):
        raise ValueError(f"{argument}: expected (N, {joints or 'K'}, 2), got {tuple(points.shape)}")
    return points


def as_mask(argument: str, value: ArrayLike | None, shape: tuple[int, ...]) -> Tensor:
    """Return ``value > 0`` as bool of ``shape``; all true for ``None``."""
    if value is None:
        return torch.ones(shape, dtype=torch.bool)
    mask = as_double(argument, value)
    if tuple(mask.shape) != shape:
        raise ValueError(f"{argument}: expected {shape} as the key points have, got {tuple(mask.shape)}")
    return mask > 0  # NaN compares false: not labelled


def as_lengths(argument: str, value: ArrayLike | float, count: int) -> Tensor:
    """Return one float64 length per person, (N,); a single number serves all persons."""
    lengths = as_double(argument, value)
    if lengths.dim() == 0:
        lengths = lengths.expand(count)
    if tuple(lengths.shape) != (count,):
        raise ValueError(f"{argument}: expected ({count},), one length per person, got {tuple(lengths.shape)}")
    return lengths


def same_shape(prediction: Tensor, target: Tensor) -> None:
    """Raise unless predictions and targets pair up."""
    if prediction.shape != target.shape:
        raise ValueError(f"prediction: expected {tuple(target.shape)} as the target has, got {tuple(prediction.shape)}")
