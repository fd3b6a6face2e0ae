"""Means that do not depend on order: values are added up as whole multiples of 2^-32."""

from __future__ import annotations

import torch
from torch import Tensor

from fastpose.metrics import _ranks

_UNIT = 2.0**32


class Tally:
    """Means of ``columns`` quantities over images; batches, merges and ranks in any order give the same digits.

    Floating-point sums would depend on the order. A value is rounded to 2^-32; sixteen million images of a value of 128
    fit. NaN stands for an image that a quantity leaves out.
    """

    def __init__(self, columns: int) -> None:
        self.sums = torch.zeros(columns, dtype=torch.int64)
        self.counts = torch.zeros(columns, dtype=torch.int64)

    def add(self, values: Tensor) -> None:
        """Add the images of (B, columns); ``ValueError`` for a value that is infinite."""
        values = values.detach().to("cpu", torch.float64)
        if bool(values.isinf().any()):
            raise ValueError("metric: expected finite values, got an infinite one; the network or protocol overflows")
        kept = ~values.isnan()
        self.sums = self.sums + torch.where(kept, values * _UNIT, 0.0).round().to(torch.int64).sum(0)
        self.counts = self.counts + kept.sum(0)

    def merge(self, other: Tally) -> None:
        """Add the images of another tally of the same quantities."""
        self.sums, self.counts = self.sums + other.sums, self.counts + other.counts

    def all_reduce(self, device: torch.device | str | None = None) -> None:
        """Sum over all ranks."""
        self.sums, self.counts = _ranks.summed((self.sums, self.counts), device)

    def mean(self, column: int) -> float:
        """Return the mean of one quantity; NaN when no image has it."""
        count = int(self.counts[column])
        return int(self.sums[column]) / _UNIT / count if count else float("nan")
