"""What a save does step by step, what a failing one leaves, and that none needs pickle: of every system."""

from __future__ import annotations

import ast
import builtins
import errno
import os
import pickle
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from unittest import mock

import pytest
import runs
import torch
import trained

import fastpose
from fastpose import _files, training
from fastpose.training import checkpoint, loop, resume_point, systems
from fastpose.training import config as configuration

LIMITS, STRIDE = 2, 15
"""Sizes at which the disk is full, for each file of a save; of how many steps of a save one fails in the fast suite."""


class Poison(BaseException):
    """What no one expects."""


class Steps:
    """Every step of a save that the system does, in order; the one of a number fails."""

    def __init__(self, fails: int = 0, error: BaseException | None = None) -> None:
        self.done: list[tuple[str, str]] = []
        self.fails, self.error = fails, error or Poison()

    def take(self, what: str, name: object) -> None:
        self.done.append((what, Path(str(name)).name))
        if len(self.done) == self.fails:
            raise self.error


class Stream:
    """A file that tells of each write and flush."""

    def __init__(self, inner: BinaryIO, steps: Steps, path: Path) -> None:
        self.inner, self.steps, self.path = inner, steps, path

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.inner.close()

    def write(self, data: bytes) -> int:
        half = len(data) // 2
        self.inner.write(data[:half])
        self.steps.take("write", self.path)  # with half of it written
        return half + self.inner.write(data[half:])

    def flush(self) -> None:
        self.steps.take("flush", self.path)
        self.inner.flush()

    def fileno(self) -> int:
        return self.inner.fileno()


@contextmanager
def observed(steps: Steps) -> Iterator[None]:
    """Within the body, let ``steps`` see what `_files` and the removal of old resume points ask of the system."""

    def opening(path: Any, mode: str) -> Stream:
        steps.take("open", path)
        return Stream(builtins.open(path, mode), steps, Path(path))

    def telling(what: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            steps.take(what, arguments[-1])
            return original(*arguments, **options)

        return call

    names = {"fsync": os.fsync, "replace": os.replace, "open": os.open}
    patches = [mock.patch.object(_files.os, name, telling(f"os.{name}", call)) for name, call in names.items()]
    patches += [mock.patch.object(_files, "open", opening, create=True), mock.patch.object(_files, "_CHUNK", 1 << 20)]
    patches += [mock.patch.object(Path, "unlink", telling("unlink", Path.unlink))]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], loop.Job]:
    """Return a run of a system that has been saved at steps 1 and 2 and goes on from there; each is made once."""
    known: dict[str, loop.Job] = {}

    def get(system: str) -> loop.Job:
        if system not in known:
            folder = trained.Trained(system, tmp_path_factory.mktemp(system)).folder
            known[system] = trained.new_job(system, folder)
            known[system].resume(folder, allow_changes=True)
            known[system]._open_files()
        return known[system]

    return get


@pytest.fixture
def job(jobs: Callable[[str], loop.Job], system: str, tmp_path: Path) -> loop.Job:
    """A run whose folder may be spoilt."""
    found = jobs(system)
    path = tmp_path / "run"
    shutil.copytree(found.folder.path, path)
    with mock.patch.object(found, "folder", type(found.folder)(path)):
        yield found


def steps_of(folder: Path) -> tuple[int, int]:
    """Return the steps of the newest resume point and of ``last``, both verified."""
    state, manifest = resume_point.load(folder / "state")
    assert state["position"]["step"] == manifest["step"]
    return manifest["step"], checkpoint.load_weights(folder / "weights" / "last.safetensors")[1]["step"]


def save_at(job: loop.Job, step: int) -> None:
    with mock.patch.object(job.position, "step", step):
        job.save()


@runs.every_system
def test_promise_3_the_new_one_is_in_place_before_the_old_one_goes(job: loop.Job, system: str) -> None:
    steps = Steps()
    before = [path.name for path in resume_point.saves(job.folder.state)]
    with observed(steps):
        save_at(job, 3)
    manifest = "save-000003-step-00000003.json"
    done = [what for what, _ in steps.done]
    order = [("os.replace", name) for name in (manifest.replace("json", "safetensors"), manifest)]
    order += [("os.replace", "last.json"), ("os.replace", "last.safetensors")]
    assert [step for step in steps.done if step[0] == "os.replace"] == order
    for place, (what, name) in enumerate(steps.done):
        if what == "os.replace":
            assert done[place - 2 : place] == ["flush", "os.fsync"], name  # its bytes are on the disk
            assert done[place + 1 : place + 3] == ["os.open", "os.fsync"], name  # and then its name
    gone = [place for place, step in enumerate(steps.done) if step[0] == "unlink"]
    assert steps.done.index(order[1]) + 2 < min(gone)
    assert [path.name for path in resume_point.saves(job.folder.state)] == [before[1], manifest]


