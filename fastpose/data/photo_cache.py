"""Decoded photographs of a data set in one memory-mapped file, made once and shared by all processes.

``FOLDER/<data set>-<key>.pixels``: 64 bytes that name the key, then every photograph's uint8 (H, W, 3) RGB, each from a
multiple of 64 on. ``.json`` beside it holds sizes and sums, and is written last: without it there is no cache. The key
stands for names, sizes and times of the photographs' files and for what was done to them.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fastpose import _files
from fastpose.data import images
from fastpose.data.person import Person, read_photo

try:
    import fcntl
except ImportError:  # not a POSIX system: several processes then each make the cache, and the last one's stays
    fcntl = None  # type: ignore[assignment]

_FORMAT = 1
_BLOCK = 64
_THREADS = 8
# A photograph is shrunk only where that saves a quarter of its bytes: a weaker shrinking blurs and gains nothing.
_WORTHWHILE = 0.75**0.5

_log = logging.getLogger("fastpose.data")


@dataclass(frozen=True)
class _Plan:
    """Which photographs, each once, and how far each is shrunk.

    Attributes:
        persons: index of the first person on each photograph, int64 (P,).
        numbers: photograph of each person, int64 (N,).
        ratios: stored pixels per pixel along a side, float64 (P,), at most 1.
    """

    persons: np.ndarray
    numbers: np.ndarray
    ratios: np.ndarray


class PhotoCache:
    """Photographs of a source's persons by the person's index; ``open_cache`` makes one.

    A photograph that could not be read when the cache was made, or one with a page that was never written, comes from
    its own file: with the same pixels, or the same error. The file is mapped from the start and handed on to forked
    workers, so it may be deleted while it is in use.
    """

    def __init__(self, path: Path, source: Any, plan: _Plan, key: str, pixel_limit: int):
        self.path, self.source, self.plan, self.key, self.pixel_limit = path, source, plan, key, pixel_limit
        self._sizes, self._sums = _read_index(path, key, len(plan.persons))
        self._offsets = _offsets(self._sizes)
        self._checked = np.zeros(len(self._sizes), bool)
        self._pixels: np.ndarray | None = self._mapped()
        self._told = False

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_pixels": None}  # a process that is spawned maps the file itself

    def read(self, index: int) -> tuple[np.ndarray, float]:
        """Return the photograph of person ``index``, uint8 (H, W, 3) RGB and read-only, and its ratio.

        A point p of the original photograph is at (p + 0.5) * ratio - 0.5. Raises as ``images.read_image``.
        """
        number = int(self.plan.numbers[index])
        stored, ratio = self._stored(number), float(self.plan.ratios[number])
        if stored is None:
            return _decode(self.source, index, ratio, self.pixel_limit), ratio
        return stored, ratio

    def _mapped(self) -> np.ndarray:
        """Return the bytes of the file, uint8 (N,) read-only; ValueError or OSError when it is not whole."""
        pixels = np.memmap(self.path, np.uint8, "r").view(np.ndarray)
        if len(pixels) != self._offsets[-1] or pixels[:_BLOCK].tobytes() != _header(self.key):
            raise ValueError("is cut or foreign")
        return pixels

    def _stored(self, number: int) -> np.ndarray | None:
        height, width = self._sizes[number].tolist()
        if not height:
            return None
        pixels = self._pixels if self._pixels is not None else self._mapped_again()
        if pixels is None:
            return None
        first, last = self._offsets[number : number + 2].tolist()
        block = pixels[first:last]
        if not self._checked[number] and _sum(block) != self._sums[number]:
            self._sizes[number] = 0
            self._tell("is damaged; delete it, and the next run makes it anew")
            return None
        self._checked[number] = True
        return block[: height * width * 3].reshape(height, width, 3)

    def _mapped_again(self) -> np.ndarray | None:
        """Map the file in a process that was spawned; without it, every photograph comes from its own file."""
        try:
            self._pixels = self._mapped()
        except (ValueError, OSError) as error:
            self._sizes[:] = 0
            self._tell(f"{getattr(error, 'strerror', None) or error}; photographs are decoded from their own files")
        return self._pixels

    def _tell(self, text: str) -> None:
        if not self._told:
            self._told = True
            _log.warning("cache %s: %s", self.path, text)


def open_cache(
    folder: str | Path,
    source: Any,
    *,
    shrink_to: float | None = None,
    pixel_limit: int = images.PIXEL_LIMIT,
) -> PhotoCache:
    """Return the cache of a source's photographs in ``folder``, which is made where there is none that fits.

    Args:
        folder: made where it is not there; caches of several data sets may share it.
        source: ``name``, ``split`` and ``persons`` with photographs in files.
        shrink_to: None keeps photographs as they are. A number shrinks each one until the smallest square of a person
            on it has a side of so many stored pixels.
        pixel_limit: photographs with more pixels are not kept.

    Raises:
        ValueError: the source has no files.
        OSError: the folder cannot be written, or its disk has too little room.
    """
    if getattr(source, "photo", None) is not None:
        raise ValueError(
            f"cache: data set {source.name!r} draws its photographs; expected one with files, leave it out"
        )
    plan = _planned(source.persons, shrink_to)
    key = _key(source.persons, plan, pixel_limit)
    folder = Path(os.path.expanduser(folder))
    path = folder / f"{source.name}-{source.split}-{key}.pixels"
    with suppress(ValueError, OSError):
        return PhotoCache(path, source, plan, key, pixel_limit)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(path):
            with suppress(ValueError, OSError):
                return PhotoCache(path, source, plan, key, pixel_limit)  # another process made it meanwhile
            _make(path, source, plan, key, pixel_limit)
    except OSError as error:
        raise OSError(f"cache: {error.strerror or error}; name another folder than {folder}, or none") from error
    return PhotoCache(path, source, plan, key, pixel_limit)


def _planned(persons: Sequence[Person], shrink_to: float | None) -> _Plan:
    known: dict[Path, int] = {}
    first: list[int] = []
    sides: list[float] = []
    numbers = np.empty(len(persons), np.int64)
    for index, person in enumerate(persons):
        number = known.setdefault(person.image, len(known))
        if number == len(first):
            first.append(index)
            sides.append(np.inf)
        numbers[index] = number
        sides[number] = min(sides[number], 200.0 * person.scale)
    ratios = np.ones(len(first)) if shrink_to is None else np.minimum(shrink_to / np.array(sides), 1.0)
    return _Plan(np.array(first, np.int64), numbers, np.where(ratios > _WORTHWHILE, 1.0, ratios))


def _key(persons: Sequence[Person], plan: _Plan, pixel_limit: int) -> str:
    """Return what tells a cache from another; a decoder of another version may give other pixels."""
    import cv2

    paths = [persons[index].image for index in plan.persons.tolist()]
    common = os.path.commonpath([path.parent for path in paths]) if paths else ""
    text = hashlib.sha256(repr((_FORMAT, cv2.__version__, pixel_limit)).encode())
    for path, ratio in zip(paths, plan.ratios.tolist(), strict=True):
        found = path.stat() if path.is_file() else None
        about = None if found is None else (found.st_size, found.st_mtime_ns)
        text.update(repr((os.path.relpath(path, common), about, ratio)).encode("utf-8", "surrogateescape"))
    return text.hexdigest()[:16]


def _read_index(path: Path, key: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return sizes, int64 (P, 2), and sums, uint64 (P,); ValueError or OSError without an index of just these."""
    content = _files.read_json(path.with_suffix(".json"), "cache")
    try:
        sizes, sums = np.array(content.get("sizes"), np.int64), np.array(content.get("sums"), np.uint64)
    except (TypeError, OverflowError) as error:
        raise ValueError(f"cache {path}: its index is damaged ({error})") from None
    if content.get("key") != key or sizes.size != 2 * count or sums.shape != (count,) or (sizes < 0).any():
        raise ValueError(f"cache {path}: is of other photographs")
    return sizes.reshape(count, 2), sums  # without photographs JSON has lost the 2


