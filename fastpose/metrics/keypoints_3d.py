"""MPJPE, 3DPCK and its AUC of joints in space, each as a named protocol, and how millimetres come out of a crop.

Poses are (N, K, 3) as (x, y, z) with x right, y down and z away from the camera; truth in millimetres. Tensors and
arrays are accepted and never changed; arithmetic is float64. A joint without a label is masked. A prediction that is
not finite is an error for MPJPE, which has no greatest value, and wrong for 3DPCK.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastpose import _checks, skeletons
from fastpose.metrics import _alignment
from fastpose.metrics._alignment import ALIGNMENTS as ALIGNMENTS
from fastpose.metrics._alignment import PELVIS as PELVIS
from fastpose.metrics._alignment import RELEASED_BONE_SUM as RELEASED_BONE_SUM
from fastpose.metrics._alignment import as_poses
from fastpose.metrics._alignment import thorax_between as thorax_between
from fastpose.metrics._arrays import ArrayLike, as_double, as_lengths, as_points
from fastpose.metrics.accumulate_3d import BONE_SUM_NAME as BONE_SUM_NAME
from fastpose.metrics.accumulate_3d import MPJPE_NAMES as MPJPE_NAMES
from fastpose.metrics.accumulate_3d import MPJPEAccumulator, PCK3DAccumulator
from fastpose.metrics.accumulate_3d import joint_errors as joint_errors
from fastpose.metrics.report import Result
from fastpose.skeletons import MPII, Skeleton

_ROUNDS = 100  # of the search for a pose's own scale; each divides the rest of the error by ten and more
_SETTLED = 1e-12
_LEAST_SCALE = 0.1  # of that at the root: perspective moves it by half at most, and absurd depths ask for 0


def mpjpe(
    prediction: ArrayLike,
    target: ArrayLike,
    visibility: ArrayLike | None = None,
    *,
    align: str = "root",
    actions: Sequence[str] | None = None,
    average: str = "samples",
    skeleton: str | Skeleton = MPII,
    bone_sum: float = RELEASED_BONE_SUM,
) -> Result:
    """Mean per joint position error, in the targets' unit (mm), under one protocol.

    Args:
        prediction, target: (N, K, 3) joints in one frame; the prediction in any unit for "similarity" and "zhou".
        visibility: (N, K), > 0 where the joint is labelled; None counts all.
        align: what comes before the error is taken, and with it the name:
            "root_depth": the pelvis' depth alone is aligned, as system 002 prints: "MPJPE #1 (root depth)";
            "root": pelvis on pelvis, the usual protocol 1: "MPJPE (root)";
            "similarity": rotation, shift and scale of each pose, the usual protocol 2: "MPJPE #2 (similarity)";
            "rigid": rotation and shift, as system 002 prints protocol 2: "MPJPE #2 (rigid)";
            "zhou": 14 bones scaled to ``bone_sum``, pelvis on pelvis, the thorax between pelvis and upper neck, as the
            backbone's code does with the joints of :func:`published_joints`: "MPJPE (Zhou)", or with another sum
            "MPJPE (bone sum)";
            "none": as given: "MPJPE".
        actions: what each of the N persons does; gives rows by action and their mean.
        average: "samples" (mean over joint x person) or "actions" (unweighted mean of the actions).
        skeleton: the K joints, by name or itself; rows of limbs follow from its names.
        bone_sum: for "zhou".

    Raises:
        ValueError: shapes differ, a labelled joint is not finite, nothing is labelled, or a bone sum is no length.
    """
    accumulator = MPJPEAccumulator(
        align, actions=sorted(set(actions or ())), average=average, skeleton=skeleton, bone_sum=bone_sum
    )
    accumulator.update(prediction, target, visibility, actions)
    return accumulator.result()


def pck_3d(
    prediction: ArrayLike,
    target: ArrayLike,
    visibility: ArrayLike | None = None,
    *,
    actions: Sequence[str] | None = None,
    threshold: float = 150.0,
) -> Result:
    """Percentage of joints within ``threshold`` mm of their targets, pelvis on pelvis: "3DPCK@150mm".

    Args:
        prediction, target: (N, 16, 3) MPII joints in mm; 14 count, as in MPI-INF-3DHP's script.
        visibility: (N, 16), > 0 where the joint is labelled; None counts all.
        actions: what each person does; gives rows by activity.
        threshold: in mm, finite.

    Raises:
        ValueError: shapes differ, a labelled target is not finite, or nothing is labelled.
    """
    return _counted(prediction, target, visibility, actions, threshold).result()


def auc_3d(
    prediction: ArrayLike,
    target: ArrayLike,
    visibility: ArrayLike | None = None,
    *,
    actions: Sequence[str] | None = None,
    maximum: float = 150.0,
    step: float = 5.0,
) -> Result:
    """Mean of 3DPCK over the thresholds 0, ``step``, ..., ``maximum`` mm, in percent: "3DPCK AUC"; see `pck_3d`.

    Raises ``ValueError`` as there, and for a maximum that is no multiple of the step.
    """
    return _counted(prediction, target, visibility, actions, maximum=maximum, step=step).auc()


def _counted(
    prediction: ArrayLike,
    target: ArrayLike,
    visibility: ArrayLike | None,
    actions: Sequence[str] | None,
    threshold: float = 150.0,
    *,
    maximum: float = 150.0,
    step: float = 5.0,
) -> PCK3DAccumulator:
    accumulator = PCK3DAccumulator(threshold, maximum=maximum, step=step, actions=sorted(set(actions or ())))
    accumulator.update(prediction, target, visibility, actions)
    return accumulator


# ------------------------------------------------------------------------------------------------- from crops to space


def published_joints(heatmaps: Tensor, depth: ArrayLike) -> Tensor:
    """Return joints in cells of the heatmaps as the backbone's code reads them, (B, K, 3) float64.

    The greatest cell, moved by a quarter towards the higher neighbour, plus a half; z is (depth + 1) / 2 of the side.
    As released, x and y are exchanged where the neighbours are looked up, and equal ones count as higher.

    Args:
        heatmaps: (B, K, S, S).
        depth: (B, K), -1 to 1 over the crop.
    """
    _checks.tensor("heatmaps", heatmaps, "(B, K, S, S)", ranks=(4,))
    batch, joints, side, width = heatmaps.shape
    if side != width or side < 3:
        raise ValueError(f"heatmaps: expected square planes of 3 cells or more, got {tuple(heatmaps.shape)}")
    depths = as_double("depth", depth)
    if depths.shape != (batch, joints):
        raise ValueError(f"depth: expected {(batch, joints)} as the heatmaps have, got {tuple(depths.shape)}")
    planes = heatmaps.detach().to("cpu", torch.float64)
    peak = planes.flatten(2).argmax(-1)  # (B, K), the first of equal ones
    x, y = peak % side, peak // side
    inside = (x > 0) & (x < side - 1) & (y > 0) & (y < side - 1)
    row, column = x.clamp(1, side - 2), y.clamp(1, side - 2)  # exchanged, as released

    def at(down: int, right: int) -> Tensor:
        return planes.flatten(2).gather(2, ((row + down) * side + column + right)[..., None])[..., 0]

    uphill = torch.stack((at(1, 0) >= at(-1, 0), at(0, 1) >= at(0, -1)), -1).double() * 2 - 1  # (B, K, 2)
    cells = torch.stack((x, y), -1) + 0.25 * uphill * inside[..., None] + 0.5
    return torch.cat((cells, (depths[..., None] + 1) / 2 * side), dim=-1)


def scale_to(poses: ArrayLike, bone_sum: ArrayLike | float) -> Tensor:
    """Return poses (N, 16, 3) in any unit, enlarged so that their 14 bones have ``bone_sum`` together, float64.

    So the backbone of system 002 recovers millimetres: 4296.99 for everybody, the mean of the training poses. A pose
    without extent stays a point.

    Args:
        poses: (N, 16, 3) MPII joints in a frame of equal units on all axes, such as the crop's cube.
        bone_sum: (N,) or one number, in mm.

    Raises:
        ValueError: shapes that do not fit, a joint that is not finite, or a sum that is no length.
    """
    joints = as_poses("prediction", poses, len(MPII))
    _alignment.finite("prediction", joints, torch.ones(joints.shape[:2]).bool())
    lengths = as_lengths("bone_sum", bone_sum, len(joints))
    _alignment.positive("bone_sum", lengths)
    return _alignment.scaled(joints, lengths)


def back_project(
    keypoints: ArrayLike, depth: ArrayLike, root_depth: ArrayLike, intrinsics: ArrayLike, *, scale: str = "bone_sum"
) -> Tensor:
    """Return joints in the camera frame, (N, K, 3) float64 in mm, from pixels and the true depth of the pelvis.

    Args:
        keypoints: (N, K, 2) pixels of the photograph.
        depth: (N, K), how far behind the pelvis each joint is, in pixels of the photograph.
        root_depth: (N,), mm from the camera to the pelvis along z.
        intrinsics: (N, 3, 3) or (3, 3), camera frame to pixels.
        scale: pixels per mm of ``depth``: focal length over ``root_depth`` ("root"), or that scale under which the 14
            bones of the resulting pose, seen along z, are as long as those of the photograph ("bone_sum": what
            training with that scale asks for, so that a perfect prediction has no error; "root" where they have no
            extent; a tenth of "root" at least, which no pose comes near).

    Raises:
        ValueError: shapes that do not fit, a pelvis that is not in front of the camera, values that are not finite.
    """
    _checks.choice("scale", scale, ("bone_sum", "root"))
    points, behind = as_points("keypoints", keypoints), as_double("depth", depth)
    if behind.shape != points.shape[:2]:
        raise ValueError(f"depth: expected {tuple(points.shape[:2])} as the key points have, got {tuple(behind.shape)}")
    distance, cameras = as_lengths("root_depth", root_depth, len(points)), _cameras(intrinsics, len(points))
    if not bool((distance > 0).all() and distance.isfinite().all()):
        raise ValueError(f"root_depth: expected mm in front of the camera, least is {distance.min().item():g}")
    _alignment.finite(
        "prediction", torch.cat((points, behind[..., None]), -1), torch.ones_like(behind, dtype=torch.bool)
    )
    focal = (cameras[:, 0, 0] + cameras[:, 1, 1]) / 2  # (N,)
    at_root = pixels = focal / distance  # (N,) pixels per mm
    for _ in range(_ROUNDS if scale == "bone_sum" else 0):
        before, joints = pixels, _placed(points, behind, distance, cameras, pixels)
        pixels = _seen_scale(points, joints, at_root).maximum(_LEAST_SCALE * at_root)
        if bool(((pixels - before).abs() <= _SETTLED * pixels).all()):
            break
    return _placed(points, behind, distance, cameras, pixels)


def _cameras(intrinsics: ArrayLike, persons: int) -> Tensor:
    """Return intrinsics as float64 (N, 3, 3); ``ValueError`` unless they are a pinhole camera's."""
    cameras = as_double("intrinsics", intrinsics)
    if cameras.dim() == 2:
        cameras = cameras.expand(persons, *cameras.shape)
    if tuple(cameras.shape) != (persons, 3, 3):
        raise ValueError(f"intrinsics: expected ({persons}, 3, 3) or (3, 3), got {tuple(cameras.shape)}")
    fine = cameras.isfinite().all() and (cameras[:, [0, 1], [0, 1]] > 0).all()
    if not bool(fine and (torch.linalg.det(cameras) > 0).all()):
        raise ValueError("intrinsics: expected pinhole cameras with positive focal lengths; correct them")
    return cameras


def _placed(points: Tensor, behind: Tensor, distance: Tensor, cameras: Tensor, pixels: Tensor) -> Tensor:
    """Return joints (N, K, 3) on the rays of their pixels, at the depths that so many pixels per mm (N,) give."""
    z = (distance[:, None] + behind / pixels[:, None]).clamp(min=1e-3 * distance[:, None])  # (N, K), never behind
    rays = torch.linalg.solve(cameras, torch.cat((points, torch.ones_like(points[..., :1])), -1).mT).mT  # (N, K, 3)
    return rays / rays[..., 2:] * z[..., None]


def _seen_scale(points: Tensor, joints: Tensor, otherwise: Tensor) -> Tensor:
    """Return the pixels per mm (N,) of a scaled-orthographic view: bones in the photograph over those seen along z."""
    flat = torch.cat((points, torch.zeros_like(points[..., :1])), -1)  # (N, K, 3)
    shown, across = skeletons.bone_sum(flat), skeletons.bone_sum(joints * joints.new_tensor([1, 1, 0]))
    known = (shown > 0) & (across > 0)
    return torch.where(known, shown / torch.where(known, across, 1.0), otherwise)
