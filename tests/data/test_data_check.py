"""``data.check``: the tree with ticks and crosses, counts, first offenders, and what makes a data set ready."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

from fastpose import data
from fastpose.data import human36m_places
from fastpose.data.check import check
from fastpose.data.motion.library import SAMPLE


@pytest.fixture
def folder(tmp_path, photo):
    """An extended LSP set of eight photographs without fault."""
    for index in range(8):
        photo(f"images/im{index + 1:05d}.jpg")
    _save(tmp_path, _joints())
    return tmp_path


def _joints():
    joints = np.ones((8, 14, 3))
    joints[:, :, :2] = np.random.default_rng(1).uniform([5, 5], [75, 55], (8, 14, 2))
    return joints


def _save(folder, joints):
    from scipy.io import savemat

    savemat(folder / "joints.mat", {"joints": joints.transpose(1, 2, 0)})


def _line(report, words):
    (line,) = [line for line in report.lines if words in line]
    return line


def test_promise_19_a_whole_data_set_is_ready(folder):
    report = check("lspet", folder)
    assert report.ok
    assert "✗" not in "".join(report.lines)
    assert _line(report, "persons") == "✓ all: 8 persons, 8 photographs, 112 joints"


def test_promise_19_missing_files_are_crossed(tmp_path):
    report = check("lspet", tmp_path)
    assert not report.ok
    assert _line(report, "array joints").startswith("  ✗ joints.mat")
    assert _line(report, "one per column").startswith("  ✗ images")


def test_promise_19_an_absent_folder_is_crossed(tmp_path):
    report = check("coco", tmp_path / "none")
    assert not report.ok
    assert report.lines[0].startswith("✗")


def test_promise_19_missing_photographs_are_counted_and_the_first_named(folder):
    for index in (2, 3, 4, 5, 6, 7):
        (folder / "images" / f"im{index:05d}.jpg").unlink()
    report = check("lspet", folder)
    assert not report.ok
    assert _line(report, "missing:").startswith("  ✗ 6 photographs missing: im00002.jpg, im00003.jpg,")
    assert _line(report, "missing:").endswith(", ...")


def test_promise_19_unreadable_photographs_are_found(folder):
    (folder / "images" / "im00002.jpg").write_bytes(b"")
    report = check("lspet", folder)
    assert not report.ok
    assert "1 photographs unreadable" in _line(report, "im00002.jpg: the file is empty")


def test_promise_19_truncated_photographs_are_found(folder):
    path = folder / "images" / "im00002.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    report = check("lspet", folder)
    assert not report.ok
    assert "im00002.jpg: truncated" in _line(report, "unreadable")


def test_promise_19_coordinates_that_are_not_numbers_are_found(folder):
    joints = _joints()
    joints[4, 2, 0] = np.nan
    _save(folder, joints)
    report = check("lspet", folder)
    assert not report.ok
    assert "im00005.jpg (person 5)" in _line(report, "NaN or infinite")


def test_promise_19_joints_out_of_frame_are_a_remark(folder):
    joints = _joints()
    joints[4, 2, :2] = [200.0, 3.0]
    _save(folder, joints)
    report = check("lspet", folder)
    assert report.ok
    assert _line(report, "out of frame").startswith("  ! 1 persons with joints out of frame: im00005.jpg (person 5)")


def test_promise_19_persons_without_joints_are_a_remark(folder):
    joints = _joints()
    joints[4] = 0
    _save(folder, joints)
    report = check("lspet", folder)
    assert report.ok
    assert "im00005.jpg (person 5)" in _line(report, "without any labelled joint")


def test_promise_19_a_damaged_annotation_file_is_reported(folder):
    (folder / "joints.mat").write_bytes(b"junk")
    report = check("lspet", folder)
    assert not report.ok
    assert "not a readable MATLAB file" in _line(report, "✗ all:")


def _coco(folder, photo, *splits):
    """Write COCO key points of one person and photograph for each split."""
    for split in splits:
        photo(f"{split}2017/000000000009.jpg")
        row = {"image_id": 9, "id": 1, "category_id": 1, "iscrowd": 0, "num_keypoints": 17, "area": 900.0}
        row |= {"bbox": [5, 5, 40, 40], "keypoints": [20, 20, 2] * 17}
        image = {"id": 9, "file_name": "000000000009.jpg", "height": 60, "width": 80}
        path = folder / "annotations" / f"person_keypoints_{split}2017.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"images": [image], "annotations": [row]}))


def test_promise_19_a_split_that_is_not_there_is_not_called_ready(tmp_path, photo):
    _coco(tmp_path, photo, "val")
    report = check("coco", tmp_path)
    assert report.ok
    assert report.lines[-1] == "coco: ready for: val; train is not there, see the dash above"
    assert "person_keypoints_train2017.json not found" in _line(report, "  - train:")
    _coco(tmp_path, photo, "train", "val")
    assert check("coco", tmp_path).lines[-1] == "coco: ready"


def test_promise_19_a_broken_split_is_not_made_up_for_by_the_other(tmp_path, photo):
    _coco(tmp_path, photo, "train", "val")
    (tmp_path / "train2017" / "000000000009.jpg").unlink()
    report = check("coco", tmp_path)
    assert not report.ok
    assert report.lines[-1] == "coco: not ready, see the crosses above"


def test_promise_19_one_of_several_annotation_formats_is_enough(shared):
    report = check("mpii", shared / "data" / "mpii")
    assert "  ✓ annot/valid.h5" in "\n".join(report.lines)
    assert "  - annot/valid.json" in "\n".join(report.lines)
    assert "val: 2,958 persons, 2,729 photographs" in "\n".join(report.lines)
    assert not report.ok  # only seven photographs are there


def test_promise_19_the_bundled_sample_is_ready():
    assert check("sample").ok


def test_promise_19_every_data_set_can_be_checked(tmp_path):
    for name in data.list():
        assert check(name, tmp_path).lines[-1] == f"{name}: not ready, see the crosses above"


def test_promise_19_an_unknown_name_offers_the_nearest(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'lspet'"):
        check("lspt", tmp_path)


def test_promise_19_a_data_set_on_disk_needs_a_folder():
    with pytest.raises(ValueError, match="needs the folder"):
        check("mpii")


# Sets with 3D poses


def _h36m(folder, photo, *words, shift=0.0):
    """Write three frames of Human3.6M in mmpose's layout for each of "train" and "test"."""
    rng = np.random.default_rng(2)
    for word in words:
        names = [f"{'S1' if word == 'train' else 'S9'}_Eating.54138969_{1 + 5 * row:06d}.jpg" for row in range(3)]
        joints = [0.0, 0.0, 5.0] + rng.normal(0, 0.3, (3, 17, 3))
        part = 20.0 * joints[..., :2] / joints[..., 2:] + [40.0, 30.0 + shift]
        ones = np.ones((3, 17, 1))
        path = folder / "annotation_body3d" / "fps10" / f"h36m_{word}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(
            path, imgname=names, center=np.full((3, 2), 40.0), scale=np.full(3, 0.2),
            part=np.concatenate([part, ones], 2), S=np.concatenate([joints, ones], 2),
        )  # fmt: skip
        for name in names:
            photo(f"images/{name}")
    camera = {"f": np.full((2, 1), 20.0), "c": np.array([[40.0], [30.0]])}
    pickled = pickle.dumps({(subject, "54138969"): camera for subject in ("S1", "S9")})
    (folder / "annotation_body3d" / "cameras.pkl").write_bytes(pickled)


