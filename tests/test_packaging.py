"""What is in the sdist and in the wheel; the wheel is built from the sdist, so that nothing it needs can be missing."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import setuptools

PROJECT = Path(__file__).resolve().parents[1]
IGNORED = shutil.ignore_patterns(
    ".git", "*.so", "__pycache__", "*.egg-info", "build", "dist", "runs", ".venv", ".*_cache", "results"
)
# Every suffix of a file that the package reads at run time.
DATA = {".yaml", ".json", ".jpg", ".png", ".safetensors", ".typed", ".md", ".txt", ""}


def build(kind: str, source: Path, out: Path) -> Path:
    """Build a distribution without isolation, offline, from ``source`` into ``out``."""
    out.mkdir(exist_ok=True)
    code = f"import setuptools.build_meta as b; b.build_{kind}({str(out)!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return next(out.iterdir())


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A copy of the checkout, so that building leaves nothing behind in it."""
    if not (PROJECT / "setup.py").is_file():
        pytest.skip("the tests run without the checkout that they belong to")
    copy = tmp_path_factory.mktemp("packaging") / "checkout"
    shutil.copytree(PROJECT, copy, ignore=IGNORED)
    return copy


@pytest.fixture(scope="module")
def sdist(source, tmp_path_factory) -> Path:
    return build("sdist", source, tmp_path_factory.mktemp("packaging") / "sdist")


@pytest.fixture(scope="module")
def sdist_names(sdist) -> set[str]:
    with tarfile.open(sdist) as archive:
        return {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}


def files_of(source: Path, folder: str) -> set[str]:
    return {path.relative_to(source).as_posix() for path in (source / folder).rglob("*") if path.is_file()}


def test_sdist_holds_every_source_of_the_extension(source, sdist_names):
    kernels = {name for name in files_of(source, "csrc") if Path(name).suffix in (".h", ".cpp", ".cu", ".cuh")}
    assert kernels
    assert kernels - sdist_names == set()


def test_sdist_holds_the_whole_package(source, sdist_names):
    assert files_of(source, "fastpose") - sdist_names == set()


@pytest.mark.parametrize(
    "name",
    [
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        "constraints.txt",
        "pyproject.toml",
        "setup.py",
        "tests/conftest.py",
        "tests/emulation/cuda_runtime.h",
    ],
)
def test_sdist_holds(name, sdist_names):
    assert name in sdist_names


def test_sdist_holds_nothing_built(sdist_names):
    assert {name for name in sdist_names if name.endswith((".so", ".pyc", ".o"))} == set()


def test_dependencies_name_no_upper_bound_on_torch():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    torch = next(entry for entry in project["dependencies"] if entry.startswith("torch"))
    assert torch.startswith("torch>=")
    assert "<" not in torch
    assert "==" not in torch


def test_building_needs_no_torch():
    build_system = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]
    assert [entry for entry in build_system["requires"] if "torch" in entry or "cuda" in entry] == []


