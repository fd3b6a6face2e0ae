"""The bundled sample: size, splits, labels inside the photographs, attribution, and the script that makes it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from fastpose import data
from fastpose.data.images import image_size
from fastpose.data.sample import FOLDER

SCRIPT = Path(__file__).parents[2] / "examples" / "build_sample.py"


@pytest.fixture(scope="module")
def everyone():
    return data.create("sample", split="all")


def test_it_holds_eighty_persons_in_two_splits(everyone):
    assert [len(data.create("sample", split=split)) for split in ("train", "val")] == [60, 20]
    assert len(everyone) == 80


def test_no_photograph_is_in_both_splits():
    train, val = (
        {person.image_id for person in data.create("sample", split=split).persons} for split in ("train", "val")
    )
    assert not train & val


def test_it_is_at_most_four_megabytes():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*")) < 4 * 2**20


def test_every_person_has_eight_joints_inside_the_photograph(everyone):
    for person in everyone.persons:
        height, width = image_size(person.image)
        points = person.keypoints[person.visibility > 0]
        assert len(points) >= 8
        assert (points >= -0.5).all()
        assert (points <= [width, height]).all()


def test_every_person_fits_its_network_crop(everyone):
    assert max(person.bbox[2:].max() for person in everyone.persons) <= 289


def test_every_photograph_is_attributed_with_a_free_licence(everyone):
    text = (FOLDER / "ATTRIBUTION.md").read_text(encoding="utf-8")
    rows = json.loads((FOLDER / "annotations.json").read_text(encoding="utf-8"))["persons"]
    assert {row["license"] for row in rows} == {4, 5}
    for row in rows:
        (line,) = [line for line in text.splitlines() if f"`{row['file_name']}`" in line]
        assert f"| {row['image_id']} |" in line
        assert "staticflickr.com/" in line
        assert {4: "| CC BY 2.0 |", 5: "| CC BY-SA 2.0 |"}[row["license"]] in line
    for needed in ("licenses/by/2.0/", "licenses/by-sa/2.0/", "CC BY 4.0", "cropped and resized"):
        assert needed in text


def test_nothing_else_lies_in_the_folder(everyone):
    images = {path.name for path in (FOLDER / "images").iterdir()}
    assert images == {person.image.name for person in everyone.persons}


def test_the_script_makes_persons_with_moved_joints(tmp_path, photo):
    """A large person is shrunk: its joints must keep their place relative to the picture."""
    spec = importlib.util.spec_from_file_location("build_sample", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["build_sample"] = script
    try:
        spec.loader.exec_module(script)
    finally:
        del sys.modules["build_sample"]
    photo("coco/val2017/a.png", size=(900, 1200))
    triples = np.zeros((17, 3), int)
    triples[:9] = [[300 + 50 * joint, 200 + 60 * joint, 2] for joint in range(9)]
    row = {
        "id": 5, "image_id": 3, "iscrowd": 0, "num_keypoints": 9, "area": 1000.0,
        "bbox": [290.0, 190.0, 420.0, 500.0], "keypoints": triples.ravel().tolist(),
    }  # fmt: skip
    url = "http://farm1.staticflickr.com/1/123_abc_z.jpg"
    photos = [{"id": 3, "file_name": "a.png", "license": 5, "flickr_url": url}]
    annotations = tmp_path / "coco" / "annotations" / "person_keypoints_val2017.json"
    annotations.parent.mkdir()
    refused = row | {"id": 6, "num_keypoints": 7}
    annotations.write_text(json.dumps({"images": photos, "annotations": [row, refused]}))
    assert script.build_sample(tmp_path / "coco", tmp_path / "out") == 1
    (person,) = data.sample.read(tmp_path / "out", "all")
    points = person.keypoints[person.visibility > 0].astype(float)
    shrink = 288 / 500
    assert np.allclose(np.diff(points, axis=0), [50 * shrink, 60 * shrink], atol=0.5)
    assert person.area == pytest.approx(1000 * shrink**2, rel=0.01)
    assert max(person.bbox[2:]) == pytest.approx(288, abs=1)
    first = (tmp_path / "out" / "annotations.json").read_bytes()
    script.build_sample(tmp_path / "coco", tmp_path / "out")
    assert (tmp_path / "out" / "annotations.json").read_bytes() == first
