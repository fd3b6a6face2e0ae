"""Learning rates over epochs in closed form, each known by its share of the base rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler


class EpochCurve(LRScheduler):
    """The base rate times ``share(epoch)``, epochs counted from 0; to be stepped once per epoch.

    The curve is that of the configuration in use: a run resumed with other epochs goes on where its new curve is at
    that epoch.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, share: Callable[[int], float]) -> None:
        self.share = share
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """Return the rate of each parameter group at ``last_epoch``."""
        share = self.share(self.last_epoch)
        return [rate * share for rate in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch and the base rates, not the curve."""
        return {key: value for key, value in super().state_dict().items() if key != "share"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back the epoch and set this curve's rates at it, whatever curve the state is of."""
        known = self.state_dict()
        super().load_state_dict({key: value for key, value in state_dict.items() if key in known})
        self._last_lr = self.get_lr()
        for group, rate in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = rate


def cosine(optimizer: torch.optim.Optimizer, epochs: int) -> EpochCurve:
    """Return half a cosine from the base rate at epoch 0 to zero at epoch ``epochs`` and after."""
    return EpochCurve(optimizer, partial(_cosine, epochs=epochs))


def named(
    optimizer: torch.optim.Optimizer, name: str, epochs: int, milestones: Sequence[int], factor: float
) -> LRScheduler:
    """Return the schedule "cosine", "constant", or by any other name the rate times ``factor`` at each milestone."""
    if name == "cosine":
        return cosine(optimizer, max(epochs, 1))
    steps = [] if name == "constant" else list(milestones)
    return torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=steps, gamma=factor)


def linear(optimizer: torch.optim.Optimizer, epochs: int, decay: int) -> EpochCurve:
    """Return the rate as released for system 001: constant, then 0 in the last of ``epochs`` after ``decay`` of them.

    It is the base rate times 1 - max(0, e + 2 - n) / (d + 1) in epoch e, counted from 0; n + d epochs in all. With d =
    0 it does not fall: the rule would take the last epoch's rate away, of a single epoch all there is.
    """
    return EpochCurve(optimizer, partial(_linear, constant=epochs - decay, decay=decay))


def _cosine(epoch: int, epochs: int) -> float:
    return (1 + math.cos(math.pi * min(epoch, epochs) / epochs)) / 2


def _linear(epoch: int, constant: int, decay: int) -> float:
    return max(0.0, 1 - max(0, epoch + 2 - constant) / (decay + 1)) if decay else 1.0
