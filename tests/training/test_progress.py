"""The display on a terminal, on a pipe, and switched off."""

from __future__ import annotations

import io

from fastpose.training.progress import create_progress, spell


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_a_bar_with_rate_and_losses() -> None:
    stream = Terminal()
    display = create_progress(10, 2, stream=stream)
    display.losses({"pose": 0.12345})
    for step in range(1, 11):
        display.advance(step, 1)
    display.note("score [50 %]")
    display.close()
    shown = stream.getvalue()
    assert "10/10" in shown
    assert "steps/s" in shown
    assert "pose 0.1234" in shown or "pose 0.1235" in shown
    assert "score [50 %]" in shown


def test_a_pipe_gets_lines_no_more_often_than_asked() -> None:
    stream = io.StringIO()
    display = create_progress(10, 2, start=4, seconds=3600.0, stream=stream)
    for step in range(5, 11):
        display.advance(step, 1)
    assert stream.getvalue() == ""
    display = create_progress(10, 2, start=4, seconds=0.0, stream=stream)
    display.losses({"pose": 0.5, "k": 1e-5})
    display.advance(5, 1)
    assert stream.getvalue().startswith("step 5/10  epoch 1/2  ")
    assert stream.getvalue().endswith("left  pose 0.5  k 1e-05\n")


def test_switched_off_is_silent() -> None:
    stream = io.StringIO()
    display = create_progress(10, 2, enabled=False, stream=stream)
    display.advance(1, 1)
    display.note("x")
    display.close()
    assert stream.getvalue() == ""
    assert spell({}) == ""
