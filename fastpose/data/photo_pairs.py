"""A user's own photographs as pairs: one sub-folder per identity, and key points of them all in one file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastpose import _checks, skeletons
from fastpose.data import images, keypoint_files, pairs
from fastpose.data.geometry import fit_matrix
from fastpose.data.keypoint_files import LEAST_SCORE, Pose
from fastpose.data.person import VISIBLE, Person, person
from fastpose.data.views import photo_view

KEYPOINTS = "keypoints.json"
# Of the box around the joints: hair, hands and feet reach beyond the last joint.
_MARGIN = 1.3


@dataclass(frozen=True)
class PhotosRead:
    """What a folder holds.

    Attributes:
        persons: photographs whose pose has enough joints.
        too_few: (photograph, number of joints) of the others.
        without: photographs that the key-point file does not name.
    """

    persons: list[Person]
    too_few: list[tuple[Path, int]]
    without: list[Path]


class PhotoPairs:
    """Every ordered pair of photographs in one sub-folder; each shows one person, cut to the box of its joints.

    Args:
        root: folder with ``anna/*.jpg``, ``ben/*.jpg`` ... and ``keypoints.json``.
        split: "train" and "val", divided by identity, or "all".
        annotation: the key-point file (``keypoint_files.read``), relative to ``root`` or absolute; names in it are
            matched by sub-folder and file name.
        size: (H, W) of the pictures.
        holdout: share of the identities in split "val".
        minimum_joints: photographs with fewer joints are left out (``fastpose data check photos`` names them).
        minimum_score: joints with a lower score are missing.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        *,
        annotation: str | None = None,
        size: tuple[int, int] = (256, 256),
        holdout: float = 0.2,
        minimum_joints: int = 6,
        minimum_score: float = LEAST_SCORE,
    ):
        _checks.choice("split", split, ("train", "val", "all"))
        found = read(root, annotation=annotation, minimum_joints=minimum_joints, minimum_score=minimum_score)
        persons = _part(found.persons, split, holdout)
        self.name, self.split, self.guide = "photos", split, "pose"
        self.skeleton, self.scored_joints = skeletons.OPENPOSE, tuple(range(18))
        self.size = (int(size[0]), int(size[1]))
        numbers = pairs.generate([entry.identity for entry in persons], [True] * len(persons))
        if not len(numbers):
            raise ValueError(
                f"photos: no sub-folder of {root} has two photographs with {minimum_joints} or more joints; add "
                f"photographs or lower minimum_joints (see fastpose data check photos {root})"
            )
        kept, self.pairs = pairs.only_used(numbers, len(persons))
        self.persons = [persons[index] for index in kept]

    def __len__(self) -> int:
        return len(self.pairs)

    def view(self, index: int, size: tuple[int, int], pixel_limit: int = images.PIXEL_LIMIT) -> dict[str, np.ndarray]:
        """Return image and joints of a person at ``size`` (see ``PairSource``)."""
        entry = self.persons[index]
        assert entry.bbox is not None
        # Key points of `fastpose predict` count pixels of the upright photograph.
        photo = images.read_image(entry.image, pixel_limit=pixel_limit, exif="apply")
        return photo_view(entry, photo, fit_matrix(entry.bbox, _MARGIN, size), size, size)


def _part(persons: list[Person], split: str, holdout: float) -> list[Person]:
    if split == "all":
        return persons
    held = pairs.held_out([entry.identity for entry in persons], holdout)
    return [entry for entry in persons if (entry.identity in held) == (split == "val")]


def photographs(root: Path) -> list[Path]:
    """Return the photographs in the sub-folders of ``root``, sorted."""
    return sorted(path for path in root.glob("*/*") if path.suffix.lower() in images.SUFFIXES)


def keypoint_file(root: Path, annotation: str | None = None) -> Path:
    """Return the key-point file of a folder; ``FileNotFoundError`` says how to make one."""
    path = root / (annotation or KEYPOINTS)
    if not path.exists():
        raise FileNotFoundError(
            f"photos: key points {path} not found; `fastpose predict {root}/* --weights W --save-keypoints {path}` "
            f"makes them (see fastpose data check photos {root})"
        )
    return path


def read(
    root: str | Path, *, annotation: str | None = None, minimum_joints: int = 6, minimum_score: float = LEAST_SCORE
) -> PhotosRead:
    """Read the photographs of a folder with their poses, which must be of photographs of that size."""
    root = Path(root)
    poses = _by_place(keypoint_files.read(keypoint_file(root, annotation), minimum_score=minimum_score))
    found, photos = PhotosRead([], [], []), photographs(root)
    stems = Counter(path.stem for path in photos)
    for path in photos:
        pose = poses.get((path.parent.name, path.name)) or poses.get((path.parent.name, path.stem))
        # OpenPose's files do not name the folder: they serve where no two photographs have one name.
        if pose is None and stems[path.stem] == 1:
            pose = poses.get(("", path.name)) or poses.get(("", path.stem))
        if pose is None:
            found.without.append(path)
        elif (joints := int(np.count_nonzero(pose.visibility))) < max(minimum_joints, 1):
            found.too_few.append((path, joints))
        else:
            _check_size(path, pose)
            found.persons.append(_person(path, pose, len(found.persons)))
    return found


def _check_size(path: Path, pose: Pose) -> None:
    """Raise for key points that count pixels of another size than the photograph's, upright or as stored."""
    try:
        size = images.image_size(path)
    except (OSError, ValueError):
        return  # what cannot be read is told when it is its turn
    if pose.size is not None and sorted(size) != sorted(pose.size):
        raise ValueError(
            f"image {path}: has {size[1]} x {size[0]} pixels, its key points count those of {pose.size[1]} x "
            f"{pose.size[0]}; find them anew (fastpose predict --save-keypoints)"
        )


def _by_place(poses: Sequence[Pose]) -> dict[tuple[str, str], Pose]:
    """Return poses by the last two parts of their image's name: folder and file."""
    places = {}
    for pose in poses:
        parts = pose.name.replace("\\", "/").split("/")
        places[(parts[-2] if len(parts) > 1 else "", parts[-1])] = pose
    return places


def _person(path: Path, pose: Pose, number: int) -> Person:
    points = pose.keypoints[pose.visibility > 0]
    low, high = points.min(0), points.max(0)
    wide, tall = high - low + 1
    return person(
        path,
        pose.keypoints,
        VISIBLE * (pose.visibility > 0),
        (low + high) / 2,
        _MARGIN * max(float(wide), float(tall)) / 200.0,
        bbox=np.array([*low, wide, tall]),
        image_id=number,
        person_id=number,
        identity=path.parent.name,
    )
