"""Drawn bodies: rays against the solids they are made of, what hides what, randomness, and poses that cannot be."""

from __future__ import annotations

import numpy as np
import pytest

from fastpose import skeletons
from fastpose.data import backgrounds, bodies, body_parts

SIZE = (120, 100)
CAMERA = np.array([[200.0, 0, 49.5], [0, 200, 59.5], [0, 0, 1]])
GREY = np.full((*SIZE, 3), 128, np.uint8)
AT = skeletons.MPII.index

# Someone who stands 4 m away and faces the camera, arms hanging: the person's left is on the right.
STANDING = {
    "r_ankle": (-90, 880), "r_knee": (-90, 460), "r_hip": (-85, 40), "l_hip": (85, 40), "l_knee": (90, 460),
    "l_ankle": (90, 880), "pelvis": (0, 40), "thorax": (0, -460), "upper_neck": (0, -570), "head_top": (0, -790),
    "r_wrist": (-240, 100), "r_elbow": (-210, -160), "r_shoulder": (-180, -450), "l_shoulder": (180, -450),
    "l_elbow": (210, -160), "l_wrist": (240, 100),
}  # fmt: skip


def standing(**moved):
    """Joints (16, 3) of the one who stands; ``moved`` gives other places to some."""
    joints = np.array([(*STANDING[name], 4000.0) for name in skeletons.MPII.joints])
    for name, place in moved.items():
        joints[AT(name)] = place
    return joints


def rng(seed=0):
    return np.random.Generator(np.random.Philox(seed))


def plain(joints, seed=0, camera=CAMERA, size=SIZE):
    return bodies.render(joints, camera, size, rng(seed), background=np.full((*size, 3), 128, np.uint8), effects=False)


def pixels(joints, camera=CAMERA):
    return joints[:, :2] / joints[:, 2:] * np.diag(camera)[:2] + camera[:2, 2]


# Pictures


def test_the_same_numbers_give_the_same_picture():
    first, second, other = (bodies.draw(standing(), CAMERA, SIZE, rng(seed)) for seed in (0, 0, 1))
    assert first.shape == (*SIZE, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, second)
    assert (first != other).mean() > 0.9


def test_the_body_is_drawn_where_its_joints_are_and_nowhere_else():
    drawn = plain(standing())
    changed, solid = (drawn.image != GREY).any(2), np.isfinite(drawn.depth)
    assert not (changed & ~solid).any()
    assert (changed & solid).sum() > 0.95 * solid.sum()
    assert 0.05 < solid.mean() < 0.25
    columns, rows = np.rint(pixels(standing())).astype(int).T
    inner = [AT(name) for name in skeletons.MPII.joints if name != "head_top"]  # the crown is on the outline
    assert solid[rows[inner], columns[inner]].all()
    rows, columns = np.nonzero(solid)
    assert 18 < rows.min() < 24  # the hair is a little above the crown
    assert 103 < rows.max() < 110  # the soles below the ankles
    assert (columns.min() + columns.max()) / 2 == pytest.approx(49.5, abs=2)


def test_depth_is_that_of_the_surface_before_the_joints():
    depth = plain(standing()).depth
    assert depth.dtype == np.float32
    column, row = np.rint(pixels(standing())[AT("pelvis")]).astype(int)
    assert 3850 < depth[row, column] < 3950
    column, row = np.rint(pixels(standing())[AT("r_knee")]).astype(int)
    assert 3920 < depth[row, column] < 3970


def test_a_body_partly_and_wholly_outside_of_the_picture():
    aside = standing() + np.array([1000.0, 0, 0])
    assert np.isfinite(plain(aside).depth)[:, -3:].any()
    assert (plain(aside).visibility[[AT("l_wrist"), AT("l_ankle")]] == 1).all()
    gone = plain(standing() + np.array([9000.0, 0, 0]))
    assert np.array_equal(gone.image, GREY)
    assert (gone.visibility == 1).all()


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (64, 64)])
def test_pictures_of_any_size(size):
    camera = np.array([[150.0, 0, (size[1] - 1) / 2], [0, 150, (size[0] - 1) / 2], [0, 0, 1]])
    drawn = bodies.render(standing(), camera, size, rng())
    assert drawn.image.shape == (*size, 3)
    assert np.isfinite(drawn.depth).any()


def test_left_and_right_are_the_persons_own():
    """Toes and nose point to the camera when the person's left is on the picture's right."""
    for turned in (False, True):
        joints = standing()
        if turned:
            joints = joints[list(skeletons.MPII.flip_permutation)]
        parts = body_parts.parts(joints, body_parts.Build())
        feet = [part for part in parts if part.material == "shoe"]
        assert len(feet) == 2
        assert all((foot.end[2] < foot.start[2]) != turned for foot in feet)
        eyes = [part for part in parts if part.material == "eye"]
        assert all((eye.start[2] < 4000) != turned for eye in eyes)


