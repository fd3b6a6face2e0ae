"""Pickles of numpy arrays, such as mmpose's cameras, read without trusting them.

A pickle is a program. This one may only put together numbers, texts and containers: of numpy it reaches stand-ins that
keep type, shape and bytes, and from which arrays are made at the end. Nothing else that a file names is looked up, and
nothing takes time or memory out of proportion to the file: what it remembers it may repeat a few times only.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import warnings
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

_NUMBERS = re.compile(r"[fiu][1248]|b1")
MOST, TIMES = 1_000_000, 4
"""Operations of a file, and how often it may come to its own length by repeating what it remembers."""
LONGEST_KEY, LONGEST_LINE = 100, 300
"""Characters of a dictionary's key, and of a message."""
_UNUSED = re.compile(r"EXT[124]|(BIN)?PERSID|INST|OBJ|NEWOBJ(_EX)?|(EMPTY_|FROZEN)SET|ADDITEMS|(NEXT|READONLY)_BUFFER")
"""Operations that no array needs."""
_PLACES = ("PUT", "BINPUT", "LONG_BINPUT")


def read(path: Path) -> dict[Any, Any]:
    """Return the dictionary in a pickle of numpy arrays, of any protocol.

    Raises ``ValueError`` for a damaged file, and for anything but arrays of numbers in builtin containers.
    """
    try:
        data = path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of odd backslashes in texts
            _check(data)
            content = _Copy(data).of(_Restricted(data).load())
    except Exception as error:  # a damaged pickle raises nearly anything
        raise ValueError(f"{path}: not a pickle of numpy arrays alone ({line(error)}); restore the file") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a dictionary of arrays, got {type(content).__name__}; restore the file")
    return content


def line(text: object) -> str:
    """Return a text of another library, or of a file, as one line that no terminal takes for more than text."""
    short = " ".join(str(text).split())[:LONGEST_LINE]
    return "".join(character if character.isprintable() else "?" for character in short)


def _check(data: bytes) -> None:
    """Raise for a pickle that announces more than it has, and for operations that no array needs.

    The places of what is remembered count up, from 0 or 1: others could be chosen to collide in a dictionary.
    """
    places = 0
    for count, (operation, argument, _) in enumerate(pickletools.genops(data)):
        if count > MOST:
            raise pickle.UnpicklingError(f"has more than {MOST:,} operations")
        if _UNUSED.fullmatch(operation.name):
            raise pickle.UnpicklingError(f"uses {operation.name}, which no array needs")
        if operation.name in _PLACES and not 0 <= int(argument or 0) <= places + 1:
            raise pickle.UnpicklingError("remembers things in no order")
        places += operation.name in (*_PLACES, "MEMOIZE")


class _Type:
    """Stands for ``numpy.dtype``: numbers of 1 to 8 bytes, in either order of bytes."""

    def __init__(self, code: str, *_: object):
        if not isinstance(code, str) or not _NUMBERS.fullmatch(code):
            what = repr(code[:20]) if isinstance(code, str) else type(code).__name__  # nested ones multiply as text
            raise pickle.UnpicklingError(f"has an array of {what}, expected numbers")
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
        if not isinstance(data, (str, bytes, bytearray)):  # of a number, bytes() makes so many
            raise pickle.UnpicklingError("has an array without bytes")
        data = data.encode("latin1") if isinstance(data, str) else data
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
_Unpickler: Any = pickle._Unpickler  # type: ignore[attr-defined]


class _Restricted(_Unpickler):  # type: ignore[misc]
    """Gives the stand-ins by their numpy names, and refuses every other name."""

    dispatch: ClassVar[dict[int, Any]] = dict(_Unpickler.dispatch)

    def __init__(self, data: bytes):
        super().__init__(io.BytesIO(data), encoding="latin1")
        self.left = TIMES * len(data)

    def find_class(self, module: str, name: str) -> Any:
        """Return a stand-in; ``UnpicklingError`` for any other name."""
        place = module.replace("numpy._core", "numpy.core")
        if (place, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"names {module}.{name}, where only numpy arrays are admitted")
        return _STAND_INS[place, name]

    def _call(self) -> None:
        self._charge()
        super().load_reduce()

    def _build(self) -> None:
        self._charge()
        super().load_build()

    def _charge(self) -> None:
        """Count what a call is given, all of which it may copy."""
        given = self.stack[-1] if isinstance(self.stack[-1], tuple) else self.stack[-1:]
        self.left -= len(given) + sum(len(part) for part in given if hasattr(part, "__len__"))
        if self.left < 0:
            raise pickle.UnpicklingError("repeats itself over and over")

    def _set_item(self) -> None:
        _check_keys(self.stack[-2:-1])
        super().load_setitem()

    def _set_items(self) -> None:
        _check_keys(self.stack[::2])
        super().load_setitems()

    def _dict(self) -> None:
        _check_keys(self.stack[::2])
        super().load_dict()

    dispatch |= {pickle.REDUCE[0]: _call, pickle.BUILD[0]: _build}
    dispatch |= {pickle.SETITEM[0]: _set_item, pickle.SETITEMS[0]: _set_items, pickle.DICT[0]: _dict}


def _check_keys(keys: list[Any]) -> None:
    """Raise unless keys are short texts or tuples of them: nested ones take for ever to hash, and numbers collide."""
    for key in keys:
        parts = key if isinstance(key, tuple) and len(key) <= LONGEST_KEY else (key,)
        if not all(isinstance(part, str) and len(part) <= LONGEST_KEY for part in parts):
            raise pickle.UnpicklingError("has dictionaries with other keys than short texts and tuples of them")


class _Copy:
    """Containers with arrays for their stand-ins; what a file holds many times is copied as often, so it is counted."""

    def __init__(self, data: bytes):
        self.left = TIMES * len(data)

    def of(self, content: Any) -> Any:
        """Return the copy."""
        self.left -= 1
        if self.left < 0:
            raise pickle.UnpicklingError("holds the same things over and over")
        if isinstance(content, _Array) and content.values is not None:
            return content.values if content.values.ndim else content.values[()]
        if isinstance(content, dict):
            return {key: self.of(value) for key, value in content.items()}
        if isinstance(content, (list, tuple)):
            return type(content)(self.of(value) for value in content)
        if content is None or isinstance(content, (str, bytes, bool, int, float)):
            return content
        name = type(content).__name__
        raise pickle.UnpicklingError(f"holds a {name}, where only arrays and builtin values are admitted")
