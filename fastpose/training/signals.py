"""SIGTERM, Ctrl-C and the end of a terminal: finish the step in flight, save, leave with 143, 130 or 129."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from fastpose import _handlers

_WATCHED, _ECHO_SECONDS = _handlers.WATCHED, _handlers.ECHO_SECONDS


class StopRequest:
    """Within ``with``, the first SIGTERM, SIGINT or SIGHUP is noted in ``signal`` instead of ending the process.

    A second Ctrl-C ends it at once. One within two seconds is taken for the echo of the first: a terminal sends Ctrl-C
    to every process of a job, and ``torchrun`` passes it on once more. What is ignored (SIGHUP under ``nohup``) stays
    ignored.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._since = 0.0
        self._before: Mapping[int, Any] = {}

    def __enter__(self) -> StopRequest:
        self._before = _handlers.take(_WATCHED, self._note)
        swallowed = _handlers.noted(self._before)
        if swallowed:
            self._note(swallowed, None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _handlers.put_back(self._before)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.signal and number == signal.SIGINT and now - self._since > _ECHO_SECONDS:
            raise KeyboardInterrupt
        if not self.signal:
            self.signal, self._since = number, now


@contextmanager
def before_the_first_step() -> Iterator[None]:
    """Within the body, where there is nothing to save yet, SIGTERM and SIGHUP end the process with a sentence.

    Ctrl-C raises ``KeyboardInterrupt``, as everywhere.

    Raises:
        SystemExit: 143 or 129, when what the body had opened is closed.
    """
    came: list[int] = []

    def leave(number: int, frame: FrameType | None) -> None:
        came.append(number)
        raise SystemExit(exit_code(number))

    before = _handlers.take([number for number in _WATCHED if number != signal.SIGINT], leave)
    try:
        yield
    except SystemExit:
        if came:
            print(f"{signal_name(came[0])}: before the first step, there was nothing to save", file=sys.stderr)
        raise
    finally:
        _handlers.put_back(before)


def exit_code(number: int) -> int:
    """Return the exit code of a process that a signal ended: 128 + its number."""
    return 128 + number


def signal_name(number: int) -> str:
    """Return "SIGTERM", "SIGINT" or "SIGHUP"."""
    return signal.Signals(number).name


def is_signal(reason: str) -> bool:
    """Return whether the reason why a run ended is the name of a signal."""
    return reason in {signal_name(number) for number in _WATCHED}
