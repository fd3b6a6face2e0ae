"""Descriptors of pairs of joints as people write them in PyTorch today."""

from __future__ import annotations

import torch
from torch import Tensor

from fastpose.benchmark.baselines._compiled import Tensors


def descriptor_broadcast(tensors: Tensors) -> Tensor:
    """Return differences and squared differences of all pairs, (B, 2D, P, P)."""
    (joints,) = tensors
    columns = joints.mT  # (B, D, P)
    differences = columns[..., None] - columns[:, :, None]  # (B, D, P, P)
    return torch.cat((differences, differences.square()), dim=1)
