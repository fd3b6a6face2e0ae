"""Human3.6M from the layouts it is passed on in: the released backbone's (.h5), c2f-vol's (.h5, .mat), mmpose's (.npz).

Persons carry the 3D pose in millimetres of the camera frame. The data set itself is given out to registered users only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fastpose import _checks, skeletons
from fastpose.data import human36m_files as files
from fastpose.data.human36m_files import FrameName, Frames
from fastpose.data.human36m_places import annotation_path
from fastpose.data.person import (
    UNLABELLED,
    LazyPersons,
    Person,
    existing,
    finish,
    frozen,
    read_rows,
    reading,
    resolve_under,
)
from fastpose.data.pose3d import Pose3D, project
from fastpose.data.rendered_mocap import H36M_TO_MPII

SUBJECTS = {"train": ("S1", "S5", "S6", "S7", "S8"), "val": ("S9", "S11"), "test": ("S9", "S11")}
EVERY = {"all": (1, 1), "10fps": (5, 5), "1in64": (5, 64), "zhou": (5, 200)}
"""Frames kept, 1 in so many of the 50 a second, in training and in test."""

# mmpose's 17 joints in MPII's order (system 002, section 5); the spine stands where the thorax goes.
_TO_MPII = (3, 2, 1, 4, 5, 6, 0, 7, 8, 10, 16, 15, 14, 11, 12, 13)
_THORAX, _SHOULDERS = 7, (12, 13)
# c2f-vol's 17 joints begin with the left leg.
_LEGS_SWAPPED = (0, 4, 5, 6, 1, 2, 3, *range(7, 17))
_ORDERS = ("auto", "right_first", "left_first")
_UNITS = ("auto", "mm", "m")


class EveryError(ValueError):
    """``every`` does not go with the frames of a file: its path, and the sentence with "{every}" for the option."""

    def __init__(self, path: Path, sentence: str, option: str = "every") -> None:
        super().__init__(path, sentence, option)

    def __str__(self) -> str:
        path, sentence, option = self.args
        return f"{path}: {sentence.replace('{every}', option)}"

    def of(self, option: str) -> EveryError:
        """Return the same error where the option has another name."""
        path, sentence, _ = self.args
        return EveryError(path, sentence, option)


class Human36M:
    """Human3.6M persons of a split: S1, S5, S6, S7, S8 train; S9, S11 test, which "val" names as well.

    A file that ``fastpose data render`` wrote is taken whole. Where neither the annotation nor a ``cameras.pkl`` tells
    the camera, the pinhole that maps the 3D pose onto the key points by least squares stands in (ours). Cameras are
    pinholes throughout; the lens's distortion, which mmpose's key points follow, moves them by 0.4 to 1.2 px on average
    and 3.4 px at most on the four frames that mmpose publishes. c2f-vol's test has no key points: they are projected.

    Args:
        root: folder with the annotation and ``images/``.
        split: "train", "val" or "test".
        annotation: the annotation file, relative to ``root`` or absolute; default: the first known one found.
        image_folder: folder of the photographs, relative to ``root``; default: ``images``, or ``root`` where they lie
            there.
        cameras: pickle of the cameras, relative to ``root``; default: ``cameras.pkl`` near the annotation.
        subjects: others than those of the split.
        every: keep frames of the 50 fps video whose number is a multiple of it, or a name of ``EVERY``: "10fps" (1 in
            5), "1in64" and "zhou" (1 in 5 for training; 1 in 64, 1 in 200 for test), "all". A file that holds fewer
            frames is taken as it is, unless they are not among those asked for.
        skeleton: "mpii" (16 joints; the thorax is the middle of the shoulders, but for rendered files, whose joints
            are those of the body drawn) or "h36m" (17).
        order: "right_first" or "left_first" leg in the file's 17 joints; "auto": the leg on the right arm's side.
        unit: of the 3D poses, "mm" or "m"; "auto" by the size of the body.
        missing_images: "error" or "drop" persons whose photograph is absent.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        *,
        annotation: str | None = None,
        image_folder: str | None = None,
        cameras: str | None = None,
        subjects: Sequence[str] | None = None,
        every: int | str = "10fps",
        skeleton: str = "mpii",
        order: str = "auto",
        unit: str = "auto",
        missing_images: str = "error",
    ):
        persons = read(
            root, split, annotation=annotation, image_folder=image_folder, cameras=cameras, subjects=subjects,
            every=every, skeleton=skeleton, order=order, unit=unit,
        )  # fmt: skip
        self.name, self.split = "h36m", split
        self.skeleton = skeletons.get(skeleton)
        self.scored_joints = tuple(range(len(self.skeleton)))
        self.persons: Sequence[Person] = finish(
            "h36m", Path(root), persons, minimum_joints=1, on_missing=missing_images
        )

    def __len__(self) -> int:
        return len(self.persons)


