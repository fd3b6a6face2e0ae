# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False
"""The second derivative of attention in Triton; nothing of size Nq x Nk is ever stored.

Symbols of tests/derivations/attention.py: S = scale Q K^T, L = logsumexp_j S_ij, P = exp(S - L), O = P V,
D = rowsum(dO o O), dS = P o (dO V^T - D); A, B, C the cotangents of dQ, dK, dV; S' = scale (A K^T + Q B^T),
e = rowsum(P o S'), P' = P o (S' - e), O' = P' V + P C, h = rowsum(dO o O'),
S2 = P' o (dO V^T - D) + P o (dO C^T - h) (the gradient of S).
"""

from __future__ import annotations

import triton
import triton.language as tl

from fastpose.ops.attention._triton_tiles import (
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
def means(
    query, key, cot_query, cot_key, lse, means, scale, queries, keys,
    CK: tl.constexpr, CV: tl.constexpr, BLOCK_CK: tl.constexpr, BLOCK_CV: tl.constexpr, CHUNKS: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """e = rowsum(P o S'): known beforehand it is subtracted before 16-bit operands are rounded, not after."""
    b = tl.program_id(1)
    rows = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    narrow = tl.arange(0, BLOCK_CK)
    q = load_tile(query, b, rows, narrow, queries, CK, 1)
    qt = load_tile(cot_query, b, rows, narrow, queries, CK, 1)
    level = row_values(lse, b, rows, queries, float("inf")) * LOG2E
    sums = tl.zeros([QUERIES], WIDE)
    for start in range(0, keys, KEYS):
        columns = start + tl.arange(0, KEYS)
        k = load_tile(key, b, columns, narrow, keys, CK, 1)
        kt = load_tile(cot_key, b, columns, narrow, keys, CK, 1)
        logits = tl.dot(q, tl.trans(k), input_precision=PRECISION, out_dtype=WIDE) * (scale * LOG2E)
        weights = tl.where((columns < keys)[None, :], tl.exp2(logits - level[:, None]), 0.0)
        tangent = tl.dot(qt, tl.trans(k), input_precision=PRECISION, out_dtype=WIDE)
        tangent = tl.dot(q, tl.trans(kt), tangent, input_precision=PRECISION, out_dtype=WIDE)
        sums += tl.sum(weights * tangent, 1)
    store_row_values(means, b, rows, queries, sums * scale)


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
    q = load_tile(query, b, rows, narrow, queries, CK, 1)
    level = row_values(lse, b, rows, queries, float("inf")) * LOG2E
    mean = tl.zeros([QUERIES], WIDE)
    if MOVED:
        qt = load_tile(cot_query, b, rows, narrow, queries, CK, 1)
        if CENTRED:
            mean = row_values(means, b, rows, queries, 0.0)
    if OF_GRAD:
        sums = tl.zeros([QUERIES, BLOCK_CV], WIDE)
    if OF_QUERY:
        if DEPTH == BLOCK_CV:
            do = load_tile(grad, b, rows, wide, queries, CV, CHUNKS)
        slope = row_values(delta, b, rows, queries, 0.0)
        of_query = tl.zeros([QUERIES, BLOCK_CK], WIDE)
        if OF_GRAD:
            weighted = tl.zeros([QUERIES, BLOCK_CK], WIDE)  # P K
            if MOVED and not CENTRED:
                changed = tl.zeros([QUERIES, BLOCK_CK], WIDE)  # dS K
        else:
            product = row_values(products, b, rows, queries, 0.0)
    for start in range(0, keys, KEYS):
        columns = start + tl.arange(0, KEYS)
        k = load_tile(key, b, columns, narrow, keys, CK, 1)
        logits = tl.dot(q, tl.trans(k), input_precision=PRECISION, out_dtype=WIDE) * (scale * LOG2E)
        weights = tl.where((columns < keys)[None, :], tl.exp2(logits - level[:, None]), 0.0)
        if MOVED:
            kt = load_tile(cot_key, b, columns, narrow, keys, CK, 1)
            tangent = tl.dot(qt, tl.trans(k), input_precision=PRECISION, out_dtype=WIDE)
            tangent = tl.dot(q, tl.trans(kt), tangent, input_precision=PRECISION, out_dtype=WIDE) * scale
            if CENTRED:
                tangent -= mean[:, None]
            moved = weights * tangent
            if OF_GRAD and not CENTRED:
                mean += tl.sum(moved, 1)
        if OF_GRAD or DEPTH == BLOCK_CV:
            v = load_tile(value, b, columns, wide, keys, CV, CHUNKS)
            if MIXED:
                vt = load_tile(cot_value, b, columns, wide, keys, CV, CHUNKS)
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
                slopes = sliced_product(
                    grad, value, b, rows, columns, queries, keys, CV, BLOCK_CV, DEPTH, PRECISION, WIDE
                )
                if MIXED:
                    bend = sliced_product(
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
    factor = multiplier(gamma, GAMMA, WIDE)
    if OF_GRAD:
        if MOVED and not CENTRED:
            sums -= mean[:, None] * load_tile(out, b, rows, wide, queries, CV, CHUNKS).to(WIDE)
            if tl.program_id(2) == 0:
                store_row_values(means, b, rows, queries, mean)
        if not OF_QUERY or DEPTH < BLOCK_CV:
            do = load_tile(grad, b, rows, wide, queries, CV, CHUNKS)
        product = tl.sum(do.to(WIDE) * sums, 1)
        part = tl.program_id(2).to(tl.int64) * tl.num_programs(1) * queries
        store_row_values(products + part, b, rows, queries, product)
        store_tile(grad_grad, b, rows, wide, queries, sums * factor, CV, CHUNKS)
    if OF_QUERY:
        if OF_GRAD:
            of_query -= product[:, None] * weighted
            if MOVED and not CENTRED:
                of_query -= mean[:, None] * changed
        store_tile(grad_query, b, rows, narrow, queries, of_query * (scale * factor), CK, 1)


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
    k = load_tile(key, b, columns, narrow, keys, CK, 1)
    factor = multiplier(gamma, GAMMA, WIDE)
    if MOVED:
        kt = load_tile(cot_key, b, columns, narrow, keys, CK, 1)
    if OF_KEY:
        if DEPTH == BLOCK_CV:
            v = load_tile(value, b, columns, wide, keys, CV, CHUNKS)
            if MIXED:
                vt = load_tile(cot_value, b, columns, wide, keys, CV, CHUNKS)
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
        if MOVED:
            qt = load_tile(cot_query, b, rows, narrow, queries, CK, 1)
            mean = row_values(means, b, rows, queries, 0.0)
            tangent = tl.dot(k, tl.trans(qt), input_precision=PRECISION, out_dtype=WIDE)
            tangent = tl.dot(kt, tl.trans(q), tangent, input_precision=PRECISION, out_dtype=WIDE) * scale
            moved = weights * (tangent - mean[None, :])
            if OF_VALUE:
                sums_value = tl.dot(moved.to(do.dtype), do, sums_value, input_precision=PRECISION, out_dtype=WIDE)
        if OF_KEY:
            product = row_values(products, b, rows, queries, 0.0)
            bend = tl.zeros([KEYS, QUERIES], WIDE)
            if MIXED:
                if DEPTH == BLOCK_CV:
                    bend = tl.dot(vt, tl.trans(do), input_precision=PRECISION, out_dtype=WIDE)
                else:
                    bend = sliced_product(
                        cot_value, grad, b, columns, rows, keys, queries, CV, BLOCK_CV, DEPTH, PRECISION, WIDE
                    )
            bend = weights * (bend - product[None, :])
            if MOVED:
                slope = row_values(delta, b, rows, queries, 0.0)
                if DEPTH == BLOCK_CV:
                    slopes = tl.dot(v, tl.trans(do), input_precision=PRECISION, out_dtype=WIDE)
                else:
                    slopes = sliced_product(
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
                inside = is_inside(rows, narrow, queries, CK, 1)
                address = addresses(grad_query, b, rows, narrow)
                tl.atomic_add(address, part * (scale * factor), mask=inside, sem="relaxed")
    if OF_KEY:
        store_tile(grad_key, b, columns, narrow, keys, sums_key * (scale * factor), CK, 1)
    if OF_VALUE:
        store_tile(grad_value, b, columns, wide, keys, sums_value * factor, CV, CHUNKS)
