"""MPI-INF-3DHP: the official test set (TS1 to TS6), and mmpose's preparation of it and of the training set.

Both hold 17 joints in the order of the test set; persons have MPII's 16, with the 3D pose in millimetres of the camera
frame. The data set is for non-commercial research.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fastpose import _checks, skeletons
from fastpose.data import hdf5, matlab, npz_files
from fastpose.data import human36m_files as files
from fastpose.data.lsp import keypoint_box
from fastpose.data.person import (
    OCCLUDED,
    VISIBLE,
    Person,
    existing,
    finish,
    person,
    read_rows,
    reading,
    resolve_under,
)
from fastpose.data.pose3d import Pose3D

SEQUENCES = dict.fromkeys(("TS1", "TS2", "TS3", "TS4"), (2048, 2048)) | dict.fromkeys(("TS5", "TS6"), (1920, 1080))
"""The sequences of the test set with width and height of their photographs; the last two are outdoor."""

ACTIVITIES = ("Stand/Walk", "Exercise", "Sit on Chair", "Crouch/Reach", "On the Floor", "Sports", "Misc")
"""Activities 1 to 7 of ``activity_annotation``."""

POSES = ("univ_annot3", "annot3")

# Of the test set's 17 joints (head top, neck, right arm, left arm, right leg, left leg, pelvis, spine, head) those of
# MPII; the thorax is the middle of the shoulders, and the neck MPII's upper neck, as of Human3.6M.
_TO_MPII = (10, 9, 8, 11, 12, 13, 14, 1, 1, 0, 4, 3, 2, 5, 6, 7)
_THORAX, _SHOULDERS = 7, (12, 13)
# The 14 of the official 3DPCK, in its order.
_SCORED: tuple[int, ...] = (9, 8, 12, 11, 10, 13, 14, 15, 2, 1, 0, 3, 4, 5)
# Crop side over the longest side of the key points' box, in mmpose's preparation.
_MARGIN = 1.2
_NAME = re.compile(r"(?P<camera>(?P<subject>TS\d+|S\d+)(?P<take>_Seq\d+)?(?P<view>_Cam\d+)?)_(?P<frame>\d+)\.\w+")


class MPIINF3DHP:
    """MPI-INF-3DHP persons of a split; the official layout has the test split alone (2,929 valid frames).

    Args:
        root: folder with ``TS1`` to ``TS6`` (or the one that holds it as ``mpi_inf_3dhp_test_set``), or with mmpose's
            annotation.
        split: "test"; of mmpose's preparation also "train".
        annotation: mmpose's ``.npz``, relative to ``root`` or absolute; default: the official layout when it is there,
            else the first known file.
        poses: of the official layout: "univ_annot3", scaled to one skeleton, as its evaluation takes them, or "annot3".
        missing_images: "error" or "drop" persons whose photograph is absent.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "test",
        *,
        annotation: str | None = None,
        poses: str = "univ_annot3",
        missing_images: str = "error",
    ):
        persons = read(root, split, annotation=annotation, poses=poses)
        self.name, self.split = "mpi_inf_3dhp", split
        self.skeleton, self.scored_joints = skeletons.MPII, _SCORED
        self.persons = finish("mpi_inf_3dhp", Path(root), persons, minimum_joints=1, on_missing=missing_images)

    def __len__(self) -> int:
        return len(self.persons)


def read(
    root: str | Path, split: str = "test", *, annotation: str | None = None, poses: str = "univ_annot3"
) -> list[Person]:
    """Read the persons of a split in the files' order and unchecked; arguments as ``MPIINF3DHP``.

    Raises ``ValueError`` for a malformed file, ``FileNotFoundError`` when neither layout is there.
    """
    _checks.choice("split", split, ("train", "test"))
    _checks.choice("poses", poses, POSES)
    root = Path(root)
    official = sequence_folders(root)
    if annotation is None and official and split == "test":
        return [entry for folder in official for entry in _read_sequence(folder, poses)]
    path = _annotation_path(root, split, annotation, bool(official))
    return _read_prepared(root, path, split)


def holds_training(root: str | Path) -> bool:
    """Whether a folder has a training split, which the official test set has not."""
    try:
        return _annotation_path(Path(os.path.expanduser(root)), "train", None, False).is_file()
    except FileNotFoundError:
        return False


def sequence_folders(root: Path) -> list[Path]:
    """Return the folders of the official test sequences that are under ``root``, in order."""
    for base in (root, root / "mpi_inf_3dhp_test_set"):
        found = [base / name for name in SEQUENCES if (base / name / "annot_data.mat").is_file()]
        if found:
            return found
    return []