def read(
    root: str | Path,
    split: str,
    *,
    annotation: str | None = None,
    image_folder: str | None = None,
    cameras: str | None = None,
    subjects: Sequence[str] | None = None,
    every: int | str = "10fps",
    skeleton: str = "mpii",
    order: str = "auto",
    unit: str = "auto",
) -> LazyPersons:
    """Read the persons of a split in the file's order and unchecked; arguments as ``Human36M``.

    Raises ``ValueError`` for a malformed file and when no frame of the split is in it, ``FileNotFoundError`` for a file
    that is not there.
    """
    _checks.choice("split", split, tuple(SUBJECTS))
    _checks.choice("skeleton", skeleton, ("mpii", "h36m"))
    _checks.choice("order", order, _ORDERS)
    _checks.choice("unit", unit, _UNITS)
    step, wanted = _step(every, split), SUBJECTS[split] if subjects is None else _names("subjects", subjects)
    path = annotation_path(root, split, annotation, step)
    frames = files.read_frames(path, lambda names, rendered: _rows(path, names, rendered, wanted, step, split))
    with reading(path), np.errstate(all="ignore"):  # what is not finite, `finish` refuses by name
        frames = _with_cameras(Path(root), path, frames, cameras)
        frames = _in_millimetres(_right_first(frames, order), unit)
        frames = _in_skeleton(path, _with_keypoints(frames), skeleton)
    folder = _image_folder(Path(root), image_folder, frames.names[0]) if frames.names else Path(root)
    read_rows(path, frames.names, lambda name, _: resolve_under(folder, name, path))
    with reading(path):
        return LazyPersons(np.arange(len(frames.names)), _Builder(_frozen(frames), folder))


def _step(every: int | str, split: str) -> int:
    """Return 1 in how many frames are kept."""
    if isinstance(every, str):
        _checks.choice("every", every, tuple(EVERY))
        return EVERY[every][split != "train"]
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise ValueError(f"every: expected a whole number from 1, or one of {', '.join(EVERY)}, got {every!r}")
    return every


def _names(argument: str, names: Sequence[str]) -> tuple[str, ...]:
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{argument}: expected names such as [S9, S11], got {names!r}")
    return tuple(names)


def _rows(
    path: Path, names: Sequence[str], rendered: bool, subjects: Sequence[str], step: int, split: str
) -> np.ndarray:
    """Return the rows of the subjects and frames wanted; all of a rendered file."""
    if rendered:
        return np.arange(len(names))
    told = [files.parse_name(name) for name in names]
    for name, entry in zip(names, told, strict=True):
        if entry is None:
            raise ValueError(
                f"{path}: photograph {name!r} does not tell subject, action, camera and frame; expected a name as "
                "S9_Posing_1.55011271_000006.jpg"
            )
    rows = [row for row, entry in enumerate(told) if entry and _is_wanted(entry, subjects, step)]
    if not rows:
        there = sorted({entry.subject for entry in told if entry})
        raise EveryError(
            path,
            f"no frame of split {split!r} (subjects {', '.join(subjects)}, 1 in {step} of 50 fps) among "
            f"{len(names):,} of {', '.join(there) or 'no subject'}; name another annotation, subjects or {{every}}",
        )
    _check_step(path, [entry for entry in told if entry and entry.subject in subjects], step)
    return np.array(rows)


