"""What a text encoder is, and what every one checks of the texts it is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class TextEncoder(Protocol):
    """Turns texts into vectors; the same text gives the same vector, whatever stands beside it.

    Attributes:
        name: what it is, for people: "minilm", or a file's name.
        size: length T of its vectors.
        fingerprint: 16 hexadecimal digits. Vectors of encoders with one fingerprint can stand for each other: those of
            a file of precomputed vectors carry the fingerprint of the encoder that made them.
        lower: only of encoders that can tell case apart: False where they do.
    """

    name: str
    size: int
    fingerprint: str

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return the float32 vectors (N, T) of N texts, not scaled."""
        ...


def checked(texts: Sequence[str]) -> list[str]:
    """Return the texts as a list.

    Raises:
        TypeError: a single text instead of a sequence of them, or something in it is no text.
    """
    if isinstance(texts, str | bytes):
        raise TypeError(f"texts: expected a sequence of texts, got one {type(texts).__name__}; pass [text]")
    listed = list(texts)
    for index, text in enumerate(listed):
        if not isinstance(text, str):
            raise TypeError(f"texts: expected texts, found {type(text).__name__} at {index}")
    return listed


def quoted(text: str, longest: int = 60) -> str:
    """Return a text in quotes on one line, cut where it is long."""
    line = " ".join(text.split())
    return repr(line if len(line) <= longest else line[: longest - 3] + "...")


def no_word_known(name: str, texts: Sequence[str], count: int) -> str:
    """Return the warning about ``texts`` out of ``count`` ones, of which an encoder knows no word."""
    return (
        f"{name}: no word of {len(texts)} of {count} texts is known, such as {quoted(texts[0])}; their vectors are zero"
    )
