"""From photographs to joints in space, with networks that are right by construction."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from drawing_weights import save
from torch import Tensor, nn

from fastpose.data.pose3d import bone_sum
from fastpose.metrics.keypoints_3d import RELEASED_BONE_SUM, scale_to
from fastpose.skeletons import MPII, Skeleton
from fastpose.training import pose3d_estimation
from fastpose.training.pose3d_data import Pose3dDataConfig
from fastpose.training.pose3d_estimation import Estimate3D, Pose3dEstimator
from fastpose.training.pose3d_scores import Pose3dScoreConfig

DATA = Pose3dDataConfig(name="sample-mocap", image_size=128, mean=(0.0, 0.0, 0.0))
DOTS = Skeleton("dots", ("red", "green", "blue"), ((0, 1),), ())
JOINTS = np.array([[60.0, 40.0], [150.0, 90.0], [100.0, 130.0]])


class DotFinder(nn.Module):
    """Image -> two stacks of heatmaps (B, 3, H/4, W/4), the first rubbish, and the depth that the brightness tells."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, image: Tensor) -> tuple[list[Tensor], Tensor]:
        heatmaps = nn.functional.avg_pool2d(image, 4)  # (B, 3, H/4, W/4)
        return [-heatmaps, heatmaps], heatmaps.amax((-2, -1)) - 0.5


class FixedPose(nn.Module):
    """Any image -> 16 joints at given heatmap pixels and depths; a mirrored image gives the same."""

    def __init__(self, points: np.ndarray, depth: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("points", torch.as_tensor(points))
        self.register_buffer("depth", torch.as_tensor(depth, dtype=torch.float32))

    def forward(self, image: Tensor) -> tuple[list[Tensor], Tensor]:
        batch, side = image.shape[0], image.shape[-1] // 4
        planes = torch.zeros(len(self.points), side, side)
        planes[torch.arange(len(self.points)), self.points[:, 1].long(), self.points[:, 0].long()] = 1.0
        return [planes.expand(batch, *planes.shape)], self.depth.expand(batch, -1)


class Constant(nn.Module):
    """Any image -> the same heatmaps, all at depth 0."""

    def __init__(self, heatmaps: Tensor) -> None:
        super().__init__()
        self.heatmaps = heatmaps

    def forward(self, image: Tensor) -> tuple[list[Tensor], Tensor]:
        return [self.heatmaps], torch.zeros(self.heatmaps.shape[:2])


def photo_of(points: np.ndarray, size: tuple[int, int] = (180, 220), heights: tuple[float, ...] = (1, 1, 1)):
    photo = np.zeros((*size, 3), np.float32)
    y, x = np.mgrid[: size[0], : size[1]]
    for channel, ((px, py), height) in enumerate(zip(points, heights, strict=True)):
        photo[..., channel] = 255 * height * np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * 9.0**2))
    return photo.round().astype(np.uint8)


def dots(**test: object) -> Pose3dEstimator:
    estimator = Pose3dEstimator(DotFinder(), DATA, Pose3dScoreConfig(**test))  # type: ignore[arg-type]
    estimator.skeleton = DOTS
    return estimator


def fixed(flip: bool = False, seed: int = 0) -> Pose3dEstimator:
    rng = np.random.default_rng(seed)
    network = FixedPose(rng.integers(2, 30, (16, 2)), rng.uniform(-0.4, 0.4, 16))
    return Pose3dEstimator(network, DATA, Pose3dScoreConfig(flip=flip, decoder="argmax"))


# ---- photographs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flip", [True, False])
def test_whole_photo_as_one_person(flip):
    estimate = dots(flip=flip)(photo_of(JOINTS, heights=(1, 0.7, 0.4)))
    assert isinstance(estimate, Estimate3D)
    np.testing.assert_allclose(estimate.keypoints[0], JOINTS, atol=3.5)  # half of a heatmap pixel
    np.testing.assert_allclose(estimate.cube[0, :, 2], [0.45, 0.18, -0.12], atol=0.09)
    assert estimate.crop_side.tolist() == [220]


def test_the_cube_spans_the_crop_and_has_one_unit_on_all_axes():
    """x = 2 u / W - 1, so that a heatmap pixel is 2 / W on both axes; z is as the network gives it."""
    estimator = fixed()
    estimate = estimator(np.zeros((100, 60, 3), np.uint8))
    points = estimator.network.points.numpy()
    np.testing.assert_allclose(estimate.cube[0, :, :2], 2 * points / 32 - 1, atol=1e-6)
    np.testing.assert_array_equal(estimate.cube[0, :, 2], estimator.network.depth.numpy())
    assert estimate.crop_side.tolist() == [100]
    photo = (points + 0.5) * 100 / 32 - 0.5 - [20, 0]  # the crop is a square round the middle of the photo
    np.testing.assert_allclose(estimate.keypoints[0], photo, atol=1e-3)
    # pixels of the photo over half a crop are units of the cube
    differences = (estimate.keypoints[0] - estimate.keypoints[0, 0]) / (estimate.crop_side[0] / 2)
    np.testing.assert_allclose(estimate.cube[0, :, :2] - estimate.cube[0, 0, :2], differences, atol=1e-5)