def _check_step(path: Path, entries: Sequence[FrameName], step: int) -> None:
    """Refuse a step that hits the frames of a thinned file by chance only, which would thin it twice."""
    first: dict[tuple[str, str], int] = {}
    own = 0
    for entry in entries:
        own = math.gcd(own, entry.number - first.setdefault((entry.clip, entry.camera), entry.number))
    if own and step % own and own % step:
        raise EveryError(
            path,
            f"{{every}}: expected a multiple of {own}, since the file holds 1 in {own} of the 50 frames a second, got "
            f"1 in {step}; take {{every}}={math.lcm(own, step)}, {{every}}={own} for the whole file, or another "
            "annotation",
        )


def _is_wanted(name: FrameName, subjects: Sequence[str], step: int) -> bool:
    return name.subject in subjects and name.number % step == 0


def _with_cameras(root: Path, path: Path, frames: Frames, cameras: str | None) -> Frames:
    """Add the intrinsics from the pickle of the cameras, or fit them, unless the annotation has them."""
    if cameras is not None:
        found = existing("h36m", root / cameras, "cameras")
        return replace(frames, intrinsics=files.named_cameras(found, frames.names))
    if frames.intrinsics is not None or frames.keypoints is None:
        return frames
    beside = [folder / "cameras.pkl" for folder in (path.parent, path.parent.parent, root, root / "annotation_body3d")]
    for pickled in beside if frames.joints.shape[1] == 17 else ():
        if pickled.is_file():
            return replace(frames, intrinsics=files.named_cameras(pickled, frames.names))
    fitted = files.fitted_cameras(frames.joints, frames.keypoints, frames.visibility, frames.scale)
    return replace(frames, intrinsics=fitted)


def _right_first(frames: Frames, order: str) -> Frames:
    """Put the right leg first; the files agree on the arms, and tell their order of the legs by them."""
    joints = frames.joints
    if joints.shape[1] != 17:
        if order != "auto":
            raise ValueError(f"order: {order!r} is for files of 17 joints, this one holds the 16 of MPII; leave it out")
        return frames
    if order == "auto" and frames.told is not None:
        return frames  # as drawn
    if order == "auto":
        whole = joints[np.isfinite(joints).all((1, 2))]
        agree = ((whole[:, 1] - whole[:, 4]) * (whole[:, 14] - whole[:, 11])).sum()
        order = "left_first" if agree < 0 else "right_first"
    if order == "right_first":
        return frames
    moved = list(_LEGS_SWAPPED)
    keypoints = None if frames.keypoints is None else frames.keypoints[:, moved]
    return replace(frames, joints=joints[:, moved], keypoints=keypoints, visibility=frames.visibility[:, moved])


def _in_millimetres(frames: Frames, unit: str) -> Frames:
    """Bring poses to millimetres: no body reaches over 10 m, nor over less than 10 mm."""
    if unit == "auto":
        whole = frames.joints[np.isfinite(frames.joints).all((1, 2))]
        unit = "m" if len(whole) and np.median(np.ptp(whole, axis=1).max(-1)) < 10 else "mm"
    return replace(frames, joints=frames.joints * 1000.0) if unit == "m" else frames


