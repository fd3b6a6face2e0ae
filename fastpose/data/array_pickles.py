"""Pickles of numpy arrays, such as mmpose's cameras, read without trusting them.

A pickle is a program. This one may only put together numbers, texts and containers: of numpy it reaches stand-ins that
keep type, shape and bytes, and from which arrays are made at the end. Nothing else that a file names is looked up.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np

_NUMBERS = re.compile(r"[fiu][1248]|b1")


def read(path: Path) -> dict[Any, Any]:
    """Return the dictionary in a pickle of numpy arrays, of any protocol.

    Raises ``ValueError`` for a damaged file, and for anything but arrays of numbers in builtin containers.
    """
    try:
        with path.open("rb") as file:
            content = _arrays(_Restricted(file, encoding="latin1").load())
    except Exception as error:  # a damaged pickle raises nearly anything
        raise ValueError(f"{path}: not a pickle of numpy arrays alone ({line(error)}); restore the file") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a dictionary of arrays, got {type(content).__name__}; restore the file")
    return content


def line(text: object) -> str:
    """Return a text of another library as one line."""
    return " ".join(str(text).split())


class _Type:
    """Stands for ``numpy.dtype``: numbers of 1 to 8 bytes, in either order of bytes."""

    def __init__(self, code: str, *_: object):
        if not isinstance(code, str) or not _NUMBERS.fullmatch(code):
            raise pickle.UnpicklingError(f"has an array of {code!r}, expected numbers")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        order, names = state[1], state[2:5]
        if order not in ("<", ">", "|", "=") or any(part is not None for part in names):
            raise pickle.UnpicklingError("has an array of structures, expected numbers")
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """Stands for ``numpy.ndarray``."""

    values: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, data = state
        self.fill(data, kind, shape, "F" if fortran else "C")

    def fill(self, data: Any, kind: Any, shape: Any, order: Any) -> _Array:
        """Take the numbers out of the bytes."""
        if not isinstance(kind, _Type) or not isinstance(shape, tuple) or order not in ("C", "F"):
            raise pickle.UnpicklingError("has an array without type and shape")
        data = data.encode("latin1") if isinstance(data, str) else bytes(data)
        self.values = np.frombuffer(data, kind.dtype).reshape(shape, order=order).astype(kind.dtype.newbyteorder("="))
        return self


# Classes and not functions: a pickle may set attributes of what it names, but not of a class that has __setstate__.
class _Reconstruct:
    """Stands for ``_reconstruct``: an array whose state follows."""

    def __new__(cls, *_: object) -> Any:
        return _Array()

    def __setstate__(self, state: Any) -> None: ...


class _FromBuffer:
    """Stands for ``_frombuffer``, by which protocol 5 writes arrays."""

    def __new__(cls, data: Any, kind: Any, shape: Any, order: Any) -> Any:
        return _Array().fill(data, kind, shape, order)

    def __setstate__(self, state: Any) -> None: ...


class _Scalar:
    """Stands for ``scalar``: one number."""

    def __new__(cls, kind: Any, data: Any) -> Any:
        return _Array().fill(data, kind, (), "C")

    def __setstate__(self, state: Any) -> None: ...


class _Latin1:
    """Stands for ``codecs.encode``, by which protocol 2 writes bytes."""

    def __new__(cls, text: Any, encoding: Any) -> Any:
        if not isinstance(text, str) or encoding != "latin1":
            raise pickle.UnpicklingError("has bytes of another encoding than latin1")
        return text.encode("latin1")

    def __setstate__(self, state: Any) -> None: ...


class _NoBytes:
    """Stands for ``bytes``, by which protocol 2 writes none."""

    def __new__(cls) -> Any:
        return b""

    def __setstate__(self, state: Any) -> None: ...


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("numpy.core.multiarray", "_reconstruct"): _Reconstruct,
    ("numpy.core.multiarray", "scalar"): _Scalar,
    ("numpy.core.numeric", "_frombuffer"): _FromBuffer,
    ("_codecs", "encode"): _Latin1,
    ("__builtin__", "bytes"): _NoBytes,
}


# The unpickler in Python: the one in C makes room for any number of objects that a damaged file tells.
class _Restricted(pickle._Unpickler):  # type: ignore[misc, name-defined]
    """Gives the stand-ins by their numpy names, and refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a stand-in; ``UnpicklingError`` for any other name."""
        place = module.replace("numpy._core", "numpy.core")
        if (place, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"names {module}.{name}, where only numpy arrays are admitted")
        return _STAND_INS[place, name]


def _arrays(content: Any) -> Any:
    """Return containers with arrays for their stand-ins."""
    if isinstance(content, _Array) and content.values is not None:
        return content.values if content.values.ndim else content.values[()]
    if isinstance(content, dict):
        return {key: _arrays(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return type(content)(_arrays(value) for value in content)
    if content is None or isinstance(content, (str, bytes, bool, int, float)):
        return content
    raise pickle.UnpicklingError(f"holds a {type(content).__name__}, where only arrays and builtin values are admitted")
