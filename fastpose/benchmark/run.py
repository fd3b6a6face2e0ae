"""One run of the benchmarks: jobs go in, the content of a result file comes out."""

from __future__ import annotations

import gc
import os
import shlex
import time
from collections.abc import Sequence
from typing import Any

from fastpose.benchmark import cuda_timing, machine, results_file
from fastpose.benchmark.limits import Limits
from fastpose.benchmark.orders import Job, NotSupported, conditions, prepare, reasons
from fastpose.benchmark.timing import SECONDS, TURNS, Call, first, in_both_orders

# What changes the numbers from outside; the recorded command begins with those that are set.
SETTINGS = ("FASTPOSE_SIMD", "OMP_NUM_THREADS", "ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA")


def command(words: Sequence[str]) -> str:
    """Return a command line as one would type it again, with the settings of the environment that change numbers."""
    settings = [f"{name}={os.environ[name]}" for name in SETTINGS if name in os.environ]
    return " ".join([*settings, shlex.join(words)])


class Run:
    """What was measured so far.

    Attributes:
        content: of the result file; what cannot be measured is listed in it with the reason.
        limits: of this machine, measured when first asked for.
        seconds: of rounds for each number.
        turns: of the ways of a case, an even number.
    """

    def __init__(
        self, said: str, *, seconds: float = SECONDS, turns: int = TURNS, budget: float = float("inf")
    ) -> None:
        """Begin a run by the command ``said``, which leaves out what it has not begun after ``budget`` seconds."""
        self.content = results_file.empty(machine.describe(), machine.load(), said)
        self.limits = Limits()
        self.content["limits"] = self.limits.records  # one list: it grows as they are asked for
        self.seconds, self.turns = seconds, turns
        self._budget, self._begun = budget, time.monotonic()

    def measure(self, jobs: Sequence[Job]) -> list[dict[str, Any]]:
        """Time jobs that are to be compared, and record them with the floor that the limits set."""
        records = self.timed(jobs)
        self.content["timings"] += records
        return records

    def timed(self, jobs: Sequence[Job]) -> list[dict[str, Any]]:
        """Time jobs that are to be compared, in both orders; what cannot be measured is recorded with its reason."""
        with conditions(jobs[0].case):
            found = self._seconds(jobs)
            return [{**job.labels, **seconds, "floor_s": self._floor(job)} for job, seconds in found]

    def skip(self, job: Job, reason: object) -> None:
        """Record why a job was not measured."""
        self.content["skipped"].append({**job.labels, "reason": str(reason)})

    def finish(self) -> dict[str, Any]:
        """Add load and ratios, and return the content."""
        from fastpose.benchmark import summary

        self.content["load"]["after"] = machine.load()
        summary.complete(self.content)
        return self.content

    def _seconds(self, jobs: Sequence[Job]) -> list[tuple[Job, dict[str, Any]]]:
        found: dict[str, dict[str, Any]] = {}
        calls: dict[str, Call] = {}
        warm: dict[str, float] = {}
        for job in jobs:
            try:
                self._check_budget()
                if job.by_events:
                    found[job.provider] = _on_gpu(job)
                else:
                    call = prepare(job)
                    with reasons(job):  # a way may refuse at its first call only
                        warm[job.provider] = first(call)
                    calls[job.provider] = call
            except NotSupported as reason:
                self.skip(job, reason)
        found |= in_both_orders(calls, seconds=self.seconds, turns=self.turns, known=warm)
        return [(job, found[job.provider]) for job in jobs if job.provider in found]

    def _floor(self, job: Job) -> float:
        return self.limits.floor(job.device, job.dtype, job.work, job.case.precision, level=job.level)

    def _check_budget(self) -> None:
        if time.monotonic() - self._begun > self._budget:
            raise NotSupported(f"the {self._budget:.0f} s given to this run were spent")


def _on_gpu(job: Job) -> dict[str, Any]:
    """Time a job by CUDA events, and its peak of memory."""
    gc.collect()  # graphs of second derivatives are cycles
    with reasons(job):
        calls = [prepare(job) for _ in range(cuda_timing.sets(job.work))]
        return cuda_timing.measure(calls) | {"peak_bytes": cuda_timing.peak_bytes(calls[0])}
