"""Scores of generated images: perfect and worst generators, both directions, how images are stored, the judges."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastpose import models, skeletons
from fastpose.data import create_loader
from fastpose.metrics import generative
from fastpose.nn import backbones
from fastpose.training import transfer_data, transfer_scores
from fastpose.training.estimation import Estimate, PoseEstimator
from fastpose.training.transfer_data import TransferDataConfig
from fastpose.training.transfer_scores import ScoreConfig

DATA = TransferDataConfig(name="sample-pairs", height=64, width=32, validation_pairs=6)


def loader(batch_size=4):
    return create_loader(transfer_data.validation_dataset(DATA, seed=0), batch_size, shuffle=False, workers=0)


def perfect(inputs):
    return inputs.target


def copied(inputs):
    return inputs.source


def inverted(inputs):
    return -inputs.target


def scores_of(generate, batch_size=4, **options):
    found = transfer_scores.evaluate(generate, loader(batch_size), DATA, ScoreConfig(**options))
    return {result.name: result for result in found}


def test_a_perfect_generator():
    found = scores_of(perfect)
    assert list(found) == ["SSIM (PATN)", "L1", "PSNR", "mask-SSIM"]
    assert found["SSIM (PATN)"].value == pytest.approx(1)
    assert found["mask-SSIM"].value == pytest.approx(1)
    assert found["L1"].value == 0
    assert found["L1"].count == 6


def test_worse_generators_score_worse():
    best, middle, worst = (scores_of(generate)["SSIM (PATN)"].value for generate in (perfect, copied, inverted))
    assert best > middle > worst


def test_batches_do_not_matter():
    few, many = scores_of(copied, 2), scores_of(copied, 6)
    assert {name: result.value for name, result in few.items()} == {name: result.value for name, result in many.items()}


def test_both_directions_exchange_source_and_target():
    seen = []

    def remembered(inputs):
        seen.append(inputs)
        return inputs.source

    assert scores_of(remembered, both_directions=True)["L1"].count == 12
    assert torch.equal(seen[0].source, seen[1].target)
    assert torch.equal(seen[0].source_guide, seen[1].target_guide)


def test_stored_as_released_the_range_is_stretched():
    dark = lambda inputs: inputs.target * 0.5 - 0.5  # noqa: E731
    exact, stretched = scores_of(dark)["L1"].value, scores_of(dark, stored="minmax_jpeg")["L1"].value
    assert stretched < 0.1 < exact


def test_a_flat_image_can_be_stored():
    flat = torch.full((1, 3, 16, 16), 100, dtype=torch.uint8)
    assert transfer_scores._store(flat, "minmax_jpeg").float().std() < 1


def test_the_monitor_is_the_first_protocol():
    assert transfer_scores.monitor(DATA, ScoreConfig()) == "SSIM (PATN)"
    assert transfer_scores.monitor(DATA, ScoreConfig(protocols=("PSNR", "L1"))) == "PSNR"
    assert transfer_scores.monitor(TransferDataConfig(name="fonts"), ScoreConfig()) == "SSIM (7x7)"


@pytest.mark.parametrize("name", ["market", "deepfashion", "photos", "semantic", "fonts"])
def test_every_data_set_has_protocols(name):
    crop = "176" if name == "deepfashion" else "none"
    names = transfer_scores._protocol_names(TransferDataConfig(name=name, crop=crop), ScoreConfig())
    assert ("SSIM (PATN, padded)" in names) == (name == "deepfashion")
    assert len(names) == len(set(names)) >= 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"protocols": ("SSIM",)}, "unknown image protocol 'SSIM'"),
        ({"stored": "jpg"}, "test.stored"),
        ({"splits": 0}, "test.splits: expected 1 or more"),
    ],
)
def test_bad_values_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        ScoreConfig(**options)


def test_a_detector_gives_the_detection_score():
    found = transfer_scores.evaluate(
        perfect, loader(), DATA, ScoreConfig(), detector=lambda images: [[0.25, 0.75]] * len(images)
    )
    assert {result.name: result.value for result in found}["DS"] == 0.75


def test_joints_are_found_again(monkeypatch, tmp_path):
    """A pose network that knows the truth finds all joints; one that answers (0, 0) finds none."""
    network = models.create("sagan.generator.tiny", keypoints=18)
    estimator = PoseEstimator(network, skeletons.OPENPOSE, None)
    answers = list(loader(1))

    def knowing(photo):
        batch = answers.pop(0)
        return Estimate(batch["target_keypoints"].numpy(), batch["target_visibility"].numpy())

    monkeypatch.setattr(PoseEstimator, "from_weights", classmethod(lambda cls, path: estimator))
    monkeypatch.setattr(PoseEstimator, "__call__", lambda self, photo: knowing(photo))
    assert scores_of(perfect, pose_weights="W")["PCKh (transfer)"].value == 1
    nowhere = Estimate(np.full((1, 18, 2), -1e3, np.float32), np.ones((1, 18), np.float32))
    monkeypatch.setattr(PoseEstimator, "__call__", lambda self, photo: nowhere)
    assert scores_of(perfect, pose_weights="W")["PCKh (transfer)"].value == 0


def test_part_maps_have_no_joints_to_find():
    with pytest.raises(ValueError, match="'semantic' has no joints"):
        transfer_scores._found_again(TransferDataConfig(name="semantic"), ScoreConfig(pose_weights="W"))


def test_lpips_by_the_users_weights(tmp_path):
    torch.manual_seed(0)
    trunk = tmp_path / "squeeze.pth"
    torch.save(backbones.create("squeezenet1_1").state_dict(), trunk)
    assert scores_of(perfect, lpips_squeeze=str(trunk))["LPIPS (squeeze)"].value == pytest.approx(0, abs=1e-6)


def test_inception_by_the_users_weights(monkeypatch):
    """The judge itself is tested with the metric; here, that it sees generated images and targets."""
    monkeypatch.setattr(generative, "inception", lambda path: lambda images: (images.float().mean((2, 3)),) * 2)
    found = scores_of(perfect, inception="W", splits=2)
    assert found["FID"].value == pytest.approx(0, abs=1e-6)
    assert "consecutive" in found["IS"].protocol
    assert found["mask-IS"].value != found["IS"].value
    assert scores_of(inverted, inception="W", splits=2)["FID"].value > 1
