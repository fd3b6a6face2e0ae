"""Three-dimensional truth: projection, scale, depth in the units of a crop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fastpose import skeletons
from fastpose.data import KeypointDataset, pose3d, transforms
from fastpose.data.person import person
from fastpose.data.pose3d import DepthRule, Pose3D

CAMERA = np.array([[1000.0, 0, 128], [0, 1000, 128], [0, 0, 1]])


def standing(depth: float = 5000.0) -> np.ndarray:
    """An upright person of MPII's joints (16, 3) in mm, the pelvis on the axis, one hand stretched to the camera."""
    joints = {
        "r_ankle": (-90, 850, 0), "r_knee": (-100, 430, -40), "r_hip": (-110, 0, 0), "l_hip": (110, 0, 0),
        "l_knee": (100, 430, 0), "l_ankle": (90, 850, 30), "pelvis": (0, 0, 0), "thorax": (0, -450, 0),
        "upper_neck": (0, -520, -10), "head_top": (0, -750, -20), "r_wrist": (-200, -420, -480),
        "r_elbow": (-190, -430, -230), "r_shoulder": (-170, -450, 0), "l_shoulder": (170, -450, 0),
        "l_elbow": (220, -180, 20), "l_wrist": (230, 60, 0),
    }  # fmt: skip
    return np.array([joints[name] for name in skeletons.MPII.joints], np.float64) + (0, 0, depth)


def someone(joints: np.ndarray, **changes: object):
    pose = Pose3D(joints, CAMERA, **changes)
    keypoints = pose3d.project(joints, CAMERA)
    return person(Path("none.png"), keypoints, np.full(16, 2), np.array([127.5, 127.5]), 256 / 200, pose3d=pose)


def test_projection_is_the_pinhole():
    points = pose3d.project(np.array([[100.0, -200.0, 1000.0]]), CAMERA)
    assert np.allclose(points, [[228, -72]])


def test_what_is_behind_the_camera_is_refused():
    with pytest.raises(ValueError, match=r"in front of the camera.*z = -1"):
        pose3d.project(np.array([[0.0, 0.0, -1.0]]), CAMERA)


def test_the_bone_sum_counts_fourteen_bones_without_the_thorax():
    joints = np.zeros((16, 3))
    joints[skeletons.MPII.index("thorax")] = 1000
    assert pose3d.bone_sum(joints) == 0
    joints[skeletons.MPII.index("head_top")] = (3, 4, 0)
    assert pose3d.bone_sum(joints) == 5
    assert len(skeletons.MPII_BONES) == 14


def test_the_scale_of_a_scaled_orthographic_view_is_exact():
    joints = standing()
    assert pose3d.pixels_per_mm(joints[:, :2] * 0.25 + 7, joints) == pytest.approx(0.25)


def test_bones_along_the_view_have_no_scale():
    with pytest.raises(ValueError, match="extent across the view"):
        pose3d.pixels_per_mm(np.zeros((16, 2)), np.column_stack([np.zeros((16, 2)), np.arange(16)]))


def test_only_labelled_bones_tell_the_scale():
    entry = someone(standing())
    labels = entry.visibility.copy()
    labels[skeletons.MPII.index("l_wrist")] = 0
    lacking = person(entry.image, entry.keypoints, labels, entry.center, entry.scale, pose3d=entry.pose3d)
    bones = [bone for bone in skeletons.MPII_BONES if 15 not in bone]
    expected = pose3d.pixels_per_mm(entry.keypoints, entry.pose3d.joints, bones)
    assert pose3d.person_scale(lacking, skeletons.MPII) == pytest.approx(expected)


def test_depth_by_the_camera_is_focal_length_over_distance():
    depth = pose3d.relative_depth(someone(standing(4000.0)), skeletons.MPII, DepthRule("root"))
    assert depth[skeletons.MPII.index("pelvis")] == 0
    assert depth[skeletons.MPII.index("r_wrist")] == pytest.approx(-480 * 1000 / 4000)


def test_depth_by_the_thorax_is_zero_there():
    joints = standing()
    joints[skeletons.MPII.index("thorax"), 2] += 50
    depth = pose3d.relative_depth(someone(joints), skeletons.MPII, DepthRule(root="thorax"))
    assert depth[skeletons.MPII.index("thorax")] == 0
    assert depth[skeletons.MPII.index("pelvis")] < 0


def test_depth_without_a_camera_or_a_pose_says_what_is_missing():
    entry = someone(standing())
    unseen = replace(entry, pose3d=replace(entry.pose3d, intrinsics=None))
    with pytest.raises(ValueError, match="needs the camera's intrinsics"):
        pose3d.relative_depth(unseen, skeletons.MPII, DepthRule("root"))
    with pytest.raises(ValueError, match=r"none\.png: has no 3D pose"):
        pose3d.relative_depth(replace(entry, pose3d=None), skeletons.MPII, DepthRule())


def test_reprojected_key_points_are_a_scaled_picture_of_the_pose():
    entry = someone(standing())
    points = pose3d.reprojected(entry, skeletons.MPII)
    thorax = skeletons.MPII.index("thorax")
    assert np.allclose(points[thorax], entry.keypoints[thorax], atol=1e-4)
    assert pose3d.pixels_per_mm(points, entry.pose3d.joints) == pytest.approx(
        pose3d.person_scale(entry, skeletons.MPII), rel=1e-5
    )


def test_a_person_is_frozen_with_its_pose():
    entry = someone(standing())
    with pytest.raises(ValueError, match="read-only"):
        entry.pose3d.joints[0] = 0


def source(*persons):
    photo = np.zeros((256, 256, 3), np.uint8)
    return SimpleNamespace(
        name="toy", split="all", skeleton=skeletons.MPII, persons=list(persons), photo=lambda i: photo
    )


def test_items_hold_depth_in_half_crops():
    item = KeypointDataset(source(someone(standing())), depth=DepthRule("root"))[0]
    # the crop is 256 px of the photograph wide, a millimetre at the root 0.2 px
    assert item["depth"][skeletons.MPII.index("r_wrist")] == pytest.approx(-480 * 0.2 / 128, rel=1e-5)
    assert item["depth_known"].tolist() == [1] * 16


def test_depth_follows_scale_and_mirror_of_the_crop():
    plain = KeypointDataset(source(someone(standing())), depth=DepthRule("root"))[0]
    closer = transforms.Augmentation("closer", "uniform", 0.5, flip_probability=1.0)
    dataset = KeypointDataset(source(someone(standing())), augment=closer, depth=DepthRule("root"))
    item = dataset[0]
    scale = float(np.sqrt(abs(np.linalg.det(item["to_image"][:, :2].numpy())))) / 4  # photo pixels per crop pixel
    mirrored = plain["depth"][list(skeletons.MPII.flip_permutation)]
    assert scale != pytest.approx(1)
    assert np.allclose(item["depth"] * scale, mirrored, atol=1e-6)


def test_persons_without_a_pose_have_unknown_depth():
    item = KeypointDataset(source(replace(someone(standing()), pose3d=None)), depth=DepthRule())[0]
    assert not item["depth"].any()
    assert not item["depth_known"].any()


def test_items_have_no_depth_unless_asked():
    assert "depth" not in KeypointDataset(source(someone(standing())))[0]
