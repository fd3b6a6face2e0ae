"""What a data set does about photographs that cannot be read: stop, or put another sample in their place."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from fastpose import _checks

Read = TypeVar("Read")

_log = logging.getLogger("fastpose.data")


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
        while True:
            try:
                return shown, load(shown)
            except (ValueError, OSError) as error:
                self._reject(shown, error)
            attempt += 1
            shown = draw(attempt)

    def _reject(self, index: int, error: Exception) -> None:
        """Raise, or note the unreadable sample and let the caller choose another."""
        text = f"{self.name} {index}: {error}"
        if self.on_error == "raise":
            raise (FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError)(text) from error
        if not self._unreadable[index]:
            self._unreadable[index] = 1
            _log.warning("%s; another %s takes its place", text, self.name.split()[-1])
        limit = min(self.limit, self.count - 1)
        if self.skipped > limit:
            raise ValueError(f"{self.skipped} unreadable images, more than the limit of {limit}; last: {text}")