def test_a_bent_knee_turns_the_foot():
    """A shin that points backward has toes that point down."""
    joints = standing(l_ankle=(90, 460, 4420))
    foot = [part for part in body_parts.parts(joints, body_parts.Build()) if part.material == "shoe"][1]
    toes = foot.end - foot.start
    assert toes[1] > 0.9 * np.linalg.norm(toes)


# Rays


def _first_hit(part, ray):
    """The first of many spheres along a part that a ray (x, y, 1) meets, in the part's own metric."""
    share = np.linspace(0, 1, 4001)[:, None]
    centres = part.start + share * (part.end - part.start)
    radii = part.radii[0] + share[:, 0] * (part.radii[1] - part.radii[0])
    square, toward = ray @ part.metric @ ray, centres @ part.metric @ ray
    inside = toward**2 - square * (np.einsum("ni,ij,nj->n", centres, part.metric, centres) - radii**2)
    if inside.max() < 0:
        return np.inf
    return ((toward - np.sqrt(np.maximum(inside, 0))) / square)[inside >= 0].min()


@pytest.mark.parametrize("seed", range(6))
def test_rays_meet_the_hull_of_all_spheres(seed):
    draws = rng(seed)
    squeeze = np.linalg.qr(draws.normal(size=(3, 3)))[0]
    metric = squeeze @ np.diag(draws.uniform(1, 4, 3)) @ squeeze.T if seed % 2 else np.eye(3)
    start, end = draws.uniform(-200, 200, (2, 3)) + (0, 0, 1500)
    if seed == 4:
        end = start + (0, 0, 20)  # one sphere holds the other
    part = body_parts.Part("skin", start, end, tuple(draws.uniform(60, 200, 2)), metric, end - start, "skin", 2.0)
    axis = np.linspace(-0.35, 0.35, 29, dtype=np.float32)
    frame = bodies._Frame(axis, axis, 0, 0)
    depth, owner = bodies._trace(bodies._cones([part]), np.array([[0.0, 0, 100, 100]]), frame)
    expected = np.array([[_first_hit(part, np.array([x, y, 1.0])) for x in axis] for y in axis])
    both = np.isfinite(depth) & np.isfinite(expected)
    assert both.sum() > 5
    assert (np.isfinite(depth) != np.isfinite(expected)).mean() < 0.01  # rays that graze
    assert np.abs(depth[both] - expected[both]).max() < 3
    assert np.median(np.abs(depth[both] - expected[both])) < 0.05
    assert np.array_equal(owner >= 0, np.isfinite(depth))


def test_normals_stand_on_the_surface():
    """Against the differences of neighbouring points."""
    parts = body_parts.parts(standing(), body_parts.Build())
    camera, size = CAMERA * np.array([[8], [8], [1]]), (480, 300)
    camera[0, 2], camera[1, 2] = 150, 300
    boxes = bodies._extents(parts, camera)
    frame = bodies._frame(boxes, camera, size)
    depth, owner = bodies._trace(bodies._cones(parts), boxes, frame)
    same = (owner[1:-1, 1:-1] >= 0) & np.all(
        [owner[1:-1, 1:-1] == owner[1 + down : -1 + down or None, 1 + right : -1 + right or None]
         for down, right in ((-1, 0), (1, 0), (0, -1), (0, 1))], axis=0,
    )  # fmt: skip
    points = np.stack([frame.x[None] * depth, frame.y[:, None] * depth, depth])
    with np.errstate(invalid="ignore"):
        across, down = points[:, 1:-1, 2:] - points[:, 1:-1, :-2], points[:, 2:, 1:-1] - points[:, :-2, 1:-1]
    expected = np.cross(across[:, same], down[:, same], axis=0)
    expected /= -np.linalg.norm(expected, axis=0)
    normals, share = bodies._surface(parts, points[:, 1:-1, 1:-1][:, same], owner[1:-1, 1:-1][same])
    assert np.allclose(np.linalg.norm(normals, axis=0), 1, atol=1e-3)
    assert np.median((normals * expected).sum(0)) > 0.999
    assert ((normals * expected).sum(0) > 0.98).mean() > 0.97
    assert (share >= 0).all()
    assert (share <= 1).all()


@pytest.mark.parametrize("offset", [(0, 0, 0), (900, -500, -2600), (0, 300, -3000)])
def test_boxes_hold_all_of_their_parts(offset):
    """Also near the camera and far from its axis."""
    joints, size = standing() + np.array(offset, float), (90, 90)
    camera = np.array([[60.0, 0, 44.5], [0, 60, 44.5], [0, 0, 1]])
    parts = body_parts.parts(joints, body_parts.Build())
    boxes = bodies._extents(parts, camera)
    whole = np.tile([0.0, 0, 90, 90], (len(parts), 1))
    frame = bodies._frame(whole, camera, size)
    tight, owner = bodies._trace(bodies._cones(parts), boxes, frame)
    wide, all_owner = bodies._trace(bodies._cones(parts), whole, frame)
    assert np.array_equal(owner, all_owner)
    assert np.array_equal(tight, wide)


