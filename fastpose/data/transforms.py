"""Geometry of a training sample: crop presets, augmentation presets, and the random view that joins them.

A *view* is one draw of scale, rotation, mirror and colour. A *crop preset* says how a person's square becomes the
network's image and how the key points land in heatmap pixels. Points are (x, y), sizes
(H, W), pixel centres at integers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fastpose._checks import unknown
from fastpose.data import published_crops
from fastpose.data.geometry import View, cut_exact, exact_matrix, invert, mirror, move

PLAIN = View()


@dataclass(frozen=True)
class Augmentation:
    """Distribution of views; ``sample(rng)`` draws one.

    Attributes:
        name: preset name.
        scale: "none", "uniform" (1 +- spread), "normal" (1 + spread * N, clipped to 1 +- spread) or
            "power" (2 ** of spread * N, clipped to +- 2 * spread).
        scale_spread: width of that distribution.
        rotation: "none", "uniform" (+- degrees) or "normal" (degrees * N, clipped to +- 2 * degrees).
        rotation_degrees: width of that distribution.
        rotation_probability: share of samples that are rotated at all.
        flip_probability: share of samples that are mirrored.
        gain: (low, high) of the uniform gain of each colour channel; the result is clipped to the valid range.
    """

    name: str
    scale: str = "none"
    scale_spread: float = 0.25
    rotation: str = "none"
    rotation_degrees: float = 30.0
    rotation_probability: float = 1.0
    flip_probability: float = 0.5
    gain: tuple[float, float] = (1.0, 1.0)

    @property
    def closest(self) -> float:
        """The smallest scale that a view can have."""
        spread = self.scale_spread
        return {"none": 1.0, "power": 2.0 ** (-2 * spread)}.get(self.scale, 1.0 - spread)

    def sample(self, rng: np.random.Generator) -> View:
        """Draw a view; the number of draws does not depend on their outcome."""
        scale = self._draw_scale(rng.uniform(-1.0, 1.0), rng.standard_normal())
        angle = self._draw_rotation(rng.uniform(-1.0, 1.0), rng.standard_normal())
        rotated, flipped = rng.random(2)
        gain = rng.uniform(*self.gain, size=3)
        return View(
            scale=scale,
            rotation=angle if rotated < self.rotation_probability else 0.0,
            flip=bool(flipped < self.flip_probability),
            gain=(float(gain[0]), float(gain[1]), float(gain[2])),
        )

    def _draw_scale(self, uniform: float, normal: float) -> float:
        spread = self.scale_spread
        if self.scale == "uniform":
            return 1.0 + spread * uniform
        if self.scale == "normal":
            return 1.0 + min(max(spread * normal, -spread), spread)
        if self.scale == "power":
            return float(2.0 ** min(max(spread * normal, -2 * spread), 2 * spread))
        return 1.0

    def _draw_rotation(self, uniform: float, normal: float) -> float:
        degrees = self.rotation_degrees
        if self.rotation == "uniform":
            return degrees * uniform
        if self.rotation == "normal":
            return min(max(degrees * normal, -2 * degrees), 2 * degrees)
        return 0.0


AUGMENTATIONS: dict[str, Augmentation] = {
    entry.name: entry
    for entry in (
        # System 000, text: rotation within 30 degrees, scale within 25 %, mirror.
        Augmentation("sagan_paper", "uniform", 0.25, "uniform", 30.0),
        # System 000, released code: clipped normal draws, four samples in ten rotated, colour gain.
        Augmentation("sagan_released", "normal", 0.25, "normal", 30.0, 0.4, 0.5, (0.8, 1.2)),
        # Stacked hourglass: scale as a power of two, stronger colour gain.
        Augmentation("newell", "power", 0.25, "normal", 30.0, 0.4, 0.5, (0.6, 1.4)),
        # System 002, the backbone's released code: that of the hourglass, but colours are only made darker.
        Augmentation("zhou", "power", 0.25, "normal", 30.0, 0.4, 0.5, (0.6, 1.0)),
        # pytorch-pose: as released, but six samples in ten rotated.
        Augmentation("pytorch_pose", "normal", 0.25, "normal", 30.0, 0.6, 0.5, (0.8, 1.2)),
    )
}


def augmentation(name: str) -> Augmentation | None:
    """Return an augmentation preset by name, None for "none"; ``ValueError`` offers the nearest name."""
    if name == "none":
        return None
    if name not in AUGMENTATIONS:
        raise ValueError(unknown("augmentation", name, (*AUGMENTATIONS, "none")))
    return AUGMENTATIONS[name]


@dataclass(frozen=True)
class Crop:
    """A crop preset.

    Attributes:
        name: preset name.
        cutter: (photo, center, scale, view, size) -> uint8 (H, W, 3), not yet mirrored.
        placer: (center, scale, view, size) -> (first, truncate, second): key points go through the affine ``first``,
            lose their fraction where ``truncate``, and go through ``second``.
    """

    name: str
    cutter: Callable[[np.ndarray, np.ndarray, float, View, tuple[int, int]], np.ndarray]
    placer: Callable[[np.ndarray, float, View, tuple[int, int]], tuple[np.ndarray, bool, np.ndarray]]

    def cut(self, photo: np.ndarray, center: np.ndarray, scale: float, view: View, size: tuple[int, int]) -> np.ndarray:
        """Cut the person's square out of ``photo`` (uint8 (H, W, 3)) under ``view``; outside of the photo is black."""
        import cv2

        return cv2.merge(list(self.cut_planes(photo, center, scale, view, size)))

    def cut_planes(
        self, photo: np.ndarray, center: np.ndarray, scale: float, view: View, size: tuple[int, int]
    ) -> np.ndarray:
        """As ``cut``, channels first: uint8 (3, H, W)."""
        import cv2

        image = self.cutter(photo, center, scale, view, size)
        image = cv2.flip(image, 1) if view.flip else image
        planes = np.empty((3, *size), np.uint8)
        cv2.split(image, list(planes))
        return _gain(planes, view.gain)

    def place(
        self, points: np.ndarray, center: np.ndarray, scale: float, view: View, size: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Move points (K, 2) of the photo into a map of ``size``; also return the affine (2, 3) of the way back.

        Where the preset truncates to whole pixels, the way back starts from the middle of the truncated cell.
        Left and right joints are not swapped here.
        """
        first, truncates, second = self.placer(center, scale, view, size)
        if view.flip:
            second = move(mirror(size), second)
        placed = first[:, :2] @ points.T.astype(np.float64) + first[:, 2:]  # (2, K)
        placed = np.trunc(placed) if truncates else placed
        placed = second[:, :2] @ placed + second[:, 2:]
        cell = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5]]) if truncates else np.eye(2, 3)
        return placed.T, move(invert(first), move(cell, invert(second)))


def _exact_placer(
    center: np.ndarray, scale: float, view: View, size: tuple[int, int]
) -> tuple[np.ndarray, bool, np.ndarray]:
    return exact_matrix(center, 200.0 * scale * view.scale, view.rotation, size), False, np.eye(2, 3)


CROPS: dict[str, Crop] = {
    entry.name: entry
    for entry in (
        Crop("exact", cut_exact, _exact_placer),
        Crop("pytorch_pose", published_crops.cut_pytorch_pose, published_crops.place_truncated),
        Crop("stacked_hourglass", published_crops.cut_stacked_hourglass, published_crops.place_truncated),
        Crop("hg_sagan", published_crops.cut_hg_sagan, published_crops.place_hg_sagan),
    )
}


def crop(name: str) -> Crop:
    """Return a crop preset by name; ``ValueError`` offers the nearest name.

    "exact": sub-pixel, the square's edges meet the map's edges at every resolution (the default).
    "pytorch_pose": corners and key points truncated to whole pixels, large persons shrunk first, triangle filter.
    "stacked_hourglass": corners and key points truncated to whole pixels.
    "hg_sagan": as "stacked_hourglass", then scale and rotation act on the finished crop, black outside of it.
    """
    if name not in CROPS:
        raise ValueError(unknown("crop", name, CROPS))
    return CROPS[name]


def inside(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return bool (K,): whether each point (K, 2) lies on the area of a map of ``size`` (H, W)."""
    height, width = size
    x, y = points[:, 0], points[:, 1]
    return (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)


def _gain(planes: np.ndarray, gain: tuple[float, float, float]) -> np.ndarray:
    """Multiply each channel of uint8 (3, H, W) by its gain, clipped to 0..255, in place."""
    import cv2

    if gain != (1.0, 1.0, 1.0):
        tables = np.clip(np.array(gain)[:, None] * np.arange(256) + 0.5, 0, 255).astype(np.uint8)  # (3, 256)
        for plane, table in zip(planes, tables, strict=True):
            cv2.LUT(plane, table, plane)
    return planes
