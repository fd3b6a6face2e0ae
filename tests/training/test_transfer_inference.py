"""Photographs of any size in a generator's frame, and what it makes of them."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fastpose import models
from fastpose.data import keypoint_files
from fastpose.data.keypoint_files import Pose
from fastpose.training import transfer_data
from fastpose.training.estimation import device_of
from fastpose.training.transfer_data import TransferDataConfig
from fastpose.training.transfer_frame import Fit
from fastpose.training.transfer_inference import BATCH, PoseTransfer

MARKET = TransferDataConfig(name="market")
CROPPED = TransferDataConfig(name="deepfashion", crop="176", pose_map="binary")
SQUARE = TransferDataConfig(name="deepfashion", pose_map="binary")


class Copy(nn.Module):
    """Gives the source back, and remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, image: Tensor, guides: Tensor) -> Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        self.seen.append((image, guides))
        return image


def photo_of(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def pose_of(size: tuple[int, int] | None, points: dict[int, tuple[float, float]], name: str = "a.jpg") -> Pose:
    keypoints, visibility = np.zeros((18, 2), np.float32), np.zeros(18, np.uint8)
    for joint, point in points.items():
        keypoints[joint], visibility[joint] = point, 2
    return Pose(name, keypoints, visibility, size)


def drawer(config: TransferDataConfig) -> PoseTransfer:
    return PoseTransfer(Copy(), SimpleNamespace(data=config))


# ---- the frame -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("config", "size"), [(MARKET, (128, 64)), (CROPPED, (256, 176)), (SQUARE, (256, 256))])
def test_a_photograph_of_the_networks_size_is_not_resampled(config, size):
    photo = photo_of(size)
    assert np.array_equal(Fit.of(size, config).image(photo), photo)
    points = np.array([[0.0, 0.0], [size[1] - 1, size[0] - 1]])
    mapped, visibility = Fit.of(size, config).points(points, np.ones(2))
    np.testing.assert_array_equal(mapped, points)
    assert visibility.tolist() == [1, 1]


def test_a_deepfashion_square_is_cut_to_its_middle_columns():
    photo = photo_of((256, 256))
    fit = Fit.of((256, 256), CROPPED)
    assert np.array_equal(fit.image(photo), photo[:, 40:216])
    mapped, visibility = fit.points(np.array([[40.0, 3.0], [39.0, 3.0], [215.0, 3.0], [216.0, 3.0]]), np.ones(4))
    assert mapped.tolist() == [[0, 3], [0, 0], [175, 3], [0, 0]]
    assert visibility.tolist() == [1, 0, 1, 0]


def test_a_narrow_photograph_gets_white_at_both_sides():
    photo = np.zeros((128, 40, 3), np.uint8)
    shown = Fit.of((128, 40), MARKET).image(photo)
    assert shown.shape == (128, 64, 3)
    assert (shown[:, 12:52] == 0).all()
    assert (shown[:, :12] == 255).all()
    assert (shown[:, 52:] == 255).all()


def test_wide_photographs_show_as_many_columns_as_the_squares_hold_persons():
    shown = Fit.of((512, 512), SQUARE).image(np.zeros((512, 512, 3), np.uint8))
    assert (shown[:, 40:216] == 0).all()
    assert (shown[:, :40] == 255).all()
    assert (shown[:, 216:] == 255).all()


@pytest.mark.parametrize("config", [MARKET, CROPPED, SQUARE])
@pytest.mark.parametrize("size", [(300, 90), (100, 300), (37, 41), (1024, 768), (400, 25), (8, 128)])
def test_points_move_with_the_pixels(config, size):
    """A spot in a photograph of any size lies where its key point goes."""
    fit = Fit.of(size, config)
    x, y = size[1] // 2, size[0] // 3
    photo = np.full((*size, 3), 255, np.uint8)
    reach = max(1, round(max(size) / min(fit.frame)))
    photo[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1] = 0
    shown = fit.image(photo)
    assert shown.shape == (*fit.frame, 3)
    points, visibility = fit.points(np.array([[x, y]]), np.ones(1))
    assert visibility[0] == 1
    column, row = np.rint(points[0]).astype(int)
    assert shown[np.clip(row, 0, fit.frame[0] - 1), np.clip(column, 0, fit.frame[1] - 1)].max() < 128


def test_missing_and_not_finite_joints_stay_missing():
    points, visibility = Fit.of((64, 64), MARKET).points(
        np.array([[np.nan, 3], [30, 30], [30, 30]]), np.array([2, 0, 2])
    )
    assert visibility.tolist() == [0, 0, 1]
    assert points[:2].tolist() == [[0, 0], [0, 0]]


def test_labels_keep_their_numbers_and_lines_stay_whole():
    labels = np.zeros((64, 64), np.uint8)
    labels[:, 32:] = 7
    assert set(np.unique(Fit.of((64, 64), TransferDataConfig(name="semantic")).labels(labels))) == {0, 7}
    drawing = np.zeros((700, 700), np.uint8)
    drawing[np.arange(100, 600), np.arange(100, 600)] = 255
    lines = Fit.of((700, 700), TransferDataConfig(name="fonts")).lines(drawing)
    assert set(np.unique(lines)) == {0, 255}
    assert (lines[40:215] == 255).any(1).all()  # no gap
    assert (lines == 255).sum(1).max() <= 2  # and thin


# ---- generation ------------------------------------------------------------------------------------------------


def test_a_network_that_copies_gives_the_photograph_back_for_each_target():
    transfer = drawer(MARKET)
    photo = photo_of((128, 64))
    poses = [pose_of(None, {1: (30, 20 + index)}) for index in range(BATCH + 3)]
    images = transfer(photo, pose_of((128, 64), {0: (5, 6)}), poses)
    assert len(images) == BATCH + 3
    assert all(np.array_equal(image, photo) for image in images)
    assert [len(image) for image, _ in transfer.network.seen] == [BATCH, 3]


def test_guides_are_the_sources_and_then_the_targets_poses():
    transfer = drawer(SQUARE)
    transfer(photo_of((256, 256)), pose_of(None, {0: (100, 50)}), [pose_of((512, 512), {17: (240.5, 100.5)})])
    ((_, guides),) = transfer.network.seen
    assert guides.shape == (1, 36, 256, 256)
    assert torch.nonzero(guides[0]).tolist() == [[0, 50, 100], [18 + 17, 50, 120]]


def test_it_agrees_with_what_training_prepares():
    """The same pair through `transfer_data.prepare` and through the photograph gives the same input."""
    transfer = drawer(MARKET)
    photo, source, target = photo_of((128, 64)), pose_of(None, {0: (5, 6), 3: (60, 100)}), pose_of(None, {5: (9, 9)})
    inputs = transfer.inputs(photo, source, [target])
    image = torch.from_numpy(photo.transpose(2, 0, 1).copy())[None]
    batch = {"source_image": image, "target_image": image}
    for side, pose in (("source", source), ("target", target)):
        batch[f"{side}_keypoints"] = torch.from_numpy(pose.keypoints)[None]
        batch[f"{side}_visibility"] = torch.from_numpy(pose.visibility.astype(np.float32))[None]
    expected = transfer_data.prepare(batch, MARKET)
    assert torch.equal(inputs.source, expected.source)
    assert torch.equal(inputs.guides, expected.guides)


def test_the_networks_mode_is_given_back():
    transfer = drawer(MARKET)
    transfer.network.train()
    transfer(photo_of((50, 30)), pose_of(None, {0: (5, 6)}), [pose_of(None, {0: (5, 6)})])
    assert transfer.network.training
    transfer.network.eval()
    transfer(photo_of((50, 30)), pose_of(None, {0: (5, 6)}), [pose_of(None, {0: (5, 6)})])
    assert not transfer.network.training


def test_a_frozen_part_stays_in_its_mode():
    transfer = drawer(MARKET)
    transfer.network.frozen = nn.BatchNorm2d(3).eval()
    transfer.network.train()
    transfer.network.frozen.eval()
    transfer(photo_of((50, 30)), pose_of(None, {0: (5, 6)}), [pose_of(None, {0: (5, 6)})])
    assert transfer.network.training
    assert not transfer.network.frozen.training


def test_a_copy_that_only_infers_draws_the_same():
    """Its weights may be buffers alone."""
    network = models.create("pona.generator.tiny").eval()
    photo, pose = photo_of((128, 64)), pose_of(None, {0: (5, 6), 3: (40, 100)})
    (expected,) = PoseTransfer(network, SimpleNamespace(data=MARKET))(photo, pose, [pose])
    fast = PoseTransfer(models.for_inference(network), SimpleNamespace(data=MARKET))
    assert fast.device == torch.device("cpu")
    (found,) = fast(photo, pose, [pose])
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_where_a_network_without_parameters_lives():
    alone = nn.Module()
    assert device_of(alone) == torch.device("cpu")
    alone.register_buffer("table", torch.zeros(1, device="meta"))
    assert device_of(alone) == torch.device("meta")


def test_images_that_are_not_finite_are_refused():
    class Broken(Copy):
        def forward(self, image: Tensor, guides: Tensor) -> Tensor:
            return image * float("nan")

    pose = pose_of(None, {0: (5, 6)})
    with pytest.raises(ValueError, match="network: expected finite images, got NaN"):
        PoseTransfer(Broken(), SimpleNamespace(data=MARKET))(photo_of((128, 64)), pose, [pose])


PERSONS = TransferDataConfig(name="photos", height=64, width=32)


@pytest.mark.parametrize("config", [MARKET, PERSONS])
def test_targets_are_checked_as_sources_are(config):
    own = pose_of((128, 64), {joint: (10 + joint, 20 + 2 * joint) for joint in range(6)})
    away = {joint: (9999 + joint, 9999) for joint in range(6)}
    for target, sentence in (
        (pose_of((128, 64), away), r"targets\[0\]: no joint of pose 'a.jpg' lies in the photograph of 64 x 128"),
        (pose_of((0, 0), {0: (5, 6)}), r"targets\[0\]: no joint of pose 'a.jpg' lies in the photograph of 0 x 0"),
        (pose_of(None, {}), r"targets\[0\]: no joint of pose 'a.jpg' is known"),
    ):
        with pytest.raises(ValueError, match=sentence):
            drawer(config)(photo_of((128, 64)), own, [target])


def test_the_box_of_a_person_keeps_the_limits_of_photographs():
    transfer = drawer(PERSONS)
    good = pose_of((128, 64), {joint: (10 + joint, 20 + 2 * joint) for joint in range(6)})
    tiny = pose_of((5, 5), {joint: (joint % 4, joint % 3) for joint in range(6)})
    with pytest.raises(ValueError, match="image of 5 x 5 pixels: expected sides from 8 pixels on"):
        transfer(photo_of((5, 5)), tiny, [good])
    heap = pose_of(None, dict.fromkeys(range(6), (9999, 9999)))
    with pytest.raises(ValueError, match=r"pose 'a.jpg': all its joints lie at \(9999, 9999\)"):
        transfer(photo_of((128, 64)), good, [heap])


def test_persons_are_cut_to_as_training_cut_them(tmp_path):
    """A network trained on a user's own folder sees a photograph as it saw those of the folder."""
    from fastpose import data
    from fastpose.visual.grids import save_image

    rows = []
    for name, seed in (("anna/1.png", 1), ("anna/2.png", 2)):
        save_image(tmp_path / name, photo_of((200, 300), seed))
        points = np.random.default_rng(seed).uniform([100, 50], [180, 150], (17, 2)).tolist()
        person = {"keypoints": points, "scores": [1.0] * 17}
        rows.append({"image": name, "size": [200, 300], "skeleton": "coco", "persons": [person]})
    (tmp_path / "keypoints.json").write_text(json.dumps(rows))
    source = data.create("photos", tmp_path, "all")
    expected = [data.PairDataset(source, size=(64, 32), seed=0)[(0, index)] for index in range(2)]
    poses = keypoint_files.read(tmp_path / "keypoints.json")
    inputs = drawer(PERSONS).inputs(photo_of((200, 300), 1), poses[0], [poses[1]])
    sample = next(one for one in expected if np.array_equal(one["source_image"], expected[0]["source_image"]))
    batch = {name: torch.as_tensor(value)[None] for name, value in sample.items()}
    wanted = transfer_data.prepare(batch, PERSONS)
    assert torch.equal(inputs.source, wanted.source)
    torch.testing.assert_close(inputs.guides, wanted.guides)


def test_a_pose_fills_the_frame_whatever_its_own_size_was():
    transfer = drawer(PERSONS)
    points = {0: (10.0, 10.0), 1: (12.0, 20.0), 8: (9.0, 30.0), 9: (20.0, 50.0)}
    small = transfer.side(pose_of((100, 100), points), "target")
    large = {joint: (8 * x + 3.5, 8 * y + 3.5) for joint, (x, y) in points.items()}
    for size in ((800, 800), None):
        np.testing.assert_allclose(
            transfer.side(pose_of(size, large), "target")["keypoints"], small["keypoints"], atol=0.6
        )
    assert transfer.side(pose_of((64, 32), points), "target")["keypoints"][9].tolist() == [20, 50]  # cut already


@pytest.mark.parametrize("config", [MARKET, PERSONS, CROPPED])
def test_joints_that_are_not_finite_are_missing(config):
    pose = pose_of((300, 200), {joint: (100 + joint, 150 - joint) for joint in range(8)})
    pose.keypoints[2], pose.keypoints[3] = (np.nan, 3), (4, np.inf)
    side = drawer(config).side(pose, "target")
    assert np.flatnonzero(side["visibility"]).tolist() == [0, 1, 4, 5, 6, 7]
    assert np.isfinite(side["keypoints"]).all()


def test_tables_without_sizes_count_in_the_squares_that_are_cropped():
    transfer = drawer(CROPPED)
    side = transfer.side(pose_of(None, {0: (100, 9), 1: (215, 20)}), "target")
    assert side["keypoints"][:2].tolist() == [[60, 9], [175, 20]]
    narrow = transfer.side(pose_of(None, {0: (10, 9), 1: (175, 20)}), "target")
    assert narrow["keypoints"][:2].tolist() == [[10, 9], [175, 20]]


def test_a_target_beyond_the_frame_that_tells_no_size_is_named():
    with pytest.raises(ValueError, match=r"pose 'a\.jpg': does not say the size of its image, and its joints reach"):
        drawer(MARKET).side(pose_of(None, {0: (500, 140)}), "target")


@pytest.mark.parametrize(
    ("photo", "source", "targets", "sentence"),
    [
        (np.zeros((8, 8), np.uint8), {}, 1, r"photo: expected uint8 \(H, W, 3\) RGB"),
        (np.zeros((1, 90, 3), np.uint8), {}, 1, "image of 90 x 1 pixels: expected sides from 8 pixels on"),
        (np.zeros((90, 9000, 3), np.uint8), {}, 1, "image of 9000 x 90 pixels: expected sides from 8 pixels on"),
        (np.zeros((8, 8, 3)), {}, 1, r"photo: expected uint8 \(H, W, 3\) RGB, got float64"),
        ("photo.jpg", {}, 1, "got str"),
        (photo_of((128, 64)), {}, 0, "targets: expected at least one"),
        (
            photo_of((128, 64)),
            {"size": (256, 256)},
            1,
            "is of an image of 256 x 256 pixels, the photograph has 64 x 128",
        ),
        (
            photo_of((128, 64)),
            {"points": {}},
            1,
            r"source: no joint of pose 'a.jpg' is known \(none scored at least 0\.1\)",
        ),
        (photo_of((128, 64)), {"points": {0: (5, 140)}}, 1, "source: no joint of pose 'a.jpg' lies in the photograph"),
        (
            photo_of((128, 64)),
            {"points": {0: (5, 140), 1: (5, 5)}},
            1,
            r"reach \(5, 140\), beyond the photograph of 64 x 128",
        ),
        (photo_of((128, 500)), {"points": {0: (5, 14)}}, 1, "source: no joint of pose 'a.jpg' lies in the part"),
    ],
)
def test_mistakes_are_named(photo, source, targets, sentence):
    own = pose_of(source.get("size"), source.get("points", {0: (5, 6)}))
    with pytest.raises(ValueError, match=sentence):
        drawer(MARKET)(photo, own, [pose_of(None, {0: (5, 6)})] * targets)


@pytest.mark.parametrize(
    ("plane", "sentence"),
    [
        (np.zeros((256, 256)), r"source: expected uint8 \(H, W\)"),
        (np.zeros((256, 256, 3), np.uint8), r"source: expected uint8 \(H, W\)"),
        (np.zeros((100, 200), np.uint8), "as wide and high as its photograph"),
        (np.full((256, 256), 16, np.uint8), "part numbers 0 to 15, got 16"),
        (np.zeros((256, 256), np.uint8), "source: expected a map that shows parts, found background alone"),
    ],
)
def test_maps_that_do_not_fit_are_named(plane, sentence):
    transfer = drawer(TransferDataConfig(name="semantic"))
    with pytest.raises(ValueError, match=sentence):
        transfer(photo_of((256, 256)), plane, [np.ones((256, 256), np.uint8)])


@pytest.mark.parametrize("value", [0, 255])
def test_skeletons_without_lines_are_named(value):
    transfer = drawer(TransferDataConfig(name="fonts"))
    lines = np.zeros((256, 256), np.uint8)
    lines[100, 20:200] = 255
    plane = np.full((256, 256), value, np.uint8)
    for source, target, argument in ((lines, plane, r"targets\[0\]"), (plane, lines, "source")):
        with pytest.raises(ValueError, match=f"{argument}: expected a skeleton of light lines on dark, found"):
            transfer(photo_of((256, 256)), source, [target])


def test_maps_of_parts_guide_too():
    transfer = drawer(TransferDataConfig(name="semantic"))
    labels = np.zeros((256, 256), np.uint8)
    labels[10:20, 100:120] = 3
    transfer(photo_of((256, 256)), labels, [np.flipud(labels)])
    ((_, guides),) = transfer.network.seen
    assert guides.shape == (1, 32, 256, 256)
    assert torch.equal(guides[0, 3] > 0, torch.from_numpy(labels == 3))
    assert torch.equal(guides[0, 16 + 3] > 0, torch.from_numpy(np.flipud(labels == 3).copy()))
    assert guides.sum() == 2 * 256 * 256  # each pixel is of one part or of the background


@pytest.mark.parametrize("name", ["pona.generator.tiny", "multiscale.generator.tiny"])
def test_pictures_of_what_a_network_does(name):
    transfer = PoseTransfer(models.create(name), SimpleNamespace(data=MARKET))
    joints = {joint: (10 + 2 * joint, 20 + 3 * joint) for joint in range(18)}
    pictures = transfer.explain(photo_of((128, 64)), pose_of(None, joints), pose_of(None, joints))
    expected = {"features", "attention"} if name.startswith("pona") else {"features", "gates"}
    assert set(pictures) == expected
    assert all(picture.dtype == np.uint8 and picture.ndim == 3 for picture in pictures.values())
    blind = transfer.explain(photo_of((128, 64)), pose_of(None, joints), pose_of(None, {17: (5, 5)}))
    assert "attention" not in blind  # none of the joints shown is known