def _with_keypoints(frames: Frames) -> Frames:
    """Project the joints where the file has no key points."""
    if frames.keypoints is not None or frames.intrinsics is None:
        return frames
    if (frames.joints[..., 2] < 1.0).any():
        raise ValueError(f"S: expected joints in front of the camera, found one at z = {frames.joints[..., 2].min():g}")
    pairs = zip(frames.joints, frames.intrinsics, strict=True)
    return replace(frames, keypoints=np.stack([project(pose, matrix) for pose, matrix in pairs if matrix is not None]))


def _in_skeleton(path: Path, frames: Frames, skeleton: str) -> Frames:
    """Re-index 17 joints to MPII's 16 unless asked not to, and put the thorax of a file not rendered between the
    shoulders.
    """
    count = frames.joints.shape[1]
    if skeleton == "h36m":
        if count != 17:
            raise ValueError(f"{path}: skeleton 'h36m' needs 17 joints, the file holds the {count} of MPII; use 'mpii'")
        return frames
    if frames.told is not None:
        keypoints = None if frames.keypoints is None else frames.keypoints[:, H36M_TO_MPII]
        joints, seen = frames.joints[:, H36M_TO_MPII], frames.visibility[:, H36M_TO_MPII]
        return replace(frames, joints=joints, keypoints=keypoints, visibility=seen)
    moved = list(_TO_MPII if count == 17 else range(16))
    keypoints = None if frames.keypoints is None else _between_shoulders(frames.keypoints[:, moved])
    seen = frames.visibility[:, moved]
    seen[:, _THORAX] = seen[:, _SHOULDERS].min(1)
    return replace(frames, joints=_between_shoulders(frames.joints[:, moved]), keypoints=keypoints, visibility=seen)


def _between_shoulders(points: np.ndarray) -> np.ndarray:
    """Return a copy of points (N, 16, D) with the thorax in the middle of the shoulders."""
    points = points.copy()
    points[:, _THORAX] = points[:, _SHOULDERS].mean(1)
    return points


def _image_folder(root: Path, named: str | None, first: str) -> Path:
    """Return the folder of the photographs: ``images``, or the root when the first photograph lies there."""
    if named is not None:
        return root / named
    return root if not (root / "images").is_dir() and (root / first).is_file() else root / "images"


def _frozen(frames: Frames) -> Frames:
    """Return arrays of the types and zeros that ``person`` gives, which nobody can change."""
    if frames.keypoints is None or frames.intrinsics is None:
        raise ValueError("neither key points nor cameras")
    labels = frames.visibility.astype(np.uint8)
    return replace(
        frames,
        joints=frozen(frames.joints),
        keypoints=frozen(np.where(labels[..., None] > UNLABELLED, frames.keypoints, 0.0)),
        visibility=frozen(labels, np.uint8),
        center=frozen(frames.center),
        intrinsics=_frozen_cameras(frames.intrinsics),
    )


def _frozen_cameras(cameras: Sequence[np.ndarray | None]) -> list[np.ndarray | None]:
    """Return read-only cameras; what is one array for many frames stays one."""
    own = {id(matrix): frozen(matrix, np.float64) for matrix in cameras if matrix is not None}
    return [None if matrix is None else own[id(matrix)] for matrix in cameras]


@dataclass(frozen=True, eq=False)
class _Builder:
    """Builds persons of ``_frozen`` frames by their position."""

    frames: Frames
    folder: Path

    def __call__(self, index: int) -> Person:
        frames, name = self.frames, self.frames.names[index]
        told = frames.told[index] if frames.told is not None else files.parse_name(name)
        assert told is not None
        assert frames.keypoints is not None
        assert frames.intrinsics is not None
        pose = Pose3D(frames.joints[index], frames.intrinsics[index], told.subject, told.action, told.camera, told.clip)
        row = int(frames.rows[index])
        return Person(
            self.folder / name,
            frames.keypoints[index],
            frames.visibility[index],
            frames.center[index],
            float(frames.scale[index]),
            image_id=row,
            person_id=row,
            identity=told.subject,
            camera=files.camera_number(told.camera),
            pose3d=pose,
        )
