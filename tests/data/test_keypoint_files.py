"""Key points of a user's own images: our JSON, OpenPose's, the tables; the way back to PATN's table."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pair_files import sentence, standing, table_row

from fastpose import skeletons
from fastpose.data import joints, keypoint_files


def _predicted(folder, persons, skeleton=skeletons.COCO, name="anna/1.jpg"):
    row = {"image": name, "skeleton": skeleton.name, "joints": list(skeleton.joints), "persons": persons}
    path = folder / "keypoints.json"
    path.write_text(json.dumps([row]))
    return path


def _person(joint_count=17, score=0.9, seed=0):
    points = np.random.default_rng(seed).uniform(0, 100, (joint_count, 2)).round(2)
    return {"keypoints": points.tolist(), "scores": [score] * joint_count}


def test_our_own_json(tmp_path):
    person = _person()
    (pose,) = keypoint_files.read(_predicted(tmp_path, [person]))
    expected, _ = joints.convert(np.array(person["keypoints"]), np.ones(17), "coco", "openpose")
    assert pose.name == "anna/1.jpg"
    assert np.allclose(pose.keypoints, expected, atol=1e-4)
    assert pose.keypoints.shape == (18, 2)
    assert pose.visibility.tolist() == [1] * 18
    assert pose.size is None


def test_the_most_certain_person_counts(tmp_path):
    people = [_person(score=0.5), _person(score=0.9, seed=1), _person(score=0.2, seed=2)]
    (pose,) = keypoint_files.read(_predicted(tmp_path, people))
    assert np.allclose(pose.keypoints[0], people[1]["keypoints"][0], atol=1e-4)


def test_joints_of_low_score_are_missing(tmp_path):
    person = _person()
    person["scores"][0] = 0.05
    path = _predicted(tmp_path, [person])
    assert keypoint_files.read(path)[0].visibility[0] == 0
    assert keypoint_files.read(path, minimum_score=0.01)[0].visibility[0] == 1


def test_an_image_without_a_person_has_no_joint(tmp_path):
    (pose,) = keypoint_files.read(_predicted(tmp_path, []))
    assert not pose.visibility.any()


@pytest.mark.parametrize("count", [18, 25])
def test_openpose(tmp_path, count):
    table = np.random.default_rng(1).uniform(5, 90, (count, 3))
    table[:, 2], table[3] = 0.8, 0
    path = tmp_path / "one_keypoints.json"
    path.write_text(json.dumps({"version": 1.3, "people": [{"pose_keypoints_2d": table.ravel().tolist()}]}))
    (pose,) = keypoint_files.read(path)
    assert pose.name == "one"
    assert pose.visibility.tolist() == [1, 1, 1, 0] + [1] * 14
    hip = 8 if count == 18 else 9  # the middle of the hips comes before it in the longer format
    assert np.allclose(pose.keypoints[8], table[hip, :2], atol=1e-4)


def test_a_folder_of_openpose_files(tmp_path):
    for name in ("b", "a"):
        (tmp_path / f"{name}_keypoints.json").write_text('{"people": []}')
    assert [pose.name for pose in keypoint_files.read(tmp_path)] == ["a", "b"]


def test_patns_table(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("name:keypoints_y:keypoints_x\n" + table_row("a.jpg", standing()) + "\n")
    (pose,) = keypoint_files.read(path)
    assert np.array_equal(pose.keypoints[:17], standing()[:17])
    assert pose.visibility.dtype == np.float32
    assert pose.visibility.tolist() == [1] * 17 + [0]


def test_photographs_become_a_training_table(tmp_path):
    poses = keypoint_files.read(_predicted(tmp_path, [_person()]))
    keypoint_files.write(tmp_path / "market-annotation-train.csv", poses, names=["0001_c1s1_1.jpg"])
    (again,) = keypoint_files.read(tmp_path / "market-annotation-train.csv")
    assert again.name == "0001_c1s1_1.jpg"
    assert np.array_equal(again.keypoints, np.rint(poses[0].keypoints))


def test_names_that_a_table_cannot_hold_are_refused(tmp_path):
    (pose,) = keypoint_files.read(_predicted(tmp_path, [_person()]))
    with pytest.raises(ValueError, match="there twice or holds a ':'"):
        keypoint_files.write(tmp_path / "t.csv", [pose, pose])
    with pytest.raises(ValueError, match=r"C:/a\.jpg"):
        keypoint_files.write(tmp_path / "t.csv", [pose], names=["C:/a.jpg"])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("k.json", "", "not valid JSON"),
        pytest.param("k.json", "[" + "9" * 5000 + "]", "holds a whole number with thousands of digits", id="overlong"),
        ("k.json", "[]", "expected a list of images"),
        ("k.json", "3", "expected a list of images"),
        ("k.json", '[{"skeleton": "coco"}]', "lacks 'persons'"),
        ("k.json", '[{"skeleton": "cocoo", "persons": [], "image": "a"}]', "unknown skeleton 'cocoo'"),
        ("k.json", '[{"skeleton": "coco", "image": "a", "persons": [{"keypoints": [1], "scores": [1]}]}]', "malformed"),
        ("k.json", '{"people": [{}]}', "lacks 'pose_keypoints_2d'"),
        ("k.json", '{"people": [{"pose_keypoints_2d": [1, 2, 3]}]}', "1 joints, expected 18"),
        ("k.json", '{"people": [{"pose_keypoints_2d": ' + str([1] * 53 + ["NaN"]).replace("'", "") + "}]}", "NaN"),
        ("k.json", '{"people": 5}', "malformed"),
        ("k.csv", "a,b\n", "expected the JSON"),
        ("k.csv", "", "is empty"),
    ],
)
def test_other_content_is_one_sentence(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(ValueError, match=words) as caught:
        keypoint_files.read(path)
    assert str(path) in str(caught.value)


def test_truncated_json_is_one_sentence(tmp_path):
    path = _predicted(tmp_path, [_person()])
    whole = path.read_text()
    for end in range(0, len(whole) - 1, 7):
        path.write_text(whole[:end])
        assert str(path) in sentence(lambda: keypoint_files.read(path))


def test_absent_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        keypoint_files.read(tmp_path / "none.json")
    with pytest.raises(FileNotFoundError, match=r"no \.json file in this folder"):
        keypoint_files.read(tmp_path)
