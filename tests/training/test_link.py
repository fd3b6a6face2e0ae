"""The line between processes, both ends in one: strangers at its door, a watcher that fails, who says what."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch

from fastpose.training import distributed, link, meeting, signals
from fastpose.training.link import Link, LostProcess

PATIENCE = 60.0  # seconds for what takes a moment
STRANGERS = {
    "deep": b"[" * 200_000 + b"\n",
    "http": b"GET / HTTP/1.1\r\n\r\n",
    "number": b"5\n",
    "list": b'[["a", 1]]\n',
    "no token": b'{"token": null, "hello": []}\n',
    "another token": b'sesame\n{"hello": 1, "host": "b"}\n',
    "no text": bytes(range(128, 256)) + b"\n",
    "a line without an end": b"x" * 2000,
}


@pytest.fixture(autouse=True)
def nobody_dies(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rank of one that would end by force is noted instead: its process is that of all tests."""
    forced: list[int] = []
    monkeypatch.setattr(Link, "_die", lambda self: (forced.append(self.rank), self.finished.set()))
    return forced


def wait_for(happened: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline, f"waited {PATIENCE:g} s for {what}"
        time.sleep(0.01)


@contextmanager
def joined(leader: Link, other: Link, port: int) -> Iterator[Callable[[str], list[list[str]]]]:
    """Let the second process come; yields how both say a word."""
    with ThreadPoolExecutor(2) as pool:

        def say(word: str) -> list[list[str]]:
            return [said.result(PATIENCE) for said in [pool.submit(one.gather, word) for one in (leader, other)]]

        other.connect(("127.0.0.1", port), PATIENCE)
        yield say
        list(pool.map(lambda one: one.leave(), (other, leader)))


def pair(hosts: tuple[str, str] = ("a 1", "b 2")) -> tuple[Link, Link]:
    return Link(0, 2, hosts[0], "token"), Link(1, 2, hosts[1], "token")


@pytest.mark.parametrize("case", STRANGERS)
def test_promise_10_a_stranger_is_let_go_and_disturbs_nobody(case: str) -> None:
    leader, other = pair()
    port = leader.listen("127.0.0.1")
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as stranger:
        try:
            stranger.sendall(STRANGERS[case])
            assert stranger.recv(1) == b""
        except ConnectionError:  # closed with some of it unread
            pass
        with joined(leader, other, port) as say:
            assert say("here") == [["here"] * 2] * 2
    assert not leader.verdict
    assert leader.hosts == {0: "a 1", 1: "b 2"}


def test_promise_10_silent_strangers_take_no_place() -> None:
    leader, other = pair()
    port = leader.listen("127.0.0.1")
    crowd = [socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) for _ in range(2 * link._STRANGERS)]
    with joined(leader, other, port) as say:
        assert say("here") == [["here"] * 2] * 2
        assert len(leader._strangers) <= link._STRANGERS + leader.size
        for stranger in leader._strangers:
            stranger.heard -= 2 * link.SILENCE
        wait_for(lambda: not leader._strangers, "the strangers to go")
    for caller in crowd:
        caller.close()


def test_promise_10_the_door_is_closed_when_all_have_come() -> None:
    leader, other = pair()
    port = leader.listen("127.0.0.1")
    with joined(leader, other, port) as say:
        say("here")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        say("and still")


def test_promise_10_one_machine_listens_to_itself_alone() -> None:
    alone = Link(0, 2, "a", "token")
    port = alone.listen("127.0.0.1")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port), timeout=PATIENCE)
    alone._part(0.0)


def test_promise_10_a_caller_that_is_gone_again_is_no_end() -> None:
    leader, other = pair()
    port = leader.listen("127.0.0.1")

    def refuse() -> None:
        raise OSError(24, "Too many open files")

    leader._accept(SimpleNamespace(accept=refuse))  # type: ignore[arg-type]
    with joined(leader, other, port) as say:
        assert say("here") == [["here"] * 2] * 2


