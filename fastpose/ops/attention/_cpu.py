"""Attention by the C++ kernels: linear memory in every order of derivative, float32 and float64 arithmetic.

bfloat16 is multiplied as it is, with float32 sums, where the processor has AMX (forward and backward). Other 16-bit
inputs are widened to float32 (linear in the number of positions), computed and rounded once at the end. The forward of
large float32 maps takes AMX too, in two or three bfloat16 parts of each number: attention_fwd reads torch's precision
of matrix products, so that the call in one step decides alike.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastpose import _native
from fastpose.ops._dispatch import Backend, Inputs, Parameters, cpu_reasons
from fastpose.ops._places import empty, fresh
from fastpose.ops.attention._maps import empty_results


def reasons(inputs: Inputs, parameters: Parameters) -> list[str]:
    return cpu_reasons(inputs)


def _wide(tensor: Any) -> Any:
    """The tensor in the kernels' arithmetic: itself unless it is a 16-bit one. None stays None."""
    if tensor is not None and tensor.dtype in (torch.bfloat16, torch.float16):
        return tensor.float()
    return tensor


def _serves_bf16(tensor: Tensor) -> bool:
    return tensor.dtype == torch.bfloat16 and _native.module().cpu.attention_serves_bf16()


def _scaled(query: Tensor, scale: float) -> Tensor:
    return query if scale == 1.0 else query * scale


def forward(inputs: Inputs, parameters: Parameters) -> tuple[Tensor, Tensor]:
    dtype = inputs[2].dtype
    if _serves_bf16(inputs[2]):
        out, lse = empty_results(inputs, parameters)
        fresh(out)
        _native.module().cpu.attention_fwd_bf16(*inputs, out, lse, *parameters, torch.get_num_threads())
        return out, lse
    query, key, value = inputs if dtype in (torch.float32, torch.float64) else map(_wide, inputs)
    out, lse = empty_results((query, key, value), parameters)
    fresh(out)
    _native.module().cpu.attention_fwd(_scaled(query, *parameters), key, value, out, lse, torch.get_num_threads())
    return out if out.dtype == dtype else out.to(dtype), lse


def backward(
    inputs: Inputs,
    results: tuple[Tensor, ...],
    grads: tuple[Tensor, ...],
    needs: tuple[bool, ...],
    parameters: Parameters,
) -> tuple[Tensor | None, ...]:
    (scale,) = parameters
    if _serves_bf16(inputs[2]):
        gradients = empty(inputs, needs)
        _native.module().cpu.attention_bwd_bf16(
            *inputs, *results[:2], grads[0], *gradients, scale, torch.get_num_threads()
        )
        return tuple(gradients)
    query, key, value = (_wide(tensor) for tensor in inputs)
    out, lse = _wide(results[0]), results[1]
    gradients = empty((query, key, value), needs)
    _native.module().cpu.attention_bwd(
        _scaled(query, scale), key, value, out, lse, _wide(grads[0]), *gradients, torch.get_num_threads()
    )
    if scale != 1.0 and gradients[0] is not None:
        gradients[0].mul_(scale)
    return _narrow(gradients, inputs)


def double_backward(
    inputs: Inputs,
    results: tuple[Tensor, ...],
    grads: tuple[Tensor, ...],
    cotangents: tuple[Tensor | None, ...],
    needs: tuple[bool, ...],
    parameters: Parameters,
) -> tuple[Tensor | None, ...]:
    (scale,) = parameters
    query, key, value = (_wide(tensor) for tensor in inputs)
    out, lse, grad = _wide(results[0]), results[1], _wide(grads[0])
    cot_query, cot_key, cot_value = (_wide(tensor) for tensor in cotangents)
    if cot_query is not None:
        cot_query = _scaled(cot_query, scale)
    gradients = empty((query, key, value, grad), (True,) * 4)
    _native.module().cpu.attention_bwd2(
        _scaled(query, scale), key, value, out, lse, grad,
        cot_query, cot_key, cot_value, *gradients, torch.get_num_threads(),
    )  # fmt: skip
    if scale != 1.0:
        gradients[0].mul_(scale)
    kept = [gradient if need else None for gradient, need in zip(gradients, needs, strict=True)]
    return _narrow(kept, (*inputs, grads[0]))


def _narrow(gradients: list[Tensor | None], like: Inputs) -> tuple[Tensor | None, ...]:
    return tuple(
        None if gradient is None else gradient.to(tensor.dtype)
        for gradient, tensor in zip(gradients, like, strict=True)
    )


nonlocal_attention = Backend("cpu", reasons, forward, backward, double_backward)
