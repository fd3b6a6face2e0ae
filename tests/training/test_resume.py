"""run(N) and run(k) + resume(N) end in the same state, bit for bit; what does not fit is refused."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import runs
import toy_system

from fastpose.training import engine, resume_point, signals

ALL = ("run.ema=0.9", "run.clip_norm=1.0", "run.epochs=3")
# the first step, mid-epoch, between two rows of the log, an epoch's end, the step after it, the last
STOPS = [1, 5, 7, 12, 13, 35]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Hashes of uninterrupted runs of 3 epochs of 12 steps, by extra overrides."""
    hashes: dict[str, Any] = {}
    for extra in ("", "run.accumulate=3", "run.precision=fp16"):
        run = toy_system.train(tmp_path_factory.mktemp("whole"), *ALL, *extra.split()).folder
        hashes[extra] = (runs.state_hash(run), (run / "metrics.csv").read_text())
    return hashes


@pytest.mark.parametrize("stop", STOPS)
def test_promise_8_a_resume_is_bit_exact(tmp_path: Path, whole: dict[str, Any], stop: int) -> None:
    first = toy_system.train(tmp_path, *ALL, f"run.max_steps={stop}")
    assert first.step == stop
    again = toy_system.train(tmp_path, *ALL, resume=first.folder)
    assert again.folder == first.folder
    assert (runs.state_hash(again.folder), (again.folder / "metrics.csv").read_text()) == whole[""]


@pytest.mark.parametrize(("extra", "stop"), [("run.accumulate=3", 5), ("run.precision=fp16", 17)])
def test_promise_8_in_other_modes(tmp_path: Path, whole: dict[str, Any], extra: str, stop: int) -> None:
    first = toy_system.train(tmp_path, *ALL, extra, f"run.max_steps={stop}")
    again = toy_system.train(tmp_path, *ALL, extra, resume=first.folder)
    assert runs.state_hash(again.folder) == whole[extra][0]


def test_promise_8_many_interruptions_and_workers(tmp_path: Path, whole: dict[str, Any]) -> None:
    run = toy_system.train(tmp_path, *ALL, "run.max_steps=4").folder
    for stop, workers in ((9, 0), (14, 1), (25, 0)):
        toy_system.train(tmp_path, *ALL, f"run.max_steps={stop}", f"run.workers={workers}", resume=run)
    run = toy_system.train(tmp_path, *ALL, resume=run).folder
    state, _ = resume_point.load(run / "state")
    assert state["position"]["step"] == 36
    assert runs.state_hash(run) == whole[""][0]


def test_promise_8_the_earlier_resume_point_can_be_named(tmp_path: Path, whole: dict[str, Any]) -> None:
    run = toy_system.train(tmp_path, *ALL, "run.checkpoint_steps=5", "run.max_steps=12").folder
    earlier, newest = resume_point.saves(run / "state")
    newest.with_suffix(".safetensors").write_bytes(b"spoilt")
    with pytest.raises(ValueError, match=f"truncated .*resume from {earlier} instead"):
        toy_system.train(tmp_path, *ALL, resume=run)
    again = toy_system.train(tmp_path, *ALL, resume=earlier)
    assert (runs.state_hash(again.folder), (run / "metrics.csv").read_text()) == whole[""]


@pytest.fixture(scope="module")
def paused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that stopped at step 5."""
    return toy_system.train(tmp_path_factory.mktemp("paused"), "run.max_steps=5").folder


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("lr=0.02", "cannot go on: lr was 0.01 and is 0.02; undo the change"),
        ("run.batch_size=8", r"run\.batch_size was 4 and is 8"),
        ("run.seed=3", r"run\.seed was 0 and is 3"),
        ("data.length=60", r"data\.length was 48 and is 60, data set\.train\.length was 48 and is 60"),
        ("data=circles", "data.name was 'points' and is 'circles'"),
    ],
)
def test_promise_12_another_configuration_is_refused(paused: Path, override: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        toy_system.train(paused.parent, override, resume=paused)


def test_promise_12_another_recipe_is_refused(paused: Path) -> None:
    from dataclasses import replace

    other = replace(toy_system.recipe(), name="toy/other")
    with pytest.raises(ValueError, match="is of recipe toy/points, cannot go on as toy/other"):
        engine.launch(other, lambda: toy_system.ToyTrainer(other.config), resume=paused, progress=False)


def test_promise_12_changes_that_are_asked_for_are_allowed(tmp_path: Path) -> None:
    run = toy_system.train(tmp_path, "run.max_steps=5").folder
    result = toy_system.train(tmp_path, "lr=0.02", "run.max_steps=6", resume=run, allow_changes=True)
    assert result.step == 6
    with pytest.raises(ValueError, match=r"does not fit the network: 0\.weight is \(8, 4\), expected \(6, 4\)"):
        toy_system.train(tmp_path, "width=6", resume=run, allow_changes=True)


def test_promise_12_how_long_how_often_and_where_may_change(tmp_path: Path) -> None:
    run = toy_system.train(tmp_path, "run.max_steps=5").folder
    free = ("run.epochs=1", "run.log_every=2", "run.workers=1", "run.evaluate_every=3", "data.root=/elsewhere")
    assert toy_system.train(tmp_path, *free, resume=run).stopped == "finished"
    with pytest.raises(ValueError, match=r"is finished \(1 epochs\); set a larger run\.epochs to go on"):
        toy_system.train(tmp_path, *free, resume=run)


def test_promise_12_a_reached_limit_is_said(paused: Path) -> None:
    with pytest.raises(ValueError, match=r"stopped at run\.max_steps=5; set a larger one"):
        toy_system.train(paused.parent, "run.max_steps=5", resume=paused)


def test_promise_12_what_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        toy_system.train(tmp_path, resume=tmp_path / "absent")
    (tmp_path / "config.yaml").write_text("system: toy\nconfig: {}\n")
    with pytest.raises(FileNotFoundError, match="no resume point in this folder"):
        toy_system.train(tmp_path, resume=tmp_path)


# ------------------------------------------------------------------------------------------------------------ signals


def stop_at(step: int, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the process send itself a signal in the middle of a step."""
    original = toy_system.ToyTrainer.step

    def interrupted(self: Any, batch: Any, update: Any) -> Any:
        if self.count == step - 1:
            signal.raise_signal(number)
        return original(self, batch, update)

    monkeypatch.setattr(toy_system.ToyTrainer, "step", interrupted)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("step", [7, 12])
