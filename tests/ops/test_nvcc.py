"""The CUDA kernels compiled with the build's own flags: nothing is spilled and nothing lives on the stack."""

import re
import runpy
import subprocess
from pathlib import Path

import pytest
import setuptools
from background import started

PROJECT = Path(__file__).resolve().parents[2]
SOURCES = sorted(path for path in (PROJECT / "csrc").rglob("*.cu") if "__global__" in path.read_text())
REPORT = re.compile(
    r"Compiling entry function '(\w+)' for 'sm_\d+'\n.*Function properties for \1\n"
    r"\s*(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
)


def command() -> list[str]:
    """The build's command of nvcc without its architectures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", lambda **options: None)
        setup = runpy.run_path(str(PROJECT / "setup.py"))
    cuda, reason = setup["find_cuda"](setup["find_compiler"]())
    if cuda is None:
        pytest.skip(reason)
    return [word for word in cuda.command.split() if not word.startswith(("-gencode", "-Xfatbin"))]


@pytest.fixture(scope="module")
def reports(request, tmp_path_factory):
    """What ptxas says of a (source, architecture), by that pair."""
    folder, base = tmp_path_factory.mktemp("nvcc"), command()

    def compile_one(job):
        source, architecture = job
        target = f"-gencode=arch=compute_{architecture},code=sm_{architecture}"
        out = folder / f"{source.stem}.{architecture}.cubin"
        words = [*base, target, f"-I{PROJECT / 'csrc'}", "-Xptxas", "-v", "-cubin", str(source), "-o", str(out)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout + done.stderr

    yield from started(request, "job", compile_one)


JOBS = [
    pytest.param((source, architecture), marks=marks, id=f"{source.stem}-sm_{architecture}")
    for architecture, marks in ((90, ()), (80, pytest.mark.slow))
    for source in SOURCES
]


@pytest.mark.parametrize("job", JOBS)
def test_cuda_kernels_spill_nothing(job, reports):
    report = reports[job].result()
    found = REPORT.findall(report)
    assert len(found) == report.count("Compiling entry function") > 0
    assert [kernel for kernel, *sizes in found if sizes != ["0", "0", "0"]] == []
