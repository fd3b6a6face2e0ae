"""Make the sample of photographs that is bundled with the package, from COCO 2017.

    python examples/build_sample.py COCO_ROOT OUT

COCO_ROOT holds ``annotations/``, ``train2017/`` and ``val2017/``; photographs that are absent are passed over. Persons
with at least eight labelled joints, in no crowd, on photographs under CC BY 2.0 or CC BY-SA 2.0 are kept. Each is
cut out with a margin and made smaller where it is large; OUT receives ``images/``, ``annotations.json`` and
``ATTRIBUTION.md``. The same input gives the same files.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastpose.data.coco import read_json
from fastpose.data.images import read_image

LICENCES = {
    4: ("CC BY 2.0", "https://creativecommons.org/licenses/by/2.0/"),
    5: ("CC BY-SA 2.0", "https://creativecommons.org/licenses/by-sa/2.0/"),
}
MINIMUM_JOINTS = 8
MARGIN = 1.5  # side of the cut square over the longest side of the person
PERSON_SIDE = 288  # longest side of a person after shrinking, pixels
JPEG_QUALITY = 88
VALIDATION_SHARE = 0.25

# A photograph may stand in several files; the first one that lists a person gives its annotation.
_ANNOTATIONS = (
    ("person_keypoints_val2017.json", "val2017"),
    ("person_keypoints_val2017_one_per_image.json", "val2017"),
    ("person_keypoints_train2017.json", "train2017"),
)


@dataclass(frozen=True)
class Candidate:
    """A person to bundle: its photograph's entry and its annotation in the COCO file."""

    path: Path
    photo: dict[str, Any]
    row: dict[str, Any]


def build_sample(coco_root: str | Path, out: str | Path) -> int:
    """Write the sample to ``out`` and return its number of persons."""
    candidates = find_persons(Path(coco_root))
    validation = choose_validation(candidates)
    (Path(out) / "images").mkdir(parents=True, exist_ok=True)
    persons = [_write_person(candidate, Path(out), validation) for candidate in candidates]
    content = {"annotations": "COCO 2017, CC BY 4.0", "skeleton": "coco", "persons": persons}
    rows = ",\n".join(json.dumps(entry) for entry in persons)
    head = json.dumps({key: value for key, value in content.items() if key != "persons"})[:-1]
    (Path(out) / "annotations.json").write_text(f'{head}, "persons": [\n{rows}\n]}}\n', encoding="utf-8")
    (Path(out) / "ATTRIBUTION.md").write_text(attribution(candidates, persons), encoding="utf-8")
    return len(persons)


def find_persons(coco_root: Path) -> list[Candidate]:
    """Return the persons that qualify and whose photograph is there, ordered by photograph and annotation."""
    found: dict[int, Candidate] = {}
    for name, folder in _ANNOTATIONS:
        listing = coco_root / "annotations" / name
        if not listing.is_file():
            continue
        content = read_json(listing)
        photos = {photo["id"]: photo for photo in content["images"]}
        for row in content["annotations"]:
            photo = photos[row["image_id"]]
            path = coco_root / folder / photo["file_name"]
            if _qualifies(row, photo) and path.is_file():
                found.setdefault(row["id"], Candidate(path, photo, row))
    return sorted(found.values(), key=lambda candidate: (candidate.photo["id"], candidate.row["id"]))


def _qualifies(row: dict[str, Any], photo: dict[str, Any]) -> bool:
    return not row["iscrowd"] and row["num_keypoints"] >= MINIMUM_JOINTS and photo["license"] in LICENCES


def choose_validation(candidates: list[Candidate]) -> set[int]:
    """Return the photograph ids of split "val": every fourth photograph until a quarter of the persons is in."""
    photos = list(dict.fromkeys(candidate.photo["id"] for candidate in candidates))
    wanted = VALIDATION_SHARE * len(candidates)
    chosen: set[int] = set()
    for photo in [photo for start in range(4) for photo in photos[start::4]]:
        if sum(candidate.photo["id"] in chosen for candidate in candidates) >= wanted:
            break
        chosen.add(photo)
    return chosen


