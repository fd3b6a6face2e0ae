"""One network's optimizer as a section of a configuration (systems 002 and 004), and Adam as all systems make it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fastpose import _checks


@dataclass(frozen=True)
class NetworkOptimizerConfig:
    """One network's optimizer: "rmsprop" (alpha 0.99, eps 1e-8) or "adam" (``beta1``, ``beta2``, eps 1e-8)."""

    name: str = "rmsprop"
    lr: float = 2.5e-4
    beta1: float = 0.9
    beta2: float = 0.999

    def check(self, section: str) -> None:
        """Raise ``ValueError``, which names the section, unless all values can be used."""
        _checks.choice(f"{section}.name", self.name, ("rmsprop", "adam"))
        _checks.positive(f"{section}.lr", self.lr)
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{section}.{name}: expected a number from 0 up to 1, got {getattr(self, name)}")


def build(parameters: Sequence[nn.Parameter], config: NetworkOptimizerConfig) -> torch.optim.Optimizer:
    """Return the optimizer of one network's trained parameters."""
    if config.name == "adam":
        return adam(parameters, lr=config.lr, betas=(config.beta1, config.beta2))
    return torch.optim.RMSprop(parameters, lr=config.lr, alpha=0.99)


def adam(parameters: Iterable[Any], **options: Any) -> torch.optim.Adam:
    """Return Adam in one pass over each parameter and its averages; torch's default on a CPU takes about ten."""
    return torch.optim.Adam(parameters, fused=True, **options)
