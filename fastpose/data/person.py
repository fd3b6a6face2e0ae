"""One annotated person, and the rules that every source of persons keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Protocol, TypeVar, overload

import numpy as np

from fastpose import _checks
from fastpose.data import images
from fastpose.data.pose3d import Pose3D
from fastpose.skeletons import Skeleton

Built = TypeVar("Built")

UNLABELLED, OCCLUDED, VISIBLE = 0, 1, 2


@dataclass(frozen=True, eq=False)
class Person:
    """A person in a photograph, in pixels of the original image (0-based, pixel centres at integers, x right, y down).

    Attributes:
        image: path of the photograph.
        keypoints: float32 (K, 2), (x, y); zero where unlabelled.
        visibility: uint8 (K,), 0 unlabelled, 1 labelled but occluded, 2 visible.
        center: float32 (2,), middle of the crop.
        scale: crop side / 200 px, with the margin that the source's convention adds.
        head_box: float32 (2, 2), [[x1, y1], [x2, y2]] of the head, or None.
        head_size: PCKh unit in pixels (0.6 x head-box diagonal), or None.
        bbox: float32 (4,), x, y, width, height of the person, or None.
        area: segment area in square pixels (OKS), or None.
        image_id: number of the photograph in its data set.
        person_id: number of the person in its data set.
        identity: name of the human (or item) shown; persons of one identity make a pair; empty where unknown.
        camera: number of the camera, or -1.
        pose3d: the joints in space (``data.pose3d``), or None.
    """

    image: Path
    keypoints: np.ndarray
    visibility: np.ndarray
    center: np.ndarray
    scale: float
    head_box: np.ndarray | None = None
    head_size: float | None = None
    bbox: np.ndarray | None = None
    area: float | None = None
    image_id: int = -1
    person_id: int = -1
    identity: str = ""
    camera: int = -1
    pose3d: Pose3D | None = None


class Source(Protocol):
    """Persons of one data set and split: what ``data.create`` returns.

    Attributes:
        name: registry name of the data set.
        split: the split that was asked for.
        skeleton: joint layout of ``Person.keypoints``.
        scored_joints: joint indices that the data set's published metric counts, in its own order.
        persons: the persons; a sample's ``index`` points into this sequence.
    """

    name: str
    split: str
    skeleton: Skeleton
    scored_joints: tuple[int, ...]

    @property
    def persons(self) -> Sequence[Person]: ...

    def __len__(self) -> int: ...


class PairSource(Source, Protocol):
    """Pairs of views of one identity: a source whose ``persons`` are taken two by two.

    Attributes:
        pairs: int64 (P, 2), indices (from, to) into ``persons``.
        size: (H, W) of the network's input.
        guide: what leads the transfer besides the image: "pose", "semantic" or "skeleton".
    """

    pairs: np.ndarray
    size: tuple[int, int]
    guide: str

    def view(self, index: int, size: tuple[int, int], pixel_limit: int) -> dict[str, np.ndarray]:
        """Return what the network sees of a person, at ``size``.

        image: uint8 (H, W, 3) RGB; and by ``guide`` keypoints float32 (18, 2) in its pixels with visibility float32
        (18,), labels uint8 (H, W), or skeleton uint8 (H, W).
        """
        ...


def person(
    image: Path,
    keypoints: np.ndarray,
    visibility: np.ndarray,
    center: np.ndarray,
    scale: float,
    *,
    head_box: np.ndarray | None = None,
    head_size: float | None = None,
    bbox: np.ndarray | None = None,
    area: float | None = None,
    image_id: int = -1,
    person_id: int = -1,
    identity: str = "",
    camera: int = -1,
    pose3d: Pose3D | None = None,
) -> Person:
    """Build a ``Person``: the types of the interface, coordinates zeroed where no label exists, frozen arrays.

    Raises ``ValueError`` for labels other than 0, 1 and 2.
    """
    told = np.asarray(visibility)
    if not ((told == UNLABELLED) | (told == OCCLUDED) | (told == VISIBLE)).all():
        raise ValueError("labels of joints: expected 0, 1 or 2, found others")
    labels = told.astype(np.uint8)
    points = np.where(labels[:, None] > UNLABELLED, _single(keypoints), np.float32(0))  # (K, 2)
    return Person(
        image,
        frozen(points),
        frozen(labels, np.uint8),
        frozen(center),
        float(scale),
        head_box=None if head_box is None else frozen(head_box),
        head_size=None if head_size is None else float(head_size),
        bbox=None if bbox is None else frozen(bbox),
        area=None if area is None else float(area),
        image_id=image_id,
        person_id=person_id,
        identity=identity,
        camera=camera,
        pose3d=None if pose3d is None else _frozen_pose(pose3d),
    )


class LazyPersons(Sequence[Person]):
    """Persons that are built when they are asked for, so that a large data set takes the memory of its arrays alone.

    Args:
        rows: int64 (N,), what ``build`` is called with for each person.
        build: makes a person; what is wrong with its data must have been found before.
    """

    def __init__(self, rows: np.ndarray, build: Callable[[int], Person]) -> None:
        self.rows, self.build = rows, build

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Person: ...
    @overload
    def __getitem__(self, index: slice) -> LazyPersons: ...
    def __getitem__(self, index: int | slice) -> Person | LazyPersons:
        if isinstance(index, slice):
            return self.picked(np.arange(len(self))[index])
        return self.build(int(self.rows[index]))

    def picked(self, indices: Sequence[int] | np.ndarray) -> LazyPersons:
        """Return the persons at some places of this sequence."""
        return LazyPersons(self.rows[np.asarray(indices, np.int64)], self.build)


def frozen(values: np.ndarray, dtype: type = np.float32) -> np.ndarray:
    """Return a read-only copy: persons are shared by metrics and loaders, and no one may change them."""
    array: np.ndarray = np.array(_single(values) if dtype is np.float32 else values, dtype=dtype)
    array.flags.writeable = False
    return array


def _single(values: np.ndarray) -> np.ndarray:
    """Return float32, infinite where a number is beyond it: ``finish`` refuses that by name."""
    with np.errstate(over="ignore"):
        return np.asarray(values).astype(np.float32)


def _frozen_pose(pose: Pose3D) -> Pose3D:
    intrinsics = None if pose.intrinsics is None else frozen(pose.intrinsics, np.float64)
    return replace(pose, joints=frozen(pose.joints), intrinsics=intrinsics)


def read_photo(source: Any, index: int, *, pixel_limit: int = images.PIXEL_LIMIT) -> np.ndarray:
    """Return the photograph of a source's person, uint8 (H, W, 3) RGB, from its file or from where the source has it.

    A source without files has ``photo(index)``. Raises as ``images.read_image``.
    """
    photo = getattr(source, "photo", None)
    if photo is not None:
        return photo(index)
    return images.read_image(source.persons[index].image, pixel_limit=pixel_limit)


@contextmanager
def reading(path: Path, entry: str = "") -> Iterator[None]:
    """Turn whatever malformed content of an annotation file raises into one ``ValueError`` that names the file.

    ``entry`` names the part being read, such as "row 3". A sentence that names the file already passes unchanged.
    """
    place = f"{path}: {entry}" if entry else f"{path}:"
    try:
        yield
    except KeyError as error:
        raise ValueError(f"{place} lacks {error}; restore the file, or name another annotation") from None
    except (ValueError, IndexError, AttributeError, TypeError, RecursionError, OverflowError) as error:
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        raise ValueError(f"{place} is malformed ({error}); restore the file, or name another annotation") from None


def read_rows(path: Path, rows: Iterable[Any], build: Callable[[Any, int], Built]) -> list[Built]:
    """Return ``build(row, index)`` of every row of an annotation file; a malformed row is one ``ValueError``."""
    built = []
    for index, row in enumerate(rows):
        with reading(path, f"row {index}"):
            built.append(build(row, index))
    return built


def resolve_under(root: Path, name: str, listed_in: Path) -> Path:
    """Return ``root / name``; a name from an annotation file that would leave ``root`` is a ``ValueError``."""
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    leaves = posix.is_absolute() or windows.drive or windows.root or ".." in posix.parts or ".." in windows.parts
    if not name or leaves or "\0" in name:
        raise ValueError(f"{listed_in}: image name {name!r} leaves the folder {root}; expected a name relative to it")
    return root / name


def missing_images(persons: Sequence[Person]) -> list[int]:
    """Return the indices of persons whose photograph is not on disk; every folder is listed once."""
    listed: dict[Path, set[str]] = {}
    absent = []
    for index, image in enumerate(entry.image for entry in persons):
        folder = image.parent
        if folder not in listed:
            listed[folder] = {item.name for item in folder.iterdir()} if folder.is_dir() else set()
        if image.name not in listed[folder]:
            absent.append(index)
    return absent


def not_finite(persons: Sequence[Person]) -> list[int]:
    """Return the indices of persons with NaN or infinite labelled coordinates, centre, scale, boxes or sizes."""
    return [index for index, entry in enumerate(persons) if not _is_finite(entry)]


def without_size(persons: Sequence[Person]) -> list[int]:
    """Return the indices of persons whose scale is 0 or less: nothing could be cropped."""
    return [index for index, entry in enumerate(persons) if entry.scale <= 0]


def _is_finite(entry: Person) -> bool:
    arrays = (entry.keypoints, entry.center, entry.scale, () if entry.pose3d is None else entry.pose3d.joints)
    told = (entry.head_box, entry.head_size, entry.bbox, entry.area)
    return all(np.isfinite(array).all() for array in (*arrays, *told) if array is not None)


def labelled(entry: Person) -> int:
    """Return how many joints of a person are labelled."""
    return int(np.count_nonzero(entry.visibility))


Persons = TypeVar("Persons", list[Person], LazyPersons)


def finish(name: str, root: Path, persons: Persons, *, minimum_joints: int, on_missing: str) -> Persons:
    """Hold raw persons to the rules of training: enough joints, finite coordinates, photographs on disk.

    ``minimum_joints`` drops persons with fewer labelled joints. ``on_missing``: "error" raises
    ``FileNotFoundError`` when a photograph is absent, "drop" leaves such persons out, unless that leaves nobody. Raises
    ``ValueError`` for non-finite coordinates, for a scale of 0 or less and when nobody has enough joints.
    """
    _checks.choice("missing_images", on_missing, ("error", "drop"))
    persons = _picked(persons, [index for index, entry in enumerate(persons) if labelled(entry) >= minimum_joints])
    persons = _with_images(name, root, persons, on_missing)
    for index in not_finite(persons)[:1]:
        entry = persons[index]
        raise ValueError(
            f"{name}: person {entry.person_id} on {entry.image.name} has NaN or infinite coordinates; "
            f"expected finite pixels (see fastpose data check {name} {root})"
        )
    for index in without_size(persons)[:1]:
        entry = persons[index]
        raise ValueError(
            f"{name}: person {entry.person_id} on {entry.image.name} has scale {entry.scale:g}; "
            f"expected a positive one (see fastpose data check {name} {root})"
        )
    if not persons:
        raise ValueError(f"{name}: no person with at least {minimum_joints} labelled joints found under {root}")
    return persons


def _picked(persons: Persons, indices: Sequence[int]) -> Persons:
    if isinstance(persons, LazyPersons):
        return persons.picked(indices)
    return [persons[index] for index in indices]


def _with_images(name: str, root: Path, persons: Persons, on_missing: str) -> Persons:
    """Drop, or refuse, persons without a photograph."""
    absent = missing_images(persons)
    if absent and len(absent) == len(persons) and on_missing == "drop":
        raise FileNotFoundError(
            f"{name}: none of the {len({entry.image for entry in persons}):,} images found, expected under "
            f"{persons[0].image.parent}; add them, or name the folder that holds them (see fastpose data check {name} "
            f"{root})"
        )
    if absent and on_missing == "error":
        photos, gone = {entry.image for entry in persons}, {persons[index].image for index in absent}
        first = persons[absent[0]].image
        raise FileNotFoundError(
            f"{name}: {len(photos) - len(gone):,} of {len(photos):,} images found under {first.parent}; first missing: "
            f"{first.name}; add them or pass missing_images=drop (see fastpose data check {name} {root})"
        )
    left_out = set(absent)
    return _picked(persons, [index for index in range(len(persons)) if index not in left_out]) if absent else persons


def existing(name: str, path: Path, what: str) -> Path:
    """Return ``path`` when the file is there, else raise ``FileNotFoundError`` naming the data set and its role."""
    if not path.is_file():
        raise FileNotFoundError(f"{name}: {what} {path} not found (see fastpose data check {name} {path.parent})")
    return path
