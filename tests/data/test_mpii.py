"""MPII from each file format: pixels from 0, missing joints, the crop step taken once, head sizes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fastpose import data
from fastpose.data import mpii


def _joints(seed=0):
    return np.random.default_rng(seed).uniform(100, 300, (16, 2)).round(2)


def _official(path, *, names, training, separated):
    """Write a file with the nesting of the official one: two persons on the first photograph, one on the others."""
    from scipy.io import savemat

    def point(joint, place, visible):
        return {"x": place[0], "y": place[1], "id": joint, "is_visible": visible}

    def rectangle(seed):
        places = _joints(seed)
        points = [point(9, places[9], []), point(0, places[0], 1), point(1, places[1], 0), point(2, places[2], "1")]
        return {
            "x1": 10.0, "y1": 20.0, "x2": 40.0, "y2": 60.0, "scale": 2.0,
            "objpos": {"x": 200.0, "y": 210.0}, "annopoints": {"point": np.array(points, dtype=object)},
        }  # fmt: skip

    annolist = []
    for index, name in enumerate(names):
        people = [rectangle(2 * index), rectangle(2 * index + 1)] if index == 0 else [rectangle(2 * index)]
        annolist.append({"image": {"name": name}, "annorect": np.array(people, dtype=object)})
    cells = np.empty(len(names), dtype=object)
    for index, numbers in enumerate(separated):
        cells[index] = np.array(numbers, dtype=float)
    release = {"annolist": np.array(annolist, dtype=object), "img_train": training, "single_person": cells}
    savemat(path, {"RELEASE": release})


def test_hourglass_file_and_ground_truth(shared):
    source = data.create("mpii", shared / "data" / "mpii", "val", missing_images="drop")
    first = source.persons[0]
    assert (first.image.name, len(source.persons)) == ("005808361.jpg", 6)
    assert np.allclose(first.keypoints[8], [982.7591 - 1, 235.9694 - 1], atol=1e-3)  # exact, not truncated
    assert np.allclose(first.center, [965.0, 409.7773], atol=1e-3)
    assert first.scale == pytest.approx(5.8981, abs=1e-3)
    assert np.allclose(first.head_box, [[913, 78], [1030, 236]], atol=1e-2)
    assert first.head_size == pytest.approx(117.962, abs=1e-2)


def test_all_persons_of_the_hourglass_file(shared):
    persons = mpii.read(shared / "data" / "mpii", "val")
    assert len(persons) == 2958
    assert len({person.image_id for person in persons}) == 2729
    labels = np.stack([person.visibility for person in persons])
    assert (labels == 1).sum() == 10243  # occluded joints keep their coordinates
    assert np.array_equal(labels == 0, _missing(shared).T.astype(bool))


def _missing(shared):
    from scipy.io import loadmat

    return loadmat(shared / "data" / "mpii" / "annot" / "gt_valid.mat")["jnt_missing"]


def test_hourglass_coordinates_without_ground_truth(shared, tmp_path):
    (tmp_path / "valid.h5").write_bytes((shared / "data" / "mpii" / "annot" / "valid.h5").read_bytes())
    first = mpii.read(tmp_path, "val")[0]
    assert np.allclose(first.keypoints[8], [981, 234])  # whole pixels in this file
    assert first.head_box is None
    assert first.head_size == pytest.approx(117.962, abs=1e-2)


def test_hrnet_json_agrees_with_the_hourglass_file(shared):
    folder = shared / "data" / "mmpose_tests_data" / "mpii"
    persons = mpii.read(folder, "val", annotation="test_mpii.json", image_folder=".")
    reference = mpii.read(shared / "data" / "mpii", "val")[:5]
    for person, other in zip(persons, reference, strict=True):
        assert person.image.is_file()
        assert np.allclose(person.center, other.center, atol=1e-2)
        assert person.scale == pytest.approx(other.scale, abs=1e-4)
        assert person.head_size == pytest.approx(other.head_size, abs=0.02)
        assert np.array_equal(person.visibility > 0, other.visibility > 0)
        assert np.allclose(person.keypoints, other.keypoints, atol=1e-2)


def test_pytorch_pose_json_agrees_with_the_hourglass_file(shared):
    root, name = shared / "data" / "mpii", "annot/mpii_annotations_first168.json"
    assert len(mpii.read(root, "train", annotation=name)) == 152
    persons = mpii.read(root, "val", annotation=name)
    assert len(persons) == 16
    first, reference = persons[0], mpii.read(root, "val")[0]
    assert np.allclose(first.keypoints, reference.keypoints, atol=1e-2)
    assert np.array_equal(first.visibility, reference.visibility)
    assert np.allclose(first.center, reference.center, atol=1e-2)
    assert first.scale == pytest.approx(reference.scale, abs=1e-2)


def test_missing_and_occluded_joints_of_pytorch_pose_json(tmp_path):
    joints = [[0.0, 0.0, 0.0], [50.0, 0.0, 1.0], [50.0, 60.0, 0.0]] + [[9.0, 9.0, 1.0]] * 13
    row = {
        "isValidation": True,
        "img_paths": "a.jpg",
        "objpos": [50.0, 60.0],
        "scale_provided": 1.0,
        "joint_self": joints,
    }
    (tmp_path / "mpii_annotations.json").write_text(json.dumps([row]))
    (person,) = mpii.read(tmp_path, "val")
    assert person.visibility[:3].tolist() == [0, 2, 1]
    assert person.keypoints[:3].tolist() == [[0, 0], [49, -1], [49, 59]]
    assert mpii.read(tmp_path, "train") == []


def test_the_crop_step_is_taken_once(tmp_path):
    row = {
        "joints_vis": [1] * 16,
        "joints": _joints().tolist(),
        "image": "a.jpg",
        "scale": 2.0,
        "center": [200.0, 210.0],
    }
    (tmp_path / "valid.json").write_text(json.dumps([row]))
    (person,) = mpii.read(tmp_path, "val")
    assert person.center.tolist() == [199.0, 210.0 + 15 * 2.0 - 1]
    assert person.scale == 2.5
    assert person.head_size == 50.0


def test_official_file(tmp_path):
    names, training = ["a.jpg", "b.jpg", "c.jpg"], [1, 1, 0]
    _official(tmp_path / mpii.OFFICIAL, names=names, training=training, separated=[[2], [1], [1]])
    first, second = mpii.read(tmp_path, "trainval")
    assert (first.image.name, second.image.name) == ("a.jpg", "b.jpg")
    assert np.allclose(first.keypoints[9], _joints(1)[9] - 1, atol=1e-4)  # the second person of the photograph
    assert first.visibility[[0, 1, 2, 3, 9]].tolist() == [2, 1, 2, 0, 2]
    assert first.center.tolist() == [199.0, 239.0]
    assert first.scale == 2.5
    assert first.head_box.tolist() == [[9, 19], [39, 59]]
    assert first.head_size == pytest.approx(30.0)


def test_official_file_takes_its_validation_split_from_the_list(tmp_path):
    names = ["a.jpg", "b.jpg", "c.jpg"]
    _official(tmp_path / mpii.OFFICIAL, names=names, training=[1, 1, 0], separated=[[1], [1], [1]])
    with pytest.raises(FileNotFoundError, match=r"valid_images\.txt not found; the official file has no val split"):
        mpii.read(tmp_path, "val")
    (tmp_path / "valid_images.txt").write_text("b.jpg\n")
    assert [person.image.name for person in mpii.read(tmp_path, "val")] == ["b.jpg"]


def test_ground_truth_of_other_persons_is_refused(shared):
    root = shared / "data" / "mpii"
    with pytest.raises(ValueError, match="its persons are not those of"):
        mpii.read(root, "val", annotation="annot/mpii_annotations_first168.json", ground_truth="annot/gt_valid.mat")


def test_pelvis_and_thorax_are_not_scored(shared):
    source = data.create("mpii", shared / "data" / "mpii", "val", missing_images="drop")
    assert {source.skeleton.joints[joint] for joint in range(16) if joint not in source.scored_joints} == {
        "pelvis",
        "thorax",
    }


def test_no_annotation_lists_the_known_names(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected one of valid\.json, mpii_annotations\.json, valid\.h5"):
        data.create("mpii", tmp_path, "val")


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("valid.json", b"[{", "not valid JSON"),
        ("valid.json", b"{}", "expected a list of persons"),
        ("valid.json", b'[{"image": "a.jpg"}]', "row 0 lacks 'joints_vis'"),
        ("valid.h5", b"junk", "not a readable HDF5 file"),
        (mpii.OFFICIAL, b"junk", "not a readable MATLAB file"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, content, sentence):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}: {sentence}"):
        mpii.read(tmp_path, "val")


def _hrnet_row(**changes):
    row = {"joints_vis": [1] * 16, "joints": [[9, 9]] * 16, "image": "a.jpg", "scale": 1.0, "center": [5.0, 5.0]}
    return row | changes


@pytest.mark.parametrize(
    "changes",
    [{"center": []}, {"center": 3}, {"scale": None}, {"scale": 10**400}, {"image": 5}, {"image": []}]
    + [{"joints": "x"}, {"joints": [[1, 1]] * 5}, {"joints_vis": [[1], 2]}, {"joints_vis": {}}],
)
def test_a_malformed_row_is_one_sentence(tmp_path, changes):
    (tmp_path / "valid.json").write_text(json.dumps([_hrnet_row(), _hrnet_row(**changes)]))
    with pytest.raises(ValueError, match=r"valid\.json: (row 1|a person) is malformed"):
        mpii.read(tmp_path, "val")
    assert not data.check.check("mpii", tmp_path).ok


@pytest.mark.parametrize("content", ["[5]", "[[]]", "[null]", "[" * 100_000])
def test_malformed_json_is_one_sentence(tmp_path, content):
    (tmp_path / "valid.json").write_text(content)
    with pytest.raises(ValueError, match=r"valid\.json"):
        mpii.read(tmp_path, "val")


def test_a_person_without_size_is_refused(tmp_path, photo):
    photo("images/a.jpg")
    (tmp_path / "valid.json").write_text(json.dumps([_hrnet_row(), _hrnet_row(scale=0)]))
    with pytest.raises(ValueError, match=r"mpii: person 1 on a\.jpg has scale 0; expected a positive one"):
        data.create("mpii", tmp_path, "val")
    report = data.check.check("mpii", tmp_path)
    assert not report.ok
    assert "1 persons with a scale of 0 or less: a.jpg (person 1)" in "\n".join(report.lines)
