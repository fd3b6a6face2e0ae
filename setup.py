"""Builds the extension fastpose._C with pybind11 and ninja; needs a C++20 compiler and neither torch nor CUDA.

Environment:
    FASTPOSE_CUDA=auto|1|0   auto (default): CUDA kernels when nvcc is found; 1: require nvcc; 0: leave them out.
                             Building them needs no GPU, and the extension is loaded on machines without one.
    FASTPOSE_SANITIZE        for tests: address, undefined or thread, or some of them with commas between; the extension
                             then stops at the first fault that they see (see CONTRIBUTING.md). None by default.
    CXX, CXXFLAGS            C++ compiler, and extra flags for it; these do not reach nvcc, which itself reads
                             NVCC_APPEND_FLAGS.
    NVCC                     nvcc to be used; otherwise the first that works of those on PATH, in $CUDA_HOME/bin,
                             $CUDA_PATH/bin and /usr/local/cuda/bin.
    NVCC_CCBIN               host compiler of nvcc; otherwise CXX.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
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
PLAIN_FLAGS = "-O1"  # the code around the kernels: half the time to compile, the same time to call
SIMD_FLAGS = {
    "baseline": "",
    "avx2": "-mavx2 -mfma -mf16c -mtune=haswell",
    "avx512": "-mavx512f -mavx512dq -mavx512vl -mavx512bw -mavx2 -mfma -mf16c -mtune=icelake-server",
}
SANITIZERS = ("address", "undefined", "thread")
# Beside -fsanitize: a number that does not fit the integer it becomes is a fault too; every fault ends the process.
SANITIZED_FLAGS = "-O1 -g1 -fno-omit-frame-pointer -fno-sanitize-recover=all -D_GLIBCXX_ASSERTIONS"
CUDA_FLAGS = (
    "-std=c++20 -O3 --expt-relaxed-constexpr --cudart=static -Xfatbin=-compress-all -DNDEBUG",
    "-Xcompiler=-fPIC,-fvisibility=hidden",
    *(f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in CUDA_ARCHITECTURES),
    f"-gencode=arch=compute_{CUDA_ARCHITECTURES[-1]},code=compute_{CUDA_ARCHITECTURES[-1]}",
)
CUDA_HOMES = ("CUDA_HOME", "CUDA_PATH")  # where other packages' builds are told of the toolkit
USUAL_CUDA = Path("/usr/local/cuda")  # where its installer puts it, beside PATH
WIDE_VECTORS = "-mprefer-vector-width=512"
AMX_FLAGS = "-mavx512bf16 -mamx-tile -mamx-bf16"  # beside those of avx512
AMX_PROBE = """#include <immintrin.h>
int main() { _tile_dpbf16ps(0, 4, 6); return _mm512_cvtsi512_si32((__m512i)_mm512_cvtne2ps_pbh(__m512(), __m512())); }
"""


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
        command = [*shlex.split(compiler), *flags.split(), str(path), "-o", str(Path(folder, "probe"))]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


def find_compiler() -> str:
    """The C++ compiler's command; stops with one sentence where there is none."""
    wanted = os.environ.get("CXX") or next((name for name in ("c++", "g++", "clang++") if shutil.which(name)), None)
    if wanted is None or not shutil.which(shlex.split(wanted)[0]):
        stop("no C++ compiler found; install one (Debian: apt-get install g++) or set CXX to its path")
    if not compiles(wanted, "-std=c++20", "template <class T> concept Any = true; int main() { return 0; }"):
        stop(f"{wanted} does not compile C++20; use g++ 11 or clang 14 or newer, or set CXX to one")
    return wanted


class Cuda(NamedTuple):
    """The CUDA toolkit: nvcc, the host compiler it is to use, and the folder of the static runtime library."""

    nvcc: str
    host: str
    library: Path

    @property
    def command(self) -> str:
        """For a shell. NVCC_CCBIN, which nvcc reads itself, would lose against -ccbin."""
        host = "" if os.environ.get("NVCC_CCBIN") else f"-ccbin {shlex.quote(self.host)}"
        return f"{shlex.quote(self.nvcc)} {host} {' '.join(CUDA_FLAGS)}"


class Without(NamedTuple):
    """Why there are no CUDA kernels, and what helps; both as parts of a sentence."""

    reason: str
    remedy: str


