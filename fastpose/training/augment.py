"""Training sets in which a portion of the images is real and the others are generated (system 001, section D)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastpose._files import publish, publish_json
from fastpose.data import keypoint_tables, pair_layouts
from fastpose.data.images import read_image, verify_image
from fastpose.data.keypoint_files import Pose
from fastpose.training import reid_data
from fastpose.training.reid_data import MANIFEST, UNFINISHED, Photo

Transfer = Callable[[np.ndarray, Pose, Sequence[Pose]], Sequence[np.ndarray]]
"""(photograph, its pose, target poses) -> one image per target: a ``PoseTransfer``."""


@dataclass(frozen=True)
class Plan:
    """Which images stay, and from which one each of the others is generated.

    Attributes:
        real: names of the images that stay, sorted.
        conditions: name of an image to be generated -> name of the real image of the same person that it is made from.
        fixed: how many of ``real`` stay because they cannot be generated.
        persons: how many of ``real`` stay because their person's others are generated from them.
    """

    real: tuple[str, ...]
    conditions: dict[str, str]
    fixed: int
    persons: int


@dataclass(frozen=True)
class Mixed:
    """A mixed training set that was written: its folder, how many images are real and generated, why some must stay."""

    folder: Path
    real: int
    generated: int
    fixed: int
    persons: int

    @property
    def reached(self) -> float:
        """The share of real images, which is more than the portion where more images must stay."""
        return self.real / (self.real + self.generated)


def plan(photos: Sequence[Photo], posed: Mapping[str, bool], portion: float, seed: int = 0) -> Plan:
    """Choose the images that stay, at random, from (names, portion, seed) alone.

    ``round(portion * N)`` of all N images stay. Among them are, whatever the draw says: images without any key point
    and those of no known person, which can neither be generated nor condition others; and of each person one image
    with key points, since without it the person's others had nothing to be generated from. Where these alone are more
    than the portion, they all stay. Each missing image is made from one of its person's real images with key points,
    drawn at random.

    Args:
        photos: the images of the training set.
        posed: image name -> whether it has key points.
        portion: 0 < portion <= 1.
        seed: of the draw, 0 or more.
    """
    _check_draw(portion, seed)
    rng = np.random.default_rng(seed)
    names = sorted(photo.path.name for photo in photos)
    identity = {photo.path.name: photo.identity for photo in photos}
    usable = {name for name in names if posed.get(name, False) and identity[name] > 0}
    drawn = [names[index] for index in rng.permutation(len(names))]
    kept = set(names) - usable
    fixed = len(kept)
    first: dict[int, str] = {}
    for name in drawn:
        if name in usable:
            first.setdefault(identity[name], name)
    kept |= set(first.values())
    wanted = round(portion * len(names))
    kept |= set([name for name in drawn if name not in kept][: max(0, wanted - len(kept))])
    sources: dict[int, list[str]] = {}
    for name in sorted(kept & usable):
        sources.setdefault(identity[name], []).append(name)
    conditions = {}
    for name in names:
        if name not in kept:
            choices = sources[identity[name]]
            conditions[name] = choices[int(rng.integers(len(choices)))]
    return Plan(tuple(sorted(kept)), conditions, fixed, len(first))


def market(
    root: str | Path,
    out: str | Path,
    transfer: Transfer,
    *,
    portion: float,
    seed: int = 0,
    about: Mapping[str, Any] | None = None,
    report: Callable[[int], None] = lambda count: None,
) -> Mixed:
    """Write a mixed training set of Market-1501 in the layout of the original.

    ``out`` gets the training folder with the same image names, so the same persons and counts; the key points and pair
    list of the training set, unchanged; ``manifest.jsonl``, a line {"name", "kind": "real" or "generated",
    "condition"} per image; and ``augmentation.json``. Until all of it is written, a file ``unfinished.txt`` lies there
    too, and no training takes the set. Real images are copied byte for byte, generated ones are JPEG (or PNG) of the
    original's size. The test set is not copied.

    Args:
        root: folder with ``train/`` and ``market-annotation-train.csv``; nothing is written there.
        out: a new or empty folder outside ``root``.
        transfer: draws a photograph's person in other poses.
        portion, seed: see `plan`.
        about: what to note beside portion and seed.
        report: called with the number of images of each step done.

    Raises:
        FileNotFoundError, ValueError: one sentence about the folders, the annotation or an image; nothing is written
            before all images of the training set are known to be whole.
    """
    _check_draw(portion, seed)
    train, table_path = _training_set(root)
    base, target = train.parent, Path(out).expanduser()
    _check_target(base, Path(root).expanduser(), target)
    photos = reid_data.read_folder(train)
    poses = _poses(keypoint_tables.read_table(table_path), photos)
    posed = {name: bool((pose.visibility > 0).any()) for name, pose in poses.items()}
    chosen = plan(photos, posed, portion, seed)
    folder = target / train.name
    folder.mkdir(parents=True, exist_ok=True)
    publish(target / UNFINISHED, "fastpose augment did not finish this set.\n")
    for name in chosen.real:
        publish(folder / name, (train / name).read_bytes())
        report(1)
    _generate(train, folder, chosen, poses, transfer, report)
    for path in (table_path, *(base / name.format(split="train") for name in pair_layouts.MARKET.lists)):
        if path.is_file():
            publish(target / path.name, path.read_bytes())
    mixed = Mixed(target, len(chosen.real), len(chosen.conditions), chosen.fixed, chosen.persons)
    publish_json(target / "augmentation.json", _about(mixed, portion, seed, about))
    publish(target / MANIFEST, _manifest(chosen))
    (target / UNFINISHED).unlink()
    return mixed


def _check_draw(portion: float, seed: int) -> None:
    if not 0 < portion <= 1:
        raise ValueError(f"portion: expected a share above 0 and at most 1, got {portion:g}")
    if seed < 0:
        raise ValueError(f"seed: expected 0 or more, got {seed}")


def _training_set(root: str | Path) -> tuple[Path, Path]:
    """Return the folder of training images and the file of their key points."""
    train = reid_data.folder(root, "train")
    if train is None:
        raise FileNotFoundError(f"market: no folder train or bounding_box_train under {root}; name the data set's root")
    reid_data.check_finished(train.parent)
    for name in pair_layouts.MARKET.annotations:
        path = train.parent / name.format(split="train")
        if path.is_file():
            return train, path
    raise FileNotFoundError(
        f"market: no market-annotation-train.csv in {train.parent}; the poses of the missing images are read from it"
    )


def _check_target(base: Path, root: Path, target: Path) -> None:
    """Raise unless a folder is new or empty and apart from the original."""
    if target.exists() and not target.is_dir():
        raise ValueError(f"{target}: is a file; expected a new folder")
    if target.is_dir() and any(target.iterdir()):
        raise ValueError(f"{target}: exists and is not empty; name a new folder, or remove this one")
    places = [Path(os.path.realpath(place)) for place in (base, root)]
    own = Path(os.path.realpath(target))
    if any(own == place or place in own.parents or own in place.parents for place in places):
        raise ValueError(f"{target}: lies in the original set {root}, or holds it; name a folder outside")


def _poses(table: keypoint_tables.KeypointTable, photos: Sequence[Photo]) -> dict[str, Pose]:
    """Return the pose of each image by name; an image that the table does not name has no joints.

    Every file is looked through: one that is cut off would be copied, or replaced, unnoticed.
    """
    rows = {name: row for row, name in enumerate(table.names)}
    nothing = np.zeros((keypoint_tables.JOINTS, 2), np.float32), np.zeros(keypoint_tables.JOINTS, np.uint8)
    poses = {}
    for photo in photos:
        name = photo.path.name
        row = rows.get(keypoint_tables.file_id(name) if table.by_id else name)
        keypoints, visibility = nothing if row is None else (table.keypoints[row], table.visibility[row])
        poses[name] = Pose(name, keypoints.astype(np.float32), visibility, verify_image(photo.path))
    return poses


def _generate(
    train: Path,
    folder: Path,
    chosen: Plan,
    poses: Mapping[str, Pose],
    transfer: Transfer,
    report: Callable[[int], None],
) -> None:
    """Write the missing images, those of one condition together."""
    from fastpose.visual.grids import save_image

    wanted: dict[str, list[str]] = {}
    for name, condition in chosen.conditions.items():
        wanted.setdefault(condition, []).append(name)
    for condition, names in sorted(wanted.items()):
        images = transfer(read_image(train / condition), poses[condition], [poses[name] for name in names])
        for name, image in zip(names, images, strict=True):
            size = poses[name].size or image.shape[:2]
            save_image(folder / name, reid_data.resize(np.asarray(image), size))
        report(len(names))


def _about(mixed: Mixed, portion: float, seed: int, about: Mapping[str, Any] | None) -> dict[str, Any]:
    counts = {"real": mixed.real, "generated": mixed.generated, "real_without_key_points": mixed.fixed}
    return {**(about or {}), "portion": portion, "reached": round(mixed.reached, 6), "seed": seed, **counts}


def _manifest(chosen: Plan) -> str:
    rows = [{"name": name, "kind": "real", "condition": None} for name in chosen.real]
    rows += [{"name": name, "kind": "generated", "condition": made} for name, made in chosen.conditions.items()]
    rows.sort(key=lambda row: str(row["name"]))
    return "".join(json.dumps(row) + "\n" for row in rows)