def test_promise_19_human36m(tmp_path, photo):
    _h36m(tmp_path, photo, "train", "test")
    report = check("h36m", tmp_path)
    assert report.lines[-1] == "h36m: ready"
    assert "✗" not in "".join(report.lines)
    assert _line(report, "✓ val") == "✓ val: 3 persons, 3 photographs, 48 joints"
    words = "3 3D poses, 3 with a camera; subjects S9; 1 actions, 1 recordings"
    assert _line(report, "subjects S9").strip() == words
    assert "  ✓ annotation_body3d/fps10/h36m_train.npz" in "\n".join(report.lines)


def test_promise_19_human36m_without_a_split_or_photographs_is_not_called_ready(tmp_path, photo):
    _h36m(tmp_path, photo, "test")
    report = check("h36m", tmp_path)
    assert report.lines[-1] == "h36m: ready for: val; train is not there, see the dash above"
    assert "registration" in _line(report, "  - train:")
    (tmp_path / "images" / "S9_Eating.54138969_000006.jpg").unlink()
    report = check("h36m", tmp_path)
    assert not report.ok
    assert "1 photographs missing: S9_Eating.54138969_000006.jpg" in _line(report, "missing:")


def test_promise_19_a_file_of_human36m_at_another_place_is_ticked(tmp_path, photo):
    _h36m(tmp_path, photo, "test")
    (tmp_path / "annotation_body3d" / "fps10" / "h36m_test.npz").rename(tmp_path / "h36m_test.npz")
    report = check("h36m", tmp_path)
    assert report.ok
    assert _line(report, "mmpose, test").startswith("  ✓ h36m_test.npz ")


