"""What autocast means for our operations."""

from __future__ import annotations

import torch
from torch import Tensor


def autocast_enabled(tensor: Tensor) -> bool:
    """Whether autocast is on for the tensor's device."""
    device = tensor.device.type
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Under autocast, cast floating-point tensors (float64 aside) to its dtype, as matrix products do."""
    if not isinstance(tensors[0], Tensor) or not autocast_enabled(tensors[0]):
        return tensors
    dtype = torch.get_autocast_dtype(tensors[0].device.type)
    return tuple(
        tensor.to(dtype) if isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.dtype != torch.float64
        else tensor
        for tensor in tensors
    )  # fmt: skip