def test_boxes_choose_the_person_and_the_side_of_the_crop():
    left, right = JOINTS * 0.4 + [5, 40], JOINTS * 0.4 + [120, 60]
    photo = np.maximum(photo_of(left), photo_of(right))
    boxes = [[points[:, 0].min() - 10, points[:, 1].min() - 10, 56, 56] for points in (left, right)]
    estimate = dots()(photo, boxes)
    np.testing.assert_allclose(estimate.keypoints, [left, right], atol=3)
    np.testing.assert_allclose(estimate.crop_side, [70, 70], rtol=1e-6)
    nobody = dots()(photo, [])
    assert len(nobody) == 0
    assert (nobody.cube.shape, nobody.crop_side.shape) == ((0, 3, 3), (0,))


def test_the_flip_test_swaps_left_and_right_and_averages_the_depth():
    """The fixed network does not see the mirror: what the flip test makes of it is known."""
    estimator, image = fixed(flip=True), torch.zeros(2, 3, 128, 128, dtype=torch.uint8)
    heatmaps, depth = estimator.maps(image)
    straight = estimator.network.depth
    swapped = straight[list(MPII.flip_permutation)]
    torch.testing.assert_close(depth, ((straight + swapped) / 2).expand(2, -1))
    pair = MPII.index("l_knee"), MPII.index("r_knee")
    torch.testing.assert_close(depth[:, pair[0]], depth[:, pair[1]])
    plain, _ = fixed(flip=False).maps(image)
    mirrored = plain.flip(-1)[:, list(MPII.flip_permutation)]
    torch.testing.assert_close(heatmaps, (plain + mirrored) / 2)


class Leaning(nn.Module):
    """Takes what is at the right for farther away, whichever way the image is turned."""

    def forward(self, image: Tensor) -> tuple[list[Tensor], Tensor]:
        heatmaps = nn.functional.avg_pool2d(image, 4)
        side = heatmaps[..., heatmaps.shape[-1] // 2 :].mean((-2, -1)) - heatmaps.mean((-2, -1))
        return [heatmaps], side


def test_a_lean_of_the_depth_is_averaged_away():
    photo = photo_of(JOINTS)
    depth = {}
    for flip in (False, True):
        estimator = Pose3dEstimator(Leaning(), DATA, Pose3dScoreConfig(flip=flip))
        estimator.skeleton = DOTS
        depth[flip] = estimator(photo).cube[0, :, 2]
    assert np.abs(depth[False]).max() > 1e-3
    np.testing.assert_allclose(depth[True], 0, atol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (7, 5)])
def test_the_smallest_photos_give_finite_joints(size):
    estimate = fixed()(np.full((*size, 3), 200, np.uint8))
    assert np.isfinite(estimate.keypoints).all()
    assert estimate.crop_side.tolist() == [max(size)]


@pytest.mark.parametrize("photo", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32), np.zeros((8, 8, 4))])
def test_a_photo_of_another_kind_is_refused(photo):
    with pytest.raises(ValueError, match=r"photo: expected uint8 \(H, W, 3\) RGB"):
        fixed()(photo)


@pytest.mark.parametrize("box", [[0, 0, 0, 5], [0, 0, 5, -1], [0, float("nan"), 5, 5]])
def test_a_bad_box_is_refused(box):
    with pytest.raises(ValueError, match="boxes: expected finite"):
        fixed()(np.zeros((9, 9, 3), np.uint8), [box])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_network_without_finite_depths_is_refused(value):
    estimator = fixed()
    estimator.network.depth[3] = value
    with pytest.raises(ValueError, match="network: gives NaN or infinite values for this photo"):
        estimator(np.zeros((9, 9, 3), np.uint8))


def test_each_module_gets_its_mode_back():
    for mode in (True, False):
        estimator = fixed()
        estimator.network.train(mode)
        estimator(np.zeros((9, 9, 3), np.uint8))
        assert estimator.network.training is mode


# ---- loaders and weights -------------------------------------------------------------------------------------------


def test_a_loader_gives_all_samples_with_their_indices():
    estimator = fixed(flip=True)
    affine = torch.tensor([[[3.0, 0, 5], [0, 3.0, 7]]], dtype=torch.float64)
    batches = [
        {
            "image": torch.zeros(len(part), 3, 128, 128, dtype=torch.uint8),
            "index": torch.tensor(part),
            "to_image": affine.repeat(len(part), 1, 1),
        }
        for part in ([4, 2, 9], [0])
    ]
    indices, estimate = estimator.run_loader(batches)
    assert indices.tolist() == [4, 2, 9, 0]
    assert estimate.cube.shape == (4, 16, 3)
    assert estimate.crop_side.tolist() == [96] * 4
    assert estimate.cube.dtype == estimate.keypoints.dtype == estimate.crop_side.dtype == np.float32
    with pytest.raises(ValueError, match="expected at least one sample"):
        estimator.run_loader([])


