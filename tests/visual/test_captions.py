"""Pictures of generated poses: coloured heatmaps, skeletons, columns under captions, strips."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastpose import ops
from fastpose.skeletons import COCO
from fastpose.visual import captions
from fastpose.visual._canvas import text_mask

POINTS = np.random.default_rng(0).uniform(4, 60, (17, 2)).astype(np.float32)
SEEN = np.ones(17)
TILE = np.full((40, 40, 3), 90, np.uint8)


def at(point: np.ndarray) -> tuple[int, int]:
    """Row and column of a point of the map in the picture: a margin of 2 map pixels lies round the map."""
    x, y = (point + 2.5) * captions.TILE / 68 - 0.5
    return round(y), round(x)


def test_each_joint_shines_in_its_own_colour_where_it_is():
    assert len(set(captions.channel_colours())) == 17
    planes = torch.zeros(17, 64, 64)
    for joint in (0, 5, 16):
        point = torch.tensor([[[10.0 + 3 * joint, 40.0]]])
        one = planes.clone()
        one[joint] = ops.render_gaussian_heatmaps(point, (64, 64), 2.0)[0, 0]
        picture = captions.heatmap_picture(one)
        assert picture.shape == (captions.TILE, captions.TILE, 3)
        peak = picture[at(point[0, 0].numpy())].astype(int)
        assert np.abs(peak - captions.channel_colours()[joint]).max() < 30
        assert (picture.max(2) > 20).mean() < 0.05  # black elsewhere


def test_the_skeleton_lies_over_the_heatmaps_and_absent_joints_are_left_out():
    planes = np.zeros((17, 64, 64), np.float32)
    picture = captions.heatmap_picture(planes, POINTS, SEEN)
    assert all(picture[at(point)].max() > 60 for point in POINTS)
    nose, left = COCO.index("nose"), COCO.index("l_ankle")
    few = np.isin(np.arange(17), (nose, left))
    row, column = at(POINTS[COCO.index("r_wrist")])
    for drawn in (captions.heatmap_picture(planes, POINTS, few), captions.skeleton_picture(POINTS, few)):
        around = drawn[row - 4 : row + 5, column - 4 : column + 5]
        assert (around == around[0, 0]).all()
        assert not np.array_equal(drawn, captions.skeleton_picture(POINTS, ~few))


def test_a_pose_without_a_joint_says_so():
    blank = captions.skeleton_picture(POINTS, np.zeros(17))
    assert (blank[80:112, 40:150] < 200).any()
    assert (captions.heatmap_picture(np.zeros((17, 64, 64)), POINTS, np.zeros(17)) > 60).any()


def test_values_that_are_no_heights_of_a_map_do_no_harm():
    planes = np.full((17, 64, 64), np.nan, np.float32)
    planes[0], planes[1] = 7.0, -3.0
    picture = captions.heatmap_picture(planes)
    assert np.abs(picture[96, 96].astype(int) - captions.channel_colours()[0]).max() <= 1
    with pytest.raises(ValueError, match=r"heatmaps: expected \(17, h, w\) for skeleton coco, got \(3, 64, 64\)"):
        captions.heatmap_picture(planes[:3])
    with pytest.raises(ValueError, match=r"keypoints: expected \(17, 2\)"):
        captions.skeleton_picture(POINTS[:4])


def test_captions_are_broken_into_lines_that_fit():
    text = "a man in a red jacket is skiing down a very long and steep mountain slope"
    lines = captions.wrap(text, 12, 150)
    assert " ".join(lines) == text
    assert max(text_mask(line, 12).shape[1] for line in lines) <= 150
    cut = captions.wrap(text, 12, 150, lines=2)
    assert len(cut) == 2
    assert cut[1].endswith("…")
    assert captions.wrap("x" * 500, 12, 150) == captions.wrap("x" * 400, 12, 150)  # one word that never fits
    word = "donaudampfschifffahrtsgesellschaftskapitaen"
    lines = captions.wrap(f"the {word} swims", 12, 150)
    assert lines[0] == "the"
    assert "".join(lines) == f"the{word}swims"
    assert max(text_mask(line, 12).shape[1] for line in lines) <= 150
    assert captions.wrap("xyz", 12, 1) == ["x", "y", "z"]  # not even a letter fits
    assert captions.wrap("", 12, 150) == []


@pytest.mark.parametrize(
    ("text", "readable"),
    [("a man, 5 °C", True), ("ñandú", True), ("человек ανδρας", True), ("a man 🙂", True), ("日本 man", False)],
)
def test_letters_that_the_font_has_not_are_noticed(text, readable):
    assert captions.readable(text) is readable


def test_columns_stand_under_their_captions():
    rows = [[TILE, TILE + 40, TILE], [TILE + 80, TILE, TILE]]
    picture = captions.columns(rows, ["a man", "a woman playing tennis on a hot day", ""], labels=["real", ""], gap=6)
    titles = picture[: -(2 * 46 + 6)]
    assert (titles < 128).any()
    assert picture.shape[1] > 3 * 46 + 6  # room for the label
    assert picture[-26, -66].tolist() == [90] * 3
    for wrong, sentence in (
        (([], ["a"]), "at least one row"),
        (([[TILE]], ["a", "b"]), r"rows\[0\]: expected 2 images"),
        (([[TILE, TILE[:20]]], ["a", "b"]), "images of one size"),
    ):
        with pytest.raises(ValueError, match=sentence):
            captions.columns(*wrong)
    with pytest.raises(ValueError, match="labels: expected 2"):
        captions.columns(rows, ["a", "b", "c"], labels=["x"])


def test_strips_have_a_title_over_all_or_over_both_ends():
    pictures = [TILE] * 5
    none, one, two = (captions.strips([(titles, pictures)]) for titles in ((), ("left",), ("left", "right")))
    assert none.shape == (6 + 46, 5 * 46 + 6, 3)
    assert one.shape == two.shape
    assert one.shape[0] > none.shape[0]
    half = one.shape[1] // 2
    assert np.array_equal(one[:, :half], two[:, :half])
    assert (two[:20, half:] < 128).any()
    assert not (one[:20, half:] < 128).any()
    broken = captions.strips([((), pictures), (("more",), pictures[:2])], most=2)
    assert broken.shape[0] > 4 * 46
    assert broken.shape[1] == 2 * 46 + 6
    noted = captions.strips([((), pictures)], note="5 of 9 are shown")
    assert (noted[len(none) :] < 128).any()
    with pytest.raises(ValueError, match="up to two titles, got 5 under 3"):
        captions.strips([(("a", "b", "c"), pictures)])
    with pytest.raises(ValueError, match="images of one size"):
        captions.strips([((), pictures), ((), [TILE[:20]])])
    with pytest.raises(ValueError, match="at least one"):
        captions.strips([])
