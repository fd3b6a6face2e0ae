"""COCO key points (2017): person annotations from the original JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from fastpose import _checks, skeletons
from fastpose.data.person import Person, existing, finish, person, read_rows, reading, resolve_under

# Margin around the annotated box, as in the published top-down pipelines.
BOX_MARGIN = 1.25


class COCOKeypoints:
    """Persons of ``annotations/person_keypoints_<split>2017.json``; crowd rows are never persons.

    Args:
        root: folder with ``annotations/`` and ``<split>2017/``.
        split: "train" or "val".
        annotation: another annotation file, relative to ``root`` or absolute.
        minimum_joints: persons with fewer labelled joints are left out (many have none).
        missing_images: "error" or "drop" persons whose photograph is absent.
        licences: keep only photographs with these licence ids of the JSON (4: CC BY, 5: CC BY-SA); empty: all.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        *,
        annotation: str | None = None,
        minimum_joints: int = 1,
        missing_images: str = "error",
        licences: tuple[int, ...] = (),
    ):
        _checks.choice("split", split, ("train", "val"))
        persons = read(root, split, annotation=annotation, licences=licences)
        self.name, self.split = "coco", split
        self.skeleton, self.scored_joints = skeletons.COCO, tuple(range(17))
        self.persons = finish("coco", Path(root), persons, minimum_joints=minimum_joints, on_missing=missing_images)

    def __len__(self) -> int:
        return len(self.persons)


def annotation_path(root: str | Path, split: str, annotation: str | None = None) -> Path:
    """Return the annotation file of a split."""
    return Path(root) / (annotation or f"annotations/person_keypoints_{split}2017.json")


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; ``ValueError`` names the file and the place of a syntax error."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON ({error}); restore the file") from None
    except ValueError:  # Python converts no more than 4,300 digits, and its own sentence names a function
        raise ValueError(f"{path}: holds a whole number with thousands of digits; restore the file") from None


def read_content(path: Path, what: str = "annotation file", needed: tuple[str, ...] = ("images", "annotations")) -> Any:
    """Return the content of a file of COCO's kind, which has the ``needed`` lists; ``what`` names an absent one.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no JSON, or lacks one of the lists.
    """
    content = read_json(existing("coco", path, what))
    if not isinstance(content, dict) or not set(needed) <= content.keys():
        raise ValueError(f"{path}: expected a COCO file with {' and '.join(map(repr, needed))}")
    return content


def keypoint_table(row: dict[str, Any], listed_in: Path) -> np.ndarray:
    """Return the key points of an annotation, float64 (17, 3) of x, y, visibility; zeros where it has none."""
    table = np.array(row.get("keypoints", [0] * 51), dtype=np.float64)
    if table.size != 51:
        raise ValueError(f"{listed_in}: annotation {row['id']} has {table.size} key-point numbers; expected 17 x 3")
    return table.reshape(17, 3)


def read(
    root: str | Path, split: str, *, annotation: str | None = None, licences: tuple[int, ...] = ()
) -> list[Person]:
    """Read every person that is no crowd row, in the file's order and unchecked."""
    path = annotation_path(root, split, annotation)
    content = read_content(path)
    folder = Path(root) / f"{split}2017"
    with reading(path, "an entry"):
        photos = {entry["id"]: entry for entry in content["images"]}
        rows = [row for row in content["annotations"] if not row.get("iscrowd", 0)]
        if licences:
            rows = [row for row in rows if photos[row["image_id"]].get("license") in licences]
        for row in rows:
            if row["image_id"] not in photos:
                raise ValueError(f"{path}: annotation {row['id']} names image {row['image_id']}, which is not listed")
        return read_rows(path, rows, lambda row, _: _person(folder, photos[row["image_id"]]["file_name"], row, path))


def _person(folder: Path, file_name: str, row: dict[str, Any], listed_in: Path) -> Person:
    table = keypoint_table(row, listed_in)
    x, y, width, height = (float(value) for value in row["bbox"])
    return person(
        resolve_under(folder, file_name, listed_in),
        table[:, :2],
        table[:, 2],
        np.array([x + width / 2, y + height / 2]),
        BOX_MARGIN * max(width, height, 1.0) / 200.0,
        bbox=np.array([x, y, width, height]),
        area=row.get("area"),
        image_id=row["image_id"],
        person_id=row["id"],
    )
