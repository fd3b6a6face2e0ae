"""Pictures of pose transfer: poses and part maps as images, and rows of panels under common titles."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastpose.skeletons import OPENPOSE, Skeleton
from fastpose.visual._canvas import INK, WHITE, Colour, Image, as_array, as_image, fit, put_text, shorten, text_mask
from fastpose.visual.grids import caption_size
from fastpose.visual.skeletons import draw_skeleton

TITLES = ("source", "source pose", "target pose", "target", "generated")
"""The five panels in which pose transfer is published."""

_EDGE: Colour = (208, 211, 216)  # of panels as white as the ground
LEAST_HEIGHT = 192  # of a panel: images of 128 x 64 are shown enlarged


def pose_picture(
    keypoints: Any,
    visibility: Any | None,
    size: Sequence[int],
    *,
    image: Any | None = None,
    skeleton: Skeleton = OPENPOSE,
    least: int = LEAST_HEIGHT,
) -> Image:
    """Draw a pose on white, or on its image, large enough to be seen.

    Args:
        keypoints: (K, 2) pixels (x, y) of an image of ``size``.
        visibility: (K,), > 0 where the joint is known; None takes all.
        size: (H, W).
        image: RGB uint8 (H, W, 3) to draw on.
        skeleton: the joints' names and limbs.
        least: height in pixels that smaller images are enlarged to, so that limbs stay apart.

    Returns:
        RGB uint8, of ``size`` or enlarged with the aspect kept.
    """
    points = as_array(keypoints).astype(np.float64)
    factor = max(1.0, least / size[0])
    height, width = round(size[0] * factor), round(size[1] * factor)
    ground = np.full((size[0], size[1], 3), 255, np.uint8) if image is None else as_image("image", image)
    if ground.shape[:2] != (size[0], size[1]):
        raise ValueError(f"image: expected the size {tuple(size)} of the pose, got {ground.shape[:2]}")
    canvas = fit(ground, (height, width))
    return draw_skeleton(canvas, (points + 0.5) * factor - 0.5, visibility, skeleton, name_missing=False)


def part_picture(labels: Any, colours: Sequence[Colour] | None = None) -> Image:
    """Draw a map of parts, each in its colour, the background white.

    Args:
        labels: integers (H, W): 0 background, 1 to P the parts.
        colours: RGB of each part; default hues that neighbouring numbers do not share.

    Returns:
        RGB uint8 (H, W, 3).
    """
    numbers = as_array(labels)
    if numbers.ndim != 2 or not np.issubdtype(numbers.dtype, np.integer):
        raise ValueError(f"labels: expected integers (H, W), got {numbers.dtype} {numbers.shape}")
    palette = np.array([WHITE, *(part_colours() if colours is None else colours)], np.uint8)
    if numbers.min(initial=0) < 0 or numbers.max(initial=0) >= len(palette):
        raise ValueError(f"labels: expected 0 to {len(palette) - 1}, got {numbers.min()} to {numbers.max()}")
    return palette[numbers]


def part_colours(count: int = 16) -> tuple[Colour, ...]:
    """Return RGB colours of parts: golden-ratio steps round the hue circle, light and dark in turns."""
    colours = []
    for index in range(count):
        red, green, blue = colorsys.hsv_to_rgb(index * 0.618034 % 1, 0.75, (0.95, 0.7)[index % 2])
        colours.append((round(255 * red), round(255 * green), round(255 * blue)))
    return tuple(colours)


def panels(
    rows: Sequence[Sequence[Any]],
    titles: Sequence[str],
    *,
    captions: Sequence[str] | None = None,
    columns: int = 1,
    least: int = LEAST_HEIGHT,
    gap: int = 4,
) -> Image:
    """Lay out rows of panels under their titles; several rows can stand side by side.

    Args:
        rows: each as many RGB uint8 (H, W, 3) images as there are titles; all panels get one size.
        titles: of the panels, written once over each column.
        captions: a line below each row.
        columns: rows side by side.
        least: height in pixels that smaller panels are enlarged to.
        gap: pixels between panels; four times that between rows that stand side by side.

    Returns:
        RGB uint8.

    Raises:
        ValueError: no row, a row of another length, or as many captions as there are not rows.
    """
    pictures = [[as_image(f"rows[{index}]", image) for image in row] for index, row in enumerate(rows)]
    _check(pictures, titles, captions, columns)
    tile = _tile(pictures, least)
    columns = min(columns, len(pictures))
    size = caption_size(2 * tile[1])
    line = round(1.9 * size)
    high = tile[0] + gap + (line if captions is not None else 0)
    wide = len(titles) * (tile[1] + gap) - gap
    across, down = wide + 4 * gap, math.ceil(len(pictures) / columns)
    canvas = np.full((line + down * high + gap, columns * across, 3), 255, np.uint8)
    for index, row in enumerate(pictures):
        top, left = line + index // columns * high, 2 * gap + index % columns * across
        for number, (title, picture) in enumerate(zip(titles, row, strict=True)):
            x = left + number * (tile[1] + gap)
            shown = fit(picture, tile)
            if _fades(shown):
                canvas[top - 1 : top + tile[0] + 1, x - 1 : x + tile[1] + 1] = _EDGE
            canvas[top : top + tile[0], x : x + tile[1]] = shown
            if index < columns:
                _centred(canvas, title, x, round(1.3 * size), tile[1], size, bold=True)
        if captions is not None:
            _centred(canvas, captions[index], left, top + tile[0] + round(1.3 * size), wide, size)
    return canvas


def _fades(panel: Image) -> bool:
    """Whether the border of a panel is so white that nobody sees where it ends."""
    border = np.concatenate([panel[0], panel[-1], panel[:, 0], panel[:, -1]])
    return bool((border > 245).all(1).mean() > 0.5)


def _check(
    pictures: Sequence[Sequence[Image]], titles: Sequence[str], captions: Sequence[str] | None, columns: int
) -> None:
    if not pictures or not titles or columns < 1:
        raise ValueError(
            f"panels: expected at least one row, one title and one column, got {len(pictures)}, {len(titles)} and "
            f"{columns}"
        )
    for index, row in enumerate(pictures):
        if len(row) != len(titles):
            raise ValueError(f"rows[{index}]: expected {len(titles)} images, one per title, got {len(row)}")
    if captions is not None and len(captions) != len(pictures):
        raise ValueError(f"captions: expected {len(pictures)}, one per row, got {len(captions)}")


def _tile(pictures: Sequence[Sequence[Image]], least: int) -> tuple[int, int]:
    """Return (H, W) that holds every panel, enlarged to the least height."""
    height = max(picture.shape[0] for row in pictures for picture in row)
    tall = max(height, least)
    wide = max(round(picture.shape[1] * tall / picture.shape[0]) for row in pictures for picture in row)
    return tall, min(max(wide, 1), 2 * tall)


def _centred(canvas: Image, text: str, left: int, baseline: int, width: int, size: int, bold: bool = False) -> None:
    """Write one line centred in a width, cut where it is longer."""
    text = shorten(text, size, width)
    if text.strip():
        x = left + max(0, (width - text_mask(text, size, bold).shape[1]) // 2)
        put_text(canvas, text, x, baseline, size, INK, bold)
