"""Human3.6M from each layout: joints in MPII's order, millimetres, cameras, subjects, sampling, and broken files."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from fastpose import data, skeletons
from fastpose.data import human36m, human36m_files, render_files
from fastpose.data.person import LazyPersons
from fastpose.data.pose3d import project
from fastpose.data.rendered_mocap import SampleMocap

CAMERA = np.array([[1145.0, 0.0, 512.0], [0.0, 1143.0, 515.0], [0.0, 0.0, 1.0]])
# Standing, facing the camera: 17 joints, right leg first, x right and y down, metres from the pelvis.
STANDING = np.array(
    [
        *([0, 0, 0], [-0.13, 0, 0], [-0.14, 0.45, 0.02], [-0.15, 0.9, 0.05]),
        *([0.13, 0, 0], [0.14, 0.45, 0.03], [0.15, 0.9, 0.06], [0, -0.25, 0]),
        *([0, -0.5, 0.02], [0, -0.6, -0.03], [0, -0.72, 0], [0.16, -0.46, 0.01]),
        *([0.3, -0.2, 0], [0.35, 0.05, -0.1], [-0.16, -0.46, 0], [-0.31, -0.2, 0.05], [-0.36, 0.04, -0.05]),
    ]
)
SWAPPED = [0, 4, 5, 6, 1, 2, 3, *range(7, 17)]
TO_MPII = [3, 2, 1, 4, 5, 6, 0, 7, 8, 10, 16, 15, 14, 11, 12, 13]


def _joints(count):
    """Return (N, 17, 3) metres of the camera frame: the body, some five metres away, a little different each time."""
    rng = np.random.default_rng(3)
    places = np.array([0.2, -0.1, 5.0]) + rng.normal(0, 0.3, (count, 1, 3))
    return STANDING + places + rng.normal(0, 0.01, (count, 17, 3))


def _names(count, step=5, subject="S1"):
    return [f"{subject}_Directions_1.54138969_{1 + step * row:06d}.jpg" for row in range(count)]


def _pixels(joints):
    return project(joints, CAMERA)


def _mmpose(folder, names, *, joints=None, word="train", cameras=True, **extra):
    """Write mmpose's layout; ``extra`` adds or replaces arrays."""
    joints = _joints(len(names)) if joints is None else joints
    arrays = {
        "imgname": np.array(names),
        "center": np.full((len(names), 2), 500.0),
        "scale": np.full(len(names), 2.0),
        "part": np.concatenate([_pixels(joints), np.ones((len(names), 17, 1))], 2),
        "S": np.concatenate([joints, np.ones((len(names), 17, 1))], 2),
    }
    path = folder / "annotation_body3d" / "fps10" / f"h36m_{word}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{key: value for key, value in (arrays | extra).items() if value is not None})
    if cameras:
        _cameras(folder / "annotation_body3d" / "cameras.pkl")
    return path


def _cameras(path, subjects=("S1", "S5", "S9", "S11")):
    camera = {"f": CAMERA[[0, 1], [0, 1]].reshape(2, 1), "c": CAMERA[:2, 2:], "w": 1000, "name": "camera1"}
    path.write_bytes(pickle.dumps({(subject, "54138969"): camera for subject in subjects}, protocol=3))


def _coded(folder, rows, *, joints=None, **extra):
    """Write the backbone's layout: ``rows`` of (subject, action, subaction, camera, id), MPII's 16 joints."""
    import h5py

    joints = 1000.0 * _joints(len(rows)) if joints is None else joints
    crop = (_pixels(joints) - [400.0, 380.0]) * 0.5
    columns = dict(zip(("subject", "action", "subaction", "camera", "id"), np.array(rows).T, strict=True))
    arrays = columns | {"joint_2d": crop[:, TO_MPII], "joint_3d_mono": joints[:, TO_MPII]} | extra
    path = folder / "annotSampleTest.h5"
    with h5py.File(path, "w") as file:
        for key, value in arrays.items():
            if value is not None:
                file[key] = value
    return path


def _c2f(folder, names, *, listed=None, **extra):
    """Write c2f-vol's training layout: left leg first, millimetres, names in a list beside."""
    import h5py

    joints = 1000.0 * _joints(len(names))[:, SWAPPED]
    arrays = {"S": joints, "part": _pixels(joints), "center": np.full((len(names), 2), 500.0)}
    arrays |= {"scale": np.full(len(names), 2.0)} | extra
    (folder / "annot").mkdir(exist_ok=True)
    with h5py.File(folder / "annot" / "train.h5", "w") as file:
        for key, value in arrays.items():
            file[key] = value
    (folder / "annot" / "train_images.txt").write_text("\n".join(names if listed is None else listed))


