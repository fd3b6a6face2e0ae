"""Pieces of the report of ``fastpose data check``: marks, counts, first offenders, photographs that cannot be read."""

from __future__ import annotations

import hashlib
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
    """Return pairs of files of one content, one of each list; each file of a length in both is read once."""
    sizes = [{path: size for path in paths if (size := _length(path)) is not None} for paths in (first, second)]
    both = set(sizes[0].values()) & set(sizes[1].values())
    known: dict[bytes | None, Path] = {}
    found = []
    for path, size in sizes[0].items():
        if size in both and (content := _content(path)) is not None:
            known.setdefault(content, path)
    for path, size in sizes[1].items():
        if size in both and (other := known.get(_content(path))) is not None:
            found.append(f"{other.name} and {path.name}")
    return found


def _length(path: Path) -> int | None:
    with suppress(OSError):
        return path.stat().st_size
    return None


def _content(path: Path) -> bytes | None:
    """Return the SHA-256 of a file; None where it cannot be read."""
    with suppress(OSError), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
    return None


def person_names(persons: Sequence[Person], indices: Sequence[int]) -> list[str]:
    """Return photograph and number of some persons."""
    return [f"{persons[index].image.name} (person {persons[index].person_id})" for index in indices]


def finding(lines: list[str], what: str, offenders: Sequence[str], *, fatal: bool) -> None:
    """Append a line with the count and the first offenders, if there are any."""
    if offenders:
        more = ", ..." if len(offenders) > FIRST else ""
        lines.append(f"  {CROSS if fatal else '!'} {len(offenders):,} {what}: {', '.join(offenders[:FIRST])}{more}")
