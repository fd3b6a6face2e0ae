"""The geometric loss of system 002's backbone: bones of one group keep their proportions (Zhou et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastpose import _checks

Bone = tuple[int, int, float]
"""Two joints, and what the bone's length is multiplied by to become comparable with the others of its group."""

_SHIN, _FOREARM = 1.0085885098415446, 1.1375361376887123  # thigh over shin, upper arm over forearm, of Human3.6M

MPII_GROUPS: tuple[tuple[Bone, ...], ...] = (
    ((0, 1, _SHIN), (1, 2, 1.0), (3, 4, 1.0), (4, 5, _SHIN)),  # legs
    ((10, 11, _FOREARM), (11, 12, 1.0), (13, 14, 1.0), (14, 15, _FOREARM)),  # arms
    ((2, 6, 1.0), (3, 6, 1.0)),  # hips, from the pelvis
    ((12, 8, 1.0), (13, 8, 1.0)),  # shoulders, from the upper neck
)
"""The groups and mean proportions of the released code, for the 16 joints of MPII."""


def bone_ratio_loss(joints: Tensor, visible: Tensor, groups: Sequence[Sequence[Bone]] = MPII_GROUPS) -> Tensor:
    """Return how much the lengths of comparable bones vary: 0 where all proportions of a body are as in the mean.

    Per sample the variances of the groups are added, each over the bones whose two joints are visible; the samples are
    averaged, those without a visible bone as 0. The loss knows no size: it punishes depths that stretch one bone of a
    group more than another.

    Args:
        joints: (B, K, 3) in one unit for all three axes; for photographs without 3D truth the labelled (x, y) beside
            the predicted depth.
        visible: (B, K), > 0 where the joint is to be used.
        groups: bones that are compared with each other, as (joint, joint, factor).

    Returns:
        a float32 (or wider) scalar, differentiable in ``joints``; the gradient of a bone of length 0 is 0.

    Raises:
        ValueError: shapes that do not match, or a group that names a joint beyond K.
    """
    _checks.tensor("joints", joints, "(B, K, 3)", ranks=(3,))
    _checks.shape("visible", visible, joints.shape[:2], "(B, K)")
    last = max((max(first, second) for group in groups for first, second, _ in group), default=-1)
    if joints.shape[2] != 3 or last >= joints.shape[1]:
        raise ValueError(f"joints: expected (B, K, 3) with K > {last}, got {tuple(joints.shape)}")
    wide = joints.to(torch.promote_types(joints.dtype, torch.float32))
    total = wide.new_zeros(())
    for group in groups:
        total = total + _variance(wide, visible > 0, group).sum()
    return total / max(joints.shape[0], 1)


def _variance(joints: Tensor, visible: Tensor, group: Sequence[Bone]) -> Tensor:
    """Return the variance (B,) of the scaled lengths of a group's visible bones."""
    first, second = [bone[0] for bone in group], [bone[1] for bone in group]
    shown = visible[:, first] & visible[:, second]  # (B, N)
    # A hidden joint may hold anything: it is replaced, not multiplied by 0.
    offsets = torch.where(shown[..., None], joints[:, first] - joints[:, second], 0)  # (B, N, 3)
    lengths = torch.linalg.vector_norm(offsets, dim=-1) * joints.new_tensor([bone[2] for bone in group])  # (B, N)
    count = shown.sum(1, keepdim=True).clamp(min=1)  # (B, 1)
    mean = lengths.sum(1, keepdim=True) / count
    return (torch.where(shown, lengths - mean, 0).square() / count).sum(1)
