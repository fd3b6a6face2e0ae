"""A standing body in space for tests of poses, and ways to turn it."""

from __future__ import annotations

import numpy as np

from fastpose.skeletons import MPII

# x right, y down, z away, mm; the person faces the camera: the right side of the body is on the left of the picture
_STANDING = {
    "ankle": (100, 880, 40),
    "knee": (100, 450, 0),
    "hip": (100, 0, 10),
    "shoulder": (170, -480, 20),
    "elbow": (250, -210, 30),
    "wrist": (270, 20, -60),
}
_MIDDLE = {"pelvis": (0, 0, 10), "thorax": (0, -480, 20), "upper_neck": (0, -530, 20), "head_top": (0, -740, 0)}


def standing(number: int = 1, spread: float = 0.0, seed: int = 0) -> np.ndarray:
    """Return persons (N, 16, 3) in mm, 4 m away, their joints moved at random by about ``spread`` mm."""
    place = dict(_MIDDLE)
    for joint, (x, y, z) in _STANDING.items():
        place |= {f"l_{joint}": (x, y, z), f"r_{joint}": (-x, y, z)}
    body = np.array([place[joint] for joint in MPII.joints], np.float64) + (0, 0, 4000)
    return body + np.random.default_rng(seed).normal(0, 1, (number, 16, 3)) * spread


def rotation(seed: int) -> np.ndarray:
    """Return a random proper rotation (3, 3)."""
    matrix, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return matrix * np.sign(np.linalg.det(matrix))


def turned(poses: np.ndarray, seed: int, *, scale: float = 1.0, shift: float = 0.0) -> np.ndarray:
    """Return poses under a random rotation, with a scale and a shift."""
    return scale * poses @ rotation(seed) + shift * np.random.default_rng(seed).normal(size=3)


def joint(name: str) -> int:
    """Return the index of an MPII joint."""
    return MPII.index(name)
