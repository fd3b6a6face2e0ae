"""How benchmarks are run: the measuring itself, what is recorded beside the numbers, and the summary."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fastpose import _native
from fastpose.benchmark import cuda_timing, machine, results_file, summary
from fastpose.benchmark.limits import Limits, clock
from fastpose.benchmark.orders import Job, NotSupported, precision, prepare, reasons

FOLDER = Path(__file__).resolve().parent
ROUND_SECONDS = 0.004  # a round lasts at least so long: short calls are repeated within it
SECONDS = 0.35  # of rounds for each number
ROUNDS = (3, 25)
STARTED = time.monotonic()
RESULTS = pytest.StashKey[dict[str, Any]]()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Plain ``pytest`` leaves the benchmarks out."""
    return None if config.getoption("benchmark_only", False) else True


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--save-results",
        metavar="NAME",
        help="with --benchmark-only: write benchmarks/results/NAME.json, or NAME itself where it holds a '/'",
    )
    parser.addoption(
        "--budget",
        metavar="SECONDS",
        type=float,
        default=float("inf"),
        help="with --benchmark-only: after so long leave out what is still to be measured, and say so",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("benchmark_only", False):
        config.option.benchmark_quiet = True  # the summary below takes the place of its table; -v does not change that
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.set_num_threads(machine.threads())
        config.stash[RESULTS] = results_file.empty(machine.describe(), machine.load())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if FOLDER in item.path.parents:
            item.add_marker(pytest.mark.benchmark(disable_gc=True, timer=clock))
            item.add_marker(pytest.mark.filterwarnings("ignore"))  # what torch says of its own ways is no failure


def pytest_collection_finish(session: pytest.Session) -> None:
    if session.config.getoption("benchmark_only", False):
        gc.freeze()  # what was imported is not looked through again at each collection


@pytest.fixture(scope="session")
def results(pytestconfig: pytest.Config) -> dict[str, Any]:
    """The content of the result file so far."""
    return pytestconfig.stash[RESULTS]


@pytest.fixture(scope="session")
def limits(results: dict[str, Any]) -> Iterator[Limits]:
    """What the machine can do; measured when first asked for."""
    measured = Limits()
    yield measured
    results["limits"] = measured.records


@pytest.fixture
def timed(benchmark: Any) -> Callable[[Callable[[], object]], dict[str, Any]]:
    """Time a call after one of warm-up: median and quartiles in seconds, rounds, calls in a round."""

    def time(call: Callable[[], object]) -> dict[str, Any]:
        once = _once(call)
        if once < SECONDS / ROUNDS[0]:  # the first call also pays for memory and plans
            once = _once(call)
        iterations = max(1, round(ROUND_SECONDS / once))
        rounds = min(max(int(SECONDS / (once * iterations)), ROUNDS[0]), ROUNDS[1])
        benchmark.pedantic(call, rounds=rounds, iterations=iterations)
        stats = benchmark.stats.stats
        quartiles = {"median_s": stats.median, "q1_s": stats.q1, "q3_s": stats.q3}
        return quartiles | {"rounds": rounds, "iterations": iterations}

    return time


def _once(call: Callable[[], object]) -> float:
    start = clock()
    call()
    return max(clock() - start, 1e-7)


@pytest.fixture
def timed_on_gpu(benchmark: Any) -> Callable[[Job], dict[str, Any]]:
    """Time a job by CUDA events, and its peak of memory."""

    def time_it(job: Job) -> dict[str, Any]:
        with reasons(job):
            calls = [prepare(job) for _ in range(cuda_timing.sets(job.case.work[job.order]))]
            found = cuda_timing.measure(calls)
            return found | {"peak_bytes": cuda_timing.peak_bytes(calls[0])}

    def once(job: Job) -> dict[str, Any]:
        gc.collect()  # graphs of second derivatives are cycles
        return benchmark.pedantic(time_it, (job,), rounds=1, iterations=1)

    return once


@pytest.fixture
def budget(pytestconfig: pytest.Config) -> Callable[[], None]:
    """Refuse once the time given to the run is spent."""

    def check() -> None:
        given = pytestconfig.getoption("budget")
        if time.monotonic() - STARTED > given:
            raise NotSupported(f"the {given:.0f} s given to this run were spent")

    return check


@pytest.fixture
def measure(
    timed: Callable, timed_on_gpu: Callable, budget: Callable, limits: Limits, results: dict[str, Any]
) -> Callable[[Job], None]:
    """Time a job and record it, with the floor that the machine's limits set it; skip what cannot be done."""

    def seconds_of(job: Job) -> dict[str, Any]:
        budget()
        if job.by_events:
            return timed_on_gpu(job)
        call = prepare(job)
        with reasons(job):
            return timed(call)

    def record(job: Job) -> None:
        case = job.case
        with precision(case):
            try:
                seconds = seconds_of(job)
            except NotSupported as reason:
                results["skipped"].append({**job.labels, "reason": str(reason)})
                pytest.skip(str(reason))
        floor = limits.floor(job.device, case.dtype, case.work[job.order], case.precision)
        results["timings"].append({**job.labels, **seconds, "floor_s": floor})

    return record


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    found = config.stash.get(RESULTS, None)
    if found is None or not (found["timings"] or found["memory"] or found["host_costs"]):
        return
    found["load"]["after"] = machine.load()
    summary.complete(found)
    terminalreporter.section("fastpose benchmarks")
    for line in summary.lines(found):
        terminalreporter.write_line(line)
    if name := config.getoption("--save-results"):
        path = results_file.write(found, results_file.path_of(name, FOLDER / "results"))
        terminalreporter.write_line(f"written to {path}")


def pytest_report_header(config: pytest.Config) -> str | None:
    if not config.getoption("benchmark_only", False):
        return None
    simd = _native.build_info()["simd"] if _native.missing() is None else "no extension"
    return f"fastpose: torch {torch.__version__}, {torch.get_num_threads()} threads, SIMD {simd}, load {machine.load()}"
