# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False
"""Triton kernels of attention and of its first and second derivatives; nothing of size Nq x Nk is ever stored.

Symbols of tests/derivations/attention.py: S = scale Q K^T, L = logsumexp_j S_ij, P = exp(S - L), O = P V,
D = rowsum(dO o O), dS = P o (dO V^T - D); A, B, C the cotangents of dQ, dK, dV; S' = scale (A K^T + Q B^T),
e = rowsum(P o S'), P' = P o (S' - e), O' = P' V + P C, h = rowsum(dO o O'),
S2 = P' o (dO V^T - D) + P o (dO C^T - h) (the gradient of S).

A tensor travels as a ``Map``: its pointer and three strides, of which the one that is 1 becomes a constant. So the two
layouts (positions contiguous, channels contiguous) are served by the same source, each with its own coalesced loads.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor


class Map(NamedTuple):
    """A tensor (B, C, N) as kernels see it."""

    data: Tensor
    batch: int
    position: int
    channel: int


def dtype_of(dtype: torch.dtype) -> tl.dtype:
    """float32 or float64 in Triton's words."""
    return tl.float64 if dtype == torch.float64 else tl.float32


LOG2E: tl.constexpr = tl.constexpr(1.4426950408889634)
LN2: tl.constexpr = tl.constexpr(0.6931471805599453)


@triton.jit
def _offsets(map, b, positions, channels):
    """Addresses of a tile (positions, channels) of one sample."""
    start = map.data + b.to(tl.int64) * map.batch
    return start + (positions[:, None] * map.position + channels[None, :] * map.channel)


@triton.jit
def _inside(positions, channels, count, WIDTH: tl.constexpr, CHUNKS: tl.constexpr):
    """Which elements of a tile exist; the channels are not compared where the chunks fill the width."""
    inside = (positions < count)[:, None]
    if channels.shape[0] * CHUNKS != WIDTH:
        inside = inside & (channels < WIDTH)[None, :]
    return inside


@triton.jit
def _load(map, b, positions, channels, count, WIDTH: tl.constexpr, CHUNKS: tl.constexpr):
    """Tile (positions, channels), zero outside."""
    inside = _inside(positions, channels, count, WIDTH, CHUNKS)
    return tl.load(_offsets(map, b, positions, channels), mask=inside, other=0.0)


@triton.jit
def _store(map, b, positions, channels, count, tile, WIDTH: tl.constexpr, CHUNKS: tl.constexpr):
    inside = _inside(positions, channels, count, WIDTH, CHUNKS)
    tl.store(_offsets(map, b, positions, channels), tile.to(map.data.dtype.element_ty), mask=inside)


@triton.jit
def _row_values(pointer, b, rows, queries, outside):
    """One float32 per query position, from a contiguous (B, Nq)."""
    return tl.load(pointer + b.to(tl.int64) * queries + rows, mask=rows < queries, other=outside)


@triton.jit
def _store_row_values(pointer, b, rows, queries, values):
    tl.store(pointer + b.to(tl.int64) * queries + rows, values, mask=rows < queries)


@triton.jit
def _multiplier(gamma, GAMMA: tl.constexpr, WIDE: tl.constexpr):
    """The factor of a fused residual, or 1."""
    factor = 1.0
    if GAMMA:
        factor = tl.load(gamma).to(WIDE)
    return factor


