"""An exponential moving average of a network's weights, held as a network of its own."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


class Ema:
    """``average <- decay * average + (1 - decay) * weights`` after each update of the network.

    The decay is warmed up as ``min(decay, (1 + n) / (10 + n))`` after n updates, so that the initial weights fade
    within the first steps. Buffers (running statistics of batch norm) are copied. The average is in evaluation mode.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        if not 0.0 < decay < 1.0:
            raise ValueError(f"ema: expected a decay in (0, 1), got {decay!r}")
        self.decay, self.updates = decay, 0
        self.average = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take one step towards ``network``."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        averages, weights = _trained(self.average), _trained(network)
        torch._foreach_lerp_(averages, weights, 1.0 - decay)
        for average, buffer in zip(self.average.buffers(), network.buffers(), strict=True):
            average.copy_(buffer)

    def state_dict(self) -> dict[str, Any]:
        """Return average and count."""
        return {"average": self.average.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what ``state_dict`` returned."""
        self.average.load_state_dict(state["average"])
        self.updates = int(state["updates"])


def _trained(network: nn.Module) -> list[Tensor]:
    return [parameter.detach() for parameter in network.parameters()]
