"""fastText's binary models, read in place: gigabytes open in seconds, only the rows of the words asked for are read.

The file: a magic number and a version; the training's arguments; the dictionary, each word ended by a zero byte; a flag
for quantised matrices; the input matrix, one row per word and then one per bucket of hashed n-grams; the output matrix,
which vectors do not need. All numbers are little-endian.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastpose.data.text.words import WordIndex, fingerprint, sentence_vectors

_MAGIC, _VERSIONS = 793712314, (11, 12)
_HEADER = struct.Struct("<14id")
_COUNTS = struct.Struct("<3i2q")
_SHAPE = struct.Struct("<?2q")
_ENTRY = 9  # bytes behind a word's zero byte: how often it was seen, and whether it is a word or a label
_SUPERVISED = 3
_LONGEST_NGRAM = 100
_END_OF_SENTENCE = b"</s>"


class Arguments(NamedTuple):
    """What the header of a model says, as far as vectors depend on it."""

    size: int
    model: int
    bucket: int
    shortest: int
    longest: int


class FastText:
    """Vectors of a fastText model (.bin, skip-gram or CBOW), with n-grams for words that the model has not seen.

    Agrees with the original library's ``get_word_vector`` and ``get_sentence_vector``; line ends in a text are spaces.

    Args:
        path: the model.
        lower: whether texts are put in lower case first.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a whole model, a classifier, or one with quantised matrices.
    """

    def __init__(self, path: str | Path, *, lower: bool = True):
        self.path, self.lower = Path(path), lower
        if not self.path.is_file():
            raise FileNotFoundError(f"text.encoder: {self.path}: no such file")
        self.name = self.path.name
        self._bytes = _mapped(self.path)
        self._arguments = _arguments(self.path, self._bytes)
        self.size = self._arguments.size
        self._words, self._count, end = _dictionary(self.path, self._bytes)
        self._rows = _input_matrix(self.path, self._bytes, end, self._count, self._arguments)
        self.fingerprint = fingerprint(self.path, lower)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return the float32 vectors (N, T) of N texts."""
        return sentence_vectors(self.name, texts, self.size, self.lower, self.word_vector)

    def word_vector(self, word: str | bytes) -> np.ndarray:
        """Return the mean (T,) of the rows of a word and its n-grams; zero for a word that has neither."""
        spelled = word.encode("utf-8", "replace") if isinstance(word, str) else word
        rows = self._own_row(spelled)
        if spelled != _END_OF_SENTENCE:
            rows += [self._count + bucket for bucket in _ngrams(b"<" + spelled + b">", self._arguments)]
        if not rows:
            return np.zeros(self.size, np.float32)
        with np.errstate(invalid="ignore"):  # what is not finite is refused where the vector is used
            return self._rows[rows].mean(axis=0, dtype=np.float64).astype(np.float32)

    def _own_row(self, word: bytes) -> list[int]:
        ended = word + b"\0"
        for number, place in self._words.candidates(word):
            if self._bytes[place : place + len(ended)] == ended:
                return [number]
        return []


def _ngrams(word: bytes, arguments: Arguments) -> Iterator[int]:
    """Yield the buckets of a word's n-grams of characters: FNV-1a of their bytes, which count as signed.

    The word comes with its boundaries < and >, which are no n-grams by themselves.
    """
    starts = [index for index, byte in enumerate(word) if byte & 0xC0 != 0x80] + [len(word)]
    last = len(starts) - 1
    for first in range(last):
        code = 2166136261
        for end in range(first + 1, min(first + arguments.longest, last) + 1):
            for byte in word[starts[end - 1] : starts[end]]:
                signed = byte | 0xFFFFFF00 if byte > 127 else byte
                code = (code ^ signed) * 16777619 & 0xFFFFFFFF
            length = end - first
            if length >= arguments.shortest and not (length == 1 and (first == 0 or end == last)):
                yield code % arguments.bucket


def _mapped(path: Path) -> mmap.mmap:
    if path.stat().st_size < _HEADER.size:
        raise ValueError(f"{path}: not a fastText model, found {path.stat().st_size} bytes")
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _arguments(path: Path, data: mmap.mmap) -> Arguments:
    magic, version, size, *_, model, bucket, shortest, longest, _, _ = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise ValueError(f"{path}: not a fastText model; expected a .bin file of the fastText library")
    if version not in _VERSIONS:
        raise ValueError(f"{path}: fastText format {version}; expected 11 or 12")
    if model == _SUPERVISED:
        raise ValueError(f"{path}: a fastText classifier; expected word vectors, trained by skipgram or cbow")
    if size < 1 or bucket < 0 or not 0 <= longest <= _LONGEST_NGRAM or shortest < 0 or (longest and not bucket):
        raise ValueError(
            f"{path}: damaged header (vectors of {size}, {bucket} buckets, n-grams of {shortest} to {longest}); "
            "restore the file"
        )
    return Arguments(size, model, bucket, shortest, longest)


def _dictionary(path: Path, data: mmap.mmap) -> tuple[WordIndex, int, int]:
    """Return where the words stand, how many are words and not labels, and where the dictionary ends."""
    place = _HEADER.size + _COUNTS.size
    if len(data) < place:
        raise _cut(path)
    entries, count, labels, _, pruned = _COUNTS.unpack_from(data, _HEADER.size)
    if count < 1 or labels < 0 or entries != count + labels or entries > (len(data) - place) // (_ENTRY + 1):
        raise ValueError(f"{path}: damaged dictionary ({entries:,} entries, {count:,} words); restore the file")
    if pruned >= 0:
        raise ValueError(f"{path}: a pruned fastText model; expected one that was not quantised")
    index = WordIndex()
    find, add = data.find, index.add
    for _ in range(entries):
        end = find(b"\0", place)
        if end < 0:
            raise _cut(path)
        add(data[place:end], place)
        place = end + 1 + _ENTRY
    return index, count, place


def _input_matrix(path: Path, data: mmap.mmap, place: int, count: int, arguments: Arguments) -> np.ndarray:
    """Return the rows of words and buckets, (words + buckets, T), as a view into the file."""
    if len(data) < place + _SHAPE.size:
        raise _cut(path)
    quantised, rows, columns = _SHAPE.unpack_from(data, place)
    if quantised:
        raise ValueError(f"{path}: a quantised fastText model; expected one that was not quantised")
    if columns != arguments.size or rows != count + arguments.bucket:
        raise ValueError(
            f"{path}: damaged input matrix: expected {count + arguments.bucket:,} rows of {arguments.size}, "
            f"found {rows:,} of {columns:,}; restore the file"
        )
    start = place + _SHAPE.size
    if len(data) - start < 4 * rows * columns:
        raise _cut(path)
    return np.ndarray((rows, columns), "<f4", buffer=data, offset=start)


def _cut(path: Path) -> ValueError:
    return ValueError(f"{path}: the fastText model ends before its words and vectors do; restore the file")
