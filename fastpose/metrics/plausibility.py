"""Whether poses in space could be somebody's: measures that need no truth, only, for some, poses of other people.

Poses are (N, 16, 3) MPII joints in a right-handed frame (x right, y down, z away, as everywhere here), in any unit:
each measure is the same for a pose that is moved, turned or enlarged. None says that a pose is that of the photograph.
A pose without extent is implausible, never left out, so that nothing is gained by predicting a point.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastpose.metrics import _alignment
from fastpose.metrics._alignment import as_poses
from fastpose.metrics._arrays import ArrayLike
from fastpose.metrics.report import Result
from fastpose.skeletons import MPII, MPII_BONES

SEGMENTS = {
    "thigh": ("hip", "knee"),
    "shin": ("knee", "ankle"),
    "upper arm": ("shoulder", "elbow"),
    "forearm": ("elbow", "wrist"),
}
"""The rigid segments that a body has twice. Shoulders and hips are left out: collarbones and spine move."""

KNEE_LIMITS = (-15.0, 165.0)
"""Degrees of the knee's flexion, negative where it bends forwards. Textbook ranges end at 135 to 150 degrees, with up
to 10 of hyperextension; the margin for how joints are located is ours. In 15,711 poses of CMU's subjects 01 to 03
it runs from 0 to 160."""
ELBOW_LIMIT = 165.0
"""Degrees of the elbow's flexion, textbook 150 and the same margin; CMU's poses end at 150. Which way an elbow bends
cannot be told without the hand."""

SPHERE_CELLS = 256  # directions are sorted into so many, about 13 degrees apart
_ACROSS = 0.5  # least sine between thigh and hip axis for which a knee's forwards is known
_SIDES = ("r", "l")
_LIMBS = (("arm", ("shoulder", "elbow", "wrist")), ("leg", ("hip", "knee", "ankle")))


def bone_asymmetry(poses: ArrayLike) -> Result:
    """How much left and right differ: mean of 200 |l - r| / (l + r) over thigh, shin, upper arm and forearm, percent.

    0 for a symmetric body, 200 where one side has no length, and by definition where neither has. Rows by segment.

    Args:
        poses: (N, 16, 3) MPII joints in any unit.

    Raises:
        ValueError: a shape that does not fit, a joint that is not finite, or no pose.
    """
    joints = _checked(poses)
    lengths = torch.stack([_segment(joints, side) for side in _SIDES])  # (2, N, 4)
    total = lengths.sum(0)
    share = 200.0 * (lengths[0] - lengths[1]).abs() / torch.where(total > 0, total, 1.0)
    percent = torch.where(total > 0, share, 200.0)  # (N, 4)
    rows = dict(zip(SEGMENTS, percent.mean(0).tolist(), strict=True))
    sentence = "|left - right| / mean of both in percent, over thigh, shin, upper arm, forearm and persons"
    return Result("bone asymmetry", sentence, float(percent.mean()), len(joints), details={"rows": rows})


def _checked(poses: ArrayLike, argument: str = "prediction") -> Tensor:
    """Return poses as float64 (N, 16, 3), N > 0, all finite."""
    joints = as_poses(argument, poses, len(MPII))
    _alignment.finite(argument, joints, torch.ones(joints.shape[:2]).bool())
    if not len(joints):
        raise ValueError(f"{argument}: expected at least one pose, got none")
    return joints


def _segment(joints: Tensor, side: str) -> Tensor:
    """Return the lengths (N, 4) of one side's segments."""
    ends = [[MPII.index(f"{side}_{joint}") for joint in pair] for pair in SEGMENTS.values()]
    first, second = torch.tensor(ends).T
    return torch.linalg.vector_norm(joints[:, first] - joints[:, second], dim=-1)


# -------------------------------------------------------------------------------------------------------- proportions


