"""A generated pose laid over the person of a photograph: as large as its body, and where it stands (ours)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastpose.skeletons import OPENPOSE

LEAST_SHRINK = 2 / 3
"""A pose that is larger than the photograph is made smaller by so much at most, as the person keeps its size."""

FILLED = 0.8
"""Of the photograph, by a pose whose size nothing tells."""

MARGIN = 0.05
"""Round a pose, as a share of its longer side, that shall lie in the photograph too: hair, hands and feet."""

_FORESHORTENED = 0.05
"""A bone shorter than this share of its pose points at the camera and tells no size."""

_MOST_APART = 2.0
"""A trunk that differs more from the other bones is foreshortened in one of the poses."""


def _bones(*pairs: str) -> tuple[tuple[int, int], ...]:
    ends = [pair.split("-") for pair in pairs]
    return tuple((OPENPOSE.index(first), OPENPOSE.index(last)) for first, last in ends)


# The shoulders' width tells where a person turns, not the size.
_TRUNK = _bones("neck-r_hip", "neck-l_hip")
_LIMBS = _bones(
    *("r_hip-r_knee", "r_knee-r_ankle", "l_hip-l_knee", "l_knee-l_ankle"),
    *("r_shoulder-r_elbow", "r_elbow-r_wrist", "l_shoulder-l_elbow", "l_elbow-l_wrist"),
)


def _joints(*names: str) -> list[int]:
    return [OPENPOSE.index(name) for name in names]


_ANKLES = _joints("r_ankle", "l_ankle")
_LEGS = (_joints("r_hip", "l_hip"), _joints("r_knee", "l_knee"), _ANKLES)
_ANCHORS = {
    "hips": _LEGS[0],
    "neck": _joints("neck"),
    "shoulders": _joints("r_shoulder", "l_shoulder"),
    "joints": list(range(len(OPENPOSE))),
}
"""What of a pose lies on the same of the person, the first that both show."""


@dataclass(frozen=True)
class Placement:
    """How a pose lies in a photograph: its point p comes to lie at scale * p + shift.

    Attributes:
        scale: pixels of the photograph per unit of the pose.
        shift: (x, y) in pixels of the photograph.
        sized_by: what told the scale: "trunk", "bones", "box" or, where nothing did, "frame".
        placed_by: what told the place: "ground" (that on which the person stands), "hips", "neck", "shoulders" or
            "joints" (all that both show) on the same of the person, or, where nothing did, "frame".
        shrunk: the scale as a share of that of the person's body; below 1 where the pose had no room.
    """

    scale: float
    shift: tuple[float, float]
    sized_by: str
    placed_by: str
    shrunk: float = 1.0

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Return points (..., 2) of the pose in pixels of the photograph."""
        return self.scale * np.asarray(points, np.float64) + np.array(self.shift)


def place(
    points: np.ndarray, known: np.ndarray, own: np.ndarray, own_known: np.ndarray, size: tuple[int, int]
) -> Placement:
    """Return where a pose lies on the person of a photograph.

    Size: the person's own. The ratio of the trunks' lengths (neck to hip) tells it, or the median over all bones seen
    in both poses where the trunk is not, or is foreshortened in one of them; else the heights of the boxes of the
    joints seen in both; else the pose fills `FILLED` of the photograph. What is then larger than its room shrinks to
    it, but not below `LEAST_SHRINK` of that size.

    Place: hips lie on the person's hips; where one of the two shows none, neck lies on neck, or shoulders on shoulders,
    or the box of the joints that both show on theirs. Where the ground is known, as the lowest joint of the person is
    an ankle, the lowest joint of the pose comes to lie on it, whatever it is: of one that sits or lies a hip, of a
    handstand a wrist. A pose tells where its legs end by both ankles, or by one that is its lowest joint; else (no
    ankle, or a raised one alone) its hips stay on the hips.

    Room: the photograph, and as far beyond as the person itself is. The pose is moved into it at last, with a margin,
    as far as it fits; but hips, knees or ankles that the photograph does not show of the person may lie outside.
    The aspect is kept.

    Args:
        points, known: OpenPose's joints (18, 2) of the pose, (x, y) in any unit, and which are there (18,).
        own, own_known: the same of the person, in pixels of the photograph.
        size: (H, W) of the photograph.

    Raises:
        ValueError: no joint of the pose is there.
    """
    pose, seen = np.asarray(points, np.float64), np.asarray(known) > 0
    body, body_seen = np.asarray(own, np.float64), np.asarray(own_known) > 0
    if not seen.any():
        raise ValueError("points: expected a pose with a joint at least, got none")
    ratio, sized_by = _ratio(pose, seen, body, body_seen)
    photograph = np.array([[0, 0], [size[1] - 1, size[0] - 1]], float)
    if sized_by == "frame":
        box = _box(pose[seen])
        scale = FILLED * min(_fit(box, photograph), max(size))  # of a single point any size is right
        return _placement(scale, photograph.mean(0) - scale * box.mean(0), sized_by, "frame", 1.0)
    box, own_box = _box(pose[_bound(seen, body_seen)]), _box(body[body_seen])
    room = np.stack([np.minimum(photograph[0], own_box[0]), np.maximum(photograph[1], own_box[1])])
    scale = min(ratio, max(_fit(box, room), LEAST_SHRINK * ratio))
    shift, placed_by = _shift(pose, seen, body, body_seen, scale)
    free = room - scale * box
    return _placement(scale, np.clip(shift, free.min(0), free.max(0)), sized_by, placed_by, scale / ratio)


