"""LSP and LSP extended: both layouts, both meanings of the flag, splits, crops, the 16-joint layout."""

from __future__ import annotations

import tarfile

import numpy as np
import pytest

from fastpose import data, skeletons
from fastpose.data import lsp


def table(count: int) -> np.ndarray:
    """Return seeded (x, y, flag 1) of shape (count, 14, 3) inside a photograph of 60 x 80 pixels."""
    joints = np.ones((count, 14, 3))
    joints[:, :, :2] = np.random.default_rng(1).uniform([5, 5], [75, 55], (count, 14, 2))
    return joints


def save_joints(path, joints):
    from scipy.io import savemat

    savemat(path, {"joints": joints})


@pytest.fixture
def folder(tmp_path, photo):
    """An extended set of six photographs; joint 0 of photograph 2 is unlabelled."""
    joints = table(6)
    joints[1, 0] = [0.0, -20.0, 0.0]
    save_joints(tmp_path / "joints.mat", joints.transpose(1, 2, 0))
    for index in range(6):
        photo(f"images/im{index + 1:05d}.jpg")
    return tmp_path


@pytest.mark.parametrize("layout", ["14x3", "3x14"])
@pytest.mark.parametrize("flags", ["auto", "labelled"])
def test_labelled_flags_in_both_layouts(layout, flags):
    joints = table(5)
    joints[:, 3] = [-4.0, -9.0, 0.0]
    stored = joints.transpose(1, 2, 0) if layout == "14x3" else joints.transpose(2, 1, 0)
    points, visibility = lsp.parse_joints(stored, flags)
    assert (points == joints[:, :, :2]).all()
    assert (visibility[:, 3] == 0).all()
    assert (np.delete(visibility, 3, 1) == 2).all()


@pytest.mark.parametrize("layout", ["14x3", "3x14"])
def test_occluded_flags_in_both_layouts(layout):
    joints = table(5)
    joints[:, :, 2] = 0
    joints[:, 3, 2] = 1
    stored = joints.transpose(1, 2, 0) if layout == "14x3" else joints.transpose(2, 1, 0)
    _, visibility = lsp.parse_joints(stored, "occluded")
    assert (visibility[:, 3] == 1).all()
    assert (np.delete(visibility, 3, 1) == 2).all()


def test_occluded_flags_are_detected_in_the_layout_of_lsp():
    joints = table(5)
    joints[:, :, 2] = 0
    joints[:, 3, 2] = 1
    assert lsp.parse_joints(joints.transpose(2, 1, 0))[1].min() == 1


@pytest.mark.parametrize(("flag", "expected"), [(1.0, 2), (0.0, 2)])
def test_one_flag_everywhere_means_all_visible(flag, expected):
    joints = table(5)
    joints[:, :, 2] = flag
    assert (lsp.parse_joints(joints.transpose(1, 2, 0))[1] == expected).all()


def test_another_shape_is_an_error():
    with pytest.raises(ValueError, match=r"expected \(3, 14, N\) or \(14, 3, N\), got \(16, 3, 5\)"):
        lsp.parse_joints(np.zeros((16, 3, 5)))


def test_image_k_belongs_to_column_k(folder):
    source = data.create("lspet", folder, "all")
    assert [person.image.name for person in source.persons[:2]] == ["im00001.jpg", "im00002.jpg"]
    assert np.allclose(source.persons[1].keypoints[1], table(6)[1, 1, :2])
    assert source.persons[1].visibility[0] == 0
    assert (source.persons[1].keypoints[0] == 0).all()


def test_holdout_takes_the_last_photographs(folder):
    train, val = (data.create("lspet", folder, split, holdout=2) for split in ("train", "val"))
    assert [person.image_id for person in train.persons] == [1, 2, 3, 4]
    assert [person.image_id for person in val.persons] == [5, 6]


def test_val_without_holdout_says_what_to_pass(folder):
    with pytest.raises(ValueError, match="holdout=200"):
        data.create("lspet", folder, "val")


def test_holdout_of_everything_is_an_error(folder):
    with pytest.raises(ValueError, match="expected 0 to 5"):
        data.create("lspet", folder, "train", holdout=6)


