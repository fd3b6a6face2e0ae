"""How much a packed file may unpack to: a few kilobytes of zeros can be made to fill any memory."""

from __future__ import annotations

MOST_PACKED, SMALL = 200, 1 << 26
"""How many times its packed size something may take, and what is never too much: data of joints packs ten times."""


def most(packed: int) -> int:
    """Return the bytes that a file, or a part of one, of ``packed`` bytes may unpack to."""
    return max(SMALL, MOST_PACKED * packed)
