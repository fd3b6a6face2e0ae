"""The one door to the compiled extension ``fastpose._C``; it opens when ``fastpose.ops`` is first imported."""

from __future__ import annotations

import importlib
import importlib.util
import os
import struct
import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch  # noqa: F401  first, so that the extension shares torch's OpenMP threads

_INTERFACE = 1  # of csrc/bindings/module.cpp
_SIMD = "FASTPOSE_SIMD"  # of csrc/common/cpu_level.cpp, which passes over what it does not know


def _load() -> ModuleType:
    """Import the extension; ``ImportError`` for a file that is absent, cut short or built from other sources."""
    spec = importlib.util.find_spec("fastpose._C")
    if spec is None:
        raise ImportError(f"there is none in {Path(__file__).parent}, a checkout that is not built")
    if spec.origin is not None:
        _check_whole(Path(spec.origin))
    module = importlib.import_module("fastpose._C")
    found = getattr(module, "interface", None)
    if found != _INTERFACE:  # a checkout that was updated and not built again
        raise ImportError(f"{spec.origin} was built from other sources: interface {_INTERFACE} expected, {found} found")
    return module


def _check_whole(path: Path) -> None:
    """Raise ``ImportError`` for an ELF file that is cut short: to load it would end the process."""
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        head = stream.read(64)
        # Of 64 bits and little-endian; the loader refuses what is shorter by itself.
        if head[:6] != b"\x7fELF\x02\x01" or len(head) < 64:
            return
        first, entry, count = *struct.unpack_from("<Q", head, 32), *struct.unpack_from("<HH", head, 54)
        stream.seek(first)
        table = stream.read(entry * count)
    # Each entry of the program header table: the segment's place in the file and its length there.
    segments = [struct.unpack_from("<Q16xQ", table, at + 8) for at in range(0, len(table) - entry + 1, entry)]
    wanted = max([first + entry * count, *(start + length for start, length in segments)])
    if size < wanted:
        raise ImportError(f"{path} is cut short, {size} of at least {wanted} bytes")


def _check_simd(module: ModuleType) -> None:
    """Warn of an instruction set that was asked for and is not used."""
    wanted, used = os.environ.get(_SIMD), module.build_info()["simd"]
    if wanted and wanted != used:
        warnings.warn(
            f"fastpose: {_SIMD}={wanted}: expected baseline, avx2 or avx512, and one that this machine has; {used} "
            "serves instead",
            RuntimeWarning,
            stacklevel=3,
        )


_extension: ModuleType | None = None
_failure: str | None = None
try:
    _extension = _load()
except Exception as error:  # whatever it is, plain tensor code serves
    _failure = (
        f"the compiled extension cannot be loaded ({error}); reinstall with `pip install --force-reinstall .`, or "
        "build a checkout with `pip install -e .`"
    )
    warnings.warn(f"fastpose: {_failure}; the slower reference backend serves instead", RuntimeWarning, stacklevel=2)
else:
    _check_simd(_extension)


def missing() -> str | None:
    """Why the extension cannot be used, as one sentence; None when it is there."""
    return _failure


def module() -> ModuleType:
    """The extension module; raises ``ImportError`` with one sentence when it cannot be loaded."""
    if _extension is None:
        raise ImportError(f"fastpose: {_failure}")
    return _extension


def direct(operation: str) -> Callable[..., Any]:
    """A public operation's call in one step, which returns None for what it does not serve (csrc/bindings/direct.h)."""
    return _nothing if _extension is None else getattr(_extension.direct, operation, _nothing)


def _nothing(*arguments: Any) -> None:
    """Where there is no such call."""


def ordinary(*tensors: Any) -> bool:
    """Whether these are tensors of no special kind and nothing in torch looks on: no tracer, mode or transform."""
    return _extension is not None and _extension.ordinary(*tensors)


def cuda_kernels() -> bool | str:
    """Whether the extension has CUDA kernels; "emulated" where they run on the CPU, which only tests build."""
    return module().cuda_kernels


@lru_cache(maxsize=1)
def cuda_problem() -> str:
    """Why the CUDA kernels cannot run with this machine's driver; empty where they can."""
    return module().cuda_problem()


def build_info() -> dict[str, Any]:
    """How the extension was built and which instruction set it uses.

    Returns:
        compiler, simd, widest_simd, amx (whether bfloat16 is multiplied by it), openmp, cuda (see
        :func:`cuda_kernels`), cuda_architectures (80 for compute capability 8.0), cuda_reason (why it was built without
        CUDA kernels).
    """
    return dict(module().build_info())
