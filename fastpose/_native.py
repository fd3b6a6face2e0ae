"""The one door to the compiled extension ``fastpose._C``; it opens when ``fastpose.ops`` is first imported."""

from __future__ import annotations

import importlib
import warnings
from types import ModuleType

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


def build_info() -> dict[str, object]:
    """How the extension was built and which instruction set it uses: compiler, simd, widest_simd, openmp, cuda."""
    return dict(module().build_info())