def _header(key: str) -> bytes:
    return f"fastpose photographs {key}\n".encode().ljust(_BLOCK, b"\0")


def _offsets(sizes: np.ndarray) -> np.ndarray:
    """Return where photographs of ``sizes`` (P, 2) begin, and where the last one ends, int64 (P + 1,)."""
    lengths = -(-sizes.astype(np.int64).prod(1) * 3 // _BLOCK) * _BLOCK
    return np.concatenate([[0], np.cumsum(lengths)]) + _BLOCK


def _sum(block: np.ndarray) -> int:
    """Return the sum of a block's 64-bit words: a page that was never written shows, at the speed of memory."""
    return int(block.view(np.uint64).sum())


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let one process at a time make a cache; what killed ones left half written is removed."""
    if fcntl is None:
        yield
        return
    with open(path.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for written in (path, path.with_suffix(".json")):
            _files.remove_leftovers(written)
        yield


def _make(path: Path, source: Any, plan: _Plan, key: str, pixel_limit: int) -> None:
    """Decode every photograph and publish pixels, then index."""
    needed, free = _needed(source, plan, pixel_limit), shutil.disk_usage(path.parent).free
    about = f"{len(plan.persons):,} photographs of {source.name} {source.split} take {_bytes(needed)}"
    if needed > free:
        raise OSError(f"{about}, the disk has {_bytes(free)} left")
    _log.warning("cache %s: %s, written once", path.parent, about)
    sizes, sums = np.zeros((len(plan.persons), 2), np.int64), [0] * len(plan.persons)

    def write(stream: BinaryIO) -> None:
        stream.write(_header(key))
        for number, photo in enumerate(_photographs(source, plan, pixel_limit)):
            if photo is not None:
                block = np.zeros(-(-photo.size // _BLOCK) * _BLOCK, np.uint8)
                block[: photo.size] = photo.reshape(-1)
                sizes[number], sums[number] = photo.shape[:2], _sum(block)
                stream.write(block.data)

    _files.publish_by(path, write)
    _files.publish_json(path.with_suffix(".json"), {"key": key, "sizes": sizes.tolist(), "sums": sums})


def _needed(source: Any, plan: _Plan, pixel_limit: int) -> int:
    """Return the bytes of all photographs that will be kept, by their headers."""
    total = 0
    for index, ratio in zip(plan.persons.tolist(), plan.ratios.tolist(), strict=True):
        with suppress(ValueError, OSError):
            height, width = images.image_size(source.persons[index].image)
            if height * width <= pixel_limit:
                total += 3 * max(round(height * ratio), 1) * max(round(width * ratio), 1)
    return total


def _photographs(source: Any, plan: _Plan, pixel_limit: int) -> Iterator[np.ndarray | None]:
    """Yield each photograph as it is stored, None for one that cannot be read; several are decoded at a time."""

    def decode(number: int) -> np.ndarray | None:
        try:
            return _decode(source, int(plan.persons[number]), float(plan.ratios[number]), pixel_limit)
        except (ValueError, OSError):
            return None

    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        for start in range(0, len(plan.persons), 4 * _THREADS):  # a few at a time: all would fill the memory
            yield from pool.map(decode, range(start, min(start + 4 * _THREADS, len(plan.persons))))


def _decode(source: Any, index: int, ratio: float, pixel_limit: int) -> np.ndarray:
    """Return the photograph of a person, averaged down by ``ratio`` along both sides alike, to a pixel at least."""
    import cv2

    photo = read_photo(source, index, pixel_limit=pixel_limit)
    if ratio == 1.0:
        return photo
    if min(photo.shape[:2]) * ratio < 1:  # a strip of few pixels, of which no side may become 0
        size = [max(round(side * ratio), 1) for side in photo.shape[1::-1]]
        return cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
    return cv2.resize(photo, None, fx=ratio, fy=ratio, interpolation=cv2.INTER_AREA)


def _bytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.2f} MB"
