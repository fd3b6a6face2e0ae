"""Leeds Sports Pose (2,000 photographs) and its extended training set (10,000), from the original ``joints.mat``."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from fastpose import _checks, skeletons
from fastpose.data import images, matlab
from fastpose.data.person import OCCLUDED, UNLABELLED, VISIBLE, Person, finish, person

# Crop side over the longest side of the key points' box, by the code that uses it (system 000, section 5):
# pytorch-pose and lsp.lua 368/256, mpii-lsp.lua 410/256, Chou et al. 1.25.
MARGINS = {"pytorch_pose": 368 / 256, "hg_sagan": 368 / 256, "hg_sagan_mpii": 410 / 256, "chou": 1.25}

# LSP's 14 joints inside the 16 of MPII; pelvis (6) and thorax (7) are midpoints.
_TO_MPII = (0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15, 8, 9)
_MIDPOINTS = {6: (2, 3), 7: (12, 13)}


class LSP:
    """Leeds Sports Pose; images 1-1000 are split "train", 1001-2000 "test"; "all" is both.

    Args:
        root: folder with ``joints.mat`` and ``images/`` (or the one that holds it as ``lsp_dataset``).
        split: "train", "test" or "all".
        skeleton: "lsp" (14 joints) or "mpii" (16; pelvis and thorax interpolated as midpoints).
        margin: crop side over the longest side of the key points' box, by name (``MARGINS``).
        center: "keypoints", the middle of the key points' box; or "image", the middle of the photograph as in
            the published LSP preparation (the photographs are cropped to the person).
        flags: meaning of flag 1 in the file: "occluded" (as distributed), "labelled", or "auto" to detect it.
        one_based: the file counts pixels from 1 (subtract 1).
        missing_images: "error" or "drop" persons whose photograph is absent.
        minimum_joints: persons with fewer labelled joints are left out.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        *,
        skeleton: str = "lsp",
        margin: str = "pytorch_pose",
        center: str = "keypoints",
        flags: str = "auto",
        one_based: bool = False,
        missing_images: str = "error",
        minimum_joints: int = 1,
    ):
        _checks.choice("split", split, ("train", "test", "all"))
        persons = read(root, "lsp", skeleton=skeleton, margin=margin, center=center, flags=flags, one_based=one_based)
        part = {"train": persons[:1000], "test": persons[1000:], "all": persons}[split]
        self.name, self.split = "lsp", split
        self.skeleton, self.scored_joints = _skeleton(skeleton)
        self.persons = finish("lsp", Path(root), part, minimum_joints=minimum_joints, on_missing=missing_images)

    def __len__(self) -> int:
        return len(self.persons)


class LSPExtended:
    """LSP extended training set: one person per photograph, crowd-sourced labels.

    The data set has no test split: the last ``holdout`` photographs form split "val", the rest "train".
    ``flags`` is "labelled" as distributed (flag 0: coordinates are meaningless); other arguments as ``LSP``.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        *,
        holdout: int = 0,
        skeleton: str = "lsp",
        margin: str = "pytorch_pose",
        center: str = "keypoints",
        flags: str = "auto",
        one_based: bool = False,
        missing_images: str = "error",
        minimum_joints: int = 1,
    ):
        _checks.choice("split", split, ("train", "val", "all"))
        persons = read(root, "lspet", skeleton=skeleton, margin=margin, center=center, flags=flags, one_based=one_based)
        if not 0 <= holdout < len(persons):
            raise ValueError(f"holdout: expected 0 to {len(persons) - 1} (photographs of lspet), got {holdout}")
        if split == "val" and not holdout:
            raise ValueError(
                "lspet has no test split: pass data.holdout=200 to hold out the last 200 photographs as val"
            )
        border = len(persons) - holdout
        part = {"train": persons[:border], "val": persons[border:], "all": persons}[split]
        self.name, self.split = "lspet", split
        self.skeleton, self.scored_joints = _skeleton(skeleton)
        self.persons = finish("lspet", Path(root), part, minimum_joints=minimum_joints, on_missing=missing_images)

    def __len__(self) -> int:
        return len(self.persons)


def _skeleton(name: str) -> tuple[skeletons.Skeleton, tuple[int, ...]]:
    """Return the skeleton and where LSP's 14 scored joints are in it, in LSP's order."""
    _checks.choice("skeleton", name, ("lsp", "mpii"))
    return skeletons.get(name), tuple(range(14)) if name == "lsp" else _TO_MPII


def folder(root: str | Path, name: str) -> Path:
    """Return the folder that holds ``joints.mat``: ``root`` or its usual sub-folder; FileNotFoundError if neither."""
    root = Path(root)
    usual = {"lsp": ("lsp_dataset", "lsp_dataset_original"), "lspet": ("lspet_dataset", "hr-lspet")}[name]
    for candidate in (root, *(root / part for part in usual)):
        if (candidate / "joints.mat").is_file():
            return candidate
    raise FileNotFoundError(
        f"{name}: {root / 'joints.mat'} not found; expected joints.mat and images/ there "
        f"(see fastpose data check {name} {root})"
    )


def read(
    root: str | Path,
    name: str,
    *,
    skeleton: str = "lsp",
    margin: str = "pytorch_pose",
    center: str = "keypoints",
    flags: str = "auto",
    one_based: bool = False,
) -> list[Person]:
    """Read every column of ``joints.mat`` as a person, in order and unchecked; image k belongs to column k - 1."""
    _checks.choice("margin", margin, tuple(MARGINS))
    _checks.choice("center", center, ("keypoints", "image"))
    base = folder(root, name)
    points, visibility = parse_joints(load_joints(base / "joints.mat"), flags)  # (N, 14, 2), (N, 14)
    points = points - float(one_based)
    width, suffix = _numbering(base, name)
    persons = []
    for index in range(len(points)):
        photo = base / "images" / f"im{index + 1:0{width}d}{suffix}"
        persons.append(_person(photo, index, points[index], visibility[index], skeleton, MARGINS[margin], center))
    return persons


def _numbering(base: Path, name: str) -> tuple[int, str]:
    """Return how many digits and which suffix the photographs' names have; as distributed when none is there."""
    for item in sorted((base / "images").glob("im*1.*"))[:1]:
        match = re.fullmatch(r"im(\d+)(\.\w+)", item.name)
        if match:
            return len(match[1]), match[2]
    return (4 if name == "lsp" else 5), ".jpg"


