"""Joints of one skeleton in the order of another."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fastpose import skeletons
from fastpose.data.person import Person, Source
from fastpose.skeletons import Skeleton

# Joints that follow from two others: their middle.
_MIDDLES = {
    "neck": ("l_shoulder", "r_shoulder"),
    "thorax": ("l_shoulder", "r_shoulder"),
    "pelvis": ("l_hip", "r_hip"),
}

# What another convention calls the same place of the body: (from, to) -> name there -> name here.
_ALIASES = {
    ("h36m", "mpii"): {"upper_neck": "thorax"},
    ("lsp", "mpii"): {"upper_neck": "neck"},
}


def convert(
    keypoints: np.ndarray, visibility: np.ndarray, from_skeleton: Skeleton | str, to_skeleton: Skeleton | str
) -> tuple[np.ndarray, np.ndarray]:
    """Return key points (..., J, D) and visibility (..., J) in the order of ``to_skeleton``, of the inputs' types.

    Joints keep their names, but for MPII's upper neck, which is LSP's neck and Human3.6M's thorax; neck and thorax are
    the middle of the shoulders, the pelvis that of the hips, as visible as the less visible end. What ``from_skeleton``
    does not have, or is not visible, is 0 in both.

    Args:
        keypoints: (..., K, D), (x, y) or (x, y, z) in any frame.
        visibility: (..., K), above 0 where the joint is there.
        from_skeleton, to_skeleton: a skeleton or its name.

    Raises:
        ValueError: the shapes do not belong to ``from_skeleton``, or a name is unknown.
    """
    old, new = (skeletons.get(each) if isinstance(each, str) else each for each in (from_skeleton, to_skeleton))
    points, visible = np.asarray(keypoints), np.asarray(visibility)
    if points.shape[-2:] not in ((len(old), 2), (len(old), 3)) or visible.shape != points.shape[:-1]:
        raise ValueError(
            f"keypoints: expected (..., {len(old)}, 2 or 3) and visibility (..., {len(old)}) for skeleton "
            f"{old.name!r}, got {points.shape} and {visible.shape}"
        )
    columns = [_ends(old, new, joint) for joint in new.joints]
    first = np.array([ends[0] for ends in columns])
    second = np.array([ends[1] for ends in columns])
    there = (first >= 0) & (visible[..., first] > 0) & (visible[..., second] > 0)  # (..., J)
    moved = (points[..., first, :] + points[..., second, :]) / 2
    marks = np.minimum(visible[..., first], visible[..., second])
    zero = np.zeros((), visible.dtype)
    return np.where(there[..., None], moved, 0).astype(points.dtype), np.where(there, marks, zero)


@dataclass
class Relabelled:
    """A source whose persons have the joints of another skeleton; a ``Source``."""

    name: str
    split: str
    skeleton: Skeleton
    scored_joints: tuple[int, ...]
    persons: list[Person]

    def __len__(self) -> int:
        return len(self.persons)


def relabel(source: Source, skeleton: Skeleton) -> Source:
    """Return a source of 2D key points in the order of ``skeleton`` (see `convert`); itself where it has it already.

    A joint that is no joint of the source's skeleton is unlabelled on everybody. ``ValueError`` for 3D truth.
    """
    if source.skeleton == skeleton:
        return source
    if any(entry.pose3d is not None for entry in source.persons):
        raise ValueError(f"{source.name}: relabelling is for 2D sources, and this one has 3D poses")
    persons = []
    for entry in source.persons:
        points, labels = convert(entry.keypoints, entry.visibility, source.skeleton, skeleton)
        persons.append(replace(entry, keypoints=points, visibility=labels))
    old = [_ends(source.skeleton, skeleton, joint) for joint in skeleton.joints]
    scored = tuple(i for i, ends in enumerate(old) if set(ends) <= set(source.scored_joints))
    return Relabelled(source.name, source.split, skeleton, scored, persons)


def _ends(old: Skeleton, new: Skeleton, joint: str) -> tuple[int, int]:
    """Return the two joints of ``old`` whose middle is ``joint`` of ``new`` (twice the same one), or (-1, -1)."""
    alias = _ALIASES.get((old.name, new.name), {}).get(joint)
    if alias is not None:
        return old.index(alias), old.index(alias)
    middle = _MIDDLES.get(joint)
    # A neck of another convention sits elsewhere on the body: only the shoulders mean the same everywhere.
    if joint in old.joints and (middle is None or old is new):
        return old.index(joint), old.index(joint)
    if middle is not None and set(middle) <= set(old.joints):
        return old.index(middle[0]), old.index(middle[1])
    return -1, -1