def _apart(person):
    """Return how far the 3D pose projects from each key point, pixels."""
    return np.linalg.norm(project(person.pose3d.joints, person.pose3d.intrinsics) - person.keypoints, axis=1)


def _sides(person):
    """Return, for hips, knees, shoulders and wrists, the vector from the right one to the left one (4, 3)."""
    names = ("hip", "knee", "shoulder", "wrist")
    left, right = ([skeletons.MPII.index(f"{side}_{name}") for name in names] for side in "lr")
    return person.pose3d.joints[left] - person.pose3d.joints[right]


# The real samples


def test_mmpose_sample(shared):
    root = shared / "data" / "h36m_sample" / "mmpose_tests_h36m"
    source = data.create("h36m", root, "train", annotation="test_h36m_body3d.npz")
    assert len(source) == 4
    assert source.skeleton is skeletons.MPII
    first = source.persons[0]
    assert first.image.is_file()
    assert (first.identity, first.camera) == ("S1", 1)
    assert (first.pose3d.subject, first.pose3d.action, first.pose3d.camera) == ("S1", "Directions", "54138969")
    assert [person.pose3d.action for person in source.persons] == ["Directions", "SittingDown", "Greeting", "WalkDog"]
    assert np.allclose(first.pose3d.joints[6], [-176.73077, -321.04862, 5203.88206], atol=1e-2)
    assert np.allclose(first.keypoints[0], [506.2184, 622.5688], atol=1e-3)  # the right ankle


def test_mmpose_sample_agrees_with_its_cameras_but_for_the_lens(shared):
    root = shared / "data" / "h36m_sample" / "mmpose_tests_h36m"
    persons = human36m.read(root, "train", annotation="test_h36m_body3d.npz")
    apart = np.stack([_apart(person) for person in persons])
    # The published key points have the lens's distortion, which a pinhole leaves out.
    assert apart.mean() < 1.0
    assert apart.max() < 3.5


def test_a_camera_fitted_to_the_mmpose_sample_is_the_true_one(shared, tmp_path):
    sample = shared / "data" / "h36m_sample" / "mmpose_tests_h36m"
    (tmp_path / "h36m_train.npz").write_bytes((sample / "test_h36m_body3d.npz").read_bytes())
    fitted = human36m.read(tmp_path, "train")
    known = human36m.read(tmp_path, "train", cameras=str(sample / "cameras.pkl"))
    for person, truth in zip(fitted, known, strict=True):
        assert np.allclose(person.pose3d.intrinsics, truth.pose3d.intrinsics, rtol=0.012, atol=2.0)
        assert _apart(person).max() < 2.0


def test_c2f_sample(shared):
    persons = human36m.read(shared / "data" / "h36m_sample" / "c2f_S9_Posing_1", "test")
    first = persons[0]
    assert len(persons) == 334
    assert first.image.name == "S9_Posing_1.55011271_000001.jpg"
    assert (first.pose3d.subject, first.pose3d.action, first.camera) == ("S9", "Posing", 2)
    assert {person.pose3d.clip for person in persons} == {"S9_Posing_1"}
    assert np.allclose(first.pose3d.joints[6], [-32.18553646, -543.17172413, 5403.51766003], atol=1e-2)
    assert np.allclose(first.center, [509.0518, 409.584], atol=1e-3)
    assert max(_apart(person)[np.arange(16) != 7].max() for person in persons) < 1e-2
    assert max(_apart(person)[7] for person in persons) < 2.0  # the middle of two points moves under a projection


def test_left_and_right_are_the_same_in_both_orders(shared):
    folder = shared / "data" / "h36m_sample"
    test = human36m.read(folder / "c2f_S9_Posing_1", "test")
    train = human36m.read(folder / "mmpose_tests_h36m", "train", annotation="test_h36m_body3d.npz")
    for person in (*test, *train):
        hips, knees, shoulders, _ = _sides(person)
        assert hips @ shoulders > 0
        assert hips @ knees > 0 or np.linalg.norm(knees) < 150  # knees may cross


