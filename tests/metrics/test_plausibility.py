"""Plausibility: bodies as they are, and bodies nobody has; no measure sees where, how large or how turned a pose is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bodies_3d import joint, standing, turned

from fastpose.metrics import plausibility
from fastpose.metrics.plausibility import JointLimits, Proportions
from fastpose.skeletons import MPII, MPII_BONES


def measures(poses, reference):
    """Return the value of each measure by name."""
    results = [
        plausibility.bone_asymmetry(poses),
        plausibility.hinge_violations(poses),
        plausibility.bone_length_deviation(poses, Proportions.from_poses(reference)),
        plausibility.joint_limit_violations(poses, JointLimits.from_poses(reference)),
    ]
    return {result.name: result.value for result in results}


def bent(angle, forwards=False):
    """Return a standing person whose right knee is bent by so many degrees."""
    pose = standing()
    knee, ankle = joint("r_knee"), joint("r_ankle")
    thigh = pose[0, knee] - pose[0, joint("r_hip")]
    down = thigh / np.linalg.norm(thigh)
    away = np.array([0, 0, 1.0]) - down[2] * down  # the person faces the camera: backwards is away from it
    away /= np.linalg.norm(away)
    turn = np.deg2rad(-angle if forwards else angle)
    pose[0, ankle] = pose[0, knee] + 430 * (np.cos(turn) * down + np.sin(turn) * away)
    return pose


@pytest.fixture(scope="module")
def mocap(shared):
    """Poses of real people (N, 16, 3) in mm, x right, y down, z away: CMU's subjects 01 to 03."""
    path = shared / "data" / "mocap" / "cmu_positions_30fps.npz"
    if not path.is_file():
        pytest.skip("the positions of CMU's motion capture are absent")
    stored = np.load(path)
    names = [str(name) for name in stored["joint_names"]]
    bones = {"hip": "hipjoint", "knee": "femur", "ankle": "tibia"}
    bones |= {"shoulder": "clavicle", "elbow": "humerus", "wrist": "radius"}
    middle = {"pelvis": "root", "thorax": "thorax", "upper_neck": "lowerneck", "head_top": "head"}
    place = [
        names.index(middle[name] if name in middle else name[0] + bones[name.partition("_")[2]]) for name in MPII.joints
    ]
    clips = [stored[name][:, place] for name in stored.files if name[0].isdigit()]
    return np.concatenate(clips) * (1000.0, -1000, -1000)  # Y up to y down: half a turn


# ------------------------------------------------------------------------------------------------------ every measure


