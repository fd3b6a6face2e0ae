"""Builds the extension fastpose._C with pybind11 and ninja; needs a C++20 compiler and neither torch nor CUDA.

Environment:
    FASTPOSE_CUDA=auto|1|0   auto (default): CUDA kernels when nvcc is found; 1: require nvcc; 0: leave them out.
    CXX, CXXFLAGS, NVCC      compiler, extra flags, path of nvcc.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import NamedTuple

import ninja
import pybind11
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CSRC = Path("csrc")
CUDA_ARCHITECTURES = ("80", "90")  # machine code for these, and PTX of the last for newer ones
FLAGS = "-std=c++20 -O3 -fPIC -fvisibility=hidden -ffp-contract=fast -fno-math-errno -fno-trapping-math -Wall -DNDEBUG"
SIMD_FLAGS = {
    "baseline": "",
    "avx2": "-mavx2 -mfma -mf16c -mtune=haswell",
    "avx512": "-mavx512f -mavx512dq -mavx512vl -mavx512bw -mavx2 -mfma -mf16c -mtune=icelake-server",
}
WIDE_VECTORS = "-mprefer-vector-width=512"


class Object(NamedTuple):
    """One compilation: source, name of the object file, ninja rule and extra flags."""

    source: Path
    name: str
    rule: str = "cxx"
    flags: str = ""


def stop(sentence: str) -> None:
    sys.exit(f"fastpose: {sentence}")


def compiles(compiler: str, flags: str, source: str) -> bool:
    """Whether a small program compiles and links with these flags."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "probe.cpp")
        path.write_text(source)
        command = [*compiler.split(), *flags.split(), str(path), "-o", str(Path(folder, "probe"))]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


def find_compiler() -> str:
    """The C++ compiler's command; stops with one sentence where there is none."""
    wanted = os.environ.get("CXX") or next((name for name in ("c++", "g++", "clang++") if shutil.which(name)), None)
    if wanted is None or not shutil.which(wanted.split()[0]):
        stop("no C++ compiler found; install one (Debian: apt-get install g++) or set CXX to its path")
    if not compiles(wanted, "-std=c++20", "template <class T> concept Any = true; int main() { return 0; }"):
        stop(f"{wanted} does not compile C++20; use g++ 11 or clang 14 or newer, or set CXX to one")
    return wanted


def find_nvcc() -> str | None:
    """Path of nvcc as FASTPOSE_CUDA asks for it, or None to build without CUDA."""
    choice = os.environ.get("FASTPOSE_CUDA", "auto")
    if choice not in ("auto", "0", "1"):
        stop(f"FASTPOSE_CUDA: expected auto, 1 or 0, got {choice!r}")
    if choice == "1" and not any(CSRC.rglob("*.cu")):
        stop("FASTPOSE_CUDA=1 but this version has no CUDA kernels; leave it at auto")
    nvcc = None if choice == "0" else os.environ.get("NVCC") or shutil.which("nvcc")
    if nvcc is None and choice == "1":
        stop(
            "FASTPOSE_CUDA=1 but nvcc was not found; put the CUDA toolkit's bin folder on PATH, set NVCC, "
            "or use FASTPOSE_CUDA=auto (the GPU is then served by Triton)"
        )
    return nvcc


def openmp_flag(compiler: str) -> str:
    """-fopenmp where the compiler has it; without it the kernels run on one thread."""
    if compiles(compiler, "-fopenmp", "#include <omp.h>\nint main() { return omp_get_max_threads() < 1; }"):
        return "-fopenmp"
    print("fastpose: the compiler has no OpenMP; the CPU kernels will run on one thread", file=sys.stderr)
    return ""


def cpu_objects(compiler: str) -> list[Object]:
    """Kernels (*_cpu.cpp) are compiled once per instruction set, the rest once.

    The baseline copies come first: the linker keeps the first copy of a library function that several share, and that
    one must run on every machine.
    """
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    wide = WIDE_VECTORS if compiles(compiler, WIDE_VECTORS, "int main() {}") else ""
    plain = [path for path in sorted(CSRC.rglob("*.cpp")) if not path.name.endswith("_cpu.cpp")]
    objects = [Object(path, f"{path.stem}.o") for path in plain]
    for level in SIMD_FLAGS if x86 else ("baseline",):
        flags = f"{SIMD_FLAGS[level]} {wide if level == 'avx512' else ''}"
        objects += [Object(path, f"{path.stem}.{level}.o", flags=flags) for path in sorted(CSRC.rglob("*_cpu.cpp"))]
    return objects


def cuda_flags() -> str:
    targets = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in CUDA_ARCHITECTURES]
    newest = CUDA_ARCHITECTURES[-1]
    targets.append(f"-gencode=arch=compute_{newest},code=compute_{newest}")
    return " ".join(["-std=c++20 -O3 --cudart=static -Xcompiler=-fPIC,-fvisibility=hidden", *targets])


def link_flags(nvcc: str | None) -> str:
    flags = "-shared -undefined dynamic_lookup" if sys.platform == "darwin" else "-shared -s -Wl,--gc-sections"
    if nvcc:
        flags += f" -L{escape(Path(nvcc).resolve().parents[1] / 'lib64')} -lcudart_static -ldl -lrt -lpthread"
    return flags


def escape(path: object) -> str:
    """A path as ninja wants it."""
    return str(path).replace("$", "$$").replace(" ", "$ ").replace(":", "$:")


def ninja_script(output: Path) -> str:
    """The whole build as a ninja file."""
    compiler, nvcc = find_compiler(), find_nvcc()
    cuda = [Object(path, f"{path.stem}.cu.o", "nvcc") for path in sorted(CSRC.rglob("*.cu"))] if nvcc else []
    objects = cpu_objects(compiler) + cuda
    openmp = openmp_flag(compiler)
    folders = [CSRC.absolute(), pybind11.get_include(), sysconfig.get_path("include")]
    includes = " ".join(f"'-I{escape(folder)}'" for folder in folders)
    defines = f"-DFASTPOSE_COMPILER='\"{compiler}\"'" + (" -DFASTPOSE_WITH_CUDA" if cuda else "")
    user = os.environ.get("CXXFLAGS", "")
    lines = [
        "rule cxx",
        f"  command = {compiler} -MMD -MF $out.d {FLAGS} {openmp} {defines} {includes} {user} $flags -c $in -o $out",
        "  depfile = $out.d",
        "  deps = gcc",
        "rule nvcc",
        f"  command = {nvcc} -MMD -MF $out.d {cuda_flags()} {includes} -c $in -o $out",
        "  depfile = $out.d",
        "  deps = gcc",
        "rule link",
        f"  command = {compiler} $in {openmp} {link_flags(nvcc if cuda else None)} -o $out",
    ]
    for item in objects:
        lines += [f"build {item.name}: {item.rule} {escape(item.source.absolute())}", f"  flags = {item.flags}"]
    names = " ".join(item.name for item in objects)
    return "\n".join([*lines, f"build {escape(output)}: link {names}", ""])


class NinjaBuild(build_ext):
    """Runs ninja, which compiles in parallel and only what changed."""

    def build_extension(self, ext: Extension) -> None:
        output = Path(self.get_ext_fullpath(ext.name)).absolute()
        folder = Path(self.build_temp).absolute()
        output.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "build.ninja").write_text(ninja_script(output))
        if subprocess.run([str(Path(ninja.BIN_DIR) / "ninja"), "-C", str(folder)], check=False).returncode != 0:
            stop("building the extension failed; the compiler's messages stand above this line")


setup(ext_modules=[Extension("fastpose._C", sources=[])], cmdclass={"build_ext": NinjaBuild})
