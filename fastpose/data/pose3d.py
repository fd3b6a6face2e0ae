"""Three-dimensional truth of a person, and what of it a crop shows (system 002).

Camera frame: x right, y down, z away from the camera, millimetres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fastpose import _checks
from fastpose.skeletons import MPII, MPII_BONES, Skeleton
from fastpose.skeletons import bone_sum as bone_sum

if TYPE_CHECKING:
    from fastpose.data.person import Person

Bones = Sequence[tuple[int, int]]

ROOTS = ("pelvis", "thorax")
SCALES = ("bone_sum", "root")


@dataclass(frozen=True, eq=False)
class Pose3D:
    """Joints in space and the camera that saw them.

    Attributes:
        joints: float32 (K, 3), (x, y, z) in millimetres of the camera frame, in the order of the person's skeleton.
        intrinsics: float64 (3, 3) that maps the camera frame to pixels of the photograph, or None where unknown.
        subject: name of the human, such as "S9"; empty where unknown.
        action: what is being done, such as "Walking"; empty where unknown.
        camera: name of the camera; empty where unknown.
        clip: name of the recording; frames of one clip never fall into two splits.
    """

    joints: np.ndarray
    intrinsics: np.ndarray | None = None
    subject: str = ""
    action: str = ""
    camera: str = ""
    clip: str = ""


@dataclass(frozen=True)
class DepthRule:
    """How depth becomes a number.

    Attributes:
        scale: pixels per millimetre: "bone_sum" compares the bones of the photograph with the pose's (as released),
            "root" takes focal length over depth of the root, which needs intrinsics.
        root: the joint of depth 0, "pelvis" (ours) or "thorax" (as released for training).
    """

    scale: str = "bone_sum"
    root: str = "pelvis"

    def __post_init__(self) -> None:
        _checks.choice("depth.scale", self.scale, SCALES)
        _checks.choice("depth.root", self.root, ROOTS)


def project(joints: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Return the pixels (..., K, 2) of joints (..., K, 3) under a pinhole camera (3, 3), float64.

    Raises:
        ValueError: a joint is not in front of the camera.
    """
    points = np.asarray(joints, np.float64) @ np.asarray(intrinsics, np.float64).T  # (..., K, 3)
    if not (points[..., 2] > 0).all():
        raise ValueError(
            f"joints: expected all in front of the camera (z > 0), got z = {points[..., 2].min():g}; move them away"
        )
    return points[..., :2] / points[..., 2:]


def pixels_per_mm(keypoints: np.ndarray, joints: np.ndarray, bones: Bones = MPII_BONES) -> float:
    """Return the scale of a scaled-orthographic view: summed bones in the photograph over those seen along z.

    As released for system 002's backbone: pixels (K, 2) and millimetres (K, 3), by default of MPII's joints over 14
    bones. Raises ``ValueError`` where the bones have no extent across the view.
    """
    across = float(bone_sum(np.asarray(joints, np.float64)[:, :2], bones)) if bones else 0.0
    if not across > 0:
        raise ValueError("joints: expected bones with an extent across the view, got none; leave this pose out")
    return float(bone_sum(np.asarray(keypoints, np.float64), bones)) / across


def person_scale(person: Person, skeleton: Skeleton) -> float:
    """Return the pixels per millimetre of a person by the bones whose two ends are labelled; see `pixels_per_mm`."""
    pose, labelled = _pose(person), person.visibility > 0
    bones = MPII_BONES if skeleton == MPII else skeleton.limbs
    return pixels_per_mm(person.keypoints, pose.joints, [bone for bone in bones if labelled[list(bone)].all()])


def relative_depth(person: Person, skeleton: Skeleton, rule: DepthRule) -> np.ndarray:
    """Return how far behind the root each joint is, float64 (K,), in pixels of the photograph.

    Args:
        person: with ``pose3d``.
        skeleton: its joints.
        rule: pixels per millimetre, and the joint of depth 0.

    Raises:
        ValueError: no 3D truth, or a scale of "root" without intrinsics.
    """
    joints = _pose(person).joints.astype(np.float64)
    origin = joints[skeleton.index(rule.root), 2]
    pixels = person_scale(person, skeleton) if rule.scale == "bone_sum" else _focal_scale(person, origin)
    return (joints[:, 2] - origin) * pixels


def _pose(person: Person) -> Pose3D:
    if person.pose3d is None:
        raise ValueError(f"person {person.person_id} on {person.image.name}: has no 3D pose; expected one")
    return person.pose3d


def _focal_scale(person: Person, depth: float) -> float:
    """Return the pixels per millimetre at a depth in front of a person's camera."""
    intrinsics = _pose(person).intrinsics
    if intrinsics is None or not depth > 0:
        raise ValueError(
            f"person {person.person_id} on {person.image.name}: scale 'root' needs the camera's intrinsics and a root "
            "in front of it, which its annotation lacks; use 'bone_sum'"
        )
    return float(intrinsics[0, 0] + intrinsics[1, 1]) / 2 / float(depth)


def reprojected(person: Person, skeleton: Skeleton, *, root: str = "thorax") -> np.ndarray:
    """Return key points (K, 2) of the scaled-orthographic view of the 3D pose, in pixels of the photograph.

    As released for system 002's backbone: (x, y) relative to the root times pixels per millimetre, put on the root's
    key point; its training draws heatmaps at these points and not at the annotated ones.
    """
    joints, at = _pose(person).joints.astype(np.float64), skeleton.index(root)
    points = (joints[:, :2] - joints[at, :2]) * person_scale(person, skeleton) + person.keypoints[at]
    return points.astype(np.float32)
