"""A generated pose comes to lie on a person: its size, its place, and what is done where little is known."""

from __future__ import annotations

import numpy as np
import pytest

from fastpose.skeletons import OPENPOSE
from fastpose.training import placing
from fastpose.training.placing import place

SIZE = (400, 300)
STANDING = {
    "nose": (0, -60), "neck": (0, -40), "r_shoulder": (-12, -40), "r_elbow": (-15, -20), "r_wrist": (-15, 0),
    "l_shoulder": (12, -40), "l_elbow": (15, -20), "l_wrist": (15, 0), "r_hip": (-8, 0), "r_knee": (-8, 25),
    "r_ankle": (-8, 50), "l_hip": (8, 0), "l_knee": (8, 25), "l_ankle": (8, 50),
    "r_eye": (-3, -63), "l_eye": (3, -63), "r_ear": (-6, -61), "l_ear": (6, -61),
}  # fmt: skip
ALL = np.ones(18)
MIDDLE = np.array([150.0, 200.0])


def body(**moved: tuple[float, float]) -> np.ndarray:
    """Joints (18, 2) about the middle of the hips; some of them elsewhere."""
    return np.array([(STANDING | moved)[joint] for joint in OPENPOSE.joints], float)


def only(*joints: str) -> np.ndarray:
    return np.array([joint in joints for joint in OPENPOSE.joints], float)


def at(points: np.ndarray, joint: str) -> np.ndarray:
    return points[OPENPOSE.index(joint)]


def test_a_persons_own_pose_comes_to_lie_on_itself():
    own = 2.5 * body() + MIDDLE
    found = place(body(), ALL, own, ALL, SIZE)
    np.testing.assert_allclose(found(body()), own, atol=1e-9)
    assert (found.sized_by, found.placed_by, found.shrunk) == ("trunk", "ground", 1.0)


def test_a_pose_keeps_the_persons_size_and_stands_on_the_same_ground():
    kneeling = body(r_knee=(-8, 20), r_ankle=(-8, 35), l_knee=(8, 20), l_ankle=(8, 35)) / 2 + 32
    found = place(kneeling, ALL, 1.5 * body() + MIDDLE, ALL, SIZE)
    assert found.scale == pytest.approx(3.0)
    np.testing.assert_allclose(at(found(kneeling), "r_ankle"), [150 - 1.5 * 8, 200 + 1.5 * 50])


@pytest.mark.parametrize(
    ("pose", "lowest"),
    [
        (body(r_knee=(-20, -5), l_knee=(20, -5), r_ankle=(-4, -2), l_ankle=(4, -2), l_wrist=(15, -9)), "r_hip"),
        (body(r_ankle=(-20, 20), l_ankle=(20, 20)), "l_knee"),
        (body()[:, ::-1] * [1, -1], "r_elbow"),
        (body() * [1, -1], "l_eye"),
    ],
    ids=["sitting", "kneeling", "lying", "upside down"],
)
def test_whatever_is_lowest_lies_on_the_ground_of_a_person_who_stands(pose, lowest):
    own = body() + MIDDLE
    found = place(pose / 3, ALL, own, ALL, SIZE)
    moved = found(pose / 3)
    assert (found.placed_by, found.shrunk) == ("ground", 1.0)
    assert at(moved, lowest)[1] == pytest.approx(moved[:, 1].max())
    assert moved[:, 1].max() == pytest.approx(250)  # the ankles
    middle = (at(moved, "r_hip") + at(moved, "l_hip")) / 2
    assert middle[0] == pytest.approx(150)


def test_hips_lie_on_hips_where_the_ground_or_the_end_of_the_legs_is_not_known():
    own, short = 1.5 * body() + MIDDLE, ALL - only("r_ankle", "l_ankle")
    for seen, body_seen in ((ALL, short), (short, ALL), (short - only("r_knee", "l_knee"), ALL)):
        sitting = body(r_knee=(-30, 0), l_knee=(30, 0))
        found = place(sitting, seen, own, body_seen, SIZE)
        assert found.placed_by == "hips"
        np.testing.assert_allclose(at(found(sitting), "l_hip"), [150 + 1.5 * 8, 200])


@pytest.mark.parametrize("hidden", [("l_ankle",), ("l_knee", "l_ankle")])
def test_a_raised_leg_alone_does_not_tell_the_ground(hidden):
    own, seen = 1.5 * body() + MIDDLE, ALL - only(*hidden)
    kick = body(r_knee=(-30, -10), r_ankle=(-50, -30))
    found = place(kick, seen, own, ALL, SIZE)
    assert found.placed_by == "hips"
    np.testing.assert_allclose(at(found(kick), "l_hip"), [150 + 1.5 * 8, 200])
    assert place(kick, ALL, own, ALL, SIZE).placed_by == "ground"  # on the other leg
    assert place(body(), seen, own, ALL, SIZE).placed_by == "ground"  # on the leg that is seen


