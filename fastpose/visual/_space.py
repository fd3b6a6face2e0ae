"""Capsules and balls in space as pictures: perspective, a depth buffer, light from above.

There is no floor: poses stand in the frame of a camera, and how it is held is not known. A floor level with a camera
that looks down would show everybody falling.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastpose.visual._canvas import WHITE, Colour, Image

_FINER = 3  # samples per pixel and axis; averaged in the end
_FILLED = 0.92  # of the picture's shorter side, by the scene
_DISTANCE = 4.5  # of the eye, in radii of the scene
_LIGHT = np.array([-0.42, -0.74, -0.52])  # where light comes from: left, above, the viewer's side


@dataclass(frozen=True)
class Solid:
    """A capsule between two points, or a ball where they are one.

    Attributes:
        start, end: (x, y, z), x right, y down, z away, in the unit of the scene.
        radius: in that unit.
        colour: RGB.
    """

    start: np.ndarray
    end: np.ndarray
    radius: float
    colour: Colour


@dataclass(frozen=True)
class Scene:
    """The part of space that is shown: a ball.

    Attributes:
        centre: (3,).
        radius: of the ball.
    """

    centre: np.ndarray
    radius: float

    @classmethod
    def around(cls, points: np.ndarray) -> Scene:
        """Return the scene that holds points (N, 3), whichever way it is turned; a unit ball where there are none."""
        if not len(points):
            return cls(np.zeros(3), 1.0)
        centre = (points.min(0) + points.max(0)) / 2
        radius = float(np.linalg.norm(points - centre, axis=1).max())
        return cls(centre, max(radius, 1e-6))


@dataclass(frozen=True)
class Eye:
    """Where a scene is looked at from: maps its points to a picture.

    Args:
        scene: what is looked at.
        azimuth: degrees by which the eye has gone round to the picture's right; 0 looks along z.
        elevation: degrees above the horizon; 90 looks straight down.
        size: (H, W) of the picture in pixels.
    """

    scene: Scene
    azimuth: float
    elevation: float
    size: tuple[int, int]

    def see(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return pixels (N, 2), depths (N,) and pixels per unit (N,) of points (N, 3)."""
        turned = (points - self.scene.centre) @ self._axes().T  # (N, 3) right, down, away
        distance = _DISTANCE * self.scene.radius
        outline = self.scene.radius / np.sqrt(1 - _DISTANCE**-2)  # of the ball, at the depth of its middle
        fit = _FILLED / 2 * min(self.size) / outline
        scale = fit * distance / (distance + turned[:, 2])
        middle = (np.array(self.size[::-1]) - 1) / 2
        return turned[:, :2] * scale[:, None] + middle, turned[:, 2], scale

    def _axes(self) -> np.ndarray:
        """Return the picture's right, down and away as rows (3, 3)."""
        a, e = np.radians(self.azimuth), np.radians(self.elevation)
        level, down = np.array([-np.sin(a), 0, np.cos(a)]), np.array([0.0, 1.0, 0.0])
        right = np.array([np.cos(a), 0, np.sin(a)])
        return np.stack([right, np.cos(e) * down - np.sin(e) * level, np.cos(e) * level + np.sin(e) * down])


def render(solids: list[Solid], scene: Scene, *, azimuth: float, elevation: float, size: tuple[int, int]) -> Image:
    """Return a picture (H, W, 3) of solids on white."""
    import cv2

    fine = (size[0] * _FINER, size[1] * _FINER)
    eye = Eye(scene, azimuth, elevation, fine)
    canvas = np.full((*fine, 3), WHITE, np.uint8)
    nearest = np.full(fine, np.inf, np.float32)
    for solid in solids:
        _add(canvas, nearest, solid, eye)
    return cv2.resize(canvas, size[::-1], interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def _add(canvas: Image, nearest: np.ndarray, solid: Solid, eye: Eye) -> None:
    """Draw one solid where nothing nearer is, in place; ``nearest`` holds the depths in pixels."""
    (start, end), depths, scales = eye.see(np.stack([solid.start, solid.end]))
    radii = solid.radius * scales
    low = np.floor(np.minimum(start - radii[0], end - radii[1])).astype(int).clip(0)
    high = np.ceil(np.maximum(start + radii[0], end + radii[1])).astype(int) + 1
    part = np.s_[low[1] : max(high[1], 0), low[0] : max(high[0], 0)]
    height, width = nearest[part].shape
    if not height * width:
        return
    grid = np.stack(np.meshgrid(np.arange(low[0], low[0] + width), np.arange(low[1], low[1] + height)), -1)
    along = end - start
    length = float(along @ along)
    t = np.clip((grid - start) @ along / length, 0, 1) if length > 1e-9 else np.zeros((height, width))
    across = grid - start - t[..., None] * along  # (h, w, 2), from the axis
    radius = radii[0] + t * (radii[1] - radii[0])
    bulge = radius**2 - (across**2).sum(-1)  # towards the viewer, squared
    rise = np.sqrt(bulge.clip(0))
    depth = (depths[0] + t * (depths[1] - depths[0])) * scales.mean() - rise
    seen = (bulge > 0) & (depth < nearest[part])
    normals = np.concatenate([across, -rise[..., None]], -1)[seen] / radius[seen][:, None]  # (n, 3)
    far = np.clip(0.5 + 0.5 * depth[seen] / (scales.mean() * eye.scene.radius), 0, 1)
    nearest[part][seen] = depth[seen]
    canvas[part][seen] = _lit(solid.colour, normals, far)


def _lit(colour: Colour, normals: np.ndarray, far: np.ndarray) -> np.ndarray:
    """Return RGB (n, 3) of a colour under the light: dark at the rim, paler the farther away (0 to 1)."""
    light = (normals @ _LIGHT / np.linalg.norm(_LIGHT)).clip(0)
    facing = (-normals[:, 2]).clip(0, 1)
    shade = (0.60 + 0.44 * light) * (0.62 + 0.38 * np.sqrt(facing))
    gloss = 0.35 * light**14
    lit = np.asarray(colour, np.float64) * shade[:, None]
    lit += (255 - lit) * gloss[:, None]
    lit += (255 - lit) * (0.26 * far**1.5)[:, None]
    return np.rint(lit.clip(0, 255)).astype(np.uint8)
