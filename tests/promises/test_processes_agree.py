"""Promise 10 for every system: two processes train as one, resume exactly, score alike, and one of them writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import ranks
import runs
import torch

from fastpose import training

STEPS = 4
RESUMED = (3, 5)  # steps before and after
TOLERANCE = 1e-5
# The batch of each process, and what brings in every loss, turn, penalty and draw of a system.
VARIANTS: dict[str, tuple[int, tuple[str, ...]]] = {
    "sagan": (8, ()),
    "pona": (2, ("data.samples_per_epoch=12", "model.dropout=0.3")),
    "pose3d": (4, ("loss.gan=wgan-gp", "discriminator.norm=none", "loss.critic_steps=2")),
    "multiscale": (2, ("data.samples_per_epoch=12",)),
    "caption": (6, ("loss.algorithm=wgan-gp", "loss.penalty=1")),
}


@pytest.fixture(scope="module", params=runs.SYSTEMS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A system and the folder of all runs of its two processes, which are done one after the other."""
    system, out = request.param, tmp_path_factory.mktemp(request.param)
    batch, more = VARIANTS[system]
    steps = [str(STEPS), *map(str, RESUMED)]
    words = [system, str(out), *steps, *runs.overrides(system, *more, f"run.batch_size={batch}")]
    both = ranks.finished(out / "logs", "runs:main_agreeing", words, reported=out)
    (out / "logs" / "written.json").write_text(json.dumps([rank.written for rank in both]))
    return system, out


def run_of(folder: Path) -> Path:
    (run,) = folder.glob("*/*/*/")
    return run


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def numbers(run: Path) -> list[dict[str, float]]:
    """What was logged of the losses."""
    return [{key: row[key] for key in row if key != "kind"} for row in rows(run) if row["kind"] == "train"]


@pytest.mark.slow
def test_promise_10_two_processes_are_one_with_the_double_batch(pair: tuple[str, Path], tmp_path: Path) -> None:
    system, out = pair
    batch, more = VARIANTS[system]
    with runs.plain_descent():
        runs.train(system, tmp_path, *more, *runs.AGREEING, f"run.batch_size={2 * batch}", f"run.max_steps={STEPS}")
    one, two = run_of(tmp_path), run_of(out / "plain")
    first, second = (runs.state_of(run)["networks"] for run in (one, two))
    for name, network in first.items():
        for key, value in network.items():
            torch.testing.assert_close(
                second[name][key], value, rtol=0, atol=TOLERANCE, msg=lambda text, key=key: f"{system} {key}: {text}"
            )
    assert len(numbers(one)) == STEPS
    for mine, theirs in zip(numbers(one), numbers(two), strict=True):
        assert theirs == pytest.approx(mine, rel=0, abs=TOLERANCE), system


@pytest.mark.slow
def test_promise_10_two_processes_resume_bit_for_bit(pair: tuple[str, Path]) -> None:
    _, out = pair
    whole, part = run_of(out / "whole"), run_of(out / "part")
    assert runs.state_of(whole)["position"]["step"] == RESUMED[1]
    assert runs.state_hash(part) == runs.state_hash(whole), runs.differing(runs.state_of(part), runs.state_of(whole))
    assert (part / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()


@pytest.mark.slow
def test_promise_10_their_scores_are_those_of_one_process(pair: tuple[str, Path]) -> None:
    system, out = pair
    run = run_of(out / "whole")
    logged = {row["name"]: row["value"] for row in rows(run) if row["kind"] == "evaluation"}
    alone = training.evaluate(f"{system}/tiny", run / "weights" / "last.safetensors", ["run.device=cpu"])
    assert alone
    assert {result.name: result.value for result in alone}.items() <= logged.items()


@pytest.mark.slow
def test_promise_10_the_leader_alone_writes(pair: tuple[str, Path]) -> None:
    _, out = pair
    leader, other = json.loads((out / "logs" / "written.json").read_text())
    assert len(leader) > 20
    assert other == []


@pytest.mark.slow
def test_promise_10_a_resume_point_holds_the_state_of_all_once(pair: tuple[str, Path]) -> None:
    _, out = pair
    for own in runs.state_of(run_of(out / "whole"))["processes"]:
        assert "trainer" not in own
