"""MPII Human Pose from each published file: official .mat, stacked-hourglass .h5, pytorch-pose and HRNet JSON.

Files count pixels from 1; persons here count from 0. Every code moves the crop down by 15 * scale and widens it by
1.25, once: stacked-hourglass files hold the result, the others the raw numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fastpose import _checks, skeletons
from fastpose.data import hdf5, matlab
from fastpose.data.coco import read_json
from fastpose.data.mpii_official import RawPerson, read_official
from fastpose.data.person import (
    OCCLUDED,
    UNLABELLED,
    VISIBLE,
    Person,
    existing,
    finish,
    person,
    read_rows,
    reading,
    resolve_under,
)

OFFICIAL = "mpii_human_pose_v1_u12_1.mat"
# Searched in this order under annot/ and the root itself.
_FILES = {
    "train": ("train.json", "mpii_annotations.json", "train.h5", OFFICIAL),
    "val": ("valid.json", "mpii_annotations.json", "valid.h5", OFFICIAL),
    "trainval": ("trainval.json", "mpii_annotations.json", OFFICIAL),
}
# Pelvis and thorax are not scored by PCKh.
_SCORED = tuple(joint for joint in range(16) if joint not in (6, 7))


class MPII:
    """MPII persons of a split (Tompson's: 22,246 train, 2,958 val).

    Args:
        root: folder with ``images/`` and ``annot/`` (or the annotation file itself).
        split: "train", "val" or "trainval".
        annotation: the annotation file, relative to ``root`` or absolute; default: the first known file found.
            A stacked-hourglass or HRNet file holds one split and is taken whole.
        image_folder: folder of the photographs, relative to ``root``.
        ground_truth: ``gt_valid.mat`` (exact joints and head boxes of the 2,958 validation persons), relative to
            ``root``; default: used for "val" when it lies beside the annotation file and agrees with it.
        missing_images: "error" or "drop" persons whose photograph is absent.
        minimum_joints: persons with fewer labelled joints are left out.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        *,
        annotation: str | None = None,
        image_folder: str = "images",
        ground_truth: str | None = None,
        missing_images: str = "error",
        minimum_joints: int = 1,
    ):
        persons = read(root, split, annotation=annotation, image_folder=image_folder, ground_truth=ground_truth)
        self.name, self.split = "mpii", split
        self.skeleton, self.scored_joints = skeletons.MPII, _SCORED
        self.persons = finish("mpii", Path(root), persons, minimum_joints=minimum_joints, on_missing=missing_images)

    def __len__(self) -> int:
        return len(self.persons)


def read(
    root: str | Path,
    split: str,
    *,
    annotation: str | None = None,
    image_folder: str = "images",
    ground_truth: str | None = None,
) -> list[Person]:
    """Read the persons of a split in the file's order and unchecked."""
    _checks.choice("split", split, tuple(_FILES))
    path = annotation_path(root, split, annotation)
    folder = Path(root) / image_folder
    with reading(path, "a person"), np.errstate(all="ignore"):  # what is not finite, `finish` refuses by name
        raws = _read_file(path, split)
        numbers = {name: number for number, name in enumerate(dict.fromkeys(raw.image for raw in raws))}
        persons = read_rows(path, raws, lambda raw, _: _person(raw, folder, path, numbers[raw.image]))
    if ground_truth is not None:
        truth = GroundTruth.read(existing("mpii", Path(root) / ground_truth, "ground truth"))
        if not truth.agrees(persons):
            raise ValueError(f"{Path(root) / ground_truth}: its persons are not those of {path}; check ground_truth")
        return truth.attach(persons)
    beside = path.parent / "gt_valid.mat"
    if split == "val" and beside.is_file():
        truth = GroundTruth.read(beside)
        return truth.attach(persons) if truth.agrees(persons) else persons
    return persons


