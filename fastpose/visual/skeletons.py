"""Skeleton overlays: one colour per limb, cool for the person's left, warm for the right, green for the middle."""

from __future__ import annotations

import colorsys
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastpose.skeletons import Skeleton
from fastpose.visual._canvas import INK, WHITE, Colour, Image, as_array, as_image, put_text, shorten

_HUES = {"left": (0.51, 0.64), "right": (0.00, 0.12), "middle": (0.30, 0.42)}
_SHIFT = 4  # cv2 draws at 1/16 px


def side(skeleton: Skeleton, joints: Sequence[int]) -> str:
    """Return "left" or "right" when some of the joints are on that side and none on the other, else "middle"."""
    sides = {skeleton.joints[k][:2] for k in joints} & {"l_", "r_"}
    return {"l_": "left", "r_": "right"}[sides.pop()] if len(sides) == 1 else "middle"


@functools.lru_cache(maxsize=16)
def limb_colours(skeleton: Skeleton) -> tuple[Colour, ...]:
    """Return one RGB colour per limb, spread over the hues of its side."""
    sides = [side(skeleton, limb) for limb in skeleton.limbs]
    colours = []
    for index, name in enumerate(sides):
        number, total = sides[:index].count(name), sides.count(name)
        low, high = _HUES[name]
        colours.append(_rgb(low + (high - low) * (number + 0.5) / total, 0.90 if number % 2 else 0.72))
    return tuple(colours)


def joint_colour(skeleton: Skeleton, joint: int) -> Colour:
    """Return the RGB colour of a joint: the middle of its side's hues."""
    low, high = _HUES[side(skeleton, (joint,))]
    return _rgb((low + high) / 2, 0.85)


def _rgb(hue: float, saturation: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, 0.9 if 0.25 < hue < 0.45 else 1.0)  # green looks brighter
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_skeleton(
    image: Any,
    keypoints: Any,
    visibility: Any | None,
    skeleton: Skeleton,
    *,
    thickness: float | None = None,
    name_missing: bool = True,
) -> Image:
    """Draw one person's skeleton on a copy of an image.

    Args:
        image: RGB uint8 (H, W, 3) or grey (H, W).
        keypoints: (K, 2) pixels as (x, y), 0-based, pixel centres at integers; tensor or array.
        visibility: (K,), > 0 where the joint is known; None takes all. Where the largest value is 2 (COCO), joints of
            value 1 (labelled, occluded) are drawn hollow. A joint that is not finite is missing.
        skeleton: the joints' names and limbs.
        thickness: limb width in pixels; default from the sizes of the image and the person.
        name_missing: whether a strip at the lower edge names the missing joints, where there is room for it.

    Returns:
        a new RGB uint8 (H, W, 3).

    Raises:
        ValueError: shapes do not fit the image or the skeleton.
    """
    canvas = as_image("image", image)
    points, known, occluded = _person(keypoints, visibility, skeleton)
    points = np.clip(points, -2 * max(canvas.shape), 3 * max(canvas.shape))  # far outside, cv2 would overflow
    width = _default_thickness(canvas, points[known]) if thickness is None else float(thickness)
    _draw_limbs(canvas, points, known, skeleton, width)
    _draw_joints(canvas, points, known, occluded, skeleton, width)
    if name_missing and not known.all():
        _name_missing(canvas, [joint for joint, here in zip(skeleton.joints, known, strict=True) if not here])
    return canvas


def draw_skeletons(image: Any, persons: Sequence[tuple[Any, Any | None]], skeleton: Skeleton) -> Image:
    """Draw several persons, each as (keypoints, visibility), on a copy of an image; missing joints are left out."""
    canvas = as_image("image", image)
    for keypoints, visibility in persons:
        canvas = draw_skeleton(canvas, keypoints, visibility, skeleton, name_missing=False)
    return canvas


