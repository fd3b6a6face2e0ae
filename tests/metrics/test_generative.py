"""Inception score and Frechet distance: torchmetrics, scipy, perfect and worst cases, streaming, errors."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from fastpose.metrics import GenerativeAccumulator
from fastpose.metrics.generative import FrechetDistance, InceptionScore, Moments, frechet, inception
from fastpose.nn import backbones

RNG = torch.Generator()


@pytest.fixture(autouse=True)
def _seeded():
    RNG.manual_seed(8)


def rows(count=40, width=6, scale=2.0):
    return torch.randn(count, width, generator=RNG) * scale


class Given(nn.Module):
    """A judge for torchmetrics that has seen the images already: its input is its answer."""

    num_features = 6

    def forward(self, features):
        return features


@pytest.fixture
def torchmetrics():
    """The generative metrics of torchmetrics, without its advice on memory."""
    pytest.importorskip("torchmetrics", reason="the eval extra is not installed")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Metric `InceptionScore` will save all extracted features")
        from torchmetrics.image.fid import FrechetInceptionDistance
        from torchmetrics.image.inception import InceptionScore as Theirs

        yield FrechetInceptionDistance, Theirs


# ----------------------------------------------------------------------------------------------------- inception score


def test_one_part_equals_torchmetrics(torchmetrics):
    logits = rows()
    theirs = torchmetrics[1](feature=Given(), splits=1)
    theirs.update(logits)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="std\\(\\): degrees of freedom")
        expected = theirs.compute()[0].item()
    ours = InceptionScore(splits=1)
    ours.update(logits)
    assert ours.result().value == pytest.approx(expected, rel=1e-5)


def test_consecutive_parts_equal_the_published_sum():
    from scipy.stats import entropy

    logits = rows(47, 9)
    chances = logits.double().softmax(1).numpy()
    scores = []
    for part in range(10):
        some = chances[part * 47 // 10 : (part + 1) * 47 // 10]
        scores.append(np.exp(np.mean([entropy(row, some.mean(0)) for row in some])))
    ours = InceptionScore(splits=10, total=47)
    for batch in logits.split(7):
        ours.update(batch)
    result = ours.result()
    assert result.value == pytest.approx(np.mean(scores), rel=1e-12)
    assert result.details["splits"] == pytest.approx(scores, rel=1e-12)
    assert result.details["std"] == pytest.approx(np.std(scores), rel=1e-9)
    assert "10 consecutive parts" in result.protocol


def test_parts_dealt_in_turn():
    logits = rows(23)
    ours = InceptionScore(splits=3)
    for batch in logits.split(5):
        ours.update(batch)
    whole = []
    for part in range(3):
        alone = InceptionScore(splits=1)
        alone.update(logits[part::3])
        whole.append(alone.result().value)
    assert ours.result().details["splits"] == pytest.approx(whole, rel=1e-12)
    assert "3 parts dealt in turn" in ours.result().protocol


def test_a_perfect_and_a_worst_score():
    sure = torch.eye(8).repeat(5, 1) * 1e4  # every class equally often, without a doubt
    perfect = InceptionScore(splits=1)
    perfect.update(sure)
    assert perfect.result().value == pytest.approx(8.0)
    for same in (sure[:1].expand(40, 8), torch.zeros(40, 8), rows(1).expand(40, 6)):
        worst = InceptionScore(splits=1)
        worst.update(same)
        assert worst.result().value == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("total", [0, 31])
def test_merged_scores_equal_one_pass(total):
    logits = rows(31)
    whole, first, second = (InceptionScore(splits=4, total=total) for _ in range(3))
    whole.update(logits)
    index = torch.arange(31)
    first.update(logits[::2], index[::2])
    second.update(logits[1::2], index[1::2])
    first.merge(second)
    assert first.result().value == pytest.approx(whole.result().value, rel=1e-13)
    empty = InceptionScore(splits=4, total=total)
    empty.merge(first)
    assert empty.result() == first.result()


def test_scores_are_held_to_their_arguments():
    with pytest.raises(ValueError, match="splits: expected 1 or more, got 0"):
        InceptionScore(0)
    with pytest.raises(ValueError, match=r"total: expected 0 .* or at least 10 images for 10 splits, got 9"):
        InceptionScore(10, total=9)
    score = InceptionScore(splits=3)
    with pytest.raises(ValueError, match="IS: expected at least one image for each of 3 splits, got 0 images"):
        score.result()
    score.update(rows(2))
    before = score._classes.clone()
    for logits, error, words in (
        (rows(2, 5), ValueError, "logits: expected 6 classes as before, got 5"),
        (rows(2)[0], ValueError, r"logits: expected \(B, D\), got \(6,\)"),
        (rows(2).long(), TypeError, "logits: expected a floating-point tensor"),
        ([[1.0]], TypeError, "got list"),
        (rows(2) * torch.nan, ValueError, "logits: expected finite values"),
    ):
        with pytest.raises(error, match=words):
            score.update(logits)
    assert torch.equal(score._classes, before)
    with pytest.raises(ValueError, match="for each of 3 splits, got 2 images; take fewer splits"):
        score.result()
    with pytest.raises(ValueError, match=r"index: expected \(2,\)"):
        score.update(rows(2), torch.arange(3))
    with pytest.raises(TypeError, match=r"index: expected whole numbers, got torch.float32"):
        score.update(rows(2), torch.rand(2))
    with pytest.raises(ValueError, match="merge: expected"):
        score.merge(InceptionScore(splits=2))
    narrow = InceptionScore(splits=3)
    narrow.update(rows(2, 5))
    with pytest.raises(ValueError, match=r"merge: expected scores of one number of classes, got \[5, 6\]"):
        score.merge(narrow)


def test_a_total_is_held_to_its_word():
    score = InceptionScore(splits=2, total=6)
    score.update(rows(5))
    with pytest.raises(ValueError, match="expected 6 images as total says, got 5"):
        score.result()
    with pytest.raises(ValueError, match=r"index: expected 0\.\.5, got"):
        score.update(rows(2))


# ---------------------------------------------------------------------------------------------------- Frechet distance


def test_the_distance_equals_torchmetrics(torchmetrics):
    generated, target = rows(50) + 0.3, rows(60, scale=1.0)
    theirs = torchmetrics[0](feature=Given(), normalize=True)
    theirs.set_dtype(torch.float64)
    theirs.update(target.double(), real=True)
    theirs.update(generated.double(), real=False)
    ours = FrechetDistance("given features")
    ours.update(generated, target)
    result = ours.result()
    assert result.value == pytest.approx(theirs.compute().item(), rel=1e-6)
    assert (result.name, result.count, result.details) == ("FID", 50, {"targets": 60})
    assert "by given features" in result.protocol


def test_the_distance_equals_the_matrix_root_of_scipy():
    from scipy.linalg import sqrtm

    first, second = rows(50).double().numpy(), rows(70, scale=0.5).double().numpy() + 1
    covariances = np.cov(first.T), np.cov(second.T)
    root = np.trace(sqrtm(covariances[0] @ covariances[1])).real
    expected = ((first.mean(0) - second.mean(0)) ** 2).sum() + sum(map(np.trace, covariances)) - 2 * root
    ours = FrechetDistance()
    ours.update(torch.from_numpy(first), torch.from_numpy(second))
    assert ours.result().value == pytest.approx(expected, rel=1e-10)


def test_gaussians_apart_have_the_known_distance():
    one, zero = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    assert frechet(zero, one, zero + 2, one) == pytest.approx(12.0)
    assert frechet(zero, one, zero, 9 * one) == pytest.approx(3 * (3 - 1) ** 2)
    assert frechet(zero, one * 0, zero, one) == pytest.approx(3.0)
    assert frechet(zero, one * 0, zero + 1, one * 0) == pytest.approx(3.0)


@pytest.mark.parametrize("count", [100, 5, 2])
def test_equal_images_are_at_no_distance_even_when_they_are_few(count):
    features = rows(count, 12)
    ours = FrechetDistance()
    ours.update(features, features.flip(0))
    assert ours.result().value == pytest.approx(0.0, abs=1e-11)


def test_the_distance_grows_with_the_difference():
    target = rows(200)
    values = []
    for step in (0.0, 0.5, 5.0):
        ours = FrechetDistance()
        ours.update(target.flip(0) + step, target)
        values.append(ours.result().value)
    assert values[0] < values[1] < values[2]
    assert values[2] == pytest.approx(25 * 6)


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_streams_and_merges_of_moments_lose_no_digits(offset):
    features = rows(41).double() + offset
    whole = np.cov(features.numpy().T)
    streams = [Moments() for _ in range(3)]
    for index, batch in enumerate(features.split(4)):
        streams[index % 2].add(batch)
    streams[2].merge(streams[0])
    streams[2].merge(streams[1])
    streams[2].merge(Moments())
    streams[2].add(features[:0])
    mean, covariance = streams[2].gaussian()
    assert streams[2].count == 41
    torch.testing.assert_close(mean, features.mean(0), rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(covariance.numpy(), whole, rtol=1e-9, atol=1e-9)


def test_merged_distances_equal_one_pass():
    generated, target = rows(20), rows(30)
    whole, first, second = (FrechetDistance() for _ in range(3))
    whole.update(generated, target)
    first.update(generated[:7], target[:20])
    second.update(generated=generated[7:])
    second.update(target=target[20:])
    first.merge(second)
    assert first.result().value == pytest.approx(whole.result().value, rel=1e-12)
    with pytest.raises(ValueError, match="merge: expected"):
        first.merge(FrechetDistance("another judge"))


def test_distances_are_held_to_their_arguments():
    ours = FrechetDistance()
    with pytest.raises(ValueError, match="FID: expected at least 2 images of each kind, got 0"):
        ours.result()
    ours.update(rows(5), rows(1))
    with pytest.raises(ValueError, match="FID: expected at least 2 images of each kind, got 1"):
        ours.result()
    with pytest.raises(ValueError, match=r"features: expected rows of one length, got lengths \[5, 6\]"):
        ours.update(rows(5, 5))
    with pytest.raises(ValueError, match=r"target: expected finite values"):
        ours.update(rows(5), rows(5) / 0)
    with pytest.raises(TypeError, match="generated: expected a floating-point tensor"):
        ours.update(rows(5).to(torch.uint8))
    assert ours._generated.count == 5
    ours.reset()
    with pytest.raises(ValueError, match="got 0"):
        ours.result()


# ------------------------------------------------------------------------------------------------------------ together


def colours(images):
    """A judge by colour: mean and spread as features, the mean of each channel as logits."""
    flat = images.float().flatten(2)
    return torch.cat((flat.mean(2), flat.std(2)), dim=1), flat.mean(2) / 20


def pictures(count=12):
    return torch.randint(0, 256, (count, 3, 8, 8), generator=RNG).to(torch.uint8)


def test_one_look_serves_both():
    generated, target = pictures(), pictures()
    before = generated.clone(), target.clone()
    whole = GenerativeAccumulator(colours, splits=2, judge="colours")
    for batch in zip(generated.split(5), target.split(5), strict=True):
        whole.update(*batch)
    score, distance = whole.results()
    assert (score.name, distance.name, score.count, distance.count) == ("IS", "FID", 12, 12)
    assert all("by colours" in result.protocol for result in (score, distance))
    expected = FrechetDistance()
    expected.update(colours(generated)[0], colours(target)[0])
    assert distance.value == pytest.approx(expected.result().value, rel=1e-9)
    other = GenerativeAccumulator(colours, splits=2, judge="colours")
    other.update(generated, target)
    other.merge(whole)
    assert other.results()[0].count == 24
    assert torch.equal(generated, before[0])
    assert torch.equal(target, before[1])


def test_without_targets_there_is_no_distance():
    alone = GenerativeAccumulator(colours, splits=1)
    alone.update(pictures())
    assert [result.name for result in alone.results()] == ["IS"]
    alone.all_reduce()
    alone.reset()
    with pytest.raises(ValueError, match="got 0 images"):
        alone.results()
    with pytest.raises(TypeError, match="generated: expected uint8 images"):
        alone.update(pictures().float())


def test_inception_sees_resized_images(monkeypatch):
    torch.manual_seed(0)
    network = backbones.create("inception_v3").eval()
    look = inception(network, block=1)
    images = pictures(2)
    monkeypatch.setattr("fastpose.metrics.generative._SIDE", 75)  # a quarter of the work
    features, logits = look(images)
    assert (features.shape, logits.shape) == ((2, 2048), (2, 1000))
    big = nn.functional.interpolate(images.float() / 127.5 - 1, size=75, mode="bilinear", align_corners=False)
    with torch.no_grad():
        torch.testing.assert_close(logits, network(big), rtol=1e-3, atol=1e-3 * logits.abs().max().item())
    assert [tensor.shape for tensor in look(images[:0])] == [(0, 2048), (0, 1000)]


def test_inception_is_a_whole_one(tmp_path):
    torch.save(backbones.create("squeezenet1_1").state_dict(), tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"weights of inception_v3: .* another network"):
        inception(tmp_path / "other.pth")
    with pytest.raises(FileNotFoundError, match=r"weights of inception_v3: .* is no file"):
        inception(tmp_path / "none.pth")
    with torch.device("meta"):
        headless = backbones.create("inception_v3", head=False)
    with pytest.raises(ValueError, match="expected an inception_v3 with head=True and transform_input=False"):
        inception(headless)
    with pytest.raises(ValueError, match="block: expected 1 or more images, got 0"):
        inception(headless, block=0)
