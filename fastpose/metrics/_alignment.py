"""Poses in space: checked inputs, and the alignments that come before an error in millimetres is taken."""

from __future__ import annotations

import torch
from torch import Tensor

from fastpose import _checks
from fastpose.metrics._arrays import ArrayLike, as_double, as_mask, same_shape
from fastpose.skeletons import MPII, bone_sum

PELVIS, THORAX, UPPER_NECK = (MPII.index(joint) for joint in ("pelvis", "thorax", "upper_neck"))

ALIGNMENTS = ("none", "root_depth", "root", "rigid", "similarity", "zhou")

RELEASED_BONE_SUM = 4296.99233013
"""Millimetres of the 14 bones together, a mean over Human3.6M's training poses (system 002, its backbone's code)."""

_LARGEST = 1e100


def as_poses(argument: str, value: ArrayLike, joints: int | None = None) -> Tensor:
    """Return joints in space as float64 (N, K, 3); ``ValueError`` unless rank, K and the last axis fit."""
    poses = as_double(argument, value)
    if poses.dim() != 3 or poses.shape[-1] != 3 or (joints is not None and poses.shape[1] != joints):
        raise ValueError(f"{argument}: expected (N, {joints or 'K'}, 3), got {tuple(poses.shape)}")
    return poses


def pair(
    prediction: ArrayLike, target: ArrayLike, visibility: ArrayLike | None, joints: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return prediction and target (N, K, 3) float64 and the mask (N, K) of labelled joints; shapes are checked."""
    predicted, truth = as_poses("prediction", prediction), as_poses("target", target, joints)
    same_shape(predicted, truth)
    return predicted, truth, as_mask("visibility", visibility, tuple(truth.shape[:2]))


def finite(argument: str, poses: Tensor, used: Tensor) -> None:
    """Raise unless each used joint of (N, K, 3) has a finite place, and one whose square is a number too."""
    wrong = used & ~(poses.abs() <= _LARGEST).all(-1)
    if wrong.any():
        person, joint = (int(index) for index in wrong.nonzero()[0])
        beyond = f", or beyond {_LARGEST:g} mm" if poses.isfinite().all() else ""
        name = MPII.joints[joint] if poses.shape[1] == len(MPII) else f"joint {joint}"
        raise ValueError(
            f"{argument}: {int(wrong.sum())} joints are not finite{beyond} (first: person {person}, {name}); "
            "correct them, or leave these persons out"
        )


def positive(argument: str, length: Tensor | float) -> None:
    """Raise unless each length is a positive finite number of mm."""
    lengths = torch.as_tensor(length, dtype=torch.float64)
    wrong = ~((lengths > 0) & lengths.isfinite())
    if wrong.any():
        raise ValueError(f"{argument}: expected mm > 0, got {float(lengths[wrong].flatten()[0]):g}")


def scaled(poses: Tensor, length: Tensor | float) -> Tensor:
    """Return poses (N, 16, 3) in any unit, enlarged so that their 14 bones are ``length`` (N,) or () together.

    A pose without extent stays a point: no factor brings it to that size.
    """
    sums = bone_sum(poses)
    factor = torch.where(sums > 0, length / torch.where(sums > 0, sums, 1.0), 0.0)  # (N,)
    return poses * factor[:, None, None]


def align(
    how: str, prediction: Tensor, target: Tensor, used: Tensor, *, root: int = PELVIS, length: float = RELEASED_BONE_SUM
) -> Tensor:
    """Return predictions (N, K, 3) brought to their targets; joints outside ``used`` (N, K) have no say.

    Args:
        how: one of ``ALIGNMENTS``: "none"; "root_depth" moves along z until the roots' depths agree; "root" moves root
            on root; "rigid" and "similarity" are the proper motions of least squares, without and with a scale;
            "zhou" scales to a bone sum, moves root on root and puts the thorax between pelvis and upper neck.
        prediction, target: float64 (N, K, 3), finite where used.
        used: (N, K) bool, with the root where ``how`` needs it.
        root: joint that "root_depth", "root" and "zhou" go by.
        length: bone sum of "zhou" in the targets' unit.
    """
    _checks.choice("align", how, ALIGNMENTS)
    if how == "none":
        return prediction
    if how in ("rigid", "similarity"):
        return _moved(prediction, target, used, with_scale=how == "similarity")
    ready = scaled(prediction, length) if how == "zhou" else prediction
    shift = (target - ready)[:, root : root + 1]  # (N, 1, 3)
    if how == "root_depth":
        shift = shift * shift.new_tensor([0, 0, 1])
    ready = ready + shift
    return thorax_between(ready) if how == "zhou" else ready


def thorax_between(poses: Tensor) -> Tensor:
    """Return MPII poses (N, 16, 3) whose thorax is put halfway from pelvis to upper neck, as the backbone's code does.

    Human3.6M's joint in that place is the spine.
    """
    middle = (poses[:, PELVIS] + poses[:, UPPER_NECK]) / 2
    return torch.cat((poses[:, :THORAX], middle[:, None], poses[:, THORAX + 1 :]), dim=1)


def _moved(prediction: Tensor, target: Tensor, used: Tensor, *, with_scale: bool) -> Tensor:
    """Return each prediction under the rotation, shift and, if wanted, scale that bring it nearest its target.

    Nearest in squared distance over the used joints, by the singular values of their covariance. Mirror images are no
    motions: where one would fit better, the axis that costs least turns the other way. A point stays on the target's
    centroid; of several best rotations (points on a line) one is taken.
    """
    weight = used.to(prediction.dtype)[..., None]  # (N, K, 1)
    number = weight.sum(1, keepdim=True).clamp(min=1)
    prediction, target = torch.where(used[..., None], prediction, 0.0), torch.where(used[..., None], target, 0.0)
    middle, goal = (prediction.sum(1, keepdim=True) / number, target.sum(1, keepdim=True) / number)  # (N, 1, 3)
    centred, wanted = (prediction - middle) * weight, (target - goal) * weight
    left, spread, right = torch.linalg.svd(centred.mT @ wanted)  # (N, 3, 3), (N, 3), (N, 3, 3)
    proper = torch.ones_like(spread)
    proper[:, 2] = torch.linalg.det(left @ right).sign()
    rotation = (left * proper[:, None]) @ right  # (N, 3, 3), row vectors
    moved = centred @ rotation
    if with_scale:
        size = centred.square().sum((1, 2))
        factor = (spread * proper).sum(-1) / torch.where(size > 0, size, 1.0)
        moved = moved * torch.where(size > 0, factor, 0.0)[:, None, None]
    return moved + goal