def test_the_order_of_the_legs_can_be_forced(shared):
    root = shared / "data" / "h36m_sample" / "c2f_S9_Posing_1"
    told, forced, wrong = (
        human36m.read(root, "test", order=order)[0] for order in ("auto", "left_first", "right_first")
    )
    assert np.array_equal(told.pose3d.joints, forced.pose3d.joints)
    assert np.array_equal(told.pose3d.joints[:6], wrong.pose3d.joints[[5, 4, 3, 2, 1, 0]])


def test_sampling_goes_by_the_number_in_the_name(shared):
    root = shared / "data" / "h36m_sample" / "c2f_S9_Posing_1"
    counts = {every: len(human36m.read(root, "test", every=every)) for every in ("all", "10fps", "zhou", 10, 320)}
    assert counts == {"all": 334, "10fps": 334, "zhou": 9, 10: 167, 320: 6}
    names = [person.image.name[-10:-4] for person in human36m.read(root, "test", every="zhou")]
    assert names[:3] == ["000001", "000201", "000401"]


@pytest.mark.parametrize(("every", "way_out"), [("1in64", 320), (2, 10), (3, 15), (7, 35)])
def test_a_thinned_file_is_not_thinned_by_what_does_not_go_with_it(tmp_path, every, way_out):
    path = _mmpose(tmp_path, _names(40, subject="S9"), word="test", cameras=False)
    sentence = rf"h36m_test\.npz: every: expected a multiple of 5, since .* take every={way_out}, every=5 for the whole"
    with pytest.raises(ValueError, match=sentence):
        human36m.read(tmp_path, "test", every=every, annotation=str(path))
    assert len(human36m.read(tmp_path, "test", every=way_out)) == -(-200 // way_out)


def test_all_frames_can_be_thinned_by_any_step(tmp_path):
    _mmpose(tmp_path, _names(130, step=1, subject="S9"), word="test", cameras=False)
    counts = {every: len(human36m.read(tmp_path, "test", every=every)) for every in ("1in64", "10fps", 3, 7)}
    assert counts == {"1in64": 3, "10fps": 26, 3: 44, 7: 19}


def test_a_file_that_is_thinner_than_asked_is_taken_as_it_is(tmp_path):
    _mmpose(tmp_path, _names(4, step=200, subject="S9"), word="test", cameras=False)
    assert len(human36m.read(tmp_path, "test", every="10fps")) == 4


# Layouts


def test_the_three_layouts_give_one_person(tmp_path):
    names = _names(3)
    for layout in ("mmpose", "coded", "c2f"):
        (tmp_path / layout).mkdir()
    _mmpose(tmp_path / "mmpose", names)
    _coded(tmp_path / "coded", [(1, 2, 1, 1, 1 + 5 * row) for row in range(3)])
    _c2f(tmp_path / "c2f", names)
    for mmpose, coded, c2f in zip(
        *(human36m.read(tmp_path / name, "train") for name in ("mmpose", "coded", "c2f")), strict=True
    ):
        for other in (coded, c2f):
            assert np.allclose(other.pose3d.joints, mmpose.pose3d.joints, atol=1e-2)
            assert (other.pose3d.subject, other.pose3d.action) == ("S1", "Directions")
            assert other.camera == mmpose.camera == 1
        assert np.allclose(c2f.keypoints, mmpose.keypoints, atol=1e-3)
        assert np.allclose(coded.keypoints, (mmpose.keypoints - [400, 380]) * 0.5, atol=1e-3)


def test_the_thorax_is_between_the_shoulders(tmp_path):
    _mmpose(tmp_path, _names(1))
    (person,) = human36m.read(tmp_path, "train")
    assert np.allclose(person.pose3d.joints[7], person.pose3d.joints[[12, 13]].mean(0), atol=1e-3)
    assert np.allclose(person.keypoints[7], person.keypoints[[12, 13]].mean(0), atol=1e-3)
    assert np.allclose(person.pose3d.joints[8], 1000 * _joints(1)[0, 8], atol=1e-2)  # the neck's base stays


def test_all_17_joints_on_request(tmp_path, photo):
    _mmpose(tmp_path, _names(1))
    photo(f"images/{_names(1)[0]}")
    source = data.create("h36m", tmp_path, "train", skeleton="h36m")
    assert source.skeleton is skeletons.H36M
    assert source.scored_joints == tuple(range(17))
    assert np.allclose(source.persons[0].pose3d.joints, 1000 * _joints(1)[0], atol=1e-2)
    assert np.allclose(_apart(source.persons[0]), 0, atol=1e-3)


def test_the_backbones_crops(tmp_path):
    rows = [(1, 2, 1, 1, 1), (5, 16, 2, 4, 6), (9, 7, 1, 2, 1)]
    _coded(tmp_path, rows)
    first, second = human36m.read(tmp_path, "train")
    (test,) = human36m.read(tmp_path, "test")
    name = "s_05_act_16_subact_02_ca_04"
    assert second.image == tmp_path / "images" / name / f"{name}_000006.jpg"
    assert (second.pose3d.action, second.pose3d.camera, test.pose3d.action) == ("WalkTogether", "60457274", "Posing")
    assert first.center.tolist() == [111.5, 111.5]
    assert first.scale == pytest.approx(1.12)
    # The crop's own camera: half of the true one, moved by the crop's corner.
    assert np.allclose(first.pose3d.intrinsics[:2], [[572.5, 0, 56.0], [0, 571.5, 67.5]], atol=1e-2)


def test_a_camera_that_does_not_fit_is_none(tmp_path):
    _coded(tmp_path, [(1, 2, 1, 1, 1)], joint_2d=np.random.default_rng(0).uniform(20, 200, (1, 16, 2)))
    assert human36m.read(tmp_path, "train")[0].pose3d.intrinsics is None


def test_persons_are_built_when_asked_for_and_cannot_be_changed(tmp_path):
    _mmpose(tmp_path, _names(3))
    persons = human36m.read(tmp_path, "train")
    assert isinstance(persons, LazyPersons)
    again = pickle.loads(pickle.dumps(persons))  # as workers get them where processes are not forked
    for person, other in zip(persons, again, strict=True):
        assert np.array_equal(person.pose3d.joints, other.pose3d.joints)
    for array in (persons[0].keypoints, persons[0].visibility, persons[0].pose3d.joints, persons[0].pose3d.intrinsics):
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 0
    assert persons[0].pose3d.intrinsics is persons[2].pose3d.intrinsics  # one camera


def test_metres_and_millimetres(tmp_path):
    _mmpose(tmp_path, _names(2))
    metres = human36m.read(tmp_path, "train")
    _mmpose(tmp_path, _names(2), joints=1000 * _joints(2))
    for person, other in zip(human36m.read(tmp_path, "train"), metres, strict=True):
        assert np.allclose(person.pose3d.joints, other.pose3d.joints, atol=1e-2)
    forced = human36m.read(tmp_path, "train", unit="m")[0]
    assert np.allclose(forced.pose3d.joints, 1000 * metres[0].pose3d.joints, rtol=1e-4)


def test_subjects_make_the_splits(tmp_path):
    names = [_names(1, subject=f"S{number}")[0] for number in (1, 5, 6, 7, 8, 9, 11)]
    for word in ("train", "test"):
        _mmpose(tmp_path, names, word=word, cameras=False)
    assert [person.identity for person in human36m.read(tmp_path, "train")] == ["S1", "S5", "S6", "S7", "S8"]
    for split in ("val", "test"):
        assert [person.identity for person in human36m.read(tmp_path, split)] == ["S9", "S11"]
    assert [person.identity for person in human36m.read(tmp_path, "train", subjects=["S7"])] == ["S7"]


def test_one_frame_in_five_is_kept(tmp_path):
    _mmpose(tmp_path, _names(12, step=1), cameras=False)
    assert [person.person_id for person in human36m.read(tmp_path, "train")] == [0, 5, 10]
    assert len(human36m.read(tmp_path, "train", every=1)) == 12


def test_a_rendered_set_is_taken_whole(tmp_path):
    names = [f"clip_a/{row:06d}.png" for row in range(3)]
    seen = np.full((3, 17), 2)
    seen[0, 3] = 1
    path = _mmpose(tmp_path, names, cameras=False, intrinsics=np.tile(CAMERA, (3, 1, 1)), visibility=seen)
    persons = human36m.read(tmp_path, "train", annotation=str(path))
    assert len(persons) == 3
    assert (persons[1].pose3d.clip, persons[1].camera) == ("clip_a", -1)
    assert (persons[0].visibility[0], persons[1].visibility[0]) == (1, 2)
    assert np.array_equal(persons[2].pose3d.intrinsics, CAMERA)


def _words(count, **words):
    return {key: np.array([value] * count) for key, value in words.items()}


def test_a_rendered_set_tells_who_does_what(tmp_path):
    words = _words(2, subject="02", action="run", camera="v1", clip="02_03")
    _mmpose(tmp_path, ["a/0.png", "a/1.png"], cameras=False, intrinsics=np.tile(CAMERA, (2, 1, 1)), **words)
    person = human36m.read(tmp_path, "train")[1]
    pose = person.pose3d
    assert (pose.subject, pose.action, pose.camera, pose.clip) == ("02", "run", "v1", "02_03")
    assert (person.identity, person.camera) == ("02", 1)


def test_both_doors_to_rendered_poses_give_the_same_joints(tmp_path):
    sources = {split: SampleMocap(split, size=(32, 32), fps=1.0, skeleton="h36m") for split in ("train", "val")}
    render_files.write(tmp_path / "drawn", sources, count=3)
    for split in sources:
        mocap = SampleMocap(split, size=(32, 32), fps=1.0)
        drawn = {mocap.picture_name(index): person for index, person in enumerate(mocap.persons)}
        source = data.create("h36m", tmp_path / "drawn", split)
        assert len(source) == 3
        for person in source.persons:
            expected = drawn[f"{person.image.parent.name}/{person.image.stem}"]
            for told in ("subject", "action", "camera", "clip"):
                assert getattr(person.pose3d, told) == getattr(expected.pose3d, told)
            assert (person.identity, person.camera) == (expected.identity, expected.camera)
            assert np.abs(person.pose3d.joints - expected.pose3d.joints).max() < 1e-3
            assert np.abs(person.keypoints - expected.keypoints).max() < 1e-3


def test_a_rendered_set_lacks_a_split_without_a_word_of_registration(tmp_path):
    render_files.write(tmp_path / "drawn", {"val": SampleMocap("val", size=(32, 32), skeleton="h36m")}, count=1)
    with pytest.raises(FileNotFoundError, match=r"was rendered and holds h36m_test\.npz alone.*split 'train'") as error:
        human36m.read(tmp_path / "drawn", "train")
    assert "registration" not in str(error.value)


def test_names_of_subject_1_are_spelled_as_the_others():
    told = human36m_files.parse_name("S1/S1_TakingPhoto 1.58860488/S1_TakingPhoto 1.58860488_000011.jpg")
    assert told == human36m_files.FrameName("S1", "Photo", "58860488", "S1_TakingPhoto_1", 10)
    assert human36m_files.parse_name("im0001.jpg") is None
    assert human36m_files.parse_name("s_01_act_17_subact_01_ca_01_000001.jpg") is None


# Photographs


def test_absent_photographs(tmp_path, photo):
    names = _names(3)
    _mmpose(tmp_path, names)
    photo(f"images/{names[1]}")
    with pytest.raises(FileNotFoundError, match=r"h36m: 1 of 3 images found .* missing_images=drop"):
        data.create("h36m", tmp_path, "train")
    assert [person.image.name for person in data.create("h36m", tmp_path, "train", missing_images="drop").persons] == [
        names[1]
    ]


# Mistakes


def test_a_wrong_folder_names_the_files_of_every_layout(tmp_path):
    for split, words in (
        ("train", ("annot/train.h5", "h36m_train.npz")),
        ("test", ("annot/valid.mat", "h36m_test.npz")),
    ):
        with pytest.raises(FileNotFoundError) as error:
            data.create("h36m", tmp_path, split)
        text = str(error.value)
        assert all(word in text for word in (*words, "annotSampleTest.h5", "cameras.pkl", "images/", "registration"))
        assert "\n" not in text


def test_a_split_that_is_not_in_the_file(tmp_path):
    path = _mmpose(tmp_path, _names(3))
    with pytest.raises(
        ValueError, match=r"no frame of split 'test' \(subjects S9, S11, 1 in 5 of 50 fps\) among 3 of S1"
    ):
        human36m.read(tmp_path, "test", annotation=str(path))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"every": 0}, "every: expected a whole number from 1"),
        ({"every": True}, "every: expected a whole number from 1"),
        ({"every": "1in63"}, "did you mean '1in64'"),
        ({"skeleton": "coco"}, "skeleton: expected one of mpii, h36m"),
        ({"order": "left"}, "order: expected one of"),
        ({"unit": "cm"}, "unit: expected one of"),
        ({"split": "valid"}, "split: expected one of train, val, test"),
        ({"annotation": "none.npz"}, "annotation file .*none.npz not found"),
        ({"subjects": "S9"}, r"subjects: expected names such as \[S9, S11\]"),
        ({"cameras": "none.pkl"}, "cameras .*none.pkl not found"),
    ],
)
def test_bad_options(tmp_path, options, words):
    _mmpose(tmp_path, _names(1))
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        human36m.read(tmp_path, options.pop("split", "train"), **options)


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"S": None}, "lacks array 'S'"),
        ({"scale": None}, "lacks array 'scale'"),
        ({"imgname": None}, "lacks 'imgname"),
        ({"S": np.ones((2, 24, 4))}, r"S: expected numbers \(2, 17, 4\), got float64 \(2, 24, 4\)"),
        ({"part": np.ones((3, 17, 3))}, r"part: expected numbers \(2, 17, 3\)"),
        ({"center": np.array([["a", "b"]] * 2)}, "center: expected numbers"),
        ({"S": np.zeros((2, 17, 4))}, "all 17 joints in every row"),
        ({"imgname": np.array(["a.jpg", "b.jpg"])}, "does not tell subject, action, camera and frame"),
        ({"imgname": np.array(_names(2), dtype=object)}, "array imgname cannot be read .it holds object"),
        ({"intrinsics": np.full((2, 3, 3), np.nan)}, "finite cameras"),
        ({"intrinsics": np.ones((2, 3, 3)), "action": np.array(["run"])}, "action: expected 2 words"),
        ({"intrinsics": np.ones((2, 3, 3)), "clip": np.ones(2)}, "clip: expected 2 words"),
        ({"intrinsics": np.ones((2, 3, 3)), "visibility": np.full((2, 17), 7)}, "visibility: expected 0, 1 or 2"),
    ],
)
def test_broken_mmpose_files(tmp_path, extra, words):
    _mmpose(tmp_path, _names(2), **extra)
    with pytest.raises(ValueError, match=words) as error:
        human36m.read(tmp_path, "train")
    assert "h36m_train.npz" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["a.npz", "a.h5", "a.mat", "a.json"])
