"""What is in the sdist and in the wheel; the wheel is built from the sdist, so that nothing it needs can be missing."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

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
    ["LICENSE", "README.md", "CHANGELOG.md", "constraints.txt", "pyproject.toml", "setup.py", "tests/conftest.py"],
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
