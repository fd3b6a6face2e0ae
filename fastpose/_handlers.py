"""Handlers of the signals that ask to stop, for a while: set where that can be undone, and put back after."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Mapping
from types import FrameType
from typing import Any

WATCHED = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name))
"""Those that ask a process to stop; SIGHUP, the end of its terminal, is not on every system."""
ECHO_SECONDS = 2.0
"""A second signal within this time is an echo: a terminal sends it to every process, ``torchrun`` passes it on."""

Handler = Callable[[int, FrameType | None], None]


def take(numbers: Iterable[int], handler: Handler) -> dict[int, Any]:
    """Give signals a handler, and return the handlers they had.

    Outside of the main thread, which alone may, nothing is done. What is ignored (SIGHUP under ``nohup``) stays so. A
    handler set in C, by a program that has Python inside, is left alone: Python cannot put it back.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    heard = [number for number in numbers if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    return {number: signal.signal(number, handler) for number in heard}


def put_back(before: Mapping[int, Any]) -> None:
    """Give signals the handlers that `take` returned."""
    for number, handler in before.items():
        signal.signal(number, handler)


def noted(before: Mapping[int, Any]) -> int:
    """Return the signal that the owner of a handler in ``before`` has noted in ``signal``, or 0.

    Python swallows what a handler raises where it tidies up (``__del__``): who takes over hears the signal then.
    """
    owners = [getattr(handler, "__self__", None) for handler in before.values()]
    found = [getattr(owner, "signal", 0) for owner in owners]
    return next((number for number in found if isinstance(number, int) and number), 0)
