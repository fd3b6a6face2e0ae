"""The toy system with a process that is killed, stopped, fails or hangs at a moment of its run.

``FAULT`` in the environment says which: ``moment:rank:how``, such as ``step:1:kill``.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).parent / "training"))
import toy_system

from fastpose.cli import _errors
from fastpose.training import link, loop, meeting, resume_point, resuming

FAILURE = "photograph 7: cannot be read"


def fall(moment: str) -> None:
    """Do what ``FAULT`` says of this moment, if it is this process's turn."""
    when, rank, how = os.environ.get("FAULT", "::").split(":")
    if moment != when or rank != os.environ["RANK"]:
        return
    if how == "raise":
        raise ValueError(FAILURE)
    if how == "rest":
        time.sleep(20)  # longer than the collectives' timeout of the test
        return
    if how == "hang":
        threading.Event().wait()
    os.kill(os.getpid(), {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "term": signal.SIGTERM}[how])


class FaultyTrainer(toy_system.ToyTrainer):
    def step(self, batch: dict[str, Any], update: Any) -> dict[str, Any]:
        if self.count == 5:
            fall("step")
            fall("write")
        return super().step(batch, update)

    def train_dataset(self) -> Any:
        fall("start")
        data: Any = super().train_dataset()
        item = type(data).__getitem__

        class Faulty(type(data)):  # type: ignore[misc]
            def __getitem__(self, key: Any) -> Any:
                if key == (1, 3):
                    fall("data")
                return item(self, key)

        return Faulty(int(os.environ.get("DATA", data.length)))

    def evaluate(self, network: Any, loader: Any) -> list[Any]:
        fall("evaluate")
        if os.environ.get("FAULT", "").startswith("wait"):
            (Path(os.environ["MARK"]) / "evaluates").touch()
            threading.Event().wait(120)
        return super().evaluate(network, loader)


def _save(job: Any) -> None:
    if job.position.step > 3:
        fall("save")
    _plain_save(job)


def _write(*given: Any) -> Path:
    """Write a resume point as slowly as a big one, until the other process has been dead for long enough."""
    if os.environ.get("FAULT", "").startswith("write"):
        (Path(os.environ["MARK"]) / "writes").touch()
        time.sleep(2 * link.GRACE)
    return _plain_write(*given)


_plain_save, _plain_write = loop.Job.save, resume_point.save


def main(words: Sequence[str]) -> int:
    """Train as the toy's words say: OUT [--resume RUN] [key=value ...]; print and return as the command line does."""
    out, rest = words[0], [*words[1:], *os.environ.get("MORE", "").split()]
    resume = Path(rest[1]) if rest[:1] == ["--resume"] else None
    if os.environ.get("FAULT", "").startswith("wait"):
        _fall_when_others_evaluate()
    silence = float(os.environ.get("SILENCE", link.SILENCE))
    with (
        mock.patch.object(toy_system, "ToyTrainer", FaultyTrainer),
        mock.patch.object(loop.Job, "save", _save),
        mock.patch.object(resume_point, "save", _write),
        mock.patch.object(meeting, "_machine", return_value=os.environ.get("HOST", "a")),
        mock.patch.object(link, "SILENCE", silence),
        mock.patch.object(resuming, "code", return_value=os.environ.get("CODE", "")),
    ):
        try:
            toy_system.train(Path(out), *(rest[2:] if resume else rest), resume=resume, progress=True)
        except Exception as error:
            return _errors.report(error)
    return 0


def _fall_when_others_evaluate() -> None:
    def watch() -> None:
        while not (Path(os.environ["MARK"]) / "evaluates").exists():
            time.sleep(0.02)
        fall("wait")

    threading.Thread(target=watch, daemon=True).start()
