"""COCO key points: crowd rows, persons without joints, grey photographs, real annotations."""

from __future__ import annotations

import json
import tarfile

import numpy as np
import pytest

from fastpose import data
from fastpose.data import coco


def _row(number, image_id=1, *, labelled=3, crowd=0):
    triples = [[10.0 + joint, 20.0, 1 + joint % 2] if joint < labelled else [0, 0, 0] for joint in range(17)]
    return {
        "id": number, "image_id": image_id, "iscrowd": crowd, "num_keypoints": labelled, "area": 99.5,
        "bbox": [10.0, 20.0, 30.0, 40.0], "keypoints": [value for triple in triples for value in triple],
    }  # fmt: skip


def _write(root, rows, file_name="a.jpg"):
    (root / "annotations").mkdir(exist_ok=True)
    content = {"images": [{"id": 1, "file_name": file_name, "license": 4}], "annotations": rows}
    (root / "annotations" / "person_keypoints_val2017.json").write_text(json.dumps(content))


def test_crowd_rows_and_persons_without_joints_are_left_out(tmp_path, photo):
    photo("val2017/a.jpg")
    _write(tmp_path, [_row(1), _row(2, crowd=1), _row(3, labelled=0), _row(4, labelled=9)])
    assert [person.person_id for person in data.create("coco", tmp_path, "val").persons] == [1, 4]
    assert [person.person_id for person in data.create("coco", tmp_path, "val", minimum_joints=8).persons] == [4]


def test_a_person_keeps_what_evaluation_needs(tmp_path, photo):
    photo("val2017/a.jpg")
    _write(tmp_path, [_row(7)])
    (person,) = data.create("coco", tmp_path, "val").persons
    assert person.bbox.tolist() == [10, 20, 30, 40]
    assert (person.area, person.image_id, person.person_id) == (99.5, 1, 7)
    assert person.center.tolist() == [25, 40]
    assert person.scale == pytest.approx(1.25 * 40 / 200)
    assert person.visibility[:4].tolist() == [1, 2, 1, 0]
    assert person.keypoints[1].tolist() == [11, 20]


def test_only_some_licences(tmp_path, photo):
    photo("val2017/a.jpg")
    _write(tmp_path, [_row(1)])
    assert len(data.create("coco", tmp_path, "val", licences=(4, 5))) == 1
    with pytest.raises(ValueError, match="no person"):
        data.create("coco", tmp_path, "val", licences=(1,))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("[]", "expected a COCO file"),
        ("{", "not valid JSON"),
        pytest.param("[" + "9" * 5000 + "]", "holds a whole number with thousands of digits", id="overlong"),
        ('{"images": [], "annotations": [{}]}', "lacks 'image_id'"),
        (
            '{"images": [], "annotations": [{"id": 4, "image_id": 1}]}',
            "annotation 4 names image 1, which is not listed",
        ),
        ('{"images": 5, "annotations": []}', "is malformed"),
        ('{"images": [], "annotations": [3]}', "is malformed"),
        ('{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"id": 4, "image_id": 1}]}', "row 0 lacks 'bbox'"),
        (
            '{"images": [{"id": 1, "file_name": 7}], "annotations": [{"id": 4, "image_id": 1, "bbox": [1, 2, 3, 4]}]}',
            "row 0 is malformed",
        ),
    ],
)
def test_a_damaged_file_is_named(tmp_path, content, sentence):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "person_keypoints_val2017.json").write_text(content)
    with pytest.raises(ValueError, match=rf"person_keypoints_val2017\.json: .*{sentence}"):
        data.create("coco", tmp_path, "val")


def test_a_short_key_point_list_is_an_error(tmp_path):
    _write(tmp_path, [_row(1) | {"keypoints": [1, 2, 2]}])
    with pytest.raises(ValueError, match="annotation 1 has 3 key-point numbers; expected 17 x 3"):
        data.create("coco", tmp_path, "val")


def test_a_missing_annotation_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"person_keypoints_train2017\.json not found"):
        data.create("coco", tmp_path, "train")


def test_the_published_annotations(shared, tmp_path):
    with tarfile.open(shared / "data" / "coco2017" / "annotations.tar.gz") as tar:
        names = [f"annotations/person_keypoints_{split}2017.json" for split in ("train", "val")]
        tar.extractall(tmp_path, [member for member in tar if member.name in names], filter="data")
    persons = coco.read(tmp_path, "val")
    assert len(persons) == 2064 - 44
    assert sum(bool(np.any(person.visibility)) for person in persons) == 1258
    assert sum(bool(np.any(person.visibility)) for person in coco.read(tmp_path, "train")) == 120
