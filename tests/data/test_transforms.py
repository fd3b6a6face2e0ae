"""Augmentation presets: ranges, shares, mirrored points; names that do not exist."""

from __future__ import annotations

import numpy as np
import pytest

from fastpose.data import transforms
from fastpose.data.geometry import View


def _views(name, count=4000):
    rng = np.random.default_rng(0)
    return [transforms.augmentation(name).sample(rng) for _ in range(count)]


@pytest.mark.parametrize(
    ("name", "low", "high", "degrees"),
    [
        ("sagan_paper", 0.75, 1.25, 30.0),
        ("sagan_released", 0.75, 1.25, 60.0),
        ("newell", 2**-0.5, 2**0.5, 60.0),
        ("zhou", 2**-0.5, 2**0.5, 60.0),
        ("pytorch_pose", 0.75, 1.25, 60.0),
    ],
)
def test_scale_and_rotation_fill_their_published_range(name, low, high, degrees):
    views = _views(name)
    scales, angles = np.array([view.scale for view in views]), np.array([view.rotation for view in views])
    assert low <= scales.min() < low + 0.02
    assert high - 0.02 < scales.max() <= high
    assert degrees - 3 < np.abs(angles).max() <= degrees


@pytest.mark.parametrize(
    ("name", "share"),
    [("sagan_paper", 1.0), ("sagan_released", 0.4), ("newell", 0.4), ("zhou", 0.4), ("pytorch_pose", 0.6)],
)
def test_share_of_rotated_samples(name, share):
    rotated = np.mean([view.rotation != 0 for view in _views(name)])
    assert abs(rotated - share) < 0.03


@pytest.mark.parametrize("name", tuple(transforms.AUGMENTATIONS))
def test_the_closest_view_is_the_smallest_scale(name):
    closest = min(view.scale for view in _views(name))
    assert closest * 0.99 < transforms.augmentation(name).closest <= closest


@pytest.mark.parametrize("name", tuple(transforms.AUGMENTATIONS))
def test_half_of_the_samples_are_mirrored(name):
    assert abs(np.mean([view.flip for view in _views(name)]) - 0.5) < 0.03


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("sagan_paper", 1.0, 1.0), ("sagan_released", 0.8, 1.2), ("newell", 0.6, 1.4), ("zhou", 0.6, 1.0)],
)
def test_colour_gain_range(name, low, high):
    gains = np.array([view.gain for view in _views(name, 500)])
    assert low <= gains.min() <= low + 0.01
    assert high - 0.01 <= gains.max() <= high


def test_none_is_no_augmentation():
    assert transforms.augmentation("none") is None


def test_unknown_names_offer_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'newell'"):
        transforms.augmentation("newel")
    with pytest.raises(ValueError, match="did you mean 'hg_sagan'"):
        transforms.crop("hg_sagn")


def test_gain_is_applied_per_channel_and_clipped():
    photo = np.full((8, 8, 3), 200, np.uint8)
    cut = transforms.crop("exact").cut(photo, np.array([3.5, 3.5]), 0.04, View(gain=(0.5, 1.0, 1.4)), (8, 8))
    assert cut[4, 4].tolist() == [100, 200, 255]


@pytest.mark.parametrize("name", tuple(transforms.CROPS))
def test_planes_are_the_cut_with_channels_first(name):
    photo = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    place = (photo, np.array([30.0, 25.0]), 0.3, View(1.1, 20.0, True, (0.7, 1.0, 1.3)), (64, 48))
    planes = transforms.crop(name).cut_planes(*place)
    assert planes.flags.c_contiguous
    assert np.array_equal(np.moveaxis(planes, 0, 2), transforms.crop(name).cut(*place))


@pytest.mark.parametrize("name", tuple(transforms.CROPS))
def test_a_mirrored_view_mirrors_image_and_points(name):
    photo = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    crop, center, points = transforms.crop(name), np.array([30.0, 30.0]), np.array([[12.0, 40.0], [33.0, 8.0]])
    plain, mirrored = View(), View(flip=True)
    image, flipped = (crop.cut(photo, center, 0.3, view, (64, 64)) for view in (plain, mirrored))
    assert (flipped == image[:, ::-1]).all()
    placed, _ = crop.place(points, center, 0.3, plain, (64, 64))
    moved, _ = crop.place(points, center, 0.3, mirrored, (64, 64))
    assert np.allclose(moved, np.stack([63 - placed[:, 0], placed[:, 1]], 1))


def test_exact_way_back_is_the_inverse_for_any_view():
    points = np.random.default_rng(0).uniform(0, 60, (20, 2))
    view = View(scale=0.8, rotation=-35.0, flip=True)
    placed, back = transforms.crop("exact").place(points, np.array([30.0, 25.0]), 0.3, view, (64, 48))
    assert np.allclose(placed @ back[:, :2].T + back[:, 2], points)


def test_inside_covers_the_area_of_the_border_pixels():
    points = np.array([[-0.5, 0.0], [-0.51, 0.0], [47.49, 63.49], [47.5, 0.0], [0.0, 63.5], [np.nan, 0.0]])
    assert transforms.inside(points, (64, 48)).tolist() == [True, False, True, False, False, False]
