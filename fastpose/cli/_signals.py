"""Ctrl-C, SIGTERM and SIGHUP unwind a verb, so that nothing is left half-written, and become its exit code."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from types import FrameType, TracebackType
from typing import Any

from fastpose import _handlers


class Unwinding:
    """Within ``with``, the first signal that asks to stop raises where the process is, and is noted in ``signal``.

    Libraries turn what is raised inside them into errors of their own: ``signal`` tells those from mistakes. While the
    first unwinds, others are ignored for two seconds. One that comes later raises again, as Python swallows what is
    raised where it tidies up (``__del__``), and a verb that went on must not be deaf.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._since = 0.0
        self._owner = os.getpid()
        self._before: Mapping[int, Any] = {}

    def __enter__(self) -> Unwinding:
        self._before = _handlers.take(_handlers.WATCHED, self._raise)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _handlers.put_back(self._before)

    def _raise(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:  # a data worker: it has nothing to put away, and ends as any process does
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        now = time.monotonic()
        if self.signal and now - self._since < _handlers.ECHO_SECONDS:
            return
        self.signal, self._since = self.signal or number, now
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)
