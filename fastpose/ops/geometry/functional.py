"""The pairwise descriptor: what the public function takes, checks and returns."""

from __future__ import annotations

from torch import Tensor

from fastpose import _checks
from fastpose.ops._autograd import Differentiable, Signature
from fastpose.ops._dispatch import Operation
from fastpose.ops.geometry import _results

OPERATION = Operation("pairwise_descriptor", "geometry", "cpu", "cuda", "triton", "reference")
_descriptor = Differentiable(
    OPERATION,
    Signature(inputs=("joints",), differentiable=("joints",), parameters=(), outputs=1, results=1, reads=()),
    allocate=_results.empty_results,
)


def pairwise_descriptor(joints: Tensor, *, backend: str = "auto") -> Tensor:
    """Differences of all pairs of joints and their squares (system 002, eq. 1).

    Args:
        joints: (B, P, D) coordinates, D = 2 or 3, in any unit.
        backend: "auto", "reference", "cpu", "cuda" or "triton".

    Returns:
        (B, 2D, P, P): with d = joints[:, i] - joints[:, j], channels dx, dy(, dz) at [i, j] (antisymmetric), then dx^2,
        dy^2(, dz^2) (symmetric).

    Differentiable twice in joints; any number of times with ``backend="reference"``.

    Raises:
        TypeError: joints is no floating-point tensor.
        ValueError: wrong rank, D other than 2 or 3.
    """
    if (direct := OPERATION.direct(backend, joints)) is not None:
        return direct
    _checks.tensor("joints", joints, "(B, P, D)", ranks=(3,))
    if joints.shape[2] not in (2, 3):
        raise ValueError(f"joints: expected (B, P, D) with D = 2 or 3, got {tuple(joints.shape)}")
    (descriptor,) = _descriptor(OPERATION.choose(backend, (joints,), ()), (joints,), ())
    return descriptor
