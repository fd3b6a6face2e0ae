"""Human3.6M's annotation files as arrays: the layouts of the released backbone's code, of c2f-vol and of mmpose.

Every layout names its photographs so that subject, action, camera and frame follow from the name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastpose.data import hdf5, matlab, npz_files, pose3d
from fastpose.data.array_pickles import line
from fastpose.data.array_pickles import read as read_arrays_pickle
from fastpose.data.person import OCCLUDED, UNLABELLED, VISIBLE, reading

ACTIONS = (
    *("Directions", "Discussion", "Eating", "Greeting", "Phoning", "Posing", "Purchases", "Sitting"),
    *("SittingDown", "Smoking", "Photo", "Waiting", "Walking", "WalkDog", "WalkTogether"),
)
"""Actions 2 to 16 of the data set; 1 is the calibration."""

CAMERAS = ("54138969", "55011271", "58860488", "60457274")
"""Cameras 1 to 4."""

# Some videos spell their action out.
_SPELLED_OUT = {"TakingPhoto": "Photo", "WalkingDog": "WalkDog", "WalkingTogether": "WalkTogether"}
_NAME = re.compile(r"(?P<subject>S\d+)_(?P<action>[A-Za-z]+)(?P<take>[ _]\d+)?\.(?P<camera>\d+)_(?P<number>\d+)")
_CODED = re.compile(r"s_(\d+)_act_(\d+)_subact_(\d+)_ca_(\d+)_(\d+)")

LARGEST = 1e9
"""Beyond every pixel, millimetre and number of a frame."""

# No joint is nearer to a camera, in millimetres or metres.
_NEAREST = 1e-3

# A camera fitted to a pose is believed when every joint falls this near, as a share of the crop's side.
_NEAR = 0.01

Keep = Callable[[Sequence[str], bool], np.ndarray]
"""From the photographs' names, and whether the file was rendered, to the rows wanted."""


@dataclass(frozen=True)
class FrameName:
    """What a photograph's name tells; ``number`` counts the 50 frames a second of the video from 0."""

    subject: str
    action: str
    camera: str
    clip: str
    number: int


@dataclass(frozen=True, eq=False)
class Frames:
    """Rows of an annotation file as stored: joints (N, K, 3) in the file's unit and order, pixels (N, K, 2).

    ``keypoints`` is None where the file has none; ``intrinsics`` is None or holds (3, 3), or None, for each row;
    ``told`` is what a rendered file says of its rows, None where the photographs' names tell it.
    """

    rows: np.ndarray
    names: list[str]
    joints: np.ndarray
    keypoints: np.ndarray | None
    visibility: np.ndarray
    center: np.ndarray
    scale: np.ndarray
    intrinsics: Sequence[np.ndarray | None] | None = None
    told: list[FrameName] | None = None


def camera_number(name: str) -> int:
    """Return 1 to 4 of Human3.6M's cameras, the number of a rendered picture's view ("v0"), -1 for another name."""
    if name in CAMERAS:
        return CAMERAS.index(name) + 1
    return int(name[1:]) if re.fullmatch(r"v\d{1,9}", name) else -1


def parse_name(name: str) -> FrameName | None:
    """Return what "S9_Posing_1.55011271_000006.jpg" or "s_09_act_07_subact_01_ca_02_000006.jpg" tells, else None."""
    stem = name.rsplit("/", 1)[-1]
    if match := _NAME.match(stem):
        subject, action, take = match["subject"], match["action"], match["take"] or ""
        clip = f"{subject}_{action}{take.replace(' ', '_')}"
        return FrameName(subject, _SPELLED_OUT.get(action, action), match["camera"], clip, int(match["number"]) - 1)
    if match := _CODED.match(stem):
        subject_number, action_number, take_number, camera, number = (int(text) for text in match.groups())
        if 2 <= action_number < 2 + len(ACTIONS) and 1 <= camera <= len(CAMERAS):
            action, clip = ACTIONS[action_number - 2], f"S{subject_number}_act_{action_number:02d}_{take_number}"
            return FrameName(f"S{subject_number}", action, CAMERAS[camera - 1], clip, number - 1)
    return None


