"""Thinning of a shape to lines one pixel wide (Zhang and Suen, 1984), on whole arrays."""

from __future__ import annotations

import functools

import numpy as np

# (row, column) of the eight neighbours, clockwise from above: P2 to P9 of the paper.
_RING = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))


def thin(shape: np.ndarray) -> np.ndarray:
    """Return bool (H, W): the skeleton of ``shape`` (H, W), where it is not 0; outside of the picture is empty.

    Pixels go in two alternating passes, each decided on the picture as the pass began, until none goes.
    """
    if shape.ndim != 2:
        raise ValueError(f"shape: expected (H, W), got {shape.shape}")
    (top, bottom), (left, right) = _extent(np.any(shape, axis=1)), _extent(np.any(shape, axis=0))
    # The skeleton never leaves the shape's box; one empty pixel around it spares every test of borders.
    padded = np.pad(shape[top:bottom, left:right] != 0, 1).astype(np.uint8)
    changed = True
    while changed:
        changed = False
        for removable in _removable():
            gone = removable[_codes(padded)] & (padded[1:-1, 1:-1] > 0)
            if gone.any():
                padded[1:-1, 1:-1][gone] = 0
                changed = True
    output = np.zeros(shape.shape, dtype=bool)
    output[top:bottom, left:right] = padded[1:-1, 1:-1] > 0
    return output


def _extent(used: np.ndarray) -> tuple[int, int]:
    """Return the first and one past the last True of (N,), (0, 0) when there is none."""
    places = np.flatnonzero(used)
    return (int(places[0]), int(places[-1]) + 1) if len(places) else (0, 0)


def _codes(padded: np.ndarray) -> np.ndarray:
    """Return uint8 (H, W) of a picture padded to (H + 2, W + 2): bit k is the k-th neighbour of the ring."""
    height, width = padded.shape[0] - 2, padded.shape[1] - 2
    codes = np.zeros((height, width), np.uint8)
    for bit, (down, right) in enumerate(_RING):
        codes |= padded[1 + down : 1 + down + height, 1 + right : 1 + right + width] << bit
    return codes


@functools.lru_cache(maxsize=1)
def _removable() -> tuple[np.ndarray, np.ndarray]:
    """Return, for the first and second pass, bool (256,): may a pixel with these neighbours go?"""
    ring = (np.arange(256)[:, None] >> np.arange(8)) & 1  # (256, 8)
    above, right, below, left = ring[:, 0], ring[:, 2], ring[:, 4], ring[:, 6]
    count = ring.sum(1)
    entries = ((ring == 0) & (np.roll(ring, -1, axis=1) == 1)).sum(1)
    kept_whole = (count >= 2) & (count <= 6) & (entries == 1)
    first = kept_whole & (above * right * below == 0) & (right * below * left == 0)
    second = kept_whole & (above * right * left == 0) & (above * below * left == 0)
    return first, second
