"""Affine maps of crops: edges, centres, directions, inverses, and resampling."""

from __future__ import annotations

import numpy as np
import pytest

from fastpose.data import geometry
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


def test_a_box_just_fits_the_picture():
    for size in ((128, 64), (64, 128), (50, 50)):
        matrix = geometry.fit_matrix(np.array([10.0, 20.0, 30.0, 90.0]), 1.0, size)
        edges = np.array([[9.5, 19.5], [39.5, 109.5]]) @ matrix[:, :2].T + matrix[:, 2]
        spans = edges[1] - edges[0]
        assert np.isclose(max(spans[0] / size[1], spans[1] / size[0]), 1.0)
        assert np.allclose(edges.mean(0), [(size[1] - 1) / 2, (size[0] - 1) / 2])  # in the middle


def test_resizing_keeps_the_edges():
    matrix = geometry.resize_matrix((10, 20), (30, 5))
    corners = np.array([[-0.5, -0.5], [19.5, 9.5]]) @ matrix[:, :2].T + matrix[:, 2]
    assert np.allclose(corners, [[-0.5, -0.5], [4.5, 29.5]])


@pytest.mark.parametrize("fill", [0, 255])
@pytest.mark.parametrize("size", [(1, 1), (33, 40), (64, 48)])
def test_colours_are_resampled_one_by_one(fill, size):
    photo = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    matrix = exact_matrix(np.array([20.0, 30.0]), 55.0, 25.0, size)
    planes = [geometry.warp(np.ascontiguousarray(plane), matrix, size, fill=fill) for plane in np.moveaxis(photo, 2, 0)]
    assert np.array_equal(geometry.warp(photo, matrix, size, fill=fill), np.stack(planes, axis=2))


@pytest.mark.parametrize("channels", [1, 4])
def test_maps_of_other_channels_are_resampled_too(channels):
    planes = np.random.default_rng(0).integers(0, 256, (8, 9, channels), dtype=np.uint8)
    matrix = exact_matrix(np.array([4.0, 3.0]), 7.0, 25.0, (16, 16))
    expected = [geometry.warp(np.ascontiguousarray(plane), matrix, (16, 16)) for plane in np.moveaxis(planes, 2, 0)]
    assert np.array_equal(geometry.warp(planes, matrix, (16, 16)).reshape(16, 16, channels), np.stack(expected, axis=2))


@pytest.mark.parametrize(("right", "down"), [(0, 0), (3, -2), (-4, 5), (40, 0), (0, -99)])
def test_whole_pixels_are_copied_bit_by_bit(right, down):
    photo = np.random.default_rng(0).integers(0, 255, (20, 16, 3), dtype=np.uint8)
    matrix = np.array([[1.0, 0.0, right], [0.0, 1.0, down]])
    output = geometry.cut(photo, matrix, (22, 18), fill=255)
    for y, x in np.ndindex(22, 18):
        inside = 0 <= y - down < 20 and 0 <= x - right < 16
        assert (output[y, x] == (photo[y - down, x - right] if inside else 255)).all()


def test_labels_are_copied_from_the_nearest_pixel():
    labels = np.random.default_rng(0).choice(np.array([0, 7, 200], np.uint8), (20, 16))
    matrix = np.array([[1.7, 0.0, 0.3], [0.0, 0.6, 0.1]])
    output = geometry.cut(labels, matrix, (12, 27), fill=0, nearest=True)
    assert output.shape == (12, 27)
    assert set(np.unique(output)) <= {0, 7, 200}
