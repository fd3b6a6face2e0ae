"""Skeletons as frozen data: joint names, limbs, left/right pairs and OKS sigmas of each published convention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastpose._checks import unknown


@dataclass(frozen=True)
class Skeleton:
    """A named joint layout.

    Attributes:
        name: short name used in recipes and files.
        joints: joint names in storage order; "left" and "right" are the person's own.
        limbs: pairs of joint indices to draw.
        flip_pairs: (left, right) index pairs that swap under a horizontal flip.
        sigmas: per-joint OKS constants (COCO key-point evaluation), or None where none are published.
    """

    name: str
    joints: tuple[str, ...]
    limbs: tuple[tuple[int, int], ...]
    flip_pairs: tuple[tuple[int, int], ...]
    sigmas: tuple[float, ...] | None = None

    def __len__(self) -> int:
        return len(self.joints)

    def index(self, joint: str) -> int:
        """Return the index of a joint by name; ``ValueError`` offers the nearest name."""
        if joint not in self.joints:
            raise ValueError(unknown(f"joint of skeleton {self.name!r}:", joint, self.joints))
        return self.joints.index(joint)

    @property
    def flip_permutation(self) -> tuple[int, ...]:
        """Index of the joint that takes each joint's place when the image is mirrored."""
        order = list(range(len(self.joints)))
        for left, right in self.flip_pairs:
            order[left], order[right] = right, left
        return tuple(order)


def _skeleton(name: str, joints: str, limbs: str, sigmas: tuple[float, ...] | None = None) -> Skeleton:
    """Build a skeleton from space-separated joint names and ``a-b`` limbs; pairs follow from the l_/r_ names."""
    names = tuple(joints.split())
    at = {joint: index for index, joint in enumerate(names)}
    edges = tuple((at[limb.split("-")[0]], at[limb.split("-")[1]]) for limb in limbs.split())
    pairs = tuple((at[joint], at["r_" + joint[2:]]) for joint in names if joint.startswith("l_"))
    return Skeleton(name, names, edges, pairs, sigmas)


LSP = _skeleton(
    "lsp",
    "r_ankle r_knee r_hip l_hip l_knee l_ankle r_wrist r_elbow r_shoulder l_shoulder l_elbow l_wrist neck head_top",
    "r_ankle-r_knee r_knee-r_hip l_hip-l_knee l_knee-l_ankle r_hip-l_hip r_wrist-r_elbow r_elbow-r_shoulder "
    "l_shoulder-l_elbow l_elbow-l_wrist r_shoulder-neck l_shoulder-neck r_shoulder-r_hip l_shoulder-l_hip "
    "neck-head_top",
)

MPII = _skeleton(
    "mpii",
    "r_ankle r_knee r_hip l_hip l_knee l_ankle pelvis thorax upper_neck head_top "
    "r_wrist r_elbow r_shoulder l_shoulder l_elbow l_wrist",
    "r_ankle-r_knee r_knee-r_hip r_hip-pelvis pelvis-l_hip l_hip-l_knee l_knee-l_ankle pelvis-thorax "
    "thorax-upper_neck upper_neck-head_top r_wrist-r_elbow r_elbow-r_shoulder r_shoulder-thorax "
    "thorax-l_shoulder l_shoulder-l_elbow l_elbow-l_wrist",
)

MPII_BONES = (
    *((0, 1), (1, 2), (2, 6), (6, 3), (3, 4), (4, 5), (10, 11)),
    *((11, 12), (12, 8), (8, 13), (13, 14), (14, 15), (6, 8), (8, 9)),
)
"""The 14 pairs of MPII joints whose summed length tells the size of a 3D pose (system 002, released code).

The spine is one bone from the pelvis to the upper neck, from which the shoulders hang: the thorax has no part in it.
"""


def bone_sum(joints: Any, bones: Sequence[tuple[int, int]] = MPII_BONES) -> Any:
    """Return the summed length (...,) of ``bones`` of joints (..., K, D), an array or tensor, in the joints' unit."""
    first, second = ([bone[end] for bone in bones] for end in (0, 1))
    along = joints[..., first, :] - joints[..., second, :]  # (..., B, D)
    return ((along * along).sum(-1) ** 0.5).sum(-1)


COCO = _skeleton(
    "coco",
    "nose l_eye r_eye l_ear r_ear l_shoulder r_shoulder l_elbow r_elbow l_wrist r_wrist "
    "l_hip r_hip l_knee r_knee l_ankle r_ankle",
    "nose-l_eye nose-r_eye l_eye-r_eye l_eye-l_ear r_eye-r_ear l_ear-l_shoulder r_ear-r_shoulder "
    "l_shoulder-r_shoulder l_shoulder-l_elbow l_elbow-l_wrist r_shoulder-r_elbow r_elbow-r_wrist "
    "l_shoulder-l_hip r_shoulder-r_hip l_hip-r_hip l_hip-l_knee l_knee-l_ankle r_hip-r_knee r_knee-r_ankle",
    (0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087)
    + (0.089, 0.089),
)

OPENPOSE = _skeleton(
    "openpose",
    "nose neck r_shoulder r_elbow r_wrist l_shoulder l_elbow l_wrist r_hip r_knee r_ankle "
    "l_hip l_knee l_ankle r_eye l_eye r_ear l_ear",
    "neck-r_shoulder neck-l_shoulder r_shoulder-r_elbow r_elbow-r_wrist l_shoulder-l_elbow l_elbow-l_wrist "
    "neck-r_hip r_hip-r_knee r_knee-r_ankle neck-l_hip l_hip-l_knee l_knee-l_ankle neck-nose "
    "nose-r_eye r_eye-r_ear nose-l_eye l_eye-l_ear",
)

H36M = _skeleton(
    "h36m",
    "pelvis r_hip r_knee r_ankle l_hip l_knee l_ankle spine thorax neck head_top "
    "l_shoulder l_elbow l_wrist r_shoulder r_elbow r_wrist",
    "pelvis-r_hip r_hip-r_knee r_knee-r_ankle pelvis-l_hip l_hip-l_knee l_knee-l_ankle pelvis-spine spine-thorax "
    "thorax-neck neck-head_top thorax-l_shoulder l_shoulder-l_elbow l_elbow-l_wrist thorax-r_shoulder "
    "r_shoulder-r_elbow r_elbow-r_wrist",
)

_ALL = {skeleton.name: skeleton for skeleton in (LSP, MPII, COCO, OPENPOSE, H36M)}


def get(name: str) -> Skeleton:
    """Return a skeleton by name (lsp, mpii, coco, openpose, h36m); ``ValueError`` offers the nearest name."""
    if name not in _ALL:
        raise ValueError(unknown("skeleton", name, _ALL))
    return _ALL[name]
