"""``fastpose data check`` for recorded motion: files, clips, frames, what each split would hold, first offenders."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from fastpose.data import motion
from fastpose.data.findings import CROSS, TICK, CheckReport, finding, mark
from fastpose.data.motion.library import SAMPLE, SUFFIXES
from fastpose.data.rendered_mocap import chosen_clips

CHECKS = ("mocap", "sample-mocap")
"""The names that ``check`` knows."""

__all__ = ["CHECKS", "SAMPLE", "check"]


def check(name: str, root: Path) -> CheckReport:
    """Check the motion under a folder, or in a file; everything wrong with it is in the lines."""
    lines = [f"{mark(root.exists())} {root}" + ("/" if root.is_dir() or not root.suffix else "")]
    try:
        ready = _motion(root, lines)
    except (ValueError, FileNotFoundError) as error:
        lines.append(f"{CROSS} {error}")
        ready = ""
    lines.append(f"{name}: {ready or 'not ready, see the crosses above'}")
    return CheckReport(name, str(root), bool(ready), tuple(lines))


def _motion(root: Path, lines: list[str]) -> str:
    """Append files, clips and splits; return what is ready, "" when a clip is broken."""
    clips = motion.find(root)
    counts = Counter(path.suffix.lower() for path in {clip.path for clip in clips})
    kinds = ", ".join(f"{counts[suffix]:,} {suffix}" for suffix in SUFFIXES if counts[suffix])
    lines.append(f"{TICK} files: {kinds}")
    lengths, broken = _read_all(clips)
    minutes = sum(frames / fps for frames, fps in lengths) / 60
    frames = sum(frames for frames, _ in lengths)
    lines.append(f"{mark(not broken)} clips: {len(lengths):,} readable, {frames:,} frames, {minutes:.1f} minutes")
    finding(lines, "clips unreadable", broken, fatal=True)
    held = [split for split in ("train", "val") if _split(root, split, lines)]
    if broken or not held:
        return ""
    return "ready" if len(held) == 2 else f"ready for: {held[0]}; for the other split add clips, or ask for split=all"


def _read_all(clips: list[motion.Clip]) -> tuple[list[tuple[int, float]], list[str]]:
    """Return frames and rate of every clip that can be posed, and the sentence for every other one."""
    lengths, broken = [], []
    for clip in clips:
        try:
            whole = clip.read()
            motion.to_skeleton(whole, "mpii")
        except (ValueError, OSError) as error:
            broken.append(f"{clip.name} ({error})")
        else:
            lengths.append((len(whole), whole.fps))
    return lengths, broken


def _split(root: Path, split: str, lines: list[str]) -> bool:
    """Append how many clips a split holds at the usual holdout, and the first of them; whether there is any."""
    try:
        labels = [label for label, _ in chosen_clips(root, split)]
    except ValueError as error:
        lines.append(f"  - {split}: {error}")
        return False
    lines.append(f"{TICK} {split}: {len(labels):,} clips, {', '.join(labels[:3])}{', ...' if len(labels) > 3 else ''}")
    return True
