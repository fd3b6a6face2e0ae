"""Triton kernels compiled for GPUs that are not here: all fit, none spills, products use matrix instructions."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from background import started

import fastpose
from fastpose.ops.attention import _tiles

pytest.importorskip("triton", reason="Triton is not installed")

import aot
import tiles

from fastpose.ops.geometry import _triton_kernels as geometry
from fastpose.ops.heatmap import _triton_decode, _triton_loss, _triton_render, _triton_softargmax

MISSING = [name for name in ("ptxas", "cuobjdump") if not aot.tool(name).is_file()]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"this Triton comes without {' and '.join(MISSING)}")

PACKAGE = Path(fastpose.__file__).parent
PUBLISHED = {(_tiles.padded(key), value): (key, value) for key, value in tiles.CHANNELS}


RULE_SPILLS = 64  # bytes, of a GPU that the table does not know


class Job(NamedTuple):
    """What benchmarks/aot.py compiles in one process."""

    what: str
    architecture: int
    options: tuple[str, ...] = ()

    def __str__(self):
        return "-".join((self.what, f"sm_{self.architecture}", *(o for o in self.options if not o.startswith("--"))))


def entries() -> list[tuple[int, str]]:
    """(architecture, channels and arithmetic) of the table's entries, with the published channels."""
    path = PACKAGE / "ops" / "attention" / "tiles.json"
    found = []
    for name in _tiles.read_table(path) if path.is_file() else ():
        architecture, key, value, arithmetic = name.split()
        padded = int(key.removeprefix("ck")), int(value.removeprefix("cv"))
        narrow, wide = PUBLISHED.get(padded, padded)
        found.append((int(architecture.removeprefix("sm_")), f"ck{narrow} cv{wide} {arithmetic}"))
    return found


def attention_jobs() -> list:
    """The flagship's entries at once, everything else slowly.

    sm_100 has no entries and takes the rule's tiles, of which those of 16-bit tensors spill next to nothing there.
    """
    by_rule = [(100, f"ck{key} cv{value} half") for key, value in tiles.CHANNELS]
    jobs = []
    for architecture, entry in entries() + by_rule:
        if entry.startswith("ck32 cv256") and architecture != 100:
            options = ("--entry", entry, "--layout", "positions", "--dtype", "bfloat16")
            jobs.append(Job("attention", architecture, options))
        jobs.append(slow(Job("attention", architecture, ("--entry", entry))))
    return jobs


def slow(job: Job):
    return pytest.param(job, marks=pytest.mark.slow)


HEATMAPS = [
    Job("heatmaps", 90, ("--dtype", "float32")),
    slow(Job("heatmaps", 90, ("--dtype", "bfloat16", "float16"))),
    *(slow(Job("heatmaps", architecture)) for architecture in (80, 100)),
]
DESCRIPTORS = [Job("descriptors", 90), *(slow(Job("descriptors", architecture)) for architecture in (80, 100))]


def compile_ahead(job: Job) -> list[dict]:
    """Run benchmarks/aot.py without the interpreter and without a user's table of tiles."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"PYTHONPATH": str(PACKAGE.parent), "FASTPOSE_TILES": os.devnull, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", aot.__file__, job.what, str(job.architecture), *job.options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def compiled(request):
    yield from started(request, "job", compile_ahead)


def check_resources(job: Job, found: list[dict]) -> None:
    assert found
    for start in found:
        assert start["spilled"] <= (RULE_SPILLS if job.architecture == 100 else 0), start
        assert start["shared"] <= aot.GPUS[job.architecture].shared_memory, start


def kernels_of(*modules) -> set[str]:
    return {name for module in modules for name in vars(module) if name.endswith("_kernel")}


@pytest.mark.parametrize("job", HEATMAPS, ids=str)
def test_triton_kernels_of_heatmaps_fit(job, compiled):
    found = compiled[job].result()
    check_resources(job, found)
    modules = (_triton_render, _triton_loss, _triton_decode, _triton_softargmax)
    assert {start["name"] for start in found} == kernels_of(*modules)


@pytest.mark.parametrize("job", DESCRIPTORS, ids=str)
def test_triton_kernels_of_the_descriptor_fit(job, compiled):
    found = compiled[job].result()
    check_resources(job, found)
    assert {start["name"] for start in found} == kernels_of(geometry)


@pytest.mark.parametrize("job", attention_jobs(), ids=str)
def test_triton_kernels_of_attention_fit_and_use_matrix_instructions(job, compiled):
    found = compiled[job].result()
    check_resources(job, found)
    for start in found:
        if start["name"] == "row_products":  # it multiplies no matrices
            continue
        if job.architecture == 100:
            assert start["matrix"], start
        else:
            wide = job.architecture == 90 and start["resident"] >= 64
            assert ("wgmma.mma_async" if wide else "mma.sync") in start["matrix"], start
