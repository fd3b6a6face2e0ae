"""How the processes of a job find each other: by the variables that ``torchrun`` sets, or a scheduler, or a hand."""

from __future__ import annotations

import ipaddress
import os
import secrets
import signal
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

from fastpose.training.link import BEAT, EXIT_CODE, GRACE, SILENCE, Link, LostProcess
from fastpose.training.signals import exit_code, signal_name

_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_meetings = count()  # a process that joins twice must not find what it left behind
_OTHERS = "start every process with the same MASTER_ADDR, MASTER_PORT and WORLD_SIZE and a RANK of its own"


def size_of_job() -> int:
    """Return how many processes there are, by WORLD_SIZE; 1 where nothing is said."""
    return _number("WORLD_SIZE", 1, None) if os.environ.get("WORLD_SIZE") else 1


@contextmanager
def met(seconds: float) -> Iterator[tuple[Link, Any]]:
    """Find the other processes and leave them at the end, or tell them why this one ends; yield line and store.

    Args:
        seconds: to wait for the others.

    Raises:
        ValueError: a variable of the environment that is none.
        LostProcess: one is not there in time, or a collective or the body ended because one is gone.
    """
    rank, size, address = _environment()
    until = time.monotonic() + seconds
    store, link = _connect(rank, size, address, until)
    try:
        link.gather("", seconds=max(until - time.monotonic(), 1.0))
        outward = link.gather(link.outward())  # to the leader its own name may be the loopback; the others know better
        _choose_interface(outward[rank] or outward[0])
        yield link, store
    except BaseException as error:
        said = _parting(link, error)
        if said is error:
            raise
        raise said from error
    link.leave()


def _parting(link: Link, error: BaseException) -> BaseException:
    """Return what to raise for an error: that another process is gone, where this is why; else tell the others."""
    if _of_a_collective(error):
        error = link.lost(BEAT if "imed out" in str(error) else GRACE) or LostProcess(
            f"{_SILENT} ({str(error).splitlines()[0]})"
        )
    if link.verdict and isinstance(error, LostProcess | SystemExit):
        link.leave()
    elif link.fail(_reason(error)) and isinstance(error, Exception):
        return SystemExit(EXIT_CODE)  # said once
    return error


def _reason(error: BaseException) -> str:
    """Return what the others are told of the end of this process: of a signal, its name."""
    if isinstance(error, KeyboardInterrupt):
        return signal_name(signal.SIGINT)
    code = error.code if isinstance(error, SystemExit) else 0
    ended_by = [signal_name(number) for number in signal.Signals if exit_code(number) == code]
    return (ended_by or [str(error) or type(error).__name__])[0]


_SILENT = (
    "the processes live, but one has not answered in a collective; it hangs, or took longer than run.timeout_minutes"
)


def _of_a_collective(error: BaseException) -> bool:
    """Whether an error is torch's for a connection between processes that broke or timed out."""
    from torch import distributed

    text = str(error)
    return isinstance(error, distributed.DistError) or (
        isinstance(error, RuntimeError) and ("gloo" in text or "Connection " in text or "NCCL" in text)
    )


# ---------------------------------------------------------------------------------------------------- environment


def _environment() -> tuple[int, int, tuple[str, int]]:
    """Return rank, size and the leader's address."""
    missing = [name for name in _VARIABLES if not os.environ.get(name)]
    if missing:
        raise ValueError(f"{', '.join(missing)}: not set beside WORLD_SIZE; set all of {', '.join(_VARIABLES)}")
    size = _number("WORLD_SIZE", 1, None)
    address = os.environ["MASTER_ADDR"], _number("MASTER_PORT", 1, 65535)
    return _number("RANK", 0, size - 1), size, address


def _number(name: str, low: int, high: int | None) -> int:
    text = os.environ[name]
    value = int(text) if text.isdecimal() else -1
    if value < low or (high is not None and value > high):
        wanted = f"of {low} or more" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name}: expected a number {wanted}, got {text!r}")
    return value


# ----------------------------------------------------------------------------------------------------- connection


