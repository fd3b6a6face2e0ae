"""Pieces of the report of ``fastpose data check``: marks, counts, first offenders, photographs that cannot be read."""

from __future__ import annotations

import filecmp
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastpose.data import images
from fastpose.data.person import Person

FIRST = 5
TICK, CROSS = "✓", "✗"


@dataclass(frozen=True)
class CheckReport:
    """Result of a check: ``ok`` when nothing is broken and some split is whole; ``lines`` are ready to print."""

    name: str
    root: str
    ok: bool
    lines: tuple[str, ...]


def mark(good: bool) -> str:
    """Return a tick or a cross."""
    return TICK if good else CROSS


def bad_photographs(
    photos: Sequence[Path], absent: set[Path]
) -> tuple[dict[Path, tuple[int, int]], list[tuple[Path, str]]]:
    """Return the (H, W) of every whole photograph, and the sentence for every other one that is there."""
    sizes, bad = {}, []
    for photo in photos:
        if photo in absent:
            continue
        try:
            sizes[photo] = images.verify_image(photo)
        except (ValueError, OSError) as error:
            bad.append((photo, str(error)))
    return sizes, bad


def out_of_frame(persons: Sequence[Person], sizes: dict[Path, tuple[int, int]]) -> list[int]:
    """Return the indices of persons with a labelled joint outside of the photograph."""
    found = []
    for index, entry in enumerate(persons):
        if entry.image in sizes:
            height, width = sizes[entry.image]
            points = entry.keypoints[entry.visibility > 0]
            outside = (points < -0.5) | (points > np.array([width - 0.5, height - 0.5]))
            found.extend([index] if outside.any() else [])
    return found


def listed_twice(persons: Sequence[Person]) -> list[int]:
    """Return the indices of persons with the photograph and the key points of an earlier one."""
    seen: set[tuple[Path, bytes]] = set()
    found = []
    for index, entry in enumerate(persons):
        about = (entry.image, entry.keypoints.tobytes() + entry.visibility.tobytes())
        found += [index] if about in seen and entry.visibility.any() else []
        seen.add(about)
    return found


def same_content(first: Sequence[Path], second: Sequence[Path]) -> list[str]:
    """Return pairs of files of one content, one of each list; only files of one length are read."""
    lengths: dict[int, list[Path]] = {}
    for path in first:
        with suppress(OSError):
            lengths.setdefault(path.stat().st_size, []).append(path)
    found = []
    for path in second:
        with suppress(OSError):
            alike = lengths.get(path.stat().st_size, [])
            found += [f"{other.name} and {path.name}" for other in alike if filecmp.cmp(other, path, shallow=False)][:1]
    return found


def person_names(persons: Sequence[Person], indices: Sequence[int]) -> list[str]:
    """Return photograph and number of some persons."""
    return [f"{persons[index].image.name} (person {persons[index].person_id})" for index in indices]


def finding(lines: list[str], what: str, offenders: Sequence[str], *, fatal: bool) -> None:
    """Append a line with the count and the first offenders, if there are any."""
    if offenders:
        more = ", ..." if len(offenders) > FIRST else ""
        lines.append(f"  {CROSS if fatal else '!'} {len(offenders):,} {what}: {', '.join(offenders[:FIRST])}{more}")