def _write_person(candidate: Candidate, out: Path, validation: set[int]) -> dict[str, Any]:
    """Write one cut-out and return its entry for ``annotations.json``."""
    import cv2

    photo_id, row = candidate.photo["id"], candidate.row
    image = read_image(candidate.path)
    left, top, right, bottom = _window(row, image.shape[:2])
    cut = image[top:bottom, left:right]
    shrink = min(1.0, PERSON_SIDE / max(row["bbox"][2:]))
    width, height = (max(1, round(side * shrink)) for side in (right - left, bottom - top))
    small = cv2.resize(cut, (width, height), interpolation=cv2.INTER_AREA) if shrink < 1 else cut
    name = f"images/{photo_id:012d}_{row['id']}.jpg"
    encoded = cv2.imencode(".jpg", np.ascontiguousarray(small[:, :, ::-1]), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    (out / name).write_bytes(encoded.tobytes())
    ratio = np.array([width / (right - left), height / (bottom - top)])
    return {
        "file_name": name,
        "image_id": photo_id,
        "annotation_id": row["id"],
        "split": "val" if photo_id in validation else "train",
        "license": candidate.photo["license"],
        "bbox": _moved_box(row["bbox"], np.array([left, top]), ratio),
        "area": round(float(row["area"] * ratio.prod()), 1),
        "keypoints": _moved_keypoints(row["keypoints"], np.array([left, top]), ratio),
    }


def _window(row: dict[str, Any], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom of the square around box and joints, clipped to the photograph."""
    x, y, width, height = row["bbox"]
    table = np.array(row["keypoints"], dtype=np.float64).reshape(-1, 3)
    labelled = table[table[:, 2] > 0, :2]
    low = np.minimum([x, y], labelled.min(0))
    high = np.maximum([x + width, y + height], labelled.max(0))
    middle, half = (low + high) / 2, MARGIN * (high - low).max() / 2
    left, top = (int(value) for value in np.maximum(np.floor(middle - half), 0))
    right, bottom = (int(value) for value in np.minimum(np.ceil(middle + half), [size[1], size[0]]))
    return left, top, right, bottom


def _moved_keypoints(keypoints: list[float], corner: np.ndarray, ratio: np.ndarray) -> list[float]:
    """Return (x, y, v) triples in the cut-out; pixel centres are at integers before and after; (0, 0, 0) unlabelled."""
    table = np.array(keypoints, dtype=np.float64).reshape(-1, 3)
    table[:, :2] = np.round((table[:, :2] - corner + 0.5) * ratio - 0.5, 2)
    table[table[:, 2] == 0] = 0
    return [int(value) if value == int(value) else value for value in table.ravel().tolist()]


def _moved_box(bbox: list[float], corner: np.ndarray, ratio: np.ndarray) -> list[float]:
    place, size = (np.array(bbox[:2]) - corner) * ratio, np.array(bbox[2:]) * ratio
    return [round(float(value), 2) for value in (*place, *size)]


def attribution(candidates: list[Candidate], persons: list[dict[str, Any]]) -> str:
    """Return the text of ATTRIBUTION.md: one row per photograph."""
    rows = []
    for photo_id in dict.fromkeys(candidate.photo["id"] for candidate in candidates):
        photo = next(candidate.photo for candidate in candidates if candidate.photo["id"] == photo_id)
        name, _ = LICENCES[photo["license"]]
        number = photo["flickr_url"].rsplit("/", 1)[-1].split("_", 1)[0]
        page = f"https://www.flickr.com/photo.gne?id={number}"
        files = " ".join(f"`{entry['file_name']}`" for entry in persons if entry["image_id"] == photo_id)
        rows.append(f"| {photo_id} | {photo['flickr_url']} | {page} | {name} | {files} |")
    return _ATTRIBUTION.format(
        licences="\n".join(f"- {name}: {url}" for name, url in LICENCES.values()), rows="\n".join(rows)
    )


_ATTRIBUTION = """# Attribution of the bundled sample

The photographs in `images/` come from COCO 2017 (https://cocodataset.org), which collected them from Flickr. Each is
under the licence that its COCO entry states:

{licences}

Changes made to every photograph: cropped and resized (one person per file, cut out with a margin, made smaller where
the person is large, saved again as JPEG). The cut-outs stay under the licence of their photograph; those from
CC BY-SA 2.0 photographs are adaptations under CC BY-SA 2.0. COCO does not record the photographers' names; the photo
page leads to each.

The annotations in `annotations.json` are COCO's (copyright COCO Consortium), CC BY 4.0,
https://creativecommons.org/licenses/by/4.0/; changed: coordinates moved into the cut-outs, other fields left out.

| COCO image id | Flickr URL in COCO | photo page | licence | files |
|---|---|---|---|---|
{rows}
"""


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python examples/build_sample.py COCO_ROOT OUT")
    print(f"{build_sample(sys.argv[1], sys.argv[2])} persons written to {sys.argv[2]}")
