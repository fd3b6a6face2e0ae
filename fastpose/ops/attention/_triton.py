"""Attention by the Triton kernels: linear memory in every order of derivative, on NVIDIA GPUs.

16-bit operands go into the matrix units as they are; statistics and sums are float32. float32 products follow
``torch.get_float32_matmul_precision()``: "highest" takes three tf32 products for each, which keeps float32's accuracy,
"high" and "medium" take one. Every sum has a fixed order, unless the table of tiles asks for atomic sums and
``torch.use_deterministic_algorithms`` does not forbid them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastpose.ops import _devices
from fastpose.ops._dispatch import Backend, Inputs, Parameters, triton_reasons
from fastpose.ops._triton_launch import launch
from fastpose.ops.attention import _tiles
from fastpose.ops.attention._maps import empty_results

Needs = tuple[bool, ...]
Gradients = tuple[Any, ...]  # tensors; None for an absent one

KEY_CHANNELS, VALUE_CHANNELS = 128, 512  # the most that tiles are made for
SPAN = 2**31  # elements of one sample, between the first and the last
BATCH = 65535  # the most a grid's second axis holds


def reasons(inputs: Inputs, parameters: Parameters) -> list[str]:
    query, _, value = inputs[:3]
    found = triton_reasons(inputs, double=True)
    if query.shape[1] > KEY_CHANNELS:
        found.append(f"it serves at most {KEY_CHANNELS} key channels, got {query.shape[1]}")
    if value.shape[1] > VALUE_CHANNELS:
        found.append(f"it serves at most {VALUE_CHANNELS} value channels, got {value.shape[1]}")
    if query.shape[0] > BATCH:
        found.append(f"it serves batches of at most {BATCH}, got {query.shape[0]}")
    if any(_span(tensor) >= SPAN for tensor in inputs[:4]) or value.shape[1] * query.shape[2] >= SPAN:
        found.append("it serves samples that reach over less than 2^31 elements")
    return found


def residual_reasons(inputs: Inputs, parameters: Parameters) -> list[str]:
    """Reasons against the fused residual; the sum is then done by plain tensor code."""
    found = reasons(inputs, parameters)
    value, residual, _ = inputs[2:]
    if residual.dtype != value.dtype:
        found.append(f"it serves a residual of value's dtype {value.dtype}, got {residual.dtype}")
    return found


def _span(tensor: Tensor) -> int:
    return sum((size - 1) * step for size, step in zip(tensor.shape[1:], tensor.stride()[1:], strict=True))


# --------------------------------------------------------------------------------------------------------- the launch


def precision_of(dtype: torch.dtype) -> str:
    """How products are taken, in Triton's words."""
    if dtype != torch.float32:
        return "ieee" if dtype == torch.float64 else "tf32"  # 16-bit products know no choice
    # torch's old and new switches both end here; the old one's own getter fails where both were used.
    return "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "tf32x3"


