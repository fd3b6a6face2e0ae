"""Means that do not depend on order: values are added up as whole multiples of a small unit."""

from __future__ import annotations

import torch
from torch import Tensor

from fastpose.metrics import _ranks

UNIT = 2.0**-32
"""Of shares, percents and decibels: eight million images of a value of 128 fit."""

_BITS = 62  # what a sum may take of 63
_LOW = 31  # bits of the lower of two words


class Tally:
    """Means of ``columns`` quantities over images; batches, merges and ranks in any order give the same digits.

    Floating-point sums would depend on the order. A value is rounded to a multiple of ``unit``, a power of two; sums of
    2^62 of them and more are refused. NaN stands for an image that a quantity leaves out.
    """

    def __init__(self, columns: int, unit: float = UNIT) -> None:
        self.unit = unit
        self.sums = torch.zeros(columns, dtype=torch.int64)
        self.counts = torch.zeros(columns, dtype=torch.int64)

    def add(self, values: Tensor) -> None:
        """Add the images of (B, columns); ``ValueError``, and nothing is added, for values that are too great."""
        values = values.detach().to("cpu", torch.float64)
        if bool(values.isinf().any()):
            raise ValueError("metric: expected finite values, got an infinite one; the network or protocol overflows")
        kept = ~values.isnan()
        whole = torch.where(kept, values / self.unit, 0.0).round()
        self._within(whole.abs().sum(0) + self.sums.double().abs())
        self.sums = self.sums + whole.to(torch.int64).sum(0)
        self.counts = self.counts + kept.sum(0)

    def merge(self, other: Tally) -> None:
        """Add the images of another tally of the same quantities; ``ValueError`` for sums that are too great."""
        self._within(self.sums.double().abs() + other.sums.double().abs())
        self.sums, self.counts = self.sums + other.sums, self.counts + other.counts

    def all_reduce(self, device: torch.device | str | None = None) -> None:
        """Sum over all ranks; ``ValueError`` on each of them for sums that are too great."""
        words = (self.sums >> _LOW, self.sums & (2**_LOW - 1), self.counts)  # two, as the sum may overflow
        high, low, self.counts = _ranks.summed(words, device)
        self._within((high.double() * 2.0**_LOW + low.double()).abs())
        self.sums = (high << _LOW) + low

    def _within(self, sums: Tensor) -> None:
        """Raise unless sums (columns,) in units have a place in 64 bits."""
        if bool((sums >= 2.0**_BITS).any()):
            greatest, room = float(sums.max()) * self.unit, 2.0**_BITS * self.unit
            raise ValueError(
                f"metric: values of {greatest:.3g} together are more than the {room:.3g} that can be added up exactly; "
                "the network diverges, or its scale is wrong"
            )

    def totals(self) -> Tensor:
        """Return the sums (columns,) as float64."""
        return self.sums.double() * self.unit

    def mean(self, column: int) -> float:
        """Return the mean of one quantity; NaN when no image has it."""
        count = int(self.counts[column])
        return int(self.sums[column]) * self.unit / count if count else float("nan")
