"""Bad photographs and dying workers in runs of the systems that read photographs."""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import bad_images
import pytest
import runs
from torch.utils.data import get_worker_info
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from fastpose.data import loading, sample
from fastpose.training import outcome

PHOTOGRAPHIC = ("sagan", "pona", "pose3d", "multiscale")
"""Systems that read photographs; the fifth, caption, learns from arrays."""

BAD = ("a third of a JPEG", "empty", "decompression bomb", "a pipe")
"""What a training set of the tests has among its photographs."""

photographic = pytest.mark.parametrize("system", PHOTOGRAPHIC)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the bundled sample that the systems read in its place."""
    copy = tmp_path / "sample"
    shutil.copytree(sample.FOLDER, copy)
    monkeypatch.setattr(sample, "FOLDER", copy)
    return copy


def spoil(folder: Path, split: str, names: tuple[str, ...] = BAD) -> list[Path]:
    """Put kinds of bad files in place of the first photographs of a split; return their paths."""
    photos = list(dict.fromkeys(entry.image for entry in sample.read(folder, split)))[: len(names)]
    for photo, name in zip(photos, names, strict=True):
        bad_images.KINDS[name].write(photo, bad_images.photograph())
    return photos


@photographic
def test_promise_17_a_run_names_path_and_index(folder, tmp_path, system):
    photos = {entry.image for entry in sample.read(folder, "train")}
    for photo in photos:
        photo.write_bytes(b"")
    with pytest.raises(ValueError, match=r"^sample(-pairs)? (person|pair) \d+: image .*: the file is empty") as caught:
        runs.train(system, tmp_path / "runs", "run.max_steps=1")
    assert any(str(photo) in str(caught.value) for photo in photos)


@photographic
@pytest.mark.slow
def test_promise_17_a_run_that_skips_resumes_exactly(folder, tmp_path, caplog, system):
    """Whole without workers; in two parts, the first with two workers."""
    options = ("data.on_error=skip", "data.skip_limit=1000")
    spoil(folder, "train", BAD * 8)
    whole = runs.train(system, tmp_path / "whole", "run.max_steps=7", *options)
    assert any("takes its place" in record.message for record in caplog.records)  # bad photographs were met
    part = runs.train(system, tmp_path / "part", "run.max_steps=4", "run.workers=2", *options)
    resumed = runs.train(system, tmp_path / "part", "run.max_steps=7", "run.workers=0", resume=part.folder)
    assert runs.state_hash(resumed.folder) == runs.state_hash(whole.folder), runs.differing(
        runs.state_of(resumed.folder), runs.state_of(whole.folder)
    )


@photographic
def test_promise_17_more_bad_photographs_than_the_limit_end_a_run(folder, tmp_path, system):
    for photo in {entry.image for entry in sample.read(folder, "train")}:
        photo.write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"3 unreadable images, more than the limit of 2; last: sample.* the file is empty"
    ):
        runs.train(system, tmp_path, "run.max_steps=1", "data.on_error=skip", "data.skip_limit=2")


def test_promise_17_a_run_that_ended_at_a_bad_photograph_goes_on_without_it(folder, tmp_path):
    part = runs.train("sagan", tmp_path, "run.max_steps=1", "data.on_error=raise")
    spoil(folder, "train", ("empty",) * 40)
    with pytest.raises(ValueError, match="the file is empty"):
        runs.train("sagan", tmp_path, "run.max_steps=3", resume=part.folder)
    done = runs.train(
        "sagan", tmp_path, "run.max_steps=3", "data.on_error=skip", "data.skip_limit=60", resume=part.folder
    )
    assert done.step == 3


@photographic
def test_promise_17_an_evaluation_says_what_it_leaves_out(folder, tmp_path, caplog, monkeypatch, system):
    """What is scored is what can be read, each once; never another sample in the place of one that cannot."""
    scored: list[int] = []

    def watch(trainer, network, loader):
        scored.extend(index for batch in loader for index in batch["index"].tolist())
        return evaluate(trainer, network, loader)

    evaluate = outcome.evaluate
    monkeypatch.setattr(outcome, "evaluate", watch)
    runs.train(system, tmp_path, "run.max_steps=1", "data.on_error=skip")
    everything, scored[:] = sorted(scored), []
    spoil(folder, "val")
    with caplog.at_level(logging.WARNING, "fastpose.data"):
        runs.train(system, tmp_path, "run.max_steps=1", "data.on_error=skip")
    left = sorted(set(everything) - set(scored))
    assert left
    assert len(scored) == len(set(scored))
    assert set(scored) < set(everything)
    said = [record.message for record in caplog.records]
    assert any(f"{len(left)} of {len(everything)} samples are left out of this evaluation" in line for line in said)
    assert sum("takes its place, no score counts it" in line for line in said) >= len(left)


# ------------------------------------------------------------------------------------------------------------ workers


@pytest.fixture
def polled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch look at its workers every fifth of a second, in place of every five."""
    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.2,))