class Call:
    """What the kernels of one call share: sizes, tiles, precision, and how tensors are handed over."""

    def __init__(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> None:
        from fastpose.ops.attention import _triton_kernels

        self.kernels = _triton_kernels
        self.query, self.scale = query, scale
        self.batch, self.key_channels, self.queries = query.shape
        self.value_channels, self.keys = value.shape[1:]
        self.precision = precision_of(query.dtype)
        self.tiles = _tiles.lookup(
            _devices.of(query), self.key_channels, self.value_channels, query.dtype, self.precision
        )
        self.wide = torch.float64 if query.dtype == torch.float64 else torch.float32

    @property
    def empty(self) -> bool:
        return 0 in (self.batch, self.queries, self.keys, self.value_channels)

    @property
    def atomics(self) -> bool:
        return self.tiles.atomics and not torch.are_deterministic_algorithms_enabled()

    def chunks(self, name: str) -> int:
        """How many programs share the value channels in the sums of a kernel."""
        return -(-self.value_channels // self.tiles[name].chunk)

    def map(self, tensor: Tensor | None) -> Any:
        """The tensor (B, C, N) as the kernels take it; None stays None."""
        if tensor is None:
            return None
        if _span(tensor) >= SPAN:  # a gradient of odd strides: inputs and results are known to reach less far
            tensor = tensor.contiguous()
        batch, channel, position = tensor.stride()
        return self.kernels.Map(tensor, batch, position, channel)

    def row_values(self, count: int = 1) -> Tensor:
        """Uninitialised numbers, one per query position: (count * B, Nq)."""
        return self.query.new_empty(count * self.batch, self.queries, dtype=self.wide)

    def start(self, name: str, arguments: tuple[Any, ...], *, chunks: int = 1, **flags: bool) -> None:
        """Start a kernel over blocks of queries, or of keys if it is one of the columns' kernels.

        Each of ``chunks`` programs takes its share of the value channels.
        """
        tile = self.tiles[name]
        blocks = -(-self.keys // tile.keys) if name.endswith("columns") else -(-self.queries // tile.queries)
        block = _tiles.padded(self.value_channels) if chunks == 1 else tile.chunk
        constants = {
            "CK": self.key_channels,
            "CV": self.value_channels,
            "BLOCK_CK": _tiles.padded(self.key_channels),
            "BLOCK_CV": block,
            "CHUNKS": chunks,
            "QUERIES": tile.queries,
            "KEYS": tile.keys,
            "DEPTH": min(tile.depth, block) if chunks == 1 else block,
            "PRECISION": self.precision,
            "WIDE": self.kernels.dtype_of(self.wide),
        }
        launch(
            getattr(self.kernels, name),
            (blocks, self.batch, chunks),
            (*arguments, self.scale, self.queries, self.keys),
            constants | flags,
            warps=tile.warps,
            stages=tile.stages,
            near=self.query,
        )


def _zeros(like: Inputs, needs: Needs) -> Gradients:
    return tuple(torch.zeros_like(tensor) if need else None for tensor, need in zip(like, needs, strict=True))


# ------------------------------------------------------------------------------------------------------------ forward


def _forward(call: Call, key: Tensor, value: Tensor, out: Any, lse: Any, fused: tuple[Any, Any, Any]) -> None:
    """``fused``: residual, gamma and the result, or three times None; out and lse are None where nobody wants them."""
    residual, gamma, result = fused
    maps = (call.map(tensor) for tensor in (call.query, key, value, out))
    arguments = (*maps, lse, call.map(residual), gamma, call.map(result))
    call.start("forward", arguments, chunks=call.chunks("forward"), KEEP=out is not None, GAMMA=gamma is not None)


def forward(inputs: Inputs, parameters: Parameters) -> tuple[Tensor, Tensor]:
    query, key, value = inputs
    call = Call(query, key, value, *parameters)
    out, lse = empty_results(inputs, parameters)
    if call.empty:
        return out.zero_(), lse.fill_(-torch.inf)
    _forward(call, key, value, out, lse, (None, None, None))
    return out, lse


# ----------------------------------------------------------------------------------------------------- first derivative


def _row_products(call: Call, left: Tensor, right: Tensor) -> Tensor:
    """rowsum(left * right) over the channels of (B, Cv, Nq): (B, Nq)."""
    products = call.row_values()
    call.start("row_products", (call.map(left), call.map(right), products))
    return products


def _first(
    call: Call, key: Tensor, value: Tensor, grad: Tensor, lse: Tensor, delta: Tensor, gamma: Tensor | None, needs: Needs
) -> Gradients:
    """dQ, dK, dV where they are needed, times gamma where it is given."""
    query = call.query
    of_query, of_key, of_value = (
        torch.empty_like(tensor) if need else None for tensor, need in zip((query, key, value), needs, strict=True)
    )
    shared = (*(call.map(tensor) for tensor in (query, key, value, grad)), lse, delta, gamma)
    fused = {"GAMMA": gamma is not None}
    sums = None
    if of_query is not None and of_key is not None and call.atomics:
        sums = torch.zeros_like(query, dtype=call.wide)
    elif of_query is not None:
        call.start("rows", (*shared, call.map(of_query)), **fused)
    results = tuple(call.map(tensor) for tensor in (sums, of_key, of_value))
    chunks = call.chunks("columns")
    together = chunks == 1 and of_key is not None
    if of_key is not None:
        flags = {"OF_KEY": True, "OF_VALUE": together and of_value is not None, "OF_QUERY": sums is not None}
        call.start("columns", (*shared, *results), **fused, **flags)
    if of_value is not None and not together:
        flags = {"OF_KEY": False, "OF_VALUE": True, "OF_QUERY": False}
        call.start("columns", (*shared, *results), chunks=chunks, **fused, **flags)
    if of_query is not None and sums is not None:
        of_query.copy_(sums)
    return of_query, of_key, of_value


def backward(inputs: Inputs, results: Gradients, grads: Gradients, needs: Needs, parameters: Parameters) -> Gradients:
    query, key, value = inputs
    out, lse = results
    call = Call(query, key, value, *parameters)
    if call.empty:
        return _zeros(inputs, needs)
    delta = _row_products(call, grads[0], out)
    return _first(call, key, value, grads[0], lse, delta, None, needs)


# ---------------------------------------------------------------------------------------------------- second derivative


class Second:
    """The second derivative of one call: gradients of <A, dQ> + <B, dK> + <C, dV>, times gamma where it is given."""

    def __init__(
        self, call: Call, tensors: Inputs, results: Gradients, cotangents: Gradients, gamma: Tensor | None
    ) -> None:
        query, key, _, grad = tensors
        self.call, self.tensors, self.gamma = call, tensors, gamma
        self.out, self.lse = results
        self.delta = _row_products(call, grad, self.out)
        self.moved = cotangents[0] is not None or cotangents[1] is not None
        self.mixed = cotangents[2] is not None
        cot_query, cot_key, self.cot_value = cotangents
        self.cot_query = _or_zeros(cot_query, query) if self.moved else None
        self.cot_key = _or_zeros(cot_key, key) if self.moved else None
        self.means = call.row_values() if self.moved else None
        self.products = call.row_values(call.chunks("second_rows"))
        self.centred = self.moved and query.dtype.itemsize == 2
        if self.centred:  # else e's share would be rounded with the rest before it is subtracted
            maps = (call.map(tensor) for tensor in (query, key, self.cot_query, self.cot_key))
            call.start("means", (*maps, self.lse, self.means))

    def _rows(self, of_query: Tensor | None, of_grad: Tensor | None, *, chunks: int = 1, centred: bool) -> None:
        call = self.call
        query, key, value, grad = self.tensors
        given = (query, key, value, self.out, grad, self.cot_query, self.cot_key, self.cot_value)
        rows = (self.lse, self.delta, self.means, self.products, self.gamma)
        arguments = (*map(call.map, given), *rows, call.map(of_query), call.map(of_grad))
        flags = {"OF_GRAD": of_grad is not None, "OF_QUERY": of_query is not None, "CENTRED": centred}
        call.start("second_rows", arguments, chunks=chunks, **flags, **self._flags())

    def _columns(
        self, of_query: Tensor | None, of_key: Tensor | None, of_value: Tensor | None, *, chunks: int = 1
    ) -> None:
        call = self.call
        given = (*self.tensors, self.cot_query, self.cot_key, self.cot_value)
        rows = (self.lse, self.delta, self.means, self.products, self.gamma)
        arguments = (*map(call.map, given), *rows, *map(call.map, (of_query, of_key, of_value)))
        flags = {"OF_QUERY": of_query is not None, "OF_KEY": of_key is not None, "OF_VALUE": of_value is not None}
        call.start("second_columns", arguments, chunks=chunks, **flags, **self._flags())

    def _flags(self) -> dict[str, bool]:
        return {"GAMMA": self.gamma is not None, "MOVED": self.moved, "MIXED": self.mixed}

    def gradients(self, needs: Needs) -> Gradients:
        """Gradients of Q, K, V where they are needed, and always of dO."""
        call, (query, key, value, grad) = self.call, self.tensors
        of_query, of_key = (
            torch.empty_like(tensor) if need else None for tensor, need in zip((query, key), needs[:2], strict=True)
        )
        of_value = torch.empty_like(value) if needs[2] and self.moved else None
        of_grad = torch.empty_like(grad)
        atomics = call.atomics and needs[0]
        chunks = call.chunks("second_rows")
        one_sweep = call.tiles.one_sweep and chunks == 1 and of_query is not None and not atomics
        self._rows(of_query if one_sweep else None, of_grad, chunks=chunks, centred=self.centred)
        if chunks > 1:
            self.products = self.products.view(chunks, call.batch, -1).sum(0)
        if of_query is not None and not one_sweep and not atomics:
            self._rows(of_query, None, centred=self.moved)
        self._by_columns(of_query if atomics else None, of_key, of_value)
        if of_value is None and needs[2]:
            of_value = torch.zeros_like(value)
        return of_query, of_key, of_value, of_grad

    def _by_columns(self, of_query: Tensor | None, of_key: Tensor | None, of_value: Tensor | None) -> None:
        """``of_query`` is given where its sums are atomic."""
        query, key = self.tensors[:2]
        sums = None if of_query is None else torch.zeros_like(query, dtype=self.call.wide)
        if sums is not None and of_key is None:
            of_key = torch.empty_like(key)  # comes with the query's sums, and is dropped
        chunks = self.call.chunks("second_columns")
        together = chunks == 1 and of_key is not None
        if of_key is not None:
            self._columns(sums, of_key, of_value if together else None)
        if of_value is not None and not together:
            self._columns(None, None, of_value, chunks=chunks)
        if of_query is not None and sums is not None:
            of_query.copy_(sums)


def _or_zeros(tensor: Tensor | None, like: Tensor) -> Tensor:
    """A tensor of zeros that takes no memory where none is given."""
    return like.new_zeros(1).expand(like.shape) if tensor is None else tensor


def double_backward(
    inputs: Inputs,
    results: Gradients,
    grads: Gradients,
    cotangents: Gradients,
    needs: Needs,
    parameters: Parameters,
) -> Gradients:
    call = Call(*inputs, *parameters)
    tensors = (*inputs, grads[0])
    if call.empty or all(cotangent is None for cotangent in cotangents):
        return _zeros(tensors, needs)
    return Second(call, tensors, results, cotangents, None).gradients(needs)


# ------------------------------------------------------------------------------------------------- the fused residual


def residual_inference(inputs: Inputs, parameters: Parameters) -> tuple[Tensor]:
    """residual + gamma O where no derivative is wanted: O is never written."""
    query, key, value, residual, gamma = inputs
    call = Call(query, key, value, *parameters)
    result = torch.empty_like(residual)
    if call.empty:
        return (result.copy_(residual),)
    _forward(call, key, value, None, None, (residual, gamma, result))
    return (result,)


def residual_forward(inputs: Inputs, parameters: Parameters) -> tuple[Tensor, Tensor, Tensor]:
    query, key, value, residual, gamma = inputs
    call = Call(query, key, value, *parameters)
    out, lse = empty_results(inputs[:3], parameters)
    result = torch.empty_like(residual)
    if call.empty:
        return result.copy_(residual), out.zero_(), lse.fill_(-torch.inf)
    _forward(call, key, value, out, lse, (residual, gamma, result))
    return result, out, lse


def residual_backward(
    inputs: Inputs, results: Gradients, grads: Gradients, needs: Needs, parameters: Parameters
) -> Gradients:
    """dO = gamma dy is never formed: all is linear in it, and gamma multiplies the sums at their end."""
    query, key, value, _, gamma = inputs
    call = Call(query, key, value, *parameters)
    if call.empty:
        return (*_zeros(inputs[:3], needs[:3]), grads[0] if needs[3] else None, *_zeros(inputs[4:], needs[4:]))
    delta = _row_products(call, grads[0], results[1])
    of_gamma = delta.sum().to(gamma.dtype).reshape(gamma.shape) if needs[4] else None
    first = _first(call, key, value, grads[0], results[2], delta, gamma, needs[:3])
    return (*first, grads[0] if needs[3] else None, of_gamma)


def residual_double_backward(
    inputs: Inputs,
    results: Gradients,
    grads: Gradients,
    cotangents: Gradients,
    needs: Needs,
    parameters: Parameters,
) -> Gradients:
    """With dO = gamma dy: the gradient of dy is gamma O' + ddgamma O + ddx, that of gamma <dy, O'>.

    ddgamma also brings an ordinary first derivative with dO = ddgamma dy.
    """
    query, key, value, _, gamma = inputs
    _, out, lse = results
    (grad,) = grads
    call = Call(query, key, value, *parameters)
    *of_maps, cot_residual, cot_gamma = cotangents
    if not call.empty and any(cotangent is not None for cotangent in of_maps):
        second = Second(call, (query, key, value, grad), (out, lse), tuple(of_maps), gamma)
        *of_inputs, of_grad = second.gradients(needs[:3])
        of_gamma = second.products.sum().to(gamma.dtype).reshape(gamma.shape) if needs[4] else None
        of_inputs += [*_zeros(inputs[3:4], needs[3:4]), of_gamma]
    else:
        of_inputs, of_grad = list(_zeros(inputs, needs[:5])), torch.zeros_like(grad)
    if not call.empty and cot_gamma is not None:
        delta = _row_products(call, grad, out)
        first = _first(call, key, value, grad, lse, delta, cot_gamma, needs[:3])
        for position, gradient in enumerate(first):
            if gradient is not None:
                of_inputs[position] += gradient
        of_grad = torch.addcmul(of_grad, cot_gamma.reshape(()), out)
    if cot_residual is not None:
        of_grad = of_grad + cot_residual
    return (*of_inputs, of_grad if needs[5] else None)


nonlocal_attention = Backend("triton", reasons, forward, backward, double_backward, any_size=False)
nonlocal_attention_residual = Backend(
    "triton",
    residual_reasons,
    residual_forward,
    residual_backward,
    residual_double_backward,
    inference=residual_inference,
    any_size=False,
)
