"""On what a benchmark ran: processor, GPU, versions, threads, load."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import fastpose
from fastpose import _native

PACKAGES = ("numpy", "triton", "opencv-python", "pytest-benchmark")


def threads() -> int:
    """Return the number of threads to use: OMP_NUM_THREADS, or one per core this process may use."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdecimal() and int(wanted) else len(os.sched_getaffinity(0))


def load() -> list[float]:
    """Return the load averages over 1, 5 and 15 minutes."""
    return [round(number, 2) for number in os.getloadavg()]


@contextmanager
def at_level(name: str) -> Iterator[None]:
    """Let the CPU kernels use this instruction set at most, as FASTPOSE_SIMD does for a whole process."""
    before = _native.build_info()["simd"]
    _native.module().set_simd(name)
    try:
        yield
    finally:
        _native.module().set_simd(before)


def has_narrower(name: str) -> bool:
    """Return whether the CPU kernels run at a wider instruction set than this one now."""
    levels = ("baseline", "avx2", "avx512")
    return _native.missing() is None and levels.index(_native.build_info()["simd"]) > levels.index(name)


def free_bytes(device: str) -> float:
    """Return the memory that nobody uses on the CPU or GPU; infinite where the system does not say."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return float("inf")
    return next((1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), float("inf"))


def describe() -> dict[str, Any]:
    """Return the facts without which a number means nothing."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": processor(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "gpus": gpus,
        "driver": _driver() if gpus else "",
        "system": platform.platform(),
        "versions": _versions(),
        "extension": {} if _native.missing() else {name: str(value) for name, value in _native.build_info().items()},
    }


def processor() -> str:
    """Return the name of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _driver() -> str:
    try:
        return Path("/proc/driver/nvidia/version").read_text().splitlines()[0]
    except (OSError, IndexError):
        return "unknown"


def _versions() -> dict[str, str]:
    found = {"fastpose": fastpose.__version__, "python": platform.python_version(), "torch": torch.__version__}
    if torch.version.cuda:
        found["cuda"] = torch.version.cuda
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "missing"
    return found