@triton.jit
def _sliced_product(
    left, right, b, left_positions, right_positions, left_count, right_count,
    CV: tl.constexpr, BLOCK_CV: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """left right^T over all value channels, DEPTH of them at a time: whole operands would not fit the registers."""
    product = tl.zeros([left_positions.shape[0], right_positions.shape[0]], WIDE)
    for start in range(0, BLOCK_CV, DEPTH):
        channels = start + tl.arange(0, DEPTH)
        x = _load(left, b, left_positions, channels, left_count, CV, BLOCK_CV // DEPTH)
        y = _load(right, b, right_positions, channels, right_count, CV, BLOCK_CV // DEPTH)
        product = tl.dot(x, tl.trans(y), product, input_precision=PRECISION, out_dtype=WIDE)
    return product


@triton.jit
def forward(
    query, key, value, out, lse, residual, gamma, result, scale, queries, keys,
    CK: tl.constexpr, CV: tl.constexpr, BLOCK_CK: tl.constexpr, BLOCK_CV: tl.constexpr, CHUNKS: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr,
    KEEP: tl.constexpr, GAMMA: tl.constexpr,
):  # fmt: skip
    """O and L of a block of queries by the online softmax; with GAMMA also residual + gamma O.

    Without KEEP (no derivative is wanted) O and L stay here.
    """
    b = tl.program_id(1)
    rows = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    narrow = tl.arange(0, BLOCK_CK)
    wide = tl.program_id(2) * BLOCK_CV + tl.arange(0, BLOCK_CV)
    q = _load(query, b, rows, narrow, queries, CK, 1)
    peak = tl.full([QUERIES], -float("inf"), WIDE)
    total = tl.zeros([QUERIES], WIDE)
    sums = tl.zeros([QUERIES, BLOCK_CV], WIDE)
    for start in range(0, keys, KEYS):
        columns = start + tl.arange(0, KEYS)
        k = _load(key, b, columns, narrow, keys, CK, 1)
        logits = tl.dot(q, tl.trans(k), input_precision=PRECISION, out_dtype=WIDE) * (scale * LOG2E)
        logits = tl.where((columns < keys)[None, :], logits, -float("inf"))
        raised = tl.maximum(peak, tl.max(logits, 1))
        base = tl.where(raised == -float("inf"), 0.0, raised)  # a block of impossible keys must not give inf - inf
        weights = tl.exp2(logits - base[:, None])
        decay = tl.exp2(peak - base)
        total = total * decay + tl.sum(weights, 1)
        v = _load(value, b, columns, wide, keys, CV, CHUNKS)
        sums = tl.dot(weights.to(v.dtype), v, sums * decay[:, None], input_precision=PRECISION, out_dtype=WIDE)
        peak = raised
    sums = sums / total[:, None]
    if KEEP:
        _store(out, b, rows, wide, queries, sums, CV, CHUNKS)
        if tl.program_id(2) == 0:
            _store_row_values(lse, b, rows, queries, (peak + tl.log2(total)) * LN2)
    if GAMMA:
        base = _load(residual, b, rows, wide, queries, CV, CHUNKS).to(WIDE)
        # O is rounded as it is where it is stored: fused and unfused agree.
        rounded = sums.to(value.data.dtype.element_ty).to(WIDE)
        _store(result, b, rows, wide, queries, base + tl.load(gamma).to(WIDE) * rounded, CV, CHUNKS)


@triton.jit
def row_products(
    left, right, products, scale, queries, keys,
    CK: tl.constexpr, CV: tl.constexpr, BLOCK_CK: tl.constexpr, BLOCK_CV: tl.constexpr, CHUNKS: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """rowsum(left o right) in float32: D from dO and O."""
    b = tl.program_id(1)
    rows = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    wide = tl.arange(0, BLOCK_CV)
    x = _load(left, b, rows, wide, queries, CV, 1).to(WIDE)
    y = _load(right, b, rows, wide, queries, CV, 1).to(WIDE)
    _store_row_values(products, b, rows, queries, tl.sum(x * y, 1))


@triton.jit
def rows(
    query, key, value, grad, lse, delta, gamma, grad_query, scale, queries, keys,
    CK: tl.constexpr, CV: tl.constexpr, BLOCK_CK: tl.constexpr, BLOCK_CV: tl.constexpr, CHUNKS: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr,
    GAMMA: tl.constexpr,
):  # fmt: skip
    """First derivative by rows: dQ = scale dS K."""
    b = tl.program_id(1)
    rows = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    narrow, wide = tl.arange(0, BLOCK_CK), tl.arange(0, BLOCK_CV)
    q = _load(query, b, rows, narrow, queries, CK, 1)
    if DEPTH == BLOCK_CV:
        do = _load(grad, b, rows, wide, queries, CV, 1)
    level = _row_values(lse, b, rows, queries, float("inf")) * LOG2E
    mean = _row_values(delta, b, rows, queries, 0.0)
    sums = tl.zeros([QUERIES, BLOCK_CK], WIDE)
    for start in range(0, keys, KEYS):
        columns = start + tl.arange(0, KEYS)
        k = _load(key, b, columns, narrow, keys, CK, 1)
        logits = tl.dot(q, tl.trans(k), input_precision=PRECISION, out_dtype=WIDE) * (scale * LOG2E)
        weights = tl.where((columns < keys)[None, :], tl.exp2(logits - level[:, None]), 0.0)
        if DEPTH == BLOCK_CV:
            v = _load(value, b, columns, wide, keys, CV, 1)
            slopes = tl.dot(do, tl.trans(v), input_precision=PRECISION, out_dtype=WIDE)
        else:
            slopes = _sliced_product(grad, value, b, rows, columns, queries, keys, CV, BLOCK_CV, DEPTH, PRECISION, WIDE)
        slopes -= mean[:, None]
        sums = tl.dot((weights * slopes).to(k.dtype), k, sums, input_precision=PRECISION, out_dtype=WIDE)
    _store(grad_query, b, rows, narrow, queries, sums * (scale * _multiplier(gamma, GAMMA, WIDE)), CK, 1)


@triton.jit
def columns(
    query, key, value, grad, lse, delta, gamma, grad_query, grad_key, grad_value, scale, queries, keys,
    CK: tl.constexpr, CV: tl.constexpr, BLOCK_CK: tl.constexpr, BLOCK_CV: tl.constexpr, CHUNKS: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr,
    GAMMA: tl.constexpr, OF_KEY: tl.constexpr, OF_VALUE: tl.constexpr, OF_QUERY: tl.constexpr,
):  # fmt: skip
    """First derivative by columns: dK = scale dS^T Q, dV = P^T dO, and with OF_QUERY dQ by atomic sums.

    OF_KEY needs all value channels at once (CHUNKS = 1); OF_VALUE alone may take a chunk per program.
    """
    b = tl.program_id(1)
    columns = tl.program_id(0) * KEYS + tl.arange(0, KEYS)
    narrow = tl.arange(0, BLOCK_CK)
    wide = tl.program_id(2) * BLOCK_CV + tl.arange(0, BLOCK_CV)
    k = _load(key, b, columns, narrow, keys, CK, 1)
    factor = _multiplier(gamma, GAMMA, WIDE)
    if OF_KEY:
        if DEPTH == BLOCK_CV:
            v = _load(value, b, columns, wide, keys, CV, CHUNKS)
        sums_key = tl.zeros([KEYS, BLOCK_CK], WIDE)
    if OF_VALUE:
        sums_value = tl.zeros([KEYS, BLOCK_CV], WIDE)
    for start in range(0, queries, QUERIES):
        rows = start + tl.arange(0, QUERIES)
        q = _load(query, b, rows, narrow, queries, CK, 1)
        if OF_VALUE or DEPTH == BLOCK_CV:
            do = _load(grad, b, rows, wide, queries, CV, CHUNKS)
        level = _row_values(lse, b, rows, queries, float("inf")) * LOG2E  # rows that do not exist weigh nothing
        logits = tl.dot(k, tl.trans(q), input_precision=PRECISION, out_dtype=WIDE) * (scale * LOG2E)
        weights = tl.exp2(logits - level[None, :])
        if OF_VALUE:
            sums_value = tl.dot(weights.to(do.dtype), do, sums_value, input_precision=PRECISION, out_dtype=WIDE)
        if OF_KEY:
            mean = _row_values(delta, b, rows, queries, 0.0)
            if DEPTH == BLOCK_CV:
                slopes = tl.dot(v, tl.trans(do), input_precision=PRECISION, out_dtype=WIDE)
            else:
                slopes = _sliced_product(
                    value, grad, b, columns, rows, keys, queries, CV, BLOCK_CV, DEPTH, PRECISION, WIDE
                )
            slopes -= mean[None, :]
            changes = (weights * slopes).to(q.dtype)
            sums_key = tl.dot(changes, q, sums_key, input_precision=PRECISION, out_dtype=WIDE)
            if OF_QUERY:
                changes = tl.where((columns < keys)[:, None], changes, 0.0).to(q.dtype)
                part = tl.dot(tl.trans(changes), k, input_precision=PRECISION, out_dtype=WIDE) * (scale * factor)
                inside = _inside(rows, narrow, queries, CK, 1)
                tl.atomic_add(_offsets(grad_query, b, rows, narrow), part, mask=inside, sem="relaxed")
    if OF_KEY:
        _store(grad_key, b, columns, narrow, keys, sums_key * (scale * factor), CK, 1)
    if OF_VALUE:
        _store(grad_value, b, columns, wide, keys, sums_value * factor, CV, CHUNKS)


@triton.jit
def means(
    query, key, cot_query, cot_key, lse, means, scale, queries, keys,
    CK: tl.constexpr, CV: tl.constexpr, BLOCK_CK: tl.constexpr, BLOCK_CV: tl.constexpr, CHUNKS: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """e = rowsum(P o S'): known beforehand it is subtracted before 16-bit operands are rounded, not after."""
    b = tl.program_id(1)
    rows = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    narrow = tl.arange(0, BLOCK_CK)
    q = _load(query, b, rows, narrow, queries, CK, 1)
    qt = _load(cot_query, b, rows, narrow, queries, CK, 1)
    level = _row_values(lse, b, rows, queries, float("inf")) * LOG2E
    sums = tl.zeros([QUERIES], WIDE)
    for start in range(0, keys, KEYS):
        columns = start + tl.arange(0, KEYS)
        k = _load(key, b, columns, narrow, keys, CK, 1)
        kt = _load(cot_key, b, columns, narrow, keys, CK, 1)
        logits = tl.dot(q, tl.trans(k), input_precision=PRECISION, out_dtype=WIDE) * (scale * LOG2E)
        weights = tl.where((columns < keys)[None, :], tl.exp2(logits - level[:, None]), 0.0)
        tangent = tl.dot(qt, tl.trans(k), input_precision=PRECISION, out_dtype=WIDE)
        tangent = tl.dot(q, tl.trans(kt), tangent, input_precision=PRECISION, out_dtype=WIDE)
        sums += tl.sum(weights * tangent, 1)
    _store_row_values(means, b, rows, queries, sums * scale)


@triton.jit
def second_rows(
    query, key, value, out, grad, cot_query, cot_key, cot_value, lse, delta, means, products, gamma,
    grad_query, grad_grad, scale, queries, keys,
    CK: tl.constexpr, CV: tl.constexpr, BLOCK_CK: tl.constexpr, BLOCK_CV: tl.constexpr, CHUNKS: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr,
    GAMMA: tl.constexpr, OF_GRAD: tl.constexpr, OF_QUERY: tl.constexpr, CENTRED: tl.constexpr,
    MOVED: tl.constexpr, MIXED: tl.constexpr,
):  # fmt: skip
    """Second derivative by rows: O' (the gradient of dO), e, h, and the gradient of Q.

    With OF_GRAD and OF_QUERY together one sweep gives all: the gradient of Q is affine in e and h, which are known
    only at its end: scale (sum_j [P o S' o (dP - D) + P o W] K + dS B - e dS K - h P K). OF_QUERY alone takes e and h
    from an earlier sweep. CENTRED: e is known beforehand. MOVED: A or B is given (else S' = 0); MIXED: C is given.
    Chunks of the value channels are for OF_GRAD alone; ``products`` is then (CHUNKS, B, Nq), to be summed.
    """
    b = tl.program_id(1)
    rows = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    narrow = tl.arange(0, BLOCK_CK)
    wide = tl.program_id(2) * BLOCK_CV + tl.arange(0, BLOCK_CV)
    q = _load(query, b, rows, narrow, queries, CK, 1)
    level = _row_values(lse, b, rows, queries, float("inf")) * LOG2E
    mean = tl.zeros([QUERIES], WIDE)
    if MOVED:
        qt = _load(cot_query, b, rows, narrow, queries, CK, 1)
        if CENTRED:
            mean = _row_values(means, b, rows, queries, 0.0)
    if OF_GRAD:
        sums = tl.zeros([QUERIES, BLOCK_CV], WIDE)
    if OF_QUERY:
        if DEPTH == BLOCK_CV:
            do = _load(grad, b, rows, wide, queries, CV, CHUNKS)
        slope = _row_values(delta, b, rows, queries, 0.0)
        of_query = tl.zeros([QUERIES, BLOCK_CK], WIDE)
        if OF_GRAD:
            weighted = tl.zeros([QUERIES, BLOCK_CK], WIDE)  # P K
            if MOVED and not CENTRED:
                changed = tl.zeros([QUERIES, BLOCK_CK], WIDE)  # dS K
        else:
            product = _row_values(products, b, rows, queries, 0.0)
    for start in range(0, keys, KEYS):
        columns = start + tl.arange(0, KEYS)
        k = _load(key, b, columns, narrow, keys, CK, 1)
        logits = tl.dot(q, tl.trans(k), input_precision=PRECISION, out_dtype=WIDE) * (scale * LOG2E)
        weights = tl.where((columns < keys)[None, :], tl.exp2(logits - level[:, None]), 0.0)
        if MOVED:
            kt = _load(cot_key, b, columns, narrow, keys, CK, 1)
            tangent = tl.dot(qt, tl.trans(k), input_precision=PRECISION, out_dtype=WIDE)
            tangent = tl.dot(q, tl.trans(kt), tangent, input_precision=PRECISION, out_dtype=WIDE) * scale
            if CENTRED:
                tangent -= mean[:, None]
            moved = weights * tangent
            if OF_GRAD and not CENTRED:
                mean += tl.sum(moved, 1)
        if OF_GRAD or DEPTH == BLOCK_CV:
            v = _load(value, b, columns, wide, keys, CV, CHUNKS)
            if MIXED:
                vt = _load(cot_value, b, columns, wide, keys, CV, CHUNKS)
        if OF_GRAD:
            if MOVED:
                sums = tl.dot(moved.to(v.dtype), v, sums, input_precision=PRECISION, out_dtype=WIDE)
            if MIXED:
                sums = tl.dot(weights.to(vt.dtype), vt, sums, input_precision=PRECISION, out_dtype=WIDE)
        if OF_QUERY:
            bend = tl.zeros([QUERIES, KEYS], WIDE)
            if DEPTH == BLOCK_CV:
                slopes = tl.dot(do, tl.trans(v), input_precision=PRECISION, out_dtype=WIDE)
                if MIXED:
                    bend = tl.dot(do, tl.trans(vt), input_precision=PRECISION, out_dtype=WIDE)
            else:
                slopes = _sliced_product(
                    grad, value, b, rows, columns, queries, keys, CV, BLOCK_CV, DEPTH, PRECISION, WIDE
                )
                if MIXED:
                    bend = _sliced_product(
                        grad, cot_value, b, rows, columns, queries, keys, CV, BLOCK_CV, DEPTH, PRECISION, WIDE
                    )
            slopes -= slope[:, None]
            if not OF_GRAD:
                bend -= product[:, None]
            bend *= weights
            if MOVED:
                bend += moved * slopes
                changes = (weights * slopes).to(k.dtype)
                of_query = tl.dot(changes, kt, of_query, input_precision=PRECISION, out_dtype=WIDE)
                if OF_GRAD and not CENTRED:
                    changed = tl.dot(changes, k, changed, input_precision=PRECISION, out_dtype=WIDE)
            of_query = tl.dot(bend.to(k.dtype), k, of_query, input_precision=PRECISION, out_dtype=WIDE)
            if OF_GRAD:
                weighted = tl.dot(weights.to(k.dtype), k, weighted, input_precision=PRECISION, out_dtype=WIDE)
    factor = _multiplier(gamma, GAMMA, WIDE)
    if OF_GRAD:
        if MOVED and not CENTRED:
            sums -= mean[:, None] * _load(out, b, rows, wide, queries, CV, CHUNKS).to(WIDE)
            if tl.program_id(2) == 0:
                _store_row_values(means, b, rows, queries, mean)
        if not OF_QUERY or DEPTH < BLOCK_CV:
            do = _load(grad, b, rows, wide, queries, CV, CHUNKS)
        product = tl.sum(do.to(WIDE) * sums, 1)
        part = tl.program_id(2).to(tl.int64) * tl.num_programs(1) * queries
        _store_row_values(products + part, b, rows, queries, product)
        _store(grad_grad, b, rows, wide, queries, sums * factor, CV, CHUNKS)
    if OF_QUERY:
        if OF_GRAD:
            of_query -= product[:, None] * weighted
            if MOVED and not CENTRED:
                of_query -= mean[:, None] * changed
        _store(grad_query, b, rows, narrow, queries, of_query * (scale * factor), CK, 1)


@triton.jit
def second_columns(
    query, key, value, grad, cot_query, cot_key, cot_value, lse, delta, means, products, gamma,
    grad_query, grad_key, grad_value, scale, queries, keys,
    CK: tl.constexpr, CV: tl.constexpr, BLOCK_CK: tl.constexpr, BLOCK_CV: tl.constexpr, CHUNKS: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr,
    GAMMA: tl.constexpr, OF_KEY: tl.constexpr, OF_VALUE: tl.constexpr, OF_QUERY: tl.constexpr,
    MOVED: tl.constexpr, MIXED: tl.constexpr,
):  # fmt: skip
    """Second derivative by columns: the gradients of K (S2^T Q + dS^T A) and V (P'^T dO).

    With OF_QUERY that of Q (S2 K + dS B) by atomic sums. OF_KEY needs all value channels at once (CHUNKS = 1);
    OF_VALUE, which needs MOVED, may take a chunk per program when it is alone.
    """
    b = tl.program_id(1)
    columns = tl.program_id(0) * KEYS + tl.arange(0, KEYS)
    narrow = tl.arange(0, BLOCK_CK)
    wide = tl.program_id(2) * BLOCK_CV + tl.arange(0, BLOCK_CV)
    k = _load(key, b, columns, narrow, keys, CK, 1)
    factor = _multiplier(gamma, GAMMA, WIDE)
    if MOVED:
        kt = _load(cot_key, b, columns, narrow, keys, CK, 1)
    if OF_KEY:
        if DEPTH == BLOCK_CV:
            v = _load(value, b, columns, wide, keys, CV, CHUNKS)
            if MIXED:
                vt = _load(cot_value, b, columns, wide, keys, CV, CHUNKS)
        sums_key = tl.zeros([KEYS, BLOCK_CK], WIDE)
    if OF_VALUE:
        sums_value = tl.zeros([KEYS, BLOCK_CV], WIDE)
    for start in range(0, queries, QUERIES):
        rows = start + tl.arange(0, QUERIES)
        q = _load(query, b, rows, narrow, queries, CK, 1)
        if OF_VALUE or DEPTH == BLOCK_CV:
            do = _load(grad, b, rows, wide, queries, CV, CHUNKS)
        level = _row_values(lse, b, rows, queries, float("inf")) * LOG2E  # rows that do not exist weigh nothing
        logits = tl.dot(k, tl.trans(q), input_precision=PRECISION, out_dtype=WIDE) * (scale * LOG2E)
        weights = tl.exp2(logits - level[None, :])
        if MOVED:
            qt = _load(cot_query, b, rows, narrow, queries, CK, 1)
            mean = _row_values(means, b, rows, queries, 0.0)
            tangent = tl.dot(k, tl.trans(qt), input_precision=PRECISION, out_dtype=WIDE)
            tangent = tl.dot(kt, tl.trans(q), tangent, input_precision=PRECISION, out_dtype=WIDE) * scale
            moved = weights * (tangent - mean[None, :])
            if OF_VALUE:
                sums_value = tl.dot(moved.to(do.dtype), do, sums_value, input_precision=PRECISION, out_dtype=WIDE)
        if OF_KEY:
            product = _row_values(products, b, rows, queries, 0.0)
            bend = tl.zeros([KEYS, QUERIES], WIDE)
            if MIXED:
                if DEPTH == BLOCK_CV:
                    bend = tl.dot(vt, tl.trans(do), input_precision=PRECISION, out_dtype=WIDE)
                else:
                    bend = _sliced_product(
                        cot_value, grad, b, columns, rows, keys, queries, CV, BLOCK_CV, DEPTH, PRECISION, WIDE
                    )
            bend = weights * (bend - product[None, :])
            if MOVED:
                slope = _row_values(delta, b, rows, queries, 0.0)
                if DEPTH == BLOCK_CV:
                    slopes = tl.dot(v, tl.trans(do), input_precision=PRECISION, out_dtype=WIDE)
                else:
                    slopes = _sliced_product(
                        value, grad, b, columns, rows, keys, queries, CV, BLOCK_CV, DEPTH, PRECISION, WIDE
                    )
                slopes -= slope[None, :]
                bend += moved * slopes
                changes = (weights * slopes).to(q.dtype)
                sums_key = tl.dot(changes, qt, sums_key, input_precision=PRECISION, out_dtype=WIDE)
            bend16 = bend.to(q.dtype)
            sums_key = tl.dot(bend16, q, sums_key, input_precision=PRECISION, out_dtype=WIDE)
            if OF_QUERY:
                exists = (columns < keys)[:, None]
                part = tl.dot(
                    tl.trans(tl.where(exists, bend16, 0.0).to(q.dtype)), k, input_precision=PRECISION, out_dtype=WIDE
                )
                if MOVED:
                    changes = tl.where(exists, changes, 0.0).to(q.dtype)
                    part = tl.dot(tl.trans(changes), kt, part, input_precision=PRECISION, out_dtype=WIDE)
                inside = _inside(rows, narrow, queries, CK, 1)
                address = _offsets(grad_query, b, rows, narrow)
                tl.atomic_add(address, part * (scale * factor), mask=inside, sem="relaxed")
    if OF_KEY:
        _store(grad_key, b, columns, narrow, keys, sums_key * (scale * factor), CK, 1)
    if OF_VALUE:
        _store(grad_value, b, columns, wide, keys, sums_value * factor, CV, CHUNKS)