def test_constraints_pin_every_dependency_exactly():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["test"], *extras["dev"]]
    lines = (PROJECT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert [pin for pin in pins if "==" not in pin or "://" in pin] == []
    pinned = {normal(pin.partition("==")[0]) for pin in pins}
    assert {normal(entry) for entry in wanted} - pinned - {"fastpose"} == set()


def normal(requirement: str) -> str:
    """Return the name of a requirement as package indexes compare it."""
    name = requirement
    for stop in "[<>=!~; ":
        name = name.partition(stop)[0]
    return name.lower().replace("_", "-").replace(".", "-")


# ---------------------------------------------------------------------------------------------- the build and CUDA


@pytest.fixture
def recipe(monkeypatch) -> dict:
    """The functions of setup.py."""
    if not (PROJECT / "setup.py").is_file():
        pytest.skip("the tests run without the checkout that they belong to")
    monkeypatch.chdir(PROJECT)
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    for name in ("NVCC", "CUDA_HOME", "CUDA_PATH", "FASTPOSE_CUDA"):
        monkeypatch.delenv(name, raising=False)
    return runpy.run_path("setup.py")


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_cuda_can_be_left_out(recipe, monkeypatch, tmp_path):
    monkeypatch.setenv("NVCC", str(script(tmp_path / "nvcc", "exit 0")))
    monkeypatch.setenv("FASTPOSE_CUDA", "0")
    assert recipe["find_cuda"]("c++") is None


@pytest.mark.parametrize(
    ("choice", "nvcc", "sentence"),
    [
        ("yes", "exit 0", "FASTPOSE_CUDA: expected auto, 1 or 0, got 'yes'"),
        ("1", None, "FASTPOSE_CUDA=1 but nvcc was not found"),
        ("1", "exit 0", "FASTPOSE_CUDA=1 but libcudart_static.a was not found around"),
    ],
)
def test_cuda_that_is_required_but_not_there_stops_with_a_sentence(
    recipe, monkeypatch, tmp_path, choice, nvcc, sentence
):
    monkeypatch.setenv("NVCC", str(script(tmp_path / "bin" / "nvcc", nvcc) if nvcc else tmp_path / "none"))
    monkeypatch.setenv("FASTPOSE_CUDA", choice)
    with pytest.raises(SystemExit, match=sentence):
        recipe["find_cuda"]("c++")


@pytest.mark.parametrize("toolkit", [False, True], ids=["no runtime library", "a compiler that fails"])
def test_cuda_that_does_not_work_is_left_out_with_a_sentence(recipe, monkeypatch, tmp_path, capfd, toolkit):
    monkeypatch.setenv("NVCC", str(script(tmp_path / "bin" / "nvcc", "exit 1")))
    if toolkit:
        (tmp_path / "lib64").mkdir()
        (tmp_path / "lib64" / "libcudart_static.a").touch()
    assert recipe["find_cuda"]("c++") is None
    said = capfd.readouterr().err
    assert said.count("fastpose: building without CUDA kernels, since ") == 1
    assert ("does not work with c++" if toolkit else "libcudart_static.a was not found") in said


@pytest.mark.parametrize("place", ["lib64", "lib", "targets/x86_64-linux/lib"])
def test_the_runtime_library_is_found_beside_nvcc(recipe, tmp_path, place):
    nvcc = script(tmp_path / "bin" / "nvcc", "exit 1")
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / place / "libcudart_static.a").touch()
    assert recipe["find_runtime"](str(nvcc)) == tmp_path / place


def test_the_runtime_library_is_found_where_nvcc_says(recipe, tmp_path):
    """What is on PATH may be a wrapper script far from the toolkit."""
    library = tmp_path / "tool kit" / "lib"
    library.mkdir(parents=True)
    (library / "libcudart_static.a").touch()
    said = f'#$ TOP=/somewhere/bin/..\n#$ LIBRARIES=  "-L{library}/stubs" "-L{library}/../lib"'
    nvcc = script(tmp_path / "bin" / "nvcc", f"cat >&2 <<'END'\n{said}\nEND")
    assert recipe["find_runtime"](str(nvcc)) == library


@pytest.mark.slow
def test_wheel_from_the_sdist_holds_package_data_and_extension(sdist, source, tmp_path):
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    wheel = build("wheel", next((tmp_path / "unpacked").iterdir()), tmp_path / "wheel")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    expected = {name for name in files_of(source, "fastpose") if Path(name).suffix in DATA | {".py"}}
    assert expected - names == set()
    assert {"fastpose/py.typed", "fastpose/recipes/sagan/demo.yaml"} <= names
    assert [name for name in names if name.startswith("fastpose/_C.") and name.endswith((".so", ".pyd"))]
    assert [name for name in names if name.startswith(("tests/", "csrc/", "docs/", "benchmarks/"))] == []
