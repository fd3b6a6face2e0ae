"""What this machine can do, measured in the same run as the operations: arithmetic, reading and writing memory."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch

from fastpose import _native
from fastpose.benchmark import machine
from fastpose.benchmark.cases import Work

MEBI = 2**20
SECONDS = 0.1  # of each measurement
REPEATS = 5  # the best of them is the limit
MATRIX = {"cpu": 2048, "cuda": 8192}
COPIED = 1024 * MEBI  # on a GPU: far beyond its L2


def clock() -> float:
    """Return the time in seconds, after all work given to the GPU is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def fastest(call: Callable[[], object]) -> float:
    """Return the least seconds of one call among repeated measurements."""
    call()
    start = clock()
    call()
    calls = max(1, int(SECONDS / max(clock() - start, 1e-7)))
    return min(_seconds(call, calls) / calls for _ in range(REPEATS))


def _seconds(call: Callable[[], object], calls: int) -> float:
    start = clock()
    for _ in range(calls):
        call()
    return clock() - start


def multiply_add() -> float:
    """Return FLOP/s of a loop of multiply-adds in registers on all threads of torch."""
    module, threads = _native.module(), torch.get_num_threads()
    steps, done, start = 1000, 0.0, clock()
    while clock() - start < SECONDS:
        steps *= 2
        start = clock()
        done = module.multiply_add(steps, threads)
    return done / min(_seconds(lambda: module.multiply_add(steps, threads), 1) for _ in range(REPEATS))


def matrix_product(device: str, dtype: str, *, tf32: bool = False) -> float:
    """Return FLOP/s of torch.mm of large square matrices."""
    size = MATRIX[device]
    left, right = (torch.randn(size, size).to(device, getattr(torch, dtype)) for _ in range(2))
    out = torch.empty_like(left)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    try:
        return 2 * size**3 / fastest(lambda: torch.mm(left, right, out=out))
    finally:
        torch.set_float32_matmul_precision(before)


def bandwidth(device: str, kind: str, size: int) -> float:
    """Return bytes/s of filling ("write"), summing ("read") or copying (both count) a mapped float32 buffer."""
    buffer = torch.ones(size // 4, device=device)
    if kind == "copy":
        target = torch.empty_like(buffer)
        return 8 * buffer.numel() / fastest(lambda: target.copy_(buffer))
    if kind == "write":
        return 4 * buffer.numel() / fastest(lambda: buffer.fill_(1.0))
    return 4 * buffer.numel() / min(fastest(buffer.sum), fastest(buffer.amax))


class Limits:
    """The limits asked for so far, each measured once; ``records`` lists them for the result file."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self._known: dict[tuple[str, str], float] = {}
        self._threads = torch.get_num_threads()

    def _once(self, device: str, name: str, unit: str, measure: Callable[[], float]) -> float:
        threads = torch.get_num_threads()
        if device == "cpu" and threads != self._threads:  # a case has others than the process
            name = f"{name}, threads: {threads}"
        if (device, name) not in self._known:
            self._known[device, name] = value = measure()
            self.records.append({"device": device, "name": name, "unit": unit, "value": value / 1e9})
        return self._known[device, name]

    def arithmetic(self, device: str, dtype: str, precision: str = "highest", level: str = "") -> float:
        """Return the FLOP/s that bound a computation: on the CPU the better of the multiply-add loop and torch.mm.

        On a GPU float32 in full precision may be had from three products of bfloat16 parts as well, and float32 of
        lower precision is tf32. A narrower instruction set of the CPU, named by ``level``, has a loop of its own.
        """
        if level:
            with machine.at_level(level):
                return self._once(device, f"multiply-add in {level} registers", "GFLOP/s", multiply_add)
        if device == "cuda" and dtype == "float32" and precision != "highest":
            return self._product(device, dtype, tf32=True)
        rates = [self._product(device, dtype)]
        if device == "cpu" and _native.missing() is None:
            rates.append(self._once(device, "multiply-add in registers", "GFLOP/s", multiply_add))
        if device == "cuda" and dtype == "float32":
            rates.append(self._product(device, "bfloat16") / 3)
        return max(rates)

    def _product(self, device: str, dtype: str, *, tf32: bool = False) -> float:
        name = f"torch.mm {'tf32' if tf32 else dtype}"
        return self._once(device, name, "GFLOP/s", lambda: matrix_product(device, dtype, tf32=tf32))

    def memory(self, device: str, kind: str, size: float) -> float:
        """Return the bytes/s of reading or writing a buffer of about that size: caches make small ones faster.

        Sizes are rounded to a power of two; below 1 MiB the call itself would be measured.
        """
        megabytes = 2 ** max(round(math.log2(size / MEBI)), 0)
        return self._once(device, f"{kind} {megabytes} MiB", "GB/s", lambda: bandwidth(device, kind, megabytes * MEBI))

    def floor(self, device: str, dtype: str, work: Work, precision: str = "highest", *, level: str = "") -> float:
        """Return the least seconds in which this machine could do ``work``; a GPU moves bytes at its copy rate."""
        arithmetic = work.flop / self.arithmetic(device, dtype, precision, level) if work.flop else 0.0
        if device == "cuda":
            moved = work.read + work.written
            return max(arithmetic, moved / self.memory(device, "copy", COPIED) if moved else 0.0)
        traffic = sum(
            size / self.memory(device, kind, size)
            for kind, size in (("read", work.read), ("write", work.written))
            if size
        )
        return max(arithmetic, traffic)
