"""Signals of a verb: handlers from before, and signals that come after the first."""

from __future__ import annotations

import signal

import pytest

from fastpose import _handlers
from fastpose.cli import _signals
from fastpose.training import signals


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.mark.parametrize("within", [_signals.Unwinding, signals.StopRequest, signals.before_the_first_step])
def test_promise_23_a_handler_of_a_program_around_python_is_left_alone(within, monkeypatch):
    """Python tells None of a handler that was set in C, and cannot put it back."""
    taken: list[object] = []
    monkeypatch.setattr(signal, "getsignal", lambda number: None)
    monkeypatch.setattr(signal, "signal", lambda number, handler: taken.append(number))
    with within():
        pass
    assert not taken


@pytest.mark.parametrize("number", _handlers.WATCHED)
def test_promise_23_a_verb_that_swallowed_a_signal_hears_the_next(number, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(_signals, "time", clock)
    with _signals.Unwinding() as stop:
        with pytest.raises((SystemExit, KeyboardInterrupt)):
            signal.raise_signal(number)
        clock.now = _handlers.ECHO_SECONDS - 0.1
        signal.raise_signal(number)  # the echo of the first
        clock.now = _handlers.ECHO_SECONDS + 0.1
        with pytest.raises((SystemExit, KeyboardInterrupt)):
            signal.raise_signal(number)
        assert stop.signal == number
        signal.raise_signal(number)


def test_promise_11_a_signal_that_was_swallowed_before_the_first_step_is_heard() -> None:
    with _signals.Unwinding() as verb:
        with pytest.raises(SystemExit, match="143"):
            signal.raise_signal(signal.SIGTERM)  # as if `__del__` had been at work: nobody unwinds
        with signals.StopRequest() as stop:
            assert stop.signal == verb.signal == signal.SIGTERM
