"""SIGTERM and Ctrl-C: finish the step in flight, save, leave with 143 or 130."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType

_WATCHED = (signal.SIGTERM, signal.SIGINT)
_ECHO_SECONDS = 2.0


class StopRequest:
    """Within ``with``, the first SIGTERM or SIGINT is noted in ``signal`` instead of ending the process.

    A second Ctrl-C ends it at once. One within two seconds is taken for the echo of the first: a terminal sends Ctrl-C
    to every process of a job, and ``torchrun`` passes it on once more.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._since = 0.0
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in _WATCHED:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.signal and number == signal.SIGINT and now - self._since > _ECHO_SECONDS:
            raise KeyboardInterrupt
        if not self.signal:
            self.signal, self._since = number, now


def exit_code(number: int) -> int:
    """Return the exit code of a process that a signal ended: 128 + its number."""
    return 128 + number


def signal_name(number: int) -> str:
    """Return "SIGTERM" or "SIGINT"."""
    return signal.Signals(number).name
