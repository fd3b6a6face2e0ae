"""Random cameras around a recorded pose.

World: Y up, millimetres. Camera frame: x right, y down, z away, millimetres.
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fastpose.data.motion.clips import check_positive

FLESH = 110.0
"""From the joints to what is drawn of hands, feet and hair, millimetres."""


@dataclass(frozen=True)
class Cameras:
    """What random cameras are drawn from, uniformly; azimuth is free.

    Attributes:
        elevation: degrees above the horizon from which the person is seen.
        distance: metres to the middle of the person.
        roll: degrees to either side.
        fill: share of the picture that the person takes.
        shift: largest offset of the person from the picture's middle, as a share of its side.
        height: factor of the person's size.

    Raises:
        ValueError: a range is not two finite numbers, the lower one first, or shows no person, or one who is mirrored
            or not wholly in the picture.
    """

    elevation: tuple[float, float] = (-10.0, 40.0)
    distance: tuple[float, float] = (3.0, 7.0)
    roll: float = 5.0
    fill: tuple[float, float] = (0.58, 0.75)
    shift: float = 0.04
    height: tuple[float, float] = (0.9, 1.1)

    def __post_init__(self) -> None:
        for name in ("elevation", "distance", "fill", "height"):
            _check_range(f"cameras.{name}", getattr(self, name))
        for name in ("distance", "fill", "height"):
            check_positive(f"cameras.{name}", getattr(self, name)[0])
        _check_number("cameras.roll", self.roll, 180)
        _check_number("cameras.shift", self.shift, 0.5)
        if max(map(abs, self.elevation)) >= 90:
            raise ValueError(f"cameras.elevation: expected degrees between -90 and 90, got {tuple(self.elevation)}")
        if self.fill[1] / 2 + self.shift > 0.5:
            raise ValueError(
                "cameras.fill, cameras.shift: expected a person within the picture (half of fill and shift together at "
                f"most 0.5), got {self.fill[1]:g} and {self.shift:g}"
            )


def _check_range(argument: str, ends: Any) -> None:
    """Raise ``ValueError`` unless ``ends`` are two finite numbers, the lower one first."""
    told = tuple(ends) if isinstance(ends, (tuple, list)) else ()
    if len(told) != 2 or not all(map(_is_finite, told)) or told[0] > told[1]:
        raise ValueError(f"{argument}: expected two finite numbers, the lower one first, got {ends!r}")


def _check_number(argument: str, value: Any, most: float) -> None:
    if not _is_finite(value) or not 0 <= value <= most:
        raise ValueError(f"{argument}: expected a number from 0 to {most:g}, got {value!r}")


def _is_finite(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


class Views(NamedTuple):
    """The pictures of one clip: joints float32 (N, 17, 3), intrinsics (N, 3, 3), frame and view number (N,)."""

    joints: np.ndarray
    intrinsics: np.ndarray
    frame: np.ndarray
    view: np.ndarray


def look_at(
    joints: np.ndarray,
    step: int,
    views: int,
    seeds: tuple[int, int],
    cameras: Cameras,
    size: tuple[int, int],
) -> Views:
    """Photograph every ``step``-th pose of (T, 17, 3), world millimetres, Y up, by ``views`` random cameras."""
    frames = np.arange(0, len(joints), step)
    # Drawn for all frames, so that a frame has its camera whatever the frame rate.
    draws = np.stack([generator(*seeds, view).random((len(joints), 8))[frames] for view in range(views)], axis=1)
    draws = draws.reshape(-1, 8)  # frame by frame, the views of each together
    world = joints[np.repeat(frames, views)]
    seen, focal = _photograph(world, draws, cameras, size)
    intrinsics = np.zeros((len(seen), 3, 3))
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = focal
    intrinsics[:, :2, 2], intrinsics[:, 2, 2] = ((size[1] - 1) / 2, (size[0] - 1) / 2), 1
    return Views(seen.astype(np.float32), intrinsics, np.repeat(frames, views), np.tile(np.arange(views), len(frames)))


def _photograph(
    world: np.ndarray, draws: np.ndarray, cameras: Cameras, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return joints in the camera frame (N, 17, 3) and focal lengths in pixels (N,)."""

    def between(column: int, ends: tuple[float, float]) -> np.ndarray:
        return np.asarray(ends[0] + (ends[1] - ends[0]) * draws[:, column])

    distance = 1000 * between(2, cameras.distance)
    rotation = _rotation(2 * np.pi * draws[:, 0], between(1, cameras.elevation), between(3, (-1, 1)) * cameras.roll)
    middle = (world.max(1, keepdims=True) + world.min(1, keepdims=True)) / 2
    seen = np.einsum("nij,nkj->nki", rotation, (world - middle) * between(7, cameras.height)[:, None, None])
    seen[..., 2] += distance[:, None]
    for _ in range(3):  # moves the camera sideways until the person's picture is around the optical axis
        low, high = _outline(seen)
        seen[..., :2] -= ((low + high) / 2 * distance[:, None])[:, None]
    low, high = _outline(seen)
    share = between(4, cameras.fill)
    flesh = 2 * FLESH / distance[:, None]
    focal = (share[:, None] * size[::-1] / (high - low + flesh)).min(1)
    shift = np.stack([between(5, (-1, 1)), between(6, (-1, 1))], axis=1) * cameras.shift * size[::-1]
    seen[..., :2] += (shift / focal[:, None] * distance[:, None])[:, None]
    return seen, focal


def _outline(seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners (N, 2) of the joints' pictures at focal length 1."""
    flat = seen[..., :2] / np.maximum(seen[..., 2:], 1.0)
    return flat.min(1), flat.max(1)


def _rotation(azimuth: np.ndarray, elevation: np.ndarray, roll: np.ndarray) -> np.ndarray:
    """Return the rotations world -> camera (N, 3, 3) of cameras that look at the origin; elevation, roll in degrees."""
    rise, turn = np.deg2rad(elevation), np.deg2rad(roll)
    forward = -np.stack([np.sin(azimuth) * np.cos(rise), np.sin(rise), np.cos(azimuth) * np.cos(rise)], axis=1)
    right = np.cross(forward, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    down = np.cross(forward, right)
    cos, sin = np.cos(turn)[:, None], np.sin(turn)[:, None]
    return np.stack([cos * right + sin * down, cos * down - sin * right, forward], axis=1)


def generator(*seeds: int) -> np.random.Generator:
    """Return the random numbers of one purpose."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seeds)))
