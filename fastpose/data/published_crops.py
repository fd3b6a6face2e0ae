"""The crops of the published codes, with their truncation to whole pixels.

All of them map the square of side 200 * scale px by ``torch_matrix`` and truncate towards zero. They count pixels from
1; here the same arithmetic runs on 0-based pixels, so that photo and key points shift alike.
Sources: stacked-hourglass (pose-hg-train), pytorch-pose, Hg-SAGAN (system 000, section 5).
"""

from __future__ import annotations

import math

import numpy as np

from fastpose.data.geometry import View, affine, exact_matrix, invert, warp, warp_shrinking

# Stacked-hourglass codes add this before truncation, so that exact whole numbers survive rounding errors.
_TRUNCATION_GUARD = 1e-4


def torch_matrix(center: np.ndarray, scale: float, rotation: float, size: tuple[int, int]) -> np.ndarray:
    """Return the published affine (2, 3) from photo to crop of ``size``: edges at whole numbers, centre to H / 2."""
    height, width = size
    side = 200.0 * scale
    stretch = np.diag([width / side, height / side])
    middle = np.array([width / 2, height / 2])
    angle = math.radians(rotation)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    linear = turn @ stretch
    return affine(linear, middle - linear @ np.asarray(center, dtype=np.float64))


def place_truncated(
    center: np.ndarray, scale: float, view: View, size: tuple[int, int]
) -> tuple[np.ndarray, bool, np.ndarray]:
    """Placement of key points in "pytorch_pose" and "stacked_hourglass": one map, then truncation."""
    return torch_matrix(center, scale * view.scale, view.rotation, size), True, np.eye(2, 3)


def place_hg_sagan(
    center: np.ndarray, scale: float, view: View, size: tuple[int, int]
) -> tuple[np.ndarray, bool, np.ndarray]:
    """Placement in "hg_sagan": truncated in the plain crop, then moved with the augmentation of that crop."""
    return torch_matrix(center, scale, 0.0, size), True, _augment_matrix(view, size)


def cut_stacked_hourglass(
    photo: np.ndarray, center: np.ndarray, scale: float, view: View, size: tuple[int, int]
) -> np.ndarray:
    """Cut the square with corners truncated to whole pixels, rotated about its middle."""
    low, high = _corners(center, scale * view.scale, size, origin=0, guard=_TRUNCATION_GUARD)
    middle, side = (low + high - 1) / 2, float(max(high - low))
    return warp_shrinking(photo, exact_matrix(middle, max(side, 1.0), view.rotation, size), size)


def cut_hg_sagan(photo: np.ndarray, center: np.ndarray, scale: float, view: View, size: tuple[int, int]) -> np.ndarray:
    """Cut without augmentation, then scale and rotate the crop: what lay outside of it stays black."""
    plain = cut_stacked_hourglass(photo, center, scale, View(), size)
    if view.scale == 1.0 and view.rotation == 0.0:
        return plain
    return warp(plain, _augment_matrix(view, size), size)


def _augment_matrix(view: View, size: tuple[int, int]) -> np.ndarray:
    """Scale and rotation about the middle of a crop of ``size``."""
    height, width = size
    return exact_matrix(np.array([(width - 1) / 2, (height - 1) / 2]), min(size) * view.scale, view.rotation, size)


def cut_pytorch_pose(
    photo: np.ndarray, center: np.ndarray, scale: float, view: View, size: tuple[int, int]
) -> np.ndarray:
    """Cut as pytorch-pose does, on uint8 or float (H, W, 3): shrink a large person first, cut whole pixels, resize."""
    import cv2

    scale = scale * view.scale
    shrink = scale * 200.0 / size[0]
    if shrink >= 2:
        height, width = (math.floor(side / shrink) for side in photo.shape[:2])
        if height < 1 or width < 1:
            return np.zeros((*size, 3), photo.dtype)
        photo = cv2.resize(photo, (width, height), interpolation=cv2.INTER_LINEAR)
        center, scale = np.asarray(center) / shrink, scale / shrink
    box = _rotated_box(photo, *_corners(center, scale, size, origin=1, guard=0.0), view.rotation)
    return cv2.resize(box, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)


def _corners(
    center: np.ndarray, scale: float, size: tuple[int, int], *, origin: int, guard: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the crop's first and one-past-last pixel (x, y), int, truncated towards zero.

    ``origin`` is the number that the code gives to the first pixel when it truncates: it subtracts it before the
    map and adds it afterwards.
    """
    back = invert(torch_matrix(center, scale, 0.0, size))
    ends = np.array([[0.0, 0.0], [size[1], size[0]]]) - origin
    low, high = np.trunc(ends @ back[:, :2].T + back[:, 2] + guard).astype(int) + origin
    return low, high


def _rotated_box(photo: np.ndarray, low: np.ndarray, high: np.ndarray, rotation: float) -> np.ndarray:
    """Cut [low, high) out of ``photo`` with black outside, turned by ``rotation`` degrees about its middle."""
    pad = int(np.linalg.norm(high - low) / 2 - (high[1] - low[1]) / 2) if rotation else 0
    box = _padded_box(photo, low - pad, high + pad)
    if not rotation:
        return box
    middle = (np.array(box.shape[1::-1]) - 1) / 2
    side = float(min(box.shape[:2]))
    turned = warp(box, exact_matrix(middle, side, rotation, box.shape[:2]), box.shape[:2])
    return turned[pad : box.shape[0] - pad, pad : box.shape[1] - pad]


def _padded_box(photo: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Cut [low, high) (x, y) out of ``photo``; black where it reaches beyond; at least one pixel."""
    high = np.maximum(high, low + 1)
    box = np.zeros((high[1] - low[1], high[0] - low[0], 3), photo.dtype)
    first, last = np.maximum(low, 0), np.minimum(high, np.array(photo.shape[1::-1]))
    if (last > first).all():
        inner = photo[first[1] : last[1], first[0] : last[0]]
        box[first[1] - low[1] : last[1] - low[1], first[0] - low[0] : last[0] - low[0]] = inner
    return box
