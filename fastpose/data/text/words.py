"""What readers of word vectors share: an index of a file's words, its fingerprint, and sentences from words."""

from __future__ import annotations

import hashlib
import warnings
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from zlib import crc32

import numpy as np

from fastpose.data.text.encoder import checked, no_word_known, quoted

_CHUNK, _CHUNKS = 1 << 14, 64


class WordIndex:
    """Where each word of a file stands: 12 bytes a word, whatever its length; no word becomes a Python object."""

    def __init__(self) -> None:
        self._sums, self._places = array("I"), array("Q")
        self._sorted: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self._sums)

    def add(self, word: bytes, place: int) -> None:
        """Note the next word of the file and its place in bytes."""
        self._sums.append(crc32(word))
        self._places.append(place)

    def candidates(self, word: bytes) -> list[tuple[int, int]]:
        """Return number and place of the words that may be this one, first come first: the file has to tell."""
        if self._sorted is None:
            sums = np.frombuffer(self._sums, np.uint32)
            order = np.argsort(sums, kind="stable")
            self._sorted = sums[order], order, np.frombuffer(self._places, np.uint64)
        sums, order, places = self._sorted
        wanted = np.uint32(crc32(word))
        found = order[np.searchsorted(sums, wanted, "left") : np.searchsorted(sums, wanted, "right")]
        return [(int(number), int(places[number])) for number in found]


def fingerprint(path: Path, lower: bool) -> str:
    """Return 16 hexadecimal digits of a file's length and of 64 pieces of it, and of whether case is told apart."""
    size = path.stat().st_size
    digest = hashlib.sha256(f"{size} {'lower' if lower else 'cased'}".encode())
    with path.open("rb") as file:
        for start in sorted({round(place) for place in np.linspace(0, max(size - _CHUNK, 0), _CHUNKS)}):
            file.seek(start)
            digest.update(file.read(_CHUNK))
    return digest.hexdigest()[:16]


def sentence_vectors(
    name: str, texts: Sequence[str], size: int, lower: bool, vector: Callable[[bytes], np.ndarray | None]
) -> np.ndarray:
    """Return per text the mean of its words' vectors, each of length 1, as fastText's getSentenceVector: (N, T).

    Words stand between ASCII spaces, tabs and line ends. One without a vector, or with the vector zero, does not count;
    a text without any that does is the zero vector, and one warning tells how many are.
    """
    listed = checked(texts)
    rows: dict[bytes, int] = {}
    units: list[np.ndarray] = []
    sentences = np.zeros((len(listed), size), np.float32)
    empty = []
    for index, text in enumerate(listed):
        words = (text.lower() if lower else text).encode("utf-8", "replace").split()
        for word in words:
            if word not in rows:
                unit = _unit(name, word, vector(word))
                rows[word] = -1 if unit is None else len(units)
                units += [] if unit is None else [unit]
        known = [rows[word] for word in words if rows[word] >= 0]
        if known:
            sentences[index] = sum(units[row] for row in known) / np.float32(len(known))
        else:
            empty.append(text)
    if empty:
        warnings.warn(no_word_known(name, empty, len(listed)), stacklevel=3)
    return sentences


def _unit(name: str, word: bytes, vector: np.ndarray | None) -> np.ndarray | None:
    """Return a vector of length 1, or None for none and for the vector zero."""
    if vector is None:
        return None
    length = np.linalg.norm(vector.astype(np.float64))
    if not np.isfinite(length):
        raise ValueError(f"{name}: the vector of {quoted(word.decode('utf-8', 'replace'))} is not finite; restore it")
    return (vector / length).astype(np.float32) if length > 0 else None
