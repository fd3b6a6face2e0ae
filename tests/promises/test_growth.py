"""Promise 27, every system: what a process holds does not grow with steps, evaluations, saves or calls."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import statistics
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import runs

from fastpose import training
from fastpose.training import loop
from fastpose.visual import grids

STATM = Path("/proc/self/statm")
pytestmark = pytest.mark.skipif(not STATM.exists(), reason="what a process holds is read from /proc")

GROWTH = 1.02  # the last quarter over the second
STEPS = {"multiscale": 2000, "caption": 200, "pona": 200, "pose3d": 200, "sagan": 200}
EVALUATIONS, PREDICTIONS = 50, 150


def held() -> dict[str, int]:
    """Return what this process holds: resident bytes, open files, threads, children."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # what is free, but not yet given back, is not held
    threads = list(Path("/proc/self/task").iterdir())
    return {
        "bytes": int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"),
        "files": len(os.listdir("/proc/self/fd")),
        "threads": len(threads),
        "children": sum(len((thread / "children").read_text().split()) for thread in threads),
    }


def check(found: list[dict[str, int]]) -> None:
    """Hold the last quarter of some measurements to the second one."""
    quarter = len(found) // 4
    second, last = found[quarter : 2 * quarter], found[-quarter:]
    sizes = [statistics.median(each["bytes"] for each in part) for part in (second, last)]
    print(f"{len(found)} measurements: {sizes[0] / 2**20:.1f} MiB, then {sizes[1] / 2**20:.1f} MiB")
    assert sizes[1] < GROWTH * sizes[0], sizes
    for what in ("files", "threads", "children"):
        assert max(each[what] for each in last) <= max(each[what] for each in second), (what, found)


def watched(steps: int, every: int) -> Any:
    """Return a patch that looks after every so many steps, and the list of what it saw."""
    found: list[dict[str, int]] = []
    original = loop.Job._step

    def step(self: loop.Job, batches: Any) -> None:
        original(self, batches)
        if self.position.step % every == 0:
            found.append(held())

    return mock.patch.object(loop.Job, "_step", step), found


def in_a_process(task: Callable[..., None], *arguments: Any) -> None:
    """Run a task in a process of its own: what others left in this one has no part in it."""
    process = multiprocessing.get_context("spawn").Process(target=task, args=arguments)
    process.start()
    process.join(1500)
    hung = process.is_alive()
    process.kill()
    process.join()
    assert not hung
    assert process.exitcode == 0


def _train(system: str, out: Path, steps: int, *words: str) -> None:
    patch, found = watched(steps, max(steps // 40, 1))
    with patch:
        runs.train(system, out, f"run.max_steps={steps}", "run.epochs=100000", *words)
    assert len(found) >= 40
    check(found)
    names = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    run = f"{system}/tiny/run"
    assert len([name for name in names if name.startswith(f"{run}/state/save-")]) <= 4
    assert {name for name in names if not name.startswith(f"{run}/state/save-")} <= {f"{run}/{name}" for name in FILES}


FILES = {"config.yaml", "environment.json", "metrics.csv", "metrics.jsonl", "timing.jsonl", ".lock"}
FILES |= {f"weights/{which}.{kind}" for which in ("best", "last") for kind in ("safetensors", "json")}
FILES |= {"state/best.safetensors", "state/best.json"}  # which the evaluation of the last step replaced


@pytest.mark.slow
@runs.every_system
def test_promise_27_steps_hold_no_more_and_more(system: str, tmp_path: Path) -> None:
    in_a_process(_train, system, tmp_path, STEPS[system], "run.checkpoint_every=1000", "run.workers=0")


@pytest.mark.slow
@pytest.mark.parametrize("system", ["multiscale", "pona", "caption"])
def test_promise_27_evaluations_and_saves_hold_no_more_and_more(system: str, tmp_path: Path) -> None:
    """An epoch of one step each: every step is followed by an evaluation with a loader of its own, and by a save."""
    words = "run.batch_size=39" if system == "caption" else "data.samples_per_epoch=2"
    in_a_process(_train, system, tmp_path, EVALUATIONS, words, "run.evaluate_every=1", "run.workers=1")


def _use(out: Path) -> None:
    """Call what uses trained weights, again and again in one process."""
    weights = runs.train("sagan", out, "run.max_steps=1").folder / "weights/last.safetensors"
    photo = grids.save_image(out / "photo.png", np.full((64, 48, 3), 128, np.uint8))
    evaluate = partial(training.evaluate, "sagan/tiny", weights, ["run.workers=1"])
    predict = partial(training.predict, None, weights, [photo], out=out / "drawn")
    for task, count in ((evaluate, EVALUATIONS), (predict, PREDICTIONS)):
        found = []
        for _ in range(count):
            task()
            found.append(held())
        check(found)


@pytest.mark.slow
def test_promise_27_calls_hold_no_more_and_more(tmp_path: Path) -> None:
    in_a_process(_use, tmp_path)
