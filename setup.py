"""Builds the extension fastpose._C with pybind11 and ninja; needs a C++20 compiler and neither torch nor CUDA.

Environment:
    FASTPOSE_CUDA=auto|1|0   auto (default): add the CUDA kernels when nvcc is found; 1: require nvcc; 0: leave them out.
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

import ninja
import pybind11
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CSRC = Path("csrc")
CUDA_ARCHITECTURES = ("80", "90")  # SASS for these and PTX of the last
SIMD_FLAGS = {
    "baseline": [],
    "avx2": ["-mavx2", "-mfma", "-mf16c", "-mtune=haswell"],
    "avx512": ["-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mavx2", "-mfma", "-mf16c"]
    + ["-mprefer-vector-width=512", "-mtune=icelake-server"],
}


def compiles(compiler: list[str], flags: list[str], source: str) -> bool:
    """Whether a small program compiles and links with these flags."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "probe.cpp")
        path.write_text(source)
        command = [*compiler, *flags, str(path), "-o", str(Path(folder, "probe"))]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


def find_compiler() -> list[str]:
    """The C++ compiler as a command; exits with one sentence where there is none."""
    wanted = os.environ.get("CXX") or next((name for name in ("c++", "g++", "clang++") if shutil.which(name)), None)
    if wanted is None or not shutil.which(wanted.split()[0]):
        sys.exit("fastpose: no C++ compiler found; install one (Debian: apt-get install g++) or set CXX to its path")
    compiler = wanted.split()
    if not compiles(compiler, ["-std=c++20"], "template <class T> concept Any = true; int main() { return 0; }"):
        sys.exit(f"fastpose: {wanted} does not compile C++20; use g++ 11 or clang 14 or newer, or set CXX to one")
    return compiler


def find_nvcc() -> str | None:
    """Path of nvcc as FASTPOSE_CUDA asks for it, or None to build without CUDA."""
    choice = os.environ.get("FASTPOSE_CUDA", "auto")
    if choice not in ("auto", "0", "1"):
        sys.exit(f"fastpose: FASTPOSE_CUDA: expected auto, 1 or 0, got {choice!r}")
    nvcc = None if choice == "0" else os.environ.get("NVCC") or shutil.which("nvcc")
    if nvcc is None and choice == "1":
        sys.exit("fastpose: FASTPOSE_CUDA=1 but nvcc was not found; put the CUDA toolkit's bin folder on PATH, set NVCC, "
                 "or use FASTPOSE_CUDA=auto (the GPU is then served by Triton)")
    return nvcc


def escape(path: object) -> str:
    """A path as ninja wants it."""
    return str(path).replace("$", "$$").replace(" ", "$ ").replace(":", "$:")


