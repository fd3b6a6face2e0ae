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
    return affine(turn, middle - turn @ np.asarray(center, dtype=np.float64))


def affine(linear: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Return the map (2, 3) of a linear part (2, 2) and an offset (2,)."""
    matrix = np.empty((2, 3))
    matrix[:, :2], matrix[:, 2] = linear, offset
    return matrix


def move(after: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Return the affine map that applies ``before`` and then ``after``."""
    return affine(after[:, :2] @ before[:, :2], after[:, :2] @ before[:, 2] + after[:, 2])


def invert(matrix: np.ndarray) -> np.ndarray:
    """Return the inverse of an affine map."""
    inverse = np.linalg.inv(matrix[:, :2])
    return affine(inverse, -inverse @ matrix[:, 2])


def mirror(size: tuple[int, int]) -> np.ndarray:
    """Return the left-right mirror of a map of ``size`` (H, W): x -> W - 1 - x."""
    return np.array([[-1.0, 0.0, size[1] - 1.0], [0.0, 1.0, 0.0]])


def fit_matrix(box: np.ndarray, margin: float, size: tuple[int, int]) -> np.ndarray:
    """Map a photo's pixels to a picture of ``size`` that just holds ``box`` (x, y, width, height) times ``margin``."""
    height, width = size
    x, y, wide, high = (float(value) for value in box)
    side = margin * max(wide / width, high / height, 1e-6) * min(size)
    return exact_matrix(np.array([x + (wide - 1) / 2, y + (high - 1) / 2]), side, 0.0, size)


def resize_matrix(old: tuple[int, int], new: tuple[int, int]) -> np.ndarray:
    """Map the pixels of a picture of size ``old`` (H, W) to those of ``new``; the edges of both coincide."""
    tall, wide = new[0] / old[0], new[1] / old[1]
    return np.array([[wide, 0.0, (wide - 1) / 2], [0.0, tall, (tall - 1) / 2]])


def warp(
    photo: np.ndarray, matrix: np.ndarray, size: tuple[int, int], *, fill: int = 0, nearest: bool = False
) -> np.ndarray:
    """Resample uint8 (H, W) or (H, W, 3) under ``matrix`` (photo -> output), bilinearly or from the ``nearest`` pixel.

    Outside of the photo every channel is ``fill``.
    """
    import cv2

    height, width = size
    flags = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
    four = _faster_by_four(photo, size)
    photo = cv2.cvtColor(photo, cv2.COLOR_RGB2RGBA) if four else photo
    output = cv2.warpAffine(photo, matrix, (width, height), flags=flags, borderValue=(fill,) * 4)
    return cv2.cvtColor(output, cv2.COLOR_RGBA2RGB) if four else output


def _faster_by_four(photo: np.ndarray, size: tuple[int, int]) -> bool:
    """Whether resampling takes less time with a fourth channel that fills a word per pixel: the same values, by
    OpenCV's faster loop, unless the photo is so large that copying it takes longer.
    """
    pixels = photo.shape[0] * photo.shape[1]
    return photo.shape[2:] == (3,) and photo.dtype == np.uint8 and 0 < pixels <= 4 * size[0] * size[1]


def cut(
    photo: np.ndarray, matrix: np.ndarray, size: tuple[int, int], *, fill: int, nearest: bool = False
) -> np.ndarray:
    """As ``warp``, but a map that only moves by whole pixels copies them untouched, and a strong shrinking averages."""
    shift = np.round(matrix[:, 2]).astype(int)
    if np.array_equal(matrix[:, :2], np.eye(2)) and np.array_equal(matrix[:, 2], shift):
        return _shifted(photo, int(shift[0]), int(shift[1]), size, fill)
    if nearest:
        return warp(photo, matrix, size, fill=fill, nearest=True)
    return warp_shrinking(photo, matrix, size, fill=fill)


def _shifted(photo: np.ndarray, right: int, down: int, size: tuple[int, int], fill: int) -> np.ndarray:
    """Copy ``photo`` into a picture of ``size``, moved by whole pixels."""
    output = np.full((*size, *photo.shape[2:]), fill, photo.dtype)
    top, left = max(down, 0), max(right, 0)
    bottom, end = min(photo.shape[0] + down, size[0]), min(photo.shape[1] + right, size[1])
    if bottom > top and end > left:
        output[top:bottom, left:end] = photo[top - down : bottom - down, left - right : end - right]
    return output


def cut_exact(photo: np.ndarray, center: np.ndarray, scale: float, view: View, size: tuple[int, int]) -> np.ndarray:
    """Cut the square of side 200 * scale * view.scale px around ``center`` as uint8 ``size`` + (3,)."""
    side = 200.0 * scale * view.scale
    return warp_shrinking(photo, exact_matrix(center, side, view.rotation, size), size)


def warp_shrinking(photo: np.ndarray, matrix: np.ndarray, size: tuple[int, int], *, fill: int = 0) -> np.ndarray:
    """As ``warp``; a photo that shrinks to less than half is averaged down first, since bilinear taps would alias."""
    import cv2

    factor = int(1.0 / math.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if factor < 2:
        return warp(photo, matrix, size, fill=fill)
    (left, top), (right, bottom) = _needed(photo, matrix, size, factor)
    if right - left < factor or bottom - top < factor:
        return warp(photo, matrix, size, fill=fill)
    small = cv2.resize(
        photo[top:bottom, left:right],
        ((right - left) // factor, (bottom - top) // factor),
        interpolation=cv2.INTER_AREA,
    )
    half = (factor - 1) / 2  # centre of the first block of pixels that becomes pixel 0
    enlarge = np.array([[factor, 0.0, left + half], [0.0, factor, top + half]])
    return warp(small, move(matrix, enlarge), size, fill=fill)


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