def _bound(seen: np.ndarray, body_seen: np.ndarray) -> np.ndarray:
    """Return which joints of a pose are to lie in the room: all but those of legs that the person does not show."""
    bound = seen.copy()
    for pair in _LEGS:
        bound[pair] &= body_seen[pair].any()
    return bound if bound.any() else seen


def _box(points: np.ndarray) -> np.ndarray:
    """Return the corners (2, 2) of the box of points with its margin, the low one first."""
    low, high = points.min(0), points.max(0)
    margin = MARGIN * float((high - low).max())
    return np.stack([low - margin, high + margin])


def _fit(box: np.ndarray, room: np.ndarray) -> float:
    """Return the scale with which a box just fits into another."""
    return float((np.ptp(room, axis=0) / np.maximum(np.ptp(box, axis=0), 1e-9)).min())


def _placement(scale: float, shift: np.ndarray, sized_by: str, placed_by: str, shrunk: float) -> Placement:
    return Placement(float(scale), (float(shift[0]), float(shift[1])), sized_by, placed_by, float(shrunk))


def _ratio(pose: np.ndarray, seen: np.ndarray, body: np.ndarray, body_seen: np.ndarray) -> tuple[float, str]:
    """Return how many pixels of the person a unit of the pose is, and what told it."""
    trunk, limbs = (_ratios(bones, pose, seen, body, body_seen) for bones in (_TRUNK, _LIMBS))
    if trunk or limbs:
        every, straight = float(np.median(trunk + limbs)), float(np.median(trunk)) if trunk else 0.0
        return (straight, "trunk") if every / _MOST_APART <= straight <= every * _MOST_APART else (every, "bones")
    both = seen & body_seen
    heights = [float(np.ptp(points[both, 1])) if both.any() else 0.0 for points in (pose, body)]
    return (heights[1] / heights[0], "box") if min(heights) > 0 else (0.0, "frame")


def _ratios(
    bones: tuple[tuple[int, int], ...], pose: np.ndarray, seen: np.ndarray, body: np.ndarray, body_seen: np.ndarray
) -> list[float]:
    """Return the ratio of the lengths of each bone that both poses show."""
    least = [
        _FORESHORTENED * float(np.ptp(points[there], axis=0).max())
        for points, there in ((pose, seen), (body, body_seen))
        if there.any()
    ]
    found = []
    for bone in map(list, bones):
        if not (seen[bone].all() and body_seen[bone].all()):
            continue
        lengths = [float(np.linalg.norm(points[bone[0]] - points[bone[1]])) for points in (pose, body)]
        if all(length > limit for length, limit in zip(lengths, least, strict=True)):
            found.append(lengths[1] / lengths[0])
    return found


def _shift(
    pose: np.ndarray, seen: np.ndarray, body: np.ndarray, body_seen: np.ndarray, scale: float
) -> tuple[np.ndarray, str]:
    """Return where the pose's origin lies in the photograph (2,), and what told it."""
    common = seen & body_seen
    placed_by = next(name for name, joints in _ANCHORS.items() if common[joints].any())
    both = [joint for joint in _ANCHORS[placed_by] if common[joint]]
    shift = _middle(body[both]) - scale * _middle(pose[both])
    ends = seen[_ANKLES].all() or _stands(pose, seen)  # of the legs; the leg that is not seen may reach further down
    if ends and _stands(body, body_seen):
        return np.array([shift[0], body[body_seen, 1].max() - scale * pose[seen, 1].max()]), "ground"
    return shift, placed_by


def _middle(points: np.ndarray) -> np.ndarray:
    return (points.min(0) + points.max(0)) / 2


def _stands(points: np.ndarray, known: np.ndarray) -> bool:
    """Whether the lowest joint of a body is an ankle."""
    return int(np.where(known, points[:, 1], -np.inf).argmax()) in _ANKLES
