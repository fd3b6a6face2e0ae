"""Random backgrounds without a photograph, and what a camera adds to a drawn picture."""

from __future__ import annotations

import functools

import numpy as np

# Side of the stored noise that every picture takes its piece of.
_NOISE_SIDE = 512


@functools.lru_cache(maxsize=1)
def _noise() -> np.ndarray:
    """Return float32 (S, S, 3) of normal noise, the same in every process."""
    rng = np.random.Generator(np.random.Philox(20))
    return rng.standard_normal((_NOISE_SIDE, _NOISE_SIDE, 3), dtype=np.float32)


def noise(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return a random piece of normal noise, float32 (H, W, 3)."""
    top, left = (int(start) for start in rng.integers(0, _NOISE_SIDE, 2))
    table = _noise()
    if top + size[0] <= _NOISE_SIDE and left + size[1] <= _NOISE_SIDE:
        return table[top : top + size[0], left : left + size[1]]
    rows = np.arange(top, top + size[0]) % _NOISE_SIDE
    columns = np.arange(left, left + size[1]) % _NOISE_SIDE
    return table[rows[:, None], columns]


def smooth(size: tuple[int, int], cells: int, channels: int, rng: np.random.Generator) -> np.ndarray:
    """Return normal noise of ``cells`` x ``cells`` bumps, float32 (H, W) or (H, W, channels)."""
    import cv2

    coarse = rng.standard_normal((cells, cells, channels), dtype=np.float32)
    grown: np.ndarray = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_LINEAR)
    return grown


def colour(rng: np.random.Generator) -> np.ndarray:
    """Return a random colour, float64 (3,) of 0 to 255: dull ones are more frequent than bright ones."""
    grey, tint, strength = rng.uniform(25, 245), rng.uniform(-1, 1, 3), rng.beta(1, 2)
    return np.asarray(np.clip(grey + 150 * strength * tint, 0, 255))


def background(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return a random background, uint8 (H, W, 3): a wall or a gradient, floor, things, texture, blur."""
    import cv2

    picture = _gradient(size, rng)
    kind = rng.random()
    if kind < 0.6:
        _floor(picture, rng)
    for _ in range(int(rng.integers(0, 9)) if kind < 0.85 else 0):
        _thing(picture, rng)
    if rng.random() < 0.25:
        _bars(picture, rng)
    picture = _texture(picture, size, rng)
    if rng.random() < 0.6:
        picture = cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.4, 0.012 * max(size) + 0.5)))
    return picture


def _gradient(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Four corners of near colours, and what lies between."""
    import cv2

    base, spread = colour(rng), rng.uniform(0, 45)
    corners = np.clip(base + spread * rng.standard_normal((2, 2, 3)), 0, 255).astype(np.float32)
    return cv2.resize(corners, size[::-1], interpolation=cv2.INTER_LINEAR).astype(np.uint8)


def _floor(picture: np.ndarray, rng: np.random.Generator) -> None:
    """Paint another colour below a line near the horizontal; sometimes tiles on it."""
    import cv2

    height, width = picture.shape[:2]
    left = rng.uniform(0.35, 0.95) * height
    right = left + rng.uniform(-0.12, 0.12) * width
    corners = np.array([(0, left), (width, right), (width, height), (0, height)])
    cv2.fillPoly(picture, [np.rint(corners).astype(np.int32)], colour(rng).tolist(), lineType=cv2.LINE_AA)
    if rng.random() < 0.3:
        vanish, line = (int(rng.uniform(0, width)), int(min(left, right))), colour(rng).tolist()
        for foot in np.linspace(-2 * width, 3 * width, int(rng.integers(8, 30))):
            cv2.line(picture, vanish, (int(foot), height), line, 1, cv2.LINE_AA)


def _thing(picture: np.ndarray, rng: np.random.Generator) -> None:
    """Paint a box, a disc or a blob of three to seven corners."""
    import cv2

    height, width = picture.shape[:2]
    middle = rng.uniform(0, 1, 2) * (width, height)
    extent = rng.uniform(0.02, 0.35, 2) * max(height, width)
    paint, kind = colour(rng).tolist(), rng.random()
    if kind < 0.2:
        where = (middle.tolist(), (2 * extent).tolist(), float(rng.uniform(0, 180)))
        cv2.ellipse(picture, where, paint, -1, cv2.LINE_AA)
        return
    count = 4 if kind < 0.75 else int(rng.integers(3, 8))
    turn = np.pi / 4 if kind < 0.55 else rng.uniform(0, np.pi)
    angles = turn + np.linspace(0, 2 * np.pi, count, endpoint=False)
    corners = middle + extent * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    cv2.fillPoly(picture, [np.rint(corners).astype(np.int32)], paint, lineType=cv2.LINE_AA)


def _bars(picture: np.ndarray, rng: np.random.Generator) -> None:
    """Paint parallel bars: a fence, shelves, window frames."""
    import cv2

    height, width = picture.shape[:2]
    paint, thickness = colour(rng).tolist(), int(rng.integers(1, max(2, width // 24)))
    upright = rng.random() < 0.6
    for at in np.arange(rng.uniform(0, 20), width if upright else height, rng.uniform(0.05, 0.25) * width):
        first, last = ((int(at), 0), (int(at), height)) if upright else ((0, int(at)), (width, int(at)))
        cv2.line(picture, first, last, paint, thickness, cv2.LINE_AA)


def _texture(picture: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Add noise at three scales, alike in all colours."""
    strengths = (rng.uniform(0, 1, 3) ** 2 * (28, 18, 12)).astype(np.float32)
    rough = strengths[0] * smooth(size, int(rng.integers(3, 9)), 1, rng)
    rough += strengths[1] * smooth(size, int(rng.integers(12, 40)), 1, rng)
    rough += strengths[2] * noise(size, rng)[..., 0]
    return add(picture, rough)


def add(picture: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Return a picture with float32 (H, W), or (H, W, 3), added to it, uint8 (H, W, 3) from 0 to 255."""
    import cv2

    if change.ndim == 2:
        change = cv2.cvtColor(change, cv2.COLOR_GRAY2RGB)
    return np.asarray(cv2.add(picture, change, dtype=cv2.CV_8U), np.uint8)


def photographed(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a picture with a camera's blur, brightness, contrast, white balance and noise, uint8 (H, W, 3)."""
    import cv2

    draws = rng.random(4)
    if draws[0] < 0.4:
        picture = cv2.GaussianBlur(picture, (0, 0), 0.3 + 0.7 * draws[1])
    levels = np.arange(256)[:, None] / 255
    gamma, gain = rng.uniform(0.75, 1.3), rng.uniform(0.8, 1.15) * rng.uniform(0.94, 1.06, 3)
    table = np.clip(255 * gain * levels**gamma + rng.uniform(-12, 12), 0, 255).astype(np.uint8)  # (256, 3)
    picture = cv2.LUT(picture, table[None])
    if draws[2] < 0.6:
        picture = add(picture, np.float32(1 + 6 * draws[3]) * noise(picture.shape[:2], rng))
    return picture