def fatal(monkeypatch: pytest.MonkeyPatch, end: Callable[[], object]) -> None:
    """Let workers end at the third batch of whatever loads from now on."""
    read, asked = loading._Guarded.__getitem__, []

    def watched(guarded, key):
        asked.append(key)
        if get_worker_info() is not None and len(asked) > 2:
            end()
        return read(guarded, key)

    monkeypatch.setattr(loading._Guarded, "__getitem__", watched)


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@runs.every_system
@pytest.mark.timeout(120)
def test_promise_18_a_worker_killed_in_training_is_one_sentence(tmp_path, monkeypatch, polled, system):
    """Nor is its end taken for a bad photograph."""
    fatal(monkeypatch, killed)
    skip = ["data.on_error=skip"] if system in PHOTOGRAPHIC else []
    with pytest.raises(
        ChildProcessError, match=r"^a data worker died \(.*lower workers \(now 2\) or batch_size$"
    ) as caught:
        runs.train(system, tmp_path, "run.max_steps=9", "run.workers=2", *skip)
    assert "\n" not in str(caught.value)
    assert not multiprocessing.active_children()


@runs.every_system
@pytest.mark.timeout(120)
def test_promise_18_a_worker_killed_in_an_evaluation_is_one_sentence(tmp_path, monkeypatch, polled, system):
    """The state was saved before the evaluation began, so that the run goes on from there."""
    evaluate = outcome.evaluate

    def deadly(trainer, network, loader):
        fatal(monkeypatch, lambda: os._exit(3))
        return evaluate(trainer, network, loader)

    with monkeypatch.context() as patched:
        patched.setattr(outcome, "evaluate", deadly)
        with pytest.raises(ChildProcessError, match=r"^a data worker died"):
            runs.train(system, tmp_path, "run.max_steps=1", "run.workers=1", "run.batch_size=4")
    monkeypatch.undo()
    (run,) = (path.parent for path in tmp_path.rglob("config.yaml"))
    assert runs.state_of(run)["position"]["step"] == 1


@pytest.mark.slow
@runs.every_system
def test_promise_18_the_command_line_says_it_and_ends(tmp_path, system):
    """As the kernel ends a process when memory runs out: the largest worker of the run, at any moment."""
    words = runs.command(system, tmp_path, "run.workers=2", "run.epochs=100000")
    process = subprocess.Popen(
        words,
        env=runs.environment(),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        os.kill(_worker_of(process), signal.SIGKILL)
        _, err = process.communicate(timeout=200)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 2, err
    assert sum(line.startswith("fastpose: a data worker died") for line in err.splitlines()) == 1
    assert "Traceback" not in err


def _worker_of(process: subprocess.Popen[str]) -> int:
    """Wait for a worker of a run and return its process."""
    for _ in range(3000):
        assert process.poll() is None, process.stderr.read()
        found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False).stdout
        if found.split():
            return int(found.split()[0])
        threading.Event().wait(0.05)
    raise AssertionError("no worker was started")
