"""Non-local attention: what the public functions take, check and return."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastpose import _checks
from fastpose.ops._autograd import Differentiable, Signature
from fastpose.ops._dispatch import Operation
from fastpose.ops._precision import autocast, autocast_enabled
from fastpose.ops.attention import _maps

OPERATION = Operation("nonlocal_attention", "attention", "cpu", "triton", "reference")
_attention = Differentiable(
    OPERATION,
    Signature(
        inputs=("query", "key", "value"),
        differentiable=("query", "key", "value"),
        parameters=(("scale", "float"),),
        outputs=1,
        results=2,
    ),
    allocate=_maps.empty_results,
)
RESIDUAL = Operation("nonlocal_attention_residual", "attention", "triton")  # elsewhere two steps, in plain tensor code
_residual = Differentiable(
    RESIDUAL,
    Signature(
        inputs=("query", "key", "value", "residual", "gamma"),
        differentiable=("query", "key", "value", "residual", "gamma"),
        parameters=(("scale", "float"),),
        outputs=1,
        results=3,
        reads=(1, 2),
        unread=("residual",),
    ),
    allocate=_maps.empty_residual_results,
)


def nonlocal_attention(
    query: Tensor, key: Tensor, value: Tensor, *, scale: float = 1.0, backend: str = "auto"
) -> Tensor:
    """Attend from every query position to every key position of a feature map, in linear memory.

    ``out[:, i] = sum_j softmax_j(scale * <query[:, i], key[:, j]>) value[:, j]`` with the spatial dimensions
    flattened: the non-local block of Wang et al. (CVPR 2018) and SAGAN (Zhang et al., ICML 2019), single head, without
    1/sqrt(d) unless ``scale`` says so.

    Args:
        query: (B, Ck, *Sq), one or more spatial dimensions.
        key: (B, Ck, *Sk); Sk may differ from Sq (pooled keys).
        value: (B, Cv, *Sk).
        scale: factor of the logits.
        backend: "auto", "reference", "cpu" or "triton".

    Returns:
        (B, Cv, *Sq), in the memory order of ``value``: channels-last in, channels-last out.

    Differentiable twice in query, key and value; any number of times with ``backend="reference"``. No backend but the
    reference stores a map of Nq x Nk numbers in any order of derivative. Both memory layouts (positions contiguous and
    channels contiguous), any batch stride and slices of channels are served without a copy; a crop in space and, on the
    CPU, a scale other than 1 (the query) and 16 bits (widened), or packing for AMX, cost a linear one.

    On a CPU with AMX bfloat16 is multiplied as it is, summed in float32 and scaled there, forward and backward; the
    probabilities and the gradients of the logits are rounded to bfloat16 for their products. The forward of large
    float32 maps is multiplied there in bfloat16 parts of each number, forward only: with
    ``torch.get_float32_matmul_precision()`` "highest" in three parts, as exact as float32, with "high" and "medium" in
    two, of about 16 bits. Numbers that are not finite, or not 0 and beyond 2^-64 or 2^60, are multiplied as they are.

    On a GPU ("triton") 16-bit operands are multiplied as they are and summed in float32; float32 products follow
    ``torch.get_float32_matmul_precision()``: "highest" keeps float32's accuracy, "high" and "medium" use tf32. Results
    are the same bits from run to run unless the table of tiles asks for atomic sums of the query's gradient, which
    ``torch.use_deterministic_algorithms(True)`` forbids.

    Raises:
        TypeError: an argument is no floating-point tensor, or the dtypes differ.
        ValueError: the sizes do not match, or the backend cannot serve the call.
    """
    if (direct := OPERATION.direct(backend, query, key, value, scale)) is not None:
        return direct
    query, key, value = autocast(query, key, value)
    _check(query, key, value, scale)
    return _like(query, _attend(_flat(query, key, value), scale, backend))


def nonlocal_attention_residual(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    residual: Tensor,
    gamma: Tensor,
    *,
    scale: float = 1.0,
    backend: str = "auto",
) -> Tensor:
    """Return ``residual + gamma * nonlocal_attention(query, key, value)``, the output of a self-attention block.

    Args:
        residual: (B, Cv, *Sq).
        gamma: tensor with one element, 0 at the start of training in every published model; nothing divides by it.

    Other arguments, layouts and errors as :func:`nonlocal_attention`. Differentiable twice in all five tensors. With
    "triton" the sum is done in the attention's own kernel where residual and value have one dtype.
    """
    if (direct := RESIDUAL.direct(backend, query, key, value, residual, gamma, scale)) is not None:
        return direct
    query, key, value = autocast(query, key, value)
    _check(query, key, value, scale)
    _check_residual(query, value, residual, gamma)
    flat = _flat(query, key, value)
    if backend == "triton" or (backend == "auto" and query.is_cuda):
        inputs = (*flat, residual.flatten(2), gamma)
        if RESIDUAL.serves("triton", inputs, (float(scale),)):
            (out,) = _residual(RESIDUAL.backend("triton"), inputs, (float(scale),))
            return _like(query, out)
    attended = _like(query, _attend(flat, scale, backend))
    dtype = torch.promote_types(residual.dtype, attended.dtype)
    return torch.addcmul(residual.to(dtype), gamma.reshape(()).to(dtype), attended.to(dtype))


def _flat(*maps: Tensor) -> tuple[Tensor, ...]:
    """(B, C, *S) -> (B, C, N)."""
    return tuple(tensor if tensor.dim() == 3 else tensor.flatten(2) for tensor in maps)


def _like(query: Tensor, out: Tensor) -> Tensor:
    """(B, Cv, Nq) -> (B, Cv, *Sq)."""
    return out if query.dim() == 3 else out.view(*out.shape[:2], *query.shape[2:])


def _attend(inputs: tuple[Tensor, ...], scale: float, backend: str) -> Tensor:
    parameters = (float(scale),)
    (out,) = _attention(OPERATION.choose(backend, inputs, parameters), inputs, parameters)
    return out


def attention_rows(
    query: Tensor, key: Tensor, positions: Tensor | Sequence[Sequence[int]], *, scale: float = 1.0
) -> Tensor:
    """Return the attention maps of a few query positions, for pictures.

    Args:
        query: (B, Ck, H, W).
        key: (B, Ck, *Sk).
        positions: (P, 2) integers (x, y) in query pixels.
        scale: factor of the logits.

    Returns:
        (B, P, *Sk): each map sums to 1. Differentiable in query and key to any order.

    Raises:
        TypeError, ValueError: as :func:`nonlocal_attention`; a position outside the query map.
    """
    query, key = autocast(query, key)
    _check_query_key(query, key)
    if query.dim() != 4:
        raise ValueError(f"query: expected (B, Ck, H, W), got {tuple(query.shape)}")
    x, y = _checks.pixels(positions, query)
    chosen = query[:, :, y, x]  # (B, Ck, P)
    rows = _maps.weights(chosen, key.flatten(2), scale)  # (B, P, Nk)
    return rows.unflatten(2, key.shape[2:])  # (B, P, *Sk)


def _check(query: Tensor, key: Tensor, value: Tensor, scale: float) -> None:
    _checks.real("scale", scale)
    _check_query_key(query, key)
    _checks.tensor("value", value, "(B, Cv, *Sk)")
    if value.dim() != key.dim() or value.shape[0] != key.shape[0] or value.shape[2:] != key.shape[2:]:
        raise ValueError(
            f"value: expected (B, Cv, *Sk) with B and Sk of key {tuple(key.shape)}, got {tuple(value.shape)}"
        )
    _checks.same_dtype(query=query, value=value)
    _checks.same_device(query=query, value=value)


def _check_residual(query: Tensor, value: Tensor, residual: Tensor, gamma: Tensor) -> None:
    _checks.tensor("residual", residual, "(B, Cv, *Sq)")
    _checks.shape("residual", residual, (*value.shape[:2], *query.shape[2:]), "(B, Cv, *Sq)")
    _checks.tensor("gamma", gamma, "with one element")
    if gamma.numel() != 1:
        raise ValueError(f"gamma: expected a tensor with one element, got {tuple(gamma.shape)}")
    _checks.same_device(value=value, residual=residual, gamma=gamma)
    if not autocast_enabled(residual):  # autocast leaves the residual as wide as it came
        _checks.same_dtype(value=value, residual=residual)


def _check_query_key(query: Tensor, key: Tensor) -> None:
    _checks.tensor("query", query, "(B, Ck, *Sq)", ranks=(3, 4, 5))
    _checks.tensor("key", key, "(B, Ck, *Sk)", ranks=(3, 4, 5))
    if key.shape[:2] != query.shape[:2]:
        raise ValueError(
            f"key: expected (B, Ck, *Sk) with B and Ck of query {tuple(query.shape)}, got {tuple(key.shape)}"
        )
    _checks.same_dtype(query=query, key=key)
    _checks.same_device(query=query, key=key)
