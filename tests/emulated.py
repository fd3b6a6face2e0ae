"""The extension as the tests of CUDA kernels without a GPU need it: its .cu files compiled as C++ against
tests/emulation, so that backend="cuda" serves CPU tensors. Built once, and again when a source changes.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path
from types import ModuleType

import pytest

from fastpose import _native

PROJECT = Path(__file__).resolve().parents[1]
CSRC = PROJECT / "csrc"
STANDIN = PROJECT / "tests" / "emulation"
DEFINES = (
    "-DFASTPOSE_WITH_CUDA -DFASTPOSE_CUDA_EMULATED -DFASTPOSE_BASELINE_ONLY "
    "-DFASTPOSE_COMPILER='\"tests\"' -DFASTPOSE_CUDA_REASON='\"\"'"
)
FLAGS = f"-std=c++20 -O1 -fPIC -fvisibility=hidden -fno-math-errno -fno-trapping-math {DEFINES}"


def sources() -> list[Path]:
    return sorted(path for path in CSRC.rglob("*") if path.suffix in (".cpp", ".cu"))


def fingerprint(compiler: str) -> str:
    """Of everything that the build depends on."""
    files = sorted(path for folder in (CSRC, STANDIN) for path in folder.rglob("*") if path.is_file())
    digest = hashlib.sha256(f"{compiler} {FLAGS} {sysconfig.get_config_var('SOABI')}".encode())
    for path in files:
        digest.update(path.relative_to(PROJECT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def ninja_script(compiler: str) -> str:
    import pybind11

    folders = (CSRC, STANDIN, pybind11.get_include(), sysconfig.get_path("include"))
    includes = " ".join(f"'-I{folder}'" for folder in folders)
    lines = ["rule compile", f"  command = {compiler} {FLAGS} {includes} -x c++ -c $in -o $out"]
    lines += ["rule link", f"  command = {compiler} $in -shared -o $out"]
    objects = []
    for path in sources():
        objects.append(f"{path.parent.name}.{path.name}.o")
        lines.append(f"build {objects[-1]}: compile {str(path).replace(' ', '$ ')}")
    return "\n".join([*lines, f"build _C.so: link {' '.join(objects)}", ""])


def build(folder: Path, compiler: str) -> Path:
    """The path of the module, compiled in ``folder`` unless it is there."""
    import ninja

    library = folder / "_C.so"
    if not library.is_file():
        (folder / "build.ninja").write_text(ninja_script(compiler))
        command = [str(Path(ninja.BIN_DIR) / "ninja"), "-C", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    return library


def load(library: Path) -> ModuleType:
    """The module under a name of its own, beside the installed extension."""
    spec = importlib.util.spec_from_file_location("emulated._C", library)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def emulated_extension(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The extension whose CUDA kernels run on the CPU."""
    compiler = os.environ.get("CXX") or next((name for name in ("c++", "g++") if shutil.which(name)), None)
    if compiler is None:
        pytest.skip("no C++ compiler to build the emulated kernels with")
    if not CSRC.is_dir():
        pytest.skip("the tests run without the checkout that they belong to")
    for package in ("pybind11", "ninja"):
        pytest.importorskip(package)
    name, cache = f"emulated-{fingerprint(compiler)}", getattr(request.config, "cache", None)
    folder = Path(cache.mkdir(name)) if cache is not None else tmp_path_factory.mktemp(name)
    return load(build(folder, compiler))


@pytest.fixture
def emulated_cuda(emulated_extension: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the test backend="cuda" takes CPU tensors; backend="cpu" is the baseline copy of the CPU kernels."""
    monkeypatch.setattr(_native, "_extension", emulated_extension)
