"""Self-attention residual modules (SARM) of Wang et al., IEEE Access 2019 (system 000), as printed and as released.

Printed (eq. 1-3): a_j = sum_i softmax_i(<f(x_i), g(x_j)>) h(x_i), so g(x) is the query, f(x) the key, h(x) the value.
Released: the same contraction with a sigmoid in place of the softmax, not normalised, and other embeddings.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from fastpose import _checks, ops
from fastpose.nn.nonlocal_block import Positions
from fastpose.nn.residual import Residual, bottleneck

Kind = Literal["A", "B"]
Affinity = Literal["softmax", "sigmoid"]
Embedding = Literal["c8", "out", "shared"]
Flavour = Literal["paper", "released"]
KINDS: tuple[Kind, ...] = ("A", "B")
AFFINITIES: tuple[Affinity, ...] = ("softmax", "sigmoid")
EMBEDDINGS: tuple[Embedding, ...] = ("c8", "out", "shared")
FLAVOURS: tuple[Flavour, ...] = ("paper", "released")


def sigmoid_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return out[:, j] = sum_i sigmoid(<key[:, i], query[:, j]>) value[:, i], the attention of the released Hg-SAGAN.

    query, key (B, Ck, *S), value (B, Cv, *S) -> (B, Cv, *S). Nothing is normalised: outputs grow with the number of
    positions, and the N x N map is stored. Differentiable to any order.
    """
    weights = torch.sigmoid(key.flatten(2).mT @ query.flatten(2))  # (B, N source, N target)
    return (value.flatten(2) @ weights).unflatten(2, query.shape[2:])  # (B, Cv, *S)


class SelfAttention(nn.Module):
    """Every position looks at every other: (x (B, C, H, W), value (B, Cv, H, W)) -> (B, Cv, H, W).

    ``affinity``: ``softmax`` normalises over the positions looked at, ``sigmoid`` does not. ``qk`` says what is
    compared: ``c8`` two 1x1 convolutions to C/8 channels, ``out`` two to ``out_channels``, ``shared`` one residual
    body that serves as query and key alike.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, affinity: Affinity = "softmax", qk: Embedding = "c8"
    ) -> None:
        super().__init__()
        _checks.choice("affinity", affinity, AFFINITIES)
        _checks.choice("qk", qk, EMBEDDINGS)
        self.affinity = affinity
        self.embed = bottleneck(in_channels, out_channels) if qk == "shared" else None
        if qk != "shared":
            channels = max(in_channels // 8, 1) if qk == "c8" else out_channels
            self.query = nn.Conv2d(in_channels, channels, kernel_size=1)
            self.key = nn.Conv2d(in_channels, channels, kernel_size=1)

    def query_and_key(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is compared, two maps (B, Ck, H, W)."""
        if self.embed is None:
            return self.query(x), self.key(x)
        both = self.embed(x)
        return both, both

    def forward(self, x: Tensor, value: Tensor) -> Tensor:
        query, key = self.query_and_key(x)
        if self.affinity == "softmax":
            return ops.nonlocal_attention(query, key, value)
        return sigmoid_attention(query, key, value)

    def add(self, x: Tensor, value: Tensor, residual: Tensor, gamma: Tensor) -> Tensor:
        """Return residual + gamma * self(x, value), as one operation where the affinity is the softmax."""
        if self.affinity == "sigmoid":
            return residual + gamma * self(x, value)
        query, key = self.query_and_key(x)
        return ops.nonlocal_attention_residual(query, key, value, residual, gamma)

    def rows(self, x: Tensor, positions: Positions) -> Tensor:
        """Return where chosen positions look: (B, P, H, W), row p being the weights that make the output at position p.

        ``positions`` (P, 2) are integers (x, y), pixels of the feature map. Softmax rows sum to one; sigmoid weights
        lie in 0..1 each. Raises ``ValueError`` for positions of another shape or outside the map.
        """
        query, key = self.query_and_key(x)
        if self.affinity == "softmax":
            return ops.attention_rows(query, key, positions)
        column, row = _checks.pixels(positions, x)
        chosen = query[:, :, row, column]  # (B, Ck, P)
        return torch.sigmoid(chosen.mT @ key.flatten(2)).unflatten(2, x.shape[2:])  # (B, P, H, W)


class SarmA(nn.Module):
    """SARM-A: attention over the output of a residual module, (B, C, H, W) -> (B, out_channels, H, W).

    a_j = sum_i beta_ji h(x_i) with h the residual module (eq. 2); ``affinity`` and ``qk`` as in `SelfAttention`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        *,
        affinity: Affinity = "softmax",
        qk: Embedding = "c8",
    ) -> None:
        super().__init__()
        out_channels = in_channels if out_channels is None else out_channels
        self.residual = Residual(in_channels, out_channels)
        self.attention = SelfAttention(in_channels, out_channels, affinity=affinity, qk=qk)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, self.residual(x))


class SarmB(nn.Module):
    """SARM-B: a residual module beside attention, (B, C, H, W) -> (B, out_channels, H, W).

    y = gamma * a + f0(x) (eq. 3), a attending over the 1x1 convolution h(x), f0 the residual module. ``gamma`` starts
    at 0, so that the network first relies on its neighbourhood; ``gamma=False`` adds the attention as it is, as the
    released code does. ``gamma_clamp`` holds gamma in [0, 1], where the paper says it lives. The bottleneck of f0 has
    half the channels of the *input*: that matters where it makes heatmaps of many features.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        *,
        affinity: Affinity = "softmax",
        qk: Embedding = "c8",
        gamma: bool = True,
        gamma_clamp: bool = False,
    ) -> None:
        super().__init__()
        out_channels = in_channels if out_channels is None else out_channels
        self.residual = Residual(in_channels, out_channels, middle=in_channels // 2)
        self.value = nn.Conv2d(in_channels, out_channels, kernel_size=1)
        self.attention = SelfAttention(in_channels, out_channels, affinity=affinity, qk=qk)
        self.gamma = nn.Parameter(torch.zeros(1)) if gamma else None
        self.gamma_clamp = gamma_clamp

    def forward(self, x: Tensor) -> Tensor:
        residual, value = self.residual(x), self.value(x)
        if self.gamma is None:
            return residual + self.attention(x, value)
        gamma = self.gamma.clamp(0, 1) if self.gamma_clamp else self.gamma
        return self.attention.add(x, value, residual, gamma)


def sarm_module(
    kind: Kind, in_channels: int, out_channels: int | None = None, *, flavour: Flavour = "paper"
) -> SarmA | SarmB:
    """Return SARM-A or SARM-B as the paper prints it or as its authors released it.

    ``paper``: softmax over C/8 channels, and gamma in SARM-B. ``released``: sigmoid, no gamma; SARM-A compares one
    shared embedding with itself, SARM-B compares two of ``out_channels``.
    """
    _checks.choice("sarm", kind, KINDS)
    _checks.choice("flavour", flavour, FLAVOURS)
    if flavour == "paper":
        return SarmA(in_channels, out_channels) if kind == "A" else SarmB(in_channels, out_channels)
    if kind == "A":
        return SarmA(in_channels, out_channels, affinity="sigmoid", qk="shared")
    return SarmB(in_channels, out_channels, affinity="sigmoid", qk="out", gamma=False)
