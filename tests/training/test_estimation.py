"""From photographs to key points, with a network that is right by construction: it finds coloured dots."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fastpose.data.person import Person
from fastpose.skeletons import Skeleton
from fastpose.training import checkpoint, estimation, pose_data, pose_scores, sagan, systems
from fastpose.training import config as configuration
from fastpose.training.estimation import MULTI_SCALE, Estimate, InferenceConfig, PoseEstimator
from fastpose.training.pose_data import DataConfig

DOTS = Skeleton("dots", ("red", "green", "blue"), ((0, 1),), ())
DATA = DataConfig(name="sample", image_size=128, mean=(0.0, 0.0, 0.0))
JOINTS = np.array([[60.0, 40.0], [150.0, 90.0], [100.0, 130.0]])


class DotFinder(nn.Module):
    """Image (B, 3, H, W) -> two stacks of heatmaps (B, 3, H/4, W/4): the first is rubbish, the last shows the dots."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, image: Tensor) -> list[Tensor]:
        heatmaps = nn.functional.avg_pool2d(image, 4)  # (B, 3, H/4, W/4)
        return [-heatmaps, heatmaps]


def photo_of(points: np.ndarray, size: tuple[int, int] = (180, 220)) -> np.ndarray:
    photo = np.zeros((*size, 3), np.float32)
    y, x = np.mgrid[: size[0], : size[1]]
    for channel, (px, py) in enumerate(points):
        photo[..., channel] = 255 * np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * 6.0**2))
    return photo.round().astype(np.uint8)


def estimator_for(**test: object) -> PoseEstimator:
    return PoseEstimator(DotFinder(), DOTS, DATA, InferenceConfig(**test))  # type: ignore[arg-type]


@pytest.mark.parametrize("scales", [(1.0,), MULTI_SCALE])
@pytest.mark.parametrize("flip", [True, False])
def test_whole_photo_as_one_person(flip: bool, scales: tuple[float, ...]) -> None:
    estimate = estimator_for(flip=flip, scales=scales)(photo_of(JOINTS))
    assert estimate.keypoints.shape == (1, 3, 2)
    # One heatmap pixel is 220 / 32 = 7 photo pixels; a quarter offset leaves less than half of it.
    np.testing.assert_allclose(estimate.keypoints[0], JOINTS, atol=3.5)
    assert (estimate.scores > 0.5).all()


@pytest.mark.parametrize("scales", [(1.0,), MULTI_SCALE])
def test_boxes_choose_the_person(scales: tuple[float, ...]) -> None:
    left, right = JOINTS * 0.4 + [5, 40], JOINTS * 0.4 + [120, 60]
    photo = np.maximum(photo_of(left), photo_of(right))
    boxes = [[points[:, 0].min() - 10, points[:, 1].min() - 10, 56, 56] for points in (left, right)]
    estimate = estimator_for(scales=scales)(photo, boxes)
    np.testing.assert_allclose(estimate.keypoints, [left, right], atol=2.5)


def test_multi_scale_is_exact_to_the_pixel_grid_of_the_photo() -> None:
    estimate = estimator_for(scales=MULTI_SCALE)(photo_of(JOINTS))
    np.testing.assert_array_equal(estimate.keypoints, estimate.keypoints.round())


def test_multi_scale_stays_inside_the_photo() -> None:
    corner = np.array([[0.0, 0.0], [219.0, 179.0], [219.0, 0.0]])
    points = estimator_for(scales=MULTI_SCALE)(photo_of(corner)).keypoints[0]
    assert (points >= 0).all()
    assert (points <= [219, 179]).all()
    np.testing.assert_allclose(points, corner, atol=5)


class Leaning(nn.Module):
    """Sees every dot one heatmap pixel too far right, whichever way the image is turned."""

    def __init__(self) -> None:
        super().__init__()
        self.finder = DotFinder()

    def forward(self, image: Tensor) -> list[Tensor]:
        return [self.finder(image)[-1].roll(1, -1)]


