"""What a kernel's choice depends on: a GPU's name, capability and limits. Tests put a made-up device in its place."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class Gpu:
    """A GPU as the kernels see it.

    Attributes:
        name: as the driver calls it.
        capability: compute capability, (9, 0) for Hopper.
        shared_memory: bytes that one block may use.
        multiprocessors: how many there are.
    """

    name: str
    capability: tuple[int, int]
    shared_memory: int
    multiprocessors: int

    @property
    def architecture(self) -> str:
        """For example "sm_90"."""
        return "sm_{}{}".format(*self.capability)


@lru_cache(maxsize=64)
def gpu(index: int) -> Gpu:
    """Describe the GPU of that number."""
    found = torch.cuda.get_device_properties(index)
    shared = getattr(found, "shared_memory_per_block_optin", None) or 48 << 10
    return Gpu(found.name, (found.major, found.minor), shared, found.multi_processor_count)


INTERPRETER = Gpu("Triton's interpreter", (0, 0), 1 << 30, 1)  # runs GPU kernels on CPU tensors, for tests


def of(tensor: Tensor) -> Gpu:
    """Describe the GPU of a tensor."""
    return gpu(tensor.device.index) if tensor.is_cuda else INTERPRETER