def test_a_body_among_its_like_is_plausible():
    found = measures(standing(), standing(20))
    assert found == pytest.approx(dict.fromkeys(found, 0), abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_place_size_and_turn_do_not_matter(seed):
    poses, reference = standing(30, 40, seed), standing(40, 40, seed + 50)
    plain = measures(poses, reference)
    assert min(plain.values()) >= 0
    assert plain["bone asymmetry"] > 0
    assert measures(turned(poses, seed, scale=0.002, shift=3), reference) == pytest.approx(plain, abs=1e-9)


def test_a_point_is_as_implausible_as_can_be():
    assert measures(np.full((2, 16, 3), 5.0), standing(3)) == {
        "bone asymmetry": 200,
        "hinge violations": 100,
        "bone-length deviation": 100,
        "joint-limit violations": 100,
    }


def test_a_mirror_image_of_a_body_is_nobody(mocap):
    mirrored = mocap[::50] * (-1, 1, 1)
    found = measures(mirrored, mocap[::5])
    assert found["hinge violations"] > 45  # nearly every knee, no elbow
    assert found["joint-limit violations"] > 25
    swapped = mirrored[:, list(MPII.flip_permutation)]  # with the names of the other side it is somebody again
    again = measures(swapped, mocap[::5])
    assert max(again["hinge violations"], again["joint-limit violations"]) < 0.1


def test_real_people_move_within_the_limits(mocap):
    result = plausibility.hinge_violations(mocap[::3])
    assert result.value < 0.01
    held, taught = mocap[: len(mocap) // 10], mocap[len(mocap) // 10 :]
    learned = plausibility.joint_limit_violations(held, JointLimits.from_poses(taught))
    assert learned.value < 2
    assert plausibility.joint_limit_violations(taught[::9], JointLimits.from_poses(taught[::9])).value == 0
    assert plausibility.bone_asymmetry(mocap[::9]).value < 4
    assert plausibility.bone_length_deviation(held, Proportions.from_poses(taught)).value < 8
    knees = plausibility.flexion(mocap[::3])["l_knee"]
    assert float(knees.min()) > -1
    assert 100 < float(knees.max()) < 165


def test_depth_guessed_at_random_is_seen(mocap):
    poses = mocap[::50]
    noise = np.random.default_rng(0).normal(0, 150, poses.shape) * (0, 0, 1)
    true, wrong = (measures(each, mocap[::5]) for each in (poses, poses + noise))
    assert all(wrong[name] > 4 * true[name] + 2 for name in true)


def test_human36ms_own_poses_are_bodies_and_exchanged_legs_are_not(shared):
    scipy_io = pytest.importorskip("scipy.io")
    path = shared / "data" / "h36m_sample" / "c2f_S9_Posing_1" / "annot" / "valid.mat"
    if not path.is_file():
        pytest.skip("the sample of Human3.6M is absent")
    stored = scipy_io.loadmat(path)["annot"][0, 0]["S"]
    joints = stored.transpose(0, 2, 1)  # (N, 17, 3) mm, left leg first
    right_first = joints[:, [0, 4, 5, 6, 1, 2, 3, *range(7, 17)]]
    order = [3, 2, 1, 4, 5, 6, 0, 7, 8, 10, 16, 15, 14, 11, 12, 13]
    assert plausibility.hinge_violations(right_first[:, order]).value == 0
    assert plausibility.bone_asymmetry(right_first[:, order]).value < 0.01  # one skeleton with two equal sides
    assert plausibility.hinge_violations(joints[:, order]).per_joint["l_knee"] > 40


# ----------------------------------------------------------------------------------------------------------- symmetry


def test_asymmetry_of_one_limb():
    pose = standing()
    shoulder, elbow, wrist = (joint(f"l_{name}") for name in ("shoulder", "elbow", "wrist"))
    arm = pose[0, elbow] - pose[0, shoulder]
    pose[0, elbow] += arm  # twice as long: |2 - 1| / 1.5
    pose[0, wrist] += arm
    result = plausibility.bone_asymmetry(pose)
    assert result.rows == pytest.approx({"thigh": 0, "shin": 0, "upper arm": 200 / 3, "forearm": 0})
    assert result.value == pytest.approx(200 / 12)
    assert (result.name, result.count) == ("bone asymmetry", 1)
    pose[0, wrist] = pose[0, elbow]
    assert plausibility.bone_asymmetry(pose).rows["forearm"] == 200


# -------------------------------------------------------------------------------------------------------- proportions


def test_proportions_are_shares_of_one():
    reference = Proportions.from_poses(standing(50, 20))
    assert sum(reference.shares) == pytest.approx(1)
    assert len(reference.shares) == len(reference.spread) == len(MPII_BONES)
    assert 0 < min(reference.spread) < 0.02
    assert reference.poses == 50


def test_a_stretched_shin_deviates_by_its_share():
    reference, pose = Proportions.from_poses(standing()), standing()
    knee, ankle = joint("r_knee"), joint("r_ankle")
    pose[0, ankle] += pose[0, ankle] - pose[0, knee]  # doubled
    share = reference.shares[MPII_BONES.index((ankle, knee))]
    result = plausibility.bone_length_deviation(pose, reference)
    doubled, others = 100 * (2 / (1 + share) - 1), 100 * share / (1 + share)
    assert result.value == pytest.approx((doubled + 13 * others) / 14)
    assert result.rows["ankle-knee"] == pytest.approx((doubled + others) / 2)
    assert len(result.rows) == 8
    assert "1 reference poses" in result.protocol


# ------------------------------------------------------------------------------------------------------------- hinges


@pytest.mark.parametrize("angle", [5, 40, 120, 160])
def test_flexion_of_a_knee_and_its_sign(angle):
    assert float(plausibility.flexion(bent(angle))["r_knee"]) == pytest.approx(angle)
    assert float(plausibility.flexion(bent(angle, forwards=True))["r_knee"]) == pytest.approx(-angle, rel=0.05)
    assert float(plausibility.flexion(turned(bent(angle), 3))["r_knee"]) == pytest.approx(angle)


def test_a_knee_bent_forwards_or_folded_is_a_violation():
    for pose, wrong in ((bent(100), 0), (bent(10, forwards=True), 0), (bent(30, forwards=True), 25), (bent(170), 25)):
        result = plausibility.hinge_violations(pose)
        assert result.value == wrong
        assert result.details["poses"] == (100 if wrong else 0)
        assert result.per_joint["r_knee"] == (100 if wrong else 0)
        assert result.per_joint["l_knee"] == result.per_joint["l_elbow"] == 0


def test_a_folded_elbow_is_a_violation_and_its_direction_is_not_judged():
    for sign in (-1, 1):
        pose = standing()
        pose[0, joint("l_wrist")] = pose[0, joint("l_elbow")] + (0, 0, sign * 250)
        assert plausibility.hinge_violations(pose).value == 0
    pose[0, joint("l_wrist")] = pose[0, joint("l_shoulder")] + 5
    assert plausibility.hinge_violations(pose).per_joint["l_elbow"] == 100


def test_a_thigh_along_the_hip_axis_tells_no_sign():
    pose = standing()
    hip = pose[0, joint("r_hip")]
    pose[0, joint("r_knee")] = hip + (-440, 80, 0)
    pose[0, joint("r_ankle")] = hip + (-440, 80, 300)
    assert float(plausibility.flexion(pose)["r_knee"]) == pytest.approx(90)
    pose[0, joint("r_ankle")] = hip + (-440, 80, -300)  # forwards, were the thigh not so far to the side
    assert float(plausibility.flexion(pose)["r_knee"]) == pytest.approx(90)


# ----------------------------------------------------------------------------------------------------- learned limits


def test_a_limb_that_nobody_held_like_this():
    limits = JointLimits.from_poses(standing(20, 20))
    raised = standing()
    for name in ("elbow", "wrist"):
        raised[0, joint(f"l_{name}"), 1] = -1000 - 300 * (name == "wrist")
    result = plausibility.joint_limit_violations(raised, limits)
    assert result.per_joint["l_shoulder"] == 100
    assert result.value == 100 / 8  # the forearm is not judged where the upper arm is out already
    assert result.details["poses"] == 100
    assert "20 reference poses" in result.protocol
    lower = plausibility.joint_limit_violations(bent(90), limits)
    assert (lower.per_joint["r_hip"], lower.per_joint["r_knee"], lower.value) == (0, 100, 100 / 8)


def test_the_two_sides_teach_each_other():
    raised = standing()
    for name in ("elbow", "wrist"):
        raised[0, joint(f"r_{name}"), 1] = -1000 - 300 * (name == "wrist")
    mirrored = (raised * (-1, 1, 1))[:, list(MPII.flip_permutation)]
    limits = JointLimits.from_poses(np.concatenate([standing(), raised]))
    assert plausibility.joint_limit_violations(mirrored, limits).value == 0


def arms(directions):
    """Return standing persons whose right arm is stretched in directions (N, 3), the left one in the mirrored."""
    poses = np.repeat(standing(), len(directions), axis=0)
    for side, mirror in (("r", (1, 1, 1)), ("l", (-1, 1, 1))):
        shoulder, elbow, wrist = (joint(f"{side}_{name}") for name in ("shoulder", "elbow", "wrist"))
        poses[:, elbow] = poses[:, shoulder] + 300 * directions * mirror
        poses[:, wrist] = poses[:, elbow] + 250 * directions * mirror
    return poses


# in percent of arms; sorting into cells blurs the border
@pytest.mark.parametrize(
    ("angle", "least", "most"), [(0, 0, 0), (6, 0, 3), (14, 5, 20), (20, 35, 65), (26, 75, 95), (44, 100, 100)]
)
def test_limits_end_about_their_tolerance_away(angle, least, most):
    rng = np.random.default_rng(angle)
    out = []
    for _ in range(25):
        taught, across = rng.normal(size=3), rng.normal(size=(20, 3))
        taught /= np.linalg.norm(taught)
        across = np.cross(taught, across)
        across /= np.linalg.norm(across, axis=1, keepdims=True)
        turned_by = np.cos(np.deg2rad(angle)) * taught + np.sin(np.deg2rad(angle)) * across
        limits = JointLimits.from_poses(arms(taught[None]))
        result = plausibility.joint_limit_violations(arms(turned_by), limits)
        out.append(result.per_joint["r_shoulder"])
    assert least <= np.mean(out) <= most
    assert "within about 20 degrees (of 256 cells, 13 degrees apart)" in result.protocol


def test_a_wider_tolerance_forgives_more():
    reference, poses = standing(5, 30), standing(40, 90, 4)
    narrow, wide = (
        plausibility.joint_limit_violations(poses, JointLimits.from_poses(reference, tolerance=angle)).value
        for angle in (5, 45)
    )
    assert narrow > wide


def test_cells_cover_the_sphere():
    sphere = plausibility._sphere(plausibility.SPHERE_CELLS)
    torch.testing.assert_close(torch.linalg.vector_norm(sphere, dim=-1), torch.ones(256, dtype=torch.float64))
    anywhere = torch.nn.functional.normalize(torch.randn(2000, 3, dtype=torch.float64), dim=-1)
    nearest = (anywhere @ sphere.T).amax(-1).clamp(max=1).arccos().rad2deg()
    assert float(nearest.max()) < 12


# ------------------------------------------------------------------------------------------------------------- errors


def test_errors_say_what_was_found():
    poses = standing(2)
    broken = poses.copy()
    broken[1, 3] = np.nan
    limits, proportions = JointLimits.from_poses(poses), Proportions.from_poses(poses)
    every = [
        plausibility.bone_asymmetry,
        plausibility.hinge_violations,
        lambda value: plausibility.joint_limit_violations(value, limits),
        lambda value: plausibility.bone_length_deviation(value, proportions),
    ]
    for measure in every:
        with pytest.raises(ValueError, match=r"prediction: 1 joints are not finite \(first: person 1, l_hip\)"):
            measure(broken)
        with pytest.raises(ValueError, match="prediction: expected at least one pose, got none"):
            measure(poses[:0])
        with pytest.raises(ValueError, match=r"prediction: expected \(N, 16, 3\), got \(2, 14, 3\)"):
            measure(poses[:, :14])
    with pytest.raises(ValueError, match="poses: expected bodies to take proportions from"):
        Proportions.from_poses(np.zeros((3, 16, 3)))
    with pytest.raises(ValueError, match=r"tolerance in \[0, 90\)"):
        JointLimits.from_poses(poses, tolerance=120)
    with pytest.raises(TypeError, match="expected numbers"):
        plausibility.bone_asymmetry([["a"]])
