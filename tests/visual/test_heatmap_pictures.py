"""Heatmap and attention grids, and plain grids."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastpose.skeletons import COCO, LSP
from fastpose.visual.grids import grid, save_image
from fastpose.visual.heatmaps import attention_grid, heatmap_grid, overlay

IMAGE = np.random.default_rng(0).integers(60, 90, (128, 96, 3), dtype=np.uint8)


def blob(x, y, size=(32, 24)):
    rows, columns = np.mgrid[: size[0], : size[1]]
    return np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 4)


def test_overlay_glows_at_the_peak_and_keeps_the_rest_dark():
    before = IMAGE.copy()
    shown = overlay(IMAGE, blob(6, 8))
    assert np.array_equal(IMAGE, before)
    assert shown.shape == IMAGE.shape
    assert shown[34, 26].max() > 200  # cell (6, 8) of 24 x 32 lies at (25.5, 33.5) of 96 x 128
    assert shown[100, 80].max() < 90


@pytest.mark.parametrize("values", [np.zeros((4, 4)), np.full((4, 4), np.nan), np.full((4, 4), -3.0)])
def test_overlay_of_nothing_is_the_dark_image(values):
    assert overlay(IMAGE, values).max() < 90


def test_heatmap_grid_has_a_tile_per_joint_and_one_for_the_image():
    maps = torch.stack([torch.from_numpy(blob(5 + joint, 10)) for joint in range(14)])
    shown = heatmap_grid(IMAGE, maps, LSP, columns=5, tile=128)
    line = 1.9 * 10
    assert shown.shape == (3 * (128 + round(line) + 8) + 8, 5 * (96 + 8) + 8, 3)
    assert shown.dtype == np.uint8


def test_heatmap_grid_does_not_show_an_empty_plane_as_a_find():
    maps = np.stack([blob(5, 10)] * 14)
    maps[13] = 0.02 * blob(20, 20)
    shown = heatmap_grid(IMAGE, maps, LSP, columns=15, tile=128)
    found, empty = shown[8:136, 8 + 104 : 8 + 200], shown[8:136, -104:-8]
    assert found.max() > 200
    assert empty.max() < 100


def test_heatmap_grid_survives_planes_that_are_not_finite():
    maps = np.stack([blob(5, 10)] * 14)
    maps[3], maps[4] = np.nan, np.inf
    assert heatmap_grid(IMAGE, maps, LSP).shape[2] == 3


def test_attention_positions_as_cells_and_as_indices_agree():
    rows = np.stack([blob(5, 10), blob(20, 30)])
    by_cell = attention_grid(IMAGE, rows, [(3, 4), (20, 9)])
    assert np.array_equal(by_cell, attention_grid(IMAGE, torch.from_numpy(rows), torch.tensor([99, 236])))
    plain = grid([overlay(IMAGE, row) for row in rows], 2)
    assert by_cell.shape[1] > plain.shape[1]  # tiles of 256 by default


def test_attention_marks_the_query():
    rows = np.zeros((1, 8, 8))
    shown = attention_grid(np.zeros((64, 64, 3), np.uint8), rows, [(6, 1)], tile=64, captions=[""])
    bright = np.argwhere(shown[8:72, 8:72].min(-1) > 200)  # the white ring
    assert bright.mean(0) == pytest.approx([11.5, 51.5], abs=1)


def test_attention_has_room_for_a_heading_and_a_first_picture():
    rows = np.random.default_rng(0).random((2, 8, 8))
    plain = attention_grid(IMAGE, rows, [(1, 2), (3, 4)], captions=["a", "b"], columns=3)
    red = np.zeros((64, 64, 3), np.uint8)
    red[..., 0] = 255
    more = {"heading": "block 1, self-attention", "first": (red, "target pose")}
    shown = attention_grid(IMAGE, rows, [(1, 2), (3, 4)], captions=["a", "b"], columns=3, **more)
    added = shown.shape[0] - plain.shape[0]
    assert added > 20
    assert shown[:added].min() < 100  # ink
    assert shown[added + plain.shape[0] // 2, shown.shape[1] // 6].tolist() == [255, 0, 0]


def test_heatmap_errors():
    with pytest.raises(ValueError, match=r"heatmaps: expected \(17, h, w\) for skeleton coco, got \(14, 32, 24\)"):
        heatmap_grid(IMAGE, np.zeros((14, 32, 24)), COCO)
    with pytest.raises(ValueError, match=r"rows: expected \(P, h, w\)"):
        attention_grid(IMAGE, np.zeros((8, 8)), [(0, 0)])
    with pytest.raises(ValueError, match=r"\(8, 0\) lies outside the map of width 8 and height 8"):
        attention_grid(IMAGE, np.zeros((1, 8, 8)), [(8, 0)])
    with pytest.raises(ValueError, match=r"positions: expected \(1, 2\)"):
        attention_grid(IMAGE, np.zeros((1, 8, 8)), [(1, 2), (3, 4)])
    with pytest.raises(ValueError, match=r"values: expected a map \(h, w\)"):
        overlay(IMAGE, np.zeros((0, 4)))


def test_grid_places_tiles_and_keeps_aspects():
    red, blue = (np.zeros((20, 30, 3), np.uint8) for _ in range(2))
    red[..., 0], blue[..., 2] = 255, 255
    tall = np.full((60, 30, 3), 7, np.uint8)
    shown = grid([red, blue, tall], 2, gap=4)
    assert shown.shape == (2 * 64 + 4, 2 * 34 + 4, 3)
    assert tuple(shown[34, 19]) == (255, 0, 0)
    assert tuple(shown[34, 53]) == (0, 0, 255)
    assert tuple(shown[6, 19]) == (255, 255, 255)  # above the wide picture in its tall tile
    assert tuple(shown[70, 6]) == (7, 7, 7)
    assert grid([red], 5, gap=0).shape == (20, 30, 3)


def test_captions_leave_ink_below_their_tile_only():
    tile = np.full((40, 120, 3), 200, np.uint8)
    shown = grid([tile, tile], 2, ["left knee", ""])
    assert shown[48:67, 8:128].min() < 100
    assert shown[48:67, 140:].min() == 255
    long = grid([tile], 1, ["a very long caption that cannot stand below so small a tile"])
    assert long.shape == (48 + 19 + 8, 136, 3)
    assert long[:, 128:].min() == 255


def test_grid_errors():
    with pytest.raises(ValueError, match="at least one image"):
        grid([], 3)
    with pytest.raises(ValueError, match="captions: expected 1, one per image, got 2"):
        grid([IMAGE], 1, ["a", "b"])


@pytest.mark.parametrize("name", ["a.png", "ein Bild mit Ümlaut.png", "deep/er/b.JPG"])
def test_saved_images_come_back(tmp_path, name):
    import cv2

    path = save_image(tmp_path / name, IMAGE)
    back = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert back.shape == IMAGE.shape
    if path.suffix == ".png":
        assert np.array_equal(back, IMAGE)


def test_saving_under_a_strange_suffix_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"ends in \.png"):
        save_image(tmp_path / "a.tiff", IMAGE)
