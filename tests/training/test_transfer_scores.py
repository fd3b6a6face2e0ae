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


def test_what_is_stored_is_stretched_before_it_is_rounded():
    faint = (torch.linspace(-0.01, 0.01, 64).view(1, 1, 8, 8).repeat_interleave(4, 2).repeat_interleave(4, 3)).repeat(
        1, 3, 1, 1
    )
    wide = faint * 100
    assert len(transfer_data.to_bytes(faint).unique()) <= 4  # rounded first, almost nothing would be left
    assert torch.equal(transfer_scores._store(faint, "minmax_jpeg"), transfer_scores._store(wide, "minmax_jpeg"))
    assert len(transfer_scores._store(faint, "minmax_jpeg").unique()) > 40


def test_photographs_are_stored_like_what_is_generated():
    photographs = torch.randint(30, 200, (2, 3, 16, 16), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    same = transfer_data.to_network(photographs)
    for mode in transfer_scores.STORED:
        stored = transfer_scores._store(same, mode)
        assert stored.dtype == torch.uint8
        assert torch.equal(stored, transfer_scores._store(photographs, mode))
    assert torch.equal(transfer_scores._store(photographs, "png"), photographs)


def test_any_result_can_be_the_monitor():
    files = {"lpips_vgg": "V", "inception": "I", "pose_weights": "W", "detector": "a:b"}
    for name in ("PSNR", "mask-SSIM", "LPIPS (vgg)", "IS", "FID", "mask-IS", "PCKh (transfer)", "DS"):
        assert transfer_scores.monitor(DATA, ScoreConfig(monitor=name, **files)) == name


@pytest.mark.parametrize("name", ["LPIPS (vgg)", "FID", "mask-IS", "PCKh (transfer)", "DS", "SSIM"])
def test_a_monitor_that_is_not_measured_is_refused(name):
    with pytest.raises(ValueError, match=r"test\.monitor: expected one of SSIM \(PATN\), L1, PSNR, mask-SSIM, got"):
        transfer_scores.monitor(DATA, ScoreConfig(monitor=name))
    with pytest.raises(ValueError, match=r"got 'LPIPS \(vg\)'; did you mean 'LPIPS \(vgg\)'"):
        transfer_scores.monitor(DATA, ScoreConfig(monitor="LPIPS (vg)", lpips_vgg="V"))


def test_the_names_are_those_of_the_results(monkeypatch, tmp_path):
    torch.manual_seed(0)
    trunk = tmp_path / "squeeze.pth"
    torch.save(backbones.create("squeezenet1_1").state_dict(), trunk)
    monkeypatch.setattr(generative, "inception", lambda path: colours)
    monkeypatch.setattr(transfer_scores, "_detector", lambda name: lambda images: [[0.5]] * len(images))
    scores = ScoreConfig(lpips_squeeze=str(trunk), inception="W", splits=2, detector="a:b")
    found = transfer_scores.evaluate(copied, loader(), DATA, scores)
    assert tuple(result.name for result in found) == transfer_scores._result_names(DATA, scores)


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
        ({"detector": "persons"}, "test.detector: expected module:function, got 'persons'"),
        ({"detector": "my module:see"}, "test.detector: expected module:function"),
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


def test_a_detector_is_imported_by_name(monkeypatch, tmp_path):
    (tmp_path / "my_judge.py").write_text("PERSONS = 3\ndef see(images):\n    return [[0.5]] * len(images)\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = scores_of(perfect, detector="my_judge:see")["DS"]
    assert (found.value, found.count) == (0.5, 6)
    assert "by my_judge:see" in found.protocol
    for name, words in (
        ("my_judge:sea", r"'my_judge:sea' cannot be imported \(module 'my_judge' has no attribute 'sea'\); name a"),
        ("my_jugde:see", r"'my_jugde:see' cannot be imported \(No module named 'my_jugde'\)"),
        ("my_judge:PERSONS", "expected a function, 'my_judge:PERSONS' is int"),
    ):
        with pytest.raises(ValueError, match=rf"^test\.detector: {words}"):
            scores_of(perfect, detector=name)


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


def colours(images):
    """A judge whose features and logits are the colours of the four quarters."""
    quarters = torch.nn.functional.adaptive_avg_pool2d(images.float() / 32, 2).flatten(1)
    return quarters, quarters


def shaded(inputs):
    """Darker to the right: of a pair that is a person and its mirror image, the directions differ."""
    return inputs.source * torch.linspace(1, 0, inputs.source.shape[-1]) - torch.linspace(0, 1, inputs.source.shape[-1])


def way(reversed_, options):
    """The scores of one direction alone."""
    batches = loader()
    views = [transfer_scores._reversed(batch) if reversed_ else batch for batch in batches]
    given = type("Loader", (), {"dataset": batches.dataset, "__iter__": lambda self: iter(views)})()
    return {result.name: result for result in transfer_scores.evaluate(shaded, given, DATA, ScoreConfig(**options))}


def test_sets_of_images_are_judged_in_each_direction_by_itself(monkeypatch):
    monkeypatch.setattr(generative, "inception", lambda path: colours)
    options = {"inception": "W", "splits": 2}
    there, back = way(False, options), way(True, options)
    few, many = (scores_of(shaded, size, both_directions=True, **options) for size in (1, 6))
    for name in ("IS", "FID", "mask-IS"):
        assert there[name].value != pytest.approx(back[name].value, rel=1e-6)
        assert many[name].value == pytest.approx((there[name].value + back[name].value) / 2)
        assert few[name].value == pytest.approx(many[name].value)
        assert many[name].protocol == there[name].protocol + "; mean of the scores of both directions"
        assert many[name].count == 12
        both = [direction["value"] for direction in many[name].details["directions"]]
        assert both == pytest.approx([there[name].value, back[name].value])
    assert many["L1"].value == pytest.approx((there["L1"].value + back["L1"].value) / 2)


def test_inception_by_the_users_weights(monkeypatch):
    """The judge itself is tested with the metric; here, that it sees generated images and targets."""
    monkeypatch.setattr(generative, "inception", lambda path: lambda images: (images.float().mean((2, 3)),) * 2)
    found = scores_of(perfect, inception="W", splits=2)
    assert found["FID"].value == pytest.approx(0, abs=1e-6)
    assert "consecutive" in found["IS"].protocol
    assert found["mask-IS"].value != found["IS"].value
    assert scores_of(inverted, inception="W", splits=2)["FID"].value > 1
