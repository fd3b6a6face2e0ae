"""The equilibrium of BEGAN: proportional control of how much the discriminator attends to generated samples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Equilibrium:
    """The update rule of k_t (Berthelot et al. 2017, section 3.3; lambda_D of system 000 is this k_t).

    With ``balance = gamma * L_real - L_gen`` the rule is ``k <- clip(k + rate * balance, 0, 1)`` and
    ``L_real + |balance|`` measures convergence. Losses enter unweighted.

    Attributes:
        gamma: the wanted ratio L_gen / L_real.
        rate: step of the controller.
        start: k_0.
    """

    gamma: float = 0.5
    rate: float = 0.001
    start: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.start <= 1:
            raise ValueError(f"equilibrium start: expected a number from 0 to 1, got {self.start}")

    @torch.no_grad()
    def advance(self, k: Tensor, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Return the next k and the convergence measure; all are scalars on one device, none carries gradient.

        Losses that are not finite leave k as it was.
        """
        balance = self.gamma * real - fake
        moved = (k + self.rate * balance).clamp(0, 1)
        return torch.where(balance.isfinite(), moved, k), real + balance.abs()