@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04" + b"\0" * 60, b"\x89HDF\r\n\x1a\n" + b"\0" * 60])
def test_files_that_are_none(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=name) as error:
        human36m.read(tmp_path, "train", annotation=name)
    assert len(str(error.value).splitlines()) == 1


def test_not_a_number_is_refused(tmp_path, photo):
    joints = _joints(2)
    points = _pixels(joints)
    joints[1, 4, 2] = np.nan
    part = np.concatenate([points, np.ones((2, 17, 1))], 2)
    _mmpose(tmp_path, _names(2), joints=np.nan_to_num(joints, nan=5.0), part=part)
    _mmpose(tmp_path, _names(2), S=np.concatenate([joints, np.ones((2, 17, 1))], 2), part=part)
    for name in _names(2):
        photo(f"images/{name}")
    with pytest.raises(ValueError, match="NaN or infinite"):
        data.create("h36m", tmp_path, "train")


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"joint_3d_mono": None}, "lacks array 'joint_3d_mono'"),
        ({"id": None}, "'id'|expected numbers"),
        ({"joint_3d_mono": np.ones((1, 17, 3))}, r"joint_3d_mono: expected numbers \(1, 16, 3\)"),
        ({"action": np.array([1])}, "does not tell"),
        ({"id": np.array([1.5])}, "id: expected whole numbers"),
        ({"joint_2d": np.full((1, 16, 2), 1e30)}, "joint_2d: .* numbers over 1e9"),
        ({"camera": np.array([1, 2])}, r"camera: expected numbers \(1,\)"),
    ],
)
def test_broken_files_of_the_backbone(tmp_path, extra, words):
    _coded(tmp_path, [(1, 2, 1, 1, 1)], **extra)
    with pytest.raises(ValueError, match=words):
        human36m.read(tmp_path, "train")


