"""What every backend of the descriptor shares: the result's shape."""

from __future__ import annotations

from torch import Tensor

from fastpose.ops._dispatch import Inputs, Parameters


def empty_results(inputs: Inputs, parameters: Parameters) -> tuple[Tensor]:
    """Uninitialised (B, 2D, P, P)."""
    (joints,) = inputs
    batch, points, dimensions = joints.shape
    return (joints.new_empty(batch, 2 * dimensions, points, points),)
