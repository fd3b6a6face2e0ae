"""Processes under torchrun: two ranks equal one with the double batch, only the leader writes, a resume is exact."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import faulty_system
import pytest
import ranks
import runs
import torch
import toy_system
from torch import nn

from fastpose.training import checkpoint, distributed, resume_point
from fastpose.training.distributed import World

PLAIN = ("norm=no", "lr=0.002", "data.length=32")  # batch norm that is not synchronised sees half of the batch


@contextmanager
def launched(out: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Two processes of the toy system under torchrun; whatever is left of them is ended with the test."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [toy_system.__file__, str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    pipe = subprocess.PIPE
    with subprocess.Popen([*command, *arguments], env=environment, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()  # torchrun ends its processes on SIGTERM


def train(out: Path, *arguments: str) -> Path:
    """Train on two processes and return the only run's folder."""
    with launched(out, *arguments) as process:
        _, errors = process.communicate(timeout=180)
    assert process.returncode == 0, errors
    (run,) = out.glob("*/*/*/")
    return run


def weights(run: Path) -> torch.Tensor:
    state, _ = resume_point.load(run / "state")
    return torch.cat([value.flatten().double() for net in state["networks"].values() for value in net.values()])


def test_alone_nothing_is_reduced() -> None:
    place = World(0, 1, torch.device("cpu"))
    layer = nn.Linear(2, 1)
    layer(torch.ones(1, 2)).sum().backward()
    before = layer.weight.grad
    loss = torch.tensor(3.0)
    assert distributed.mean_gradients(list(layer.parameters()), loss, place) is loss
    assert layer.weight.grad is before
    assert distributed.share("x", place) == "x"
    assert distributed.gather(4, place) == [4]
    assert distributed.largest(2.0, place) == 2.0
    assert distributed.agreed(lambda: 5, place) == 5


def test_devices() -> None:
    assert distributed.choose_device("cpu").type == "cpu"
    for name in ("abacus", "xpu:9", "meta"):
        with pytest.raises(ValueError, match=r"run\.device: expected auto, cpu, cuda or cuda:<index>"):
            distributed.choose_device(name)
    with pytest.raises(ValueError, match=r"run\.device: cuda:99 asked for, \d+ CUDA device"):
        distributed.choose_device("cuda:99")


@pytest.mark.slow
def test_promise_10_two_ranks_equal_one_with_the_double_batch(tmp_path: Path) -> None:
    two = train(tmp_path / "two", *PLAIN, "run.batch_size=4")
    one = toy_system.train(tmp_path / "one", *PLAIN, "run.batch_size=8").folder
    assert float((weights(two) - weights(one)).abs().max()) < 1e-5
    logged = [(run / "metrics.jsonl").read_text().count("\n") for run in (two, one)]
    assert logged[0] == logged[1]
    assert sorted(p.name for p in two.iterdir()) == sorted(p.name for p in one.iterdir())
    assert list((tmp_path / "two" / "toy" / "points").iterdir()) == [two]  # one folder, made by the leader


@pytest.mark.slow
def test_promise_10_resume_on_two_ranks_is_bit_exact(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", "run.ema=0.9", "run.max_steps=7")
    paused = train(tmp_path / "paused", "run.ema=0.9", "run.max_steps=4")
    train(tmp_path / "paused", "--resume", str(paused), "run.ema=0.9", "run.max_steps=7")
    assert runs.state_hash(whole) == runs.state_hash(paused)
    assert (whole / "metrics.csv").read_text() == (paused / "metrics.csv").read_text()


@pytest.mark.slow
def test_promise_10_a_resume_on_fewer_ranks_is_refused(tmp_path: Path) -> None:
    whole = train(tmp_path, "run.ema=0.9")
    with pytest.raises(ValueError, match="number of processes was 2 and is 1"):
        toy_system.train(tmp_path, "run.ema=0.9", "run.epochs=9", resume=whole)


def resume_own(words: Sequence[str]) -> int:
    """Go on with the run that each process has for itself: OUT RUN-OF-0 RUN-OF-1 [key=value ...]."""
    out, *both = words[:3]
    return faulty_system.main([out, "--resume", both[int(os.environ["RANK"])], *words[3:]])


@pytest.mark.slow
def test_promise_10_only_the_leader_looks_whether_a_run_is_finished(tmp_path: Path) -> None:
    """The other has a copy of the run without its state, as on another machine."""
    ranks.finished(tmp_path, "faulty_system:main", [str(tmp_path / "runs"), "run.epochs=1"])
    (run,) = (tmp_path / "runs").glob("*/*/*/")
    shutil.copytree(run, tmp_path / "copy", ignore=shutil.ignore_patterns("state"))
    words = [str(tmp_path), str(run), str(tmp_path / "copy")]
    with ranks.job(tmp_path, "test_distributed:resume_own", [*words, "run.epochs=1"]) as pair:
        assert [rank.ended() for rank in pair] == [2, 2], [rank.said for rank in pair]
        assert sum("is finished (1 epochs)" in rank.said for rank in pair) == 1
    ranks.finished(tmp_path, "test_distributed:resume_own", [*words, "run.epochs=2"])


@pytest.mark.slow
def test_promise_10_sigterm_reaches_all_ranks(tmp_path: Path) -> None:
    with launched(tmp_path, "run.epochs=10000", "pause=0.01", "run.print_seconds=0.05") as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("step "):
                break
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=180)
    assert "SIGTERM: saved at step" in errors
    (run,) = (tmp_path / "toy" / "points").iterdir()
    state, manifest = resume_point.load(run / "state")
    assert state["position"]["step"] >= 1
    assert (manifest["world_size"], len(state["processes"])) == (2, 2)
    checkpoint.load_weights(run / "weights" / "last.safetensors")
