# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False
"""Attention and its first derivative in Triton; nothing of size Nq x Nk is ever stored.

Symbols of tests/derivations/attention.py: S = scale Q K^T, L = logsumexp_j S_ij, P = exp(S - L), O = P V,
D = rowsum(dO o O), dS = P o (dO V^T - D).
"""

from __future__ import annotations

import triton
import triton.language as tl

from fastpose.ops.attention._triton_tiles import (
    LN2,
    LOG2E,
    addresses,
    is_inside,
    load_tile,
    multiplier,
    row_values,
    sliced_product,
    store_row_values,
    store_tile,
)


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
    q = load_tile(query, b, rows, narrow, queries, CK, 1)
    peak = tl.full([QUERIES], -float("inf"), WIDE)
    total = tl.zeros([QUERIES], WIDE)
    sums = tl.zeros([QUERIES, BLOCK_CV], WIDE)
    for start in range(0, keys, KEYS):
        columns = start + tl.arange(0, KEYS)
        k = load_tile(key, b, columns, narrow, keys, CK, 1)
        logits = tl.dot(q, tl.trans(k), input_precision=PRECISION, out_dtype=WIDE) * (scale * LOG2E)
        logits = tl.where((columns < keys)[None, :], logits, -float("inf"))
        raised = tl.maximum(peak, tl.max(logits, 1))
        base = tl.where(raised == -float("inf"), 0.0, raised)  # a block of impossible keys must not give inf - inf
        weights = tl.exp2(logits - base[:, None])
        decay = tl.exp2(peak - base)
        total = total * decay + tl.sum(weights, 1)
        v = load_tile(value, b, columns, wide, keys, CV, CHUNKS)
        sums = tl.dot(weights.to(v.dtype), v, sums * decay[:, None], input_precision=PRECISION, out_dtype=WIDE)
        peak = raised
    sums = sums / total[:, None]
    if KEEP:
        store_tile(out, b, rows, wide, queries, sums, CV, CHUNKS)
        if tl.program_id(2) == 0:
            store_row_values(lse, b, rows, queries, (peak + tl.log2(total)) * LN2)
    if GAMMA:
        base = load_tile(residual, b, rows, wide, queries, CV, CHUNKS).to(WIDE)
        # O is rounded as it is where it is stored: fused and unfused agree.
        rounded = sums.to(value.data.dtype.element_ty).to(WIDE)
        store_tile(result, b, rows, wide, queries, base + tl.load(gamma).to(WIDE) * rounded, CV, CHUNKS)


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
    x = load_tile(left, b, rows, wide, queries, CV, 1).to(WIDE)
    y = load_tile(right, b, rows, wide, queries, CV, 1).to(WIDE)
    store_row_values(products, b, rows, queries, tl.sum(x * y, 1))


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
    q = load_tile(query, b, rows, narrow, queries, CK, 1)
    if DEPTH == BLOCK_CV:
        do = load_tile(grad, b, rows, wide, queries, CV, 1)
    level = row_values(lse, b, rows, queries, float("inf")) * LOG2E
    mean = row_values(delta, b, rows, queries, 0.0)
    sums = tl.zeros([QUERIES, BLOCK_CK], WIDE)
    for start in range(0, keys, KEYS):
        columns = start + tl.arange(0, KEYS)
        k = load_tile(key, b, columns, narrow, keys, CK, 1)
        logits = tl.dot(q, tl.trans(k), input_precision=PRECISION, out_dtype=WIDE) * (scale * LOG2E)
        weights = tl.where((columns < keys)[None, :], tl.exp2(logits - level[:, None]), 0.0)
        if DEPTH == BLOCK_CV:
            v = load_tile(value, b, columns, wide, keys, CV, 1)
            slopes = tl.dot(do, tl.trans(v), input_precision=PRECISION, out_dtype=WIDE)
        else:
            slopes = sliced_product(grad, value, b, rows, columns, queries, keys, CV, BLOCK_CV, DEPTH, PRECISION, WIDE)
        slopes -= mean[:, None]
        sums = tl.dot((weights * slopes).to(k.dtype), k, sums, input_precision=PRECISION, out_dtype=WIDE)
    store_tile(grad_query, b, rows, narrow, queries, sums * (scale * multiplier(gamma, GAMMA, WIDE)), CK, 1)


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
    k = load_tile(key, b, columns, narrow, keys, CK, 1)
    factor = multiplier(gamma, GAMMA, WIDE)
    if OF_KEY:
        if DEPTH == BLOCK_CV:
            v = load_tile(value, b, columns, wide, keys, CV, CHUNKS)
        sums_key = tl.zeros([KEYS, BLOCK_CK], WIDE)
    if OF_VALUE:
        sums_value = tl.zeros([KEYS, BLOCK_CV], WIDE)
    for start in range(0, queries, QUERIES):
        rows = start + tl.arange(0, QUERIES)
        q = load_tile(query, b, rows, narrow, queries, CK, 1)
        if OF_VALUE or DEPTH == BLOCK_CV:
            do = load_tile(grad, b, rows, wide, queries, CV, CHUNKS)
        level = row_values(lse, b, rows, queries, float("inf")) * LOG2E  # rows that do not exist weigh nothing
        logits = tl.dot(k, tl.trans(q), input_precision=PRECISION, out_dtype=WIDE) * (scale * LOG2E)
        weights = tl.exp2(logits - level[None, :])
        if OF_VALUE:
            sums_value = tl.dot(weights.to(do.dtype), do, sums_value, input_precision=PRECISION, out_dtype=WIDE)
        if OF_KEY:
            mean = row_values(delta, b, rows, queries, 0.0)
            if DEPTH == BLOCK_CV:
                slopes = tl.dot(v, tl.trans(do), input_precision=PRECISION, out_dtype=WIDE)
            else:
                slopes = sliced_product(
                    value, grad, b, columns, rows, keys, queries, CV, BLOCK_CV, DEPTH, PRECISION, WIDE
                )
            slopes -= mean[None, :]
            changes = (weights * slopes).to(q.dtype)
            sums_key = tl.dot(changes, q, sums_key, input_precision=PRECISION, out_dtype=WIDE)
            if OF_QUERY:
                changes = tl.where((columns < keys)[:, None], changes, 0.0).to(q.dtype)
                part = tl.dot(tl.trans(changes), k, input_precision=PRECISION, out_dtype=WIDE) * (scale * factor)
                inside = is_inside(rows, narrow, queries, CK, 1)
                tl.atomic_add(addresses(grad_query, b, rows, narrow), part, mask=inside, sem="relaxed")
    if OF_KEY:
        store_tile(grad_key, b, columns, narrow, keys, sums_key * (scale * factor), CK, 1)
    if OF_VALUE:
        store_tile(grad_value, b, columns, wide, keys, sums_value * factor, CV, CHUNKS)
