"""Captions of one photograph against captions of two: encoders that know all, nothing, and the opposite."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastpose.metrics import text_separation

IMAGES = np.repeat(np.arange(100, 140), 5)  # 40 photographs with 5 captions each


def noise(size: int = 4, seed: int = 0, count: int = len(IMAGES)) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, size))


def test_an_encoder_that_knows_the_photograph():
    places = 1000.0 * (IMAGES - 100)[:, None] + noise(1)
    found = text_separation.separation(places, IMAGES, pairs=2000)
    assert found.same.shape == found.different.shape == (2000,)
    result = found.result()
    assert (result.value, result.details["drawn"], result.count) == (100, 100, 2000)
    assert result.details["same"] < 10 < 900 < result.details["different"]


def test_an_encoder_that_knows_nothing():
    assert text_separation.separation(noise(), IMAGES).result().value == pytest.approx(50, abs=1.5)
    constant = text_separation.separation(torch.ones(len(IMAGES), 3), IMAGES).result()
    assert (constant.value, constant.details["drawn"]) == (50, 50)  # ties count by halves


def test_an_encoder_that_turns_it_round():
    # the captions of a photograph are far apart, and equal to those of every other
    places = np.tile(np.eye(5), (40, 1))
    result = text_separation.separation(places, IMAGES, pairs=3000).result()
    assert result.details["same"] == pytest.approx(2**0.5)
    assert result.value == pytest.approx(40, abs=1.5)  # 1 in 5 captions of another photograph is equal, the others ties
    assert result.details["drawn"] < 50


def test_the_area_is_that_over_all_pairs_of_distances():
    found = text_separation.separation(noise(seed=3), IMAGES, pairs=300, seed=5)
    same, different = found.same[:, None], found.different[None]
    area = ((same < different).double() + (same == different).double() / 2).mean().item()
    assert found.result().value == pytest.approx(100 * area)


def test_pairs_are_what_they_are_called():
    # a vector tells its caption: 10 x photograph + caption; photographs of one caption are never "of one photograph"
    images = np.array([5, 1, 1, 1, 9, 5, 2])  # in no order
    known = text_separation.separation(np.array([[0.0], [100], [103], [109], [1000], [1], [5000]]), images, pairs=2000)
    assert set(known.same.tolist()) == {1, 3, 6, 9}
    assert {4000.0, 1000.0, 999.0} <= set(known.different.tolist())
    assert not set(known.different.tolist()) & {0, 1, 3, 6, 9}


def test_what_can_be_drawn():
    assert text_separation.separable(IMAGES)
    assert not any(text_separation.separable(images) for images in (np.arange(5), np.ones(5, int), np.zeros(0, int)))


def test_one_seed_one_draw():
    first, again, other = (text_separation.separation(noise(), IMAGES, pairs=50, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.same, again.same)
    assert torch.equal(first.different, again.different)
    assert not torch.equal(first.same, other.same)


@pytest.mark.parametrize(
    ("vectors", "images", "pairs", "error", "message"),
    [
        (np.zeros((3, 2)), [1, 1], 10, ValueError, r"vectors: expected \(2, T\), one per caption, got \(3, 2\)"),
        (np.zeros(2), [1, 1], 10, ValueError, r"vectors: expected \(2, T\)"),
        (np.full((4, 2), np.nan), [1, 1, 2, 2], 10, ValueError, "vectors: expected finite values"),
        (np.zeros((2, 2)), [1.0, 2.0], 10, ValueError, "images: expected whole numbers"),
        (np.zeros((2, 2)), [1, 1], 10, ValueError, "images: expected two or more photographs"),
        (np.zeros((2, 2)), [1, 2], 10, ValueError, "images: expected two or more photographs"),
        (np.zeros((0, 2)), np.zeros(0, int), 10, ValueError, "images: expected two or more photographs"),
        (np.zeros((3, 2)), [1, 1, 2], 0, ValueError, "pairs: expected 1 or more"),
        (np.array([["a"]]), [1], 10, TypeError, "vectors: expected numbers"),
    ],
)
def test_bad_arguments_are_one_sentence(vectors, images, pairs, error, message):
    with pytest.raises(error, match=message):
        text_separation.separation(vectors, images, pairs=pairs)