def load_joints(path: Path) -> np.ndarray:
    """Return the array ``joints`` of a ``joints.mat``; ValueError when the file holds no such array."""
    joints = matlab.load(path, ["joints"]).get("joints")
    if joints is None or joints.dtype.kind not in "fiub":
        found = "none" if joints is None else str(joints.dtype)
        raise ValueError(f"{path}: expected an array 'joints', found {found}; is this the data set's own joints.mat?")
    return joints.astype(np.float64)


def parse_joints(joints: np.ndarray, flags: str = "auto") -> tuple[np.ndarray, np.ndarray]:
    """Return key points float64 (N, 14, 2) and visibility uint8 (N, 14) from ``joints`` in either layout.

    Layouts: (3, 14, N) as LSP, (14, 3, N) as LSP extended; rows are x, y, flag. ``flags`` says what 1 means:
    "occluded", "labelled", or "auto": whichever leaves no meaningless coordinates labelled.
    """
    _checks.choice("flags", flags, ("auto", "occluded", "labelled"))
    if joints.ndim == 2:
        joints = joints[:, :, None]
    if joints.shape[:2] == (14, 3):
        table = joints.transpose(2, 0, 1)  # (N, 14, 3)
    elif joints.shape[:2] == (3, 14):
        table = joints.transpose(2, 1, 0)  # (N, 14, 3)
    else:
        raise ValueError(f"joints: expected (3, 14, N) or (14, 3, N), got {joints.shape}")
    meaning = _detect_flags(table, joints.shape[0]) if flags == "auto" else flags
    flagged = table[:, :, 2] > 0
    if meaning == "labelled":
        return table[:, :, :2], np.where(flagged, VISIBLE, UNLABELLED).astype(np.uint8)
    return table[:, :, :2], np.where(flagged, OCCLUDED, VISIBLE).astype(np.uint8)


def _detect_flags(table: np.ndarray, leading: int) -> str:
    """Tell the flag's meaning from where the coordinates are meaningless (0 or negative); else from the layout.

    Unlabelled joints carry such coordinates nearly always, occluded ones nearly never.
    """
    flagged = table[:, :, 2] > 0
    if flagged.all() or not flagged.any():
        return "labelled" if flagged.all() else "occluded"
    meaningless = np.any(table[:, :, :2] <= 0, axis=2)
    if meaningless[~flagged].mean() > 0.5:
        return "labelled"
    if meaningless[~flagged].mean() < 0.1 and leading == 3:
        return "occluded"
    return "occluded" if leading == 3 else "labelled"


def _person(
    photo: Path, index: int, points: np.ndarray, visibility: np.ndarray, skeleton: str, margin: float, center: str
) -> Person:
    """Build one person: crop from the box of the labelled joints, joints re-indexed when asked for."""
    middle, longest = keypoint_box(points[visibility > UNLABELLED])
    if center == "image":
        height, width = images.image_size(photo)
        middle = np.array([(width - 1) / 2, (height - 1) / 2])
    if skeleton == "mpii":
        points, visibility = to_mpii(points, visibility)
    scale = margin * longest / 200.0
    return person(photo, points, visibility, middle, scale, image_id=index + 1, person_id=index + 1)


def keypoint_box(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the middle (2,) and the longest side (at least 1 px) of the box around points (M, 2); zero for none."""
    if not len(points):
        return np.zeros(2), 1.0
    low, high = points.min(0), points.max(0)
    return (low + high) / 2, max(float((high - low).max()), 1.0)


def to_mpii(points: np.ndarray, visibility: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Re-index LSP's joints (14, 2), (14,) to MPII's (16, 2), (16,); a midpoint is labelled when both its ends are."""
    placed = np.zeros((16, 2))
    labels = np.zeros(16, dtype=np.uint8)
    placed[list(_TO_MPII)], labels[list(_TO_MPII)] = points, visibility
    for joint, (first, second) in _MIDPOINTS.items():
        placed[joint] = (placed[first] + placed[second]) / 2
        labels[joint] = min(labels[first], labels[second])
    return placed, labels