def read_frames(path: Path, keep: Keep) -> Frames:
    """Read the wanted rows of an annotation file by what it holds.

    Raises:
        ValueError: not a file of one of the layouts, an array lacks or has another shape, lengths differ.
    """
    readers = {".npz": _read_mmpose, ".mat": _read_c2f_mat, ".h5": _read_h5}
    if path.suffix not in readers:
        raise ValueError(f"{path}: expected a .npz (mmpose), .mat (c2f-vol) or .h5 file; name another annotation")
    with reading(path):
        return readers[path.suffix](path, keep)


def _read_mmpose(path: Path, keep: Keep) -> Frames:
    """``S`` (N, 17, 4) with a weight, ``part`` (N, 17, 3); a rendered set adds ``intrinsics``, ``visibility`` and who
    does what: ``subject``, ``action``, ``camera`` and ``clip``.
    """
    with npz_files.opened(path) as content:
        names = [str(name) for name in content["imgname"]]
        rendered, count = "intrinsics" in content, len(names)
        rows = keep(names, rendered)
        told = _told(path, content, [names[row] for row in rows], rows, count) if rendered else None
        stored = _array(path, content, "S", (count, 17, 4))[rows]
        part = _array(path, content, "part", (count, 17, 3))[rows]
        boxes = [_array(path, content, key, shape)[rows] for key, shape in _crops(count)]
        extra = {
            key: _array(path, content, key, shape)[rows]
            for key, shape in (("intrinsics", (count, 3, 3)), ("visibility", (count, 17)))
            if key in content
        }
    if (stored[..., 3] == 0).any():
        raise ValueError(f"{path}: S: expected the position of all 17 joints in every row, found weights of 0")
    seen = extra.get("visibility", np.where(part[..., 2] > 0, VISIBLE, UNLABELLED))
    if not np.isin(seen, (UNLABELLED, OCCLUDED, VISIBLE)).all():
        raise ValueError(f"{path}: visibility: expected 0, 1 or 2, found other numbers")
    cameras = list(_finite(path, extra["intrinsics"])) if "intrinsics" in extra else None
    return Frames(rows, _take(names, rows), stored[..., :3], part[..., :2], seen, boxes[0], boxes[1], cameras, told)


def is_rendered(path: Path) -> bool:
    """Whether an .npz was written by ``fastpose data render``; False for what is no such file."""
    try:
        with npz_files.opened(path) as content:
            return "intrinsics" in content
    except (OSError, ValueError):
        return False


def _told(path: Path, content: Any, names: Sequence[str], rows: np.ndarray, count: int) -> list[FrameName]:
    """Return what a rendered file says of its rows; what it does not say is empty, a clip the photograph's folder."""
    words = {"clip": [str(Path(name).parent) for name in names]}
    for key in ("subject", "action", "camera", "clip"):
        if key in content:
            stored = np.asarray(content[key])
            if stored.dtype.kind != "U" or stored.shape != (count,):
                raise ValueError(f"{path}: {key}: expected {count} words, got {stored.dtype} {stored.shape}")
            words[key] = stored[rows].tolist()
        words.setdefault(key, [""] * len(names))
    columns = zip(words["subject"], words["action"], words["camera"], words["clip"], strict=True)
    return [FrameName(subject, action, camera, clip, 0) for subject, action, camera, clip in columns]


def _read_h5(path: Path, keep: Keep) -> Frames:
    """Tell the two .h5 layouts apart."""
    with hdf5.opened(path) as file:
        if "joint_2d" in file:
            return _read_coded(path, file, keep)
        if "S" in file:
            return _read_c2f_h5(path, file, keep)
        found = line(", ".join(sorted(file)))
    other = path.with_suffix(".mat").name
    raise ValueError(
        f"{path}: no 3D poses: expected joint_2d and joint_3d_mono, or S and part, found {found}; c2f-vol keeps those "
        f"of its test in {other}: name that as annotation"
    )


