"""Runs of the five systems in their smallest form, for what each of them promises, and the hash of a run's state.

``every_system`` runs a test once for each system. A run here is a run as users have it, through the engine, with the
system's own data, losses and order of updates; three steps are an epoch.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from fastpose import training
from fastpose.training import checkpoint, engine, loop, outcome, resume_point, state_tree

SYSTEMS: dict[str, tuple[str, ...]] = {
    "sagan": ("run.batch_size=16", "data.image_size=32", "schedule.name=cosine"),
    "pona": ("data.samples_per_epoch=6", "schedule.name=linear"),
    "pose3d": ("data.epoch_batches=3", "run.batch_size=4", "schedule.name=cosine"),
    "multiscale": ("data.samples_per_epoch=6", "schedule.name=linear"),
    "caption": ("data.minimum_joints=17", "run.batch_size=13", "test.r_precision=0"),  # 39 poses to train on
}
"""System -> what differs from its recipe ``<system>/tiny``."""

every_system = pytest.mark.parametrize("system", SYSTEMS)


def overrides(system: str, *more: str) -> list[str]:
    """Return the overrides of a short run of ``<system>/tiny`` without evaluations; ``more`` comes last and wins."""
    return [*SYSTEMS[system], "run.device=cpu", "run.epochs=4", "run.max_steps=0", "run.evaluate_every=0", *more]


def train(system: str, out: Path, *more: str, resume: Path | None = None, **options: Any) -> engine.FitResult:
    """Train a system's smallest form, or go on with a run, without evaluations, pictures and report."""
    words = list(more) if resume is not None else overrides(system, *more)
    with without_pictures():
        return training.train(f"{system}/tiny", words, out=out, resume=resume, progress=False, **options)


@contextmanager
def without_pictures() -> Iterator[None]:
    """Leave out the pictures and the report, which take longer than all else of a small run."""
    with mock.patch.object(outcome, "write_pictures", return_value=[]), mock.patch.object(outcome, "write_report"):
        yield


def _widened(network: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value.double() if torch.is_tensor(value) else value for value in inputs)


@contextmanager
def plain_descent(rate: float = 0.01) -> Iterator[None]:
    """Let networks compute in float64 and every optimizer take plain steps.

    Rounding grows from step to step, in float32 beyond any bound, and Adam makes a long step of it at once.
    """
    prepare = loop.Job.__init__

    def prepared(job: Any, trainer: Any, *others: Any) -> None:
        for network in trainer.networks.values():
            for module in network.double().modules():
                module.register_forward_pre_hook(_widened)
        for name, optimizer in trainer.optimizers.items():
            trainer.optimizers[name] = torch.optim.SGD(optimizer.param_groups[0]["params"], rate)
        prepare(job, trainer, *others)

    with mock.patch.object(loop.Job, "__init__", prepared):
        yield


AGREEING = ("run.sync_batch_norm=yes", "run.log_every=1")
"""What makes several processes one, beside their batch."""


def main_agreeing(words: Sequence[str]) -> int:
    """Be a process of a job: SYSTEM, OUT, STEPS, BEFORE, AFTER, key=value ...; return its exit code.

    It trains with plain descent to STEPS in OUT/plain; to AFTER in OUT/whole; to BEFORE, and on to AFTER, in OUT/part.
    """
    system, out, steps, before, after, *more = words
    with plain_descent():
        train(system, Path(out) / "plain", *more, *AGREEING, f"run.max_steps={steps}")
    train(system, Path(out) / "whole", *more, f"run.max_steps={after}")
    paused = train(system, Path(out) / "part", *more, f"run.max_steps={before}")
    train(system, Path(out) / "part", f"run.max_steps={after}", resume=paused.folder)
    return 0


def command(system: str, out: Path, *more: str) -> list[str]:
    """Return the words of a process that trains the same run with the command line, pictures and report included."""
    return [sys.executable, "-m", "fastpose", "train", f"{system}/tiny", "--out", str(out), *overrides(system, *more)]


def environment(**more: str) -> dict[str, str]:
    """Return the environment of such a process: one thread, and the package that this process imports."""
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)} | more


def state_of(run: Path) -> dict[str, Any]:
    """Return the whole state of a run's newest resume point."""
    return resume_point.load(run / "state")[0]


def state_hash(run: Path) -> str:
    """Return the sha256 over all state of a run's newest resume point."""
    tensors: dict[str, Tensor] = {}
    tree = state_tree.encode(state_of(run), tensors)
    return hashlib.sha256((repr(tree) + checkpoint.hash_tensors(tensors)).encode()).hexdigest()


def differing(first: Any, second: Any, path: str = "") -> list[str]:
    """Return where two trees of state differ, for the message of a test whose hashes do."""
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        first, second = dict(enumerate(first)), dict(enumerate(second))
    if isinstance(first, dict) and isinstance(second, dict):
        keys = dict.fromkeys([*first, *second])
        return [name for key in keys for name in differing(first.get(key), second.get(key), f"{path}.{key}")]
    same = first.equal(second) if isinstance(first, Tensor) and isinstance(second, Tensor) else first == second
    return [] if same else [path]
