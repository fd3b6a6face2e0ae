"""How benchmarks are run: the measuring itself, what is recorded beside the numbers, and the summary."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from fastpose import _native
from fastpose.benchmark import machine, results_file, summary
from fastpose.benchmark.limits import Limits, clock
from fastpose.benchmark.orders import Job
from fastpose.benchmark.run import Run, command
from fastpose.benchmark.timing import in_both_orders

FOLDER = Path(__file__).resolve().parent
RUN = pytest.StashKey[Run]()


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
        config.stash[RUN] = Run(command(["pytest", *sys.argv[1:]]), budget=config.getoption("budget"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if FOLDER in item.path.parents:
            item.add_marker(pytest.mark.benchmark(disable_gc=True, timer=clock))
            item.add_marker(pytest.mark.filterwarnings("ignore"))  # what torch says of its own ways is no failure


def pytest_collection_finish(session: pytest.Session) -> None:
    if session.config.getoption("benchmark_only", False):
        gc.freeze()  # what was imported is not looked through again at each collection


@pytest.fixture(scope="session")
def run(pytestconfig: pytest.Config) -> Run:
    """The run so far."""
    return pytestconfig.stash[RUN]


@pytest.fixture(scope="session")
def results(run: Run) -> dict[str, Any]:
    """The content of the result file so far."""
    return run.content


@pytest.fixture(scope="session")
def limits(run: Run) -> Limits:
    """What the machine can do; measured when first asked for."""
    return run.limits


@pytest.fixture
def both_orders(benchmark: Any) -> Callable[..., dict[str, dict[str, Any]]]:
    """Time calls that are compared, by name, first to last and last to first: medians, quartiles, rounds.

    Options are those of `in_both_orders`.
    """
    return lambda calls, **options: benchmark.pedantic(in_both_orders, (calls,), options, rounds=1)


@pytest.fixture
def timed(both_orders: Callable) -> Callable[[Callable[[], object]], dict[str, Any]]:
    """Time a call by itself, which has no order; what is compared is better timed together."""

    def alone(call: Callable[[], object]) -> dict[str, Any]:
        found = both_orders({"": call})[""]
        return {name: value for name, value in found.items() if name != "directions_s"}

    return alone


@pytest.fixture
def measure(benchmark: Any, run: Run) -> Callable[[Sequence[Job]], None]:
    """Time the jobs that are compared and record them; skip where none can be done."""

    def record(group: Sequence[Job]) -> None:
        if not benchmark.pedantic(run.measure, (group,), rounds=1):
            pytest.skip(run.content["skipped"][-1]["reason"])

    return record


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    run = config.stash.get(RUN, None)
    if run is None or not any(run.content[part] for part in ("timings", "memory", "host_costs", "loading")):
        return
    found = run.finish()
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
