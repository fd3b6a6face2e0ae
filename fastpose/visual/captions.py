"""Pictures of poses from captions: coloured heatmaps with their skeleton, columns under captions, strips."""

from __future__ import annotations

import colorsys
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastpose.skeletons import COCO, Skeleton
from fastpose.visual._canvas import INK, Colour, Image, as_array, as_image, fit, put_text, resize, shorten, text_mask
from fastpose.visual.grids import caption_size
from fastpose.visual.skeletons import draw_skeleton, side

TILE = 192
"""Side of a pose in pixels."""

_MARGIN = 2  # map pixels round the map: joints lie on its very border, where a person touches his box
_HUES = {"left": (0.46, 0.80), "right": (-0.08, 0.17), "middle": (0.30, 0.36)}
_GREY: Colour = (128, 132, 138)
_LINES = 6  # of a title at most
_PROOF = 12  # pixels of the letters by which a font is tried


@functools.lru_cache(maxsize=16)
def channel_colours(skeleton: Skeleton = COCO) -> tuple[Colour, ...]:
    """Return one RGB colour per joint, spread over the hues of its side: cool left, warm right, green middle."""
    sides = [side(skeleton, (joint,)) for joint in range(len(skeleton))]
    colours = []
    for index, name in enumerate(sides):
        low, high = _HUES[name]
        hue = low + (high - low) * (sides[:index].count(name) + 0.5) / sides.count(name)
        red, green, blue = colorsys.hsv_to_rgb(hue % 1, 0.95, 1.0)
        colours.append((round(255 * red), round(255 * green), round(255 * blue)))
    return tuple(colours)


def heatmap_picture(
    heatmaps: Any, keypoints: Any | None = None, visibility: Any | None = None, *, skeleton: Skeleton = COCO
) -> Image:
    """Show all heatmaps of a pose in one picture, a colour each on black, under its skeleton (system 004, figure 2).

    Args:
        heatmaps: (K, h, w) in [0, 1]; values outside count as the nearest of the two, NaN as 0.
        keypoints: (K, 2) pixels (x, y) of the map; without them no skeleton is drawn.
        visibility: (K,), > 0 where the joint is present; None takes all.
        skeleton: the joints' names and limbs.

    Returns:
        RGB uint8 (TILE, TILE, 3), with a narrow margin round a square map.
    """
    planes = as_array(heatmaps).astype(np.float32)
    if planes.ndim != 3 or len(planes) != len(skeleton) or planes.size == 0:
        raise ValueError(f"heatmaps: expected ({len(skeleton)}, h, w) for skeleton {skeleton.name}, got {planes.shape}")
    planes = np.clip(np.nan_to_num(planes, nan=0.0), 0, 1)
    padded = np.pad(planes, ((0, 0), (_MARGIN, _MARGIN), (_MARGIN, _MARGIN)))
    light = np.ones((*padded.shape[1:], 3), np.float32)
    for plane, colour in zip(padded, channel_colours(skeleton), strict=True):
        light *= 1 - plane[..., None] * (np.array(colour, np.float32) / 255)  # as lights add up: never beyond white
    canvas = _to_tile(np.rint(255 * (1 - light)).astype(np.uint8))
    return canvas if keypoints is None else _with_skeleton(canvas, keypoints, visibility, planes.shape[1:], skeleton)


def skeleton_picture(
    keypoints: Any,
    visibility: Any | None = None,
    *,
    size: tuple[int, int] = (64, 64),
    skeleton: Skeleton = COCO,
) -> Image:
    """Draw a pose in pixels (x, y) of a map of ``size`` (H, W) on white; absent joints are left out.

    Arguments and result as of `heatmap_picture`; a pose without any joint says so.
    """
    ground = np.full((size[0] + 2 * _MARGIN, size[1] + 2 * _MARGIN, 3), 255, np.uint8)
    canvas = _to_tile(ground)
    return _with_skeleton(_edged(canvas), keypoints, visibility, size, skeleton)


