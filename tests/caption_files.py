"""Small files of COCO's kind with key points and captions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def person(number: int, image: int, *, labelled: int = 9, **changed: Any) -> Row:
    """An annotation whose first joints are labelled, alternately occluded and visible, inside of a box of 30 x 40."""
    triples = [[10 + joint, 22 + joint, 1 + joint % 2] if joint < labelled else [0, 0, 0] for joint in range(17)]
    row = {"id": number, "image_id": image, "iscrowd": 0, "bbox": [10.0, 20.0, 30.0, 40.0]}
    return row | {"keypoints": [value for triple in triples for value in triple]} | changed


def caption(image: int, text: Any) -> Row:
    return {"image_id": image, "id": 1, "caption": text}


def write(root: Path, rows: list[Any], captions: list[Any] | None = None, split: str = "val", name: str = "") -> Path:
    """Write both files of a split (``name``: another key-point file) and return the root."""
    folder = root / "annotations"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / (name or f"person_keypoints_{split}2017.json")).write_text(json.dumps({"annotations": rows}))
    if captions is not None:
        (folder / f"captions_{split}2017.json").write_text(json.dumps({"annotations": captions}))
    return root
