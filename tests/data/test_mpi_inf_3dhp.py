"""MPI-INF-3DHP: the official test layout in both kinds of MATLAB file, mmpose's preparation, malformed files."""

from __future__ import annotations

import pickle
import shutil

import numpy as np
import pytest

from fastpose import data, skeletons
from fastpose.data import mpi_inf_3dhp
from fastpose.data.pose3d import project

# The test set's 17 joints as its own script names them.
ARMS = [f"{side}_{joint}" for side in "rl" for joint in ("shoulder", "elbow", "wrist")]
LEGS = [f"{side}_{joint}" for side in "rl" for joint in ("hip", "knee", "ankle")]
JOINTS = ["head_top", "neck", *ARMS, *LEGS, "pelvis", "spine", "head"]
K = np.array([[1500.0, 0.0, 1017.0], [0.0, 1501.0, 1043.0], [0.0, 0.0, 1.0]])


def poses(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return seeded joints (N, 17, 3) in mm in front of camera ``K`` and their pixels (N, 17, 2)."""
    rng = np.random.default_rng(7)
    joints = rng.uniform([-600, -900, -300], [600, 900, 300], (count, 17, 3)) + [100, 50, 3500]
    return joints, project(joints, K)


def arrays(count: int = 4) -> dict[str, np.ndarray]:
    """Return what ``annot_data.mat`` holds, with the axes MATLAB has; frame 2 is not valid."""
    joints, points = poses(count)
    return {
        "annot2": points.T.reshape(2, 17, 1, count),
        "annot3": (joints * 1.1).T.reshape(3, 17, 1, count),
        "univ_annot3": joints.T.reshape(3, 17, 1, count),
        "valid_frame": (np.arange(count) != 1).astype(np.uint8)[:, None],
        "activity_annotation": np.arange(1, count + 1, dtype=np.uint8)[:, None],
        "bb_crop": np.zeros((count, 4)),
    }


def save_v5(path, content):
    from scipy.io import savemat

    savemat(path, content)


def save_v73(path, content):
    import h5py

    with h5py.File(path, "w") as file:
        for key, values in content.items():
            file[key] = np.asarray(values).T


SAVES = {"v5": save_v5, "v7.3": save_v73}


def write_sequence(root, photo, name="TS1", save=save_v73, **changes):
    """Write one sequence with photographs of its four frames."""
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    content = {key: values for key, values in (arrays() | changes).items() if values is not None}
    save(folder / "annot_data.mat", content)
    for index in range(4):
        photo(f"{folder.relative_to(root)}/imageSequence/img_{index + 1:06d}.jpg")
    return folder


@pytest.mark.parametrize("kind", list(SAVES))
def test_valid_frames_of_both_kinds_of_file(tmp_path, photo, kind):
    write_sequence(tmp_path, photo, "TS1", SAVES[kind])
    write_sequence(tmp_path, photo, "TS5", SAVES[kind])
    source = data.create("mpi_inf_3dhp", tmp_path, "test")
    assert [f"{p.image.parent.parent.name}/{p.image.name}" for p in source.persons] == [
        f"{name}/img_{number:06d}.jpg" for name in ("TS1", "TS5") for number in (1, 3, 4)
    ]
    assert source.skeleton == skeletons.MPII
    joints, points = poses(4)
    for entry, frame in zip(source.persons[:3], (0, 2, 3), strict=True):
        for index, name in enumerate(skeletons.MPII.joints):
            if name != "thorax":
                there = JOINTS.index({"upper_neck": "neck"}.get(name, name))
                assert entry.keypoints[index] == pytest.approx(points[frame, there], abs=1e-3), name
                assert entry.pose3d.joints[index] == pytest.approx(joints[frame, there], abs=1e-2), name
        between = joints[frame, [JOINTS.index("l_shoulder"), JOINTS.index("r_shoulder")]].mean(0)
        assert entry.pose3d.joints[7] == pytest.approx(between, abs=1e-2)
        assert entry.pose3d.joints.dtype == np.float32


def test_what_a_sequence_tells(tmp_path, photo):
    write_sequence(tmp_path, photo, "TS3")
    first, second, _ = data.create("mpi_inf_3dhp", tmp_path, "test").persons
    pose = first.pose3d
    assert (pose.subject, pose.clip, pose.action, second.pose3d.action) == ("TS3", "TS3", "Stand/Walk", "Sit on Chair")
    assert (first.identity, first.image_id, second.image_id) == ("TS3", 1, 3)
    points = poses(4)[1][0]
    assert first.center == pytest.approx((points.min(0) + points.max(0)) / 2, abs=1e-3)
    assert first.scale == pytest.approx(1.2 * np.ptp(points, axis=0).max() / 200)


def test_the_camera_of_a_sequence_follows_from_its_joints(tmp_path, photo):
    write_sequence(tmp_path, photo)
    pose = data.create("mpi_inf_3dhp", tmp_path, "test").persons[0].pose3d
    np.testing.assert_allclose(pose.intrinsics, K, rtol=1e-4)
    assert pose.intrinsics.dtype == np.float64


def test_no_camera_where_none_fits(tmp_path, photo):
    write_sequence(tmp_path, photo, annot2=np.random.default_rng(0).uniform(0, 1000, (2, 17, 1, 4)))
    assert data.create("mpi_inf_3dhp", tmp_path, "test").persons[0].pose3d.intrinsics is None


def test_poses_of_the_own_height(tmp_path, photo):
    write_sequence(tmp_path, photo)
    own = data.create("mpi_inf_3dhp", tmp_path, "test", poses="annot3").persons[0].pose3d.joints
    universal = data.create("mpi_inf_3dhp", tmp_path, "test").persons[0].pose3d.joints
    np.testing.assert_allclose(own, universal * 1.1, rtol=1e-5)


def test_joints_outside_the_photograph_are_occluded(tmp_path, photo):
    points = arrays()["annot2"]
    points[:, JOINTS.index("l_wrist"), 0, 0] = (1950, 500)
    write_sequence(tmp_path, photo, "TS1", annot2=points)
    write_sequence(tmp_path, photo, "TS6", annot2=points)
    persons = data.create("mpi_inf_3dhp", tmp_path, "test").persons
    wrist = skeletons.MPII.index("l_wrist")
    assert (persons[0].visibility[wrist], persons[3].visibility[wrist]) == (2, 1), "2048 and 1920 pixels wide"


def test_scored_joints_are_those_of_the_script():
    scored = [skeletons.MPII.joints[joint] for joint in mpi_inf_3dhp._SCORED]
    assert scored == [{"neck": "upper_neck"}.get(name, name) for name in JOINTS[:14]]


def test_the_usual_folder_around_the_sequences(tmp_path, photo):
    write_sequence(tmp_path, photo, "mpi_inf_3dhp_test_set/TS2")
    assert len(data.create("mpi_inf_3dhp", tmp_path, "test")) == 3


def test_a_single_frame_keeps_its_axes(tmp_path, photo):
    """MATLAB drops axes of one behind the second."""
    single = {key: values[..., :1] if values.ndim == 4 else values[:1] for key, values in arrays().items()}
    squeezed = {key: values.squeeze((2, 3)) if values.ndim == 4 else values for key, values in single.items()}
    write_sequence(tmp_path, photo, save=save_v5, **squeezed)
    assert len(data.create("mpi_inf_3dhp", tmp_path, "test")) == 1


@pytest.mark.parametrize("kind", list(SAVES))
@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"annot2": None}, r"annot_data\.mat: lacks 'annot2'"),
        ({"univ_annot3": None}, r"annot_data\.mat: lacks 'univ_annot3'"),
        ({"annot2": np.zeros((2, 28, 1, 4))}, r"annot2: expected numbers 2 x 17 x 1 x N \(MATLAB\)"),
        ({"univ_annot3": np.zeros((3, 17, 1, 5))}, "hold 4, 5, 4, 4 frames"),
        ({"valid_frame": np.zeros((4, 1))}, "expected valid frames, found none among 4"),
        ({"activity_annotation": np.full((4, 1), 9)}, "activity_annotation 9 of frame 1, expected 1 to 7"),
        ({"annot2": np.full((2, 17, 1, 4), np.nan)}, "numbers that are not finite or over 1e9"),
    ],
)  # fmt: skip
def test_a_malformed_sequence_is_one_sentence(tmp_path, photo, kind, changes, sentence):
    write_sequence(tmp_path, photo, save=SAVES[kind], **changes)
    with pytest.raises(ValueError, match=sentence):
        data.create("mpi_inf_3dhp", tmp_path, "test")


@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0 MAT-file" + b"\1" * 300, b"\x89HDF\r\n\x1a\n" + b"\0" * 40])
def test_a_damaged_file_is_one_sentence(tmp_path, photo, content):
    (write_sequence(tmp_path, photo) / "annot_data.mat").write_bytes(content)
    with pytest.raises(ValueError, match=r"annot_data\.mat"):
        data.create("mpi_inf_3dhp", tmp_path, "test")


def test_missing_photographs(tmp_path, photo):
    folder = write_sequence(tmp_path, photo)
    (folder / "imageSequence" / "img_000003.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"mpi_inf_3dhp: 2 of 3 images found .* img_000003.jpg"):
        data.create("mpi_inf_3dhp", tmp_path, "test")
    assert len(data.create("mpi_inf_3dhp", tmp_path, "test", missing_images="drop")) == 2


def test_nothing_there_and_no_training_split(tmp_path, photo):
    with pytest.raises(FileNotFoundError, match=r"neither TS1/annot_data.mat .* nor mpi_inf_3dhp_test.npz"):
        data.create("mpi_inf_3dhp", tmp_path, "test")
    write_sequence(tmp_path, photo)
    with pytest.raises(ValueError, match="the official test sequences, which have no split 'train'"):
        data.create("mpi_inf_3dhp", tmp_path, "train")
    with pytest.raises(ValueError, match="split: expected one of train, test, got 'tset'"):
        data.create("mpi_inf_3dhp", tmp_path, "tset")
    with pytest.raises(ValueError, match="poses: expected one of univ_annot3, annot3"):
        data.create("mpi_inf_3dhp", tmp_path, "test", poses="annot2")


# ------------------------------------------------------------------------------------------------ mmpose's preparation


def write_prepared(root, photo, name="mpi_inf_3dhp_train.npz", **changes):
    joints, points = poses(2)
    weights = np.ones((2, 17, 1))
    weights[0, JOINTS.index("r_knee")] = 0
    names = ["S4_Seq2_Cam0_001033.jpg", "TS1_000002.jpg"]
    content = {
        "imgname": np.array(names),
        "center": np.array([[40.0, 30.0], [41.0, 31.0]]),
        "scale": np.array([2.0, 3.0]),
        "part": np.concatenate([points, weights], 2),
        "S": np.concatenate([joints / 1000, weights], 2),
    }
    np.savez(root / name, **(content | changes))
    for each in names:
        photo(f"images/{each}")
    cameras = {key: {"f": np.array([[1500.0], [1501.0]]), "c": [1017.0, 1043.0]} for key in ("S4_Seq2_Cam0", "TS1")}
    with (root / "cameras_train.pkl").open("wb") as file:
        pickle.dump(cameras, file)
    return root


def test_the_prepared_layout(tmp_path, photo):
    first, second = data.create("mpi_inf_3dhp", write_prepared(tmp_path, photo), "train").persons
    pose = first.pose3d
    assert (pose.subject, pose.clip, pose.camera, pose.action) == ("S4", "S4_Seq2", "Cam0", "")
    assert (second.pose3d.subject, second.pose3d.clip, second.pose3d.camera) == ("TS1", "TS1", "")
    assert (first.scale, first.center.tolist()) == (2.0, [40.0, 30.0])
    np.testing.assert_array_equal(pose.intrinsics, K)
    np.testing.assert_allclose(project(pose.joints, K)[[0, 6, 9]], first.keypoints[[0, 6, 9]], atol=0.01)
    knee = skeletons.MPII.index("r_knee")
    assert (first.visibility[knee], second.visibility[knee]) == (1, 2), "outside the photograph, but known"


def test_no_cameras_beside_it(tmp_path, photo):
    (write_prepared(tmp_path, photo) / "cameras_train.pkl").unlink()
    assert data.create("mpi_inf_3dhp", tmp_path, "train").persons[0].pose3d.intrinsics is None


class Hostile:
    def __reduce__(self):
        return (shutil.rmtree, ("/nowhere",))


@pytest.mark.parametrize(
    ("cameras", "sentence"),
    [
        (Hostile(), "not a pickle of numpy arrays alone .*rmtree"),
        ({"TS2": 1}, "unknown camera 'S4_Seq2_Cam0'"),
        ({"S4_Seq2_Cam0": {"f": [1.0, 2.0]}}, "camera S4_Seq2_Cam0 lacks 'c'"),
        ({"S4_Seq2_Cam0": {"f": [1.0, 2.0], "c": [np.nan, 1.0]}}, "numbers that are not finite"),
        ({"S4_Seq2_Cam0": {"f": [1.0, 2.0, 3.0], "c": [1.0, 1.0]}}, "camera S4_Seq2_Cam0 is malformed"),
    ],
)  # fmt: skip
def test_cameras_that_cannot_be(tmp_path, photo, cameras, sentence):
    with (write_prepared(tmp_path, photo) / "cameras_train.pkl").open("wb") as file:
        pickle.dump(cameras, file)
    with pytest.raises(ValueError, match=sentence):
        data.create("mpi_inf_3dhp", tmp_path, "train")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"S": np.zeros((2, 17, 3))}, r"S: expected numbers \(2, 17, 4\), found float64 \(2, 17, 3\)"),
        ({"part": np.zeros((3, 17, 3))}, r"part: expected numbers \(2, 17, 3\)"),
        ({"scale": np.array(["a", "b"])}, r"scale: expected numbers \(2,\)"),
        ({"S": np.array([{}, {}])}, "array S cannot be read .it holds object"),
        ({"imgname": np.array(["a.jpg", "b.jpg"])}, "photograph 'a.jpg', expected a name as TS1_002001.jpg"),
        ({"imgname": np.array(["../TS1_000001.jpg", "TS1_000002.jpg"])}, "leaves the folder"),
    ],
)  # fmt: skip
def test_a_malformed_preparation_is_one_sentence(tmp_path, photo, changes, sentence):
    write_prepared(tmp_path, photo, **changes)
    with pytest.raises(ValueError, match=sentence):
        data.create("mpi_inf_3dhp", tmp_path, "train")


def test_a_named_annotation(tmp_path, photo):
    write_prepared(tmp_path, photo, "mine.npz")
    assert len(data.create("mpi_inf_3dhp", tmp_path, "test", annotation="mine.npz")) == 2
    with pytest.raises(FileNotFoundError, match=r"annotation file .*yours.npz not found"):
        data.create("mpi_inf_3dhp", tmp_path, "test", annotation="yours.npz")
    (tmp_path / "bad.npz").write_bytes(b"PK\3\4 and no archive")
    with pytest.raises(ValueError, match=r"bad\.npz: not a readable \.npz file"):
        data.create("mpi_inf_3dhp", tmp_path, "test", annotation="bad.npz")


def test_the_real_sample(shared):
    root = shared / "data" / "mpi_inf_3dhp_sample"
    if not root.is_dir():
        pytest.skip(f"{root} is not there")
    persons = [*data.create("mpi_inf_3dhp", root, "train").persons, *data.create("mpi_inf_3dhp", root, "test").persons]
    assert [entry.pose3d.clip for entry in persons] == ["S4_Seq2", "S8_Seq1", "TS1", "TS2"]
    for entry in persons:
        assert np.abs(project(entry.pose3d.joints, entry.pose3d.intrinsics) - entry.keypoints).max() < 2.0
        thighs = np.linalg.norm(entry.pose3d.joints[[2, 3]] - entry.pose3d.joints[[1, 4]], axis=-1)
        assert ((thighs > 300) & (thighs < 600)).all(), "millimetres"