def columns(
    rows: Sequence[Sequence[Any]], titles: Sequence[str], *, labels: Sequence[str] | None = None, gap: int = 6
) -> Image:
    """Lay pictures out in columns, a caption over each, broken into lines (system 004, figure 15).

    Args:
        rows: each as many RGB uint8 (H, W, 3) pictures, all of one size, as there are titles.
        titles: the captions.
        labels: what stands before each row.
        gap: pixels between pictures.

    Returns:
        RGB uint8.

    Raises:
        ValueError: no row, a row of another length, or as many labels as there are not rows.
    """
    pictures = _checked(rows, titles, labels)
    height, width = pictures[0][0].shape[:2]
    size = caption_size(width) + 2
    broken = [wrap(title, size, width - 4) for title in titles]
    head = _head(max(map(len, broken)), size)
    names = [""] * len(rows) if labels is None else labels
    left = max((text_mask(name, size).shape[1] + 3 * gap for name in names if name.strip()), default=gap)
    across, down = width + gap, height + gap
    canvas = np.full((head + len(rows) * down + gap, left + len(titles) * across, 3), 255, np.uint8)
    for number, lines in enumerate(broken):
        _write(canvas, lines, left + number * across, head, width, size)
    for index, row in enumerate(pictures):
        top = head + gap // 2 + index * down
        put_text(canvas, names[index], gap, top + height // 2 + size // 3, size, INK)
        for number, picture in enumerate(row):
            canvas[top : top + height, left + number * across : left + number * across + width] = picture
    return canvas


def strips(
    rows: Sequence[tuple[Sequence[str], Sequence[Any]]], *, gap: int = 6, most: int = 0, note: str = ""
) -> Image:
    """Lay out pictures in blocks, each under its own titles (system 004, figures 19 and 20).

    Args:
        rows: of each block the titles and its pictures, RGB uint8 (H, W, 3), all of one size. One title stands over
            the whole block, two over its two ends; none takes no room.
        gap: pixels between pictures.
        most: pictures in a line; 0 puts all of a block into one.
        note: a line below all.

    Returns:
        RGB uint8.

    Raises:
        ValueError: no block, a block without a picture or with more than two titles, or pictures of several sizes.
    """
    if not rows:
        raise ValueError("rows: expected at least one, got none")
    pictures = [[as_image(f"rows[{index}]", picture) for picture in row[1]] for index, row in enumerate(rows)]
    _one_size([picture for row in pictures for picture in row])
    sheet = _stacked([_block(titles, row, gap, most) for (titles, _), row in zip(rows, pictures, strict=True)])
    return _noted(sheet, note, gap) if note else sheet


def readable(text: str) -> bool:
    """Whether the pictures' font has all letters and digits of a text; those that it has not are drawn as a box."""
    box = text_mask("□", _PROOF)
    return not any(
        letter.isalnum() and np.array_equal(text_mask(letter, _PROOF), box) for letter in {*text} if letter > "ÿ"
    )


def wrap(text: str, pixels: int, width: int, *, lines: int = _LINES) -> list[str]:
    """Return a text in lines no wider than ``width`` pixels, the last one cut with an ellipsis where there are more.

    A word that is wider is broken between letters.
    """
    done: list[str] = []
    words = text.split()
    while words:
        if len(done) == lines - 1:
            return [*done, shorten(" ".join(words), pixels, width)]
        taken = _most(" ".join, words, pixels, width)
        line = " ".join(words[:taken])
        words = words[taken:]
        if not _fits(line, pixels, width):  # one word
            end = _most(str, line, pixels, width)
            line, words = line[:end], [*filter(None, [line[end:]]), *words]
        done.append(line)
    return done


def _most(join: Callable[[Any], str], parts: Sequence[str], pixels: int, width: int) -> int:
    """Return how many first parts fit into a line together, 1 at least."""
    taken = 1
    while taken < len(parts) and _fits(join(parts[: taken + 1]), pixels, width):
        taken += 1
    return taken


def _fits(text: str, pixels: int, width: int) -> bool:
    return text_mask(text, pixels).shape[1] <= width


def _to_tile(picture: Image) -> Image:
    """Return a picture enlarged smoothly to a tile."""
    scale = TILE / max(picture.shape[:2])
    return fit(resize(picture, (round(picture.shape[0] * scale), round(picture.shape[1] * scale))), (TILE, TILE))


def _edged(canvas: Image) -> Image:
    """Return a white tile with a thin edge, without which nobody sees where it ends."""
    canvas[[0, -1]] = canvas[:, [0, -1]] = (208, 211, 216)
    return canvas


def _with_skeleton(
    canvas: Image, keypoints: Any, visibility: Any | None, size: tuple[int, ...], skeleton: Skeleton
) -> Image:
    """Draw a pose of a map of ``size`` on its tile; a pose without a joint is said to be one."""
    points = as_array(keypoints).astype(np.float64)
    scale = TILE / (max(size) + 2 * _MARGIN)
    short = (max(size) - np.array([size[1], size[0]])) / 2  # a map that is no square lies in the middle
    drawn = draw_skeleton(
        canvas, (points + 0.5 + _MARGIN + short) * scale - 0.5, visibility, skeleton, name_missing=False
    )
    if visibility is not None and not (as_array(visibility) > 0).any():
        _write(drawn, ["no joint"], 0, TILE // 2 + 16, TILE, 14, _GREY)
    return drawn


def _checked(rows: Sequence[Sequence[Any]], titles: Sequence[str], labels: Sequence[str] | None) -> list[list[Image]]:
    """Return the pictures of rows of equal length and pictures of one size."""
    pictures = [[as_image(f"rows[{index}]", picture) for picture in row] for index, row in enumerate(rows)]
    if not pictures or not titles:
        raise ValueError(f"columns: expected at least one row and one title, got {len(pictures)} and {len(titles)}")
    for index, row in enumerate(pictures):
        if len(row) != len(titles):
            raise ValueError(f"rows[{index}]: expected {len(titles)} images, one per title, got {len(row)}")
    if labels is not None and len(labels) != len(rows):
        raise ValueError(f"labels: expected {len(rows)}, one per row, got {len(labels)}")
    _one_size([picture for row in pictures for picture in row])
    return pictures


def _one_size(pictures: Sequence[Image]) -> None:
    sizes = {picture.shape[:2] for picture in pictures}
    if len(sizes) != 1:
        raise ValueError(f"rows: expected images of one size, got {sorted(sizes) or 'none'}")


def _block(titles: Sequence[str], tiles: Sequence[Image], gap: int, most: int) -> Image:
    """Return pictures in lines under one title, or under two at their ends."""
    if len(titles) > 2 or not tiles:
        raise ValueError(f"rows: expected images under up to two titles, got {len(tiles)} under {len(titles)}")
    height, width = tiles[0].shape[:2]
    across = min(most or len(tiles), len(tiles))
    wide = across * (width + gap) - gap
    size = caption_size(width) + 2
    room = wide if len(titles) < 2 else max(width, wide // 2 - gap)
    broken = [wrap(title, size, room, lines=3) for title in titles]
    head = _head(max(map(len, broken), default=0), size)
    canvas = np.full((head - (-len(tiles) // across) * (height + gap), wide + 2 * gap, 3), 255, np.uint8)
    for lines, left, align in zip(broken, (gap, gap + wide - room), ("left", "right"), strict=False):
        _write(canvas, lines, left, head, room, size, align=align)
    for index, tile in enumerate(tiles):
        top, left = head + index // across * (height + gap), gap + index % across * (width + gap)
        canvas[top : top + height, left : left + width] = tile
    return canvas


def _noted(sheet: Image, text: str, gap: int) -> Image:
    """Return a sheet with a line below it."""
    size = 12
    ground = np.full((_head(1, size), sheet.shape[1], 3), 255, np.uint8)
    _write(
        ground, [shorten(text, size, sheet.shape[1] - 2 * gap)], gap, len(ground), sheet.shape[1], size, align="left"
    )
    return np.concatenate([sheet, ground])


def _stacked(blocks: Sequence[Image]) -> Image:
    """Return pictures below each other, left edges in line."""
    width = max(block.shape[1] for block in blocks)
    wide = [np.pad(b, ((0, 0), (0, width - b.shape[1]), (0, 0)), constant_values=255) for b in blocks]
    return np.concatenate([np.full((6, width, 3), 255, np.uint8), *wide])


def _head(lines: int, size: int) -> int:
    """Return the height that so many lines of a title take."""
    return round(1.35 * size * lines + 0.7 * size) if lines else 0


def _write(
    canvas: Image,
    lines: Sequence[str],
    left: int,
    bottom: int,
    width: int,
    size: int,
    colour: Colour = INK,
    align: str = "middle",
) -> None:
    """Write lines so that the last one stands a little above ``bottom``."""
    for index, line in enumerate(lines):
        free = width - text_mask(line, size).shape[1] if line.strip() else 0
        x = left + max(0, {"left": 0, "middle": free // 2, "right": free}[align])
        put_text(canvas, line, x, bottom - round(1.35 * size * (len(lines) - 1 - index) + 0.5 * size), size, colour)
