"""Batch norm over the batch of a whole job: every process normalises with the statistics of all of them.

Torch's own runs on CUDA alone and cannot be differentiated twice, which gradient penalties ask for. Here the one thing
that crosses processes is a sum whose derivative is the same sum, so that autograd finds every order of derivative.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn


class _Sum(torch.autograd.Function):
    """The sum of a tensor over all processes; as the losses of all are added up, its derivative is that sum again."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        total = own.detach().clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Sum.apply(gradients[0])


class _Synchronised(nn.modules.batchnorm._BatchNorm):
    """What a batch norm does in training where there are several processes; all else is the class's own."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or not _several():
            return super().forward(input)
        self._check_input_dim(input)
        wide = input.to(torch.promote_types(input.dtype, torch.float32))
        mean, variance, count = _statistics(wide)
        self._follow(mean.detach(), variance.detach(), count)
        scale = torch.rsqrt(variance + self.eps)  # (C,)
        scale = scale if self.weight is None else scale * self.weight
        out = (wide - _channels(mean, wide)) * _channels(scale, wide)
        out = out if self.bias is None else out + _channels(self.bias, wide)
        return out.to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Move the running statistics, the same on all processes; their variance is the unbiased one."""
        if self.running_mean is None or self.running_var is None:
            return
        share: Any = self.momentum
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            share = 1 / self.num_batches_tracked if share is None else share
        unbiased = variance * count / (count - 1).clamp(min=1)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), share)


class SyncBatchNorm1d(_Synchronised, nn.BatchNorm1d):
    """``nn.BatchNorm1d``, in training with the statistics of all processes, each by how much it has."""


class SyncBatchNorm2d(_Synchronised, nn.BatchNorm2d):
    """``nn.BatchNorm2d``, in training with the statistics of all processes, each by how much it has."""


_KINDS: dict[type[nn.Module], type[nn.Module]] = {nn.BatchNorm1d: SyncBatchNorm1d, nn.BatchNorm2d: SyncBatchNorm2d}


def synchronise(network: nn.Module) -> None:
    """Let every batch norm of a network take its statistics over all processes; weights and their names stay."""
    for module in network.modules():
        module.__class__ = _KINDS.get(type(module), type(module))


def _several() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def _statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean (C,), variance (C,) and number () of the values of each channel, of all processes together.

    Each process sends mean and squared deviations of its own, which combine without the cancellation of squares.
    """
    axes = [0, *range(2, x.dim())]
    count = x.numel() // x.shape[1]
    mean = x.sum(axes) / max(count, 1)
    spread = (x - _channels(mean, x)).square().sum(axes)
    own = torch.cat((mean, spread, mean.new_full((1,), count)))  # (2C + 1,)
    means, spreads, counts = _gather(own).split([len(mean), len(mean), 1], dim=1)  # (W, C), (W, C), (W, 1)
    total = counts.detach().sum()
    middle = (counts * means).sum(0) / total
    between = (counts * (means - middle).square()).sum(0)
    return middle, (spreads.sum(0) + between) / total, total


def _gather(own: Tensor) -> Tensor:
    """Return a vector (N,) of every process, (W, N): a sum of which each fills its own row."""
    mine = torch.arange(distributed.get_world_size(), device=own.device) == distributed.get_rank()
    return _Sum.apply(torch.where(mine[:, None], own, torch.zeros_like(own)))


def _channels(values: Tensor, x: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (x.dim() - 2))
