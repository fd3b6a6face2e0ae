"""Poses in space: a skeleton from several sides, turning, beside its photograph, over the truth; its descriptor.

Joints are (x, y, z), x right, y down, z away from the camera, in any unit; colours are those of ``visual.skeletons``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastpose import _checks
from fastpose.skeletons import Skeleton
from fastpose.visual import _space, sequences
from fastpose.visual._canvas import INK, WHITE, Colour, Image, as_array, as_image, blend, fit, put_text, text_mask
from fastpose.visual._space import Scene, Solid
from fastpose.visual.skeletons import draw_skeleton, joint_colour, limb_colours
from fastpose.visual.transfer import panels

VIEWS = {"front": (0.0, 8.0), "side": (90.0, 8.0), "top": (0.0, 80.0)}
"""Where a pose is looked at from: azimuth to the picture's right and elevation, in degrees."""

TRUTH: Colour = (168, 172, 180)

HEIGHT = 360  # of a panel
FRAMES = 48  # of a turn
_SHADES = (0.55, 0.75, 0.9)  # of limbs in light and shadow, which a film keeps
_SLENDER = 1 / 46  # radius of a limb, by the radius of the scene


def draw_pose(
    joints: Any,
    skeleton: Skeleton,
    *,
    azimuth: float = 0.0,
    elevation: float = 8.0,
    truth: Any | None = None,
    size: tuple[int, int] = (HEIGHT, HEIGHT),
    scene: Scene | None = None,
) -> Image:
    """Draw a pose, the light from above; limbs farther away are paler.

    Args:
        joints: (K, 3); a joint that is not finite is missing, and so are its limbs.
        skeleton: the joints' names and limbs.
        azimuth, elevation: where it is looked at from, in degrees; 0 and 0 is the camera's own view.
        truth: (K, 3), drawn in grey at the same place.
        size: (H, W) in pixels.
        scene: what part of space is shown; default all joints.

    Returns:
        RGB uint8 (H, W, 3).

    Raises:
        ValueError: the joints do not fit the skeleton, or the size is below 1.
    """
    if min(size) < 1:
        raise ValueError(f"size: expected (H, W) of at least 1, got {tuple(size)}")
    poses = [_pose("joints", joints, skeleton)] + ([] if truth is None else [_pose("truth", truth, skeleton)])
    scene = scene or _scene(poses)
    solids = _solids(poses[0], skeleton, scene.radius * _SLENDER)
    for pose in poses[1:]:
        solids += _solids(pose, skeleton, 0.7 * scene.radius * _SLENDER, TRUTH)
    return _space.render(solids, scene, azimuth=azimuth, elevation=elevation, size=size)


def views(
    joints: Any,
    skeleton: Skeleton,
    *,
    names: Sequence[str] = tuple(VIEWS),
    truth: Any | None = None,
    size: tuple[int, int] = (HEIGHT, HEIGHT),
) -> list[Image]:
    """Draw a pose from each of the named sides ("front", "side", "top"); arguments as :func:`draw_pose`."""
    for name in names:
        _checks.choice("names", name, tuple(VIEWS))
    return [
        draw_pose(joints, skeleton, azimuth=VIEWS[name][0], elevation=VIEWS[name][1], truth=truth, size=size)
        for name in names
    ]


def turn(
    poses: Any,
    skeleton: Skeleton,
    frames: int = FRAMES,
    *,
    elevation: float = 12.0,
    truth: Any | None = None,
    size: tuple[int, int] = (HEIGHT, HEIGHT),
) -> Iterator[Image]:
    """Draw a pose, or the poses of a motion, while the eye goes once round to the picture's right.

    Args:
        poses: (K, 3), or (T, K, 3): the frames then run through them.
        skeleton, elevation, size: as :func:`draw_pose`.
        frames: pictures of the whole turn.
        truth: of the shape of ``poses``, in grey.

    Returns:
        RGB uint8 (H, W, 3) pictures, drawn one by one; all show the same part of space.

    Raises:
        ValueError: the poses do not fit the skeleton, there is none, or less than one frame.
    """
    shown, true = _motion("poses", poses), None if truth is None else _motion("truth", truth)
    if frames < 1 or not len(shown):
        raise ValueError(f"turn: expected at least one pose and one frame, got {len(shown)} and {frames}")
    if true is not None and true.shape != shown.shape:
        raise ValueError(f"truth: expected the shape of the poses {shown.shape}, got {true.shape}")
    scene = _scene([_pose("poses", pose, skeleton) for pose in (*shown, *(() if true is None else true))])

    def frame(index: int) -> Image:
        at = index * len(shown) // frames
        return draw_pose(
            shown[at],
            skeleton,
            azimuth=360 * index / frames,
            elevation=elevation,
            truth=None if true is None else true[at],
            size=size,
            scene=scene,
        )

    return map(frame, range(frames))


