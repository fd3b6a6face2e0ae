"""Processes of one job: who am I, what do we agree on, the sum of the gradients.

Networks are not wrapped in ``DistributedDataParallel``. Its reducer fires inside each backward and expects one forward
per backward; an adversarial step runs a network two or three times, sends one network's loss through another and
differentiates twice (gradient penalties do not reach its hooks at all). Instead every update reduces the gradients of
its own parameters once, when they are complete, through ``torch.distributed`` in one flat tensor: correct for any
number of forwards, for unused parameters and for penalties, at the price of not overlapping with the backward.
"""

from __future__ import annotations

import importlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn

from fastpose.training import meeting
from fastpose.training.config import differences
from fastpose.training.link import Link

JOIN_SECONDS = 300.0
"""How long the processes of a job wait for each other at most."""

UNREACHABLE = (
    "the processes found each other, but could not connect all with all; name the network between the machines "
    "(GLOO_SOCKET_IFNAME, NCCL_SOCKET_IFNAME) and open it for these processes"
)


@dataclass(frozen=True)
class World:
    """This process among all: ``rank`` of ``size``, on ``device``; only the leader (rank 0) writes and prints."""

    rank: int
    size: int
    device: torch.device
    link: Link | None = field(default=None, compare=False)

    @property
    def leader(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        """Whether there is anyone to agree with."""
        return self.size > 1


@contextmanager
def world(device: str = "auto", timeout_minutes: float = 30.0) -> Iterator[World]:
    """Join the processes that ``torchrun`` or a scheduler started (or be alone) and leave them at the end.

    gloo on the CPU, NCCL beside it on CUDA; ``LOCAL_RANK`` chooses the GPU. A group that the caller has already
    initialised is used and left alone.

    Args:
        device: see ``choose_device``.
        timeout_minutes: a collective that waits longer ends the job; for each other the processes wait so long too, but
            at most five minutes.

    Raises:
        ValueError: unknown or absent device, or a variable of the environment that is none.
        LostProcess: another process has not come, has ended or does not answer; the sentence names it. Of several
            processes on a machine one raises it, the others raise ``SystemExit``.
    """
    import torch.distributed as dist

    chosen = choose_device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if not dist.is_available() or dist.is_initialized() or meeting.size_of_job() == 1:
        joined = dist.is_available() and dist.is_initialized()
        yield World(dist.get_rank() if joined else 0, dist.get_world_size() if joined else 1, chosen)
        return
    with ExitStack() as left, meeting.met(min(60 * timeout_minutes, JOIN_SECONDS)) as (link, store):
        with link.within(JOIN_SECONDS, lambda: UNREACHABLE):
            _initialise(chosen, link, store, timedelta(minutes=timeout_minutes))
        place = World(link.rank, link.size, chosen, link)
        try:
            yield place
            barrier(place)
            _settle(place)
        except BaseException:
            left.callback(
                dist.destroy_process_group
            )  # it may wait for the others, who are told first why this one ends
            raise
        dist.destroy_process_group()


def _initialise(device: torch.device, link: Link, store: Any, wait: timedelta) -> None:
    import torch.distributed as dist

    # Its functions take the group of the moment of their import as a default and would keep it alive for ever: a
    # group whose threads still run when the interpreter ends can abort the process after all work is done.
    importlib.import_module("torch.distributed.nn.functional")
    cuda = device.type == "cuda"
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if cuda else "gloo",  # a whole state goes to the others through no GPU's memory
        store=store,
        rank=link.rank,
        world_size=link.size,
        timeout=wait,
        device_id=device if cuda else None,
    )


def _settle(place: World) -> None:
    """Let the threads of the group put down their last tensors.

    They need the interpreter's lock for that, and the group's end waits for them while holding it.
    """
    last = torch.zeros(1, device=place.device)  # alive until the group has gone through it
    torch.distributed.all_reduce(last)
    time.sleep(0.1)


def choose_device(name: str = "auto") -> torch.device:
    """Return the device for "auto", "cpu", "cuda" or "cuda:<index>"; ``LOCAL_RANK`` fills in the index.

    Raises:
        ValueError: unknown name, or a GPU that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"run.device: expected auto, cpu, cuda or cuda:<index>, got {name!r}")
    if device.type == "cpu":
        return device
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = int(os.environ.get("LOCAL_RANK", "0")) if device.index is None else device.index
    if index >= count:
        raise ValueError(f"run.device: cuda:{index} asked for, {count} CUDA device(s) found; take run.device=cpu")
    return torch.device("cuda", index)


def share(value: Any, place: World) -> Any:
    """Return the leader's ``value`` on every process."""
    if not place.several:
        return value
    box = [value]
    torch.distributed.broadcast_object_list(box, src=0)
    return box[0]


