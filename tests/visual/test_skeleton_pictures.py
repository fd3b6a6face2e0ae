"""Skeleton overlays: what is drawn, what is left alone, any size, wrong input."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch

from fastpose import skeletons
from fastpose.skeletons import COCO, LSP
from fastpose.visual.skeletons import draw_skeleton, draw_skeletons, joint_colour, limb_colours, side

GREY = np.full((200, 160, 3), 120, np.uint8)


def stick_figure(height=200, width=160):
    """Key points of an upright person seen from the front, in COCO's order."""
    x = [80, 86, 74, 92, 68, 110, 50, 120, 40, 125, 35, 100, 60, 102, 58, 104, 56]
    y = [30, 26, 26, 30, 30, 60, 60, 90, 90, 120, 120, 120, 120, 150, 150, 175, 175]
    return np.stack((x, y), 1) * np.array([width / 160, height / 200])


def test_limbs_are_drawn_in_their_colours_on_a_copy():
    points = stick_figure()
    before = GREY.copy()
    drawn = draw_skeleton(GREY, points, None, COCO)
    assert np.array_equal(GREY, before)
    assert drawn.shape == GREY.shape
    assert drawn.dtype == np.uint8
    for limb, colour in zip(COCO.limbs, limb_colours(COCO), strict=True):
        x, y = np.rint(points[list(limb)].mean(0)).astype(int)
        if np.hypot(*(points[limb[0]] - points[limb[1]])) > 20:
            assert np.abs(drawn[y, x].astype(int) - colour).max() < 30, COCO.joints[limb[0]]


@pytest.mark.parametrize("name", ["lsp", "mpii", "coco", "openpose", "h36m"])
def test_every_limb_has_its_own_colour_and_sides_differ_in_hue(name):
    skeleton = skeletons.get(name)
    colours = limb_colours(skeleton)
    assert len(set(colours)) == len(skeleton.limbs)
    for limb, colour in zip(skeleton.limbs, colours, strict=True):
        hue = colorsys.rgb_to_hsv(*(part / 255 for part in colour))[0]
        low, high = {"left": (0.45, 0.7), "right": (0.0, 0.15), "middle": (0.25, 0.45)}[side(skeleton, limb)]
        assert low <= hue <= high


def test_joint_dots_lie_on_the_joints():
    points = stick_figure()
    drawn = draw_skeleton(GREY, points, None, COCO)
    for joint in (COCO.index("l_ankle"), COCO.index("r_wrist")):
        x, y = points[joint].astype(int)
        assert tuple(drawn[y, x]) == joint_colour(COCO, joint)


def test_missing_joints_are_not_drawn_but_named():
    points, visibility = stick_figure(), np.ones(17)
    visibility[COCO.index("l_wrist")] = 0
    bare = draw_skeleton(GREY, points, visibility, COCO, name_missing=False)
    x, y = points[COCO.index("l_wrist")].astype(int)
    assert tuple(bare[y, x]) == (120, 120, 120)
    named = draw_skeleton(GREY, points, visibility, COCO)
    strip = named[-8:]
    assert strip.mean() < 80  # a dark strip with letters on it
    assert strip.max() > 150
    assert np.array_equal(named[:150], bare[:150])
    assert np.array_equal(draw_skeleton(GREY, points, None, COCO)[-4:], GREY[-4:])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_points_that_are_not_finite_are_missing(bad):
    points, visibility = stick_figure(), np.ones(17)
    visibility[9] = 0
    broken = points.copy()
    broken[9] = (bad, 3)
    assert np.array_equal(draw_skeleton(GREY, broken, None, COCO), draw_skeleton(GREY, points, visibility, COCO))


def test_occluded_joints_are_hollow_where_flags_tell():
    points, visibility = stick_figure(), np.full(17, 2)
    visibility[COCO.index("l_ankle")] = 1
    drawn = draw_skeleton(GREY, points, visibility, COCO)
    x, y = points[COCO.index("l_ankle")].astype(int)
    assert drawn[y, x].max() < 60
    same = draw_skeleton(GREY, points, np.ones(17), COCO)  # flags of 0 and 1 only: 1 means labelled
    assert tuple(same[y, x]) == joint_colour(COCO, COCO.index("l_ankle"))


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (24, 300), (64, 64), (900, 1200)])
def test_any_image_size(size):
    image = np.full((*size, 3), 90, np.uint8)
    drawn = draw_skeleton(image, stick_figure(*size), np.arange(17) % 3, COCO)
    assert drawn.shape == image.shape
    assert not np.array_equal(drawn, image)


def test_thickness_grows_with_the_image():
    shares = []
    for size in ((200, 160), (1000, 800)):
        image = np.full((*size, 3), 120, np.uint8)
        drawn = draw_skeleton(image, stick_figure(*size), None, COCO)
        shares.append((drawn != image).any(-1).mean())
    assert shares[0] == pytest.approx(shares[1], rel=0.45)  # rims are at least a pixel wide
    thick = draw_skeleton(GREY, stick_figure(), None, COCO, thickness=9)
    assert (thick != GREY).any(-1).mean() > 1.5 * shares[0]


def test_far_points_and_nobody_at_all():
    points = stick_figure()
    points[9] = (1e12, -1e12)
    assert draw_skeleton(GREY, points, None, COCO).shape == GREY.shape
    nobody = draw_skeleton(GREY, points, np.zeros(17), COCO, name_missing=False)
    assert np.array_equal(nobody, GREY)


def test_tensors_grey_images_and_several_persons():
    points = torch.from_numpy(stick_figure())
    one = draw_skeleton(GREY, points, torch.ones(17), COCO)
    assert np.array_equal(draw_skeleton(GREY[..., 0], points, None, COCO), one)
    both = draw_skeletons(GREY, [(points, None), (points + 30, None)], COCO)
    assert (both != GREY).any(-1).sum() > (one != GREY).any(-1).sum()


def test_errors_name_what_was_found():
    with pytest.raises(ValueError, match=r"keypoints: expected \(14, 2\) for skeleton lsp, got \(17, 2\)"):
        draw_skeleton(GREY, stick_figure(), None, LSP)
    with pytest.raises(ValueError, match=r"visibility: expected \(17,\), got \(3,\)"):
        draw_skeleton(GREY, stick_figure(), np.ones(3), COCO)
    with pytest.raises(ValueError, match=r"image: expected an RGB image \(H, W, 3\), got \(3, 8, 8\)"):
        draw_skeleton(np.zeros((3, 8, 8), np.uint8), stick_figure(), None, COCO)
    with pytest.raises(TypeError, match="expected uint8"):
        draw_skeleton(GREY / 255, stick_figure(), None, COCO)
