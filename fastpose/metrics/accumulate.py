"""Streaming accumulators: batches in, one result out; tallies are whole, so merging equals one pass."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fastpose.metrics import _ranks, keypoints_2d
from fastpose.metrics._arrays import ArrayLike
from fastpose.metrics.keypoints_2d import Counts, Curve
from fastpose.metrics.protocols import Protocol
from fastpose.metrics.report import Result


class PCKAccumulator:
    """PCK under one protocol over any number of batches and ranks.

    Args:
        protocol: from :mod:`fastpose.metrics.protocols`.
        curve_maximum: greatest threshold of the curve; default the protocol's own threshold.
        curve_steps: steps of the curve.

    Example::

        accumulator = PCKAccumulator(protocols.lsp(every_joint=False))
        for batch in loader:
            accumulator.update(prediction, target, visibility)
        accumulator.all_reduce()
        print(accumulator.result().line())
    """

    def __init__(
        self, protocol: Protocol, *, curve_maximum: float | None = None, curve_steps: int = keypoints_2d.CURVE_STEPS
    ) -> None:
        self.protocol = protocol
        maximum = protocol.threshold if curve_maximum is None else curve_maximum
        self.thresholds = keypoints_2d.grid(maximum, curve_steps)  # (T,)
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        joints = len(self.protocol.joints)
        self._counts = Counts(
            torch.zeros(1 + len(self.thresholds), joints, dtype=torch.int64),
            torch.zeros(joints, dtype=torch.int64),
            torch.zeros(2, dtype=torch.int64),
        )

    def update(
        self,
        prediction: ArrayLike,
        target: ArrayLike,
        visibility: ArrayLike | None = None,
        reference_length: ArrayLike | None = None,
    ) -> None:
        """Add a batch; arguments as :func:`fastpose.metrics.keypoints_2d.count`. A failed batch adds nothing."""
        batch = keypoints_2d.count(self.protocol, prediction, target, visibility, reference_length, self.thresholds)
        self._counts = self._counts + batch

    def state(self) -> dict[str, Tensor]:
        """Return the tallies, int64 on the CPU: ``correct`` (1 + T, K), ``counted`` (K,), ``persons`` (2,)."""
        counts = self._counts
        return {"correct": counts.correct.clone(), "counted": counts.counted.clone(), "persons": counts.persons.clone()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Replace the tallies by those of :meth:`state`; ``ValueError`` when they do not fit."""
        mine = self.state()
        for name, value in mine.items():
            if name not in state or state[name].shape != value.shape:
                found = tuple(state[name].shape) if name in state else "nothing"
                raise ValueError(
                    f"state[{name!r}]: expected {tuple(value.shape)} for {self.protocol.name}, got {found}"
                )
        self._counts = Counts(*(state[name].to("cpu", torch.int64).clone() for name in mine))

    def merge(self, other: PCKAccumulator) -> None:
        """Add the batches of another accumulator of the same protocol and thresholds."""
        if other.protocol != self.protocol or not torch.equal(other.thresholds, self.thresholds):
            raise ValueError(f"merge: expected protocol {self.protocol.sentence!r}, got {other.protocol.sentence!r}")
        self._counts = self._counts + other._counts

    def all_reduce(self, device: torch.device | str | None = None) -> None:
        """Sum the tallies over all ranks in one call; without a process group, nothing happens.

        Args:
            device: where the collective runs: this rank's GPU under NCCL (the default there), else the CPU.
        """
        self._counts = Counts(*_ranks.summed(list(self.state().values()), device))

    def result(self) -> Result:
        """Return the number so far; ``ValueError`` when no labelled joint was seen."""
        return keypoints_2d.result(self.protocol, self._counts)

    def curve(self) -> Curve:
        """Return PCK over the thresholds so far."""
        return keypoints_2d.curve(self.protocol, self._counts, self.thresholds)