def _annotation_path(root: Path, split: str, annotation: str | None, official: bool) -> Path:
    if annotation is not None:
        return existing("mpi_inf_3dhp", root / annotation, "annotation file")
    names = (f"mpi_inf_3dhp_{split}.npz", f"mpi_inf_3dhp_{split}_valid.npz", f"test_3dhp_{split}.npz")
    for path in (folder / name for folder in (root, root / "annotations") for name in names):
        if path.is_file():
            return path
    if official:
        raise ValueError(
            f"mpi_inf_3dhp: {root} holds the official test sequences, which have no split {split!r}; pass split='test'"
        )
    raise FileNotFoundError(
        f"mpi_inf_3dhp: neither TS1/annot_data.mat (official test set) nor {names[0]} (mmpose) found under {root} "
        f"(see fastpose data check mpi_inf_3dhp {root})"
    )


# ------------------------------------------------------------------------------------------------ the official layout


def _read_sequence(folder: Path, poses: str) -> list[Person]:
    """Read the valid frames of one sequence; frame k is ``imageSequence/img_{k:06d}.jpg``, counted from 1."""
    path = folder / "annot_data.mat"
    with _mat_file(path) as content, reading(path):
        keypoints = _table(path, content("annot2"), "annot2", 2)
        joints = _table(path, content(poses), poses, 3)
        valid = np.asarray(content("valid_frame")).ravel() != 0
        activity = np.asarray(content("activity_annotation")).ravel()
    if not len(keypoints) == len(joints) == len(valid) == len(activity):
        counts = ", ".join(str(len(each)) for each in (keypoints, joints, valid, activity))
        raise ValueError(f"{path}: annot2, {poses}, valid_frame, activity_annotation hold {counts} frames; restore it")
    rows = np.flatnonzero(valid)
    if not len(rows):
        raise ValueError(f"{path}: expected valid frames, found none among {len(valid)}; restore the file")
    if not all((np.abs(values[rows]) <= files.LARGEST).all() for values in (keypoints, joints)):
        raise ValueError(f"{path}: expected pixels and millimetres, found numbers that are not finite or over 1e9")
    camera = _camera(joints[rows], keypoints[rows])

    def build(row: int, _: int) -> Person:
        kind = int(activity[row])
        if not 1 <= kind <= len(ACTIVITIES):
            raise ValueError(f"activity_annotation {kind} of frame {row + 1}, expected 1 to {len(ACTIVITIES)}")
        pose = Pose3D(joints[row], camera, folder.name, ACTIVITIES[kind - 1], "", folder.name)
        photo = folder / "imageSequence" / f"img_{row + 1:06d}.jpg"
        inside = ((keypoints[row] >= 0) & (keypoints[row] < SEQUENCES[folder.name])).all(1)
        return _person(photo, keypoints[row], np.where(inside, VISIBLE, OCCLUDED), pose, row + 1)

    return read_rows(path, rows.tolist(), build)


@contextmanager
def _mat_file(path: Path) -> Iterator[Callable[[str], np.ndarray]]:
    """Open a MATLAB file of either kind; arrays come with the axes of MATLAB reversed, as HDF5 stores them."""
    if hdf5.is_hdf5(path):
        with hdf5.opened(path) as file:
            yield file.__getitem__
    else:
        content = matlab.load(path, ("annot2", *POSES, "valid_frame", "activity_annotation"))
        yield lambda key: np.asarray(content[key]).T


def _table(path: Path, values: np.ndarray, key: str, coordinates: int) -> np.ndarray:
    """Return (N, 17, C) float64 of an array (N, 1, 17, C); MATLAB drops a single frame's axes."""
    if values.dtype.kind not in "fiu" or values.ndim < 2 or values.shape[-2:] != (17, coordinates):
        axes = f"{coordinates} x 17 x 1 x N"
        raise ValueError(f"{path}: {key}: expected numbers {axes} (MATLAB), found {values.dtype} {values.T.shape}")
    return values.reshape(-1, 17, coordinates).astype(np.float64)


def _camera(joints: np.ndarray, keypoints: np.ndarray) -> np.ndarray | None:
    """Return the pinhole (3, 3) that maps a sequence's joints (N, 17, 3) onto its key points, or None where none does.

    The files tell no intrinsics, but the camera of a sequence is fixed: all its joints determine it.
    """
    side = _MARGIN * float(np.median(np.ptp(keypoints, axis=1).max(1)))
    points = keypoints.reshape(1, -1, 2)
    seen = np.full(points.shape[:2], VISIBLE)
    return files.fitted_cameras(joints.reshape(1, -1, 3), points, seen, np.array([side / 200.0]))[0]


