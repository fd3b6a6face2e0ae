"""Dropout that does not see how a batch is split over processes: each takes its rows of one mask for all."""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn


class SplitDropout(nn.Dropout):
    """``nn.Dropout``; in training, processes with one random stream drop what one would that has all their samples.

    On a GPU the masks of several processes are independent, but not those of one: there numbers depend on their count.
    """

    def forward(self, input: Tensor) -> Tensor:
        if (
            not self.training
            or not 0 < self.p < 1
            or not distributed.is_available()
            or not distributed.is_initialized()
        ):
            return super().forward(input)
        size, rank, rows = distributed.get_world_size(), distributed.get_rank(), len(input)
        last = input.dim() == 4 and not input.is_contiguous() and input.is_contiguous(memory_format=torch.channels_last)
        order = torch.channels_last if last else torch.contiguous_format
        whole = torch.empty(
            size * rows, *input.shape[1:], dtype=input.dtype, device=input.device, memory_format=order
        ).bernoulli_(1 - self.p)
        return input * whole[rank * rows : (rank + 1) * rows].div_(1 - self.p)


def split(network: nn.Module) -> None:
    """Let every dropout of a network take its rows of one mask."""
    for module in network.modules():
        if type(module) is nn.Dropout:
            module.__class__ = SplitDropout
