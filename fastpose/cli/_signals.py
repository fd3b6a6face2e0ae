"""Ctrl-C, SIGTERM and SIGHUP unwind a verb, so that nothing is left half-written, and become its exit code."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

_WATCHED = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_ECHO_SECONDS = 2.0  # as in training.signals, which a verb that loads no torch cannot import


class Unwinding:
    """Within ``with``, the first signal that asks to stop raises where the process is, and is noted in ``signal``.

    Libraries turn what is raised inside them into errors of their own: ``signal`` tells those from mistakes. While the
    first unwinds, others are ignored, but for a Ctrl-C two seconds later. What is ignored already (``nohup``) stays so.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._since = 0.0
        self._owner = os.getpid()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Unwinding:
        if threading.current_thread() is threading.main_thread():  # which alone may set handlers
            watched = [number for number in _WATCHED if signal.getsignal(number) != signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._raise) for number in watched}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _raise(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:  # a data worker: it has nothing to put away, and ends as any process does
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        now = time.monotonic()
        if self.signal and (number != signal.SIGINT or now - self._since < _ECHO_SECONDS):
            return
        if not self.signal:
            self.signal, self._since = number, now
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)
