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
_HIPS = tuple(OPENPOSE.index(joint) for joint in ("r_hip", "l_hip"))
_ANKLES = tuple(OPENPOSE.index(joint) for joint in ("r_ankle", "l_ankle"))


@dataclass(frozen=True)
class Placement:
    """How a pose lies in a photograph: its point p comes to lie at scale * p + shift.

    Attributes:
        scale: pixels of the photograph per unit of the pose.
        shift: (x, y) in pixels of the photograph.
        sized_by: what told the scale: "trunk", "bones", "box" or, where nothing did, "frame".
        placed_by: what told the place: "feet" (on the ground on which the person stands), "hips", "box" or "frame".
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
    joints seen in both; else the pose fills `FILLED` of the photograph. What is then larger than the photograph shrinks
    to it, but not below `LEAST_SHRINK` of that size. Place: the hips lie on the person's hips (without, the middle of
    the box on that of its box), but a pose whose lowest joint is an ankle stands on the ground of a person of whom the
    same is true. At last it is moved into the photograph, with a margin, as far as it has room there.
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
    low, high, room = _box(pose[seen], size)
    if sized_by == "frame":
        scale = FILLED * min(room, max(size))  # of a single point any size is right
        middle = (np.array([size[1], size[0]]) - 1) / 2
        return _placement(scale, middle - scale * (low + high) / 2, sized_by, "frame", 1.0)
    scale = min(ratio, max(room, LEAST_SHRINK * ratio))
    shift, placed_by = _shift(pose, seen, body, body_seen, scale)
    free = np.stack([-scale * low, np.array([size[1], size[0]]) - 1 - scale * high])
    return _placement(scale, np.clip(shift, free.min(0), free.max(0)), sized_by, placed_by, scale / ratio)


def _box(points: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the corners of the box of points with its margin, and the scale with which it just fits a photograph."""
    low, high = points.min(0), points.max(0)
    margin = MARGIN * float((high - low).max())
    low, high = low - margin, high + margin
    return low, high, float(((np.array([size[1], size[0]]) - 1) / np.maximum(high - low, 1e-9)).min())


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
    hips = [joint for joint in _HIPS if seen[joint] and body_seen[joint]]
    if hips:
        placed_by, centre, target = "hips", pose[hips].mean(0), body[hips].mean(0)
    else:
        placed_by = "box"
        centre, target = (_middle(points[there]) for points, there in ((pose, seen), (body, body_seen)))
    shift = target - scale * centre
    if _stands(pose, seen) and _stands(body, body_seen):
        return np.array([shift[0], body[body_seen, 1].max() - scale * pose[seen, 1].max()]), "feet"
    return shift, placed_by


def _middle(points: np.ndarray) -> np.ndarray:
    return (points.min(0) + points.max(0)) / 2


def _stands(points: np.ndarray, known: np.ndarray) -> bool:
    """Whether the lowest joint of a pose is an ankle."""
    return int(np.where(known, points[:, 1], -np.inf).argmax()) in _ANKLES
