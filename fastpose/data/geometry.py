"""Affine maps between a photograph and a crop, (2, 3) float64 acting on (x, y), and the exact sub-pixel crop."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class View:
    """One draw of an augmentation.

    Attributes:
        scale: factor on the side of the crop (above 1 the person gets smaller).
        rotation: degrees, anticlockwise as seen.
        flip: mirrored left to right after the crop.
        gain: factor of each colour channel (R, G, B).
    """

    scale: float = 1.0
    rotation: float = 0.0
    flip: bool = False
    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)


def exact_matrix(center: np.ndarray, side: float, rotation: float, size: tuple[int, int]) -> np.ndarray:
    """Map a photo's pixels to a crop of ``size`` (H, W) whose edges are those of the rotated square of ``side`` px.

    The square is centred on ``center`` and wholly shown; a longer side of ``size`` shows more of the photo.
    """
    height, width = size
    ratio = min(height, width) / side
    angle = math.radians(rotation)
    cosine, sine = ratio * math.cos(angle), ratio * math.sin(angle)
    turn = np.array([[cosine, sine], [-sine, cosine]])  # y down: this turns the picture anticlockwise
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    return np.column_stack([turn, middle - turn @ np.asarray(center, dtype=np.float64)])


def move(after: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Return the affine map that applies ``before`` and then ``after``."""
    return np.column_stack([after[:, :2] @ before[:, :2], after[:, :2] @ before[:, 2] + after[:, 2]])


def invert(matrix: np.ndarray) -> np.ndarray:
    """Return the inverse of an affine map."""
    inverse = np.linalg.inv(matrix[:, :2])
    return np.column_stack([inverse, -inverse @ matrix[:, 2]])


def mirror(size: tuple[int, int]) -> np.ndarray:
    """Return the left-right mirror of a map of ``size`` (H, W): x -> W - 1 - x."""
    return np.array([[-1.0, 0.0, size[1] - 1.0], [0.0, 1.0, 0.0]])


def warp(photo: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resample uint8 (H, W, 3) under ``matrix`` (photo -> output) bilinearly; outside of the photo is black."""
    import cv2

    height, width = size
    return cv2.warpAffine(photo, matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=(0, 0, 0))


def cut_exact(photo: np.ndarray, center: np.ndarray, scale: float, view: View, size: tuple[int, int]) -> np.ndarray:
    """Cut the square of side 200 * scale * view.scale px around ``center`` as uint8 ``size`` + (3,)."""
    side = 200.0 * scale * view.scale
    return warp_shrinking(photo, exact_matrix(center, side, view.rotation, size), size)


def warp_shrinking(photo: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """As ``warp``; a photo that shrinks to less than half is averaged down first, since bilinear taps would alias."""
    import cv2

    factor = int(1.0 / math.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if factor < 2:
        return warp(photo, matrix, size)
    (left, top), (right, bottom) = _needed(photo, matrix, size, factor)
    if right - left < factor or bottom - top < factor:
        return warp(photo, matrix, size)
    small = cv2.resize(
        photo[top:bottom, left:right],
        ((right - left) // factor, (bottom - top) // factor),
        interpolation=cv2.INTER_AREA,
    )
    half = (factor - 1) / 2  # centre of the first block of pixels that becomes pixel 0
    enlarge = np.array([[factor, 0.0, left + half], [0.0, factor, top + half]])
    return warp(small, move(matrix, enlarge), size)


def _needed(
    photo: np.ndarray, matrix: np.ndarray, size: tuple[int, int], factor: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the (left, top), (right, bottom) box of the photo that the output sees, in whole blocks of ``factor``."""
    height, width = size
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]], dtype=np.float64)
    seen = corners @ invert(matrix).T  # (4, 2)
    limit = np.array([photo.shape[1], photo.shape[0]])
    low = np.clip(np.floor(seen.min(0)) - 2 * factor, 0, limit).astype(int)
    high = np.clip(np.ceil(seen.max(0)) + 2 * factor, 0, limit).astype(int)
    high = low + (high - low) // factor * factor
    return (int(low[0]), int(low[1])), (int(high[0]), int(high[1]))