def gather(value: Any, place: World) -> list[Any]:
    """Return the values of all processes, by rank."""
    if not place.several:
        return [value]
    values: list[Any] = [None] * place.size
    torch.distributed.all_gather_object(values, value)
    return values


def largest(value: float, place: World) -> float:
    """Return the largest ``value`` of all processes: how they agree to stop at the same step."""
    if not place.several:
        return value
    flag = torch.tensor(float(value), device=place.device)
    torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
    return float(flag)


def barrier(place: World) -> None:
    """Wait for every process, however long it takes: no collective's timeout counts while all of them live."""
    if place.link is not None:
        place.link.gather("")
    elif place.several:
        largest(0.0, place)


def undisturbed(place: World) -> AbstractContextManager[None]:
    """Return a context in which this process needs nobody else: the end of another one does not cut it off."""
    return nullcontext() if place.link is None else place.link.undisturbed()


def compare(what: Mapping[str, Any], place: World) -> None:
    """Raise ``ValueError`` on every process where one of them has other values than the leader; JSON values."""
    if place.link is None:
        return
    texts = place.link.gather(json.dumps(what))
    first, *others = map(json.loads, texts)
    for rank, other in enumerate(others, 1):
        changed = list(differences(first, other).items())[:5]
        if changed:
            named = ", ".join(f"{key} is {one!r} and {two!r}" for key, (one, two) in changed)
            raise ValueError(f"processes 0 and {rank} differ: {named}; start all of them alike")


@torch.no_grad()
def broadcast_networks(networks: Iterable[nn.Module], place: World) -> None:
    """Give every process the leader's parameters and buffers."""
    if not place.several:
        return
    for network in networks:
        for tensor in [*network.parameters(), *network.buffers()]:
            copy = tensor.detach().contiguous()  # a channels-last weight is not
            torch.distributed.broadcast(copy, src=0)
            tensor.copy_(copy)


@torch.no_grad()
def mean_gradients(parameters: Sequence[nn.Parameter], loss: Tensor, place: World) -> Tensor:
    """Replace the gradients by their mean over all processes; return the mean of ``loss`` ().

    A parameter without gradient on some processes counts as zero there; without one anywhere it keeps None, as in a
    single process. Not-finite values on one process are not finite on all after this, so all take the same decision.
    """
    if not place.several:
        return loss
    wide = torch.float64 if any(p.dtype == torch.float64 for p in parameters) else torch.float32
    present = [0.0 if p.grad is None else 1.0 for p in parameters]
    pieces = [(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1).to(wide) for p in parameters]
    tail = torch.tensor(present, dtype=wide, device=loss.device)
    flat = torch.cat([*pieces, tail, loss.detach().reshape(1).to(wide)])  # (values + parameters + 1,)
    torch.distributed.all_reduce(flat)
    sizes = [p.numel() for p in parameters]
    *means, counts, total = (flat / place.size).split([*sizes, len(sizes), 1])
    for parameter, mean, count in zip(parameters, means, counts.tolist(), strict=True):
        if count > 0:
            laid = torch.empty_like(parameter)  # in the memory order that a fused optimizer reads
            parameter.grad = laid.copy_(mean.view_as(parameter))
    return total[0]


def drawn(draw: Callable[[int], Tensor], count: int, place: World) -> Tensor:
    """Return this process's rows (count, ...) of what ``draw`` draws for as many samples of every process.

    The random streams of the processes are one, so that all draw what a single process with all samples would.
    """
    return own_rows(draw(count * place.size), place)


def own_rows(rows: Tensor, place: World) -> Tensor:
    """Return this process's part of rows (W * N, ...) that lie behind each other by rank, (N, ...)."""
    count = len(rows) // place.size
    return rows[place.rank * count : (place.rank + 1) * count]


@torch.no_grad()
def all_rows(rows: Tensor, place: World) -> Tensor:
    """Return the rows (N, ...) of every process behind each other by rank, (W * N, ...), without gradient."""
    if not place.several:
        return rows
    parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(place.size)]
    torch.distributed.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


@torch.no_grad()
def mean(values: Tensor, place: World) -> Tensor:
    """Return the mean of ``values`` over all processes."""
    if place.several:
        torch.distributed.all_reduce(values)
        values = values / place.size
    return values


def agreed(make: Callable[[], Any], place: World) -> Any:
    """Return what ``make`` returns on the leader, on every process; its error is raised on every process too."""
    value: Any = None
    error: Exception | None = None
    if place.leader:
        try:
            value = make()
        except Exception as caught:
            error = caught
    value, error = share((value, error), place)
    if error is not None:
        raise error
    return value
