"""The pairwise descriptor by the C++ kernels: float32 and float64 arithmetic, 16-bit descriptors rounded once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastpose import _native
from fastpose.ops._dispatch import Backend, Inputs, Parameters, cpu_reasons
from fastpose.ops.geometry._results import empty_results


def reasons(inputs: Inputs, parameters: Parameters) -> list[str]:
    return cpu_reasons(inputs)


def _wide(joints: Tensor) -> Tensor:
    """The joints in the kernels' arithmetic; they are few."""
    return joints.float() if joints.dtype in (torch.bfloat16, torch.float16) else joints


def forward(inputs: Inputs, parameters: Parameters) -> tuple[Tensor]:
    (out,) = empty_results(inputs, parameters)
    _native.module().descriptor_fwd(_wide(inputs[0]), out, torch.get_num_threads())
    return (out,)


def backward(
    inputs: Inputs, results: Inputs, grads: Inputs, needs: tuple[bool, ...], parameters: Parameters
) -> tuple[Tensor]:
    joints = _wide(inputs[0])
    gradient = torch.empty_like(joints)
    _native.module().descriptor_bwd(joints, grads[0], gradient, torch.get_num_threads())
    return (gradient.to(inputs[0].dtype),)


def double_backward(
    inputs: Inputs,
    results: Inputs,
    grads: Inputs,
    cotangents: Inputs,
    needs: tuple[bool, ...],
    parameters: Parameters,
) -> tuple[Any, ...]:
    if cotangents[0] is None:
        return (torch.zeros_like(inputs[0]), torch.zeros_like(grads[0]))
    joints = _wide(inputs[0])
    of_joints, of_grad = torch.empty_like(joints), torch.empty_like(grads[0])
    _native.module().descriptor_bwd2(
        joints, grads[0], _wide(cotangents[0]), of_joints, of_grad, torch.get_num_threads()
    )
    return (of_joints.to(inputs[0].dtype) if needs[0] else None, of_grad if needs[1] else None)


pairwise_descriptor = Backend("cpu", reasons, forward, backward, double_backward)
