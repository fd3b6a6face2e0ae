"""Which maps a network copies, and which it makes in another memory order than channels-last."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

COPYING = ("aten.clone", "aten.copy_", "aten._to_copy", "aten.contiguous")


class Layouts(TorchDispatchMode):
    """Watch the operations of a block of code: ``copies`` are the shapes that were copied, ``others`` those of maps
    (B, C, H, W) that are not channels-last, with the operation that made them."""

    def __init__(self):
        super().__init__()
        self.copies, self.others = [], []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        out = operation(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            if str(operation).startswith(COPYING):
                self.copies.append(tuple(out.shape))
            if out.dim() == 4 and not out.is_contiguous(memory_format=torch.channels_last):
                self.others.append((str(operation), tuple(out.shape)))
        return out