@pytest.mark.parametrize(
    ("margin", "factor"), [("pytorch_pose", 368 / 256), ("hg_sagan_mpii", 410 / 256), ("chou", 1.25)]
)
def test_crop_comes_from_the_box_of_labelled_joints(folder, margin, factor):
    person = data.create("lspet", folder, "all", margin=margin).persons[1]
    points = table(6)[1, 1:, :2]
    longest = (points.max(0) - points.min(0)).max()
    assert np.allclose(person.center, (points.max(0) + points.min(0)) / 2, atol=1e-4)
    assert person.scale == pytest.approx(factor * longest / 200)


def test_crop_may_be_centred_on_the_photograph(folder):
    assert data.create("lspet", folder, "all", center="image").persons[0].center.tolist() == [39.5, 29.5]


def test_one_based_files_are_shifted(folder):
    shifted = data.create("lspet", folder, "all", one_based=True).persons[0]
    assert np.allclose(shifted.keypoints, table(6)[0, :, :2] - 1)


def test_sixteen_joint_layout_interpolates_pelvis_and_thorax(folder):
    plain = data.create("lspet", folder, "all").persons[0]
    source = data.create("lspet", folder, "all", skeleton="mpii")
    placed = source.persons[0]
    assert np.allclose(placed.keypoints[6], plain.keypoints[2:4].mean(0))
    assert np.allclose(placed.keypoints[7], plain.keypoints[8:10].mean(0))
    assert np.allclose(placed.keypoints[list(source.scored_joints)], plain.keypoints)


def test_sixteen_joint_names_match_the_fourteen():
    _, scored = lsp._skeleton("mpii")
    names = [skeletons.MPII.joints[joint].replace("upper_neck", "neck") for joint in scored]
    assert tuple(names) == skeletons.LSP.joints


def test_a_midpoint_needs_both_ends():
    visibility = np.full(14, 2)
    visibility[2], visibility[9] = 0, 1
    _, labels = lsp.to_mpii(np.ones((14, 2)), visibility)
    assert (labels[6], labels[7]) == (0, 1)


def test_lsp_splits_are_the_first_and_the_last_thousand(tmp_path, photo):
    joints = table(2000)
    joints[:, :, 2] = 0
    save_joints(tmp_path / "joints.mat", joints.transpose(2, 1, 0))
    (tmp_path / "images").mkdir()
    for index in range(2000):
        (tmp_path / "images" / f"im{index + 1:04d}.jpg").touch()
    train, test = (data.create("lsp", tmp_path, split) for split in ("train", "test"))
    assert (len(train), train.persons[0].image.name) == (1000, "im0001.jpg")
    assert (len(test), test.persons[0].image.name) == (1000, "im1001.jpg")


def test_a_missing_photograph_is_named(folder):
    (folder / "images" / "im00003.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"5 of 6 images found .* first missing: im00003\.jpg"):
        data.create("lspet", folder, "train")
    assert len(data.create("lspet", folder, "train", missing_images="drop")) == 5


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"joints\.mat not found; expected joints\.mat and images/"):
        data.create("lsp", tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a matlab file" * 20])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "joints.mat").write_bytes(content)
    with pytest.raises(ValueError, match=r"joints\.mat: not a readable MATLAB file"):
        data.create("lsp", tmp_path)


def test_another_mat_file_is_refused(tmp_path):
    from scipy.io import savemat

    savemat(tmp_path / "joints.mat", {"other": np.zeros(3)})
    with pytest.raises(ValueError, match="expected an array 'joints', found none"):
        data.create("lsp", tmp_path)


def test_the_published_extended_set(shared, tmp_path):
    archive = shared / "data" / "lspet" / "lspet_dataset_im01901-02300.tar"
    with tarfile.open(archive) as tar:
        names = ["lspet_dataset/joints.mat", "lspet_dataset/images/im02299.jpg", "lspet_dataset/images/im02300.jpg"]
        tar.extractall(tmp_path, [member for member in tar if member.name in names], filter="data")
    source = data.create("lspet", tmp_path, "val", holdout=2, skeleton="mpii")
    assert [person.image_id for person in source.persons] == [2299, 2300]
    everyone = lsp.read(tmp_path, "lspet")
    assert len(everyone) == 2300
    assert sum(np.count_nonzero(person.visibility) for person in everyone) == 28336
    assert sum(np.count_nonzero(person.visibility) == 14 for person in everyone[:1900]) == 736