def test_promise_11_a_signal_saves_and_leaves_with_its_code(
    tmp_path: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch, number: int, code: int, step: int
) -> None:
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        stop_at(step, number, patch)
        with pytest.raises(SystemExit) as left:
            toy_system.train(tmp_path, *ALL)
    assert left.value.code == code
    assert signal.getsignal(number) is before
    (run,) = (tmp_path / "toy" / "points").iterdir()
    assert resume_point.load(run / "state")[0]["position"]["step"] == step
    toy_system.train(tmp_path, *ALL, resume=run)
    assert (runs.state_hash(run), (run / "metrics.csv").read_text()) == whole[""]


@pytest.mark.parametrize("call", [1, 3])
def test_promise_11_a_signal_during_an_evaluation_breaks_it_off(
    tmp_path: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    original, calls = toy_system.ToyTrainer.evaluate, []

    def interrupted(self: Any, network: Any, loader: Any) -> Any:
        calls.append(loader)
        if len(calls) == call:
            signal.raise_signal(signal.SIGTERM)
        return original(self, network, loader)

    with monkeypatch.context() as patch:
        patch.setattr(toy_system.ToyTrainer, "evaluate", interrupted)
        with pytest.raises(SystemExit, match="143"):
            toy_system.train(tmp_path, *ALL)
    (run,) = (tmp_path / "toy" / "points").iterdir()
    assert resume_point.load(run / "state")[0]["position"] == {"epoch": call - 1, "in_epoch": 12, "step": 12 * call}
    toy_system.train(tmp_path, *ALL, resume=run)
    assert (runs.state_hash(run), (run / "metrics.csv").read_text()) == whole[""]
    assert (run / "report.html").is_file()


def test_promise_11_a_second_ctrl_c_ends_at_once_but_an_echo_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(signals.time, "monotonic", lambda: now[0])
    with signals.StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert stop.signal == signal.SIGINT
        now[0] += 3
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_promise_11_a_process_that_gets_sigterm(tmp_path: Path) -> None:
    script = str(Path(toy_system.__file__))
    overrides = ["run.epochs=1000", "pause=0.01", "run.workers=1", "run.print_seconds=0.05"]
    command = [sys.executable, script, str(tmp_path), *overrides]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("step "):
                break
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
        assert process.wait(60) == 143, rest
    assert "SIGTERM: saved at step " in rest
    assert "Traceback" not in rest
    (run,) = (tmp_path / "toy" / "points").iterdir()
    assert resume_point.load(run / "state")[0]["position"]["step"] >= 1


@pytest.mark.parametrize("end", ["run.epochs=1", "run.max_steps=2"])
def test_promise_12_a_run_at_its_end_is_refused_and_so_is_its_copy(end: str, tmp_path: Path) -> None:
    """A copy writes its files in any order, and keeps no times; the report of an earlier version names no state."""
    run = toy_system.train(tmp_path, end).folder
    copied, old = (Path(shutil.copytree(run, tmp_path / name)) for name in ("copied", "old"))
    os.utime(copied / "report.html", (0, 0))
    (old / "report.html").write_text("<p>finished</p>")
    for folder in (run, copied, old):
        report = (folder / "report.html").read_text()
        with pytest.raises(ValueError, match=r"(is finished|stopped at run).*; set a larger .* to go on"):
            toy_system.train(tmp_path, end, resume=folder)
        assert (folder / "report.html").read_text() == report
