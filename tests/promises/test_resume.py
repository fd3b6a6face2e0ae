"""Promises 8, 9, 12: a resumed run is the uninterrupted one, one seed gives one run, nothing else is gone on with."""

from __future__ import annotations

import copy
import errno
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import runs
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from fastpose import _files, training
from fastpose.metrics.report import Result
from fastpose.training import checkpoint, engine, loop, resuming, run_lock, systems
from fastpose.training.multiscale import MultiscaleTrainer

# What of a system changes the state that its steps carry on, or the order of its updates.
GAN = ("loss.algorithm=gan", "discriminator.norm=batch")
VARIANTS: dict[str, tuple[tuple[str, ...], ...]] = {
    "sagan": (
        (),
        ("loss.stale_d_activations=yes", "loss.adv_target_grad=yes"),
        ("loss.policy=constant", "schedule.discriminator=yes"),
        ("discriminator.name=none",),
        ("model.flavour=released", "discriminator.flavour=released", "model.sarm_stacks=1"),
    ),
    "pona": (
        (),
        ("loss.ratio=2", "loss.pool=2"),
        ("loss.pool=50", "model.fusion=tail"),
        ("loss.pool=0", "pose.name=none", "data.flip=yes"),
        ("appearance.spectral_norm=no", "model.cross_attention=no", "schedule.name=constant"),
    ),
    "multiscale": (
        (),
        ("model.fusion=cat", "data.flip=yes"),
        ("discriminator.name=none",),
        ("loss.gan=bce", "schedule.decay_epochs=3"),
    ),
    "pose3d": (
        (),
        ("loss.gan=wgan-gp", "discriminator.norm=none", "loss.critic_steps=2"),
        ("stage.fix_2d=yes", "loss.fakes=wild"),
        ("stage=pose", "loss.bones_weight=0.01"),
        ("stage=2d", "data.name=none"),
        ("stage=pose", "data.mixing=shuffled", "data.epoch_batches=0", "data.ratio_3d=0.1", "run.batch_size=30"),
    ),
    "caption": (
        (),
        ("loss.critic_steps=5",),
        ("loss.algorithm=wgan", "loss.critic_steps=5", "loss.generator_captions=fresh"),
        ("loss.algorithm=wgan-gp", "model.self_attention=yes", "discriminator.self_attention=yes"),
        GAN,
        ("model.conditional=no", "text.encoder="),
        (*GAN, "model.conditional=no", "text.encoder=", "loss.critic_steps=1"),
    ),
}
# What every run may be asked for. Two of each row meet in some case of a system.
CHOICES: dict[str, Sequence[str]] = {
    "run.ema": ("0", "0.9"),
    "run.accumulate": ("1", "1", "2"),
    "run.precision": ("fp32", "bf16", "fp16"),
    "run.evaluate_every": ("0", "1", "2"),
    "run.checkpoint_steps": ("0", "2"),
    "run.checkpoint_every": ("1", "3"),
    "run.clip_norm": ("0", "1.0"),
    "run.log_every": ("1", "4", "5"),
    "run.deterministic": ("no", "yes"),
}
FIXED = {"caption": {"run.accumulate": "1"}}  # each turn has a batch of its own
# An epoch is three steps: the middle of one, its end, the step after it, and one after another.
STOPS = ((1,), (2,), (3,), (4,), (5, 6), (1, 4, 7), (3, 9), (2, 3, 4, 5), (11,), (12,))
WORKERS = ((0, 0), (0, 1), (1, 0), (2, 1), (0, 2), (1, 1))  # before and after the first interruption


@dataclass(frozen=True)
class Case:
    """One way to train and to be interrupted."""

    system: str
    words: tuple[str, ...]
    stops: tuple[int, ...]
    workers: tuple[int, int]

    def __str__(self) -> str:
        stops, workers = ("-".join(map(str, chosen)) for chosen in (self.stops, self.workers))
        return f"{self.system}-{'+'.join(self.words).replace('run.', '')}-stop{stops}-workers{workers}"


def cases(system: str, each: int) -> list[Case]:
    """Return ``each`` seeded cases of every variant of a system."""
    draw = random.Random(f"{system} 8")
    found = []
    for variant in VARIANTS[system] * each:
        chosen = {name: draw.choice(values) for name, values in CHOICES.items()} | FIXED.get(system, {})
        words = [f"{name}={value}" for name, value in chosen.items()]
        found.append(Case(system, (*words, *variant), draw.choice(STOPS), draw.choice(WORKERS)))
    return found