# Visibility


def test_a_hand_behind_the_torso_is_hidden_and_one_before_it_seen():
    for z, mark in ((4300, 1), (3700, 2)):
        seen = plain(standing(r_wrist=(0, -200, z), r_elbow=(-180, -170, z))).visibility
        assert seen[AT("r_wrist")] == mark
        assert seen[AT("l_wrist")] == 2
    turned = plain(standing() + np.array([0, 0, 0.0])).visibility
    assert (turned == 2).all()


def test_the_far_leg_is_hidden_from_the_side():
    sideways = standing()
    sideways[:, 2] = 4000 + sideways[:, 0]
    sideways[:, 0] = 0
    seen = plain(sideways).visibility
    assert (seen[[AT("r_knee"), AT("r_ankle"), AT("r_wrist")]] == 2).all()
    assert (seen[[AT("l_knee"), AT("l_ankle"), AT("l_wrist")]] == 1).all()


def test_visibility_without_drawing_is_the_same():
    for seed in range(5):
        joints = standing() + rng(seed).normal(0, 60, (16, 3))
        expected = bodies.render(joints, CAMERA, SIZE, rng(seed)).visibility
        assert np.array_equal(bodies.visibility(joints, CAMERA, SIZE, rng(seed)), expected)


# Poses that cannot be


@pytest.mark.parametrize(
    "merged",
    [("l_wrist", "l_elbow"), ("pelvis", "thorax"), ("l_hip", "r_hip"), ("l_shoulder", "r_shoulder"),
     ("upper_neck", "head_top"), ("l_knee", "l_ankle"), ("thorax", "upper_neck")],
)  # fmt: skip
def test_a_limb_without_length_is_drawn(merged):
    joints = standing()
    joints[AT(merged[0])] = joints[AT(merged[1])]
    drawn = plain(joints)
    assert np.isfinite(drawn.depth).mean() > 0.04


@pytest.mark.parametrize("seed", range(10))
def test_any_cloud_of_joints_is_drawn(seed):
    joints = rng(seed).normal(0, 400, (16, 3)) + (0, 0, 4000)
    assert np.isfinite(bodies.render(joints, CAMERA, SIZE, rng(seed)).depth).any()


@pytest.mark.parametrize(
    ("joints", "camera", "words"),
    [
        (
            standing() - np.array([0, 0, 4100.0]),
            CAMERA,
            r"joints: expected the whole body before the camera .* z = -100",
        ),
        (
            standing() / 1000 + np.array([0, 0, 400.0]),
            CAMERA,
            "joints: expected a body in millimetres, got one of 0.001",
        ),
        (np.tile(standing()[:1], (16, 1)), CAMERA, "joints: expected a body in millimetres, got one of 0 times"),
        (standing() * np.nan, CAMERA, "joints: expected finite millimetres"),
        (standing()[:15], CAMERA, r"joints: expected \(16, 3\) in MPII order .* got \(15, 3\)"),
        (standing(), -CAMERA, "intrinsics: expected positive focal lengths"),
    ],
)
def test_mistakes_are_one_sentence(joints, camera, words):
    with pytest.raises(ValueError, match=words) as error:
        bodies.draw(joints, camera, SIZE, rng())
    assert "\n" not in str(error.value)


def test_a_background_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"background: expected uint8 \(120, 100, 3\), got uint8 \(5, 5, 3\)"):
        bodies.render(standing(), CAMERA, SIZE, rng(), background=np.zeros((5, 5, 3), np.uint8))


# Clothes and backgrounds


def test_builds_and_backgrounds_differ():
    builds = [body_parts.random_build(rng(seed)) for seed in range(40)]
    assert {build.hair for build in builds} == {"none", "short", "long"}
    assert {build.shoes for build in builds} == {True, False}
    assert {build.sleeve > 1.9 for build in builds} == {True, False}
    pictures = np.stack([backgrounds.background((40, 30), rng(seed)) for seed in range(12)])
    assert pictures.shape == (12, 40, 30, 3)
    assert pictures.std(0).mean() > 30


def test_a_camera_adds_noise_and_light_of_its_own():
    picture = np.full((20, 30, 3), 120, np.uint8)
    changed = np.stack([backgrounds.photographed(picture, rng(seed)) for seed in range(8)])
    assert changed.dtype == np.uint8
    assert changed.mean((1, 2, 3)).std() > 3
    assert (picture == 120).all()