def annotation_path(root: str | Path, split: str, annotation: str | None = None) -> Path:
    """Return the annotation file of a split: the one named, or the first known one under ``annot/`` and ``root``."""
    if annotation is not None:
        return existing("mpii", Path(root) / annotation, "annotation file")
    for name in _FILES[split]:
        for folder in (Path(root) / "annot", Path(root)):
            if (folder / name).is_file():
                return folder / name
    raise FileNotFoundError(
        f"mpii: no annotation file for split {split!r} under {Path(root) / 'annot'}; expected one of "
        f"{', '.join(_FILES[split])} (see fastpose data check mpii {root})"
    )


def _read_file(path: Path, split: str) -> list[RawPerson]:
    """Read a file by its type."""
    if path.suffix == ".h5":
        return _read_hourglass(path)
    if path.suffix == ".mat":
        return read_official(path, split)
    rows = read_json(path)
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"{path}: expected a list of persons (HRNet or pytorch-pose JSON)")
    if "joint_self" not in rows[0]:
        return read_rows(path, rows, _hrnet)
    read = read_rows(path, rows, lambda row, index: _pytorch_pose(row, index) if _in_split(row, split) else None)
    return [raw for raw in read if raw is not None]


def _in_split(row: dict[str, Any], split: str) -> bool:
    """``isValidation`` is a number in some files and a boolean in others."""
    return split == "trainval" or (float(row["isValidation"]) != 0) == (split == "val")


def _pytorch_pose(row: dict[str, Any], index: int) -> RawPerson:
    """In ``joint_self`` a missing joint is (0, 0) and the third number tells visible from occluded."""
    table = np.asarray(row["joint_self"], dtype=np.float64)  # (16, 3)
    present = (table[:, :2] != 0).any(1)
    labels = np.where(present, np.where(table[:, 2] > 0, VISIBLE, OCCLUDED), UNLABELLED)
    return RawPerson(row["img_paths"], table[:, :2], labels, row["objpos"], row["scale_provided"], index)


def _hrnet(row: dict[str, Any], index: int) -> RawPerson:
    """``joints_vis`` is 1 for every labelled joint; occlusion is not told."""
    labels = np.where(np.asarray(row["joints_vis"]) > 0, VISIBLE, UNLABELLED)
    return RawPerson(
        row["image"], np.asarray(row["joints"], dtype=np.float64), labels, row["center"], row["scale"], index
    )


def _read_hourglass(path: Path) -> list[RawPerson]:
    """A missing joint is (0, 0); ``visible`` is 0 for missing and for occluded; the crop step is already taken."""
    shapes: dict[str, tuple[int, ...]] = {
        "part": (16, 2),
        "visible": (16,),
        "center": (2,),
        "scale": (),
        "normalize": (),
    }
    with hdf5.opened(path) as file:
        missing = {"imgname", *shapes} - set(file)
        if missing:
            raise ValueError(f"{path}: not a stacked-hourglass annotation file, lacks {', '.join(sorted(missing))}")
        content = {name: file[name] for name in shapes}
        names = [_text(name) for name in np.atleast_1d(file["imgname"])]
    for name, shape in shapes.items():
        if content[name].dtype.kind not in "fiub" or content[name].shape != (len(names), *shape):
            found = f"{content[name].dtype} {content[name].shape}"
            raise ValueError(f"{path}: {name}: expected numbers {(len(names), *shape)}, found {found}")
    present = (content["part"] != 0).any(2)  # (N, 16)
    labels = np.where(present, np.where(content["visible"] > 0, VISIBLE, OCCLUDED), UNLABELLED)
    return [
        RawPerson(
            names[index],
            content["part"][index],
            labels[index],
            content["center"][index],
            float(content["scale"][index]),
            index,
            head_size=float(content["normalize"][index]),
            stepped=True,
        )
        for index in range(len(names))
    ]


def _text(name: Any) -> str:
    """Names are byte strings, or rows of character codes in files written by Lua."""
    return name.decode() if isinstance(name, bytes) else bytes(np.asarray(name, np.uint8)).decode().strip("\0 ")


