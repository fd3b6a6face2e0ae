"""Attention at the sizes of the published systems."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from fastpose import ops
from fastpose.benchmark import baselines
from fastpose.benchmark.cases._case import (
    AVX2,
    BACKWARD,
    DOUBLE,
    FLOAT32,
    FORWARD,
    ORDERS,
    PENALTY,
    Case,
    Work,
    channels_last,
    random,
)


def attention_work(batch: int, ck: int, cv: int, queries: int, keys: int, orders: tuple[str, ...]) -> dict[str, Work]:
    """Return the operations of each order: Ck + Cv, 3 Ck + 2 Cv and 7 Ck + 5 Cv multiply-adds per pair of positions.

    Each product counts once, however often a kernel computes it again. The double backward is counted alone: the graph
    of the first is there when its clock starts. A step of a gradient penalty is all three.
    """
    pairs = 2.0 * batch * queries * keys
    forward = pairs * (ck + cv)
    every = {
        FORWARD: Work(forward),
        BACKWARD: Work(forward + pairs * (3 * ck + 2 * cv)),
        DOUBLE: Work(pairs * (7 * ck + 5 * cv)),
        PENALTY: Work(pairs * (11 * ck + 8 * cv)),
    }
    return {order: every[order] for order in orders}


def attention(
    batch: int,
    ck: int,
    cv: int,
    query_size: tuple[int, int],
    key_size: tuple[int, int] | None = None,
    *,
    note: str = "",
    orders: tuple[str, ...] = ORDERS,
    sdpa_twice: bool = False,
    layout: Callable = lambda make: make,
    **options: Any,
) -> Case:
    """Return a case of nonlocal_attention; ``sdpa_twice`` times SDPA's double backward as well.

    A loop over blocks of queries saves nothing once a gradient is wanted: it is timed forward only. SDPA's math kernel,
    the one of its kernels that has a second derivative, is timed in the step of a gradient penalty only.
    """
    key_size = key_size or query_size
    queries, keys = query_size[0] * query_size[1], key_size[0] * key_size[1]
    shapes = ((batch, ck, *query_size), (batch, ck, *key_size), (batch, cv, *key_size))
    pooled = "" if keys == queries else f"x{keys}"
    return Case(
        "nonlocal_attention",
        f"B={batch} Ck={ck} Cv={cv} N={queries}{pooled}{' ' if note else ''}{note}",
        layout(random(*shapes, scale=0.3, dtype=options.get("dtype", "float32"))),
        lambda tensors, **backend: ops.nonlocal_attention(*tensors, **backend),
        "nonlocal_attention",
        {
            "sdpa": baselines.attention_sdpa,
            "blocked": baselines.attention_blocked,
            "sdpa math": partial(baselines.attention_sdpa_by, kernel=baselines.SDPA["sdpa math"]),
        },
        attention_work(batch, ck, cv, queries, keys, orders),
        wanting=(0, 1, 2),
        left_out=frozenset(
            {
                *(("blocked", order) for order in (BACKWARD, DOUBLE, PENALTY)),
                *(("sdpa", order) for order in (DOUBLE, PENALTY) if order == PENALTY or not sdpa_twice),
                *(("sdpa math", order) for order in ORDERS),
            }
        ),
        map_bytes=float((2 if options.get("dtype") in ("bfloat16", "float16") else 4) * batch * queries * keys),
        **options,
    )


def attention_residual(batch: int, ck: int, cv: int, size: tuple[int, int]) -> Case:
    """Return a case of nonlocal_attention_residual: query, key, value, residual, gamma."""
    maps = ((batch, ck, *size), (batch, ck, *size), (batch, cv, *size), (batch, cv, *size))
    positions = size[0] * size[1]
    return Case(
        "nonlocal_attention_residual",
        f"B={batch} Ck={ck} Cv={cv} N={positions}",
        random(*maps, (1,), scale=0.3),
        lambda tensors, **backend: ops.nonlocal_attention_residual(*tensors, **backend),
        "nonlocal_attention",
        {"sdpa": baselines.attention_residual_sdpa},
        attention_work(batch, ck, cv, positions, positions, ORDERS),
        wanting=(0, 1, 2, 3, 4),
        left_out=frozenset({("sdpa", DOUBLE)}),
    )


def attention_rows(batch: int, ck: int, size: tuple[int, int]) -> Case:
    """Return a case of attention_rows at nine positions."""
    positions = [[x * size[1] // 4, y * size[0] // 4] for x in (1, 2, 3) for y in (1, 2, 3)]
    count = size[0] * size[1]
    return Case(
        "attention_rows",
        f"B={batch} Ck={ck} N={count}, 9 positions",
        random((batch, ck, *size), (batch, ck, *size), scale=0.3),
        lambda tensors: ops.attention_rows(tensors[0], tensors[1], positions),
        None,
        {"whole map": partial(baselines.rows_of_whole_map, positions=positions)},
        {FORWARD: Work(2.0 * batch * len(positions) * count * ck)},
    )


# The map that stands for all where one size has to do (memory, residual, layouts): SARM-B behind an hourglass.
MAIN = (1, 32, 256, (64, 64))

FIRST = (FORWARD, BACKWARD)

ATTENTION = (
    # SARM-B behind an hourglass; top skip branch of the discriminator
    attention(*MAIN, note="(000)", orders=(*ORDERS, PENALTY), sdpa_twice=True, also=(AVX2,)),
    attention(*MAIN, note="(000) channels last", orders=FIRST, layout=channels_last),
    attention(*MAIN, note="(000) bfloat16", orders=FIRST, dtype="bfloat16", also=(FLOAT32,)),
    attention(2, 32, 256, (32, 32), note="(000)"),  # skip branches of the discriminator
    attention(6, 32, 256, (16, 16), note="(000)"),
    attention(6, 32, 256, (8, 8), note="(000)"),
    attention(1, 32, 256, (64, 44), note="(001)"),  # PoNA on 256 x 176 images
    attention(2, 32, 256, (32, 16), note="(001)"),  # PoNA on 128 x 64 images
    attention(1, 64, 512, (64, 64), note="(003)"),
    attention(1, 32, 128, (64, 64), (32, 32), note="pooled keys"),  # as SAGAN and BigGAN pool them
    attention_residual(*MAIN),
    attention_rows(1, 32, (64, 64)),
)
# Channels, positions and batches of published networks beyond those above: nowhere may another way be faster.
SIZES = (
    attention(1, 8, 64, (32, 32), orders=FIRST),
    attention(16, 8, 64, (32, 32), orders=FIRST),
    attention(1, 8, 64, (64, 64), orders=FIRST),
    attention(6, 32, 128, (16, 16), orders=FIRST),
    attention(1, 32, 128, (32, 32), orders=FIRST),
    attention(1, 32, 128, (64, 64), orders=FIRST),
    attention(16, 32, 256, (8, 8), orders=FIRST),
    attention(16, 32, 256, (16, 16), orders=FIRST),
    attention(1, 32, 256, (32, 32), orders=FIRST),
    attention(1, 32, 256, (128, 64), orders=FIRST),
    attention(2, 64, 512, (16, 16), orders=FIRST),
    attention(1, 64, 512, (32, 32), orders=FIRST),
    attention(1, 64, 512, (64, 44), orders=FIRST),
)
