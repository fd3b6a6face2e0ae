"""How time and memory grow with the number of positions, the batch and the number of joints."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fastpose.benchmark import cases, memory, orders
from fastpose.benchmark.cases import BACKWARD, FORWARD, Case
from fastpose.benchmark.run import Run

FIRST = (FORWARD, BACKWARD)
MEMORY_WAYS = ("reference", "cpu", "sdpa")
Record = dict[str, Any]


@dataclass(frozen=True)
class Growth:
    """An operation at sizes that differ in one number.

    Attributes:
        operation: name in ``fastpose.ops``.
        variable: what grows: "N", "batch" or "joints".
        fixed: the rest of the size in words.
        values: of the variable, ascending.
        case: gives the case at a value.
        order: the one order that is timed.
    """

    operation: str
    variable: str
    fixed: str
    values: tuple[int, ...]
    case: Callable[[int], Case]
    order: str


def side(positions: int) -> tuple[int, int]:
    """Return the most square map (H, W) of so many positions, a power of two."""
    height = 2 ** (int(math.log2(positions)) // 2)
    return height, positions // height


def attention_size(positions: int) -> memory.Size:
    """Return batch, channels and map of the attention whose positions grow."""
    return (*cases.MAIN[:3], side(positions))


def doubling(first: int, last: int) -> tuple[int, ...]:
    """Return first, 2 first, 4 first, ... up to last."""
    return tuple(first * 2**step for step in range(int(math.log2(last // first)) + 1))


POSITIONS = doubling(256, 16384)
_BATCH, _JOINTS = doubling(2, 128), doubling(4, 64)


def attention() -> list[Growth]:
    """Return what grows with the positions of attention, forward and with backward."""
    words = "B={} Ck={} Cv={}".format(*cases.MAIN[:3])
    return [
        Growth("nonlocal_attention", "N", words, POSITIONS, lambda n: cases.attention(*attention_size(n)), order)
        for order in FIRST
    ]


def others() -> list[Growth]:
    """Return what grows with the batch and with the joints."""
    return [
        Growth(
            "nonlocal_attention",
            "batch",
            "Ck=32 Cv=256 N=1024",
            doubling(1, 16),
            lambda b: cases.attention(b, 32, 256, (32, 32)),
            FORWARD,
        ),
        *_of_heatmaps("render_gaussian_heatmaps", lambda b, k: cases.render((b, k, 64, 64), 2.0, out=True), FORWARD),
        *_of_heatmaps("heatmap_mse_loss", lambda b, k: cases.mse_loss((b, k, 64, 64), 2.0), BACKWARD),
        *_of_heatmaps("decode_heatmaps", lambda b, k: cases.decode((b, k, 64, 64), "dark"), FORWARD),
        Growth(
            "pairwise_descriptor",
            "batch",
            "16 joints",
            doubling(64, 8192),
            lambda b: cases.descriptor(b, 16),
            FORWARD,
        ),
        Growth("pairwise_descriptor", "joints", "batch 256", _JOINTS, lambda k: cases.descriptor(256, k), FORWARD),
    ]


def _of_heatmaps(operation: str, case: Callable[[int, int], Case], order: str) -> list[Growth]:
    return [
        Growth(operation, "batch", "17 joints, 64x64", _BATCH, lambda b: case(b, 17), order),
        Growth(operation, "joints", "batch 16, 64x64", _JOINTS, lambda k: case(16, k), order),
    ]


def time(run: Run, growth: Growth, advance: Callable[[int], None] = lambda done: None) -> list[Record]:
    """Time a growth on the CPU, add its curves to the run, and return them: one per way, and the machine's limit.

    What is measured before an interruption is added as well.
    """
    timings: dict[str, list[tuple[int, float]]] = {}
    try:
        for value in growth.values:
            jobs = [job for job in orders.jobs([growth.case(value)], kinds=("cpu",)) if job.order == growth.order]
            for record in run.timed(jobs):
                timings.setdefault(record["provider"], []).append((value, record["median_s"]))
                if record["provider"] == "cpu":
                    timings.setdefault("limit", []).append((value, record["floor_s"]))
            advance(1)
    finally:
        curves = [_curve(growth, provider, "seconds", points) for provider, points in timings.items()]
        run.content["growth"] += curves
    return curves


def attention_memory(run: Run, advance: Callable[[int], None] = lambda done: None) -> list[Record]:
    """Measure the extra memory of attention against its positions, each way in a process of its own."""
    before = len(run.content["growth"])
    sizes = [attention_size(positions) for positions in POSITIONS]
    for provider in MEMORY_WAYS:
        records = memory.in_subprocess("cpu", provider, *sizes, orders=FIRST)
        run.content["skipped"] += [record for record in records if "reason" in record]
        for growth in attention():
            found = [record for record in records if record["order"] == growth.order]
            points = [
                (positions, record["extra_bytes"])
                for positions, record in zip(POSITIONS, found, strict=True)
                if record.get("extra_bytes", 0) > 0
            ]
            run.content["growth"] += [_curve(growth, provider, "bytes", points)] if points else []
        advance(1)
    return run.content["growth"][before:]


def _curve(growth: Growth, provider: str, quantity: str, points: Sequence[tuple[int, float]]) -> Record:
    return {
        "operation": growth.operation,
        "variable": growth.variable,
        "size": growth.fixed,
        "order": growth.order,
        "provider": provider,
        "quantity": quantity,
        "points": [list(point) for point in points],
        "slope": slope(points),
    }


def slope(points: Sequence[tuple[float, float]]) -> float | None:
    """Return the power with which y grows, by least squares of the logarithms over the larger half of x.

    None where that half has fewer than two points.
    """
    larger = sorted(points)[len(points) // 2 :]
    if len(larger) < 2:
        return None
    x, y = ([math.log(point[axis]) for point in larger] for axis in (0, 1))
    middle, height = sum(x) / len(x), sum(y) / len(y)
    variance = sum((one - middle) ** 2 for one in x)
    return sum((one - middle) * (other - height) for one, other in zip(x, y, strict=True)) / variance