def _read_coded(path: Path, file: Any, keep: Keep) -> Frames:
    """The backbone's file: 16 joints in MPII's order, pixels of photographs cropped to 224 x 224."""
    count = file["id"].shape[0] if "id" in file else 0
    fields = ("subject", "action", "subaction", "camera", "id")
    columns = [_whole(path, key, _array(path, file, key, (count,))) for key in fields]
    clips = [f"s_{s:02d}_act_{a:02d}_subact_{b:02d}_ca_{c:02d}" for s, a, b, c in zip(*columns[:4], strict=True)]
    names = [f"{clip}/{clip}_{number:06d}.jpg" for clip, number in zip(clips, columns[4], strict=True)]
    rows = keep(names, False)
    keypoints = _array(path, file, "joint_2d", (count, 16, 2))[rows]
    joints = _array(path, file, "joint_3d_mono", (count, 16, 3))[rows]
    seen = np.full(keypoints.shape[:2], VISIBLE)
    center, scale = np.full((len(rows), 2), (224 - 1) / 2), np.full(len(rows), 224 / 200)
    return Frames(rows, _take(names, rows), joints, keypoints, seen, center, scale)


def _whole(path: Path, key: str, values: np.ndarray) -> list[int]:
    if not (np.isfinite(values) & (values == np.round(values))).all():
        raise ValueError(f"{path}: {key}: expected whole numbers, found others; restore the file")
    return values.astype(int).tolist()


def _read_c2f_h5(path: Path, file: Any, keep: Keep) -> Frames:
    """c2f-vol's training layout: ``S`` and ``part``, the photographs' names in a text file beside."""
    names = _listed(path)
    count, rows = len(names), keep(names, False)
    joints = _array(path, file, "S", (count, 17, 3))[rows]
    keypoints = _array(path, file, "part", (count, 17, 2))[rows]
    center, scale = (_array(path, file, key, shape)[rows] for key, shape in _crops(count))
    return Frames(rows, _take(names, rows), joints, keypoints, np.full(joints.shape[:2], VISIBLE), center, scale)


def _read_c2f_mat(path: Path, keep: Keep) -> Frames:
    """c2f-vol's test layout: a structure ``annot`` with ``S`` (N, 3, 17) and the camera ``K``, but no 2D joints."""
    annot = matlab.load(path, ["annot"]).get("annot")
    if annot is None or annot.dtype.names is None or annot.size != 1:
        raise ValueError(f"{path}: not c2f-vol's annotation file (no structure annot); restore it")
    annot = annot.ravel()[0]
    names = [str(np.ravel(name)[0]) for name in np.ravel(annot["imgname"])]
    names = [name if Path(name).suffix == ".jpg" else f"{name}.jpg" for name in names]
    count, rows = len(names), keep(names, False)
    content = {"S": annot["S"], "center": annot["center"], "scale": np.ravel(annot["scale"])}
    joints = _array(path, content, "S", (count, 3, 17))[rows].transpose(0, 2, 1)
    center, scale = (_array(path, content, key, shape)[rows] for key, shape in _crops(count))
    stored = np.ravel(annot["K"])
    if len(stored) != count:
        raise ValueError(f"{path}: K: expected {count} cameras, one for each photograph, found {len(stored)}")
    cameras = [_finite(path, _array(path, {"K": stored[row]}, "K", (3, 3))) for row in rows]
    return Frames(rows, _take(names, rows), joints, None, np.full(joints.shape[:2], VISIBLE), center, scale, cameras)


def _crops(count: int) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return ("center", (count, 2)), ("scale", (count,))


def _take(names: Sequence[str], rows: np.ndarray) -> list[str]:
    return [names[row] for row in rows]


def _listed(path: Path) -> list[str]:
    listing = path.with_name(f"{path.stem}_images.txt")
    if not listing.is_file():
        raise ValueError(f"{path}: the photographs' names {listing.name} are not beside it; add that file")
    return listing.read_text(encoding="utf-8").split()


