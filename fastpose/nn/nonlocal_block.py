"""The non-local block: attention by 1x1 convolutions, added to what came in (SAGAN; systems 001 and 004)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fastpose import ops

Positions = Tensor | Sequence[tuple[int, int]]


class NonLocalBlock(nn.Module):
    """Values of x gathered where the guide looks: gamma * attention + x, (B, channels, H, W) -> the same shape.

    Query and key are 1x1 convolutions of the guide to an eighth of its channels, the value one of x; without a guide x
    guides itself (system 001, eq. 4 and 6). ``gamma`` starts at 0. ``beta=True`` adds a second learned scalar, also 0
    at first: gamma * attention + beta * x + x, as the released code of system 001 does.
    """

    def __init__(self, channels: int, guide_channels: int | None = None, *, beta: bool = False) -> None:
        super().__init__()
        guide_channels = channels if guide_channels is None else guide_channels
        embedding = max(guide_channels // 8, 1)
        self.query = nn.Conv2d(guide_channels, embedding, kernel_size=1)
        self.key = nn.Conv2d(guide_channels, embedding, kernel_size=1)
        self.value = nn.Conv2d(channels, channels, kernel_size=1)
        self.gamma = nn.Parameter(torch.zeros(1))
        self.beta = nn.Parameter(torch.zeros(1)) if beta else None

    def forward(self, x: Tensor, guide: Tensor | None = None) -> Tensor:
        guide = x if guide is None else guide
        query, key, value = self.query(guide), self.key(guide), self.value(x)
        residual = x if self.beta is None else (1 + self.beta.reshape(())) * x  # a scalar keeps the dtype of x
        return ops.nonlocal_attention_residual(query, key, value, residual, self.gamma)

    def rows(self, guide: Tensor, positions: Positions) -> Tensor:
        """Return where chosen positions look: (B, P, H, W), row p being the weights that make the output at position p.

        ``guide`` is the map that query and key are made of; ``positions`` (P, 2) are integers (x, y), pixels of it.
        Each row sums to one. Raises ``ValueError`` for positions of another shape or outside the map.
        """
        return ops.attention_rows(self.query(guide), self.key(guide), positions)
