"""MPII's own annotation file, ``mpii_human_pose_v1_u12_1.mat``: nested MATLAB structures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastpose.data import matlab
from fastpose.data.person import OCCLUDED, VISIBLE


@dataclass(frozen=True, eq=False)
class RawPerson:
    """A person as an MPII file gives it, pixels from 1; ``stepped``: centre and scale include the crop step."""

    image: str
    keypoints: np.ndarray  # (16, 2)
    visibility: np.ndarray  # (16,) 0 unlabelled, 1 occluded, 2 visible
    center: Sequence[float] | np.ndarray
    scale: float
    index: int
    head_size: float | None = None
    head_box: np.ndarray | None = None  # (2, 2)
    stepped: bool = False


def read_official(path: Path, split: str) -> list[RawPerson]:
    """Read the sufficiently separated persons of the training photographs that have joints, centre and scale.

    The file knows no validation split: "train" and "val" take the photographs named in ``train_images.txt`` and
    ``valid_images.txt`` beside it; "trainval" takes all.
    """
    release = matlab.load(path, ["RELEASE"], struct_as_record=False, squeeze_me=True).get("RELEASE")
    if release is None:
        raise ValueError(f"{path}: not the MPII annotation file (no RELEASE)")
    wanted = _names_of_split(path.parent, split)
    training, separated = np.atleast_1d(release.img_train), _cells(release.single_person)
    persons: list[RawPerson] = []
    for number, entry in enumerate(_cells(release.annolist)):
        name = str(entry.image.name)
        if not training[number] or (wanted is not None and name not in wanted):
            continue
        people = _cells(getattr(entry, "annorect", None))
        for person_number in np.atleast_1d(separated[number]).astype(int):
            raw = _official_person(people, int(person_number) - 1, name, len(persons))
            persons.extend([raw] if raw is not None else [])
    return persons


def _names_of_split(folder: Path, split: str) -> set[str] | None:
    """Return the photograph names of a split, None for all."""
    if split == "trainval":
        return None
    listing = folder / {"train": "train_images.txt", "val": "valid_images.txt"}[split]
    if not listing.is_file():
        raise FileNotFoundError(
            f"mpii: {listing} not found; the official file has no {split} split: add that list of photographs "
            f"or pass split=trainval"
        )
    return set(listing.read_text(encoding="utf-8").split())


def _cells(value: Any) -> list[Any]:
    """Return a squeezed MATLAB array or single structure as a list; absent or empty gives []."""
    if value is None:
        return []
    return list(value) if isinstance(value, np.ndarray) and value.ndim else [value]


def _official_person(people: list[Any], at: int, name: str, index: int) -> RawPerson | None:
    """Return the person, or None where joints, centre or scale are absent."""
    if not 0 <= at < len(people):
        return None
    entry = people[at]
    points = _cells(getattr(getattr(entry, "annopoints", None), "point", None))
    place: Any = getattr(entry, "objpos", None)
    scale: Any = getattr(entry, "scale", None)
    if not points or not hasattr(place, "x") or np.size(scale) != 1:
        return None
    keypoints, labels = np.zeros((16, 2)), np.zeros(16, dtype=np.uint8)
    for point in points:
        keypoints[int(point.id)] = float(point.x), float(point.y)
        labels[int(point.id)] = _visibility(getattr(point, "is_visible", None))
    box = np.array([[entry.x1, entry.y1], [entry.x2, entry.y2]], dtype=np.float64)
    head_size = 0.6 * float(np.linalg.norm(box[1] - box[0]))
    center = (float(place.x), float(place.y))
    return RawPerson(name, keypoints, labels, center, float(scale), index, head_size, box)


def _visibility(flag: Any) -> int:
    """``is_visible`` is a number, a character, or empty (head and neck: always labelled as seen)."""
    if flag is None or np.size(flag) == 0:
        return VISIBLE
    return VISIBLE if int(np.asarray(flag).item()) > 0 else OCCLUDED