def test_the_flip_test_averages_a_lean_away() -> None:
    photo = photo_of(JOINTS)
    leaning = {flip: PoseEstimator(Leaning(), DOTS, DATA, InferenceConfig(flip=flip))(photo) for flip in (True, False)}
    shift = {flip: (estimate.keypoints[0] - JOINTS)[:, 0] for flip, estimate in leaning.items()}
    assert (shift[False] > 3.5).all()
    assert (np.abs(shift[True]) < 0.7 * shift[False]).all()


def test_the_flip_test_swaps_left_and_right() -> None:
    pair = Skeleton("pair", ("l_dot", "r_dot", "nose"), ((0, 1),), ((0, 1),))
    image = torch.from_numpy(photo_of(JOINTS)[:128, :128].transpose(2, 0, 1).copy())[None]
    plain = PoseEstimator(DotFinder(), pair, DATA, InferenceConfig(flip=False)).heatmaps(image)
    flipped = PoseEstimator(DotFinder(), pair, DATA, InferenceConfig(flip=True)).heatmaps(image)
    # The finder goes by colour, which a mirror does not swap: the swap mixes the two channels of the pair.
    torch.testing.assert_close(flipped[:, 0], (plain[:, 0] + plain[:, 1]) / 2)
    torch.testing.assert_close(flipped[:, 2], plain[:, 2])


@pytest.mark.parametrize("decoder", ["argmax", "quarter", "dark"])
def test_decoders_agree_to_a_heatmap_pixel(decoder: str) -> None:
    estimate = estimator_for(decoder=decoder)(photo_of(JOINTS))
    np.testing.assert_allclose(estimate.keypoints[0], JOINTS, atol=7)


def test_the_network_keeps_its_mode() -> None:
    for mode in (True, False):
        estimator = estimator_for()
        estimator.network.train(mode)
        estimator(photo_of(JOINTS))
        assert estimator.network.training is mode


def test_a_frozen_part_stays_in_its_mode() -> None:
    estimator = estimator_for()
    estimator.network.frozen = torch.nn.BatchNorm2d(3)
    estimator.network.train()
    estimator.network.frozen.eval()
    estimator(photo_of(JOINTS))
    assert estimator.network.training
    assert not estimator.network.frozen.training


def test_no_box_gives_no_person() -> None:
    estimate = estimator_for()(photo_of(JOINTS), [])
    assert len(estimate) == 0
    assert estimate.keypoints.shape == (0, 3, 2)


@pytest.mark.parametrize("box", [[0, 0, 0, 5], [0, 0, 5, -1], [0, float("nan"), 5, 5]])
def test_a_bad_box_is_refused(box: list[float]) -> None:
    with pytest.raises(ValueError, match="boxes: expected finite"):
        estimator_for()(photo_of(JOINTS), [box])


@pytest.mark.parametrize("photo", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32)])
def test_a_photo_of_another_kind_is_refused(photo: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"photo: expected uint8 \(H, W, 3\) RGB"):
        estimator_for()(photo)


def test_map_points_is_the_affine_map() -> None:
    affine = torch.tensor([[[2.0, 0.5, 1.0], [-1.0, 3.0, 4.0]]], dtype=torch.float64)
    found = estimation.map_points(torch.tensor([[[10.0, 20.0]]]), affine)
    torch.testing.assert_close(found, torch.tensor([[[31.0, 54.0]]]))


# ---- data sets and their metrics -------------------------------------------------------------------------------


@pytest.fixture
def make_source(tmp_path: Path) -> Callable[..., SimpleNamespace]:
    """Build a source of persons whose photographs show their joints as dots."""

    def build(name: str, split: str, skeleton: Skeleton = DOTS, count: int = 3) -> SimpleNamespace:
        persons = []
        for index in range(count):
            path = tmp_path / f"{name}{index}.png"
            joints = JOINTS + [4.0 * index, 2.0 * index]
            cv2.imwrite(str(path), photo_of(joints)[..., ::-1])
            center, labels = np.array([110.0, 90.0], np.float32), np.full(len(joints), 2, np.uint8)
            person = Person(path, joints.astype(np.float32), labels, center, 1.1, person_id=index)
            persons.append(person)
        return SimpleNamespace(name=name, split=split, skeleton=skeleton, persons=persons)

    return build


