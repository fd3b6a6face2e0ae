"""Attention in plain tensor code: the definition, and the oracle of every other backend."""

from __future__ import annotations

from torch import Tensor

from fastpose.ops._dispatch import Backend, Inputs, Parameters
from fastpose.ops.attention._maps import weights


def forward(inputs: Inputs, parameters: Parameters) -> tuple[Tensor]:
    """out[:, i] = sum_j softmax_j(scale * <query[:, i], key[:, j]>) value[:, j]; stores the map."""
    query, key, value = inputs
    (scale,) = parameters
    probabilities = weights(query, key, scale)  # (B, Nq, Nk)
    return (value @ probabilities.transpose(1, 2),)  # (B, Cv, Nq)


nonlocal_attention = Backend("reference", lambda inputs, parameters: [], forward)