def _person(keypoints: Any, visibility: Any | None, skeleton: Skeleton) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return checked points (K, 2) float64 with missing ones at 0, and bool masks (K,): known, occluded."""
    points = as_array(keypoints).astype(np.float64)
    if points.shape != (len(skeleton), 2):
        raise ValueError(f"keypoints: expected ({len(skeleton)}, 2) for skeleton {skeleton.name}, got {points.shape}")
    flags = np.ones(len(skeleton)) if visibility is None else as_array(visibility).astype(np.float64)
    if flags.shape != (len(skeleton),):
        raise ValueError(f"visibility: expected ({len(skeleton)},), got {flags.shape}")
    known = (flags > 0) & np.isfinite(points).all(1)
    occluded = known & (flags == 1) & (flags.max(initial=0) > 1)
    return np.where(known[:, None], points, 0.0), known, occluded


def _default_thickness(canvas: Image, points: np.ndarray) -> float:
    """Return a limb width that suits the image, and the person where it is much smaller than the image."""
    by_image = float(np.hypot(*canvas.shape[:2])) / 130
    by_person = float(np.ptp(points, axis=0).max()) / 40 if len(points) > 1 else by_image
    return max(1.0, min(by_image, by_person))


def _fixed(point: np.ndarray) -> tuple[int, int]:
    """Return a point as cv2 takes it with ``shift``."""
    x, y = np.rint(point * (1 << _SHIFT)).astype(int)
    return int(x), int(y)


def _draw_limbs(canvas: Image, points: np.ndarray, known: np.ndarray, skeleton: Skeleton, width: float) -> None:
    """Draw limbs with a dark rim, which separates them from any background and from each other."""
    import cv2

    rim = max(1, round(0.35 * width))
    for (a, b), colour in zip(skeleton.limbs, limb_colours(skeleton), strict=True):
        if not (known[a] and known[b]):
            continue
        start, end = _fixed(points[a]), _fixed(points[b])
        if width >= 2:
            cv2.line(canvas, start, end, INK, round(width) + 2 * rim, cv2.LINE_AA, _SHIFT)
        cv2.line(canvas, start, end, colour, max(1, round(width)), cv2.LINE_AA, _SHIFT)


def _draw_joints(
    canvas: Image, points: np.ndarray, known: np.ndarray, occluded: np.ndarray, skeleton: Skeleton, width: float
) -> None:
    """Draw a dot per joint with a white rim; hollow where the joint is occluded."""
    radius = max(1.0, 0.75 * width)
    for joint in np.flatnonzero(known):
        colour = joint_colour(skeleton, int(joint))
        _disc(canvas, points[joint], radius + max(1.0, 0.4 * width), INK)
        _disc(canvas, points[joint], radius + max(0.5, 0.2 * width), colour if occluded[joint] else WHITE)
        _disc(canvas, points[joint], radius if width > 1.5 else 1.0, INK if occluded[joint] else colour)


def _disc(canvas: Image, point: np.ndarray, radius: float, colour: Colour) -> None:
    import cv2

    cv2.circle(canvas, _fixed(point), round(radius * (1 << _SHIFT)), colour, -1, cv2.LINE_AA, _SHIFT)


def _name_missing(canvas: Image, names: Sequence[str]) -> None:
    """Darken a strip at the lower edge and name the missing joints there, as many as fit, then how many more."""
    height, width = canvas.shape[:2]
    pixels = int(np.clip(round(min(height, width) / 26), 9, 26))
    strip = round(1.9 * pixels)
    text = _missing_line(_in_pairs(names), pixels, width - pixels) if strip <= height / 5 else ""
    if not text:
        return
    canvas[-strip:] = (canvas[-strip:] * 0.3).astype(np.uint8)
    put_text(canvas, text, pixels // 2, height - round(0.65 * pixels), pixels, (255, 214, 102))


def _in_pairs(names: Sequence[str]) -> list[str]:
    """Return joint names for reading: "eyes" where both sides are there, else "l eye"."""
    words: dict[str, None] = {}
    for name in names:
        bare = name[2:]
        both = name[:2] in ("l_", "r_") and f"l_{bare}" in names and f"r_{bare}" in names
        words[f"{bare}s" if both else name.replace("_", " ")] = None
    return list(words)


def _missing_line(words: Sequence[str], pixels: int, room: int) -> str:
    """Return the longest of "missing: a, b, c", "missing: a, b + 1", ..., "3 missing" that fits; else nothing."""
    full = "missing: " + ", ".join(words)
    cut = [f"missing: {', '.join(words[:shown])} + {len(words) - shown}" for shown in range(len(words) - 1, 0, -1)]
    lines = (full, *cut, f"{len(words)} missing")
    return next((line for line in lines if shorten(line, pixels, room) == line), "")