def _person(raw: RawPerson, folder: Path, listed_in: Path, image_id: int) -> Person:
    """Take the published crop step unless the file has, and count pixels from 0."""
    center, scale = np.array(raw.center, dtype=np.float64), float(raw.scale)
    shapes = (np.shape(raw.keypoints), np.shape(raw.visibility), center.shape)
    if shapes != ((16, 2), (16,), (2,)):
        raise ValueError(f"joints, labels and centre of shape {shapes}, expected (16, 2), (16,), (2,)")
    if not raw.stepped and center[0] != -1:
        center[1] += 15.0 * scale
        scale *= 1.25
    unstepped = scale / 1.25 if raw.stepped else float(raw.scale)
    # Without a head box its size follows from the scale, which MPII defines by it: 0.6 x diagonal = 25 x scale.
    head_size = 25.0 * unstepped if raw.head_size is None else raw.head_size
    return person(
        resolve_under(folder, raw.image, listed_in),
        raw.keypoints - 1.0,
        raw.visibility,
        center - 1.0,
        scale,
        head_box=None if raw.head_box is None else raw.head_box - 1.0,
        head_size=head_size,
        image_id=image_id,
        person_id=raw.index,
    )


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """``gt_valid.mat``: joints (N, 16, 2), labelled (N, 16) and head boxes (N, 2, 2), 0-based, in validation order."""

    joints: np.ndarray
    labelled: np.ndarray
    head_boxes: np.ndarray

    @classmethod
    def read(cls, path: Path) -> GroundTruth:
        """Read the file; ``ValueError`` when it is another MATLAB file."""
        shapes = {"pos_gt_src": (16, 2), "jnt_missing": (16,), "headboxes_src": (2, 2)}
        content = matlab.load(path, list(shapes))
        arrays = [content[name] for name in shapes if name in content]
        counts = {array.shape[-1] for array in arrays if array.ndim}
        fitting = [array.shape[:-1] for array in arrays] == list(shapes.values()) and len(counts) == 1
        if not fitting or any(array.dtype.kind not in "fiub" for array in arrays):
            raise ValueError(
                f"{path}: expected arrays of numbers {', '.join(f'{k} {v}' for k, v in shapes.items())} x N"
            )
        joints, missing, boxes = arrays
        if not (np.isfinite(joints).all() and np.isfinite(boxes).all()):
            raise ValueError(f"{path}: joints or head boxes are not finite; restore the file")
        return cls(joints.transpose(2, 0, 1) - 1.0, missing.T == 0, boxes.transpose(2, 0, 1) - 1.0)

    def agrees(self, persons: Sequence[Person]) -> bool:
        """Whether persons are the same, in the same order: nearly all common joints within 1.5 px."""
        if len(persons) != len(self.joints):
            return False
        points = np.stack([entry.keypoints for entry in persons])  # (N, 16, 2)
        both = self.labelled & (np.stack([entry.visibility for entry in persons]) > 0)
        near = np.abs(points - self.joints).max(2) < 1.5
        return bool(both.any() and near[both].mean() > 0.95)

    def attach(self, persons: Sequence[Person]) -> list[Person]:
        """Return the persons with these joints, head boxes and head sizes (0.6 x diagonal)."""
        return [self._attached(entry, index) for index, entry in enumerate(persons)]

    def _attached(self, entry: Person, index: int) -> Person:
        labels = np.where(self.labelled[index], np.maximum(entry.visibility, OCCLUDED), UNLABELLED)
        box = self.head_boxes[index]
        built = person(entry.image, self.joints[index], labels, entry.center, entry.scale, head_box=box)
        head_size = 0.6 * float(np.linalg.norm(box[1] - box[0]))
        return replace(
            entry, keypoints=built.keypoints, visibility=built.visibility, head_box=built.head_box, head_size=head_size
        )
