"""The bundled sample: persons cut from freely licensed COCO photographs (see sample/ATTRIBUTION.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastpose import _checks, skeletons
from fastpose.data.coco import read_json
from fastpose.data.person import Person, existing, finish, person, reading, resolve_under

FOLDER = Path(__file__).parent / "sample"


class SamplePersons:
    """Persons of the bundled sample, COCO's 17 joints; photographs of "train" and "val" are disjoint.

    Args:
        split: "train", "val" or "all".
        minimum_joints: persons with fewer labelled joints are left out.
    """

    def __init__(self, split: str = "train", *, minimum_joints: int = 1):
        _checks.choice("split", split, ("train", "val", "all"))
        self.name, self.split = "sample", split
        self.skeleton, self.scored_joints = skeletons.COCO, tuple(range(17))
        self.persons = finish("sample", FOLDER, read(FOLDER, split), minimum_joints=minimum_joints, on_missing="error")

    def __len__(self) -> int:
        return len(self.persons)


def read(folder: Path, split: str) -> list[Person]:
    """Read the persons of a split in the file's order and unchecked."""
    path = existing("sample", folder / "annotations.json", "annotation file")
    with reading(path, "an entry"):
        return _persons(folder, path, split)


def _persons(folder: Path, path: Path, split: str) -> list[Person]:
    persons = []
    for row in read_json(path)["persons"]:
        if split not in ("all", row["split"]):
            continue
        table = np.array(row["keypoints"], dtype=np.float64).reshape(-1, 3)
        x, y, width, height = row["bbox"]
        persons.append(
            person(
                resolve_under(folder, row["file_name"], path),
                table[:, :2],
                table[:, 2],
                np.array([x + width / 2, y + height / 2]),
                1.25 * max(width, height) / 200.0,
                bbox=np.array([x, y, width, height]),
                area=row["area"],
                image_id=row["image_id"],
                person_id=row["annotation_id"],
                identity=f"{row['image_id']}-{row['annotation_id']}",
            )
        )
    return persons
