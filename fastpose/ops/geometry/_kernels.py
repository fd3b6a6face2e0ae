"""The pairwise descriptor by one set of kernels: every call reads and writes the tensors' own element type.

Arithmetic is in float32 (float64 for float64); 16-bit results are rounded once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastpose.ops._dispatch import Backend, Inputs, Parameters
from fastpose.ops._places import Kernels, Place, empty, fresh, kept
from fastpose.ops.geometry._results import empty_results

Needs = tuple[bool, ...]


class _Descriptor(Kernels):
    folder = "geometry"

    def forward(self, inputs: Inputs, parameters: Parameters) -> tuple[Tensor]:
        out = fresh(*empty_results(inputs, parameters))
        self.run("descriptor_fwd", out, inputs[0], out)
        return (out,)

    def backward(
        self, inputs: Inputs, results: Inputs, grads: Inputs, needs: Needs, parameters: Parameters
    ) -> tuple[Tensor]:
        gradient = fresh(torch.empty_like(inputs[0]))
        self.run("descriptor_bwd", gradient, inputs[0], grads[0], gradient)
        return (gradient,)

    def double_backward(
        self, inputs: Inputs, results: Inputs, grads: Inputs, cotangents: Inputs, needs: Needs, parameters: Parameters
    ) -> tuple[Any, ...]:
        if cotangents[0] is None:
            return kept([torch.zeros_like(inputs[0]), torch.zeros_like(grads[0])], needs)
        gradients = empty((inputs[0], grads[0]), (True, True))
        self.run("descriptor_bwd2", inputs[0], inputs[0], grads[0], cotangents[0], *gradients)
        return kept(gradients, needs)


def backends(place: Place) -> Backend:
    """The descriptor's backend at a place."""
    return _Descriptor(place).backend()
