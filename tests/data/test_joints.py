"""Joints of one skeleton in the order of another."""

from __future__ import annotations

import numpy as np
import pytest

from fastpose import skeletons
from fastpose.data import joints


def _random(skeleton, leading=(3,)):
    rng = np.random.default_rng(2)
    return rng.uniform(1, 50, (*leading, len(skeleton), 2)), np.ones((*leading, len(skeleton)))


@pytest.mark.parametrize("name", ["coco", "mpii", "lsp"])
def test_joints_keep_their_names(name):
    old = skeletons.get(name)
    points, visible = _random(old)
    moved, seen = joints.convert(points, visible, name, "openpose")
    assert moved.shape == (3, 18, 2)
    assert seen.shape == (3, 18)
    for index, joint in enumerate(skeletons.OPENPOSE.joints):
        if joint in old.joints and joint != "neck":
            assert np.array_equal(moved[:, index], points[:, old.index(joint)])
            assert (seen[:, index] == 1).all()


@pytest.mark.parametrize("name", ["coco", "mpii", "lsp"])
def test_the_neck_is_the_middle_of_the_shoulders(name):
    old = skeletons.get(name)
    points, visible = _random(old)
    moved, seen = joints.convert(points, visible, old, skeletons.OPENPOSE)
    middle = (points[:, old.index("l_shoulder")] + points[:, old.index("r_shoulder")]) / 2
    assert np.allclose(moved[:, 1], middle)
    assert (seen[:, 1] == 1).all()


def test_what_is_missing_stays_missing():
    points, visible = _random(skeletons.COCO)
    visible[:, skeletons.COCO.index("l_shoulder")] = 0
    moved, seen = joints.convert(points, visible, "coco", "openpose")
    for joint in ("neck", "l_shoulder"):
        assert not seen[:, skeletons.OPENPOSE.index(joint)].any()
        assert not moved[:, skeletons.OPENPOSE.index(joint)].any()
    assert seen[:, skeletons.OPENPOSE.index("r_shoulder")].all()


def test_joints_that_the_other_skeleton_lacks_are_missing():
    moved, seen = joints.convert(*_random(skeletons.LSP), "lsp", "openpose")
    for joint in ("nose", "l_eye", "r_ear"):
        assert not seen[:, skeletons.OPENPOSE.index(joint)].any()
        assert not moved[:, skeletons.OPENPOSE.index(joint)].any()


def test_a_middle_is_as_visible_as_its_less_visible_end():
    points, visible = _random(skeletons.COCO, ())
    marks = (2 * visible).astype(np.uint8)
    marks[skeletons.COCO.index("r_shoulder")] = 1
    moved, seen = joints.convert(points.astype(np.float32), marks, "coco", "openpose")
    assert seen[1] == 1
    assert seen.dtype == np.uint8
    assert moved.dtype == np.float32


def test_a_skeleton_in_its_own_order_is_unchanged():
    points, visible = _random(skeletons.MPII)
    moved, seen = joints.convert(points, visible, "mpii", "mpii")
    assert np.array_equal(moved, points)
    assert np.array_equal(seen, visible)


def test_a_wrong_number_of_joints_is_one_sentence():
    with pytest.raises(ValueError, match=r"keypoints: expected \(\.\.\., 17, 2 or 3\).*skeleton 'coco', got \(14, 2\)"):
        joints.convert(np.zeros((14, 2)), np.zeros(14), "coco", "openpose")
    with pytest.raises(ValueError, match="unknown skeleton 'cocoo'"):
        joints.convert(np.zeros((17, 2)), np.zeros(17), "cocoo", "openpose")
