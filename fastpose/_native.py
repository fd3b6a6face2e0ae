"""The one door to the compiled extension ``fastpose._C``; it opens on the first call of a kernel."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import warnings
from types import ModuleType

import torch  # noqa: F401  first, so that the extension shares torch's OpenMP threads


def missing() -> str | None:
    """Why the extension cannot be used, as one sentence; None when it is there."""
    if importlib.util.find_spec("fastpose._C") is None:
        return "the compiled extension is not built; run `pip install -e .` in the checkout"
    return _load_failure()


@functools.cache
def module() -> ModuleType:
    """The extension module; raises ``ImportError`` with one sentence when it cannot be loaded."""
    return importlib.import_module("fastpose._C")


@functools.cache
def _load_failure() -> str | None:
    try:
        module()
    except ImportError as error:
        reason = f"the compiled extension cannot be loaded ({error}); reinstall with `pip install --force-reinstall .`"
        warnings.warn(f"fastpose: {reason}; the slower reference backend serves instead", RuntimeWarning, stacklevel=3)
        return reason
    return None


def build_info() -> dict[str, object]:
    """How the extension was built and which instruction set it uses: compiler, simd, widest_simd, openmp, cuda."""
    return dict(module().build_info())
