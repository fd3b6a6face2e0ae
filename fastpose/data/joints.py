"""Joints of one skeleton in the order of another."""

from __future__ import annotations

import numpy as np

from fastpose import skeletons
from fastpose.skeletons import Skeleton

# Joints that follow from two others: their middle.
_MIDDLES = {
    "neck": ("l_shoulder", "r_shoulder"),
    "thorax": ("l_shoulder", "r_shoulder"),
    "pelvis": ("l_hip", "r_hip"),
}


def convert(
    keypoints: np.ndarray, visibility: np.ndarray, from_skeleton: Skeleton | str, to_skeleton: Skeleton | str
) -> tuple[np.ndarray, np.ndarray]:
    """Return key points (..., J, 2) and visibility (..., J) in the order of ``to_skeleton``, of the inputs' types.

    Joints keep their names; neck and thorax are the middle of the shoulders, the pelvis that of the hips, as visible as
    the less visible end. What ``from_skeleton`` does not have, or is not visible, is 0 in both.

    Args:
        keypoints: (..., K, 2), (x, y) in any frame.
        visibility: (..., K), above 0 where the joint is there.
        from_skeleton, to_skeleton: a skeleton or its name.

    Raises:
        ValueError: the shapes do not belong to ``from_skeleton``, or a name is unknown.
    """
    old, new = (skeletons.get(each) if isinstance(each, str) else each for each in (from_skeleton, to_skeleton))
    points, visible = np.asarray(keypoints), np.asarray(visibility)
    if points.shape[-2:] != (len(old), 2) or visible.shape != points.shape[:-1]:
        raise ValueError(
            f"keypoints: expected (..., {len(old)}, 2) and visibility (..., {len(old)}) for skeleton {old.name!r}, got "
            f"{points.shape} and {visible.shape}"
        )
    columns = [_ends(old, new, joint) for joint in new.joints]
    first = np.array([ends[0] for ends in columns])
    second = np.array([ends[1] for ends in columns])
    there = (first >= 0) & (visible[..., first] > 0) & (visible[..., second] > 0)  # (..., J)
    moved = (points[..., first, :] + points[..., second, :]) / 2
    marks = np.minimum(visible[..., first], visible[..., second])
    zero = np.zeros((), visible.dtype)
    return np.where(there[..., None], moved, 0).astype(points.dtype), np.where(there, marks, zero)


def _ends(old: Skeleton, new: Skeleton, joint: str) -> tuple[int, int]:
    """Return the two joints of ``old`` whose middle is ``joint`` of ``new`` (twice the same one), or (-1, -1)."""
    middle = _MIDDLES.get(joint)
    # A neck of another convention sits elsewhere on the body: only the shoulders mean the same everywhere.
    if joint in old.joints and (middle is None or old is new):
        return old.index(joint), old.index(joint)
    if middle is not None and set(middle) <= set(old.joints):
        return old.index(middle[0]), old.index(middle[1])
    return -1, -1
