"""Small files of word vectors, written for the tests: fastText's binary models and its text."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

WORDS = ("</s>", "a", "man", "dog", "fußball", "日本", "the")
HEADER = {
    "magic": 793712314,
    "version": 12,
    "dim": 4,
    "ws": 5,
    "epoch": 1,
    "min_count": 1,
    "neg": 5,
    "word_ngrams": 1,
    "loss": 2,
    "model": 2,
    "bucket": 50,
    "minn": 2,
    "maxn": 4,
    "lr_update_rate": 100,
}
"""A model of skip-grams with 50 buckets of n-grams of two to four characters."""


def matrix(rows: int, columns: int) -> np.ndarray:
    """Return numbers that are the same everywhere, float32 (rows, columns) within 1."""
    return np.sin(np.arange(rows * columns, dtype=np.float64) * 1.7).reshape(rows, columns).astype(np.float32)


def bin_bytes(words: Sequence[str] = WORDS, **header: int) -> bytes:
    """Return a fastText model: words, each seen as often as it is long, and one row per word and bucket."""
    told: dict[str, Any] = {**HEADER, **header}
    entries = [word.encode() + b"\0" + struct.pack("<qb", len(word), 0) for word in words]
    values = matrix(len(words) + told["bucket"], told["dim"])
    parts = [
        struct.pack("<14id", *told.values(), 1e-4),
        struct.pack("<3i2q", len(words), len(words), 0, 100, -1),
        *entries,
        struct.pack("<?2q", False, *values.shape) + values.tobytes(),
        struct.pack("<?2q", False, len(words), told["dim"]) + values[: len(words)].tobytes(),
    ]
    return b"".join(parts)


def write_bin(path: Path, words: Sequence[str] = WORDS, **header: int) -> Path:
    """Write a fastText model and return its path."""
    path.write_bytes(bin_bytes(words, **header))
    return path


def write_vec(path: Path, words: Sequence[str] = WORDS, *, header: bool = True, size: int = 4) -> Path:
    """Write the words' rows as text and return its path; a line ends with a space, as fastText writes them."""
    rows = matrix(len(words), size)
    lines = [f"{word} {' '.join(repr(float(value)) for value in row)} " for word, row in zip(words, rows, strict=True)]
    path.write_text("\n".join([f"{len(words)} {size}"] * header + lines) + "\n", encoding="utf-8")
    return path