# ------------------------------------------------------------------------------------------------ mmpose's preparation


def _read_prepared(root: Path, path: Path, split: str) -> list[Person]:
    """Read mmpose's ``.npz``; intrinsics come from ``cameras_{split}.pkl`` beside it where that is there."""
    names, keypoints, joints, crops = _prepared_arrays(path)
    pickled = path.with_name(f"cameras_{split}.pkl")
    cameras = files.read_arrays_pickle(pickled) if pickled.is_file() else None
    folder = root / "images" if (root / "images").is_dir() else root

    def build(name: str, index: int) -> Person:
        told = _NAME.fullmatch(name.rsplit("/", 1)[-1])
        if told is None:
            raise ValueError(f"photograph {name!r}, expected a name as TS1_002001.jpg or S4_Seq2_Cam0_001033.jpg")
        camera = None if cameras is None else _intrinsics(pickled, cameras, told["camera"])
        clip, view = told["subject"] + (told["take"] or ""), (told["view"] or "_")[1:]
        pose = Pose3D(1000.0 * joints[index, :, :3], camera, told["subject"], "", view, clip)
        seen = np.where(keypoints[index, :, 2] > 0, VISIBLE, OCCLUDED)
        photo = resolve_under(folder, name, path)
        return _person(photo, keypoints[index, :, :2], seen, pose, index + 1, crop=crops[index])

    return read_rows(path, names, build)


def _prepared_arrays(path: Path) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """Return names, key points (N, 17, 3) with a weight, joints (N, 17, 4) in metres, and crops (N, 3): x, y, scale.

    Weights are 0 where a joint lies outside the photograph; its coordinates hold.
    """
    with reading(path), npz_files.opened(path) as content:
        names = [str(name) for name in content["imgname"]]
        shapes = {"part": (17, 3), "S": (17, 4), "center": (2,), "scale": ()}
        arrays = {key: content[key] for key in shapes}
    for key, shape in shapes.items():
        if arrays[key].dtype.kind not in "fiu" or arrays[key].shape != (len(names), *shape):
            raise ValueError(
                f"{path}: {key}: expected numbers {(len(names), *shape)}, found {arrays[key].dtype} {arrays[key].shape}"
            )
    crops = np.column_stack([arrays["center"], arrays["scale"]])
    return names, arrays["part"].astype(np.float64), arrays["S"].astype(np.float64), crops


def _intrinsics(path: Path, cameras: dict[Any, Any], name: str) -> np.ndarray:
    """Return (3, 3) from a camera's focal lengths ``f`` and principal point ``c``."""
    if name not in cameras:
        raise ValueError(f"{path}: " + _checks.unknown("camera", name, [str(key) for key in cameras]))
    matrix = np.eye(3)
    with reading(path, f"camera {name}"):
        matrix[[0, 1], [0, 1]] = np.asarray(cameras[name]["f"], np.float64).reshape(2)
        matrix[:2, 2] = np.asarray(cameras[name]["c"], np.float64).reshape(2)
    if not np.isfinite(matrix).all():
        raise ValueError(f"{path}: camera {name} has numbers that are not finite; restore the file")
    return matrix


def _person(
    photo: Path,
    keypoints: np.ndarray,
    visibility: np.ndarray,
    pose: Pose3D,
    number: int,
    *,
    crop: np.ndarray | None = None,
) -> Person:
    """Build one person from 17 joints in pixels and space; ``crop`` holds centre and scale (3,) where a file does."""
    if crop is None:
        middle, longest = keypoint_box(keypoints)
        crop = np.array([*middle, _MARGIN * longest / 200.0])
    labels = visibility[list(_TO_MPII)]
    labels[_THORAX] = labels[list(_SHOULDERS)].min()
    return person(
        photo,
        _to_mpii(keypoints),
        labels,
        crop[:2],
        float(crop[2]),
        image_id=number,
        person_id=number,
        identity=pose.subject,
        pose3d=replace(pose, joints=_to_mpii(pose.joints)),
    )


def _to_mpii(points: np.ndarray) -> np.ndarray:
    """Re-index 17 joints (17, D) to MPII's 16, the thorax between the shoulders."""
    placed = points[list(_TO_MPII)]
    placed[_THORAX] = placed[list(_SHOULDERS)].mean(0)
    return placed