def test_a_rotated_crop_has_its_side_too():
    image, turn = torch.zeros(1, 3, 128, 128, dtype=torch.uint8), np.radians(30)
    affine = 2.5 * torch.tensor([[[np.cos(turn), -np.sin(turn), 1], [np.sin(turn), np.cos(turn), 2]]])
    np.testing.assert_allclose(fixed().read(image, affine).crop_side, [80], rtol=1e-6)


def test_weights_of_a_run_become_an_estimator_with_its_options(tmp_path):
    estimator = Pose3dEstimator.from_weights(save(tmp_path, "pose3d/tiny"), test=Pose3dScoreConfig(decoder="dark"))
    assert estimator.data.image_size == 64
    assert estimator.test.decoder == "dark"
    assert estimator.device.type == "cpu"
    assert estimator(np.zeros((50, 40, 3), np.uint8)).cube.shape == (1, 16, 3)


def test_weights_without_depth_are_refused(tmp_path):
    with pytest.raises(ValueError, match="is of system sagan, which finds no depth; expected pose3d"):
        Pose3dEstimator.from_weights(save(tmp_path, "sagan/tiny"))


def test_the_usual_test_is_that_of_the_system():
    assert Pose3dEstimator(DotFinder(), DATA).test.flip is True


def test_joints_can_be_read_as_released():
    """The quarter offset of the released code looks x's neighbours up where y's are."""
    one = fixed()
    heatmaps = torch.zeros(1, 16, 32, 32)
    heatmaps[..., 2, 5], heatmaps[..., 4, 2] = 1, 0.5
    one.network = Constant(heatmaps)
    images, affine = torch.zeros(1, 3, 128, 128, dtype=torch.uint8), torch.eye(2, 3)[None]
    for decoder, expected in (("argmax", [5, 2]), ("zhou", [4.75, 2.25])):
        one.test = Pose3dScoreConfig(flip=False, decoder=decoder)
        found = one.read(images, affine)
        np.testing.assert_allclose(found.keypoints[0, 0], expected)
        np.testing.assert_allclose(found.cube[0, 0, :2], np.array(expected) / 16 - 1)


# ---- millimetres ---------------------------------------------------------------------------------------------------


def estimate_of(cube: np.ndarray) -> Estimate3D:
    """Return persons whose joints in the crop are given."""
    keypoints, scores = np.zeros((len(cube), 16, 2), np.float32), np.ones((len(cube), 16), np.float32)
    return Estimate3D(keypoints, scores, cube.astype(np.float32), np.ones(len(cube), np.float32))


def test_millimetres_have_the_assumed_bones_and_stand_on_the_pelvis():
    cube = np.random.default_rng(3).uniform(-1, 1, (5, 16, 3)).astype(np.float32)
    joints = fixed().millimetres(estimate_of(cube))
    assert joints.dtype == np.float32
    np.testing.assert_allclose(bone_sum(joints.astype(np.float64)), RELEASED_BONE_SUM, rtol=1e-6)
    np.testing.assert_array_equal(joints[:, MPII.index("pelvis")], 0)
    expected = scale_to(cube, 1800.0).numpy()
    expected -= expected[:, [MPII.index("pelvis")]]
    shorter = Pose3dEstimator(DotFinder(), DATA, Pose3dScoreConfig(bone_sum=1800.0))
    np.testing.assert_allclose(shorter.millimetres(estimate_of(cube)), expected, atol=1e-3)
    assert fixed().millimetres(estimate_of(cube[:0])).shape == (0, 16, 3)


def test_a_pose_without_extent_stays_a_point():
    np.testing.assert_array_equal(fixed().millimetres(estimate_of(np.ones((2, 16, 3)))), 0)


def test_the_assumed_size_is_the_configured_one():
    assert fixed().bone_sum == RELEASED_BONE_SUM
    assert Pose3dEstimator(DotFinder(), DATA, Pose3dScoreConfig(bone_sum=3900.0)).bone_sum == 3900
    assert pose3d_estimation.ROOT == 6


def test_weights_bring_the_size_of_the_persons_they_were_trained_on(tmp_path):
    path = save(tmp_path, "pose3d/tiny", measured={"test.bone_sum": 3951.25, "run.nothing": 3.0})
    assert Pose3dEstimator.from_weights(path).bone_sum == 3951.25
    named = save(tmp_path, "pose3d/tiny", "test.bone_sum=4100", measured={"test.bone_sum": 3951.25})
    assert Pose3dEstimator.from_weights(named).bone_sum == 4100
