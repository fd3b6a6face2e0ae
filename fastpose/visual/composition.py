"""Pictures of a pose that comes to lie on a photograph, and the sheet of everything that a caption led to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastpose.visual._canvas import INK, Image, as_image, put_text, resize
from fastpose.visual.captions import wrap
from fastpose.visual.transfer import panels, pose_picture

HEIGHT = 256
"""Of the panels of a sheet, in pixels."""

_DIMMED = 0.35  # of the light of a photograph is left, and a quarter of its colours
_HEADING = 20
_NOTE = 14


def dimmed(image: Any) -> Image:
    """Return a photograph, RGB uint8 (H, W, 3), dark and nearly grey, so that what is drawn on it stands out."""
    canvas = as_image("image", image)
    grey = (canvas @ np.array([0.299, 0.587, 0.114]))[..., None]
    return np.rint(_DIMMED * (0.75 * grey + 0.25 * canvas)).astype(np.uint8)


def on_photograph(image: Any, keypoints: Any, visibility: Any | None, *, dim: bool = False) -> Image:
    """Draw a pose of OpenPose's joints (18, 2) on its photograph, RGB uint8 (H, W, 3), dimmed if wanted.

    Small photographs are enlarged (see `transfer.pose_picture`).
    """
    ground = dimmed(image) if dim else as_image("image", image)
    return pose_picture(keypoints, visibility, ground.shape[:2], image=ground)


def sheet(
    caption: str, rows: Sequence[Sequence[Any]], titles: Sequence[str], labels: Sequence[str], *, note: str = ""
) -> Image:
    """Lay out rows of panels under their titles, the caption above all.

    Args:
        caption: broken into lines where it is long.
        rows: each as many RGB uint8 (H, W, 3) images, of any sizes, as there are titles.
        titles: of the panels.
        labels: a line below each row.
        note: a smaller line below the caption.

    Returns:
        RGB uint8; panels are `HEIGHT` pixels high.
    """
    body = panels([[panel(picture) for picture in row] for row in rows], titles, captions=labels, least=HEIGHT)
    lines = wrap(caption, _HEADING, round(0.85 * body.shape[1]) - _HEADING, lines=3)  # bold letters are wider
    step = round(1.4 * _HEADING)
    height = step * (len(lines) + bool(note)) + _HEADING // 2
    head = np.full((height, body.shape[1], 3), 255, np.uint8)
    for index, line in enumerate(lines):
        put_text(head, line, _HEADING // 2, step * (index + 1), _HEADING, INK, bold=True)
    if note:
        put_text(head, note, _HEADING // 2, step * (len(lines) + 1), _NOTE, INK)
    return np.concatenate([head, body])


def panel(picture: Any) -> Image:
    """Return a picture, RGB uint8 (H, W, 3), made smaller to the height of a panel; one that is smaller stays."""
    image = as_image("rows", picture)
    if image.shape[0] <= HEIGHT:
        return image
    return np.asarray(resize(image, (HEIGHT, max(1, round(image.shape[1] * HEIGHT / image.shape[0])))), np.uint8)
