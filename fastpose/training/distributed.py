"""Processes under ``torchrun``: who am I, what do we agree on, the sum of the gradients.

Networks are not wrapped in ``DistributedDataParallel``. Its reducer fires inside each backward and expects one forward
per backward; an adversarial step runs a network two or three times, sends one network's loss through another and
differentiates twice (gradient penalties do not reach its hooks at all). Instead every update reduces the gradients of
its own parameters once, when they are complete, through ``torch.distributed`` in one flat tensor: correct for any
number of forwards, for unused parameters and for penalties, at the price of not overlapping with the backward.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class World:
    """This process among all: ``rank`` of ``size``, on ``device``; only the leader (rank 0) writes and prints."""

    rank: int
    size: int
    device: torch.device

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
    """Join the processes that ``torchrun`` started (or be alone) and leave them at the end.

    gloo on the CPU, NCCL on CUDA; ``LOCAL_RANK`` chooses the GPU. A group that the caller has already initialised is
    used and left alone.

    Raises:
        ValueError: unknown or absent device.
    """
    import torch.distributed as dist

    chosen = choose_device(device)
    ours = int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized()
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if ours:
        # Its functions take the group of the moment of their import as a default and would keep it alive for ever: a
        # group whose threads still run when the interpreter ends can abort the process after all work is done.
        importlib.import_module("torch.distributed.nn.functional")

        cuda = chosen.type == "cuda"
        wait = timedelta(minutes=timeout_minutes)
        dist.init_process_group("nccl" if cuda else "gloo", timeout=wait, device_id=chosen if cuda else None)
    try:
        joined = dist.is_available() and dist.is_initialized()
        place = World(dist.get_rank() if joined else 0, dist.get_world_size() if joined else 1, chosen)
        yield place
        if ours:
            _settle(place)
    finally:
        if ours:
            dist.destroy_process_group()


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
    torch.distributed.broadcast_object_list(box, src=0, device=place.device)
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
    """Wait for every process."""
    if place.several:
        largest(0.0, place)


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
