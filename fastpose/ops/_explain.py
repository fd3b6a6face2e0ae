"""``ops.explain``: which backend serves a call, and why the others do not."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fastpose._checks import unknown
from fastpose.ops._dispatch import Explanation, Operation
from fastpose.ops.attention import functional as attention
from fastpose.ops.geometry import functional as geometry
from fastpose.ops.heatmap import functional as heatmap

_OPERATIONS: dict[str, Operation] = {
    operation.name: operation for operation in (attention.OPERATION, *heatmap.OPERATIONS, geometry.OPERATION)
}


def operations() -> tuple[str, ...]:
    """Names of the operations that have more than one backend."""
    return tuple(_OPERATIONS)


def explain(operation: str, *tensors: Tensor, **parameters: Any) -> Explanation:
    """Say which backend ``backend="auto"`` takes for these tensors, and the reasons against those before it.

    Args:
        operation: name of an operation, for example "nonlocal_attention".
        tensors: the tensors of the call.
        parameters: its other arguments, where a backend's limits depend on them.

    Returns:
        An :class:`Explanation` with ``chosen`` and ``reasons``; ``print`` it.

    Raises:
        ValueError: an operation of that name does not exist, or no tensor is given.
    """
    if operation not in _OPERATIONS:
        raise ValueError(unknown("operation", operation, _OPERATIONS))
    if not tensors:
        raise ValueError(f"{operation}: expected the tensors of the call to explain, got none")
    return _OPERATIONS[operation].explain(tensors, tuple(parameters.values()))