@contextmanager
def stopped_in(step: int) -> Iterator[None]:
    """Let the process send itself SIGTERM in the middle of a step."""
    original = loop.Job._step

    def interrupted(self: loop.Job, batches: Any) -> None:
        if self.position.step == step - 1:
            signal.raise_signal(signal.SIGTERM)
        original(self, batches)

    with mock.patch.object(loop.Job, "_step", interrupted), pytest.raises(SystemExit, match="143"):
        yield


def interrupted_run(case: Case, out: Path, last: int) -> Path:
    """Train a case of ``last`` steps with its interruptions to its end; return the run folder."""
    run = out / case.system / "tiny" / "run"
    before, after = (f"run.workers={count}" for count in case.workers)
    for number, step in enumerate(sorted({min(step, last) for step in case.stops})):
        words = runs.overrides(case.system, *case.words, after if number else before)
        with stopped_in(step):
            runs.train(case.system, out, *words, resume=run if number else None)
        assert runs.state_of(run)["position"]["step"] == step
    words = runs.overrides(case.system, *case.words, after)
    assert runs.train(case.system, out, *words, resume=run).stopped == "finished"
    return run


def traces(run: Path) -> dict[str, Any]:
    """Return all that a run leaves and a seed fixes: hashes of state, weights and log."""
    found: dict[str, Any] = {"state": runs.state_hash(run)}
    for name in ("best", "last"):
        tensors, about = checkpoint.load_weights(run / "weights" / f"{name}.safetensors")
        about["config"]["run"].pop("workers")
        about["config"]["data"].pop("cache", None)
        for key in ("files", "before"):  # hashes of what holds the number of workers, and of another save
            about.pop(key, None)
        found[name] = (checkpoint.hash_tensors(tensors), about)
    return found | {name: (run / name).read_text() for name in ("metrics.csv", "metrics.jsonl")}


def explain(case: Case, first: Path, second: Path) -> str:
    """Return where two runs of a case differ."""
    found = [name for name, value in traces(first).items() if traces(second)[name] != value]
    return f"{case}: {found}; state{runs.differing(runs.state_of(first), runs.state_of(second))[:20]}"


def check(case: Case, out: Path) -> None:
    """Hold a run with interruptions to the uninterrupted one."""
    whole = runs.train(case.system, out / "whole", *case.words)
    again = interrupted_run(case, out / "interrupted", whole.step)
    assert traces(again) == traces(whole.folder), explain(case, again, whole.folder)


FEW = [
    Case("sagan", ("run.ema=0.9", "run.evaluate_every=1"), (2, 6), (0, 1)),
    Case("pona", ("run.ema=0.9", "run.accumulate=2", "data.samples_per_epoch=12"), (1, 5), (1, 0)),
    Case("pose3d", ("run.precision=bf16", *VARIANTS["pose3d"][1]), (4,), (0, 0)),
    Case("multiscale", ("run.checkpoint_steps=2", "run.log_every=5"), (3, 4, 11), (0, 2)),
    Case("caption", ("run.evaluate_every=2", "loss.critic_steps=5"), (3, 7), (2, 1)),
]
QUICK = ("pona", "multiscale", "caption")  # of the others, what follows trains and resumes each within two seconds


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=case.system, marks=() if case.system in QUICK else pytest.mark.slow) for case in FEW],
)
def test_promise_8_a_resumed_run_is_the_uninterrupted_one(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path)


EACH = 1
MANY = [case for system in runs.SYSTEMS for case in cases(system, EACH)]


@pytest.mark.slow
@pytest.mark.parametrize("case", MANY, ids=str)
def test_promise_8_in_every_variant(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path)


# ---- state that is forgotten ---------------------------------------------------------------------------------------

# Clocks and displays, and where this launch began to read; none of them reaches a step.
OWN_OF_A_LAUNCH = {"began", "_logged_at", "_logged_step", "progress", "stop", "folder", "environment", "start_step"}
OWN_OF_A_LAUNCH |= {"rows", "logbook"}  # how much of the log was found; the log itself is compared