@runs.every_system
@pytest.mark.parametrize("stride", [STRIDE, pytest.param(1, marks=pytest.mark.slow)])
def test_promise_1_whatever_fails_leaves_what_was_there_or_what_is_new(job: loop.Job, system: str, stride: int) -> None:
    steps = Steps()
    with observed(steps):
        save_at(job, 3)
    count, kept = len(steps.done), steps_of(job.folder.path)
    assert kept == (3, 3)
    assert count > 30
    for fails in range(1, count + 1, stride):
        steps = Steps(fails)
        with observed(steps), pytest.raises(Poison):
            save_at(job, 3 + fails)
        found = steps_of(job.folder.path)
        assert found[0] in (kept[0], 3 + fails), steps.done[-1]
        assert found[1] in (kept[1], 3 + fails), steps.done[-1]
        assert found >= kept
        earlier = resume_point.saves(job.folder.state)[-2]
        assert resume_point.load(earlier)[1]["step"] < found[0], steps.done[-1]  # and so does the one before
        kept = found
    save_at(job, 1000)
    assert steps_of(job.folder.path) == (1000, 1000)
    assert len(list(job.folder.state.iterdir())) == 4  # nothing of the failed saves is left
    assert not [path for path in job.folder.weights.iterdir() if path.name.startswith(".")]


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """Let no file grow beyond ``limit`` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@runs.every_system
def test_promise_2_a_full_disk_is_an_error_and_loses_nothing(job: loop.Job, system: str) -> None:
    files = [*job.folder.state.glob("save-000002-*"), *job.folder.weights.glob("last.*")]
    sizes = sorted(path.stat().st_size for path in files)
    limits = {1 + (size - 2) * part // (LIMITS - 1) for size in sizes for part in range(LIMITS)}
    failed = 0
    for limit in sorted(limits):
        before = steps_of(job.folder.path)
        sentence = r"could not be written \(File too large\); what was there"
        with full_disk(limit), pytest.raises(OSError, match=sentence) as error:
            save_at(job, before[0] + 1)
        failed += 1
        assert "\n" not in str(error.value)
        after = steps_of(job.folder.path)
        assert after[1] == before[1], limit  # the weights come last
        assert after[0] in (before[0], before[0] + 1), limit
    assert failed >= 2 * LIMITS
    save_at(job, 1000)
    assert steps_of(job.folder.path) == (1000, 1000)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to mount a file system")
def test_promise_2_a_disk_without_space_is_an_error_and_loses_nothing(tmp_path: Path) -> None:
    disk, state = tmp_path / "disk", {"weight": torch.zeros(20_000)}
    disk.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)]
    if subprocess.run(words, capture_output=True, timeout=60, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        resume_point.save(disk, state | {"step": 1}, {}, 1)
        resume_point.save(disk, state | {"step": 2}, {}, 2)
        with pytest.raises(OSError, match=r"could not be written \(No space left on device\)"):
            resume_point.save(disk, state | {"step": 3}, {}, 3)
        assert [resume_point.load(path)[0]["step"] for path in resume_point.saves(disk)] == [1, 2]
    finally:
        subprocess.run(["umount", str(disk)], capture_output=True, timeout=60, check=False)


@runs.every_system
def test_promise_2_a_save_that_fails_ends_the_run_which_can_be_resumed(tmp_path: Path, system: str) -> None:
    original, calls = os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(list(tmp_path.glob("*/*/*/state/*.json"))) == 2:  # two resume points are there
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(descriptor)

    words = ("run.max_steps=3", "run.checkpoint_steps=1")
    with mock.patch.object(os, "fsync", full), pytest.raises(OSError, match=r"No space left on device\); what was"):
        runs.train(system, tmp_path, *words)
    (folder,) = tmp_path.glob("*/*/*")
    assert runs.state_of(folder)["position"]["step"] == 2
    assert runs.train(system, tmp_path, resume=folder).step == 3


@pytest.mark.slow
def test_promise_2_a_full_disk_ends_the_command_with_one_line(tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    done = subprocess.run(
        runs.command("caption", tmp_path),
        env=runs.environment(),
        preexec_fn=limit,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("fastpose: ")]
    assert len(lines) == 1
    assert "could not be written (File too large)" in lines[0]
    assert "Traceback" not in done.stderr


# ------------------------------------------------------------------------------------------------------------ no pickle


@runs.every_system
def test_promise_6_training_saving_and_resuming_need_no_pickle(
    tmp_path: Path, system: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a pickle")

    for name in ("dumps", "loads", "dump", "load", "Pickler", "Unpickler", "_Pickler", "_Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    for name in ("save", "load"):
        monkeypatch.setattr(torch, name, refuse)
    words = ("run.workers=0", "run.ema=0.9", "run.max_steps=2")
    folder = runs.train(system, tmp_path, *words).folder
    assert runs.train(system, tmp_path, "run.max_steps=3", resume=folder).step == 3


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    """Yield the place, dotted name and node of every call in the package."""
    root = Path(fastpose.__file__).parent
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield f"{path.relative_to(root)}:{node.lineno}", ast.unparse(node.func), node


def given(node: ast.Call) -> dict[str | None, str]:
    return {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}


NEVER = {
    *("eval", "exec", "compile", "pickle.load", "pickle.loads", "pickle.Unpickler", "torch.save", "yaml.unsafe_load"),
    *("yaml.full_load", "joblib.load", "marshal.loads", "shelve.open", "shutil.unpack_archive", "os.system"),
}
NEEDED = {
    **dict.fromkeys(("torch.load",), ("weights_only", "True")),
    **dict.fromkeys(("np.load", "np.lib.format.read_array"), ("allow_pickle", "False")),
    "yaml.load": ("Loader", "StrictLoader"),
}


def test_promise_6_and_21_the_code_has_no_door_for_pickles_or_code() -> None:
    seen = set()
    for place, name, node in calls():
        seen.add(name)
        assert name not in NEVER, f"{place}: {name}"
        assert not name.endswith((".extractall", ".extract")), f"{place}: {name}"
        if name in NEEDED:
            option, value = NEEDED[name]
            assert given(node).get(option) == value, f"{place}: {name} without {option}={value}"
    assert seen >= {"torch.load", "np.lib.format.read_array", "yaml.load"}  # the search finds what is there


BY_NAME = {
    *("__init__.py", "_native.py", "models/_registry.py", "ops/_dispatch.py", "ops/_places.py", "training/systems.py"),
    *("training/distributed.py", "training/transfer_scores.py"),
}
"""Files that import by name: all from tables of ours, but the last, whose name comes from the command line alone."""


def test_promise_21_what_is_imported_by_name_is_known() -> None:
    found = {place.partition(":")[0] for place, name, _ in calls() if name in ("importlib.import_module", "__import__")}
    assert found == BY_NAME


def test_promise_21_no_file_names_code(tmp_path: Path) -> None:
    """Weights, runs and recipes have no say in which detector is imported."""
    _, recipe = trained.new_trainer("pona", "test.detector=os:system")
    assert recipe.config.test.detector == "os:system"  # the user's own word
    config = configuration.to_dict(recipe.config)
    about = {"recipe": recipe.name, "system": "pona", "config": config}
    checkpoint.save_weights(tmp_path / "w.safetensors", systems.get("pona").network(recipe.config), about)
    assert systems.load_network(tmp_path / "w.safetensors")[1].test.detector == ""
    (tmp_path / "own.yaml").write_text(configuration.to_yaml({"system": "pona", "config": config}))
    with pytest.raises(ValueError, match=r"recipe own: names code to import, which a file may not; .*test\.detector="):
        configuration.load_recipe(tmp_path / "own.yaml")


@pytest.mark.slow
def test_promise_21_code_that_a_run_named_is_not_left_out_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_judge.py").write_text("def see(images):\n    return [[0.5]] * len(images)\n")
    monkeypatch.syspath_prepend(tmp_path)
    run = runs.train("pona", tmp_path, "test.detector=my_judge:see", "run.max_steps=1").folder
    with pytest.raises(
        ValueError, match=r"names test\.detector='my_judge:see', code that .*; add it, or test\.detector="
    ):
        runs.train("pona", tmp_path, "run.max_steps=2", resume=run)
    runs.train("pona", tmp_path, "test.detector=my_judge:see", "run.max_steps=2", resume=run)
    weights = run / "weights" / "last.safetensors"
    with pytest.warns(UserWarning, match=r"last\.safetensors: names test\.detector='my_judge:see', code that"):
        assert "DS" not in [row.name for row in training.evaluate("pona/tiny", weights)]
    assert "DS" in [row.name for row in training.evaluate("pona/tiny", weights, ["test.detector=my_judge:see"])]
