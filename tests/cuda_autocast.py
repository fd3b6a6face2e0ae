"""CUDA's autocast where there is no GPU: what it computes in 16 bits and the CPU's leaves alone."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class LowerPrecision(TorchFunctionMode):
    """``torch.mv`` in bfloat16 and ``torch.vdot`` in the wider type wherever autocast is on, as in CUDA's lists."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.mv, torch.vdot) and torch.is_autocast_enabled("cpu"):
            dtype = torch.bfloat16 if func is torch.mv else torch.promote_types(args[0].dtype, args[1].dtype)
            args = [tensor.to(dtype) for tensor in args]
        return func(*args, **(kwargs or {}))
