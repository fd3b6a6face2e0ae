"""A user's own photographs: folders as identities, key points of a file, what is left out."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fastpose import data, skeletons
from fastpose.data import photo_pairs
from fastpose.data.geometry import cut, fit_matrix
from fastpose.data.images import read_image


@pytest.fixture
def album(tmp_path, photo):
    """Three folders of two photographs, one photograph without pose, one with a poor one."""
    rows = []
    for folder in ("anna", "ben", "cleo"):
        for name in ("1.jpg", "2.jpg"):
            photo(f"{folder}/{name}", (120, 90))
            rows.append(_row(f"some/where/{folder}/{name}"))
    photo("anna/3.jpg", (120, 90))
    photo("ben/3.jpg", (120, 90))
    rows.append(_row("some/where/ben/3.jpg", seen=4))
    (tmp_path / "keypoints.json").write_text(json.dumps(rows))
    return tmp_path


def _row(name, seen=17):
    points = np.random.default_rng(1).uniform([20, 10], [70, 110], (17, 2))
    scores = [0.9] * seen + [0.0] * (17 - seen)
    person = {"keypoints": points.tolist(), "scores": scores}
    return {"image": name, "skeleton": "coco", "joints": list(skeletons.COCO.joints), "persons": [person]}


def test_every_pair_of_a_folder_is_made(album):
    source = data.create("photos", album, "all")
    assert (len(source), len(source.persons), source.size) == (6, 6, (256, 256))
    assert [person.identity for person in source.persons] == ["anna"] * 2 + ["ben"] * 2 + ["cleo"] * 2
    assert source.pairs.tolist()[:2] == [[0, 1], [1, 0]]


def test_promise_19_key_points_of_a_photograph_of_another_size_are_refused(album):
    rows = json.loads((album / "keypoints.json").read_text())
    (album / "keypoints.json").write_text(json.dumps([row | {"size": [120, 90]} for row in rows]))
    assert len(data.create("photos", album, "all")) == 6
    (album / "keypoints.json").write_text(json.dumps([row | {"size": [90, 120]} for row in rows]))
    assert len(data.create("photos", album, "all")) == 6  # upright, of a photograph that is stored lying
    (album / "keypoints.json").write_text(json.dumps([row | {"size": [240, 180]} for row in rows]))
    with pytest.raises(ValueError, match=r"1\.jpg: has 90 x 120 pixels, its key points count those of 180 x 240"):
        data.create("photos", album, "all")


def test_the_splits_share_no_identity(album):
    train, val = (data.create("photos", album, split) for split in ("train", "val"))
    data.pairs.check_disjoint(train, val)
    assert (len(train), len(val)) == (4, 2)


def test_what_is_left_out_is_named(album):
    found = photo_pairs.read(album)
    assert [path.name for path, _ in found.too_few] == ["3.jpg"]
    assert found.too_few[0][1] == 4
    assert found.without == [album / "anna" / "3.jpg"]


def test_the_person_is_cut_out_with_all_joints(album):
    source = data.create("photos", album, "all")
    for size in ((128, 64), (96, 96)):
        view = source.view(0, size)
        assert view["image"].shape == (*size, 3)
        assert view["visibility"].tolist() == [1] * 18
        person = source.persons[0]
        matrix = fit_matrix(person.bbox, 1.3, size)
        assert np.allclose(view["keypoints"], person.keypoints @ matrix[:, :2].T + matrix[:, 2], atol=1e-3)


def _turned_by_exif(path):
    """Mark a JPEG as lying on its side: EXIF's orientation 6, shown after a quarter turn clockwise."""
    tag = bytes.fromhex("4d4d002a00000008000101120003000000010006000000000000")  # big-endian TIFF, one entry
    body = b"Exif\0\0" + tag
    whole = path.read_bytes()
    path.write_bytes(whole[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + whole[2:])


def test_a_photograph_on_its_side_is_seen_upright(album):
    """Joints count pixels of the upright photograph, as ``fastpose predict`` shows it."""
    path = album / "anna" / "1.jpg"
    lying = read_image(path)
    _turned_by_exif(path)
    assert np.array_equal(read_image(path), lying)
    upright = np.rot90(lying, -1)
    assert np.array_equal(read_image(path, exif="apply"), upright)
    source = data.create("photos", album, "all")
    box, size = source.persons[0].bbox, (128, 64)
    assert source.persons[0].image == path
    assert np.array_equal(source.view(0, size)["image"], cut(upright, fit_matrix(box, 1.3, size), size, fill=255))


def test_openposes_files_serve_where_names_are_unique(tmp_path, photo):
    for folder, names in (("anna", "ab"), ("ben", "cd")):
        for name in names:
            photo(f"{folder}/{name}.jpg", (120, 90))
            table = np.random.default_rng(1).uniform(10, 80, (18, 3))
            table[:, 2] = 0.9
            path = tmp_path / "openpose" / f"{name}_keypoints.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps({"people": [{"pose_keypoints_2d": table.ravel().tolist()}]}))
    assert len(data.create("photos", tmp_path, "all", annotation="openpose")) == 4
    photo("ben/a.jpg", (120, 90))  # whose key points are a_keypoints.json?
    assert len(photo_pairs.read(tmp_path, annotation="openpose").persons) == 3


def test_the_album_makes_a_table_for_training(album):
    from fastpose.data import keypoint_files

    keypoint_files.write(album / "mine.csv", keypoint_files.read(album / "keypoints.json"))
    assert len(data.create("photos", album, "all", annotation="mine.csv")) == 6


def test_too_little_is_one_sentence(album):
    with pytest.raises(ValueError, match=r"no sub-folder of .* has two photographs with 40 or more joints"):
        data.create("photos", album, "all", minimum_joints=40)
    with pytest.raises(ValueError, match="at least 2 identities to divide, found 0"):
        data.create("photos", album, "train", minimum_joints=40)
    (album / "keypoints.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"fastpose predict .* --save-keypoints"):
        data.create("photos", album)
