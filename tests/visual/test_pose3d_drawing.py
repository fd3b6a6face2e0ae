"""Poses in space: what stands where from each side, what hides what, missing joints, films, wrong input."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastpose import ops
from fastpose.data.images import read_image
from fastpose.skeletons import H36M, LSP, MPII
from fastpose.visual import _space, poses3d
from fastpose.visual._space import Eye, Scene, Solid
from fastpose.visual.grids import save_image

SIZE = (96, 96)
WALKER = np.array(
    [
        *[[-120, 880, 60], [-110, 450, -40], [-110, 0, 0], [110, 0, 0], [130, 440, 120], [180, 860, 330]],
        *[[0, 0, 0], [0, -420, -40], [0, -500, -50], [0, -730, -60]],
        *[
            [-380, -60, -330],
            [-330, -200, -80],
            [-170, -440, -30],
            [170, -440, -50],
            [300, -180, 40],
            [420, -330, -160],
        ],
    ],
    dtype=np.float64,
)
PHOTO = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
POINTS = np.random.default_rng(1).uniform(5, 55, (16, 2))


def pixel_of(joint: str, azimuth: float, elevation: float) -> np.ndarray:
    eye = Eye(Scene.around(WALKER), azimuth, elevation, SIZE)
    return eye.see(WALKER)[0][MPII.index(joint)]


def colour_at(picture: np.ndarray, point: np.ndarray) -> np.ndarray:
    x, y = np.rint(point).astype(int)
    return picture[y, x].astype(int)


# ---- one pose ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("azimuth", "elevation"), [(0, 0), (0, 8), (40, 10), (90, 8), (0, 80), (200, 20)])
@pytest.mark.parametrize(("joint", "channel"), [("l_wrist", 2), ("r_wrist", 0)])
def test_hands_have_the_colour_of_their_side(azimuth, elevation, joint, channel):
    picture = poses3d.draw_pose(WALKER, MPII, azimuth=azimuth, elevation=elevation, size=SIZE)
    assert picture.shape == (*SIZE, 3)
    assert picture.dtype == np.uint8
    colour = colour_at(picture, pixel_of(joint, azimuth, elevation))
    other = 2 - channel
    assert colour[channel] > colour[other] + 40, colour


def test_each_side_shows_what_it_should():
    front = {joint: pixel_of(joint, 0, 0) for joint in MPII.joints}
    assert front["l_wrist"][0] > front["r_wrist"][0]  # seen from the front, the left hand is at the picture's right
    assert front["head_top"][1] < front["pelvis"][1] < front["l_ankle"][1]
    side = {joint: pixel_of(joint, 90, 0) for joint in MPII.joints}
    assert side["l_ankle"][0] > side["pelvis"][0] > side["r_wrist"][0]  # from the right: away is at the right
    top = {joint: pixel_of(joint, 0, 90) for joint in MPII.joints}
    assert top["l_ankle"][1] < top["pelvis"][1] < top["r_wrist"][1]  # from above: away is up


def test_the_camera_s_own_view_has_the_proportions_of_the_photograph():
    flat = WALKER * [1, 1, 0]
    eye = Eye(Scene.around(flat), 0, 0, (200, 300))
    pixels, _, scales = eye.see(flat)
    np.testing.assert_allclose(pixels - pixels[6], (flat - flat[6])[:, :2] * scales[0], atol=1e-9)
    assert (pixels >= 0).all()
    assert (pixels < [300, 200]).all()


@pytest.mark.parametrize("azimuth", [0, 75, 180, 290])
def test_every_joint_stays_in_the_picture(azimuth):
    rng = np.random.default_rng(azimuth)
    for _ in range(20):
        points = rng.normal(0, rng.uniform(0.1, 900, 3), (16, 3))
        pixels, _, _ = Eye(Scene.around(points), azimuth, rng.uniform(0, 90), SIZE).see(points)
        assert (pixels >= 0).all()
        assert (pixels <= 95).all()


def test_the_nearer_ball_hides_the_farther_whatever_the_order():
    near = Solid(np.array([0.0, 0, -0.5]), np.array([0.0, 0, -0.5]), 0.2, (255, 0, 0))
    far = Solid(np.array([0.0, 0, 0.5]), np.array([0.0, 0, 0.5]), 0.2, (0, 0, 255))
    scene = Scene(np.zeros(3), 1.0)
    pictures = [
        _space.render(solids, scene, azimuth=0, elevation=0, size=SIZE) for solids in ([near, far], [far, near])
    ]
    assert np.array_equal(*pictures)
    assert pictures[0][48, 48, 0] > pictures[0][48, 48, 2]
    behind = _space.render([near, far], scene, azimuth=180, elevation=0, size=SIZE)
    assert behind[48, 48, 2] > behind[48, 48, 0]


def test_a_leaning_limb_is_hidden_where_it_passes_behind():
    """The depth buffer decides per pixel: neither limb is in front of the other as a whole."""
    x, scene = np.array([1.0, 0, 0]), Scene(np.zeros(3), 1.0)
    red = Solid(-x + [0, 0, -0.8], x + [0, 0, 0.8], 0.1, (255, 0, 0))
    blue = Solid(-x + [0, 0, 0.8], x + [0, 0, -0.8], 0.1, (0, 0, 255))
    picture = _space.render([red, blue], scene, azimuth=0, elevation=0, size=SIZE).astype(int)
    row = picture[47]
    assert row[24, 0] > row[24, 2] + 50
    assert row[71, 2] > row[71, 0] + 50


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_joint_that_is_not_finite_is_missing_with_its_limbs(bad):
    broken = WALKER.copy()
    broken[MPII.index("l_wrist"), 1] = bad
    picture = poses3d.draw_pose(broken, MPII, size=SIZE, scene=Scene.around(WALKER))
    assert (colour_at(picture, pixel_of("l_wrist", 0, 8)) > 190).all()
    assert colour_at(picture, pixel_of("l_elbow", 0, 8))[2] > 120
    empty = poses3d.draw_pose(np.full((16, 3), bad), MPII, size=SIZE)
    assert (empty == 255).all()


def test_a_pose_without_extent_is_drawn():
    assert poses3d.draw_pose(np.zeros((16, 3)), MPII, size=SIZE).shape == (*SIZE, 3)
    assert poses3d.draw_pose(torch.from_numpy(WALKER), MPII, size=(1, 1)).shape == (1, 1, 3)
    assert poses3d.draw_pose(np.eye(17, 3), H36M, size=SIZE).shape == (*SIZE, 3)


def test_nothing_pretends_to_know_where_the_ground_is():
    """A camera that looks down sees an upright person lean: only the pose itself may be on the picture."""
    leaning = WALKER @ np.array([[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]])
    for picture in poses3d.views(leaning, MPII, size=SIZE):
        painted = (picture < 255).any(2)
        assert 0.01 < painted.mean() < 0.25
        assert not painted[[0, -1]].any()
        assert not painted[:, [0, -1]].any()


def test_the_truth_is_grey_beside_the_prediction():
    moved = WALKER + [700, 0, 0]
    both = poses3d.draw_pose(WALKER, MPII, truth=moved, size=SIZE).astype(int)
    scene = Scene.around(np.concatenate([WALKER, moved]))
    pixel = Eye(scene, 0, 8, SIZE).see((moved[[0]] + moved[[1]]) / 2)[0][0]
    colour = colour_at(both, pixel)
    assert np.ptp(colour) < 30
    assert colour.max() < 225


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"joints": WALKER[:14]}, r"joints: expected \(16, 3\) for skeleton mpii, got \(14, 3\)"),
        ({"joints": WALKER[:, :2]}, r"joints: expected \(16, 3\)"),
        ({"truth": WALKER[:2]}, r"truth: expected \(16, 3\)"),
        ({"size": (0, 10)}, r"size: expected \(H, W\) of at least 1, got \(0, 10\)"),
    ],
)
def test_a_pose_of_another_shape_is_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        poses3d.draw_pose(**{"joints": WALKER, "skeleton": MPII, "size": SIZE, **arguments})


def test_an_unknown_side_is_refused():
    assert len(poses3d.views(WALKER, MPII, size=SIZE)) == 3
    with pytest.raises(ValueError, match="names: expected one of front, side, top, got 'tops'; did you mean 'top'"):
        poses3d.views(WALKER, MPII, names=("front", "tops"), size=SIZE)


# ---- films ---------------------------------------------------------------------------------------------------------


def test_a_turn_goes_round_and_shows_one_part_of_space():
    turned = list(poses3d.turn(WALKER, MPII, 4, size=SIZE))
    expected = [poses3d.draw_pose(WALKER, MPII, azimuth=a, elevation=12, size=SIZE) for a in (0, 90, 180, 270)]
    assert len(turned) == 4
    assert all(map(np.array_equal, turned, expected))


def test_a_motion_runs_while_it_turns():
    motion = np.stack([WALKER, WALKER + [0, -300, 0]])
    first, _, third, _ = poses3d.turn(motion, MPII, 4, truth=motion, size=SIZE)
    still = list(poses3d.turn(WALKER, MPII, 4, size=SIZE))
    assert not np.array_equal(first, still[0])  # the scene holds both poses
    assert not np.array_equal(first, third)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"frames": 0}, "expected at least one pose and one frame, got 1 and 0"),
        ({"poses": np.zeros((0, 16, 3))}, "expected at least one pose and one frame, got 0 and 48"),
        ({"poses": np.zeros(3)}, r"poses: expected \(K, 3\) or \(T, K, 3\), got \(3,\)"),
        ({"poses": np.zeros((2, 14, 3))}, r"poses: expected \(16, 3\)"),
        ({"truth": np.zeros((2, 16, 3))}, r"truth: expected the shape of the poses \(1, 16, 3\), got \(2, 16, 3\)"),
    ],
)
def test_a_turn_of_something_else_is_refused_at_once(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        poses3d.turn(**{"poses": WALKER, "skeleton": MPII, **arguments})


def test_a_gif_turns_for_ever_and_white_stays_white(tmp_path):
    from PIL import Image

    film = poses3d.turning(PHOTO, POINTS, WALKER, MPII, frames=6, height=96)
    path = poses3d.turning_gif(tmp_path / "new" / "a.gif", film, MPII, seconds=3.0)
    with Image.open(path) as gif:
        assert (gif.n_frames, gif.info["loop"], gif.info["duration"]) == (6, 0, 500)
        assert gif.size == (film[0].shape[1], 96)
        shown = np.asarray(gif.convert("RGB")).astype(int)
    assert (shown[2, -3] == 255).all()
    with pytest.raises(ValueError, match=r"expected a name that ends in \.gif"):
        poses3d.turning_gif(tmp_path / "a.png", film, MPII)


# ---- beside a photograph -------------------------------------------------------------------------------------------


def test_the_photograph_stands_beside_three_sides():
    picture = poses3d.beside(PHOTO, POINTS, WALKER, MPII, height=120)
    captioned = poses3d.beside(PHOTO, POINTS, WALKER, MPII, height=120, caption="anna")
    assert captioned.shape[0] > picture.shape[0]
    assert captioned.shape[1] == picture.shape[1] > 4 * 120


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (900, 3), (60, 80)])
def test_a_photo_of_any_size_is_scaled_to_the_panel(size):
    shown = poses3d.overlay(np.full((*size, 3), 90, np.uint8), np.zeros((16, 2)), MPII, height=90)
    assert shown.shape[0] <= 90
    assert shown.shape[1] <= 120
    assert shown.shape[0] == 90 or shown.shape[1] == 120


def test_key_points_move_with_the_scaled_photo():
    points = np.tile([[20.0, 30.0]], (16, 1))
    shown = poses3d.overlay(np.zeros((60, 80, 3), np.uint8), points, MPII, height=120)
    y, x = (np.argwhere(shown.any(2)).min(0) + np.argwhere(shown.any(2)).max(0)) / 2
    np.testing.assert_allclose([x, y], [40.5, 60.5], atol=1)


def test_a_grey_photo_is_drawn_and_another_kind_refused():
    assert poses3d.overlay(PHOTO[..., 0], POINTS, MPII, height=60).shape == (60, 80, 3)
    with pytest.raises(TypeError, match="photo: expected uint8"):
        poses3d.beside(PHOTO.astype(np.float32), POINTS, WALKER, MPII)
    with pytest.raises(ValueError, match=r"photo: expected an RGB image"):
        poses3d.beside(PHOTO[..., :2], POINTS, WALKER, MPII)
    with pytest.raises(ValueError, match=r"keypoints: expected \(14, 2\) for skeleton lsp"):
        poses3d.overlay(PHOTO, POINTS, LSP)


# ---- the descriptor ------------------------------------------------------------------------------------------------


def descriptor() -> torch.Tensor:
    return ops.pairwise_descriptor(torch.tensor(WALKER[None] / 900, dtype=torch.float32))[0]


def test_differences_are_blue_and_red_about_white_and_squares_one_colour():
    picture = poses3d.descriptor_image(descriptor(), MPII, cell=14)
    tiles = cells(picture)
    for channel in range(3):
        above, below = tiles[channel, 9, 0].astype(int), tiles[channel, 0, 9].astype(int)  # head top - right ankle
        assert (above[0] - above[2]) * (below[0] - below[2]) <= 0  # one is red where the other is blue
        assert (np.diagonal(tiles[channel]) > 240).all()
    assert np.array_equal(tiles[3:], tiles[3:].swapaxes(1, 2))
    assert tiles[4, 9, 0].sum() < tiles[4, 9, 8].sum()  # the greater, the darker


def cells(picture: np.ndarray) -> np.ndarray:
    """Return the colour of each cell of 14 pixels, (6, 16, 16, 3); letters are 12 pixels high."""
    side, line = 16 * 14, 2 * 12
    room = picture.shape[1] - 3 * (side + 14) - 6 * 12  # of the names
    corners = [(line + row * (side + line), room + column * (side + 14)) for row in range(2) for column in range(3)]
    return np.stack([picture[top + 7 : top + side : 14, left + 7 : left + side : 14] for top, left in corners])


def test_nothing_and_not_a_number_are_drawn():
    assert poses3d.descriptor_image(np.zeros((6, 16, 16)), MPII).shape[2] == 3
    values = descriptor().numpy().copy()
    values[:, 3, 4] = np.nan
    assert (poses3d.descriptor_image(values, MPII) == 170).all(2).sum() > 6 * 100


def test_a_descriptor_of_other_joints_is_refused():
    with pytest.raises(ValueError, match=r"descriptor: expected \(6, 16, 16\) for skeleton mpii, got \(6, 14, 14\)"):
        poses3d.descriptor_image(np.zeros((6, 14, 14)), MPII)


def test_pictures_can_be_written(tmp_path):
    picture = poses3d.draw_pose(WALKER, MPII, truth=WALKER, size=SIZE)
    assert np.array_equal(read_image(save_image(tmp_path / "a.png", picture)), picture)
