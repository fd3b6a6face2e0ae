"""Promise 10 where something goes wrong: processes that die, hang, fail, never come, or differ."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faulty_system
import pytest
import ranks

from fastpose.training import link, resume_point

TOY = "faulty_system:main"
SOON = "run.timeout_minutes=0.25"  # for the others to come, which they do
NEVER = "run.timeout_minutes=0.05"  # for others that do not


def of_the_job(printed: str) -> list[str]:
    """The sentences of ours among all that a process printed."""
    return [line for line in printed.splitlines() if line.startswith("fastpose: ")]


def only_run(out: Path) -> Path:
    (run,) = (out / "toy" / "points").iterdir()
    return run


def run_faulty(
    folder: Path, fault: str, *words: str, each: Sequence[dict[str, str]] = ({}, {}), resume: Path | None = None
) -> Any:
    """Two processes of the toy system, of which one has a fault; ``each`` adds to the environment of one."""
    port = ranks.free_port()
    common = {"FAULT": fault, "MARK": str(folder), "SILENCE": "6"}
    environments = [ranks.address(rank, 2, port) | common | own for rank, own in enumerate(each)]
    again = ["--resume", str(resume)] if resume else []
    return ranks.job(folder, TOY, [str(folder), *again, *words], environments=environments)


# ---- a process that is lost ------------------------------------------------------------------------------------

WITHOUT_A_WORD = "has ended without a word (killed, or out of memory)"
LOST = {
    "step:1:kill": WITHOUT_A_WORD,
    "step:0:kill": WITHOUT_A_WORD,
    "wait:1:kill": WITHOUT_A_WORD,  # while the leader evaluates
    "evaluate:0:kill": WITHOUT_A_WORD,
    "data:1:kill": WITHOUT_A_WORD,
    "save:0:kill": WITHOUT_A_WORD,
    "start:1:kill": WITHOUT_A_WORD,
    "step:1:stop": "has not answered for 6 s",
    "step:0:stop": "has not answered for 6 s",
}
STEADY = ("run.epochs=3", "run.log_every=1", "run.checkpoint_steps=1")


def test_promise_10_silence_is_noticed_within_a_minute() -> None:
    assert link.SILENCE + 2 * link.BEAT + link.GRACE < 60


@pytest.mark.slow
@pytest.mark.parametrize("fault", LOST)
def test_promise_10_a_lost_process_ends_the_job_with_one_sentence(tmp_path: Path, fault: str) -> None:
    moment, fallen, how = fault.split(":")
    workers = int(fault in ("step:0:kill", "wait:1:kill"))
    with run_faulty(tmp_path, fault, *STEADY, f"run.workers={workers}") as pair:
        dead, other = pair[int(fallen)], pair[1 - int(fallen)]
        if how == "kill":
            assert dead.ended() == -signal.SIGKILL
        began = time.monotonic()
        assert other.ended() == 2, other.said
        assert time.monotonic() - began < 60
        (said,) = of_the_job(other.said)
        assert re.match(rf"fastpose: process {fallen} of 2 \(on .+\) {re.escape(LOST[fault])}", said)
        assert "Traceback" not in other.said
        for rank in pair:  # and nothing of them is left, workers included
            if how == "kill":
                ranks.wait_for(lambda rank=rank: not ranks.alive(rank.process.pid), "the workers to end")
    if moment != "start":
        state, _ = resume_point.load(only_run(tmp_path) / "state")
        assert state["position"]["step"] >= 3


@pytest.mark.slow
@pytest.mark.parametrize("fallen", [0, 1])
def test_promise_10_the_error_of_one_process_is_said_once(tmp_path: Path, fallen: int) -> None:
    with run_faulty(tmp_path, f"step:{fallen}:raise", *STEADY) as pair:
        assert [rank.ended() for rank in pair] == [2, 2]
        assert of_the_job(pair[fallen].said) == [f"fastpose: {faulty_system.FAILURE}"]
        assert of_the_job(pair[1 - fallen].said) == []


@pytest.mark.slow
def test_promise_10_the_error_of_all_processes_is_said_once(tmp_path: Path) -> None:
    with run_faulty(tmp_path, "::", "run.batch_size=1000") as pair:
        assert [rank.ended() for rank in pair] == [2, 2]
        (said,) = [line for rank in pair for line in of_the_job(rank.said)]
        assert "lower batch_size" in said
    assert not (tmp_path / "toy").exists()


@pytest.mark.slow
def test_promise_10_a_process_that_hangs_ends_the_job_after_the_timeout(tmp_path: Path) -> None:
    with run_faulty(tmp_path, "step:1:hang", *STEADY, SOON) as pair:
        assert [rank.ended() for rank in pair] == [2, 2]
        (said,) = [line for rank in pair for line in of_the_job(rank.said)]
        assert "one has not answered in a collective" in said


@pytest.mark.slow
def test_promise_10_an_evaluation_may_take_longer_than_a_collective_waits(tmp_path: Path) -> None:
    with run_faulty(tmp_path, "evaluate:0:rest", *STEADY, "run.epochs=1", SOON) as pair:
        assert [rank.ended() for rank in pair] == [0, 0], pair[0].said


@pytest.mark.slow
@pytest.mark.parametrize("told", [0, 1])
def test_promise_10_a_signal_to_one_process_saves_and_ends_all(tmp_path: Path, told: int) -> None:
    with run_faulty(tmp_path, f"step:{told}:term", *STEADY) as pair:
        assert [rank.ended() for rank in pair] == [143, 143], [rank.said for rank in pair]
    state, _ = resume_point.load(only_run(tmp_path) / "state")
    assert state["position"]["step"] == 6
    with run_faulty(tmp_path, "::", *STEADY, resume=only_run(tmp_path)) as pair:
        assert [rank.ended() for rank in pair] == [0, 0], [rank.said for rank in pair]


@pytest.mark.slow
def test_promise_10_a_save_comes_to_its_end_though_another_process_dies(tmp_path: Path) -> None:
    with run_faulty(tmp_path, "write:0:term", *STEADY, "run.checkpoint_steps=0") as pair:
        ranks.wait_for((tmp_path / "writes").exists, "the save")
        pair[1].send(signal.SIGKILL)
        assert [rank.ended() for rank in pair] == [2, -signal.SIGKILL]
        assert WITHOUT_A_WORD in pair[0].said
    state, _ = resume_point.load(only_run(tmp_path) / "state")
    assert state["position"]["step"] == 6
    assert (only_run(tmp_path) / "weights" / "last.safetensors").is_file()


@pytest.mark.slow
def test_promise_10_a_signal_before_the_first_step_ends_all_and_is_named(tmp_path: Path) -> None:
    with run_faulty(tmp_path, "start:1:term", *STEADY, each=[{}, {"HOST": "b"}]) as pair:
        assert [rank.ended() for rank in pair] == [2, 143], [rank.said for rank in pair]
        assert of_the_job(pair[0].said) == ["fastpose: process 1 of 2 (on b) has ended: SIGTERM"]
        assert "SIGTERM: before the first step" in pair[1].said


# ---- a process that never comes, or is another -----------------------------------------------------------------

WRONG = {
    "out of range": ([{"RANK": "2"}], r"RANK: expected a number from 0 to 1, got '2'"),
    "no number": ([{"RANK": "first"}], r"RANK: expected a number from 0 to 1, got 'first'"),
    "no address": ([{"MASTER_ADDR": ""}], r"MASTER_ADDR: not set beside WORLD_SIZE"),
    "no port": ([{"MASTER_PORT": "90000"}], r"MASTER_PORT: expected a number from 1 to 65535, got '90000'"),
    "only the leader": ([{}], r"process 1 of 2 not there within 3 s"),
    "no leader": (
        [{"RANK": "1"}],
        r"MASTER_ADDR=127.0.0.1, MASTER_PORT=\d+: no answer within \d s \(Connection refused\)",
    ),
    "no such host": (
        [{"RANK": "1", "MASTER_ADDR": "leader.invalid"}],
        r"MASTER_ADDR=leader.invalid, MASTER_PORT=\d+: no answer within",
    ),
    "another number of processes": ([{}, {"WORLD_SIZE": "3"}], r"WORLD_SIZE: 3 here \(RANK=1\) and 2 of RANK=0"),
    "one rank twice": ([{}, {"RANK": "0"}], r"MASTER_PORT: \d+ is in use on this machine"),
    "another configuration": ([{}, {"MORE": "lr=0.5"}], r"processes 0 and 1 differ: config.lr is 0.01 and 0.5; start"),
    "another end": ([{}, {"MORE": "run.epochs=9"}], r"processes 0 and 1 differ: config.run.epochs is 2 and 9; start"),
    "other data": ([{}, {"DATA": "40"}], r"processes 0 and 1 differ: data.train.length is 48 and 40; start"),
    "other code": ([{"CODE": "1"}, {"CODE": "2"}], r"processes 0 and 1 differ: code is '1' and '2'; start"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", WRONG)
def test_promise_10_processes_that_do_not_fit_are_refused_in_one_sentence(tmp_path: Path, case: str) -> None:
    each, sentence = WRONG[case]
    with run_faulty(tmp_path, "::", SOON if len(each) > 1 else NEVER, each=each) as started:
        codes = [rank.ended() for rank in started]
        said = [line for rank in started for line in of_the_job(rank.said)]
    assert set(codes) == {2}
    assert any(re.match(f"fastpose: {sentence}", line) for line in said), said
    assert len(said) <= len(started)
    assert not (tmp_path / "toy").exists()
