"""A way that torch.compile compiles, one size at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Tensors = tuple[Tensor, ...]


class Compiled:
    """``torch.compile`` of a way for one size, compiled at the first call.

    torch is made to forget what it compiled before: past eight sizes of a function it would run eagerly in silence.
    """

    def __init__(self, way: Callable[..., Tensor], compiler: str = "inductor") -> None:
        self._way, self._compiler = way, compiler
        self._call: Callable[..., Tensor] | None = None

    def __call__(self, tensors: Tensors) -> Tensor:
        if self._call is None:
            torch._dynamo.reset()
            self._call = torch.compile(self._way, dynamic=False, backend=self._compiler)
        return self._call(tensors)
