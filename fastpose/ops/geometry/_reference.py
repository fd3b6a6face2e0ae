"""The pairwise descriptor in plain tensor code: the definition, and the oracle of every other backend."""

from __future__ import annotations

import torch
from torch import Tensor

from fastpose.ops._dispatch import Backend, Inputs, Parameters


def forward(inputs: Inputs, parameters: Parameters) -> tuple[Tensor]:
    """Differences d = joints[i] - joints[j] and their squares: (B, P, D) -> (B, 2D, P, P)."""
    (joints,) = inputs
    wide = joints if joints.dtype == torch.float64 else joints.float()
    differences = (wide[:, :, None] - wide[:, None, :]).movedim(3, 1)  # (B, D, P, P)
    return (torch.cat((differences, differences.square()), dim=1).to(joints.dtype),)


pairwise_descriptor = Backend("reference", lambda inputs, parameters: [], forward)
