"""Word vectors as text (.vec): a word and its numbers on each line, as fastText and GloVe write them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fastpose.data.array_pickles import line as printable
from fastpose.data.text.words import WordIndex, fingerprint, sentence_vectors

_LONGEST_LINE = 1 << 20
_MARK = b"\xef\xbb\xbf"  # of UTF-8, which some editors put before the first byte


class WordVectors:
    """Vectors of a text file of words, read line by line once to note where each word stands.

    The first line may tell the number of words and the length of the vectors. A word that the file lacks does not count
    in its text; text of fastText's library has n-grams for it in the .bin file alone.

    Args:
        path: the file.
        lower: whether texts are put in lower case first.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a text of words and numbers, or fewer words than the first line tells.
    """

    def __init__(self, path: str | Path, *, lower: bool = True):
        self.path, self.lower = Path(path), lower
        if not self.path.is_file():
            raise FileNotFoundError(f"text.encoder: {self.path}: no such file")
        self.name = self.path.name
        count, self.size, start = _head(self.path)
        self._words = _index(self.path, start)
        if len(self._words) < max(count, 1):
            raise ValueError(f"{self.path}: expected {max(count, 1):,} words, found {len(self._words):,}; restore it")
        self.fingerprint = fingerprint(self.path, lower)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return the float32 vectors (N, T) of N texts."""
        return sentence_vectors(self.name, texts, self.size, self.lower, self.word_vector)

    def word_vector(self, word: str | bytes) -> np.ndarray | None:
        """Return the vector (T,) of a word; None for one that the file lacks."""
        spelled = (word.encode("utf-8", "replace") if isinstance(word, str) else word) + b" "
        with self.path.open("rb") as file:
            for _, place in self._words.candidates(spelled[:-1]):
                file.seek(place)
                line = file.readline(_LONGEST_LINE)
                numbers = line[len(spelled) :].split()
                # More numbers than there should be: another word, which has a space inside.
                if line.startswith(spelled) and len(numbers) <= self.size:
                    return self._vector(spelled[:-1], numbers)
        return None

    def _vector(self, word: bytes, fields: list[bytes]) -> np.ndarray:
        numbers = _numbers(fields)
        if numbers is None or len(numbers) != self.size:
            shown = printable(word.decode("utf-8", "replace"))
            raise ValueError(f"{self.path}: {shown!r}: expected {self.size} numbers, found others; restore the file")
        return numbers


def _head(path: Path) -> tuple[int, int, int]:
    """Return the number of words that the first line tells (else 0), the vectors' length, and where words begin."""
    with path.open("rb") as file:
        first, second = (file.readline(_LONGEST_LINE) for _ in range(2))
    start = len(_MARK) if first.startswith(_MARK) else 0
    fields = first[start:].split()
    if len(fields) == 2 and all(field.isdigit() and len(field) < 12 for field in fields):
        count, size = int(fields[0]), int(fields[1])
        if count and size and _is_word(second, size):
            return count, size, len(first)
    else:
        size = len(fields) - 1
        if size > 0 and all(_is_word(line, size) for line in (first, second) if line.strip()):
            return 0, size, start
    raise ValueError(f"{path}: expected lines of a word and its numbers, as in fastText's .vec files")


def _is_word(line: bytes, size: int) -> bool:
    """Whether a line is a word and ``size`` numbers; the word may have spaces inside, but is not itself numbers."""
    fields = line.split()
    rest = fields[1:-size]
    return len(fields) > size and _numbers(fields[-size:]) is not None and (not rest or _numbers(rest) is None)


def _index(path: Path, start: int) -> WordIndex:
    index = WordIndex()
    place = start
    for line in _lines(path, start):
        end = line.find(b" ")
        if end < 0 and line.strip():
            raise ValueError(f"{path}: expected a word and its numbers on each line, not so at byte {place:,}")
        if end >= 0:
            index.add(line[:end], place)
        place += len(line)
    return index


def _lines(path: Path, start: int) -> Iterator[bytes]:
    with path.open("rb", buffering=1 << 20) as file:
        file.seek(start)
        while line := file.readline(_LONGEST_LINE):
            if len(line) == _LONGEST_LINE:
                raise ValueError(f"{path}: expected a word and its numbers on each line, found one of over a megabyte")
            yield line


def _numbers(fields: list[bytes]) -> np.ndarray | None:
    """Return float32 numbers; None where a field is none."""
    try:
        with np.errstate(over="ignore"):  # infinity is refused where the vector is used
            return np.array([float(field) for field in fields], np.float64).astype(np.float32)
    except (ValueError, OverflowError):
        return None