@pytest.mark.parametrize("place", ["annotTrain.h5", "annot/annotTrain.h5"])
def test_promise_19_what_the_reader_takes_is_ticked(tmp_path, photo, place):
    import h5py

    joints = np.random.default_rng(2).normal(0, 300, (2, 16, 3)) + [0.0, 0.0, 5000.0]
    columns = {"subject": [1, 1], "action": [2, 2], "subaction": [1, 1], "camera": [1, 1], "id": [1, 6]}
    (tmp_path / place).parent.mkdir(exist_ok=True)
    with h5py.File(tmp_path / place, "w") as file:
        for key, value in columns.items():
            file[key] = value
        file["joint_3d_mono"] = joints
        file["joint_2d"] = 300.0 * joints[..., :2] / joints[..., 2:] + 112.0
    for number in (1, 6):
        name = "s_01_act_02_subact_01_ca_01"
        photo(f"images/{name}/{name}_{number:06d}.jpg", size=(224, 224))
    report = check("h36m", tmp_path)
    assert report.ok
    assert _line(report, "pose-hg-3d, training").startswith(f"  ✓ {place} ")
    assert report.lines[-1] == "h36m: ready for: train; val is not there, see the dash above"


def test_promise_19_every_annotation_that_is_looked_for_has_its_line_and_its_place_in_the_error(tmp_path):
    tmp_path.joinpath("images").mkdir()
    lines = "\n".join(check("h36m", tmp_path).lines)
    for split in ("train", "val"):
        with pytest.raises(FileNotFoundError) as error:
            human36m_places.annotation_path(tmp_path, split)
        for file in human36m_places.ANNOTATIONS:
            assert file.path in lines
            assert (file.path in str(error.value)) == (split in file.splits)


def test_promise_19_poses_of_other_key_points_are_found(tmp_path, photo):
    _h36m(tmp_path, photo, "train", "test", shift=8.0)
    report = check("h36m", tmp_path)
    assert not report.ok
    assert [line for line in report.lines if "3 3D poses that project farther than 5% of the crop" in line]


def test_promise_19_the_real_samples_lack_photographs_or_are_ready(shared):
    report = check("h36m", shared / "data" / "h36m_sample" / "c2f_S9_Posing_1")
    assert not report.ok
    assert "334 photographs missing" in _line(report, "missing:")
    report = check("mpi_inf_3dhp", shared / "data" / "mpi_inf_3dhp_sample")
    assert report.lines[-1] == "mpi_inf_3dhp: ready"
    assert "2 3D poses, 2 with a camera; subjects S4, S8" in _line(report, "subjects S4")


def test_promise_19_missing_sequences_of_3dhp_are_found(tmp_path):
    for name in ("TS1", "TS3"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "annot_data.mat").write_bytes(b"junk")
    report = check("mpi_inf_3dhp", tmp_path)
    assert not report.ok
    assert _line(report, "sequences of").strip() == "✗ 4 sequences of the test set missing: TS2, TS4, TS5, TS6"
    assert _line(report, "train:").startswith("  - train: mpi_inf_3dhp: ")


def test_promise_19_motion(tmp_path):
    (tmp_path / "some.npz").write_bytes(SAMPLE.read_bytes())
    report = check("mocap", tmp_path)
    assert report.lines[-1] == "mocap: ready"
    assert _line(report, "files:") == "✓ files: 1 .npz"
    assert _line(report, "readable").startswith("✓ clips: 10 readable, ")
    (tmp_path / "other.bvh").write_text("junk")
    report = check("mocap", tmp_path)
    assert not report.ok
    assert "1 clips unreadable: other (" in _line(report, "unreadable")


def test_promise_19_one_clip_is_no_validation(tmp_path):
    with np.load(SAMPLE) as content:
        clips = [key for key in content.files if key not in ("joint_names", "parents", "fps", "unit")]
        kept = [key for key in content.files if key not in clips[1:]]
        np.savez(tmp_path / "one.npz", **{key: content[key] for key in kept})
    report = check("mocap", tmp_path)
    assert report.lines[-1].startswith("mocap: ready for: train; ")
    assert _line(report, "  - val:").startswith("  - val: mocap: no clip for split 'val'")


def test_promise_19_the_bundled_motion_is_ready():
    assert check("sample-mocap").lines[-1] == "sample-mocap: ready"
