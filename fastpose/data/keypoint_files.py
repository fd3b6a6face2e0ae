"""Key points of a user's own images, from and to files: one person per image, OpenPose's 18 joints.

Read: what ``fastpose predict --save-keypoints`` writes, OpenPose's JSON (18 or 25 joints; a file per image, or a folder
of them), PATN's table and system 003's. Written: PATN's table, with which a folder of photographs is a training set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fastpose import skeletons
from fastpose.data import joints
from fastpose.data.coco import read_json
from fastpose.data.keypoint_tables import is_table, read_lines, read_table, write_patn
from fastpose.data.person import reading
from fastpose.skeletons import Skeleton

LEAST_SCORE = 0.1
"""An estimated joint with a lower score is missing."""

# BODY_25 of OpenPose: the middle of the hips comes ninth, the feet last.
_BODY_25 = (*range(8), *range(9, 19))


@dataclass(frozen=True, eq=False)
class Pose:
    """One person's pose in one image.

    Attributes:
        name: the image as the file names it; the stem of OpenPose's file.
        keypoints: float32 (18, 2), (x, y) in pixels of the image, OpenPose order; 0 where missing.
        visibility: float32 (18,), 1 where there, 0 where missing.
        size: (H, W) of the image, None where the file does not say.
    """

    name: str
    keypoints: np.ndarray
    visibility: np.ndarray
    size: tuple[int, int] | None = None


def read(path: str | Path, *, minimum_score: float = LEAST_SCORE) -> list[Pose]:
    """Return the pose of every image of a key-point file, in the file's order.

    Of several persons in an image the one with the highest sum of scores counts; an image without any person gives a
    pose without joints.

    Args:
        path: a JSON or CSV file, or a folder of OpenPose's ``*.json``.
        minimum_score: joints with a lower score are missing (JSON only).

    Raises:
        FileNotFoundError: no such file.
        ValueError: none of the known formats, or malformed content.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(path.glob("*.json"))
        if not files:
            raise FileNotFoundError(
                f"key points {path}: no .json file in this folder; expected OpenPose's, one per image"
            )
        return [pose for file in files for pose in _read_json(file, minimum_score)]
    if not path.is_file():
        raise FileNotFoundError(f"key points {path}: no such file")
    if path.suffix.lower() == ".json":
        return _read_json(path, minimum_score)
    if is_table(read_lines(path)[0]):
        return _read_table(path)
    raise ValueError(
        f"key points {path}: expected the JSON of `fastpose predict --save-keypoints` or of OpenPose, or a table that "
        "starts with name:keypoints_y:keypoints_x"
    )


def write(path: str | Path, poses: Sequence[Pose], *, names: Sequence[str] | None = None) -> None:
    """Write poses as PATN's table (whole pixels, -1 where missing), under their own or other ``names``.

    Raises ``ValueError`` when two names are equal, or one holds a ":".
    """
    names = [pose.name for pose in poses] if names is None else list(names)
    for name in names:
        if ":" in name or "\n" in name or names.count(name) > 1:
            raise ValueError(f"names: {name!r} is there twice or holds a ':'; expected different names without colons")
    points = np.array([pose.keypoints for pose in poses]).reshape(-1, 18, 2)
    write_patn(path, names, points, np.array([pose.visibility for pose in poses]).reshape(-1, 18))


def _read_table(path: Path) -> list[Pose]:
    table = read_table(path)
    points, visible = table.keypoints.astype(np.float32), (table.visibility > 0).astype(np.float32)
    sizes = [None] * len(table) if table.sizes is None else [(int(high), int(wide)) for high, wide in table.sizes]
    return [Pose(name, points[row], visible[row], sizes[row]) for row, name in enumerate(table.names)]


def _read_json(path: Path, minimum_score: float) -> list[Pose]:
    content = read_json(path)
    with reading(path, "an entry"):
        if isinstance(content, dict) and "people" in content:
            name = path.stem.removesuffix("_keypoints")
            people = [_openpose_person(entry) for entry in content["people"]]
            return [_pose(name, people, skeletons.OPENPOSE, minimum_score)]
        if (
            isinstance(content, list)
            and all(isinstance(row, dict) and "skeleton" in row for row in content)
            and content
        ):
            return [_predicted(row, minimum_score) for row in content]
    raise ValueError(
        f"key points {path}: expected a list of images as `fastpose predict --save-keypoints` writes it, or OpenPose's "
        "'people'"
    )


def _predicted(row: dict[str, Any], minimum_score: float) -> Pose:
    """Read one image of our own JSON."""
    skeleton = skeletons.get(row["skeleton"])
    people = []
    for entry in row["persons"]:
        points = np.array(entry["keypoints"], dtype=np.float64).reshape(len(skeleton), 2)
        scores = np.array(entry["scores"], dtype=np.float64).reshape(len(skeleton))
        people.append((points, scores))
    pose = _pose(str(row["image"]), people, skeleton, minimum_score)
    if row.get("size") is None:  # older files
        return pose
    height, width = (int(side) for side in row["size"])
    if height < 1 or width < 1:
        raise ValueError(f"size {height} x {width} of {row['image']!r}, expected positive (H, W)")
    return replace(pose, size=(height, width))


def _openpose_person(entry: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Read one person of OpenPose's JSON: x, y, confidence per joint, 0 where missing."""
    table = np.array(entry["pose_keypoints_2d"], dtype=np.float64).reshape(-1, 3)
    if len(table) == 25:
        table = table[list(_BODY_25)]
    if len(table) != 18:
        raise ValueError(f"{len(table)} joints, expected 18 (COCO) or 25 (BODY_25)")
    return table[:, :2], table[:, 2]


def _pose(name: str, people: list[tuple[np.ndarray, np.ndarray]], skeleton: Skeleton, minimum_score: float) -> Pose:
    """Choose the most certain person and bring it to OpenPose's joints."""
    if not people:
        return Pose(name, np.zeros((18, 2), np.float32), np.zeros(18, np.float32))
    points, scores = max(people, key=lambda each: float(each[1].sum()))
    if not (np.isfinite(points).all() and np.isfinite(scores).all()):
        raise ValueError(f"{name}: NaN or infinite numbers")
    seen = (scores >= minimum_score) & (scores > 0)
    moved, visible = joints.convert(points, seen.astype(np.float32), skeleton, skeletons.OPENPOSE)
    return Pose(name, moved.astype(np.float32), visible)