def test_run_source_finds_every_person(make_source: Callable[..., SimpleNamespace]) -> None:
    source = make_source("sample", "val")
    indices, estimate = estimator_for(scales=(0.9, 1.1)).run_source(source)
    assert indices.tolist() == [0, 1, 2]
    for index, person in enumerate(source.persons):
        np.testing.assert_allclose(estimate.keypoints[index], person.keypoints, atol=3.5)


def test_run_loader_equals_run_source(make_source: Callable[..., SimpleNamespace]) -> None:
    source = make_source("sample", "val")
    dataset = pose_data._dataset(source, DATA, 0, "none")
    loader = pose_data.data.create_loader(dataset, 2, shuffle=False)
    (indices, batched), (_, single) = estimator_for().run_loader(loader), estimator_for().run_source(source)
    assert indices.tolist() == [0, 1, 2]
    np.testing.assert_allclose(batched.keypoints, single.keypoints, atol=1e-3)


def test_promise_17_a_test_in_several_scales_leaves_out_what_cannot_be_read(
    make_source: Callable[..., SimpleNamespace], caplog: pytest.LogCaptureFixture
) -> None:
    source, estimator = make_source("sample", "val"), estimator_for(scales=(0.9, 1.1))
    whole = estimator.run_source(source)[1]
    source.persons[1].image.write_bytes(b"")
    with pytest.raises(ValueError, match=r"sample person 1: image .*1\.png: the file is empty"):
        estimator.run_source(source)
    indices, estimate = estimator.run_source(source, on_error="skip")
    assert indices.tolist() == [0, 2]
    np.testing.assert_array_equal(estimate.keypoints, whole.keypoints[[0, 2]])
    assert "1 of 3 samples are left out of this evaluation" in caplog.text


def test_an_empty_validation_set_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        estimator_for().run_loader([])


def full_source(name: str, split: str, skeleton_name: str, count: int = 4) -> SimpleNamespace:
    config = replace(DataConfig(), name=name)
    skeleton = pose_data.skeleton(config)
    assert skeleton.name == skeleton_name
    rng, persons = np.random.default_rng(0), []
    for index in range(count):
        points = rng.uniform(20, 200, (len(skeleton), 2)).astype(np.float32)
        box = np.array([10, 10, 200, 200], np.float32)
        person = Person(Path("absent.jpg"), points, np.full(len(skeleton), 2, np.uint8), box[:2], 1.0)
        persons.append(replace(person, bbox=box, area=9000.0, head_size=20.0, image_id=index))
    return SimpleNamespace(name=name, split=split, skeleton=skeleton, persons=persons)


CASES = [
    ("lsp", "test", "mpii", "lsp test PCK@0.2"),
    ("lspet", "val", "mpii", "lspet val PCK@0.2"),
    ("mpii", "val", "mpii", "mpii val PCKh@0.5"),
    ("coco", "val", "coco", "coco val PCK@0.2 (torso)"),
    ("sample", "val", "coco", "sample val PCK@0.2 (torso)"),
]


@pytest.mark.parametrize(("name", "split", "skeleton", "metric"), CASES)
def test_each_data_set_has_its_metric(name: str, split: str, skeleton: str, metric: str) -> None:
    source = full_source(name, split, skeleton)
    truth = np.stack([person.keypoints for person in source.persons])
    ones = np.ones(truth.shape[:2], np.float32)
    perfect = pose_scores.score(source, np.arange(4), Estimate(truth, ones))
    worst = pose_scores.score(source, np.arange(4), Estimate(truth + 1000, ones))
    assert perfect[0].name == worst[0].name == metric == pose_scores.monitor(name, split)
    assert (perfect[0].value, worst[0].value) == (100.0, 0.0)
    assert ("labelled joints only" in perfect[0].protocol) == (name == "lspet")


