"""Affine maps of crops: edges, centres, directions, inverses, and resampling."""

from __future__ import annotations

import numpy as np
import pytest

from fastpose.data.geometry import View, cut_exact, exact_matrix, invert, mirror, move, warp_shrinking


def _apply(matrix, points):
    return np.asarray(points, dtype=float) @ matrix[:, :2].T + matrix[:, 2]


def test_the_edges_of_the_square_meet_the_edges_of_the_crop():
    matrix = exact_matrix(np.array([50.0, 40.0]), 20.0, 0.0, (64, 64))
    assert np.allclose(_apply(matrix, [[40, 30], [60, 50]]), [[-0.5, -0.5], [63.5, 63.5]])


def test_the_centre_stays_in_the_middle_under_rotation():
    matrix = exact_matrix(np.array([50.0, 40.0]), 20.0, 33.0, (64, 48))
    assert np.allclose(_apply(matrix, [[50, 40]]), [[23.5, 31.5]])


def test_positive_rotation_turns_the_picture_anticlockwise():
    matrix = exact_matrix(np.zeros(2), 64.0, 90.0, (64, 64))
    right_of_centre = _apply(matrix, [[10.0, 0.0]])[0] - 31.5
    assert np.allclose(right_of_centre, [0.0, -10.0])  # y down: it moves to the top


def test_heatmap_and_image_agree_on_every_point():
    center, points = np.array([50.0, 40.0]), np.random.default_rng(0).uniform(0, 90, (9, 2))
    image = _apply(exact_matrix(center, 70.0, 20.0, (256, 256)), points)
    heatmap = _apply(exact_matrix(center, 70.0, 20.0, (64, 64)), points)
    assert np.allclose(image, (heatmap + 0.5) * 4 - 0.5)


def test_invert_and_move_undo_each_other():
    matrix = exact_matrix(np.array([3.0, 4.0]), 20.0, 17.0, (64, 32))
    assert np.allclose(move(invert(matrix), matrix), np.eye(2, 3), atol=1e-12)


def test_mirror_keeps_the_middle():
    assert np.allclose(_apply(mirror((64, 48)), [[23.5, 7.0], [0.0, 1.0]]), [[23.5, 7.0], [47.0, 1.0]])


def test_an_unscaled_crop_copies_pixels():
    photo = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    cut = cut_exact(photo, np.array([29.5, 24.5]), 0.1, View(), (20, 20))
    assert (cut == photo[15:35, 20:40]).all()


def test_outside_of_the_photograph_is_black():
    photo = np.full((50, 60, 3), 255, np.uint8)
    cut = cut_exact(photo, np.array([-100.0, -100.0]), 0.1, View(), (20, 20))
    assert (cut == 0).all()


@pytest.mark.parametrize("side", [70.0, 150.0, 333.0, 690.0])
@pytest.mark.parametrize("rotation", [0.0, 40.0])
def test_a_ramp_stays_a_ramp_when_it_shrinks(side, rotation):
    """Shrinking in two steps must not move the picture: a grey ramp keeps its value at every point."""
    height = width = 1000
    ramp = np.repeat((np.arange(width) / 4.0)[None, :, None], height, 0).repeat(3, 2).astype(np.uint8)
    matrix = exact_matrix(np.array([500.0, 500.0]), side, rotation, (64, 64))
    cut = warp_shrinking(ramp, matrix, (64, 64))
    rows, columns = np.mgrid[4:60:7, 4:60:7]
    points = np.stack([columns.ravel(), rows.ravel()], 1)
    expected = _apply(invert(matrix), points)[:, 0] / 4.0 - 0.375  # mean loss of the integer ramp
    assert np.abs(cut[points[:, 1], points[:, 0], 0] - expected).max() < 1.2


def test_shrinking_averages_instead_of_aliasing():
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 255
    cut = cut_exact(stripes, np.array([255.5, 255.5]), 2.56, View(), (64, 64))
    assert cut[8:-8, 8:-8].min() > 100
    assert cut[8:-8, 8:-8].max() < 156
