"""What every picture needs: checked RGB arrays, anti-aliased text, resizing, blending."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Colour = tuple[int, int, int]

WHITE: Colour = (255, 255, 255)
INK: Colour = (34, 38, 44)

# What hangs below the line, and a letter of the same height that stands on it.
_STANDING = str.maketrans("gpqyj_,;()[]@|Q", "xxxxi" + "." * 3 + "H" * 7)


def as_array(value: Any) -> np.ndarray:
    """Return a tensor (any device) or array-like as a numpy array, not copied where it need not be."""
    return value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)


def as_image(argument: str, value: Any) -> Image:
    """Return an image as a new RGB uint8 (H, W, 3) array; grey (H, W) becomes RGB; raises on anything else."""
    image = as_array(value)
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"{argument}: expected an RGB image (H, W, 3), got {image.shape}")
    if image.dtype != np.uint8:
        raise TypeError(f"{argument}: expected uint8 from 0 to 255, got {image.dtype}")
    return np.array(image, order="C")


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return an image or map resized to (H, W): averaged when it shrinks, bilinear when it grows."""
    import cv2

    shrinks = size[0] * size[1] < image.shape[0] * image.shape[1]
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def fit(image: Image, size: tuple[int, int], background: Colour = WHITE) -> Image:
    """Return an image scaled to lie centred inside (H, W), its aspect kept."""
    height, width = size
    scale = min(height / image.shape[0], width / image.shape[1])
    inner = (max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale)))
    tile = np.full((height, width, 3), background, dtype=np.uint8)
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    tile[top : top + inner[0], left : left + inner[1]] = resize(image, inner)
    return tile


@functools.lru_cache(maxsize=64)
def _font(pixels: int, bold: bool) -> Any:
    import os

    import matplotlib
    from matplotlib.ft2font import FT2Font

    file = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    font = FT2Font(os.path.join(matplotlib.get_data_path(), "fonts", "ttf", file))
    font.set_size(pixels, 72)  # at 72 dpi a point is a pixel
    return font


@functools.lru_cache(maxsize=1024)
def text_mask(text: str, pixels: int, bold: bool = False) -> NDArray[np.float32]:
    """Return the coverage of one line of text in [0, 1], (h, w), cropped to its ink."""
    font = _font(pixels, bold)
    known = "".join(letter if font.get_char_index(ord(letter)) else "□" for letter in text)  # of other scripts
    font.set_text(known, 0.0)
    font.draw_glyphs_to_bitmap(antialiased=True)
    return np.array(font.get_image(), dtype=np.float32) / 255.0


def shorten(text: str, pixels: int, width: int) -> str:
    """Return the text, cut with an ellipsis where it is wider than ``width``; empty where nothing fits."""
    if text_mask(text, pixels).shape[1] <= width:
        return text
    for end in range(len(text) - 1, 0, -1):
        if text_mask(text[:end].rstrip() + "…", pixels).shape[1] <= width:
            return text[:end].rstrip() + "…"
    return ""


def put_text(image: Image, text: str, x: int, baseline: int, pixels: int, colour: Colour, bold: bool = False) -> None:
    """Blend one line of text into ``image`` in place; its left end is ``x``, clipped at the borders."""
    if not text.strip():
        return
    mask = text_mask(text, pixels, bold)
    standing = text.translate(_STANDING)
    blend(image, mask, x, baseline - text_mask(standing if standing.strip() else "x", pixels, bold).shape[0], colour)


def blend(image: Image, mask: np.ndarray, x: int, y: int, colour: Colour) -> None:
    """Paint ``colour`` through a coverage mask whose upper left corner lies at (x, y), in place."""
    top, left = max(y, 0), max(x, 0)
    bottom, right = min(y + mask.shape[0], image.shape[0]), min(x + mask.shape[1], image.shape[1])
    if bottom <= top or right <= left:
        return
    part = mask[top - y : bottom - y, left - x : right - x, None]
    region = image[top:bottom, left:right]
    region[:] = np.rint(region * (1 - part) + np.asarray(colour, dtype=np.float32) * part).astype(np.uint8)
