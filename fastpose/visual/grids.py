"""Grids of pictures with captions, and image files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastpose._files import publish
from fastpose.visual._canvas import INK, WHITE, Colour, Image, as_image, fit, put_text, shorten, text_mask


def grid(
    images: Sequence[Any],
    columns: int,
    captions: Sequence[str] | None = None,
    *,
    tile: tuple[int, int] | None = None,
    gap: int = 8,
    background: Colour = WHITE,
) -> Image:
    """Lay pictures out in rows, each scaled to lie inside one tile size, captions below.

    Args:
        images: RGB uint8 (H, W, 3) or grey (H, W), of any sizes.
        columns: pictures in a row; fewer pictures make a narrower grid.
        captions: one line per picture; cut where it is too long.
        tile: (H, W) of a tile; default the greatest height and width among the pictures.
        gap: pixels between tiles and round them.
        background: RGB.

    Returns:
        RGB uint8.

    Raises:
        ValueError: no picture, ``columns`` below 1, or as many captions as there are not pictures.
    """
    pictures = [as_image(f"images[{index}]", image) for index, image in enumerate(images)]
    if not pictures or columns < 1:
        raise ValueError(f"grid: expected at least one image and one column, got {len(pictures)} and {columns}")
    if captions is not None and len(captions) != len(pictures):
        raise ValueError(f"captions: expected {len(pictures)}, one per image, got {len(captions)}")
    height, width = tile or (max(p.shape[0] for p in pictures), max(p.shape[1] for p in pictures))
    columns, rows = min(columns, len(pictures)), math.ceil(len(pictures) / columns)
    pixels = caption_size(width)
    line = round(1.9 * pixels) if captions is not None else 0
    cell = (height + line + gap, width + gap)
    canvas = np.full((rows * cell[0] + gap, columns * cell[1] + gap, 3), background, dtype=np.uint8)
    for index, picture in enumerate(pictures):
        top, left = gap + index // columns * cell[0], gap + index % columns * cell[1]
        canvas[top : top + height, left : left + width] = fit(picture, (height, width), background)
        if captions is not None:
            _caption(canvas, captions[index], left, top + height, width, pixels)
    return canvas


def caption_size(width: int) -> int:
    """Return the letter size in pixels that suits a tile of this width."""
    return int(np.clip(round(width / 19), 10, 20))


def _caption(canvas: Image, text: str, left: int, top: int, width: int, pixels: int) -> None:
    """Write one centred line below a tile."""
    text = shorten(text, pixels, width)
    if text.strip():
        x = left + (width - text_mask(text, pixels).shape[1]) // 2
        put_text(canvas, text, x, top + round(1.3 * pixels), pixels, INK)


def save_image(path: str | Path, rgb: Any) -> Path:
    """Write an RGB uint8 image as PNG or JPEG, by the file's suffix; the folder is made.

    Returns:
        the path.

    Raises:
        ValueError: the suffix is none of .png, .jpg, .jpeg.
        OSError: the disk refused; the message names the file, of which nothing or the old content is there.
    """
    import cv2

    path = Path(path)
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ValueError(f"{path}: expected a name that ends in .png, .jpg or .jpeg")
    bgr = as_image("rgb", rgb)[..., ::-1]
    options = [cv2.IMWRITE_JPEG_QUALITY, 92] if path.suffix.lower() != ".png" else []
    done, data = cv2.imencode(path.suffix.lower(), np.ascontiguousarray(bgr), options)
    if not done:
        raise ValueError(f"{path}: OpenCV could not encode an image of shape {bgr.shape}")
    path.parent.mkdir(parents=True, exist_ok=True)
    publish(path, data.tobytes())  # cv2.imwrite fails in silence and on Unicode paths
    return path