HEAD_AND_ARMS = ALL - only("r_hip", "l_hip", "r_knee", "l_knee", "r_ankle", "l_ankle")


@pytest.mark.parametrize(
    ("hidden", "told"),
    [((), "neck"), (("neck",), "shoulders"), (("neck", "r_shoulder", "l_shoulder"), "joints")],
)
def test_a_whole_body_keeps_the_place_and_size_of_a_person_seen_above_the_hips(hidden, told):
    own, seen = 3.4 * body() + [150, 340], HEAD_AND_ARMS - only(*hidden)  # the legs lie beyond
    raised = body(r_wrist=(-35, -20), l_wrist=(35, -20)) / 4  # the elbows are bent, the body is where it was
    found = place(raised, ALL, own, seen, SIZE)
    assert (found.placed_by, found.shrunk) == (told, 1.0)
    assert found.scale == pytest.approx(3.4 * 4)
    np.testing.assert_allclose(at(found(raised), "neck"), at(own, "neck"), atol=1e-9 if told != "joints" else 35)
    assert found(raised)[:, 1].max() > 399


def test_a_person_at_the_border_stays_there():
    own = 3.4 * body() + [48, 340]  # an elbow and a wrist lie beyond, and so do the legs
    found = place(body(), ALL, own, HEAD_AND_ARMS, SIZE)
    np.testing.assert_allclose(found(body()), own, atol=1e-9)


def test_a_trunk_that_points_at_the_camera_tells_no_size():
    shoulders = {"neck": (0, -10), "l_shoulder": (12, -10), "r_shoulder": (-12, -10)}
    arms = {"l_elbow": (15, 10), "r_elbow": (-15, 10), "l_wrist": (15, 30), "r_wrist": (-15, 30)}
    found = place(body(**shoulders, **arms), ALL, 1.5 * body() + MIDDLE, ALL, SIZE)
    assert found.sized_by == "bones"
    assert found.scale == pytest.approx(1.5, rel=0.05)
    hidden = ALL - only("neck")
    assert place(body(), hidden, 1.5 * body() + MIDDLE, ALL, SIZE).sized_by == "bones"


def test_a_bone_without_length_does_not_make_a_giant():
    own = 1.5 * body() + MIDDLE
    folded = body(neck=(0, 0.001), r_knee=(-8, 0.001), l_knee=(8, 0.001), r_elbow=(-12, -40), l_elbow=(12, -40))
    assert place(folded, ALL, own, ALL, SIZE).scale < 4


@pytest.mark.parametrize(("seen", "told"), [(("nose", "neck"), "box"), (("nose",), "frame"), ((), "frame")])
def test_without_bones_in_common_heights_tell_the_size_or_the_photograph(seen, told):
    found = place(body(), only("nose", "neck", "r_ear", "l_ear"), 2 * body() + MIDDLE, only(*seen), SIZE)
    assert found.sized_by == told
    assert found.scale == pytest.approx(2.0) if told == "box" else found.placed_by == "frame"


def test_a_pose_of_unknown_size_fills_the_photograph_about_its_middle():
    found = place(body(), ALL, np.zeros((18, 2)), np.zeros(18), SIZE)
    moved = found(body())
    np.testing.assert_allclose((moved.min(0) + moved.max(0)) / 2, [149.5, 199.5])
    assert np.ptp(moved, axis=0)[1] == pytest.approx(placing.FILLED * 399 / (1 + 2 * placing.MARGIN))
    single = place(body(), only("nose"), np.zeros((18, 2)), np.zeros(18), SIZE)
    np.testing.assert_allclose(at(single(body()), "nose"), [149.5, 199.5])


def test_a_pose_moves_into_the_photograph():
    own, wide = body() + [270.0, 340.0], body(l_elbow=(32, -40), l_wrist=(52, -40)) / 3
    moved = place(wide, ALL, own, ALL, SIZE)(wide)
    assert (moved >= 0).all()
    assert (moved <= [299, 399]).all()
    np.testing.assert_allclose(at(moved, "l_wrist")[0], 299 - 0.05 * 113)


def test_a_pose_without_room_shrinks_only_so_far():
    lying = body()[:, ::-1]  # its length is along x
    for factor, shrunk in ((2.0, 1.0), (2.7, None), (9.0, placing.LEAST_SHRINK)):
        found = place(lying, ALL, factor * body() + MIDDLE, ALL, SIZE)
        moved = found(lying)
        if shrunk is None:
            assert placing.LEAST_SHRINK < found.shrunk < 1
        else:
            assert found.shrunk == pytest.approx(shrunk)
        if factor < 9:
            assert moved.min() >= 0
            assert (moved <= [299, 399]).all()
    assert moved[:, 0].min() <= 0  # what has no room covers the photograph
    assert moved[:, 0].max() >= 299


def test_a_pose_needs_a_joint():
    with pytest.raises(ValueError, match="points: expected a pose with a joint at least, got none"):
        place(body(), np.zeros(18), body(), ALL, SIZE)
