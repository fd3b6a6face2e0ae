"""Odd and bad files in place of a photograph: one list, for every test of what reads photographs.

``KINDS`` maps a name to what puts the file at a path. Each kind is either read, as nearly the photograph it was made
from, or refused with a sentence that holds ``refused``.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

SIZE = (48, 64)  # (H, W)


@dataclass(frozen=True)
class Kind:
    """A file in place of a photograph.

    Attributes:
        write: puts it at a path, made from a photograph (H, W, 3).
        refused: part of the sentence with which it is refused; "" where it is read.
        grey: it is read as grey.
        near: how far a pixel may be from the photograph's on average.
    """

    write: Callable[[Path, np.ndarray], None]
    refused: str = ""
    grey: bool = False
    near: float = 4.0


def photograph(size: tuple[int, int] = SIZE, seed: int = 0) -> np.ndarray:
    """Return a smooth picture of which no two corners are alike, uint8 (H, W, 3) RGB."""
    y, x = np.mgrid[: size[0], : size[1]] / np.array([[[max(size[0] - 1, 1)]], [[max(size[1] - 1, 1)]]])
    shift = np.random.default_rng(seed).uniform(0, 40)
    return np.stack([40 + 150 * x, 30 + 160 * y, 200 - 120 * x * y], -1).__add__(shift).clip(0, 255).astype(np.uint8)


def expected(picture: np.ndarray, kind: Kind) -> np.ndarray:
    """Return the pixels that a kind that is read shows."""
    if not kind.grey:
        return picture
    return np.repeat(np.asarray(Image.fromarray(picture).convert("L"))[..., None], 3, axis=2)


# ------------------------------------------------------------------------------------------------------------ writing


def encoded(picture: np.ndarray, form: str, mode: str = "RGB", **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).convert(mode).save(stream, form, **options)
    return stream.getvalue()


def _saved(form: str, mode: str = "RGB", **options: Any) -> Callable[[Path, np.ndarray], None]:
    return lambda path, picture: put(path, encoded(picture, form, mode, **options))


def _changed(change: Callable[[bytes], bytes], form: str = "JPEG", **options: Any) -> Callable[..., None]:
    return lambda path, picture: put(path, change(encoded(picture, form, **options)))


def put(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def write_jpeg(path: Path, size: tuple[int, int] = SIZE, seed: int = 0) -> Path:
    """Write a good photograph of ``size`` (H, W) and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    put(path, encoded(photograph(size, seed), "JPEG", quality=95))
    return path


def _instead(make: Callable[[Path], Any]) -> Callable[[Path, np.ndarray], None]:
    def write(path: Path, _: np.ndarray) -> None:
        path.unlink(missing_ok=True)
        make(path)

    return write


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b"")


def bomb(height: int = 20_000, width: int = 20_000) -> bytes:
    """Return a PNG of one bit a pixel, 48 KB, of which 1.2 GB of RGB would come."""
    row = bytes(1 + -(-width // 8))
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return png(chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(row * height, 9)))


def _resized(data: bytes, height: int, width: int) -> bytes:
    """Return a JPEG whose frame header gives another size."""
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """Insert an EXIF segment with an orientation after the JPEG's start marker."""
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    payload = b"Exif\x00\x00MM\x00*" + struct.pack(">IH", 8, 1) + entry + struct.pack(">I", 0)
    return segment(jpeg, 0xE1, payload)


def segment(jpeg: bytes, marker: int, payload: bytes, count: int = 1) -> bytes:
    """Insert segments after the JPEG's start marker."""
    return jpeg[:2] + (bytes([0xFF, marker]) + struct.pack(">H", len(payload) + 2) + payload) * count + jpeg[2:]


def _ycck(path: Path, picture: np.ndarray) -> None:
    """The inks of a print as luma and chroma, which Adobe's programs write."""
    inks = np.asarray(Image.fromarray(255 - picture).convert("YCbCr"))
    planes = np.concatenate([255 - inks, np.zeros_like(inks[..., :1])], -1)
    stream = io.BytesIO()
    Image.fromarray(planes, "CMYK").save(stream, "JPEG", quality=95)
    jpeg = bytearray(stream.getvalue())
    jpeg[jpeg.index(b"Adobe") + 11] = 2
    put(path, bytes(jpeg))


def _sixteen(path: Path, picture: np.ndarray) -> None:
    """16 bits a channel; the lower eight are noise."""
    height, width = picture.shape[:2]
    words = picture.astype(">u2") << 8 | np.arange(width, dtype=">u2")[None, :, None]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in words)
    put(
        path,
        png(
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)), chunk(b"IDAT", zlib.compress(rows))
        ),
    )


def _clear(path: Path, picture: np.ndarray) -> None:
    """Seen through: what lies under is what is read."""
    alpha = np.full((*picture.shape[:2], 1), 0, np.uint8)
    Image.fromarray(np.concatenate([picture, alpha], -1), "RGBA").save(path, "PNG")


def _palette(path: Path, picture: np.ndarray) -> None:
    Image.fromarray(picture).quantize(256).save(path, "PNG", transparency=0)


def _wrong_sum(data: bytes) -> bytes:
    at = data.index(b"IDAT") + 12
    return data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]


def _commented(path: Path, picture: np.ndarray) -> None:
    about = PngImagePlugin.PngInfo()
    about.add_text("comment", "x" * 3_000_000)
    about.add_text("packed", "y" * 3_000_000, zip=True)
    Image.fromarray(picture).save(path, "PNG", pnginfo=about)


