"""Recorded human motion: readers of ASF/AMC, BVH and NumPy archives, and the piece that is bundled.

``read`` gives a ``Motion``: joint positions in metres, Y up, in the file's own skeleton; ``to_skeleton`` its points in
one of this package's. ``find`` lists the clips under a folder without reading them.
"""

from __future__ import annotations

from fastpose.data.motion.clips import Motion
from fastpose.data.motion.joint_maps import to_skeleton
from fastpose.data.motion.library import SAMPLE, Clip, find, read, sample
from fastpose.data.motion.units import UNITS

__all__ = ["SAMPLE", "UNITS", "Clip", "Motion", "find", "read", "sample", "to_skeleton"]
