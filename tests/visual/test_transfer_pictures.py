"""Poses, part maps and rows of panels."""

from __future__ import annotations

import numpy as np
import pytest

from fastpose.skeletons import OPENPOSE
from fastpose.visual import transfer

POINTS = np.random.default_rng(0).uniform([10, 10], [54, 118], (18, 2))
IMAGE = np.full((128, 64, 3), 40, np.uint8)


def test_a_pose_is_drawn_on_white_and_enlarged():
    picture = transfer.pose_picture(POINTS, None, (128, 64))
    assert picture.shape == (192, 96, 3)
    assert (picture == 255).all(2).mean() > 0.5
    x, y = (POINTS[OPENPOSE.index("neck")] + 0.5) * 1.5 - 0.5
    assert (picture[round(y) - 2 : round(y) + 3, round(x) - 2 : round(x) + 3] != 255).any()


def test_a_pose_on_its_image_keeps_the_image():
    picture = transfer.pose_picture(POINTS, np.zeros(18), (128, 64), image=IMAGE, least=1)
    assert np.array_equal(picture, IMAGE)
    assert not np.array_equal(transfer.pose_picture(POINTS, None, (128, 64), image=IMAGE, least=1), IMAGE)


def test_a_pose_of_another_size_than_its_image_is_refused():
    with pytest.raises(ValueError, match=r"image: expected the size \(256, 176\)"):
        transfer.pose_picture(POINTS, None, (256, 176), image=IMAGE)


def test_each_part_has_its_own_colour_and_the_background_is_white():
    labels = np.arange(17, dtype=np.uint8).reshape(1, 17)
    picture = transfer.part_picture(labels)
    assert picture[0, 0].tolist() == [255, 255, 255]
    assert len({tuple(colour) for colour in picture[0].tolist()}) == 17
    assert transfer.part_picture(labels[:, :2], [(1, 2, 3)])[0, 1].tolist() == [1, 2, 3]


@pytest.mark.parametrize("labels", [np.full((2, 2), 17), np.full((2, 2), -1), np.zeros((2, 2)), np.zeros(4, int)])
def test_labels_of_no_part_are_refused(labels):
    with pytest.raises(ValueError, match="labels: expected"):
        transfer.part_picture(labels)


def test_panels_stand_in_rows_and_columns():
    rows = [[np.full((128, 64, 3), 20 * index, np.uint8) for _ in range(3)] for index in range(5)]
    picture = transfer.panels(rows, ("a", "b", "c"), captions=list("12345"), columns=2)
    one = transfer.panels(rows[:1], ("a", "b", "c"))
    assert picture.shape[1] == 2 * one.shape[1]
    assert picture.shape[0] > 3 * 192
    values, counts = np.unique(picture[:, picture.shape[1] // 2 :], return_counts=True)
    assert set(values[counts > 5000].tolist()) == {20, 60, 255}  # rows 2 and 4 stand at the right


@pytest.mark.parametrize(
    ("rows", "titles", "options", "sentence"),
    [
        ([], ("a",), {}, "expected at least one row"),
        ([[IMAGE]], (), {}, "expected at least one row"),
        ([[IMAGE]], ("a",), {"columns": 0}, "expected at least one row"),
        ([[IMAGE], [IMAGE, IMAGE]], ("a",), {}, r"rows\[1\]: expected 1 images, one per title, got 2"),
        ([[IMAGE]], ("a",), {"captions": ["x", "y"]}, "captions: expected 1, one per row, got 2"),
    ],
)
def test_panels_that_do_not_fit_are_refused(rows, titles, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        transfer.panels(rows, titles, **options)


def test_letters_of_other_scripts_are_boxes_and_no_warning():
    rows = [[IMAGE], [IMAGE]]
    picture = transfer.panels(rows, ("a",), captions=["日本", "a\nb"])  # warnings are errors
    boxes = transfer.panels(rows, ("a",), captions=["□□", "a□b"])
    assert np.array_equal(picture, boxes)


def test_white_panels_have_an_edge_and_others_none():
    white = np.full((192, 96, 3), 255, np.uint8)
    picture = transfer.panels([[white, np.zeros_like(white)]], ("a", "b"))
    greys = (picture > 190).all(2) & (picture < 230).all(2)
    assert greys.sum() > 2 * 192
    assert greys[100, :105].sum() == 2  # both sides of the first panel
    assert greys[100, 105:].sum() == 0