def test_17_joints_are_not_made_of_16(tmp_path):
    _coded(tmp_path, [(1, 2, 1, 1, 1)])
    with pytest.raises(ValueError, match="skeleton 'h36m' needs 17 joints"):
        human36m.read(tmp_path, "train", skeleton="h36m")
    with pytest.raises(ValueError, match="order: 'left_first' is for files of 17 joints"):
        human36m.read(tmp_path, "train", order="left_first")


def test_broken_c2f_files(tmp_path):
    _c2f(tmp_path, _names(2), listed=_names(3))
    with pytest.raises(ValueError, match=r"S: expected numbers \(3, 17, 3\), got float64 \(2, 17, 3\)"):
        human36m.read(tmp_path, "train")
    (tmp_path / "annot" / "train_images.txt").unlink()
    with pytest.raises(ValueError, match=r"train_images\.txt are not beside it"):
        human36m.read(tmp_path, "train")


def _c2f_test(folder, count=2, **extra):
    """Write c2f-vol's test layout: joints (3, 17), a camera for each photograph, no key points."""
    from scipy.io import savemat

    names, cameras = np.empty((count, 1), object), np.empty((count, 1), object)
    for row, name in enumerate(_names(count, subject="S9")):
        names[row, 0], cameras[row, 0] = name.removesuffix(".jpg"), CAMERA
    joints = 1000.0 * _joints(count)[:, SWAPPED].transpose(0, 2, 1)
    annot = {"imgname": names, "S": joints, "K": cameras, "center": np.ones((count, 2)), "scale": np.ones((count, 1))}
    (folder / "annot").mkdir(exist_ok=True)
    savemat(folder / "annot" / "valid.mat", {"annot": annot | extra})


