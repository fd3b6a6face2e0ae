"""What the training poses of system 002 say about bodies: their size, their proportions, and how far limbs go."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np

from fastpose.metrics.keypoints_3d import RELEASED_BONE_SUM
from fastpose.metrics.plausibility import JointLimits, Proportions
from fastpose.skeletons import bone_sum
from fastpose.training import pose3d_data

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastpose.data.person import Person
    from fastpose.training.pose3d_data import Pose3dDataConfig

_POSES = 20_000  # at most so many training poses teach the limits, evenly taken

_log = logging.getLogger("fastpose.training")


@dataclass(frozen=True, eq=False)
class Reference:
    """What the poses of a training set say about bodies.

    Attributes:
        bone_sum: mean length in mm of the 14 bones together; Human3.6M's where there are no poses.
        poses: (N, 16, 3) in mm, what the measures of plausibility learn from; None where there are none.
    """

    bone_sum: float = RELEASED_BONE_SUM
    poses: np.ndarray | None = None

    @cached_property
    def proportions(self) -> Proportions | None:
        """How long bones are beside each other; ``ValueError`` where no pose has any length."""
        return None if self.poses is None else Proportions.from_poses(self.poses)

    @cached_property
    def limits(self) -> JointLimits | None:
        """How far limbs go; ``ValueError`` where the poses do not show it."""
        return None if self.poses is None else JointLimits.from_poses(self.poses)


def reference(config: Pose3dDataConfig, length: float = 0.0) -> Reference:
    """Return what the training poses of a configuration say, read once.

    Of a training set that is not there, only the mean ``length`` in mm of the 14 bones together is known: what would be
    learned is left out, with a line in the log. Raises ``ValueError`` where it is not known either (0), and for a
    training set that is there and damaged.
    """
    try:
        return _taught(config)
    except FileNotFoundError as error:
        if not length:
            raise ValueError(
                "test.bone_sum: expected the length in mm of the 14 bones together, since the training set, which "
                f"tells it, cannot be read ({error})"
            ) from error
        _log.warning(
            "bone-length deviation and joint-limit violations need the training set and are left out: %s", error
        )
        return Reference(length)


@lru_cache(maxsize=4)
def _taught(config: Pose3dDataConfig) -> Reference:
    posed = ((one.pose3d, bool((one.visibility > 0).all())) for one in _persons(config))  # may be made one by one
    found = [(pose.joints, whole) for pose, whole in posed if pose is not None]
    known = [joints for joints, whole in found if whole] or [joints for joints, _ in found]
    if not known:
        return Reference()
    poses = np.stack(known).astype(np.float64)  # (N, 16, 3)
    chosen = poses[np.unique(np.linspace(0, len(poses) - 1, _POSES).round().astype(int))]
    return Reference(float(bone_sum(poses).mean()), chosen)


def _persons(config: Pose3dDataConfig) -> Sequence[Person]:
    """Return who is trained on in 3D; ``FileNotFoundError`` where that set is not there."""
    if not pose3d_data.trains_on_poses(config):
        return []
    if not config.root and config.name != "sample-mocap":
        raise FileNotFoundError("data.root names no folder")
    source = pose3d_data.laboratory(config, "train")
    return [] if source is None else source.persons