@dataclass(frozen=True)
class Proportions:
    """What share of a body each of the 14 bones has, among reference poses.

    Attributes:
        shares: length of each of ``skeletons.MPII_BONES`` over that of all together, mean over the poses; sums to 1.
        spread: standard deviation of each.
        poses: how many there were.
    """

    shares: tuple[float, ...]
    spread: tuple[float, ...]
    poses: int

    @classmethod
    def from_poses(cls, poses: ArrayLike) -> Proportions:
        """Return the proportions of real poses (N, 16, 3); ``ValueError`` for one that is not finite or no body."""
        joints = _checked(poses, "poses")
        share = _shares(joints)
        if not bool(share.isfinite().all() and (share.mean(0) > 0).all()):
            raise ValueError("poses: expected bodies to take proportions from, got bones of no length")
        return cls(tuple(share.mean(0).tolist()), tuple(share.std(0, correction=0).tolist()), len(joints))


def _shares(joints: Tensor) -> Tensor:
    """Return each bone's length over the sum of the 14, (N, 14); NaN for a pose without extent."""
    first, second = torch.tensor(MPII_BONES).T
    lengths = torch.linalg.vector_norm(joints[:, first] - joints[:, second], dim=-1)
    return lengths / lengths.sum(-1, keepdim=True)


def bone_length_deviation(poses: ArrayLike, reference: Proportions) -> Result:
    """How far bones are from their usual share of the body: mean of |share / usual share - 1| over 14 bones, percent.

    A pose without extent counts 100 for each bone. Rows by bone, the two sides together.

    Args:
        poses: (N, 16, 3) MPII joints in any unit.
        reference: of the training poses.

    Raises:
        ValueError: a shape that does not fit, a joint that is not finite, or no pose.
    """
    joints = _checked(poses)
    usual = torch.tensor(reference.shares, dtype=torch.float64)
    percent = (100.0 * (_shares(joints) / usual - 1).abs()).nan_to_num(nan=100.0)  # (N, 14)
    bones = percent.mean(0).tolist()
    rows: dict[str, list[float]] = {}
    for (first, second), value in zip(MPII_BONES, bones, strict=True):
        rows.setdefault(_bone_row(first, second), []).append(value)
    sentence = (
        "|bone's share of the 14 bones together / its mean share among "
        f"{reference.poses:,} reference poses - 1| in percent, mean over bone x person"
    )
    return Result(
        "bone-length deviation",
        sentence,
        float(percent.mean()),
        len(joints),
        details={"rows": {row: sum(values) / len(values) for row, values in rows.items()}},
    )


def _bone_row(first: int, second: int) -> str:
    """Return the name of a bone without its side; its two ends in alphabetical order."""
    return "-".join(sorted(MPII.joints[end].removeprefix("l_").removeprefix("r_") for end in (first, second)))


# ------------------------------------------------------------------------------------------------------------- limits


def flexion(poses: ArrayLike) -> dict[str, Tensor]:
    """Return how far knees and elbows are bent in degrees, (N,) float64 each by joint: 0 is a straight limb.

    A knee that bends forwards is negative, down to -180. Forwards is up x right of the body (trunk and hip axis), as
    seen from the thigh; where the thigh points along the hip axis it is unknown and the flexion is taken as positive.
    Elbows have no sign. NaN where a segment has no length.
    """
    joints = _checked(poses)
    across, _, _ = _frame(joints, "hip")
    bent = {}
    for side in _SIDES:
        upper, lower = _directions(joints, side, ("hip", "knee", "ankle"))
        axis = across - (across * upper).sum(-1, keepdim=True) * upper  # (N, 3), its length the sine to the thigh
        turn = -(torch.linalg.cross(upper, lower) * axis).sum(-1)
        known = torch.linalg.vector_norm(axis, dim=-1) > _ACROSS
        angle = _angle(upper, lower)
        bent[f"{side}_knee"] = torch.where(known & (turn < 0), -_turned(turn, axis, upper, lower), angle)
    for side in _SIDES:
        bent[f"{side}_elbow"] = _angle(*_directions(joints, side, ("shoulder", "elbow", "wrist")))
    return bent


def _turned(turn: Tensor, axis: Tensor, upper: Tensor, lower: Tensor) -> Tensor:
    """Return by how many degrees the shin is turned forwards about the knee's axis, (N,) of 0 to 180."""
    sine = -turn / torch.linalg.vector_norm(axis, dim=-1)
    return torch.rad2deg(torch.atan2(sine, (upper * lower).sum(-1)))


