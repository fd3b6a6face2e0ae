"""Photographs as RGB arrays: header first, then decoding; one sentence for every kind of bad file."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from fastpose import _checks

PIXEL_LIMIT = 100_000_000
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
"""What photographs are called in a folder."""
_HEADER_BYTES = 1 << 16
# What this process has run out of says nothing about a photograph, which may not be skipped for it.
_OURS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
# What a file may take besides 8 bytes a pixel, the most that any type stores: metadata, and what follows the image.
_SPARE_BYTES = 1 << 28


# JPEG start-of-frame markers carry the size; the codes between them (DHT, JPG, DAC) do not.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})


def read_image(path: str | Path, *, pixel_limit: int = PIXEL_LIMIT, exif: str = "ignore") -> np.ndarray:
    """Read a JPEG, PNG, BMP or WebP file as uint8 (H, W, 3) RGB.

    Grey becomes three equal channels, CMYK becomes RGB, 16 bits become 8, an alpha channel is dropped.

    Args:
        path: the file.
        pixel_limit: a larger image (by its header) is refused before memory is taken for it.
        exif: "ignore" keeps the stored orientation, in which published annotations are given; "apply" turns the
            image upright (photographs without annotation).

    Raises:
        FileNotFoundError: no such file.
        ValueError: empty, truncated, of another type, too large, or not decodable.
        MemoryError: this process has no memory, or no open file, left for it.
    """
    import cv2

    _checks.choice("exif", exif, ("ignore", "apply"))
    data, (height, width) = _whole(Path(path), pixel_limit)
    flags = cv2.IMREAD_COLOR if exif == "apply" else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        decoded = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)  # (H, W, 3) BGR
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError(f"image {path}: {width} x {height} pixels") from None
        decoded = None
    if decoded is None:
        raise ValueError(f"image {path}: the file is damaged and cannot be decoded; restore it")
    rgb: np.ndarray = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB, decoded)  # in place
    return rgb


def image_size(path: str | Path) -> tuple[int, int]:
    """Return (H, W) as stored, from the header alone; errors as ``read_image``."""
    try:
        return _header_size(Path(path), _read_bytes(Path(path), _HEADER_BYTES))
    except ValueError:  # long metadata may come first; or the file is bad, and the whole of it says how
        return _header_size(Path(path), _read_bytes(Path(path)))


def verify_image(path: str | Path) -> tuple[int, int]:
    """Return (H, W) of a file whose header and end are there, without decoding it; errors as ``read_image``."""
    return _whole(Path(path), PIXEL_LIMIT)[1]


def _whole(path: Path, pixel_limit: int) -> tuple[bytes, tuple[int, int]]:
    """Return the bytes and (H, W) of a file with header and end, of an image that may be decoded."""
    data = _read_bytes(path)
    height, width = _header_size(path, data)
    if height * width > pixel_limit:
        raise ValueError(f"image {path}: {width} x {height} pixels exceed the limit of {pixel_limit:,} pixels")
    _check_complete(path, data)
    return data, (height, width)


def _read_bytes(path: Path, limit: int = -1) -> bytes:
    if not os.path.isfile(path):  # which waits for no pipe
        found = "a folder" if os.path.isdir(path) else "a pipe or device"
        there = os.path.exists(path)
        raise FileNotFoundError(f"image {path}: " + (f"expected a file, found {found}" if there else "no such file"))
    try:
        with path.open("rb") as file:
            if limit < 0 and os.fstat(file.fileno()).st_size > _SPARE_BYTES:
                _check_length(path, file)
            data = file.read(limit)
    except OSError as error:
        if error.errno in _OURS:
            raise MemoryError(f"image {path}: {error.strerror}") from error
        raise OSError(f"image {path}: cannot be read ({error.strerror or error})") from error
    if not data:
        raise ValueError(f"image {path}: the file is empty")
    return data


def _check_length(path: Path, file: BinaryIO) -> None:
    """Raise for a file far larger than the image of its header could be, before memory is taken for it."""
    height, width = _header_size(path, file.read(_HEADER_BYTES))
    length = file.seek(0, os.SEEK_END)
    file.seek(0)
    if length > _SPARE_BYTES + 8 * height * width:
        raise ValueError(f"image {path}: {length:,} bytes are too many for {width} x {height} pixels; restore the file")


def _header_size(path: Path, data: bytes) -> tuple[int, int]:
    """Return (H, W) from the first bytes, or raise for an unknown type or a broken header."""
    reader = _format(data)
    if reader is None:
        raise ValueError(f"image {path}: not a JPEG, PNG, BMP or WebP file (starts with {data[:8]!r})")
    try:
        height, width = reader[0](data)
    except (struct.error, IndexError, ValueError):
        raise ValueError(f"image {path}: truncated header in a file of {len(data):,} bytes; restore it") from None
    if height < 1 or width < 1:
        raise ValueError(f"image {path}: the header gives a size of {width} x {height}; restore the file")
    return height, width


def _check_complete(path: Path, data: bytes) -> None:
    """Raise when the end of the file is missing; decoders would fill the rest with grey and say nothing."""
    reader = _format(data)
    if reader is not None and not reader[1](data):
        raise ValueError(
            f"image {path}: truncated after {len(data):,} bytes (the end of the image is missing); restore it"
        )


def _format(data: bytes) -> tuple[Callable[[bytes], tuple[int, int]], Callable[[bytes], bool]] | None:
    """Return (size reader, completeness test) for the file type, or None."""
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg_size, _jpeg_complete
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png_size, lambda whole: b"IEND\xaeB`\x82" in whole
    if data.startswith(b"BM"):
        return _bmp_size, lambda whole: len(whole) >= struct.unpack_from("<I", whole, 2)[0]
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp_size, lambda whole: len(whole) >= struct.unpack_from("<I", whole, 4)[0] + 8
    return None


def _jpeg_segments(data: bytes) -> list[tuple[int, int]]:
    """Return (marker, offset of its payload) of each segment up to the first scan."""
    found, at = [], 2
    while True:
        while data[at] == 0xFF and data[at + 1] == 0xFF:  # fill bytes
            at += 1
        if data[at] != 0xFF:
            raise ValueError("no marker where one is due")
        marker = data[at + 1]
        found.append((marker, at + 4))
        if marker == 0xDA:
            return found
        at += 2 if marker in _STANDALONE else 2 + struct.unpack_from(">H", data, at + 2)[0]


def _jpeg_size(data: bytes) -> tuple[int, int]:
    for marker, payload in _jpeg_segments(data):
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, payload + 1)
            return height, width
    raise ValueError("no frame header")


def _jpeg_complete(data: bytes) -> bool:
    """The end marker counts only after the scan starts: an EXIF thumbnail has its own."""
    try:
        scan = _jpeg_segments(data)[-1][1]
    except (struct.error, IndexError, ValueError):
        return False
    return data.rfind(b"\xff\xd9") > scan


def _png_size(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", data, 16)
    return height, width


def _bmp_size(data: bytes) -> tuple[int, int]:
    if struct.unpack_from("<I", data, 14)[0] == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return abs(height), width


def _webp_size(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        return int.from_bytes(data[27:30], "little") + 1, int.from_bytes(data[24:27], "little") + 1
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return ((bits >> 14) & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", data, 26)
    return height & 0x3FFF, width & 0x3FFF