def numbers(thing: Any, path: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Yield every number, text, tensor and array that hangs on an object of fastpose, with its path."""
    if thing is None or isinstance(thing, bool | int | float | str | Tensor):
        yield path, thing
        return
    if isinstance(thing, np.ndarray):
        yield path, thing.tobytes()
        return
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, dict):
        inside = {str(key): value for key, value in thing.items()}
    elif isinstance(thing, list | tuple):
        inside = {str(key): value for key, value in enumerate(thing)}
    elif isinstance(thing, Optimizer | GradScaler):
        inside = {"state": thing.state_dict()}
    elif isinstance(thing, nn.Module) or type(thing).__module__.startswith("fastpose"):
        inside = vars(thing)
    else:
        return
    for name, value in inside.items():
        if name not in OWN_OF_A_LAUNCH:
            yield from numbers(value, f"{path}.{name}", seen)


def job_of(system: str, out: Path, *words: str, resume: Path | None = None) -> loop.Job:
    """Train, and return what was in memory at the end."""
    with mock.patch.object(engine, "_run", wraps=engine._run) as watched:
        runs.train(system, out, *words, resume=resume)
    job: loop.Job = watched.call_args.args[0]
    return job


@runs.every_system
def test_promise_8_no_state_is_forgotten(system: str, tmp_path: Path) -> None:
    """Whatever changed in memory by training has come back with the resume."""
    words = runs.overrides(system, "run.ema=0.9", "run.epochs=2", "run.log_every=1")
    whole = dict(numbers(job_of(system, tmp_path / "whole", *words), "job", set()))
    with stopped_in(4):
        runs.train(system, tmp_path / "part", *words)
    part = job_of(system, tmp_path / "part", *words, resume=tmp_path / "part" / system / "tiny" / "run")
    again = dict(numbers(part, "job", set()))
    assert len(whole) > 200
    assert not runs.differing(again, whole)


# ---- what lies beside the state ------------------------------------------------------------------------------------


def test_promise_8_the_best_of_a_pause_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pause is evaluated out of turn; weights that were the best only there are not the run's."""

    def train(out: Path, scores: list[float], *words: str, resume: Path | None = None) -> Path:
        left = iter(scores)
        monkeypatch.setattr(MultiscaleTrainer, "evaluate", lambda *_: [Result("L1", "one number", next(left), 1)])
        words = ("run.evaluate_every=1", "test.monitor=L1", *words)
        return runs.train("multiscale", out, *runs.overrides("multiscale", *words), resume=resume).folder

    whole = train(tmp_path / "whole", [0.2, 0.3, 0.4, 0.5])
    part = train(tmp_path / "part", [0.2, 0.1], "run.max_steps=5")
    assert checkpoint.read_about(part / "weights/best.safetensors")["step"] == 5
    train(tmp_path, [0.3, 0.4, 0.5], resume=part)
    for name in ("best", "last"):
        (ours, about), (theirs, known) = (
            checkpoint.load_weights(run / "weights" / f"{name}.safetensors") for run in (part, whole)
        )
        assert (checkpoint.hash_tensors(ours), about["step"]) == (checkpoint.hash_tensors(theirs), known["step"])
    assert not list((part / "state").glob("best.*"))


@pytest.mark.parametrize("moment", ["_publish", "_write_outcome"])
def test_promise_8_a_run_that_is_killed_at_its_end_comes_to_it(moment: str, tmp_path: Path) -> None:
    """Between the last resume point and ``weights/last``, or before the report: nothing is missing or there twice."""
    words = runs.overrides("multiscale", "run.max_steps=0")
    whole = runs.train("multiscale", tmp_path / "whole", *words).folder
    part = runs.train("multiscale", tmp_path / "part", *words, "run.max_steps=3").folder
    original = getattr(loop.Job, moment)

    def killed(self: loop.Job, *arguments: Any, **about: Any) -> None:
        if self.position.epoch == 4:
            raise KeyboardInterrupt
        original(self, *arguments, **about)

    with mock.patch.object(loop.Job, moment, killed), pytest.raises(KeyboardInterrupt):
        runs.train("multiscale", part, *words, resume=part)
    (part / "report.html").write_text("resume point save-000001-step-00000003")  # of the pause, just written
    assert runs.train("multiscale", part, *words, resume=part).best is not None
    assert traces(part) == traces(whole)


def photographs(folder: Path, count: int) -> Path:
    """Write LSP extended with ``count`` photographs; return the folder."""
    import cv2
    from scipy.io import savemat

    draw = np.random.default_rng(8)
    joints = np.ones((14, 3, count))
    joints[:, :2] = draw.uniform(5, 55, (14, 2, count))
    (folder / "images").mkdir(parents=True)
    savemat(folder / "joints.mat", {"joints": joints})
    for number in range(1, count + 1):
        photo = draw.integers(0, 256, (60, 60, 3), np.uint8)
        assert cv2.imwrite(str(folder / "images" / f"im{number:05d}.jpg"), photo)
    return folder


@pytest.mark.slow
def test_promise_8_unreadable_photographs_are_replaced_alike(tmp_path: Path) -> None:
    """Photographs in a folder, two of them spoilt, kept in a cache that one of the runs does not have."""
    root = photographs(tmp_path / "data", 24)
    for number in (1, 4, 20):
        (root / "images" / f"im{number:05d}.jpg").write_bytes(b"no photograph")
    words = ("data.name=lspet", f"data.root={root}", "data.holdout=4", "data.on_error=skip", "run.batch_size=4")
    case = Case("sagan", (*words, f"data.cache={tmp_path / 'kept'}"), (1, 7), (0, 1))
    whole = runs.train("sagan", tmp_path / "whole", *words)
    again = interrupted_run(case, tmp_path / "again", whole.step)
    assert traces(again) == traces(whole.folder), explain(case, again, whole.folder)


# ---- 9: one seed ---------------------------------------------------------------------------------------------------

# What holds seconds. All else of a run folder is the same bytes.
TIMED = {"timing.jsonl"}
REVERSED = """
import os, sys
listed, walked = os.listdir, os.scandir
class Scan(list):
    __enter__ = lambda self: self
    __exit__ = close = lambda self, *_: None
os.listdir = lambda *path: sorted(listed(*path), reverse=True)
os.scandir = lambda *path: Scan(sorted(walked(*path), key=lambda entry: entry.name, reverse=True))
from fastpose.cli import main
sys.exit(main(sys.argv[1:]))
"""


def files_of(run: Path) -> dict[str, str]:
    """Return the hash of every file of a run folder but for those that hold times."""
    found = [path for path in run.rglob("*") if path.is_file() and path.name not in TIMED]
    return {str(path.relative_to(run)): _files.sha256(path.read_bytes()) for path in found}


@pytest.mark.slow
@runs.every_system
def test_promise_9_two_processes_leave_the_same_files(system: str, tmp_path: Path) -> None:
    """With other hashes of text, another working folder, and folders that are listed the other way round."""
    folders = []
    for number, (start, seed) in enumerate(((["-m", "fastpose"], "1"), (["-c", REVERSED], "2"))):
        out = tmp_path / f"place {number}" / "runs"
        out.mkdir(parents=True)
        words = [sys.executable, *start, *runs.command(system, Path("runs"), "run.epochs=2", "run.workers=1")[3:]]
        environment = runs.environment(PYTHONHASHSEED=seed)
        done = subprocess.run(words, cwd=out.parent, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr[-2000:]
        folders.append(out / system / "tiny" / "run")
    first, second = map(files_of, folders)
    assert runs.differing(first, second) == []
    assert {"report.html", "curves.png", "weights/best.safetensors", "metrics.csv", "environment.json"} <= set(first)


# ---- 12: something else --------------------------------------------------------------------------------------------

CHANGED: dict[str, tuple[str, str]] = {
    "sagan": ("loss.gamma=0.4", r"loss\.gamma was 0\.5 and is 0\.4"),
    "pona": ("loss.pool=4", r"loss\.pool was 3 and is 4"),
    "pose3d": ("loss.lambda_g=0.5", r"loss\.lambda_g was 0\.0001 and is 0\.5"),
    "multiscale": ("loss.gan=bce", r"loss\.gan was 'lsgan' and is 'bce'"),
    "caption": ("loss.beta=0.25", r"loss\.beta was 0\.5 and is 0\.25"),
}


@contextmanager
def described(**changes: Any) -> Iterator[None]:
    """Let this launch be described otherwise than it is."""
    original = resuming.describe
    with mock.patch.object(resuming, "describe", lambda *arguments: original(*arguments) | changes):
        yield


@contextmanager
def a_joint_moved(system: str) -> Iterator[None]:
    """Train on data of which the first person's joints are annotated a pixel further."""
    trainer = systems.get(system).trainer
    original = trainer.train_dataset

    def other(self: Any) -> Any:
        whole = original(self)
        part = next(iter(getattr(whole, "parts", [whole])))
        if system == "caption":
            part.source = replace(part.source, keypoints=part.source.keypoints + 1)
        else:
            part.source = copy.copy(part.source)
            first, *others = part.source.persons
            part.source.persons = [replace(first, keypoints=first.keypoints + 1), *others]
        return whole

    with mock.patch.object(trainer, "train_dataset", other):
        yield


@runs.every_system
def test_promise_12_what_does_not_fit_is_refused(system: str, tmp_path: Path) -> None:
    run = runs.train(system, tmp_path, "run.max_steps=2").folder
    before = files_of(run)
    change, sentence = CHANGED[system]
    with pytest.raises(ValueError, match=rf"cannot go on: {sentence}; undo the change, or allow it"):
        runs.train(system, tmp_path, change, "run.max_steps=3", resume=run)
    with pytest.raises(ValueError, match=rf"is of recipe {system}/tiny, cannot go on as reid/tiny"):
        training.train("reid/tiny", [], resume=run, progress=False)
    with described(world_size=2), pytest.raises(ValueError, match="number of processes was 1 and is 2"):
        runs.train(system, tmp_path, "run.max_steps=3", resume=run)
    other = pytest.raises(ValueError, match=r"data set\.train\.fingerprint was '\w+' and is '\w+'")
    with a_joint_moved(system), other:
        runs.train(system, tmp_path, "run.max_steps=3", resume=run)
    assert files_of(run) == before
    with a_joint_moved(system):
        assert runs.train(system, tmp_path, change, "run.max_steps=3", resume=run, allow_changes=True).step == 3


def test_promise_12_one_photograph_more_is_another_data_set(tmp_path: Path) -> None:
    words = ("data.name=lspet", f"data.root={photographs(tmp_path / 'a', 24)}", "data.holdout=4", "run.batch_size=4")
    run = runs.train("sagan", tmp_path, *words, "run.max_steps=1").folder
    moved = shutil.move(tmp_path / "a", tmp_path / "b")
    more = photographs(tmp_path / "c", 25)
    with pytest.raises(ValueError, match=r"data set\.train\.length was 20 and is 21"):
        runs.train("sagan", tmp_path, f"data.root={more}", "run.max_steps=2", resume=run)
    assert runs.train("sagan", tmp_path, f"data.root={moved}", "run.max_steps=2", resume=run).step == 2


def test_promise_12_a_run_that_took_no_fingerprint_goes_on(tmp_path: Path) -> None:
    """Resume points of earlier versions have none."""
    old = {"kind": "PairDataset", "source": "sample-pairs", "length": 6}
    with described(data={"train": old, "validation": None}):
        run = runs.train("multiscale", tmp_path, "run.max_steps=1").folder
    with described(data={"train": old | {"fingerprint": "ff"}, "validation": None}):
        assert runs.train("multiscale", tmp_path, "run.max_steps=2", resume=run).step == 2


def hold(folder: Path, ready: Any, leave: Any) -> None:
    """Train in a folder, as far as others can tell, until told to leave."""
    with run_lock.held(folder):
        ready.set()
        leave.wait(120)


def test_promise_12_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    run = runs.train("multiscale", tmp_path, "run.max_steps=1").folder
    before, context = files_of(run), multiprocessing.get_context("fork")
    ready, leave = context.Event(), context.Event()
    other = context.Process(target=hold, args=(run, ready, leave), daemon=True)
    other.start()
    assert ready.wait(120)
    with pytest.raises(ValueError, match="another process is training in this folder; wait until it has ended"):
        runs.train("multiscale", tmp_path, "run.max_steps=2", resume=run)
    assert files_of(run) == before
    other.kill()  # which lets go of the folder
    other.join()
    assert runs.train("multiscale", tmp_path, "run.max_steps=2", resume=run).step == 2


def test_promise_12_a_folder_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    run = runs.train("multiscale", tmp_path, "run.max_steps=1").folder
    before, refused = files_of(run), OSError(errno.EROFS, os.strerror(errno.EROFS))
    sentence = pytest.raises(
        OSError, match=r"cannot be written to \(Read-only file system\); make it writable, or copy"
    )
    with mock.patch.object(run_lock.os, "open", side_effect=refused), sentence:
        runs.train("multiscale", tmp_path, "run.max_steps=2", resume=run)
    assert files_of(run) == before
