"""What a person sees of a run: a bar on a terminal, a plain line every so many seconds elsewhere.

A display that can no longer be written to (a terminal that was closed, a pipe without reader, a full disk under a log)
ends no run: nothing is shown then.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any, Protocol, TextIO


class Progress(Protocol):
    """Shows steps, rate, time left and losses."""

    def advance(self, step: int, epoch: int) -> None:
        """Say that ``step`` (of epoch ``epoch``, from 1) is done."""

    def losses(self, values: Mapping[str, float]) -> None:
        """Show these means from now on."""

    def note(self, text: str) -> None:
        """Print a line of its own."""

    def close(self) -> None:
        """End the display."""


def create_progress(
    total: int,
    epochs: int,
    start: int = 0,
    *,
    enabled: bool = True,
    seconds: float = 30.0,
    stream: TextIO | None = None,
) -> Progress:
    """Return the display that fits ``stream`` (standard error): a bar on a terminal, lines elsewhere, or nothing."""
    stream = stream or sys.stderr  # None where it was closed
    if not enabled or stream is None:
        return _Silent()
    if stream.isatty():
        return _Bar(total, epochs, start, stream)
    return _Lines(total, epochs, start, seconds, stream)


def spell(values: Mapping[str, float]) -> str:
    """Return "pose 0.00123  k 0.05"."""
    return "  ".join(f"{name} {value:.4g}" for name, value in values.items())


class _Silent:
    def advance(self, step: int, epoch: int) -> None:
        pass

    def losses(self, values: Mapping[str, float]) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def close(self) -> None:
        pass


class _Lines:
    def __init__(self, total: int, epochs: int, start: int, seconds: float, stream: TextIO) -> None:
        self.total, self.epochs, self.seconds, self.stream = total, epochs, seconds, stream
        self._values: Mapping[str, float] = {}
        self._begun = self._printed = time.monotonic()
        self._start = start

    def advance(self, step: int, epoch: int) -> None:
        now = time.monotonic()
        if now - self._printed < self.seconds:
            return
        self._printed = now
        rate = (step - self._start) / max(now - self._begun, 1e-9)
        left = timedelta(seconds=int((self.total - step) / max(rate, 1e-9)))
        self.note(
            f"step {step}/{self.total}  epoch {epoch}/{self.epochs}  {rate:.2f} steps/s  {left} left  "
            f"{spell(self._values)}"
        )

    def losses(self, values: Mapping[str, float]) -> None:
        self._values = values

    def note(self, text: str) -> None:
        with suppress(OSError):
            print(text.rstrip(), file=self.stream, flush=True)

    def close(self) -> None:
        pass


class _Bar:
    def __init__(self, total: int, epochs: int, start: int, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        columns: list[Any] = [
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[values]}"),
        ]
        self.epochs, self._start, self._begun = epochs, start, time.monotonic()
        self._display = RichProgress(*columns, console=Console(file=stream), refresh_per_second=4)
        self._task = self._display.add_task("", total=total, completed=start, epoch="", rate="", values="")
        self._display.start()

    def advance(self, step: int, epoch: int) -> None:
        rate = (step - self._start) / max(time.monotonic() - self._begun, 1e-9)
        self._display.update(self._task, completed=step, epoch=f"{epoch}/{self.epochs}", rate=f"{rate:.2f} steps/s")

    def losses(self, values: Mapping[str, float]) -> None:
        self._display.update(self._task, values=spell(values))

    def note(self, text: str) -> None:
        with suppress(OSError):
            self._display.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        with suppress(OSError):
            self._display.stop()
