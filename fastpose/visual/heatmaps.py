"""Heatmaps and attention maps over the image they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastpose.skeletons import Skeleton
from fastpose.visual._canvas import INK, WHITE, Image, as_array, as_image, fit, put_text, resize, shorten
from fastpose.visual.grids import grid


def overlay(image: Any, values: Any, *, top: float | None = None, strength: float = 0.85) -> Image:
    """Lay a map over a darkened grey copy of an image, coloured and opaque where it is high.

    Args:
        image: RGB uint8 (H, W, 3).
        values: (h, w), resized to the image; values below 0 and NaN count as 0.
        top: the value of full colour; default the map's greatest.
        strength: opacity at the top.

    Returns:
        RGB uint8 (H, W, 3).
    """
    import cv2

    canvas = as_image("image", image)
    plane = as_array(values).astype(np.float32)
    if plane.ndim != 2 or plane.size == 0:
        raise ValueError(f"values: expected a map (h, w), got {plane.shape}")
    plane = _finite(plane)
    highest = float(plane.max()) if top is None else float(top)
    level = np.clip(resize(plane / highest if highest > 0 else plane, (canvas.shape[0], canvas.shape[1])), 0, 1)
    grey = canvas @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    ground = 0.75 * (0.8 * grey[..., None] + 0.2 * canvas)
    # only the bright part of the colour map: its dark end would blacken the image round every peak
    shades = np.rint(90 + 165 * level).astype(np.uint8)
    colours = cv2.applyColorMap(shades, cv2.COLORMAP_INFERNO)[..., ::-1]
    opacity = strength * np.clip(1.7 * level - 0.1, 0, 1)[..., None]
    return np.rint(ground * (1 - opacity) + colours * opacity).astype(np.uint8)


def _finite(plane: np.ndarray) -> np.ndarray:
    """Return a map without NaN, infinities and values below 0, which all become 0."""
    return np.clip(np.nan_to_num(plane, nan=0.0, posinf=0.0, neginf=0.0), 0, None)


def heatmap_grid(image: Any, heatmaps: Any, skeleton: Skeleton, *, columns: int = 6, tile: int = 176) -> Image:
    """Show each joint's heatmap over the image, its name and peak value below; the image comes first.

    Args:
        image: RGB uint8 (H, W, 3), the crop that the heatmaps cover.
        heatmaps: (K, h, w), tensor or array; each plane is scaled to its own peak, or to half of the
            greatest peak where its own is lower, so that an empty plane does not look like a find.
            Peaks above a quarter of the greatest are marked.
        skeleton: joint names.
        columns: tiles in a row.
        tile: longer side of a tile in pixels.

    Returns:
        RGB uint8.
    """
    picture = _tile(as_image("image", image), tile)
    planes = as_array(heatmaps).astype(np.float32)
    if planes.ndim != 3 or len(planes) != len(skeleton):
        raise ValueError(f"heatmaps: expected ({len(skeleton)}, h, w) for skeleton {skeleton.name}, got {planes.shape}")
    peaks = [float(_finite(plane).max(initial=0.0)) for plane in planes]
    tiles, captions = [picture], ["image"]
    for joint, plane, peak in zip(skeleton.joints, planes, peaks, strict=True):
        shown = overlay(picture, plane, top=max(peak, 0.5 * max(peaks)))
        if peak > 0.25 * max(peaks):
            _mark_peak(shown, plane)
        tiles.append(shown)
        name = joint.replace("_", " ")
        captions.append(f"{name}  {peak:.2f}" if np.isfinite(plane).all() else f"{name}  not finite")
    return grid(tiles, columns, captions)


def attention_grid(
    image: Any,
    rows: Any,
    positions: Any,
    *,
    captions: Sequence[str] | None = None,
    columns: int = 4,
    tile: int = 256,
    heading: str = "",
    first: tuple[Any, str] | None = None,
) -> Image:
    """Show where each chosen position attends, the position marked.

    Args:
        image: RGB uint8 (H, W, 3) that the map covers.
        rows: (P, h, w) attention weights of P query positions.
        positions: (P, 2) cells (x, y) of the map, or (P,) flat indices y * w + x.
        captions: one line per position; default its cell and the greatest weight.
        columns: tiles in a row.
        tile: longer side of a tile in pixels.
        heading: a line above all.
        first: a picture, RGB uint8 (h, w, 3), and its caption, shown before the maps.

    Returns:
        RGB uint8; each map is scaled to its own greatest weight.
    """
    picture = _tile(as_image("image", image), tile)
    maps = as_array(rows).astype(np.float32)
    if maps.ndim != 3:
        raise ValueError(f"rows: expected (P, h, w), got {maps.shape}")
    cells = _cells(as_array(positions), maps.shape)
    tiles = []
    for plane, cell in zip(maps, cells, strict=True):
        shown = overlay(picture, plane)
        _mark(shown, cell, (maps.shape[1], maps.shape[2]))
        tiles.append(shown)
    if captions is None:
        peaks = np.nan_to_num(maps.reshape(len(maps), -1)).max(1)
        captions = [f"from ({x}, {y}), top {peak:.2g}" for (x, y), peak in zip(cells, peaks, strict=True)]
    if first is not None:
        tiles, captions = [_tile(as_image("first", first[0]), tile), *tiles], [first[1], *captions]
    return _headed(grid(tiles, columns, captions), heading)


def _headed(picture: Image, text: str) -> Image:
    """Return a picture with a line of bold text above it, or as it is without."""
    if not text:
        return picture
    pixels = 18
    ground = np.full((round(1.6 * pixels), picture.shape[1], 3), WHITE, np.uint8)
    put_text(ground, shorten(text, pixels, picture.shape[1] - 16), 8, round(1.25 * pixels), pixels, INK, bold=True)
    return np.concatenate([ground, picture])


def _tile(picture: Image, side: int) -> Image:
    scale = side / max(picture.shape[:2])
    return fit(picture, (max(1, round(picture.shape[0] * scale)), max(1, round(picture.shape[1] * scale))))


def _cells(positions: np.ndarray, shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return positions as cells (x, y); ``ValueError`` when one lies outside the map."""
    count, height, width = shape
    if positions.shape == (count,):
        positions = np.stack((positions % width, positions // width), axis=1)
    if positions.shape != (count, 2):
        raise ValueError(f"positions: expected ({count}, 2) cells (x, y) or ({count},) indices, got {positions.shape}")
    cells = [(int(x), int(y)) for x, y in positions]
    for x, y in cells:
        if not (0 <= x < width and 0 <= y < height):
            raise ValueError(f"positions: ({x}, {y}) lies outside the map of width {width} and height {height}")
    return cells


def _mark_peak(shown: Image, plane: np.ndarray) -> None:
    """Mark the cell of the greatest value by four ticks that leave the peak itself open."""
    import cv2

    y, x = np.unravel_index(int(_finite(plane).argmax()), plane.shape)
    centre = _centre((int(x), int(y)), plane.shape, shown)
    near, far = max(4, shown.shape[1] // 28), max(8, shown.shape[1] // 15)
    for colour, width in ((INK, 3), (WHITE, 1)):
        for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            ends = [(round(16 * (centre[0] + dx * r)), round(16 * (centre[1] + dy * r))) for r in (near, far)]
            cv2.line(shown, ends[0], ends[1], colour, width, cv2.LINE_AA, 4)


def _centre(cell: tuple[int, int], size: tuple[int, ...], shown: Image) -> tuple[float, float]:
    """Return a map cell's centre in the picture: cell c covers [c - 0.5, c + 0.5]."""
    x = (cell[0] + 0.5) * shown.shape[1] / size[1] - 0.5
    y = (cell[1] + 0.5) * shown.shape[0] / size[0] - 0.5
    return x, y


def _mark(shown: Image, cell: tuple[int, int], size: tuple[int, int]) -> None:
    """Mark a query position: a white ring with a dark rim."""
    import cv2

    x, y = _centre(cell, size, shown)
    centre, radius = (round(16 * x), round(16 * y)), 16 * max(4, shown.shape[1] // 36)
    cv2.circle(shown, centre, radius, INK, 4, cv2.LINE_AA, 4)
    cv2.circle(shown, centre, radius, WHITE, 2, cv2.LINE_AA, 4)
