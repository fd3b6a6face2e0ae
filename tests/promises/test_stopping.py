"""Promise 11, every system: SIGTERM, Ctrl-C and a closed terminal save first, and no moment is a bad one.

Most runs here are forked from the test, which has imported everything: signals then fall into training and not into
imports. Every run is a session of its own, and a signal goes to all its processes, data workers too, as a scheduler or
a terminal sends it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import runs

from fastpose import cli
from fastpose.training import loop, resume_point, signals

MANY = 20  # times in a row that one run gets SIGTERM
KINDS = (signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGHUP)  # that a run of each other system gets
PATIENCE = 240.0  # seconds that anything may take on a slow machine
MOMENTS = (
    "run.epochs=1000",
    "run.evaluate_every=1",
    "run.checkpoint_steps=2",
    "run.log_every=1",
    "run.print_seconds=0",
)


@dataclass
class Launch:
    """A run in a process of its own, and what it prints."""

    process: Any
    told: Path

    def wait(self) -> int:
        """Return the exit code; a run that hangs is killed with all its workers."""
        self.process.join(PATIENCE)
        assert self.process.exitcode is not None, f"hangs; it said:\n{self.told.read_text()}"
        return int(self.process.exitcode)

    def send(self, number: int) -> None:
        """Send a signal to every process of the run."""
        if self.process.is_alive():
            os.killpg(self.process.pid, number)


def _main(words: list[str], told: Path, ready: Any) -> None:
    os.setsid()
    with open(told, "w", buffering=1) as stream:
        sys.stdout = sys.stderr = stream
        ready.set()
        code = cli.main(words)
        stream.flush()
    sys.exit(code)


@contextmanager
def launched(words: list[str], told: Path, target: Callable[..., None] = _main) -> Iterator[Launch]:
    """Run a command line in a forked process; nothing of it is left afterwards."""
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=target, args=(words, told, ready))
    process.start()
    try:
        assert ready.wait(PATIENCE)
        yield Launch(process, told)
    finally:
        if process.is_alive():
            os.killpg(process.pid, signal.SIGKILL)
        process.join()


def words_of(system: str, out: Path, *more: str, resume: Path | None = None) -> list[str]:
    """Return the words after ``fastpose``: a long run with as many moments as there are, or going on with it."""
    words = runs.command(system, out, *MOMENTS, *more)[3:]
    return words if resume is None else [*words, "--resume", str(resume)]


def logged(run: Path) -> int:
    """Return the last step that the log of a run has."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return max((row["step"] for row in rows), default=0)


def position(run: Path) -> int:
    """Return the step of the newest resume point; 0 without one."""
    return int(runs.state_of(run)["position"]["step"]) if resume_point.saves(run / "state") else 0


def stop_once(run: Path, number: int, kind: int, draw: random.Random) -> None:
    """Begin or go on with a run, send it a signal at a random moment, and see what it leaves."""
    out = run.parents[2]
    delay, workers = draw.uniform(0.0, 0.8), draw.choice((0, 0, 1, 2))
    begun = run if position(run) else None
    if begun is None and run.exists():  # it was killed before its first save, and has nothing to go on from
        shutil.rmtree(run)
    words = words_of(run.parents[1].name, out, f"run.workers={workers}", resume=begun)
    with launched(words, out / f"told-{number}.txt") as launch:
        if number % 4:  # else it may not even have begun
            wait_for(lambda: "step" in launch.told.read_text() or not launch.process.is_alive())
        time.sleep(delay)  # the moment is what is tried
        launch.send(kind)
        code = launch.wait()
    said = launch.told.read_text()
    where = f"{words[1]}, stop {number}: signal {kind} after {delay:.3f} s, {workers} workers: code {code}\n{said}"
    if kind == signal.SIGKILL or code == -kind:  # so early that nobody listened yet
        assert kind == signal.SIGKILL or not said, where
        return
    assert code == signals.exit_code(kind), where
    assert "Traceback" not in said, where
    name = signals.signal_name(kind)
    ended = [f"{name}: saved at step ", f"{name}: before the first step", f"ended by {name}", "fastpose: interrupted"]
    assert any(sentence in said for sentence in ended), where
    assert "saved at step" not in said or position(run) >= logged(run), f"a step was lost; {where}"


