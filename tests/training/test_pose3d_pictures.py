"""Pictures of a 3D pose network: rows of persons of both domains, with the truth where it is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fastpose.data import pose3d
from fastpose.data.keypoint_dataset import KeypointDataset
from fastpose.data.mixing import MixedDataset
from fastpose.data.person import Person, person
from fastpose.skeletons import MPII
from fastpose.training import pose3d_pictures
from fastpose.training.pose3d_data import Pose3dDataConfig
from fastpose.training.pose3d_estimation import Pose3dEstimator
from fastpose.training.pose3d_reference import reference
from fastpose.training.pose3d_scores import Pose3dScoreConfig

DATA = Pose3dDataConfig(name="sample-mocap", image_size=64, mean=(0.0, 0.0, 0.0))


class Guess(nn.Module):
    """Any image -> joints on a line, all at depth 0."""

    def forward(self, image: Tensor) -> tuple[list[Tensor], Tensor]:
        planes = torch.eye(16)[:, :, None].expand(16, 16, 16) * torch.eye(16)[3]
        return [planes.expand(len(image), -1, -1, -1)], torch.zeros(len(image), 16)


class Rendered:
    """Persons whose photographs are made; with 3D truth, or without."""

    split, skeleton = "val", MPII

    def __init__(self, name: str, count: int, *, truth: bool) -> None:
        self.name, rng = name, np.random.default_rng(count)
        joints = rng.normal(0, 300, (count, 16, 3)) + [0, 0, 4000]
        camera = np.array([[60.0, 0, 40], [0, 60, 40], [0, 0, 1]])
        self.persons = [
            person(
                Path(f"{index}.png"),
                pose3d.project(pose, camera),
                np.full(16, 2),
                np.array([40.0, 40.0]),
                0.2,
                pose3d=pose3d.Pose3D(pose.astype(np.float32), camera) if truth else None,
            )
            for index, pose in enumerate(joints)
        ]

    def photo(self, index: int) -> np.ndarray:
        return np.full((80, 80, 3), 20 * index, np.uint8)


def dataset(name: str, count: int, *, truth: bool) -> KeypointDataset:
    source = Rendered(name, count, truth=truth)
    return KeypointDataset(source, image_size=(64, 64), heatmap_size=(16, 16), depth=pose3d.DepthRule())


@pytest.fixture
def estimator() -> Pose3dEstimator:
    return Pose3dEstimator(Guess(), DATA, Pose3dScoreConfig(flip=False, bone_sum=4000))


def test_both_domains_are_shown(estimator):
    laboratory, wild = dataset("mocap", 5, truth=True), dataset("lsp", 2, truth=False)
    pictures = pose3d_pictures.samples(estimator, MixedDataset([laboratory, wild, dataset("coco", 1, truth=False)]))
    assert set(pictures) == {"poses", "wild", "heatmaps", "descriptor"}
    assert all(picture.dtype == np.uint8 and picture.shape[2] == 3 for picture in pictures.values())
    rows = (pictures["poses"].shape[0] / pictures["wild"].shape[0]) ** -1
    assert rows == pytest.approx(3 / 4, abs=0.03)  # four of five persons, and all three


def test_photographs_alone_are_shown_and_one_set_needs_no_parts(estimator):
    pictures = pose3d_pictures.samples(estimator, dataset("lsp", 1, truth=False), persons=3)
    assert set(pictures) == {"wild", "heatmaps", "descriptor"}


@pytest.fixture
def written(monkeypatch) -> list[str]:
    """The captions of all rows of panels."""
    from fastpose.visual import transfer

    written: list[str] = []
    whole = transfer.panels

    def panels(rows, titles, *, captions=None, **options):
        written.extend(captions or ())
        return whole(rows, titles, captions=captions, **options)

    monkeypatch.setattr(transfer, "panels", panels)
    return written


def guessed() -> np.ndarray:
    """Return the joints in mm that `Guess` sees in every photograph."""
    guess = np.zeros((16, 3))
    guess[:, 1] = np.arange(16)
    guess *= 4000 / pose3d.bone_sum(guess)
    return guess - guess[6]


def test_the_error_is_that_of_the_pose_in_the_assumed_size(estimator, written):
    one = dataset("mocap", 1, truth=True)
    pose3d_pictures.samples(estimator, one)
    true = one.source.persons[0].pose3d.joints
    error = np.linalg.norm(guessed() - (true - true[6]), axis=1).mean()
    assert written == [f"mocap val, person 0: {error:.0f} mm off, pelvis on pelvis, bones of 4,000 mm together"]


def without(one: Person, joints: list[int]) -> Person:
    """Return a person some of whose joints have no label and lie anywhere."""
    pose, visibility = one.pose3d.joints.copy(), one.visibility.copy()
    pose[joints], visibility[joints] = 1e6, 0
    return replace(one, pose3d=replace(one.pose3d, joints=pose), visibility=visibility)


def test_the_assumed_size_is_that_of_the_evaluation(written):
    """Where the configuration names none, the training set's mean."""
    estimator = Pose3dEstimator(Guess(), DATA, Pose3dScoreConfig(flip=False))
    pose3d_pictures.samples(estimator, dataset("mocap", 1, truth=True))
    assert f"bones of {reference(DATA).bone_sum:,.0f} mm together" in written[0]
    assert estimator.test.bone_sum == 0


def test_joints_without_label_are_no_error(estimator, written):
    one = dataset("mocap", 2, truth=True)
    one.source.persons = [without(*pair) for pair in zip(one.source.persons, ([0, 9], [6]), strict=True)]
    pictures = pose3d_pictures.samples(estimator, one)
    true = one.source.persons[0].pose3d.joints
    error = np.linalg.norm(guessed() - (true - true[6]), axis=1)[[*range(1, 9), *range(10, 16)]].mean()
    bones = "bones of 4,000 mm together"
    assert written == [
        f"mocap val, person 0: {error:.0f} mm off, pelvis on pelvis, {bones}",
        f"mocap val, person 1: its pelvis has no label, {bones}",
    ]
    assert pictures["poses"].shape[2] == 3


def test_a_photograph_and_its_film(estimator, monkeypatch):
    monkeypatch.setattr(pose3d_pictures, "FRAMES", 4)
    photo = np.full((30, 50, 3), 120, np.uint8)
    cube = np.random.default_rng(0).uniform(-1, 1, (1, 16, 3)).astype(np.float32)
    estimate = replace(estimator(photo), cube=cube)
    assert pose3d_pictures.portrait(photo, estimate, estimator).shape[1] > 4 * 360
    film = pose3d_pictures.film(photo, estimate, estimator)
    assert len(film) == 4
    assert {frame.shape for frame in film} == {film[0].shape}
    assert np.array_equal(film[0][:, :100], film[2][:, :100])  # the photograph stands still
    assert not np.array_equal(film[0], film[2])


def test_a_set_without_persons_to_compare_with_stays_unbroken(estimator):
    empty = SimpleNamespace(parts=())
    assert pose3d_pictures.samples(estimator, empty) == {}
