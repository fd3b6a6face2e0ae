"""Motion: frame rates, finding and reading clips, the joints of the package's skeletons, the bundled piece."""

from __future__ import annotations

import numpy as np
import pytest
from motion_files import AMC, BVH, write, write_pair

from fastpose import skeletons
from fastpose.data import motion
from fastpose.data.motion import SAMPLE, Motion, joint_maps, library

MPII, H36M = skeletons.MPII, skeletons.H36M


def moving(joints, frames=8, fps=120.0, name="x"):
    positions = np.random.default_rng(3).normal(size=(frames, len(joints), 3)).astype(np.float32)
    return Motion(positions, tuple(joints), (-1, *[0] * (len(joints) - 1)), fps, name)


# ------------------------------------------------------------------------------------------------------- frame rates


def test_a_lower_rate_takes_every_nth_frame():
    whole = moving("ab", frames=9)
    half = whole.at(40)
    np.testing.assert_array_equal(half.positions, whole.positions[::3])
    assert (half.fps, len(half), half.joints) == (40.0, 3, whole.joints)
    assert whole.at(None) is whole
    assert whole.at(120) is whole


@pytest.mark.parametrize("fps", [0.0, -5.0, 50.0, 240.0, float("nan"), float("inf")])
def test_a_rate_that_no_step_gives_is_an_error(fps):
    with pytest.raises(ValueError, match=r"fps: expected 120 \(that of x\) over a whole number, such as 120, 60, 30"):
        moving("ab").at(fps)


# -------------------------------------------------------------------------------------------------- finding, reading


def test_clips_are_listed_without_being_read(tmp_path):
    write_pair(tmp_path / "subjects" / "07", "not read")
    write(tmp_path / "more", "b.BVH", "not read")
    np.savez(tmp_path / "c.npz", d=np.zeros(1), e=np.zeros(1), joint_names=np.zeros(1), parents=np.zeros(1))
    write(tmp_path, "notes.txt", "")
    found = motion.find(tmp_path)
    assert [clip.name for clip in found] == ["d", "e", "b", "07_01"]
    assert found[-1].path == tmp_path / "subjects" / "07" / "07_01.amc"


def test_archives_of_other_things_are_left_out(tmp_path):
    """A folder may hold a rendered set, or anything, beside its motion."""
    np.savez(tmp_path / "h36m_train.npz", imgname=np.array(["a"]), S=np.zeros((1, 17, 4)))
    with pytest.raises(FileNotFoundError, match=r"no motion found; .* with joint_names and parents"):
        motion.find(tmp_path)
    write_pair(tmp_path / "subjects" / "07")
    assert [clip.name for clip in motion.find(tmp_path)] == ["07_01"]
    assert [path.name for path in library.others(tmp_path)] == ["h36m_train.npz"]
    with pytest.raises(ValueError, match=r"h36m_train.npz: expected arrays joint_names and parents"):
        motion.find(tmp_path / "h36m_train.npz")[0].read()


def test_the_home_folder_is_known(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path, "a.bvh", BVH)
    assert [clip.name for clip in motion.find("~")] == ["a"]
    assert motion.read("~/a.bvh").name == "a"


@pytest.mark.parametrize("rate", [0, -60, float("inf"), "60"])
def test_a_rate_of_recording_is_a_positive_number(tmp_path, rate):
    with pytest.raises(ValueError, match="recorded_fps: expected a positive number, got"):
        motion.read(write_pair(tmp_path), recorded_fps=rate)


def test_a_clip_reads_itself(tmp_path):
    (clip,) = motion.find(write_pair(tmp_path))
    assert (len(clip.read()), clip.read(fps=60).fps, clip.read(unit="m").positions[0, 0, 1]) == (2, 60.0, 20.0)


@pytest.mark.parametrize("name", ["nothing", "empty"])
def test_nothing_found_is_an_error(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=rf"{name}: no motion found; expected .amc, .bvh, .npz files"):
        motion.find(tmp_path / name)


@pytest.mark.parametrize("suffix", [".amc", ".bvh", ".npz"])
def test_a_file_that_is_not_there(tmp_path, suffix):
    (tmp_path / "07.asf").touch()
    with pytest.raises((FileNotFoundError, ValueError), match="07"):
        motion.read(tmp_path / f"07_01{suffix}")


def test_reading_says_what_it_takes(tmp_path):
    pair, bvh = write_pair(tmp_path), write(tmp_path, "a.bvh", BVH)
    with pytest.raises(ValueError, match=r"expected a motion file, found a folder; motion.find lists"):
        motion.read(tmp_path)
    with pytest.raises(ValueError, match=r"expected a motion file .*, found '.asf'; name its .amc instead"):
        motion.read(pair.with_name("07.asf"))
    with pytest.raises(ValueError, match=r"expected a motion file .*, found '.c3d'"):
        motion.read(tmp_path / "a.c3d")
    with pytest.raises(ValueError, match=r"unit: expected one of auto, mm, cm, inch, cmu, m, got 'feet'"):
        motion.read(bvh, unit="feet")
    with pytest.raises(ValueError, match=r"expected clip 'a', the only one in it, got 'b'"):
        motion.read(bvh, clip="b")
    with pytest.raises(ValueError, match=r"fps: expected 120"):
        motion.read(bvh, fps=50)


