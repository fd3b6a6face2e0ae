"""What every backend of attention shares: the map itself for a few rows, and the results' shapes and strides."""

from __future__ import annotations

import torch
from torch import Tensor

from fastpose.ops._dispatch import Inputs, Parameters


def weights(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """softmax over the keys of (B, C, Nq) x (B, C, Nk) -> (B, Nq, Nk)."""
    return torch.softmax(scale * (query.transpose(1, 2) @ key), dim=-1)


def empty_results(inputs: Inputs, parameters: Parameters) -> tuple[Tensor, Tensor]:
    """Uninitialised out (B, Cv, Nq), in the memory order of value, and lse (B, Nq)."""
    query, _, value = inputs
    batch, channels, queries = value.shape[0], value.shape[1], query.shape[2]
    if value.stride(1) == 1 and value.stride(2) != 1:
        out = value.new_empty(batch, queries, channels).transpose(1, 2)
    else:
        out = value.new_empty(batch, channels, queries)
    wide = torch.float64 if value.dtype == torch.float64 else torch.float32
    return out, value.new_empty(batch, queries, dtype=wide)


def empty_residual_results(inputs: Inputs, parameters: Parameters) -> tuple[Tensor, Tensor, Tensor]:
    """Uninitialised residual + gamma out in the memory order of the residual, out and lse."""
    return (torch.empty_like(inputs[3]), *empty_results(inputs[:3], parameters))
