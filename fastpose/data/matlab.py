"""MATLAB files of the versions 5 to 7, checked before SciPy reads them: its reader trusts what a file says of itself.

A damaged tag may let SciPy's compiled code read beyond its memory, which ends the process. So the wanted variables are
walked here first, every tag against what is there, and SciPy is given a file of these alone, unpacked.
"""

from __future__ import annotations

import io
import math
import struct
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastpose.data import unpacking
from fastpose.data.array_pickles import line

DEEPEST, DIMENSIONS = 32, 8
"""Levels of structures in structures, and sides of an array: MPII's annotation has 9, and 3."""
_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_CELL, _STRUCT, _CHAR, _OPAQUE = 1, 2, 4, 17
_READ = {_CELL, _STRUCT, _CHAR, *range(6, 16)}
"""Classes that are read: 6 to 15 are numbers."""
_INT8, _INT32, _UINT32 = 1, 5, 6
_BYTES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8}
"""Bytes of a number of each type."""
_LETTERS = {1, 2, 4, 16, 17}
"""Types in which letters are stored."""
_COMPLEX = 0x800


def load(path: Path, names: Sequence[str], **options: bool) -> dict[str, Any]:
    """Return those of the variables ``names`` that a MATLAB file has, as ``scipy.io.loadmat`` does.

    Numbers, text, cells and structures are read; sparse and complex arrays and objects are refused.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no such file's content, damaged, or out of proportion to its size; one sentence.
    """
    from scipy.io import loadmat

    data = path.read_bytes()
    try:
        sound = _sound(data, names)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of variables that are there twice
            content: dict[str, Any] = loadmat(io.BytesIO(sound), None, True, variable_names=list(names), **options)  # type: ignore[arg-type]
    except Exception as error:  # scipy raises many kinds for a damaged file
        raise ValueError(f"{path}: not a readable MATLAB file ({line(error)}); restore it") from None
    return {name: content[name] for name in names if name in content}


def _sound(data: bytes, names: Sequence[str]) -> bytes:
    """Return a file of the wanted variables alone, unpacked, in which every tag has been found to be true."""
    order = {b"\0\1IM": "<", b"\1\0MI": ">"}.get(data[124:_HEADER])
    if order is None:
        raise ValueError("it does not begin as one of the versions 5 to 7")
    tag = struct.Struct(f"{order}2I")
    parts, place = [data[:116] + bytes(8) + data[124:_HEADER]], _HEADER
    while place < len(data):
        if place + 8 > len(data):
            raise ValueError("it ends within a tag")
        kind, size = tag.unpack_from(data, place)
        end = place + 8 + size
        if end > len(data) or kind not in (_MATRIX, _COMPRESSED):
            raise ValueError(f"it ends at {len(data):,} bytes, before its variables do, or has something else")
        variable = data[place:end] if kind == _MATRIX else _unpacked(data[place + 8 : end], 8 * DIMENSIONS * 8)
        if _Walk(variable, order).name() in names:
            variable = variable if kind == _MATRIX else _unpacked(data[place + 8 : end])
            _Walk(variable, order).check()
            parts.append(variable)
        place = end
    return b"".join(parts)


def _unpacked(packed: bytes, head: int = 0) -> bytes:
    """Return a variable, or its first ``head`` bytes."""
    most = unpacking.most(len(packed))
    stream = zlib.decompressobj()
    unpacked = stream.decompress(packed, head or most)
    if not head and not stream.eof:
        raise ValueError(
            f"a variable is cut, or takes more than {most:,} bytes, which is out of proportion to the file"
        )
    return unpacked


