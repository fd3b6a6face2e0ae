"""Reading numbers from text files that may be anything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastpose.data.person import existing

MOST_JOINTS = 1000
"""Joints that a skeleton may have; a file with more is no person's."""


def read_text(path: Path, what: str, first: str) -> str:
    """Return a text file's content; ``ValueError`` unless it is text in which the word ``first`` occurs."""
    content = existing("mocap", path, what).read_bytes()
    if b"\0" in content[:4096] or first.lower().encode() not in content[:65536].lower():
        raise ValueError(f"{path}: not {what}: expected text with {first!r}, found {_kind(content)}")
    return content.decode("latin-1")


def _kind(content: bytes) -> str:
    if not content.strip():
        return "an empty file"
    return "bytes that are no text" if b"\0" in content[:4096] else "none"


def numbers(path: Path, tokens: Sequence[str], place: str) -> np.ndarray:
    """Return tokens as float64 (N,); ``ValueError`` names the file and the place of what is no finite number."""
    try:
        values = np.array([float(token) for token in tokens], dtype=np.float64)
    except ValueError:
        wrong = next(token for token in tokens if not _is_number(token))
        raise ValueError(f"{path}: {place}: expected a number, found {wrong[:40]!r}") from None
    if not np.isfinite(values).all():
        raise ValueError(
            f"{path}: {place}: expected finite numbers, found {tokens[int(np.argmin(np.isfinite(values)))]}"
        )
    return values


def _is_number(token: str) -> bool:
    try:
        float(token)
    except ValueError:
        return False
    return True


def count(path: Path, token: str, place: str) -> int:
    """Return a token as a whole number of 0 or more; ``ValueError`` names the file and the place."""
    if not (token.isascii() and token.isdigit() and len(token) < 12):
        raise ValueError(f"{path}: {place}: expected a whole number, found {token[:40]!r}")
    return int(token)