def find_cuda(compiler: str) -> tuple[Cuda | None, str]:
    """The CUDA toolkit as FASTPOSE_CUDA asks for it, or None and the reason to build without CUDA."""
    choice = os.environ.get("FASTPOSE_CUDA", "auto")
    if choice not in ("auto", "0", "1"):
        stop(f"FASTPOSE_CUDA: expected auto, 1 or 0, got {choice!r}")
    if choice == "0":
        return None, "FASTPOSE_CUDA=0"
    found = search_cuda(compiler)
    if isinstance(found, Cuda):
        return found, ""
    wanted = os.environ.get("NVCC")
    if wanted or choice == "1":
        stop(f"{f'NVCC={wanted}' if wanted else 'FASTPOSE_CUDA=1'} but {found.reason}; {found.remedy}")
    print(f"fastpose: building without CUDA kernels, since {found.reason}", file=sys.stderr)
    return None, found.reason


def search_cuda(compiler: str) -> Cuda | Without:
    """The first toolkit that works, or what the first one lacks."""
    wanted = os.environ.get("NVCC")
    homes = [Path(os.environ[name]) for name in CUDA_HOMES if os.environ.get(name)]
    places = [wanted] if wanted else ["nvcc", *(str(home / "bin" / "nvcc") for home in (*homes, USUAL_CUDA))]
    tried = [examine(nvcc, compiler) for nvcc in dict.fromkeys(map(shutil.which, places)) if nvcc]
    absent = Without(
        "nvcc was not found",
        "put the CUDA toolkit's bin folder on PATH, set CUDA_HOME or NVCC, or use FASTPOSE_CUDA=auto without NVCC "
        "(the GPU is then served by Triton)",
    )
    return next((cuda for cuda in tried if isinstance(cuda, Cuda)), tried[0] if tried else absent)


def examine(nvcc: str, compiler: str) -> Cuda | Without:
    """The toolkit around nvcc, or what it lacks."""
    nvcc = str(Path(nvcc).absolute())  # ninja runs in another folder
    words = [word for word in shlex.split(compiler) if Path(word).name not in ("ccache", "sccache", "distcc")]
    library = find_runtime(nvcc)
    if library is None:
        return Without(
            f"libcudart_static.a was not found around {nvcc}", "install the CUDA toolkit's development files"
        )
    cuda = Cuda(nvcc, words[0], library)
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder, "probe.cu")
        probe.write_text("#include <cuda_bf16.h>\n")
        command = [*shlex.split(cuda.command), "-E", str(probe), "-o", str(Path(folder, "probe.ii"))]
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return cuda
    return Without(
        f"nvcc {nvcc} cannot compile C++20 with {os.environ.get('NVCC_CCBIN') or words[0]}",
        "use CUDA 12.0 or newer, and set CXX or NVCC_CCBIN to a compiler it supports",
    )


def find_runtime(nvcc: str) -> Path | None:
    """The folder of libcudart_static.a. nvcc itself knows best: what is on PATH may be a wrapper script."""
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder, "probe.cu")
        probe.touch()
        dry = subprocess.run([nvcc, "--dryrun", str(probe)], capture_output=True, text=True, check=False)
    said = re.findall(r"^#\$ LIBRARIES=(.*)$", dry.stdout + dry.stderr, re.MULTILINE)
    folders = [Path(word[2:]) for line in said for word in shlex.split(line) if word.startswith("-L")]
    tops = [Path(nvcc).resolve().parents[1], *(Path(os.environ[name]) for name in CUDA_HOMES if name in os.environ)]
    folders += [folder for top in tops for folder in (top / "lib64", top / "lib", *top.glob("targets/*/lib"))]
    return next((folder.resolve() for folder in folders if (folder / "libcudart_static.a").is_file()), None)


def sanitizer_flags(compiler: str) -> str:
    """The compiler's flags for the sanitizers that FASTPOSE_SANITIZE names; empty for none."""
    wanted = os.environ.get("FASTPOSE_SANITIZE", "")
    names = wanted.split(",") if wanted else []
    if unknown := [name for name in names if name not in SANITIZERS]:
        stop(f"FASTPOSE_SANITIZE: expected some of {', '.join(SANITIZERS)}, got {unknown[0]!r}")
    if not names:
        return ""
    named = ",".join([*names, *(["float-cast-overflow"] if "undefined" in names else [])])
    flags = f"-fsanitize={named} {SANITIZED_FLAGS}"
    if not compiles(compiler, flags, "int main() {}"):
        stop(f"FASTPOSE_SANITIZE={wanted} but {compiler} cannot do it; install its sanitizers, or name fewer")
    return flags


def openmp_flag(compiler: str) -> str:
    """-fopenmp where the compiler has it; without it the kernels run on one thread."""
    if compiles(compiler, "-fopenmp", "#include <omp.h>\nint main() { return omp_get_max_threads() < 1; }"):
        return "-fopenmp"
    print("fastpose: the compiler has no OpenMP; the CPU kernels will run on one thread", file=sys.stderr)
    return ""