def test_the_c2f_test_layout(tmp_path):
    _c2f_test(tmp_path)
    _mmpose(tmp_path / "mmpose", _names(2, subject="S9"), word="test")
    for person, other in zip(human36m.read(tmp_path, "test"), human36m.read(tmp_path / "mmpose", "test"), strict=True):
        assert person.image.name == other.image.name
        assert np.allclose(person.pose3d.joints, other.pose3d.joints, atol=1e-2)
        assert np.allclose(person.keypoints, other.keypoints, atol=1e-3)


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"S": np.ones((2, 17, 3))}, r"S: expected numbers \(2, 3, 17\)"),
        ({"K": np.array([[CAMERA]], dtype=object)}, "expected 2 cameras"),
        ({"K": np.array([[np.eye(2)], [np.eye(2)], [0]], dtype=object)[:2]}, r"K: expected numbers \(3, 3\)"),
        ({"S": np.ones((2, 3, 17)) * [[[0.0], [900.0], [-5.0]]]}, "in front of the camera"),
        ({"center": np.ones((3, 2))}, r"center: expected numbers \(2, 2\)"),
    ],
)
def test_broken_c2f_test_files(tmp_path, extra, words):
    _c2f_test(tmp_path, **extra)
    with pytest.raises(ValueError, match=words) as error:
        human36m.read(tmp_path, "test")
    assert "valid.mat" in str(error.value)