@pytest.mark.slow
@runs.every_system
def test_promise_11_no_moment_is_a_bad_one(system: str, tmp_path: Path) -> None:
    """Stopped again and again, a run ends where the uninterrupted one does, bit for bit."""
    run, draw = tmp_path / "stopped" / system / "tiny" / "run", random.Random(f"{system} 11")
    run.parents[2].mkdir()
    for number, kind in enumerate([signal.SIGTERM] * MANY if system == "multiscale" else KINDS):
        stop_once(run, number, kind, draw)
    last = f"run.max_steps={position(run) + 2}"
    whole = runs.train(system, tmp_path / "whole", *MOMENTS, last).folder
    begun = run if position(run) else None
    again = runs.train(system, tmp_path / "stopped", *runs.overrides(system, *MOMENTS, last), resume=begun).folder
    assert runs.state_hash(again) == runs.state_hash(whole), runs.differing(runs.state_of(again), runs.state_of(whole))
    for name in ("metrics.jsonl", "metrics.csv"):
        assert (again / name).read_text() == (whole / name).read_text(), name
    assert not [path for path in again.rglob("*") if path.name.endswith(".tmp")]


def children(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow
def test_promise_11_workers_do_not_outlive_a_run_that_was_killed(tmp_path: Path) -> None:
    with launched(words_of("multiscale", tmp_path, "run.workers=2"), tmp_path / "told.txt") as launch:
        wait_for(lambda: (tmp_path / "multiscale/tiny/run/timing.jsonl").exists())
        workers = children(launch.process.pid)
        os.kill(launch.process.pid, signal.SIGKILL)
        assert launch.wait() == -signal.SIGKILL
        assert len(workers) >= 2
        wait_for(lambda: not any(alive(pid) for pid in workers))


def alive(pid: int) -> bool:
    """Return whether a process runs; one that has ended and was not asked for its code does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    until = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.05)


def _stuck(words: list[str], told: Path, ready: Any) -> None:
    """Train with steps that never end."""
    loop.Job._step = lambda self, batches: (print("in a step"), time.sleep(1000))  # type: ignore[method-assign, assignment]
    signals._ECHO_SECONDS = 0
    _main(words, told, ready)


@pytest.mark.slow
def test_promise_11_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    with launched(words_of("multiscale", tmp_path), tmp_path / "told.txt", _stuck) as launch:
        wait_for(lambda: "in a step" in launch.told.read_text())
        while launch.process.is_alive():
            launch.send(signal.SIGINT)
            launch.process.join(0.2)
        assert launch.wait() == 130
    assert launch.told.read_text().splitlines()[-1] == "fastpose: interrupted"


@pytest.mark.parametrize("again", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_promise_11_repeated_signals_break_no_save_off(first: int, again: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheduler repeats itself, a terminal closes behind it: a second Ctrl-C alone means now."""
    monkeypatch.setattr(signals, "_ECHO_SECONDS", -1.0)
    with signals.StopRequest() as stop:
        for number in (first, again, again):
            signal.raise_signal(number)
        assert stop.signal == first


def test_promise_11_what_is_ignored_stays_ignored() -> None:
    """Under ``nohup`` a closed terminal is no reason to stop."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.StopRequest() as stop, signals.before_the_first_step():
            signal.raise_signal(signal.SIGHUP)
            assert stop.signal == 0
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_promise_11_before_the_first_step_nothing_is_left(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)
    monkeypatch.setattr(loop.Job, "_load_data", lambda self: signal.raise_signal(number))
    with pytest.raises(SystemExit) as left:
        runs.train("multiscale", tmp_path / "runs")
    assert left.value.code == signals.exit_code(number)
    assert "before the first step, there was nothing to save" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    assert signal.getsignal(number) is before


STARTS = 8


@pytest.mark.slow
def test_promise_11_a_process_that_is_stopped_while_it_starts(tmp_path: Path) -> None:
    """While it imports, reads its recipe and its data: no traceback, and no run folder that cannot be gone on with."""
    draw, systems = random.Random("11 start"), list(runs.SYSTEMS)
    for number in range(STARTS):
        system, kind = systems[number % len(systems)], (signal.SIGTERM, signal.SIGINT)[number % 2]
        words, delay = runs.command(system, tmp_path / str(number), "run.epochs=1000"), draw.uniform(0.5, 5.0)
        with subprocess.Popen(words, env=runs.environment(), stderr=subprocess.PIPE, text=True) as process:
            time.sleep(delay)  # the moment is what is tried
            process.send_signal(kind)
            _, said = process.communicate(timeout=PATIENCE)
        where = f"{system}: signal {kind} after {delay:.3f} s: code {process.returncode}\n{said}"
        assert process.returncode in (-kind, signals.exit_code(kind)), where
        assert "Traceback" not in said, where
        for run in (tmp_path / str(number)).glob("*/*/*"):
            assert position(run) >= 1, where
