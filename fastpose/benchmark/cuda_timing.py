"""Time on a GPU: what the kernels of a call take on the device, without the host's part.

A round is a row of calls between two CUDA events, enqueued while the GPU still waits in a spin kernel, so that the host
is ahead of it. Memory-bound calls rotate over several sets of inputs and keep as many results alive: the numbers come
from memory, not from the L2 cache.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from fastpose.benchmark.cases import Work

Calls = Sequence[Callable[[], object]]
CLOCK = 2.0e9  # cycles/s of the spin kernel, at most
CACHE = 256e6  # bytes that a rotation goes through before it comes back: several times the largest L2
SETS = (2, 12)  # of inputs for a memory-bound call
ROUND_SECONDS, ROUND_CALLS = 0.002, 50  # a round lasts so long, or has so many calls
SECONDS = 0.1  # of rounds for each number
ROUNDS = (5, 25)


def sets(work: Work) -> int:
    """Return how many sets of inputs to rotate over: one where arithmetic is the limit."""
    moved = work.read + work.written
    return 1 if work.flop or not moved else min(max(round(CACHE / moved), SETS[0]), SETS[1])


def measure(calls: Calls, cuda: Any = torch.cuda) -> dict[str, Any]:
    """Return median and quartiles of the device's seconds per call, rounds, and calls in a round."""
    kept: list[object] = [None] * len(calls)
    for _ in range(2):  # libraries, plans, compilation; then memory
        _enqueue(calls, kept, len(calls))
        cuda.synchronize()
    device, host = _once(calls, kept, cuda)
    iterations = min(max(round(ROUND_SECONDS / device), 1), ROUND_CALLS)
    rounds = min(max(int(SECONDS / (device * iterations)), ROUNDS[0]), ROUNDS[1])
    seconds = [_round(calls, kept, iterations, host, cuda) / iterations for _ in range(rounds)]
    first, middle, third = statistics.quantiles(seconds, n=4, method="inclusive")
    return {"median_s": middle, "q1_s": first, "q3_s": third, "rounds": rounds, "iterations": iterations}


def peak_bytes(call: Callable[[], object], cuda: Any = torch.cuda) -> int:
    """Return the most bytes that torch's allocator gave out during the call beyond those in use before it."""
    cuda.synchronize()
    cuda.reset_peak_memory_stats()
    before = cuda.memory_allocated()
    result = call()
    cuda.synchronize()
    del result
    return max(cuda.max_memory_allocated() - before, 0)


def _enqueue(calls: Calls, kept: list[object], count: int) -> None:
    for index in range(count):
        kept[index % len(kept)] = calls[index % len(calls)]()


def _once(calls: Calls, kept: list[object], cuda: Any) -> tuple[float, float]:
    """Return seconds of one call on the device (host included where it is slower) and on the host alone."""
    count = max(len(calls), 3)
    cuda.synchronize()
    start = time.perf_counter()
    _enqueue(calls, kept, count)
    host = (time.perf_counter() - start) / count
    cuda.synchronize()
    return max((time.perf_counter() - start) / count, 1e-7), host


def _round(calls: Calls, kept: list[object], count: int, host: float, cuda: Any) -> float:
    """Return the seconds between the events around ``count`` calls."""
    start, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
    cuda._sleep(int(min(1.5 * host * count + 1e-4, 0.05) * CLOCK))
    start.record()
    _enqueue(calls, kept, count)
    end.record()
    cuda.synchronize()
    return max(start.elapsed_time(end) * 1e-3, 1e-9)