def overlay(photo: Any, keypoints: Any, skeleton: Skeleton, *, height: int = HEIGHT) -> Image:
    """Draw key points (K, 2) in pixels of a photo on a copy of it, scaled to a height (to a width if that is wider).

    Returns:
        RGB uint8, at most ``height`` high and a third wider than high.
    """
    image = as_image("photo", photo)
    factor = min(height / image.shape[0], 4 * height / (3 * image.shape[1]))
    size = (max(1, round(image.shape[0] * factor)), max(1, round(image.shape[1] * factor)))
    points = (as_array(keypoints).astype(np.float64) + 0.5) * (size[1] / image.shape[1], size[0] / image.shape[0]) - 0.5
    return draw_skeleton(fit(image, size), points, None, skeleton, name_missing=False)


def beside(
    photo: Any,
    keypoints: Any,
    joints: Any,
    skeleton: Skeleton,
    *,
    truth: Any | None = None,
    names: Sequence[str] = tuple(VIEWS),
    caption: str = "",
    height: int = HEIGHT,
) -> Image:
    """Draw a photograph with its key points, and beside it the pose in space from several sides.

    Args:
        photo: RGB uint8 (H, W, 3).
        keypoints: (K, 2) pixels of the photo.
        joints: (K, 3).
        skeleton: the joints' names and limbs.
        truth: (K, 3), drawn in grey.
        names: of the sides (``VIEWS``).
        caption: a line below.
        height: of a panel in pixels.

    Returns:
        RGB uint8.
    """
    picture = overlay(photo, keypoints, skeleton, height=height)
    size = (height, min(max(picture.shape[1], height), 4 * height // 3))
    row = [picture, *views(joints, skeleton, names=names, truth=truth, size=size)]
    return panels([row], ("photo", *names), captions=[caption] if caption else None)


def turning(
    photo: Any, keypoints: Any, joints: Any, skeleton: Skeleton, *, frames: int = FRAMES, height: int = HEIGHT
) -> list[Image]:
    """Return the frames of a photograph with its key points beside the turning pose; arguments as :func:`beside`."""
    picture = overlay(photo, keypoints, skeleton, height=height)
    turned = turn(joints, skeleton, frames, size=(height, height))
    return sequences.frames([[picture, view] for view in turned], height=height)


def turning_gif(path: str | Path, film: Sequence[Any], skeleton: Skeleton, *, seconds: float = 4.8) -> Path:
    """Write the frames of a turn as an endless GIF that takes ``seconds``, at most; return the path."""
    colours = np.array(limb_colours(skeleton), np.float64)
    shades = np.concatenate([*(colours * shade for shade in _SHADES), colours + 0.25 * (255 - colours)])
    keep = [WHITE, *((round(red), round(green), round(blue)) for red, green, blue in shades.tolist())]
    return sequences.save_gif(path, film, fps=min(max(len(film) / seconds, 1.0), 50.0), keep=keep)


# ------------------------------------------------------------------------------------------------------------- shapes


def _motion(argument: str, poses: Any) -> np.ndarray:
    """Return poses (T, K, 3) of one or several."""
    array = as_array(poses).astype(np.float64)
    if array.ndim not in (2, 3):
        raise ValueError(f"{argument}: expected (K, 3) or (T, K, 3), got {array.shape}")
    return array.reshape(-1, *array.shape[-2:])


def _pose(argument: str, joints: Any, skeleton: Skeleton) -> np.ndarray:
    """Return checked joints (K, 3) float64; one that is not finite is NaN."""
    points = as_array(joints).astype(np.float64)
    if points.shape != (len(skeleton), 3):
        raise ValueError(f"{argument}: expected ({len(skeleton)}, 3) for skeleton {skeleton.name}, got {points.shape}")
    return np.where(np.isfinite(points).all(1, keepdims=True), points, np.nan)


def _scene(poses: Sequence[np.ndarray]) -> Scene:
    points = np.concatenate(poses)
    return Scene.around(points[np.isfinite(points).all(1)])


def _solids(pose: np.ndarray, skeleton: Skeleton, radius: float, colour: Colour | None = None) -> list[Solid]:
    """Return the limbs, joints and head of a pose, in their own colours or in one."""
    known = np.isfinite(pose).all(1)
    solids = []
    for (a, b), own in zip(skeleton.limbs, limb_colours(skeleton), strict=True):
        if known[a] and known[b]:
            solids.append(Solid(pose[a], pose[b], radius, colour or own))
            if skeleton.joints[b] == "head_top" and colour is None:  # a grey head would hide the other
                solids.append(_head(pose[a], pose[b], radius, own))
    for joint in np.flatnonzero(known):
        solids.append(Solid(pose[joint], pose[joint], 1.35 * radius, colour or joint_colour(skeleton, int(joint))))
    return solids


def _head(neck: np.ndarray, top: np.ndarray, radius: float, colour: Colour) -> Solid:
    """Return a ball between the neck and the top of the head; of limbs of ``radius``, at most six times as thick."""
    middle = neck + 0.6 * (top - neck)
    return Solid(middle, middle, min(0.38 * float(np.linalg.norm(top - neck)), 6 * radius), colour)


# --------------------------------------------------------------------------------------------------------- descriptor

_CHANNELS = (("xᵢ − xⱼ", "yᵢ − yⱼ", "zᵢ − zⱼ"), ("(xᵢ − xⱼ)²", "(yᵢ − yⱼ)²", "(zᵢ − zⱼ)²"))
_DIFFERENCE: tuple[Colour, ...] = ((28, 72, 150), (112, 164, 214), (247, 247, 247), (232, 138, 104), (160, 28, 38))
_SQUARE: tuple[Colour, ...] = ((250, 249, 252), (196, 190, 222), (128, 110, 178), (62, 22, 110))


def descriptor_image(descriptor: Any, skeleton: Skeleton, *, cell: int = 14) -> Image:
    """Draw the pairwise descriptor of a pose: differences in blue and red about white, their squares in one colour.

    Args:
        descriptor: (6, P, P) of ``ops.pairwise_descriptor``: dx, dy, dz of joint i (row) and j (column), then the
            squares; tensor or array. NaN is grey.
        skeleton: names the P joints.
        cell: pixels of one pair.

    Returns:
        RGB uint8; each of the two kinds has one scale for its three channels, written below.

    Raises:
        ValueError: another shape.
    """
    values = as_array(descriptor).astype(np.float64)
    if values.shape != (6, len(skeleton), len(skeleton)):
        raise ValueError(
            f"descriptor: expected (6, {len(skeleton)}, {len(skeleton)}) for skeleton {skeleton.name}, "
            f"got {values.shape}"
        )
    names = [joint.replace("_", " ") for joint in skeleton.joints]
    pixels = max(9, min(cell - 2, 14))
    room = max(text_mask(name, pixels).shape[1] for name in names) + 12
    side, line = cell * len(skeleton), 2 * pixels
    canvas = np.full((2 * (side + line) + room, room + 3 * (side + cell) + 6 * pixels, 3), WHITE, np.uint8)
    for index, (signed, colours) in enumerate(((True, _DIFFERENCE), (False, _SQUARE))):
        top, part = line + index * (side + line), values[3 * index : 3 * index + 3]
        highest = float(np.abs(part[np.isfinite(part)]).max(initial=0.0)) or 1.0
        for column, channel in enumerate(part):
            left = room + column * (side + cell)
            canvas[top : top + side, left : left + side] = _cells(channel / highest, signed, colours, cell)
            put_text(canvas, _CHANNELS[index][column], left, top - pixels // 2, pixels, INK, bold=True)
            if index:
                _below(canvas, names, left, top + side + 4, cell, pixels)
        _beside(canvas, names, room - 6, top, cell, pixels)
        ends = (f"{highest:.2g}", f"−{highest:.2g}" if signed else "0")
        _scale(canvas, colours, ends, (room + 3 * (side + cell), top, side), pixels)
    return canvas


def _cells(values: np.ndarray, signed: bool, colours: Sequence[Colour], cell: int) -> Image:
    """Return a channel (P, P) in [-1, 1] or [0, 1] as an image of ``cell`` pixels per value with lines between."""
    levels = (values + 1) / 2 if signed else values
    painted = np.where(np.isfinite(levels)[..., None], _paint(np.nan_to_num(levels), colours), np.uint8(170))
    large = painted.repeat(cell, 0).repeat(cell, 1)
    large[::cell], large[:, ::cell] = WHITE, WHITE
    return large


def _paint(levels: np.ndarray, colours: Sequence[Colour]) -> np.ndarray:
    """Return values in [0, 1] as RGB uint8 (..., 3) between colours at equal steps."""
    at = np.linspace(0, 1, len(colours))
    channels = [np.interp(levels, at, channel) for channel in np.array(colours, np.float64).T]
    return np.rint(np.stack(channels, -1)).astype(np.uint8)


def _beside(canvas: Image, names: Sequence[str], right: int, top: int, cell: int, pixels: int) -> None:
    """Write the joints' names at the left of their rows."""
    for index, name in enumerate(names):
        baseline = top + index * cell + (cell + pixels) // 2 - 1
        put_text(canvas, name, right - text_mask(name, pixels).shape[1], baseline, pixels, INK)


def _below(canvas: Image, names: Sequence[str], left: int, top: int, cell: int, pixels: int) -> None:
    """Write the joints' names downwards under their columns."""
    for index, name in enumerate(names):
        mask = np.rot90(text_mask(name, pixels), -1)
        blend(canvas, mask, left + index * cell + (cell - mask.shape[1]) // 2, top, INK)


def _scale(
    canvas: Image, colours: Sequence[Colour], ends: tuple[str, str], place: tuple[int, int, int], pixels: int
) -> None:
    """Draw what the colours mean at ``place`` (left, top, height): a bar with the texts of its upper and lower end."""
    left, top, side = place
    canvas[top + 1 : top + side, left : left + pixels] = _paint(np.linspace(1, 0, side - 1), colours)[:, None]
    for text, baseline in zip(ends, (top + pixels, top + side - 1), strict=True):
        put_text(canvas, text, left + pixels + 5, baseline, pixels, INK)