def _upward(path: Path, picture: np.ndarray) -> None:
    """A BMP stored from the top down."""
    data = bytearray(encoded(picture[::-1].copy(), "BMP"))
    data[22:26] = struct.pack("<i", -picture.shape[0])
    put(path, bytes(data))


def _locked(path: Path, picture: np.ndarray) -> None:
    path.chmod(0)


JPEG = _saved("JPEG", quality=95)

KINDS: dict[str, Kind] = {
    # what is read
    "a PNG named as a JPEG": Kind(_saved("PNG"), near=0),
    "a JPEG": Kind(JPEG),
    "progressive": Kind(_saved("JPEG", quality=95, progressive=True)),
    "grey JPEG": Kind(_saved("JPEG", "L"), grey=True),
    "CMYK": Kind(_saved("JPEG", "CMYK", quality=95)),
    "YCCK of Adobe's": Kind(_ycck),
    "16 bits": Kind(_sixteen, near=0),
    "grey PNG": Kind(_saved("PNG", "L"), grey=True, near=0.5),
    "grey with alpha": Kind(_saved("PNG", "LA"), grey=True, near=0.5),
    "alpha": Kind(_clear, near=0),
    "palette with a transparent colour": Kind(_palette, near=6),
    "metadata of megabytes, PNG": Kind(_commented, near=0),
    "metadata of megabytes, JPEG": Kind(_changed(lambda data: segment(data, 0xE2, bytes(65_000), 60))),
    "garbage after the end": Kind(_changed(lambda data: data + b"garbage" * 9_000)),
    "EXIF": Kind(_changed(lambda data: with_orientation(data, 6), quality=95)),
    "BMP": Kind(_saved("BMP"), near=0),
    "BMP from the top down": Kind(_upward, near=0),
    "WebP": Kind(_saved("WEBP", quality=95)),
    "WebP without loss": Kind(_saved("WEBP", lossless=True), near=0),
    # what is refused
    "zeros from the middle on": Kind(
        _changed(lambda data: data[: len(data) // 2] + bytes(len(data) // 2)), "truncated"
    ),
    "a third of a JPEG": Kind(_changed(lambda data: data[: len(data) // 3]), "truncated"),
    "a JPEG without its last bytes": Kind(_changed(lambda data: data[:-2]), "truncated"),
    "half of a progressive JPEG": Kind(_changed(lambda data: data[: len(data) // 2], progressive=True), "truncated"),
    "a third of a PNG": Kind(_changed(lambda data: data[: len(data) // 3], "PNG"), "truncated"),
    "half of a WebP": Kind(_changed(lambda data: data[: len(data) // 2], "WEBP"), "truncated"),
    "half of a BMP": Kind(_changed(lambda data: data[: len(data) // 2], "BMP"), "truncated"),
    "empty": Kind(lambda path, _: put(path, b""), "empty"),
    "zeros, as a crash leaves them": Kind(lambda path, _: put(path, bytes(5_000)), "not a JPEG, PNG, BMP or WebP"),
    "text": Kind(lambda path, _: put(path, b"no photograph\n" * 99), "not a JPEG, PNG, BMP or WebP"),
    "a page of a server": Kind(lambda path, _: put(path, b"<html>404</html>"), "not a JPEG, PNG, BMP or WebP"),
    "GIF": Kind(_saved("GIF"), "not a JPEG, PNG, BMP or WebP"),
    "TIFF": Kind(_saved("TIFF"), "not a JPEG, PNG, BMP or WebP"),
    "TIFF of floats": Kind(_saved("TIFF", "F"), "not a JPEG, PNG, BMP or WebP"),
    "a JPEG 2000": Kind(_saved("JPEG2000"), "not a JPEG, PNG, BMP or WebP"),
    "no width": Kind(_changed(lambda data: _resized(data, 48, 0)), "size of 0 x 48"),
    "a wrong sum": Kind(_changed(_wrong_sum, "PNG"), "damaged"),
    "decompression bomb": Kind(lambda path, _: put(path, bomb()), "exceed the limit"),
    "decompression bomb, JPEG": Kind(_changed(lambda data: _resized(data, 20_000, 20_000)), "exceed the limit"),
    "a folder": Kind(_instead(Path.mkdir), "expected a file, found a folder"),
    "a link to nothing": Kind(_instead(lambda path: path.symlink_to("nowhere.jpg")), "no such file"),
    "a link to itself": Kind(_instead(lambda path: path.symlink_to(path.name)), "no such file"),
    "a pipe": Kind(_instead(os.mkfifo), "expected a file, found a pipe"),
    "a device": Kind(_instead(lambda path: path.symlink_to("/dev/zero")), "expected a file, found a pipe or device"),
    "locked": Kind(_locked, "Permission denied"),
}
READ = tuple(name for name, kind in KINDS.items() if not kind.refused)
REFUSED = tuple(name for name, kind in KINDS.items() if kind.refused)


@contextmanager
def in_place(path: Path, name: str, picture: np.ndarray | None = None) -> Iterator[Kind]:
    """Put a kind in place of the photograph at ``path`` while the block runs; what was there comes back."""
    kind, before = KINDS[name], path.read_bytes()
    privileged = name == "locked" and os.geteuid() == 0  # nothing is locked for root
    try:
        kind.write(path, np.asarray(Image.open(path).convert("RGB")) if picture is None else picture)
        if privileged:
            for folder in [*path.parents][:-2]:  # which pytest closes for others, anew whenever one begins
                folder.chmod(folder.stat().st_mode | 0o055)
            os.seteuid(65534)
        yield kind
    finally:
        if privileged:
            os.seteuid(0)
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        path.write_bytes(before)