def test_archives_of_many_clips_want_a_name():
    with pytest.raises(ValueError, match=r"holds 10 clips \(01_01, .*\); name one by clip="):
        motion.read(SAMPLE)
    with pytest.raises(ValueError, match=r"unknown clip '02_1'; did you mean '02_10' or '02_01'"):
        motion.read(SAMPLE, clip="02_1")


def test_actions_come_from_the_public_index(tmp_path):
    write(tmp_path, "02.asf", write_pair(tmp_path).with_name("07.asf").read_text(encoding="utf-8"))
    assert motion.read(write(tmp_path, "02_03.amc", AMC)).action == "run"
    assert motion.read(tmp_path / "07_01.amc").action == ""
    assert motion.read(write(tmp_path, "take.bvh", BVH)).action == ""


# ------------------------------------------------------------------------------------------------------------ joints

# Names of each convention for the same person.
LIMBS = ("UpLeg", "Leg", "Foot", "Arm", "ForeArm", "Hand")
ASF_LIMBS = ("hipjoint", "femur", "tibia", "clavicle", "humerus", "wrist")
ASF = [
    "root",
    "upperback",
    "thorax",
    "lowerneck",
    "upperneck",
    "head",
    *(side + limb for side in "lr" for limb in ASF_LIMBS),
]
SIDES = ("Left", "Right")
COMMON = ["Hips", "Spine1", "Head", "Head_end", *(side + limb for side in SIDES for limb in LIMBS)]
RENAMED = [*COMMON, "LHipJoint", "Spine", "Neck1"]
CMU_LIMBS = ("Hip", "Knee", "Ankle", "Shoulder", "Elbow", "Wrist")
CMU_LIMB_NAMES = [side + limb for side in SIDES for limb in CMU_LIMBS]
CMU_BVH = ["Hips", "LHipJoint", "Chest", "Chest2", "Neck", "Head", "Head_end", *CMU_LIMB_NAMES]
BIOVISION = ["Hips", "Chest", "Neck", "Head", "Head_end", *CMU_LIMB_NAMES]


def test_asf_joints_in_both_skeletons():
    person = moving(ASF)
    mpii, h36m = motion.to_skeleton(person, "mpii"), motion.to_skeleton(person, "h36m")
    assert (mpii.shape, h36m.shape, mpii.dtype, h36m.dtype) == ((8, 16, 3), (8, 17, 3), np.float32, np.float32)
    at = {name: person.positions[:, index] for index, name in enumerate(ASF)}
    expected = {
        "l_hip": at["lhipjoint"],
        "r_knee": at["rfemur"],
        "l_ankle": at["ltibia"],
        "r_shoulder": at["rclavicle"],
        "l_elbow": at["lhumerus"],
        "r_wrist": at["rwrist"],
        "pelvis": (at["lhipjoint"] + at["rhipjoint"]) / 2,
        "thorax": (at["thorax"] + at["lowerneck"]) / 2,
        "head_top": 2 * at["head"] - at["upperneck"],
    }
    for joint, where in expected.items():
        np.testing.assert_allclose(mpii[:, MPII.index(joint)], where, atol=1e-5)
        np.testing.assert_allclose(h36m[:, H36M.index(joint)], where, atol=1e-5)
    np.testing.assert_allclose(mpii[:, MPII.index("upper_neck")], at["upperneck"], atol=1e-5)
    np.testing.assert_allclose(h36m[:, H36M.index("spine")], at["upperback"], atol=1e-5)


@pytest.mark.parametrize("names", [ASF, COMMON, CMU_BVH, RENAMED, BIOVISION])
def test_every_map_keeps_a_person_together(names):
    """Weights sum to 1: a person moved is the same person elsewhere."""
    person = moving(names)
    moved = Motion(person.positions + 100, person.joints, person.parents, 120.0, "x")
    for skeleton in ("mpii", "h36m"):
        here, there = (motion.to_skeleton(each, skeleton) for each in (person, moved))
        np.testing.assert_allclose(there - 100, here, atol=1e-4)


@pytest.mark.parametrize("names", [COMMON, CMU_BVH, RENAMED, BIOVISION])
def test_sides_are_kept_apart(names):
    left = np.array([name.startswith("Left") for name in names])
    right = np.array([name.startswith("Right") for name in names])
    positions = np.zeros((1, len(names), 3), np.float32)
    positions[0, left, 0], positions[0, right, 0] = 1, -1
    joints = motion.to_skeleton(Motion(positions, tuple(names), (-1, *[0] * (len(names) - 1)), 30.0, "x"), "mpii")
    for index, joint in enumerate(MPII.joints):
        assert joints[0, index, 0] == {"l": 1, "r": -1}.get(joint.partition("_")[0], 0), joint


