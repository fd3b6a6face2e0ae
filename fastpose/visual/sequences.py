"""Sequences of generated images: contact sheets, MP4 and GIF files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fastpose._files import publish, publish_by
from fastpose.visual._canvas import Colour, Image, as_image, fit
from fastpose.visual.transfer import panels

FPS = 8
CODEC = "mp4v"
_PALETTE_FRAMES = 16  # looked at for a film's palette
_APART = 8  # between a colour of the film and one to be kept: nearer ones would be taken for it


def contact_sheet(
    rows: Sequence[Sequence[Any]], titles: Sequence[str], captions: Sequence[str], *, most: int = 60
) -> Image:
    """Lay rows of panels out on one sheet about as wide as high.

    Args:
        rows: each as many RGB uint8 (H, W, 3) images as there are titles.
        titles: of the panels, written over each column.
        captions: a line below each row.
        most: of more rows so many are shown, evenly spread.

    Returns:
        RGB uint8.
    """
    if len(captions) != len(rows) or not rows or most < 1:
        raise ValueError(f"captions: expected one per row and at least one row, got {len(captions)} and {len(rows)}")
    shown = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), most)).round().astype(int))
    height, width = as_image("rows[0]", rows[0][0]).shape[:2]
    columns = max(1, round((len(shown) * height / (len(titles) * width)) ** 0.5))
    return panels([rows[k] for k in shown], titles, captions=[captions[k] for k in shown], columns=columns)


def frames(rows: Sequence[Sequence[Any]], *, height: int = 256, gap: int = 4) -> list[Image]:
    """Put the panels of each row side by side, all rows in one even size, as a film's frames want it.

    Args:
        rows: each a list of RGB uint8 (H, W, 3) images, as many as in every other row.
        height: of a frame in pixels; made even.
        gap: white pixels between panels.

    Returns:
        RGB uint8 images of one size.
    """
    pictures = [[as_image(f"rows[{index}]", image) for image in row] for index, row in enumerate(rows)]
    if not pictures or len({len(row) for row in pictures}) != 1 or not pictures[0]:
        raise ValueError(f"rows: expected equally many images in each, got {[len(row) for row in pictures]}")
    height += height % 2
    columns = zip(*pictures, strict=True)
    widths = [max(round(picture.shape[1] * height / picture.shape[0]) for picture in each) for each in columns]
    widths = [min(max(width, 1), 3 * height) for width in widths]
    bar = np.full((height, gap, 3), 255, np.uint8)
    return [_even(_join([fit(p, (height, w)) for p, w in zip(row, widths, strict=True)], bar)) for row in pictures]


def _join(tiles: Sequence[Image], bar: Image) -> Image:
    parts = [part for tile in tiles for part in (bar, tile)][1:]
    return np.concatenate(parts, axis=1)


def _even(frame: Image) -> Image:
    """Return a frame whose width is even; the codec of MP4 files takes no other."""
    return np.pad(frame, ((0, 0), (0, frame.shape[1] % 2), (0, 0)), constant_values=255)


def save_video(path: str | Path, images: Sequence[Any], *, fps: float = FPS) -> Path:
    """Write RGB uint8 images of one size as an MP4 file; the folder is made.

    Args:
        path: ends in .mp4.
        images: (H, W, 3), H and W even (see ``frames``).
        fps: images per second.

    Returns:
        the path.

    Raises:
        ValueError: another suffix, no images, images of several or odd sizes, or OpenCV without the codec.
        OSError: the disk refused, that of temporary files or the path's; nothing or the old file is there.
    """
    import cv2

    path, pictures = _checked(path, ".mp4", images, fps)
    height, width = pictures[0].shape[:2]
    if height % 2 or width % 2:
        raise ValueError(f"images: expected an even height and width for {path.name}, got {height} x {width}")
    with tempfile.TemporaryDirectory() as folder:  # OpenCV fails in silence, and on Unicode paths
        part = os.path.join(folder, "film.mp4")
        writer = cv2.VideoWriter(part, cv2.VideoWriter.fourcc(*CODEC), float(fps), (width, height))
        for picture in pictures:
            writer.write(np.ascontiguousarray(picture[..., ::-1]))
        writer.release()
        opened, data = os.path.exists(part), Path(part).read_bytes() if os.path.exists(part) else b""
    if not opened:
        raise ValueError(f"{path}: this OpenCV cannot write MP4 files (codec {CODEC} absent); use the GIF")
    if not _is_whole(data):
        raise OSError(f"{path}: could not be written (no room for {len(data):,} bytes in {tempfile.gettempdir()})")
    path.parent.mkdir(parents=True, exist_ok=True)
    publish(path, data)
    return path


def _is_whole(data: bytes) -> bool:
    """Whether all boxes of an MP4 file are there to their ends, the index of the film among them."""
    names, start = [], 0
    while start < len(data):
        names.append(data[start + 4 : start + 8])
        start += max(8, int.from_bytes(data[start : start + 4]))
    return start == len(data) and b"moov" in names


def save_gif(path: str | Path, images: Sequence[Any], *, fps: float = FPS, keep: Sequence[Colour] = ()) -> Path:
    """Write RGB uint8 images of one size as an endless GIF; the folder is made.

    Args:
        path: ends in .gif.
        images: (H, W, 3).
        fps: images per second.
        keep: colours that all frames keep, such as those of a skeleton's limbs; the others of the 256 suit the film.

    Returns:
        the path.

    Raises:
        ValueError: another suffix, no images, or images of several sizes.
        OSError: the disk refused; nothing or the old file is there.
    """
    from PIL import Image as Pillow

    path, pictures = _checked(path, ".gif", images, fps)
    palette = _palette(pictures, keep)
    dither = Pillow.Dither.FLOYDSTEINBERG
    shown = [Pillow.fromarray(picture).quantize(palette=palette, dither=dither) for picture in pictures]
    path.parent.mkdir(parents=True, exist_ok=True)
    timing = {"duration": round(1000 / fps), "loop": 0}

    def write(file: BinaryIO) -> None:
        shown[0].save(file, "GIF", save_all=True, append_images=shown[1:], optimize=False, **timing)

    publish_by(path, write)
    return path


def _palette(pictures: Sequence[Image], keep: Sequence[Colour]) -> Any:
    """Return a picture whose palette serves a whole film: the colours to be kept, and what else the frames have."""
    from PIL import Image as Pillow

    some = np.unique(np.linspace(0, len(pictures) - 1, min(len(pictures), _PALETTE_FRAMES)).astype(int))
    joined = Pillow.fromarray(np.concatenate([pictures[k] for k in some]))
    kept = np.array(keep, int).reshape(-1, 3)
    found = np.array(joined.quantize(256 - len(keep)).getpalette() or [], int).reshape(-1, 3)[: 256 - len(keep)]
    found = found[(np.abs(found[:, None] - kept).max(2) > _APART).all(1)] if len(kept) else found
    picture = Pillow.new("P", (1, 1))
    picture.putpalette(np.concatenate([kept, found]).ravel().tolist())
    return picture


def _checked(path: str | Path, suffix: str, images: Sequence[Any], fps: float) -> tuple[Path, list[Image]]:
    """Return path and images, both fit to be written."""
    path = Path(path)
    if path.suffix.lower() != suffix:
        raise ValueError(f"{path}: expected a name that ends in {suffix}")
    pictures = [as_image(f"images[{index}]", image) for index, image in enumerate(images)]
    sizes = {picture.shape for picture in pictures}
    if len(sizes) != 1:
        raise ValueError(f"images: expected at least one, all of one size, got {len(pictures)} of {len(sizes)} sizes")
    if not 0 < fps <= 100:
        raise ValueError(f"fps: expected a number above 0 and up to 100, got {fps}")
    return path, pictures
