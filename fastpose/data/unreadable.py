"""What a data set does about photographs that cannot be read: stop, or put another sample in their place."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from fastpose import _checks

Read = TypeVar("Read")

SKIP_LIMIT = 50
"""How many different unreadable samples "skip" puts up with unless told."""

_log = logging.getLogger("fastpose.data")


def say_left_out(skipped: int, count: int) -> None:
    """Log how many samples a score does without, if any."""
    if skipped:
        _log.warning("%d of %d samples are left out of this evaluation: they cannot be read", skipped, count)


class Substitute(dict[str, Any]):
    """A sample that stands in for one that could not be read: it is trained on, and counts in no score."""


class Substitutes:
    """Reads samples by number; an unreadable one stops the run, or another takes its place.

    Args:
        name: data set and kind of sample for messages, such as "lspet person".
        count: number of samples.
        on_error: "raise" or "skip"; a skipped sample is logged once.
        limit: how many different unreadable samples "skip" puts up with.
    """

    def __init__(self, name: str, count: int, on_error: str, limit: int):
        _checks.choice("on_error", on_error, ("raise", "skip"))
        self.name, self.count, self.on_error, self.limit = name, count, on_error, limit
        # Shared between worker processes: one flag per sample that could not be read.
        self._unreadable = torch.zeros(count, dtype=torch.uint8)
        if on_error == "skip":
            self._unreadable.share_memory_()

    @property
    def skipped(self) -> int:
        """Number of different samples that could not be read so far (all workers)."""
        return int(self._unreadable.sum())

    def read(self, index: int, load: Callable[[int], Read], draw: Callable[[int], int]) -> tuple[int, Read]:
        """Return the number of the sample shown and ``load`` of it; the n-th substitute is sample ``draw(n)``."""
        shown, attempt = index, 0
        while (found := self.read_or_none(shown, load)) is None:
            attempt += 1
            shown = draw(attempt)
        return shown, found

    def read_or_none(self, index: int, load: Callable[[int], Read]) -> Read | None:
        """Return ``load`` of a sample, or None for one that is skipped."""
        try:
            return load(index)
        except (ValueError, OSError) as error:
            self._reject(index, error)
            return None

    def _reject(self, index: int, error: Exception) -> None:
        """Raise, or note the unreadable sample and let the caller choose another."""
        text = f"{self.name} {index}: {error}"
        if self.on_error == "raise":
            raise (FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError)(text) from error
        if not self._unreadable[index]:
            self._unreadable[index] = 1
            _log.warning("%s; another %s takes its place, no score counts it", text, self.name.split()[-1])
        limit = min(self.limit, self.count - 1)
        if self.skipped > limit:
            raise ValueError(f"{self.skipped} unreadable images, more than the limit of {limit}; last: {text}")