class NinjaBuild(build_ext):
    """Compiles every source of csrc in parallel: the *_cpu.cpp files once per instruction set, the rest once."""

    def build_extension(self, ext: Extension) -> None:
        output = Path(self.get_ext_fullpath(ext.name)).absolute()
        output.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(self.build_temp).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "build.ninja").write_text(self.script(output))
        command = [str(Path(ninja.BIN_DIR) / "ninja"), "-C", str(folder)]
        if subprocess.run(command, check=False).returncode != 0:
            sys.exit("fastpose: building the extension failed; the compiler's messages stand above this line")

    def script(self, output: Path) -> str:
        compiler, nvcc = find_compiler(), find_nvcc()
        objects = list(self.cpu_objects())
        cuda = [(path, path.with_suffix(".o").name, []) for path in sorted(CSRC.rglob("*.cu"))] if nvcc else []
        flags = self.flags(compiler, bool(cuda))
        lines = [
            "rule cxx",
            f"  command = {' '.join(map(escape_command, compiler))} -MMD -MF $out.d {flags} $simd -c $in -o $out",
            "  depfile = $out.d",
            "  deps = gcc",
            "rule nvcc",
            f"  command = {nvcc} {self.cuda_flags()} -MMD -MF $out.d -c $in -o $out",
            "  depfile = $out.d",
            "  deps = gcc",
            "rule link",
            f"  command = {' '.join(map(escape_command, compiler))} $in {self.link_flags(compiler, nvcc, cuda)} -o $out",
        ]
        for source, name, simd in objects:
            lines += [f"build {name}: cxx {escape(source.absolute())}", f"  simd = {' '.join(simd)}"]
        lines += [f"build {name}: nvcc {escape(source.absolute())}" for source, name, _ in cuda]
        names = " ".join(name for _, name, _ in objects + cuda)
        lines += [f"build {escape(output)}: link {names}", f"default {escape(output)}", ""]
        return "\n".join(lines)

    def cpu_objects(self):
        """(source, object name, extra flags); the baseline copies come first, so that any inline library function
        that is shared between copies is taken from code that runs on every machine."""
        x86 = platform.machine().lower() in ("x86_64", "amd64")
        plain = [path for path in sorted(CSRC.rglob("*.cpp")) if not path.name.endswith("_cpu.cpp")]
        kernels = sorted(CSRC.rglob("*_cpu.cpp"))
        yield from ((path, f"{path.stem}.o", []) for path in plain)
        for level in SIMD_FLAGS if x86 else ("baseline",):
            yield from ((path, f"{path.stem}.{level}.o", SIMD_FLAGS[level]) for path in kernels)

    def flags(self, compiler: list[str], cuda: bool) -> str:
        includes = [CSRC.absolute(), pybind11.get_include(), sysconfig.get_path("include")]
        flags = ["-std=c++20", "-O3", "-fPIC", "-fvisibility=hidden", "-ffp-contract=fast", "-fno-math-errno",
                 "-fno-trapping-math", "-Wall", "-Wno-psabi", "-DNDEBUG"]
        flags += [f'-DFASTPOSE_COMPILER="\\"{" ".join(compiler)}\\""', "-DFASTPOSE_WITH_CUDA"][: 1 + cuda]
        flags += self.openmp(compiler)
        flags += [f"-I{escape(path)}" for path in includes]
        return " ".join([*flags, os.environ.get("CXXFLAGS", "")])

    def openmp(self, compiler: list[str]) -> list[str]:
        """-fopenmp where the compiler has it; without it the kernels run on one thread."""
        if not hasattr(self, "_openmp"):
            found = compiles(compiler, ["-fopenmp"], "#include <omp.h>\nint main() { return omp_get_max_threads() < 1; }")
            self._openmp = ["-fopenmp"] if found else []
            if not found:
                print("fastpose: the compiler has no OpenMP; the CPU kernels will run on one thread", file=sys.stderr)
        return self._openmp

    def link_flags(self, compiler: list[str], nvcc: str | None, cuda: list) -> str:
        flags = ["-shared", *self.openmp(compiler)]
        if sys.platform == "darwin":
            flags += ["-undefined", "dynamic_lookup"]
        else:
            flags += ["-Wl,--gc-sections", "-s"]
        if cuda:
            library = Path(str(nvcc)).resolve().parents[1] / "lib64"
            flags += [f"-L{escape(library)}", "-lcudart_static", "-ldl", "-lrt", "-lpthread"]
        return " ".join(flags)

    def cuda_flags(self) -> str:
        targets = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in CUDA_ARCHITECTURES]
        newest = CUDA_ARCHITECTURES[-1]
        targets.append(f"-gencode=arch=compute_{newest},code=compute_{newest}")
        flags = ["-std=c++20", "-O3", "--cudart=static", "-Xcompiler=-fPIC,-fvisibility=hidden", *targets]
        return " ".join([*flags, f"-I{escape(CSRC.absolute())}"])


def escape_command(word: str) -> str:
    return word.replace("$", "$$")


setup(ext_modules=[Extension("fastpose._C", sources=[])], cmdclass={"build_ext": NinjaBuild})