def _connect(rank: int, size: int, address: tuple[str, int], until: float) -> tuple[Any, Link]:
    """Return the store of torch's group and the line to the others."""
    from torch.distributed import PrefixStore

    served = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # by torchrun itself
    shared = _store(address, rank == 0 and not served, until)
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = PrefixStore(f"fastpose/{attempt}/{next(_meetings)}", shared)
    own = _own_address(address)
    if rank == 0:
        link = Link(rank, size, _machine(), secrets.token_hex(16))
        # Where the name of this machine is the loopback to itself, the others may still come from elsewhere.
        everywhere = "%" in own or (_is_loopback(own) and not _is_loopback(address[0]))
        listening = link.listen("" if everywhere else own)
        store.set("leader", f"{size} {own} {listening} {link.token}")
        return PrefixStore("group", store), link
    theirs, host, port, token = _wait_for("leader", store, until).split()
    if int(theirs) != size:
        raise ValueError(f"WORLD_SIZE: {size} here (RANK={rank}) and {theirs} of RANK=0; {_OTHERS}")
    host = address[0] if _is_loopback(host) and not _is_loopback(address[0]) else host
    link = Link(rank, size, _machine(), token)
    try:
        link.connect((host, int(port)), max(until - time.monotonic(), 1.0))
    except OSError as error:
        raise LostProcess(f"process 0 of {size}: no connection to {host}:{port} ({error}); {_FIREWALL}") from None
    return PrefixStore("group", store), link


_FIREWALL = "open all ports between the machines of a job, and give each process a RANK of its own"


_stores: dict[tuple[str, int], Any] = {}
"""For the life of the process: one that joins again must not meet at a store that is about to close."""


def _store(address: tuple[str, int], serve: bool, until: float) -> Any:
    """Return torch's store at an address, once there is one."""
    if address not in _stores:
        _stores[address] = _new_store(address, serve, until)
    return _stores[address]


def _new_store(address: tuple[str, int], serve: bool, until: float) -> Any:
    from torch.distributed import DistNetworkError, TCPStore

    if not serve:
        _wait_for_server(address, until)
    try:
        return TCPStore(*address, None, serve, timeout=timedelta(seconds=SILENCE), wait_for_workers=False)
    except DistNetworkError as error:
        if "EADDRINUSE" in str(error):
            raise ValueError(f"MASTER_PORT: {address[1]} is in use on this machine; choose another") from None
        raise LostProcess(f"{_named(address)}: no answer; {_OTHERS}, RANK=0 on the machine MASTER_ADDR") from None


def _wait_for_server(address: tuple[str, int], until: float) -> None:
    """Wait until someone listens; torch would print pages of warnings meanwhile."""
    began = time.monotonic()
    while True:
        try:
            socket.create_connection(address, timeout=max(min(until - time.monotonic(), 5.0), 0.1)).close()
            return
        except OSError as error:
            if time.monotonic() > until:
                waited = f"no answer within {time.monotonic() - began:.0f} s ({error.strerror or error})"
                raise LostProcess(
                    f"{_named(address)}: {waited}; {_OTHERS}, RANK=0 on the machine MASTER_ADDR"
                ) from None
        time.sleep(0.2)


def _wait_for(key: str, store: Any, until: float) -> str:
    from torch.distributed import DistError

    try:
        while not store.check([key]):
            if time.monotonic() > until:
                raise LostProcess(f"process 0: not there in time; {_OTHERS}")
            time.sleep(0.05)
        return store.get(key).decode()
    except DistError:
        raise LostProcess("process 0: has ended before all had come") from None


def _named(address: tuple[str, int]) -> str:
    return f"MASTER_ADDR={address[0]}, MASTER_PORT={address[1]}"


def _own_address(leader: tuple[str, int]) -> str:
    """Return the address by which this machine reaches the leader's: there the others reach this one."""
    family, kind, _, _, place = socket.getaddrinfo(*leader, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(place)  # sends nothing
        return probe.getsockname()[0]


def _is_loopback(host: str) -> bool:
    """Whether an address, or a name as it is written, is a machine's way to itself."""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _machine() -> str:
    """Return the name of this machine and what tells it from another of that name (an image, a container)."""
    told = [socket.gethostname()]
    with suppress(OSError):  # Linux alone
        told += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/net")]
    return " ".join(told)


def _choose_interface(own: str) -> None:
    """Let gloo use the network that joins the machines: the one of the machine's name may lead nowhere."""
    if not own or os.environ.get("GLOO_SOCKET_IFNAME"):
        return
    for name in _interfaces(own):
        os.environ["GLOO_SOCKET_IFNAME"] = name


def _interfaces(own: str) -> Iterator[str]:
    """Yield the names of the interfaces with an IPv4 address (Linux alone)."""
    with suppress(ImportError, OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        import fcntl

        for _, name in socket.if_nameindex():
            with suppress(OSError):
                request = struct.pack("256s", name.encode()[:15])
                found = fcntl.ioctl(probe.fileno(), 0x8915, request)[20:24]  # SIOCGIFADDR
                if socket.inet_ntoa(found) == own:
                    yield name
