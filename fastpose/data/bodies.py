"""Shaded bodies drawn from 3D joints: rays against round cones, random clothes, light and background.

Camera frame: x right, y down, z away from the camera, millimetres. Pixel centres lie at integers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastpose import skeletons
from fastpose.data import backgrounds
from fastpose.data.body_parts import Build, Part, depths, parts, random_build
from fastpose.data.person import OCCLUDED, VISIBLE

VERSION = 1
"""Goes up whenever the same numbers give another picture."""
# Rays per pixel and axis.
_FINE = 2
# Nothing nearer than this is drawn, millimetres.
_NEAREST = 50.0


class Rendering(NamedTuple):
    """What ``render`` returns.

    image: uint8 (H, W, 3) RGB.
    depth: float32 (H, W), millimetres to the body's surface along z, infinity where there is none.
    visibility: uint8 (16,), 2 seen, 1 hidden behind another part of the body or outside the picture.
    """

    image: np.ndarray
    depth: np.ndarray
    visibility: np.ndarray


class _Cones(NamedTuple):
    """What a ray (x, y, 1) needs to know about P parts, float32 (P, ...); inner products are the part's own."""

    to_start: np.ndarray  # (P, 3), -metric @ start: dot the ray
    along: np.ndarray  # (P, 3), metric @ axis: dot the ray
    metric: np.ndarray  # (P, 3, 3)
    slope: np.ndarray  # (P,), |axis|^2 - (r0 - r1)^2; 0 where one sphere holds the other
    skew: np.ndarray  # (P,), (r0 - r1) r0 + axis . start
    body: np.ndarray  # (P,), constant of the cone's quadratic
    first: np.ndarray  # (P,), |start|^2 - r0^2
    second: np.ndarray  # (P,), |end|^2 - r1^2


class _Look(NamedTuple):
    """A person's build and the colours of what he or she is made of, by material."""

    build: Build
    paints: dict[str, np.ndarray]
    patterned: dict[str, tuple[np.ndarray, float, float]]


class _Frame(NamedTuple):
    """The rays of a box of fine pixels: columns' x (w,) and rows' y (h,) at z = 1, and where it begins (pixels)."""

    x: np.ndarray
    y: np.ndarray
    left: int
    top: int


