"""Forward kinematics over all frames at once, for both conventions: ASF/AMC and BVH."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_AXES = {"X": (1, 2), "Y": (2, 0), "Z": (0, 1)}


def rotation(axis: str, angle: np.ndarray) -> np.ndarray:
    """Return rotations (..., 3, 3) about one axis of columns by angles (...) in radians."""
    matrix = np.zeros((*np.shape(angle), 3, 3))
    first, second = _AXES[axis]
    matrix[..., "XYZ".index(axis), "XYZ".index(axis)] = 1.0
    matrix[..., first, first] = matrix[..., second, second] = np.cos(angle)
    matrix[..., second, first] = np.sin(angle)
    matrix[..., first, second] = -np.sin(angle)
    return matrix


def product(axes: Sequence[str], angles: np.ndarray) -> np.ndarray:
    """Return the product (..., 3, 3) of rotations about ``axes``, the first one leftmost; angles (..., n) radians."""
    total = np.broadcast_to(np.eye(3), (*angles.shape[:-1], 3, 3))
    for index, axis in enumerate(axes):
        total = total @ rotation(axis, angles[..., index])
    return total


def forward(
    parents: Sequence[int], offsets: Sequence[np.ndarray], rotations: Sequence[np.ndarray], *, own: bool
) -> np.ndarray:
    """Return joint positions (T, J, 3) from each joint's offset (3,) or (T, 3) and local rotation (T, 3, 3) or (3, 3).

    ``own``: a joint's offset turns with its own rotation (the joint is its bone's end, ASF), else with its parent's
    (the joint is where its bones start, BVH). The root's offset is its place in the world.
    """
    places: list[np.ndarray] = []
    turns: list[np.ndarray] = []
    with np.errstate(over="ignore", invalid="ignore"):  # absurd lengths: who builds the motion refuses what comes out
        for joint, parent in enumerate(parents):
            if parent < 0:
                places.append(offsets[joint])
                turns.append(rotations[joint])
                continue
            turns.append(turns[parent] @ rotations[joint])
            turn = turns[joint] if own else turns[parent]
            places.append(places[parent] + (turn @ offsets[joint][..., None])[..., 0])
    return np.stack(np.broadcast_arrays(*places), axis=1)