def _angle(first: Tensor, second: Tensor) -> Tensor:
    """Return the angle between directions (N, 3) in degrees, (N,), exact near 0 and 180."""
    apart, together = (torch.linalg.vector_norm(each, dim=-1) for each in (first - second, first + second))
    return torch.rad2deg(2 * torch.atan2(apart, together))


def hinge_violations(poses: ArrayLike) -> Result:
    """Share of knees and elbows bent beyond ``KNEE_LIMITS`` and ``ELBOW_LIMIT``, percent: "hinge violations".

    A segment without length is a violation. ``per_joint`` by joint; ``details["poses"]``: percent of poses with any.

    Args:
        poses: (N, 16, 3) MPII joints in any unit.

    Raises:
        ValueError: a shape that does not fit, a joint that is not finite, or no pose.
    """
    bent = flexion(poses)
    least, greatest = KNEE_LIMITS
    fine = {
        joint: (angle >= least) & (angle <= greatest) if "knee" in joint else angle <= ELBOW_LIMIT
        for joint, angle in bent.items()
    }
    sentence = (
        f"knees bent less than {least:g} (forwards) or more than {greatest:g} degrees and elbows more than "
        f"{ELBOW_LIMIT:g}, in percent of both"
    )
    return _violations("hinge violations", sentence, fine)


def _violations(name: str, sentence: str, fine: dict[str, Tensor]) -> Result:
    """Return the percentage of joints that are not ``fine`` (N,), which NaN never is."""
    wrong = ~torch.stack(list(fine.values()), -1)  # (N, J)
    return Result(
        name,
        sentence,
        100.0 * float(wrong.double().mean()),
        wrong.numel(),
        per_joint=dict(zip(fine, (100.0 * wrong.double().mean(0)).tolist(), strict=True)),
        details={"poses": 100.0 * float(wrong.any(1).double().mean()), "persons": len(wrong)},
    )


@dataclass(frozen=True, eq=False)
class JointLimits:
    """Where upper arms, forearms, thighs and shins point among reference poses: limits learned, not written down.

    Directions are taken in the body's own frame (arms: shoulder axis and trunk; legs: hip axis and trunk), left limbs
    mirrored, and sorted into cells of the sphere; a lower segment is judged together with its upper one, as how far
    an elbow or knee goes depends on where the limb points (pose-conditioned limits, Akhter and Black 2015; cells in
    place of their half spaces are ours).

    Cells make the border a seam: a direction is seen from its cell's middle, up to 12 degrees away. With the usual 256
    cells and 20 degrees, one in eight of those 14 degrees from the only reference is out already, half of those at 20
    degrees, and one in six at 25 degrees is still in; none beyond 44.

    Attributes:
        arm, leg: bool (C, C), whether an upper and a lower segment were seen in these cells, or near them.
        tolerance: degrees within which a seen cell vouches for its neighbours, from middle to middle.
        poses: how many reference poses there were.
    """

    arm: np.ndarray
    leg: np.ndarray
    tolerance: float
    poses: int

    @classmethod
    def from_poses(cls, poses: ArrayLike, *, tolerance: float = 20.0, cells: int = SPHERE_CELLS) -> JointLimits:
        """Return the limits of real poses (N, 16, 3).

        Raises:
            ValueError: a joint that is not finite, no pose, or less than one cell or 0 degrees.
        """
        if cells < 1 or not 0 <= tolerance < 90:
            raise ValueError(f"limits: expected cells >= 1 and a tolerance in [0, 90), got {cells} and {tolerance}")
        joints = _checked(poses, "poses")
        sphere = _sphere(cells)
        near = (sphere @ sphere.T >= np.cos(np.deg2rad(tolerance)) - 1e-9).double()  # (C, C)
        tables = {}
        for limb, names in _LIMBS:
            seen = torch.zeros(cells, cells, dtype=torch.float64)
            for side in _SIDES:
                upper, lower, whole = _cells(joints, side, names, sphere)
                seen[upper[whole], lower[whole]] = 1
            tables[limb] = (near @ seen @ near > 0).numpy()
        return cls(tables["arm"], tables["leg"], float(tolerance), len(joints))


