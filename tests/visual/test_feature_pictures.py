"""Feature maps, what a step changes in them, and gates."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastpose.visual import features


def random_map(channels: int = 12, size: tuple[int, int] = (16, 8), seed: int = 0) -> torch.Tensor:
    return torch.randn(channels, *size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("mode", features.MODES)
def test_equal_maps_look_equal_and_the_shape_is_kept(mode):
    first, second, other = features.feature_pictures([random_map(), random_map(), random_map(seed=1)], mode=mode)
    assert first.shape == (224, 112, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_components_tell_two_regions_apart():
    maps = 0.01 * random_map()
    maps[3, :, 4:] += 5.0
    (picture,) = features.feature_pictures([maps], side=16)
    left, right = picture[:, :4, 0].astype(int), picture[:, 4:, 0].astype(int)
    assert left.max() < right.min() - 100


def test_energy_is_brightest_where_features_are_largest():
    maps = torch.zeros(4, 8, 8)
    maps[:, 2, 5] = -3.0
    (picture,) = features.feature_pictures([maps], mode="energy", side=8)
    assert np.unravel_index(picture.sum(2).argmax(), (8, 8)) == (2, 5)


@pytest.mark.parametrize("value", [torch.zeros(3, 4, 4), torch.full((3, 4, 4), float("nan")), torch.ones(1, 4, 4)])
@pytest.mark.parametrize("mode", features.MODES)
def test_maps_without_content_are_drawn(value, mode):
    (picture,) = features.feature_pictures([value], mode=mode)
    assert picture.shape == (224, 224, 3)


def test_before_after_has_a_row_per_stage():
    before = random_map()
    one = features.before_after({"block 1": (before, before + 1)})
    two = features.before_after({"block 1": (before, before + 1), "block 2": (before, before)})
    assert two.shape[1] == one.shape[1]
    assert two.shape[0] > 1.8 * one.shape[0]
    wide = features.before_after({"block 1": (before, before)}, image=np.zeros((32, 16, 3), np.uint8))
    assert wide.shape[1] > 1.2 * one.shape[1]


def test_a_change_of_nothing_is_dark_and_a_change_of_something_is_not():
    before = random_map()
    dark, noise, bright = (
        features.before_after({"b": (before, before + change)})[:, -100:-20]
        for change in (torch.zeros(1), 1e-9 * random_map(seed=1), 0.1 * random_map(seed=1))
    )
    assert np.array_equal(dark[40:200], noise[40:200])
    assert dark[60:180].max() < 30
    assert bright[60:180].max() > 200


def test_gates_show_their_scale():
    picture = features.gate_picture({"level 1": torch.full((4, 8, 8), 0.5)}, side=64)
    bar = picture[8:72, 80:144].astype(int).sum(2)
    column = bar[:, 32]  # the bar stands in the middle of its tile
    assert column[2] > 500 > 100 > column[61]


def test_a_gate_that_is_open_is_brighter_than_one_that_is_closed():
    half = torch.full((4, 8, 8), 0.1)
    half[:, :, 4:] = 0.9
    picture = features.gate_picture({"level 1": half}, side=64)
    closed, opened = picture[30, 8 + 10], picture[30, 8 + 50]
    assert opened.astype(int).sum() > closed.astype(int).sum() + 200


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: features.feature_pictures([random_map()], mode="mean"), "mode: expected one of components, energy"),
        (lambda: features.feature_pictures([]), "features: expected maps of as many channels"),
        (
            lambda: features.feature_pictures([random_map(3), random_map(4)]),
            "features: expected maps of as many channels",
        ),
        (lambda: features.feature_pictures([random_map()[0]]), r"features\[0\]: expected features \(C, h, w\)"),
        (lambda: features.before_after({}), "stages: expected at least one"),
        (lambda: features.before_after({"b": (random_map(), random_map(3))}), "b: expected two maps of one shape"),
    ],
)
def test_mistakes_are_named(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
