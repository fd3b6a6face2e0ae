"""The one door to the compiled extension ``fastpose._C``; it opens when ``fastpose.ops`` is first imported."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from functools import lru_cache
from types import ModuleType
from typing import Any

import torch  # noqa: F401  first, so that the extension shares torch's OpenMP threads

_extension: ModuleType | None = None
_failure: str | None = None
try:
    _extension = importlib.import_module("fastpose._C")
except ImportError as error:
    _failure = f"the compiled extension cannot be loaded ({error}); reinstall with `pip install --force-reinstall .`"
    warnings.warn(f"fastpose: {_failure}; the slower reference backend serves instead", RuntimeWarning, stacklevel=2)


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