def joint_limit_violations(poses: ArrayLike, limits: JointLimits) -> Result:
    """Share of joints outside what reference poses do, percent: "joint-limit violations".

    Shoulder and hip: no reference pose's limb points there. Elbow and knee: none does with the lower segment like
    this; not counted where the upper segment is out already. Segments, hips or shoulders without extent are out.
    ``per_joint`` by joint; ``details["poses"]``: percent of poses with any.

    Args:
        poses: (N, 16, 3) MPII joints in any unit.
        limits: of the training poses.

    Raises:
        ValueError: a shape that does not fit, a joint that is not finite, or no pose.
    """
    joints = _checked(poses)
    fine = {}
    for limb, names in _LIMBS:
        table = torch.from_numpy(limits.arm if limb == "arm" else limits.leg)  # (C, C)
        for side in _SIDES:
            upper, lower, whole = _cells(joints, side, names, _sphere(len(table)))
            reached = table.any(1)[upper]  # (N,)
            fine[f"{side}_{names[0]}"] = reached & whole
            fine[f"{side}_{names[1]}"] = (table[upper, lower] | ~reached) & whole
    cells = len(limits.arm)
    apart = np.rad2deg(np.sqrt(4 * np.pi / cells))
    sentence = (
        f"limbs that point where none of {limits.poses:,} reference poses points within about {limits.tolerance:g} "
        f"degrees (of {cells} cells, {apart:.0f} degrees apart), in the body's frame, the lower segment together with "
        "the upper; percent of shoulders, elbows, hips and knees"
    )
    return _violations("joint-limit violations", sentence, fine)


def _cells(joints: Tensor, side: str, names: tuple[str, str, str], sphere: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the cells (N,) of a limb's upper and lower direction, and whether (N,) both and the body have extents."""
    frame = torch.stack(_frame(joints, names[0]), -1)  # (N, 3, 3), columns right, up, back
    mirror = frame.new_tensor([1 if side == "r" else -1, 1, 1])
    own = [(direction[:, None] @ frame)[:, 0] * mirror for direction in _directions(joints, side, names)]  # (N, 3)
    whole = own[0].isfinite().all(-1) & own[1].isfinite().all(-1)
    upper, lower = ((direction.nan_to_num(nan=0.0) @ sphere.T).argmax(-1) for direction in own)
    return upper, lower, whole


def _directions(joints: Tensor, side: str, names: tuple[str, str, str]) -> tuple[Tensor, Tensor]:
    """Return the unit directions (N, 3) of a limb's upper and lower segment, outwards; NaN without length."""
    start, middle, end = (joints[:, MPII.index(f"{side}_{name}")] for name in names)
    return _unit(middle - start), _unit(end - middle)


def _frame(joints: Tensor, joint: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return the body's right, up and back (N, 3) by the axis of its hips or shoulders and its trunk; NaN without."""
    right = _unit(joints[:, MPII.index(f"r_{joint}")] - joints[:, MPII.index(f"l_{joint}")])
    trunk = joints[:, _alignment.UPPER_NECK] - joints[:, _alignment.PELVIS]
    up = _unit(trunk - (trunk * right).sum(-1, keepdim=True) * right)
    return right, up, torch.linalg.cross(right, up)


def _unit(vectors: Tensor) -> Tensor:
    """Return vectors (N, 3) of length 1; NaN for those of length 0."""
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors / torch.where(length > 0, length, torch.nan)


def _sphere(cells: int) -> Tensor:
    """Return so many directions, evenly spread over the sphere along a spiral by the golden angle, (C, 3)."""
    index = torch.arange(cells, dtype=torch.float64)
    height = 1 - (2 * index + 1) / cells
    turn = index * np.pi * (3 - np.sqrt(5))
    radius = (1 - height.square()).sqrt()
    return torch.stack((radius * turn.cos(), radius * turn.sin(), height), -1)