def draw(joints: np.ndarray, intrinsics: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return a picture of a shaded body, uint8 (H, W, 3) RGB; arguments and errors as ``render``."""
    return render(joints, intrinsics, size, rng).image


def render(
    joints: np.ndarray,
    intrinsics: np.ndarray,
    size: tuple[int, int],
    rng: np.random.Generator,
    *,
    background: np.ndarray | None = None,
    effects: bool = True,
) -> Rendering:
    """Draw a body in random clothes under a random light before a random background.

    Args:
        joints: (16, 3), MPII order, camera frame, millimetres.
        intrinsics: (3, 3), pinhole matrix in pixels of the picture.
        size: (H, W) of the picture.
        rng: the only source of randomness.
        background: uint8 (H, W, 3) to draw on instead of a random one.
        effects: whether to add a camera's blur, brightness and noise.

    Raises:
        ValueError: wrong shapes, values that are not finite, a body without size, or behind the camera.
    """
    joints, intrinsics = _checked(joints, intrinsics)
    look = _random_look(rng)
    solid = parts(joints, look.build)
    cones = _cones(solid)
    image = backgrounds.background(size, rng) if background is None else np.array(background)
    if image.shape != (*size, 3) or image.dtype != np.uint8:
        raise ValueError(f"background: expected uint8 {(*size, 3)}, got {image.dtype} {image.shape}")
    depth = np.full(size, np.inf, np.float32)
    boxes = _extents(solid, intrinsics)
    frame = _frame(boxes, intrinsics, size)
    if frame is not None:
        nearest, owner = _trace(cones, boxes, frame)
        seen = owner >= 0
        colours = _shade(solid, look, nearest, owner, frame, rng)
        _compose(image, depth, nearest, seen, colours, frame)
    if effects:
        image = backgrounds.photographed(image, rng)
    return Rendering(image, depth, _visibility(joints, intrinsics, size, look.build, cones))


def visibility(
    joints: np.ndarray, intrinsics: np.ndarray, size: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """Return the visibility that ``render`` with the same arguments gives, uint8 (16,), without drawing."""
    joints, intrinsics = _checked(joints, intrinsics)
    build = _random_look(rng).build
    return _visibility(joints, intrinsics, size, build, _cones(parts(joints, build)))


def _checked(joints: np.ndarray, intrinsics: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the arguments as float64, or raise the sentence that says what is wrong."""
    joints, intrinsics = np.asarray(joints, np.float64), np.asarray(intrinsics, np.float64)
    if joints.shape != (len(skeletons.MPII), 3) or intrinsics.shape != (3, 3):
        raise ValueError(
            f"joints: expected (16, 3) in MPII order and intrinsics (3, 3), got {joints.shape} and {intrinsics.shape}"
        )
    if not (np.isfinite(joints).all() and np.isfinite(intrinsics).all()):
        raise ValueError("joints: expected finite millimetres and intrinsics, found NaN or infinity")
    if not (intrinsics[0, 0] > 0 and intrinsics[1, 1] > 0):
        raise ValueError(f"intrinsics: expected positive focal lengths, got {np.diag(intrinsics)[:2].tolist()}")
    if joints[:, 2].min() < 3 * _NEAREST:
        raise ValueError(
            f"joints: expected the whole body before the camera (z from {3 * _NEAREST:g} mm), found z = "
            f"{joints[:, 2].min():.0f} mm; move the camera away"
        )
    return joints, intrinsics


def _random_look(rng: np.random.Generator) -> _Look:
    """Draw build, skin, hair and clothes; the same amount of ``rng`` whatever comes out."""
    build = random_build(rng)
    tone = rng.random()  # from pale to dark along one line through measured skin colours
    skin = (1 - tone) * np.array([236, 196, 172]) + tone * np.array([82, 52, 40]) + rng.normal(0, 6, 3)
    dark = rng.random()
    hair = np.array([[28, 22, 20], [74, 48, 30], [150, 110, 64], [168, 164, 160], [120, 54, 26]])[int(dark * 4.999)]
    names = ("shirt", "trousers", "shoe", "sock")
    paints = {name: backgrounds.colour(rng) for name in names} | {"skin": skin, "hair": hair * rng.uniform(0.6, 1.2)}
    paints["eye"] = np.array([38.0, 30.0, 28.0])
    patterned = {}
    for name in ("shirt", "trousers"):
        second, period, share = backgrounds.colour(rng), rng.uniform(35, 160), rng.uniform(0.2, 0.6)
        if rng.random() < (0.35 if name == "shirt" else 0.1):
            patterned[name] = (second, float(period), float(share))
    return _Look(build, {name: np.clip(paint, 0, 255) for name, paint in paints.items()}, patterned)


def _cones(solid: list[Part]) -> _Cones:
    """Return the constants of the quadratics of all parts (sphere ends: |s(x, y, 1) - c|^2 = r^2 in their metric)."""
    start, end = np.stack([part.start for part in solid]), np.stack([part.end for part in solid])
    radii, metric = np.array([part.radii for part in solid]), np.stack([part.metric for part in solid])
    axis, shrink = end - start, radii[:, 0] - radii[:, 1]
    metric_start, metric_axis = np.einsum("pij,pj->pi", metric, start), np.einsum("pij,pj->pi", metric, axis)
    length = (axis * metric_axis).sum(1)
    beside, far = (axis * metric_start).sum(1), (start * metric_start).sum(1)
    slope = np.maximum(length - shrink**2, 0.0)
    slope = np.where(slope > 1e-3 * length, slope, 0.0)
    skew = shrink * radii[:, 0] + beside
    body = slope * far - beside**2 - 2 * beside * shrink * radii[:, 0] - length * radii[:, 0] ** 2
    last = far + 2 * beside + length - radii[:, 1] ** 2
    constants = (-metric_start, metric_axis, metric, slope, skew, body, far - radii[:, 0] ** 2, last)
    return _Cones(*(np.ascontiguousarray(values, np.float32) for values in constants))


def _hits(to_start: np.ndarray, along: np.ndarray, square: np.ndarray, cone: tuple[np.ndarray, ...]) -> np.ndarray:
    """Return the depth at which rays meet round cones, infinity where they do not.

    Args:
        to_start: -metric(ray, start), any shape.
        along: metric(ray, axis).
        square: metric(ray, ray).
        cone: slope, skew, body, first, second of ``_Cones``, which broadcast.
    """
    slope, skew, body, first, second = cone
    infinity = np.float32(np.inf)
    nearest = np.full(np.broadcast(to_start, slope).shape, infinity, np.float32)
    for to_end, constant in ((to_start, first), (to_start - along, second)):
        inside = to_end * to_end - square * constant
        depth = (-to_end - np.sqrt(np.maximum(inside, 0))) / square
        np.minimum(nearest, depth, out=nearest, where=inside > 0)
    # Between the ends: t solves a t^2 + 2 b t + c = 0 on the mantle, and counts where its foot is on the axis.
    a = slope * square - along * along
    b = slope * to_start + along * skew
    inside = b * b - a * body
    depth = (-b - np.sqrt(np.maximum(inside, 0))) / np.where(a == 0, np.float32(1e-12), a)
    foot = depth * along - skew
    on_mantle = (inside > 0) & (foot > 0) & (foot < slope)
    np.minimum(nearest, depth, out=nearest, where=on_mantle)
    return nearest


def _extents(solid: list[Part], intrinsics: np.ndarray) -> np.ndarray:
    """Return boxes (left, top, right, bottom) in pixels that hold the parts' pictures, (P, 4)."""
    ends = np.stack([np.stack([part.start for part in solid]), np.stack([part.end for part in solid])])  # (2, P, 3)
    radii = np.array([part.radii for part in solid]).T
    flat = ends[..., :2] / np.maximum(ends[..., 2:], _NEAREST)
    reach = radii / np.sqrt(np.maximum(ends[..., 2] ** 2 - radii**2, _NEAREST**2))
    # The outline of a sphere beside the optical axis is an ellipse, longer by 1 / cos of the angle to it.
    reach = (reach * np.sqrt(1 + (flat**2).sum(2)) * 1.05)[..., None]
    focal, centre = np.diag(intrinsics)[:2], intrinsics[:2, 2]
    low, high = (flat - reach).min(0) * focal + centre, (flat + reach).max(0) * focal + centre
    return np.concatenate([low, high], axis=1)


def _frame(boxes: np.ndarray, intrinsics: np.ndarray, size: tuple[int, int]) -> _Frame | None:
    """Return the rays of the parts' common box within the picture; None where it lies outside."""
    left, top = (max(0, int(np.floor(value)) - 1) for value in boxes[:, :2].min(0))
    right = min(size[1], int(np.ceil(boxes[:, 2].max())) + 2)
    bottom = min(size[0], int(np.ceil(boxes[:, 3].max())) + 2)
    if right <= left or bottom <= top:
        return None

    def rays(start: int, stop: int, axis: int) -> np.ndarray:
        pixels = start - 0.5 + (np.arange((stop - start) * _FINE) + 0.5) / _FINE
        return ((pixels - intrinsics[axis, 2]) / intrinsics[axis, axis]).astype(np.float32)

    return _Frame(rays(left, right, 0), rays(top, bottom, 1), left, top)


def _trace(cones: _Cones, boxes: np.ndarray, frame: _Frame) -> tuple[np.ndarray, np.ndarray]:
    """Return depth float32 (h, w) and number of the part int16 (h, w), -1 for none, of every fine pixel."""
    shape = (len(frame.y), len(frame.x))
    nearest, owner = np.full(shape, np.inf, np.float32), np.full(shape, -1, np.int16)
    corners = boxes - (frame.left, frame.top, frame.left - 1, frame.top - 1)
    fine = np.maximum(0, corners * _FINE + (0, 0, 1, 1)).astype(int)
    for index, (left, top, right, bottom) in enumerate(fine.tolist()):
        columns, rows = slice(left, right), slice(top, bottom)
        x, y = frame.x[columns], frame.y[rows, None]
        if not x.size or not y.size:
            continue
        to_start, along, metric = cones.to_start[index], cones.along[index], cones.metric[index]
        square = x * (metric[0, 0] * x + 2 * metric[0, 2]) + y * (metric[1, 1] * y + 2 * metric[1, 2]) + metric[2, 2]
        if metric[0, 1]:
            square += (2 * metric[0, 1] * y) * x
        depth = _hits(
            to_start[0] * x + (to_start[1] * y + to_start[2]),
            along[0] * x + (along[1] * y + along[2]),
            square,
            tuple(table[index] for table in cones[3:]),
        )
        closer = depth < nearest[rows, columns]
        np.copyto(nearest[rows, columns], depth, where=closer)
        np.copyto(owner[rows, columns], np.int16(index), where=closer)
    return nearest, owner


def _shade(
    solid: list[Part], look: _Look, nearest: np.ndarray, owner: np.ndarray, frame: _Frame, rng: np.random.Generator
) -> np.ndarray:
    """Return the colours of the fine pixels where there is a body, float32 (N, 3) of 0 to 255 and beyond."""
    rows, columns = np.nonzero(owner >= 0)
    which, depth = owner[rows, columns], nearest[rows, columns]
    ray = np.stack([frame.x[columns], frame.y[rows], np.ones(len(rows), np.float32)])  # (3, N)
    point = ray * depth
    normal, share = _surface(solid, point, which)
    albedo = _albedo(solid, look, point, share, which)
    folds = 1 + rng.uniform(0.0, 0.09) * backgrounds.smooth(owner.shape, int(rng.integers(8, 26)), 1, rng)
    to_eye = -ray / np.sqrt((ray * ray).sum(0))
    light = np.array([rng.uniform(-1, 1), rng.uniform(-1.2, 0.1), rng.uniform(-1.2, 0.15)], np.float32)
    light /= np.linalg.norm(light)
    ambient, strength, shine = rng.uniform(0.4, 0.75), rng.uniform(0.45, 0.95), rng.uniform(0, 0.18)
    warm = 1 + rng.uniform(-0.08, 0.08, 3).astype(np.float32)
    lit = np.maximum(light @ normal, 0)
    # The sky is brighter than the floor, and what turns away from the eye gathers less light.
    sky = ambient * (0.8 - 0.25 * normal[1]) * (0.6 + 0.4 * np.maximum((normal * to_eye).sum(0), 0))
    half = light[:, None] + to_eye
    gloss = np.maximum((normal * half).sum(0) / np.sqrt((half * half).sum(0) + 1e-9), 0) ** 24
    brightness = (sky + strength * lit) * folds[rows, columns]
    shaded: np.ndarray = albedo * (brightness * warm[:, None]) + 255 * shine * gloss  # (3, N)
    return shaded.T


def _surface(solid: list[Part], point: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return unit normals (3, N) and how far along its part each point lies, 0 to 1 (N,)."""
    start = np.stack([part.start for part in solid])
    axis = np.stack([part.end for part in solid]) - start
    metric = np.stack([part.metric for part in solid])
    radii = np.array([part.radii for part in solid])
    shrink = radii[:, 0] - radii[:, 1]
    metric_axis = np.einsum("pij,pj->pi", metric, axis)
    slope = np.maximum((axis * metric_axis).sum(1) - shrink**2, 1.0)
    table = np.concatenate(
        [start, axis, metric_axis, metric.reshape(-1, 9)[:, [0, 1, 2, 4, 5, 8]], (shrink * radii[:, 0])[:, None]]
        + [slope[:, None]],
        axis=1,
    )
    of = table.T.astype(np.float32)[:, which]  # (17, N)
    offset = point - of[0:3]
    share = np.clip(((offset * of[6:9]).sum(0) - of[15]) / of[16], 0, 1)
    offset = offset - share * of[3:6]
    xx, xy, xz, yy, yz, zz = of[9:15]
    x, y, z = offset
    normal = np.stack([xx * x + xy * y + xz * z, xy * x + yy * y + yz * z, xz * x + yz * y + zz * z])
    return normal / np.sqrt((normal * normal).sum(0) + 1e-9), share


def _albedo(solid: list[Part], look: _Look, point: np.ndarray, share: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Return the colour of each point's material, float32 (3, N)."""
    names = list(look.paints)
    near = np.array([names.index(part.material) for part in solid])
    far = np.array([names.index(part.beyond) for part in solid])
    split = np.array([part.split for part in solid], np.float32)
    material = np.where(share < split[which], near[which], far[which])
    albedo = np.stack([look.paints[name] for name in names]).T.astype(np.float32)[:, material]
    grain = np.stack([part.grain for part in solid]).T.astype(np.float32)
    for name, (paint, period, width) in look.patterned.items():
        chosen = np.flatnonzero(material == names.index(name))
        place = (point[:, chosen] * grain[:, which[chosen]]).sum(0) / np.float32(period)
        chosen = chosen[place - np.floor(place) < width]
        albedo[:, chosen] = paint.astype(np.float32)[:, None]
    return albedo


def _compose(
    image: np.ndarray, depth: np.ndarray, nearest: np.ndarray, seen: np.ndarray, colours: np.ndarray, frame: _Frame
) -> None:
    """Lay the body's fine pixels, averaged, over a picture, and the nearest of them into its depth map."""
    import cv2

    fine = np.zeros((*seen.shape, 4), np.float32)
    fine[seen, :3], fine[seen, 3] = np.clip(colours, 0, 255), 1
    height, width = seen.shape[0] // _FINE, seen.shape[1] // _FINE
    coarse = cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA)
    box = (slice(frame.top, frame.top + height), slice(frame.left, frame.left + width))
    image[box] = np.rint(image[box] * (1 - coarse[..., 3:]) + coarse[..., :3]).astype(np.uint8)
    depth[box] = nearest.reshape(height, _FINE, width, _FINE).min((1, 3))


def _visibility(
    joints: np.ndarray, intrinsics: np.ndarray, size: tuple[int, int], build: Build, cones: _Cones
) -> np.ndarray:
    """Return which joints lie no deeper under the first surface on their ray than flesh explains."""
    rays = (joints / joints[:, 2:]).astype(np.float32)  # (16, 3)
    turned = np.einsum("pij,kj->pki", cones.metric, rays)
    constants = tuple(table[:, None] for table in cones[3:])
    surface = _hits(cones.to_start @ rays.T, cones.along @ rays.T, (turned * rays).sum(2), constants).min(0)
    pixels = rays[:, :2] * np.diag(intrinsics)[:2] + intrinsics[:2, 2]
    inside = ((pixels >= -0.5) & (pixels < np.array(size[::-1]) - 0.5)).all(1)
    shown = inside & (joints[:, 2] - surface <= depths(joints, build))
    return np.where(shown, VISIBLE, OCCLUDED).astype(np.uint8)
