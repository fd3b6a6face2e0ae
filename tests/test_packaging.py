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

import ninja
import pytest
import setuptools

PROJECT = Path(__file__).resolve().parents[1]
IGNORED = shutil.ignore_patterns(
    ".git", "*.so", "__pycache__", "*.egg-info", "build", "dist", "runs", ".venv", ".*_cache", "results"
)
# Every suffix of a file that the package reads at run time.
DATA = {".npz", ".yaml", ".json", ".jpg", ".png", ".safetensors", ".typed", ".md", ".txt", ""}


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
def recipe(monkeypatch, tmp_path) -> dict:
    """The functions of setup.py, on a machine without CUDA."""
    if not (PROJECT / "setup.py").is_file():
        pytest.skip("the tests run without the checkout that they belong to")
    monkeypatch.chdir(PROJECT)
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    for name in ("NVCC", "NVCC_CCBIN", "CUDA_HOME", "CUDA_PATH", "FASTPOSE_CUDA", "FASTPOSE_SANITIZE"):
        monkeypatch.delenv(name, raising=False)
    functions = runpy.run_path("setup.py")
    # The shell's own folder, without which no script runs, may hold an nvcc too.
    found = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "nvcc" else found(name))
    monkeypatch.setitem(functions["find_cuda"].__globals__, "USUAL_CUDA", tmp_path / "usual")
    return functions


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def toolkit(folder: Path, text: str = "exit 0") -> Path:
    """A folder with an nvcc that does this and with the runtime library; return nvcc."""
    (folder / "lib64").mkdir(parents=True)
    (folder / "lib64" / "libcudart_static.a").touch()
    return script(folder / "bin" / "nvcc", text)


def test_cuda_can_be_left_out(recipe, monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("NVCC", str(tmp_path / "none"))
    monkeypatch.setenv("FASTPOSE_CUDA", "0")
    assert recipe["find_cuda"]("c++") == (None, "FASTPOSE_CUDA=0")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"FASTPOSE_CUDA": "yes"}, "FASTPOSE_CUDA: expected auto, 1 or 0, got 'yes'"),
        ({"FASTPOSE_CUDA": "1"}, "FASTPOSE_CUDA=1 but nvcc was not found; put .* set CUDA_HOME"),
        ({"FASTPOSE_CUDA": "1", "CUDA_HOME": "bare"}, "FASTPOSE_CUDA=1 but libcudart_static.a was not found around"),
        (
            {"FASTPOSE_CUDA": "1", "CUDA_HOME": "failing"},
            r"FASTPOSE_CUDA=1 but nvcc \S+ cannot compile C\+\+20 with c\+\+;",
        ),
        ({"NVCC": "none"}, "NVCC=none but nvcc was not found"),
        ({"NVCC": "./bare/bin/nvcc"}, "NVCC=./bare/bin/nvcc but libcudart_static.a was not found around /"),
        ({"NVCC": "./failing/bin/nvcc"}, r"NVCC=./failing/bin/nvcc but nvcc /\S+ cannot compile"),
    ],
)
def test_cuda_that_is_asked_for_but_not_there_stops_with_a_sentence(recipe, monkeypatch, tmp_path, variables, sentence):
    script(tmp_path / "bare" / "bin" / "nvcc", "exit 0")
    toolkit(tmp_path / "failing", "exit 1")
    monkeypatch.chdir(tmp_path)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match=f"^fastpose: {sentence}"):
        recipe["find_cuda"]("c++")


