"""``fastpose data check`` for recorded motion: files, clips, frames, what each split would hold, first offenders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastpose import skeletons
from fastpose.data import motion
from fastpose.data.findings import CROSS, TICK, CheckReport, finding, mark
from fastpose.data.motion import units
from fastpose.data.motion.library import SAMPLE, SUFFIXES, others
from fastpose.data.rendered_mocap import SAMPLE_HELD_OUT, chosen_clips

CHECKS = ("mocap", "sample-mocap")
"""The names that ``check`` knows."""

# From the ankle to the crown, bone by bone.
_CHAIN = ("r_ankle", "r_knee", "r_hip", "pelvis", "thorax", "upper_neck", "head_top")

__all__ = ["CHECKS", "SAMPLE", "check"]


class _Found(NamedTuple):
    """A clip that can be posed: its person's height in metres, and the unit of length taken."""

    name: str
    frames: int
    fps: float
    height: float
    unit: str


def check(name: str, root: Path) -> CheckReport:
    """Check the motion under a folder, or in a file; everything wrong with it is in the lines."""
    lines = [f"{mark(root.exists())} {root}" + ("/" if root.is_dir() or not root.suffix else "")]
    try:
        ready = _motion(root, SAMPLE_HELD_OUT if name == "sample-mocap" else (), lines)
    except (ValueError, FileNotFoundError) as error:
        lines.append(f"{CROSS} {error}")
        ready = ""
    lines.append(f"{name}: {ready or 'not ready, see the crosses above'}")
    return CheckReport(name, str(root), bool(ready), tuple(lines))


def _motion(root: Path, held_out: Sequence[str], lines: list[str]) -> str:
    """Append files, clips and splits; return what is ready, "" when a clip is broken."""
    clips = motion.find(root)
    counts = Counter(path.suffix.lower() for path in {clip.path for clip in clips})
    kinds = ", ".join(f"{counts[suffix]:,} {suffix}" for suffix in SUFFIXES if counts[suffix])
    lines.append(f"{TICK} files: {kinds}")
    finding(
        lines,
        ".npz files left out, which lack joint_names or parents",
        [path.name for path in others(root)],
        fatal=False,
    )
    found, broken = _read_all(clips)
    minutes = sum(clip.frames / clip.fps for clip in found) / 60
    frames = sum(clip.frames for clip in found)
    lines.append(f"{mark(not broken)} clips: {len(found):,} readable, {frames:,} frames, {minutes:.1f} minutes")
    if found:
        lines.append(f"{TICK} persons: {_sizes(found)}")
    finding(lines, "clips unreadable", broken, fatal=True)
    held = [split for split in ("train", "val") if _split(root, split, held_out, lines)]
    if broken or not held:
        return ""
    return "ready" if len(held) == 2 else f"ready for: {held[0]}; for the other split add clips, or ask for split=all"


def _read_all(clips: list[motion.Clip]) -> tuple[list[_Found], list[str]]:
    """Return what is known of every clip that can be posed, and the sentence for every other one."""
    found, broken = [], []
    for clip in clips:
        try:
            whole = clip.read()
            joints = motion.to_skeleton(whole, "mpii")
        except (ValueError, OSError) as error:
            broken.append(f"{clip.name} ({error})")
        else:
            found.append(_Found(clip.name, len(whole), whole.fps, _height(joints), units.name(whole.unit)))
    return found, broken


def _height(joints: np.ndarray) -> float:
    """Return how high a person stretched out would stand, in metres, from MPII's joints (T, 16, 3)."""
    chain = [skeletons.MPII.index(name) for name in _CHAIN]
    bones = np.linalg.norm(np.diff(joints[:, chain].astype(np.float64), axis=1), axis=-1)  # (T, 6)
    return float(np.median(bones.sum(1)))


def _sizes(found: list[_Found]) -> str:
    """Say how large the persons are, and which units of length made them so."""
    low, high = min(found, key=lambda clip: clip.height), max(found, key=lambda clip: clip.height)
    counts = Counter(clip.unit for clip in found)
    taken = ", ".join(f"{unit} ({count:,} clips)" for unit, count in counts.most_common())
    return (
        f"{low.height:.2f} m ({low.name}) to {high.height:.2f} m ({high.name}) from ankle to crown; lengths in {taken}"
    )


def _split(root: Path, split: str, held_out: Sequence[str], lines: list[str]) -> bool:
    """Append how many clips a split holds at the usual holdout, and the first of them; whether there is any."""
    try:
        labels = [label for label, _ in chosen_clips(root, split, validation_clips=held_out)]
    except ValueError as error:
        lines.append(f"  - {split}: {error}")
        return False
    lines.append(f"{TICK} {split}: {len(labels):,} clips, {', '.join(labels[:3])}{', ...' if len(labels) > 3 else ''}")
    return True
