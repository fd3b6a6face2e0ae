"""Run every call of the GPU benchmarks that compiles something, in several processes: their caches stay on disk."""

from __future__ import annotations

import multiprocessing
import sys
import time
import warnings

from fastpose.benchmark import orders
from fastpose.benchmark.cases import GPU

PROCESSES = 8
COMPILED_BY_US = "triton"


def case_numbers() -> list[int]:
    """Return the cases' places in the list, attention first: it takes longest."""
    return sorted(range(len(GPU)), key=lambda index: GPU[index].map_bytes == 0)


def run(index: int, device: str = "cuda") -> str:
    """Run a case's compiled ways in every order; return what failed, in words."""
    warnings.simplefilter("ignore")
    case, said = GPU[index], []
    ways = [COMPILED_BY_US, *(name for name in case.others if orders.Job(case, device, "", name).compiled)]
    start = time.monotonic()
    for way in ways:
        for order in case.work:
            if (way, order) in case.left_out:
                continue
            try:
                with orders.conditions(case):
                    orders.prepare(orders.Job(case, device, order, way))()
            except Exception as error:  # it will be met again, and recorded, when it is to be timed
                said.append(f"{way}, {order}: {str(error).partition(chr(10))[0][:200]}")
    name = f"{case.operation} {case.size} {case.dtype}: {time.monotonic() - start:.0f} s"
    return "\n  ".join((name, *said))


def main() -> int:
    """Run all cases and print each as it ends."""
    with multiprocessing.get_context("spawn").Pool(PROCESSES, maxtasksperchild=4) as pool:
        for line in pool.imap_unordered(run, case_numbers()):
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