class _Walk:
    """One variable, from its tag to its last byte."""

    def __init__(self, data: bytes, order: str) -> None:
        self.data, self.order = data, order
        self.tag, self.flags = struct.Struct(f"{order}2I"), struct.Struct(f"{order}4I")

    def name(self) -> str:
        """Return the variable's name, of whatever class it is; what follows it need not be there."""
        end = len(self.data)
        flags, place = self.leading_flags(8, end)
        if flags & 0xFF != _OPAQUE:  # MATLAB's own strings, tables and dates have no sides
            place = self.element(place, end, (_INT32,))[3]
        _, start, size, _ = self.element(place, end, (_INT8,))
        return self.data[start : start + size].decode("latin-1")

    def check(self) -> None:
        """Raise ``ValueError`` unless every tag holds what it says."""
        kind, size = self.tag.unpack_from(self.data)
        if kind != _MATRIX or size + 8 != len(self.data):
            raise ValueError("the size of a variable differs from what it holds")
        self.matrix(8, len(self.data), 0)

    def element(self, place: int, end: int, kinds: object) -> tuple[int, int, int, int]:
        """Return the type of the element at ``place``, where its bytes begin, their number, and where the next is."""
        if place + 8 > end:
            raise ValueError("an array ends within a tag")
        kind, size = self.tag.unpack_from(self.data, place)
        start, after = place + 8, place + 8 + (size + 7) // 8 * 8
        if kind >> 16:  # up to four bytes within the tag
            kind, size, start, after = kind & 0xFFFF, kind >> 16, place + 4, place + 8
        if start + size > after or after > end or kind not in kinds:  # type: ignore[operator]
            raise ValueError(f"an array has an element of type {kind} and {size:,} bytes where none such can be")
        return kind, start, size, after

    def leading_flags(self, place: int, end: int) -> tuple[int, int]:
        """Return an array's flags, whose last byte is its class, and where its sides begin."""
        if place + 16 > end:
            raise ValueError("an array ends within its header")
        kind, size, flags, _ = self.flags.unpack_from(self.data, place)
        if (kind, size) != (_UINT32, 8):
            raise ValueError("an array's flags are damaged")
        return flags, place + 16

    def header(self, place: int, end: int) -> tuple[int, int, int]:
        """Return an array's class, number of entries, and where its content begins."""
        flags, place = self.leading_flags(place, end)
        if flags & _COMPLEX or flags & 0xFF not in _READ:
            found = "complex numbers" if flags & _COMPLEX else f"class {flags & 0xFF}"
            raise ValueError(f"it has an array of {found}, expected real numbers, text, cells and structures")
        _, start, size, place = self.element(place, end, (_INT32,))
        if size % 4 or not 2 <= size // 4 <= DIMENSIONS:
            raise ValueError(f"an array has sides in {size} bytes")
        sides = struct.unpack_from(f"{self.order}{size // 4}i", self.data, start)
        if min(sides) < 0:
            raise ValueError(f"an array has sides {sides}")
        return flags & 0xFF, math.prod(sides), self.element(place, end, (_INT8,))[3]

    def matrix(self, place: int, end: int, level: int) -> None:
        """Check the array between two places; one of no bytes is empty."""
        if place == end and level:
            return
        if level > DEEPEST:
            raise ValueError(f"it has structures in structures, more than {DEEPEST} deep")
        kind, count, place = self.header(place, end)
        if kind == _CHAR:
            place = self.letters(place, end, count)
        elif kind == _CELL:
            place = self.inner(place, end, count, level)
        elif kind == _STRUCT:
            fields, place = self.fields(place, end)
            if not fields and count > 1:
                raise ValueError(f"it has {count:,} structures without fields")
            place = self.inner(place, end, fields * count, level)
        else:
            place = self.numbers(place, end, count)
        if place != end:
            raise ValueError(f"{end - place:,} bytes are left behind an array")

    def numbers(self, place: int, end: int, count: int) -> int:
        kind, _, size, place = self.element(place, end, _BYTES)
        if size != count * _BYTES[kind]:
            raise ValueError(f"an array of {count:,} numbers has {size:,} bytes")
        return place

    def letters(self, place: int, end: int, count: int) -> int:
        kind, _, size, place = self.element(place, end, _LETTERS)
        if count > size or (kind == 4 and size != 2 * count):
            raise ValueError(f"a text of {count:,} letters has {size:,} bytes")
        return place

    def fields(self, place: int, end: int) -> tuple[int, int]:
        """Return the number of a structure's fields, whose names are of one length, and where their values begin."""
        _, start, size, place = self.element(place, end, (_INT32,))
        length = struct.unpack_from(f"{self.order}i", self.data, start)[0] if size == 4 else 0
        _, start, size, place = self.element(place, end, (_INT8,))
        if not 0 < length <= 64 or size % length:
            raise ValueError(f"a structure has names of {length} letters in {size:,} bytes")
        names = {_field(self.data[at : at + length]) for at in range(start, start + size, length)}
        if len(names) != size // length or "" in names:
            raise ValueError("a structure has names of fields that are none, or one twice")
        return len(names), place

    def inner(self, place: int, end: int, count: int, level: int) -> int:
        """Check the arrays of a cell or structure, each of which takes a tag at least."""
        for _ in range(count):
            _, start, size, place = self.element(place, end, (_MATRIX,))
            if start + size != place:
                raise ValueError(f"an array of {size:,} bytes, expected a multiple of 8")
            self.matrix(start, place, level + 1)
        return place


def _field(letters: bytes) -> str:
    """Return the name of a field, which zeros follow; empty for what is none."""
    name = letters.partition(b"\0")[0].decode("latin-1")
    return name if name.isascii() and name.isidentifier() else ""