def test_coco_adds_average_precision() -> None:
    pytest.importorskip("faster_coco_eval", reason="OKS-AP needs the eval extra")
    source = full_source("coco", "val", "coco")
    truth = np.stack([person.keypoints for person in source.persons])
    results = pose_scores.score(source, np.arange(4), Estimate(truth, np.ones(truth.shape[:2], np.float32)))
    assert [result.name for result in results] == ["coco val PCK@0.2 (torso)", "coco val OKS-AP"]
    assert results[1].value == pytest.approx(100)


def test_a_person_that_comes_twice_counts_once() -> None:
    source = full_source("sample", "val", "coco")
    truth = np.stack([source.persons[index].keypoints for index in (2, 2, 0)])
    (result,) = pose_scores.score(source, np.array([2, 2, 0]), Estimate(truth, np.ones(truth.shape[:2], np.float32)))
    assert result.count == 2 * 17


def test_mpii_without_head_boxes_is_refused() -> None:
    source = full_source("mpii", "val", "mpii")
    source.persons[1] = replace(source.persons[1], head_size=None)
    truth = np.stack([person.keypoints for person in source.persons])
    with pytest.raises(ValueError, match="has no head box, so PCKh is undefined"):
        pose_scores.score(source, np.arange(4), Estimate(truth, np.ones(truth.shape[:2], np.float32)))


def test_heatmap_accuracy_counts_labelled_joints() -> None:
    heatmaps = torch.zeros(1, 3, 40, 40)
    heatmaps[0, 0, 10, 12] = heatmaps[0, 1, 5, 5] = heatmaps[0, 2, 0, 0] = 1
    keypoints = torch.tensor([[[12.6, 11.0], [20.0, 5.0], [30.0, 30.0]]])
    assert pose_scores.heatmap_accuracy(heatmaps, keypoints, torch.tensor([[1.0, 1, 0]])) == 0.5
    assert pose_scores.heatmap_accuracy(heatmaps, keypoints, torch.zeros(1, 3)) == 0


# ---- weights ---------------------------------------------------------------------------------------------------


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    recipe = configuration.load_recipe("sagan/tiny")
    torch.manual_seed(0)
    path = tmp_path / "best.safetensors"
    about = {"recipe": recipe.name, "system": recipe.system, "config": configuration.to_dict(recipe.config)}
    checkpoint.save_weights(path, sagan.build_generator(recipe.config), about)
    return path


def test_weights_know_their_network(weights: Path) -> None:
    estimator = PoseEstimator.from_weights(weights)
    assert estimator.skeleton.name == "coco"
    assert estimator.data.image_size == 64
    estimate = estimator(photo_of(JOINTS))
    assert estimate.keypoints.shape == (1, 17, 2)
    assert np.isfinite(estimate.keypoints).all()
    again = PoseEstimator.from_weights(weights)(photo_of(JOINTS))
    np.testing.assert_array_equal(again.keypoints, estimate.keypoints)


def test_the_test_options_can_be_chosen(weights: Path) -> None:
    assert PoseEstimator.from_weights(weights, test=InferenceConfig(flip=False)).test.flip is False


def test_weights_of_another_recipe_are_refused(weights: Path) -> None:
    with pytest.raises(ValueError, match="holds weights of recipe sagan/tiny, expected sagan/demo"):
        systems.load_network(weights, recipe="sagan/demo")


def test_weights_without_configuration_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    checkpoint.save_weights(path, {"weight": torch.zeros(1)}, {"recipe": "sagan/tiny"})
    with pytest.raises(ValueError, match="names no system and configuration"):
        systems.load_network(path)


def test_an_unknown_system_offers_the_nearest() -> None:
    with pytest.raises(ValueError, match="unknown system 'sagen'; did you mean 'sagan'"):
        systems.get("sagen")


def test_the_system_names_its_parts() -> None:
    system = systems.get("sagan")
    assert (system.config, system.trainer) == (sagan.SaganConfig, sagan.SaganTrainer)
    assert "sagan" in systems.names()
