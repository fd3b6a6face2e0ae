"""What a network of pose transfer sees of a person: the photograph and the joints at the network's size."""

from __future__ import annotations

import numpy as np

from fastpose.data import transforms
from fastpose.data.geometry import cut, move, resize_matrix
from fastpose.data.person import Person

WHITE = 255
"""Outside of a photograph: the studio background of DeepFashion, and what its 176 columns are padded with."""


def photo_view(
    person: Person, photo: np.ndarray, matrix: np.ndarray, own: tuple[int, int], size: tuple[int, int]
) -> dict[str, np.ndarray]:
    """Return image and joints of a person at ``size``.

    Args:
        person: 18 joints in pixels of ``photo``.
        photo: uint8 (H, W, 3).
        matrix: (2, 3), from the photo's pixels to a picture of size ``own``, which is then resized to ``size``. A map
            that only moves by whole pixels copies them bit by bit.
        own, size: (H, W).

    Returns:
        image uint8 (H, W, 3); keypoints float32 (18, 2), 0 where not visible; visibility float32 (18,), 1 where the
        joint is labelled and inside of the picture.
    """
    whole = matrix if own == size else move(resize_matrix(own, size), matrix)
    points = person.keypoints.astype(np.float64) @ whole[:, :2].T + whole[:, 2]  # (18, 2)
    visible = (person.visibility > 0) & transforms.inside(points, size)
    return {
        "image": cut(photo, whole, size, fill=WHITE),
        "keypoints": np.where(visible[:, None], points, 0.0).astype(np.float32),
        "visibility": visible.astype(np.float32),
    }
