"""Promise 10 over machines: the commands of docs/processes.md, in two network namespaces that a cable joins."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import ranks
import runs

ADDRESSES = ("10.213.7.1", "10.213.7.2")
PORT = "29517"


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def hosts() -> Iterator[list[str]]:
    """The names of two machines, each with a network of its own."""
    names = [f"fastpose{os.getpid()}{side}" for side in "ab"]
    cable = [f"fp{os.getpid() % 100000}{side}" for side in "ab"]
    try:
        _lay_cable(names, cable)
        yield names
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"network namespaces are not allowed here: {error}")
    finally:
        for name in names:
            with suppress(OSError, subprocess.SubprocessError):
                ip("netns", "del", name)


def _lay_cable(names: list[str], cable: list[str]) -> None:
    for name in names:
        ip("netns", "add", name)
    ip("link", "add", cable[0], "type", "veth", "peer", "name", cable[1])
    for name, end, address in zip(names, cable, ADDRESSES, strict=True):
        ip("link", "set", end, "netns", name)
        ip("-n", name, "link", "set", end, "name", "eth0")
        ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")
        ip("-n", name, "link", "set", "lo", "up")


@pytest.fixture(params=[("127.0.1.1", ADDRESSES[0]), (ADDRESSES[0], ADDRESSES[0])], ids=["loopback", "address"])
def named(request: pytest.FixtureRequest, hosts: list[str]) -> Iterator[str]:
    """A name of the first machine, and what each holds it for: to itself it is the loopback under Debian."""
    name = "leader.fastpose.test"
    folders = [Path("/etc/netns") / host for host in hosts]
    try:
        for folder, address in zip(folders, request.param, strict=True):
            folder.mkdir(parents=True)
            (folder / "hosts").write_text(f"127.0.0.1 localhost\n{address} {name}\n")
        yield name
    finally:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def on(hosts: list[str], commands: list[list[str]], folder: Path, **more: str) -> Iterator[list[ranks.Rank]]:
    """Run a command on each machine."""
    started = []
    for number, (host, command) in enumerate(zip(hosts, commands, strict=True)):
        log = folder / f"host-{number}.log"
        environment = runs.environment(**more) | ({"RANK": str(number)} if "WORLD_SIZE" in more else {})
        with open(log, "w") as stream:
            words = ["ip", "netns", "exec", host, *command]
            process = subprocess.Popen(
                words, stdout=stream, stderr=stream, env=environment, start_new_session=True, cwd=folder
            )
        started.append((process, log))
    try:
        yield [ranks.Rank(process, log) for process, log in started]
    finally:
        for process, _ in started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def words_of(folder: Path, host: int, *more: str) -> list[str]:
    """The recipe's words on a machine, which has a disk of its own."""
    return ["fastpose", *runs.command("multiscale", folder / f"disk-{host}", *more)[3:]]


@pytest.mark.slow
def test_promise_10_torchrun_on_two_hosts(hosts: list[str], tmp_path: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
    launcher += [f"--master-addr={ADDRESSES[0]}", f"--master-port={PORT}"]
    commands = [
        [*launcher, f"--node-rank={host}", "-m", *words_of(tmp_path, host, "run.max_steps=2")] for host in (0, 1)
    ]
    with on(hosts, commands, tmp_path) as pair:
        codes = [rank.process.wait(timeout=ranks.PATIENCE) for rank in pair]
        assert codes == [0, 0], [rank.said for rank in pair]
    assert list((tmp_path / "disk-0").glob("*/*/*/report.html"))
    assert not (tmp_path / "disk-1").exists()


@pytest.mark.slow
def test_promise_10_hosts_meet_by_a_name_that_is_the_loopback_to_the_leader(
    hosts: list[str], named: str, tmp_path: Path
) -> None:
    commands = [[sys.executable, "-m", *words_of(tmp_path, host, "run.max_steps=2")] for host in (0, 1)]
    with on(hosts, commands, tmp_path, WORLD_SIZE="2", MASTER_ADDR=named, MASTER_PORT=PORT) as pair:
        codes = [rank.process.wait(timeout=ranks.PATIENCE) for rank in pair]
        assert codes == [0, 0], [rank.said for rank in pair]


@pytest.mark.slow
def test_promise_10_a_cut_cable_ends_both_hosts_within_a_minute(hosts: list[str], tmp_path: Path) -> None:
    commands = [
        [sys.executable, "-m", *words_of(tmp_path, host, "run.epochs=10000", "run.checkpoint_every=10000")]
        for host in (0, 1)
    ]
    where = {"WORLD_SIZE": "2", "MASTER_ADDR": ADDRESSES[0], "MASTER_PORT": PORT}
    with on(hosts, commands, tmp_path, **where) as pair:

        def stepped() -> bool:
            assert [rank.process.poll() for rank in pair] == [None, None], [rank.said for rank in pair]
            return any(log.read_text().count("\n") > 2 for log in (tmp_path / "disk-0").glob("*/*/*/metrics.jsonl"))

        ranks.wait_for(stepped, "the first steps")
        ip("-n", hosts[1], "link", "set", "eth0", "down")
        began = time.monotonic()
        codes = [rank.process.wait(timeout=ranks.PATIENCE) for rank in pair]
        assert time.monotonic() - began < 60
        ip("-n", hosts[1], "link", "set", "eth0", "up")
        assert codes == [2, 2]
        for rank, other in zip(pair, (1, 0), strict=True):
            (said,) = [line for line in rank.said.splitlines() if line.startswith("fastpose: ")]
            assert f"process {other} of 2" in said
            assert "has not answered for 40 s" in said