def cpu_objects(compiler: str) -> list[Object]:
    """Kernels (*_cpu.cpp) are compiled once per instruction set, the rest once; *_amx.cpp are empty without its flags.

    The baseline copies come first: the linker keeps the first copy of a library function that several share, and that
    one must run on every machine.
    """
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    wide = WIDE_VECTORS if compiles(compiler, WIDE_VECTORS, "int main() {}") else ""
    plain = [path for path in sorted(CSRC.rglob("*.cpp")) if not path.name.endswith(("_cpu.cpp", "_amx.cpp"))]
    objects = [Object(path, f"{path.parent.name}.{path.stem}.o", flags=PLAIN_FLAGS) for path in plain]
    for level in SIMD_FLAGS if x86 else ("baseline",):
        flags = f"{SIMD_FLAGS[level]} {wide if level == 'avx512' else ''}"
        objects += [Object(path, f"{path.stem}.{level}.o", flags=flags) for path in sorted(CSRC.rglob("*_cpu.cpp"))]
    flags = f"{SIMD_FLAGS['avx512']} {wide} {AMX_FLAGS}"
    amx = flags if x86 and compiles(compiler, flags, AMX_PROBE) else ""
    return objects + [Object(path, f"{path.stem}.o", flags=amx) for path in sorted(CSRC.rglob("*_amx.cpp"))]


def cuda_objects() -> list[Object]:
    return [Object(path, f"{path.stem}.cu.o", "nvcc") for path in sorted(CSRC.rglob("*.cu"))]


def define_text(name: str, text: str) -> str:
    """A flag that defines a string literal, for a shell."""
    literal = text.replace("\\", "\\\\").replace('"', '\\"')
    return shlex.quote(f'-D{name}="{literal}"')


def defines(compiler: str, cuda: Cuda | None, reason: str) -> str:
    text = f"{define_text('FASTPOSE_COMPILER', compiler)} {define_text('FASTPOSE_CUDA_REASON', reason)}"
    if cuda:
        text += f" -DFASTPOSE_WITH_CUDA -DFASTPOSE_CUDA_ARCHITECTURES={','.join(CUDA_ARCHITECTURES)}"
    return text


def link_flags(cuda: Cuda | None, sanitizers: str) -> str:
    """The CUDA runtime is linked in and its names are kept inside: torch brings its own."""
    if sys.platform == "darwin":
        flags = f"-shared -undefined dynamic_lookup {sanitizers}"
    else:
        flags = f"-shared -Wl,--gc-sections {sanitizers or '-s'}"  # a sanitizer names functions and lines
    if cuda:
        flags += f" {shlex.quote(f'-L{cuda.library}')} -lcudart_static -Wl,--exclude-libs,ALL -ldl -lrt -lpthread"
    return flags


def escape(path: object) -> str:
    """A path among the files of a ninja rule."""
    return for_ninja(str(path)).replace(" ", "$ ").replace(":", "$:")


def for_ninja(command: str) -> str:
    """A shell's text as ninja wants it."""
    return command.replace("$", "$$")


def ninja_script(output: Path) -> str:
    """The whole build as a ninja file."""
    compiler = find_compiler()
    cuda, reason = find_cuda(compiler)
    objects = cpu_objects(compiler) + (cuda_objects() if cuda else [])
    openmp, sanitizers = openmp_flag(compiler), sanitizer_flags(compiler)
    nvcc = cuda.command if cuda else "false"
    sources = shlex.quote(f"-I{CSRC.absolute()}")
    folders = [pybind11.get_include(), sysconfig.get_path("include")]
    includes = " ".join([sources, *(shlex.quote(f"-I{folder}") for folder in folders)])
    wanted = f"{sanitizers} {os.environ.get('CXXFLAGS', '')}"
    flags = f"{FLAGS} {openmp} {defines(compiler, cuda, reason)} {includes} {wanted}"
    lines = [
        "rule cxx",
        f"  command = {for_ninja(f'{compiler} -MMD -MF')} $out.d {for_ninja(flags)} $flags -c $in -o $out",
        "  depfile = $out.d",
        "  deps = gcc",
        "rule nvcc",
        f"  command = {for_ninja(nvcc)} -MMD -MF $out.d {for_ninja(sources)} -c $in -o $out",
        "  depfile = $out.d",
        "  deps = gcc",
        "rule link",
        f"  command = {for_ninja(compiler)} $in {openmp} {for_ninja(link_flags(cuda, sanitizers))} -o $out",
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
