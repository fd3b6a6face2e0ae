"""Sums over the ranks of a distributed run."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def distributed() -> bool:
    """Whether this process is one of several."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def summed(tensors: Sequence[Tensor], device: torch.device | str | None = None) -> list[Tensor]:
    """Return each CPU tensor, all of one dtype, summed over all ranks in one call; without a process group, unchanged.

    Args:
        tensors: what every rank holds in the same shapes.
        device: where the collective runs: this rank's GPU under NCCL (the default there), else the CPU.
    """
    if not distributed():
        return list(tensors)
    packed = torch.cat([tensor.flatten() for tensor in tensors]).to(_place(device))
    torch.distributed.all_reduce(packed)
    parts = packed.cpu().split([tensor.numel() for tensor in tensors])
    return [part.reshape(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def greatest(number: int, device: torch.device | str | None = None) -> int:
    """Return the greatest of the ranks' numbers: how many columns there are where a rank has seen nothing itself."""
    if not distributed():
        return number
    held = torch.tensor([number], device=_place(device))
    torch.distributed.all_reduce(held, op=torch.distributed.ReduceOp.MAX)
    return int(held)


def _place(device: torch.device | str | None) -> torch.device | str:
    if device is None:
        return "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    return device