def _array(path: Path, content: Any, key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return ``content[key]`` as float64; ``ValueError`` when it is absent, not of numbers, or of another shape."""
    if key not in content:
        raise ValueError(f"{path}: lacks array {key!r}, expected {shape}; restore the file, or name another annotation")
    values = np.asarray(content[key])
    if values.dtype.kind not in "fiub" or values.shape != shape:
        raise ValueError(f"{path}: {key}: expected numbers {shape}, got {values.dtype} {values.shape}")
    values = values.astype(np.float64)
    if (np.abs(values[np.isfinite(values)]) > LARGEST).any():
        raise ValueError(f"{path}: {key}: expected pixels, millimetres or numbers of frames, found numbers over 1e9")
    return values


def named_cameras(path: Path, names: Sequence[str]) -> list[np.ndarray]:
    """Return the intrinsics (3, 3) of each photograph by subject and camera, without the lens's distortion.

    Raises ``ValueError`` for a photograph whose camera the file does not have.
    """
    cameras, built = read_arrays_pickle(path), {}
    with reading(path):
        for key in {(told.subject, told.camera) for told in map(parse_name, names) if told is not None}:
            if key not in cameras:
                raise ValueError(f"{path}: no camera {key[1]} of subject {key[0]}; restore the file")
            built[key] = _intrinsics(path, cameras[key])
    found = []
    for name in names:
        told = parse_name(name)
        if told is None:
            raise ValueError(f"{name}: tells no subject and camera, so {path} has no intrinsics for it")
        found.append(built[told.subject, told.camera])
    return found


def _intrinsics(path: Path, camera: dict[str, Any]) -> np.ndarray:
    """Return (3, 3) from ``K`` or from the focal lengths ``f`` and the principal point ``c``."""
    matrix = np.eye(3)
    if "K" in camera:
        matrix[:2] = np.asarray(camera["K"], np.float64)[:2, :3]
    else:
        matrix[[0, 1], [0, 1]] = np.asarray(camera["f"], np.float64).reshape(2)
        matrix[:2, 2] = np.asarray(camera["c"], np.float64).reshape(2)
    return _finite(path, matrix)


def _finite(path: Path, cameras: np.ndarray) -> np.ndarray:
    if not np.isfinite(cameras).all():
        raise ValueError(f"{path}: expected finite cameras, found NaN or infinity; restore the file")
    return cameras


def fitted_cameras(
    joints: np.ndarray, keypoints: np.ndarray, visibility: np.ndarray, scale: np.ndarray
) -> list[np.ndarray | None]:
    """Return for each pose the pinhole (3, 3) that maps joints (N, K, 3) onto pixels (N, K, 2), by least squares.

    None where the joints are not in front of the camera, do not determine one, or one lands farther from its key point
    than 1 % of the crop's side (200 * ``scale``, (N,)).
    """
    return [
        _fitted(pose[seen], points[seen], _NEAR * 200.0 * side)
        for pose, points, seen, side in zip(joints, keypoints, visibility > UNLABELLED, scale, strict=True)
    ]


def _fitted(pose: np.ndarray, points: np.ndarray, near: float) -> np.ndarray | None:
    if len(pose) < 3 or not (pose[:, 2] > _NEAREST).all() or not np.isfinite(points).all():
        return None
    rays = pose[:, :2] / pose[:, 2:]  # (K, 2)
    spread = ((rays - rays.mean(0)) ** 2).sum(0)
    if not (spread > 1e-9).all():
        return None
    focal = ((rays - rays.mean(0)) * (points - points.mean(0))).sum(0) / spread
    matrix = np.eye(3)
    matrix[[0, 1], [0, 1]], matrix[:2, 2] = focal, points.mean(0) - focal * rays.mean(0)
    errors = np.abs(pose3d.project(pose, matrix) - points)
    return matrix if (focal > 0).all() and errors.max() < near else None
