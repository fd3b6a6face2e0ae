"""On what a benchmark ran: processor, GPU, versions, threads, load."""

from __future__ import annotations

import os
import platform
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


def describe() -> dict[str, Any]:
    """Return the facts without which a number means nothing."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "gpus": gpus,
        "driver": _driver() if gpus else "",
        "system": platform.platform(),
        "versions": _versions(),
        "extension": {} if _native.missing() else {name: str(value) for name, value in _native.build_info().items()},
    }


def _processor() -> str:
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
