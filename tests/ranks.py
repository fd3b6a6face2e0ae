"""Processes of one job, started as a scheduler starts them: each with its RANK, and the others' address.

They are forked from a server that has imported everything once, so that a test pays for no import of torch. What is
under test is the same: processes of their own, that meet over sockets and are killed one by one.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

_SERVER = multiprocessing.get_context("forkserver")
PATIENCE = 200.0  # seconds for what takes ten on an idle machine


@dataclass
class Rank:
    """A process of a job and the file with all it printed."""

    process: Any
    log: Path

    def ended(self, seconds: float = PATIENCE) -> int:
        """Wait for its end; return its exit code, negative for a signal."""
        self.process.join(seconds)
        assert self.process.exitcode is not None, f"rank still runs after {seconds:g} s:\n{self.said}"
        return int(self.process.exitcode)

    def send(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.process.pid, number)

    @property
    def written(self) -> list[str]:
        """What it changed in the folder that ``job`` was told of."""
        return [line.removeprefix(_REPORT) for line in self.said.splitlines() if line.startswith(_REPORT)]

    @property
    def said(self) -> str:
        """All that it printed."""
        return self.log.read_text(errors="replace") if self.log.is_file() else ""


_CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod")
_REPORT = "changed "


def _report(event: str, given: tuple[Any, ...], folder: str) -> None:
    """Print what changes a file or folder below ``folder``; an audit hook."""
    opened = event == "open" and isinstance(given[2], int) and given[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if (opened or event in _CHANGES) and folder in str(given[0]):
        os.write(1, f"{_REPORT}{given[0]}\n".encode())


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def address(rank: int, size: int = 2, port: int = 0) -> dict[str, str]:
    """Return the environment of a process of a job on this machine."""
    return {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


@contextmanager
def job(
    logs: Path,
    program: str,
    words: Sequence[str],
    size: int = 2,
    environments: Sequence[dict[str, str]] | None = None,
    reported: Path | None = None,
) -> Iterator[list[Rank]]:
    """Start the processes of a job; whatever is left of them goes with the test.

    Args:
        logs: folder for what they print.
        program: "module:function", which is given the words and returns an exit code.
        words: the same for all.
        environments: of each; as ``address`` where not given.
        reported: folder of which they report what they change in it, see ``Rank.written``.
    """
    logs.mkdir(parents=True, exist_ok=True)
    port = free_port()
    environments = environments or [address(rank, size, port) for rank in range(size)]
    ranks = [Rank(None, logs / f"rank-{number}.log") for number in range(len(environments))]
    _SERVER.set_forkserver_preload(["ranks", "faulty_system", "fastpose.cli.train", "fastpose.training.systems"])
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):  # the server imports from there
        for rank, environment in zip(ranks, environments, strict=True):
            words_and_more = (program, list(words), environment, str(rank.log), reported and str(reported))
            rank.process = _SERVER.Process(target=_run, args=words_and_more)
            rank.process.start()
    try:
        yield ranks
    finally:
        for rank in ranks:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(rank.process.pid, signal.SIGKILL)
            rank.process.kill()
            rank.process.join()


def finished(logs: Path, program: str, words: Sequence[str], **options: Any) -> list[Rank]:
    """Run a job to its end, which is to be a good one."""
    with job(logs, program, words, **options) as ranks:
        codes = [rank.ended() for rank in ranks]
        assert codes == [0] * len(codes), [rank.said for rank in ranks]
    return ranks


def wait_for(happened: Callable[[], Any], what: str) -> None:
    """Wait until something has happened."""
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline, f"waited {PATIENCE:g} s for {what}"
        time.sleep(0.02)


def alive(group: int) -> bool:
    """Whether a process of the group is left."""
    with suppress(ProcessLookupError):
        os.killpg(group, 0)
        return True
    return False


def _run(program: str, words: list[str], environment: dict[str, str], log: str, reported: str | None) -> None:
    os.setpgid(0, 0)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    multiprocessing.set_start_method("fork", force=True)
    os.environ.update(environment)
    if reported is not None:
        sys.addaudithook(lambda event, given: _report(event, given, reported))
    module, _, function = program.partition(":")
    import torch

    torch.set_num_threads(1)
    code = getattr(importlib.import_module(module), function)(words)
    sys.stdout.flush()
    sys.exit(code)
