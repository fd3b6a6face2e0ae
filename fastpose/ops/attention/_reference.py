"""Attention in plain tensor code: the definition, and the oracle of every other backend."""

from __future__ import annotations

import torch
from torch import Tensor

from fastpose.ops._dispatch import Backend, Inputs, Parameters


def forward(inputs: Inputs, parameters: Parameters) -> tuple[Tensor]:
    """out[:, i] = sum_j softmax_j(scale * <query[:, i], key[:, j]>) value[:, j]; stores the map."""
    query, key, value = inputs
    (scale,) = parameters
    probabilities = weights(query, key, scale)  # (B, Nq, Nk)
    return (value @ probabilities.transpose(1, 2),)  # (B, Cv, Nq)


def weights(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """softmax over the keys of (B, C, Nq) x (B, C, Nk) -> (B, Nq, Nk)."""
    return torch.softmax(scale * (query.transpose(1, 2) @ key), dim=-1)


nonlocal_attention = Backend("reference", lambda inputs, parameters: [], forward)