def test_sanitizers_are_known_ones_that_the_compiler_has(recipe, monkeypatch):
    monkeypatch.delenv("FASTPOSE_SANITIZE", raising=False)
    assert recipe["sanitizer_flags"]("c++") == ""
    for wanted, sentence in (
        ("adress", "FASTPOSE_SANITIZE: expected some of address, undefined, thread, got 'adress'"),
        ("address,thread", r"FASTPOSE_SANITIZE=address,thread but c\+\+ cannot do it; install its sanitizers"),
    ):
        monkeypatch.setenv("FASTPOSE_SANITIZE", wanted)
        with pytest.raises(SystemExit, match=f"^fastpose: {sentence}"):
            recipe["sanitizer_flags"]("c++")


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (lambda _: None, "nvcc was not found"),
        (lambda usual: script(usual / "bin" / "nvcc", "exit 0"), "libcudart_static.a was not found around {nvcc}"),
        (lambda usual: toolkit(usual, "exit 1"), "nvcc {nvcc} cannot compile C++20 with c++"),
    ],
    ids=["none", "no runtime library", "a compiler that fails"],
)
def test_cuda_that_does_not_work_is_left_out_with_a_line(recipe, tmp_path, capfd, prepare, reason):
    prepare(tmp_path / "usual")
    reason = reason.format(nvcc=tmp_path / "usual" / "bin" / "nvcc")
    assert recipe["find_cuda"]("ccache c++") == (None, reason)
    assert capfd.readouterr().err == f"fastpose: building without CUDA kernels, since {reason}\n"


@pytest.mark.parametrize("place", ["NVCC", "CUDA_HOME", "CUDA_PATH", "usual"])
def test_cuda_is_found_where_it_is_installed(recipe, monkeypatch, tmp_path, place):
    nvcc = toolkit(tmp_path / place)
    if place != "usual":
        toolkit(tmp_path / "usual")
        monkeypatch.setenv(place, str(nvcc if place == "NVCC" else tmp_path / place))
    cuda, reason = recipe["find_cuda"]("c++")
    assert (cuda.nvcc, cuda.library, reason) == (str(nvcc), tmp_path / place / "lib64", "")


def test_the_first_cuda_that_works_is_taken(recipe, monkeypatch, tmp_path):
    toolkit(tmp_path / "old", "exit 1")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "old"))
    usual = toolkit(tmp_path / "usual")
    assert recipe["find_cuda"]("c++")[0].nvcc == str(usual)


def test_the_host_compiler_of_nvcc_may_be_another(recipe, monkeypatch, tmp_path):
    cuda = recipe["Cuda"]("/a/nvcc", "c++", tmp_path)
    assert cuda.command.startswith("/a/nvcc -ccbin c++ -std=")
    monkeypatch.setenv("NVCC_CCBIN", "g++-12")
    assert "-ccbin" not in cuda.command


def test_paths_of_the_compilers_may_hold_spaces(recipe, monkeypatch, tmp_path):
    nvcc = toolkit(tmp_path / "tool kit", 'for word; do last="$word"; done; printf "%s\\n" "$@" > "$last"')
    host = tmp_path / "host $compilers" / "c++"
    monkeypatch.setenv("NVCC", str(nvcc))
    cuda, _ = recipe["find_cuda"](f"ccache '{host}'")
    assert cuda == (str(nvcc), str(host), tmp_path / "tool kit" / "lib64")
    out = tmp_path / "arguments"
    script = (
        f"rule nvcc\n  command = {recipe['for_ninja'](cuda.command)} -o $out\nbuild {recipe['escape'](out)}: nvcc\n"
    )
    (tmp_path / "build.ninja").write_text(script, encoding="utf-8")
    subprocess.run([str(Path(ninja.BIN_DIR) / "ninja")], cwd=tmp_path, check=True)
    assert out.read_text(encoding="utf-8").splitlines()[:2] == ["-ccbin", str(host)]


@pytest.mark.parametrize("text", ["", "nvcc /a b/nvcc cannot", 'a "quoted" name', "it's $HOME \\n"])
def test_texts_reach_the_module_as_they_are(recipe, tmp_path, text):
    (tmp_path / "say.cpp").write_text("#include <cstdio>\nint main() { std::fputs(TEXT, stdout); }\n", encoding="utf-8")
    compiler = recipe["find_compiler"]()
    subprocess.run(
        f"{compiler} {recipe['define_text']('TEXT', text)} say.cpp -o say", shell=True, cwd=tmp_path, check=True
    )
    assert subprocess.check_output([tmp_path / "say"], text=True) == text


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
