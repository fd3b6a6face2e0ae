"""Random cameras: ranges that cannot be, and what the others see of a pose."""

from __future__ import annotations

import numpy as np
import pytest

from fastpose.data.cameras import Cameras, look_at

POSE = np.random.default_rng(0).uniform(-900, 900, (1, 17, 3))  # a person's size, anywhere in the world


def seen(cameras, views=40, size=(200, 300)):
    return look_at(POSE, 1, views, (0, 1), cameras, size)


def test_cameras_turn_and_scale_but_never_mirror():
    world = POSE[0] - POSE[0].mean(0)
    for joints in seen(Cameras()).joints:
        there = (joints - joints.mean(0)).astype(np.float64)
        turn = np.linalg.lstsq(world, there, rcond=None)[0]
        scale = np.cbrt(np.linalg.det(turn))
        assert 0.9 <= scale <= 1.1
        assert np.abs(turn @ turn.T - scale**2 * np.eye(3)).max() < 1e-4


def test_a_view_depends_on_its_numbers_alone():
    few, many = seen(Cameras(), views=3), seen(Cameras(), views=5)
    assert np.array_equal(few.joints, many.joints[:3])
    assert np.array_equal(few.intrinsics, many.intrinsics[:3])
    assert many.view.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("ranges", [{}, {"fill": (0.8, 0.8), "shift": 0.1}, {"fill": (0.1, 1.0), "shift": 0.0}])
def test_the_person_is_in_the_picture(ranges):
    views = seen(Cameras(**ranges))
    points = np.einsum("nij,nkj->nki", views.intrinsics, views.joints)
    points = points[..., :2] / points[..., 2:]
    assert (points > 0).all()
    assert (points < (299, 199)).all()


@pytest.mark.parametrize(
    ("ranges", "words"),
    [
        ({"height": (-1, -1)}, "cameras.height: expected a positive number, got -1"),  # would swap left and right
        ({"fill": (2, 2)}, "cameras.fill, cameras.shift: expected a person within the picture .*, got 2 and 0.04"),
        ({"fill": (0.5, 1), "shift": 0.1}, "cameras.fill, cameras.shift: expected a person within the picture"),
        ({"fill": (0, 0)}, "cameras.fill: expected a positive number, got 0"),
        ({"fill": (float("nan"), 1)}, "cameras.fill: expected two finite numbers, the lower one first"),
        ({"fill": 0.5}, "cameras.fill: expected two finite numbers, the lower one first, got 0.5"),
        ({"distance": (7, 3)}, r"cameras.distance: expected two finite numbers, the lower one first, got \(7, 3\)"),
        ({"distance": (0, 3)}, "cameras.distance: expected a positive number, got 0"),
        ({"distance": ("3", "7")}, "cameras.distance: expected two finite numbers"),
        ({"elevation": (-95, 40)}, r"cameras.elevation: expected degrees between -90 and 90, got \(-95, 40\)"),
        ({"elevation": (0, 90)}, "cameras.elevation: expected degrees between -90 and 90"),
        ({"roll": -5}, "cameras.roll: expected a number from 0 to 180, got -5"),
        ({"roll": float("inf")}, "cameras.roll: expected a number from 0 to 180, got inf"),
        ({"shift": 0.6}, "cameras.shift: expected a number from 0 to 0.5, got 0.6"),
    ],
)
def test_cameras_that_cannot_be_are_one_sentence(ranges, words):
    with pytest.raises(ValueError, match=words) as error:
        Cameras(**ranges)
    assert "\n" not in str(error.value)