def test_a_c2f_file_without_poses_points_to_the_other(shared):
    with pytest.raises(ValueError, match=r"no 3D poses.*found center, scale.*valid\.mat"):
        human36m.read(shared / "data" / "h36m_sample" / "c2f_S9_Posing_1", "test", annotation="annot/valid.h5")


def test_an_absent_camera(tmp_path):
    _mmpose(tmp_path, _names(1))
    _cameras(tmp_path / "annotation_body3d" / "cameras.pkl", subjects=("S5",))
    with pytest.raises(ValueError, match="no camera 54138969 of subject S1"):
        human36m.read(tmp_path, "train")


# Cameras


def test_cameras_that_would_run_code_are_refused(tmp_path, capsys):
    class Harmful:
        def __reduce__(self):
            return print, ("executed",)

    _mmpose(tmp_path, _names(1))
    path = tmp_path / "annotation_body3d" / "cameras.pkl"
    path.write_bytes(pickle.dumps({("S1", "54138969"): Harmful()}))
    with pytest.raises(ValueError, match=r"names builtins\.print, where only numpy arrays are admitted"):
        human36m.read(tmp_path, "train")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content", [b"", b"junk", pickle.dumps([1, 2]), pickle.dumps({("S1", "54138969"): {"f": 1}})])
def test_broken_cameras(tmp_path, content):
    _mmpose(tmp_path, _names(1))
    (tmp_path / "annotation_body3d" / "cameras.pkl").write_bytes(content)
    with pytest.raises(ValueError, match=r"cameras\.pkl") as error:
        human36m.read(tmp_path, "train")
    assert len(str(error.value).splitlines()) == 1