def test_conversions_of_cmu_get_their_lost_bones_back():
    person = moving(CMU_BVH)
    at = {name: person.positions[:, index] for index, name in enumerate(CMU_BVH)}
    joints = motion.to_skeleton(person, "mpii")
    lost = at["Chest2"] - at["Chest"]
    np.testing.assert_allclose(joints[:, MPII.index("l_elbow")], at["LeftElbow"] + lost, atol=1e-5)
    wrist = at["LeftWrist"] + (at["LeftWrist"] - at["LeftElbow"]) / 2 + lost
    np.testing.assert_allclose(joints[:, MPII.index("l_wrist")], wrist, atol=1e-5)


def test_prefixes_and_another_name_of_the_crown():
    plain = moving(COMMON)
    other = tuple(f"mixamorig:{name.replace('Head_end', 'HeadTop_End')}" for name in COMMON)
    prefixed = Motion(plain.positions, other, plain.parents, plain.fps, plain.name)
    np.testing.assert_array_equal(motion.to_skeleton(prefixed, "mpii"), motion.to_skeleton(plain, "mpii"))


def test_unknown_joints_and_skeletons_are_errors():
    with pytest.raises(ValueError, match=r"motion x: its joints \(a, b, ...\) are those of none of CMU ASF"):
        motion.to_skeleton(moving("ab"), "mpii")
    with pytest.raises(ValueError, match="name: expected one of mpii, h36m, got 'coco'"):
        motion.to_skeleton(moving(ASF), "coco")


def test_every_map_has_every_joint():
    tables = [set(table) for table, _, _ in joint_maps._MAPS.values()]
    assert tables == [tables[0]] * 5


# ------------------------------------------------------------------------------------------------------- the sample


@pytest.fixture(scope="module")
def clips():
    return motion.sample()


def test_the_sample_is_small_and_varied(clips):
    assert SAMPLE.stat().st_size <= 200_000
    assert SAMPLE.with_name("MOCAP.md").is_file()
    assert {clip.action for clip in clips} >= {"walk", "run", "jump", "punch", "climb", "swordplay"}
    assert {clip.fps for clip in clips} == {15.0}
    assert [clip.name for clip in clips] == sorted({clip.name for clip in clips})
    assert sum(len(clip) for clip in clips) == 1548


def test_the_attribution_names_every_clip(clips):
    rows = SAMPLE.with_name("MOCAP.md").read_text(encoding="utf-8").splitlines()
    for clip in clips:
        row = next(row for row in rows if row.startswith(f"| {clip.name} |"))
        assert row.endswith(f"| {len(clip)} |")


def test_bodies_of_the_sample_have_the_proportions_of_people(clips):
    for clip in clips:
        joints = motion.to_skeleton(clip, "mpii")
        lengths = {
            (first, second): np.linalg.norm(joints[:, MPII.index(first)] - joints[:, MPII.index(second)], axis=-1)
            for first, second in (
                ("l_hip", "l_knee"),
                ("r_knee", "r_ankle"),
                ("l_elbow", "l_wrist"),
                ("r_hip", "l_hip"),
            )
        }
        for bone, (low, high) in zip(lengths, ((0.36, 0.48), (0.36, 0.48), (0.2, 0.32), (0.1, 0.25)), strict=True):
            assert low < lengths[bone].min() <= lengths[bone].max() < high, (clip.name, bone)
            assert np.ptp(lengths[bone]) < 0.01, (clip.name, bone)


def test_left_is_left_of_who_walks_forward(clips):
    for clip in clips:
        if clip.action not in ("walk", "run"):
            continue
        joints = motion.to_skeleton(clip, "mpii")
        ahead = joints[-1, MPII.index("pelvis")] - joints[0, MPII.index("pelvis")]
        left_of = np.cross([0.0, 1.0, 0.0], ahead)  # Y is up
        for part in ("hip", "shoulder"):
            across = (joints[:, MPII.index(f"l_{part}")] - joints[:, MPII.index(f"r_{part}")]).mean(0)
            assert across @ left_of > 0.9 * np.linalg.norm(across) * np.linalg.norm(left_of), (clip.name, part)


def test_feet_are_below_and_the_head_is_above(clips):
    walk = next(clip for clip in clips if clip.name == "02_01")
    heights = motion.to_skeleton(walk, "mpii")[..., 1].mean(0)
    order = ["l_ankle", "l_knee", "l_hip", "thorax", "upper_neck", "head_top"]
    assert (np.diff([heights[MPII.index(joint)] for joint in order]) > 0).all()
    assert abs(heights[MPII.index("thorax")] - heights[MPII.index("l_shoulder")]) < 0.05