def test_promise_10_a_watcher_that_fails_ends_the_job(nobody_dies: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "GRACE", 0.1)
    leader, other = pair()
    with joined(leader, other, leader.listen("127.0.0.1")) as say:
        say("here")
        leader._judge = lambda now: [][1]  # type: ignore[method-assign]
        with pytest.raises(LostProcess, match=r"process 0 of 2 \(on a\) has lost its line to the others \(IndexError"):
            leader.gather("more")
        wait_for(lambda: 0 in nobody_dies, "the end by force")


def test_promise_10_what_needs_nobody_else_comes_to_its_end(
    nobody_dies: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "GRACE", 0.05)
    leader, other = pair()
    with joined(leader, other, leader.listen("127.0.0.1")) as say:
        say("here")
        with leader.undisturbed():
            leader._end("the other one has ended")
            began = time.monotonic()
            wait_for(lambda: time.monotonic() - began > 20 * link.GRACE, "the time of grace")
            assert 0 not in nobody_dies
        wait_for(lambda: 0 in nobody_dies, "the end by force")
        with pytest.raises(LostProcess, match="the other one has ended"):
            leader.gather("more")


@pytest.mark.parametrize(("hosts", "both"), [(("node 1", "node 2"), True), (("node 1", "node 1"), False)])
def test_promise_10_machines_of_one_name_speak_each_for_itself(hosts: tuple[str, str], both: bool) -> None:
    leader, other = pair(hosts)
    with joined(leader, other, leader.listen("127.0.0.1")) as say:
        say("here")
        leader._end("it ends")
        wait_for(lambda: other.verdict, "the sentence")
        assert (leader._speaks(), other._speaks()) == (True, both)
        assert leader._named([1]) == "process 1 of 2 (on node)"


def test_a_machine_is_told_from_another_of_its_name() -> None:
    name, *more = meeting._machine().split(" ")
    assert name == socket.gethostname()
    assert len(more) == 2 or not hasattr(signal, "SIGKILL")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (SystemExit(signals.exit_code(signal.SIGTERM)), "SIGTERM"),
        (KeyboardInterrupt(), "SIGINT"),
        (SystemExit(2), "2"),
        (SystemExit("no data"), "no data"),
        (ValueError("photograph 7"), "photograph 7"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_promise_10_the_others_are_told_why_one_ends(error: BaseException, reason: str) -> None:
    assert meeting._reason(error) == reason


# ---- the group of a job of one process ---------------------------------------------------------------------------


@pytest.fixture
def job_of_one(monkeypatch: pytest.MonkeyPatch, free_port: int) -> None:
    told = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port)}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(meeting, "size_of_job", lambda: 2)


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.usefixtures("job_of_one")
def test_promise_10_machines_that_cannot_connect_all_with_all_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(device: torch.device, line: Link, *more: object) -> None:
        wait_for(lambda: line.verdict, "the limit")
        raise RuntimeError("gloo: connection timed out")

    monkeypatch.setattr(distributed, "_initialise", never)
    monkeypatch.setattr(distributed, "JOIN_SECONDS", 0.5)
    with pytest.raises(LostProcess, match="could not connect all with all; name the network"), distributed.world("cpu"):
        pass


@pytest.mark.usefixtures("job_of_one")
def test_promise_10_the_others_are_told_before_the_group_is_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    destroy = torch.distributed.destroy_process_group
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: (order.append("destroyed"), destroy()))
    fail = Link.fail
    monkeypatch.setattr(Link, "fail", lambda self, sentence: (order.append(sentence), fail(self, sentence))[1])
    with pytest.raises(ValueError, match="photograph 7"), distributed.world("cpu"):
        raise ValueError("photograph 7")
    assert order == ["photograph 7", "destroyed"]
    assert not torch.distributed.is_initialized()


@pytest.mark.usefixtures("job_of_one")
def test_what_processes_with_gpus_share_goes_through_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    with distributed.world("cpu") as alone:
        place = distributed.World(0, 2, torch.device("cuda", 0), alone.link)
        assert distributed.share({"state": 1}, place) == {"state": 1}
        backends: list[str] = []
        monkeypatch.setattr(torch.distributed, "init_process_group", lambda name, **more: backends.append(name))
        assert alone.link is not None
        distributed._initialise(place.device, alone.link, None, timedelta(minutes=1))
        assert backends == ["cpu:gloo,cuda:nccl"]
