"""Pairs of images of one identity: published lists, generation, held-out identities, and checks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastpose import skeletons
from fastpose.data.keypoint_tables import read_lines

_HEADERS = (("from", "to"), ("imga", "imgb"))

# The published lists hold every ordered pair of one person whose hips and shoulders are seen in both images: this rule
# gives exactly PATN's 263,632 pairs on Market-1501's training table and 8,570 on DeepFashion's test table.
TORSO = tuple(skeletons.OPENPOSE.index(joint) for joint in ("r_shoulder", "l_shoulder", "r_hip", "l_hip"))


def read_list(path: Path) -> list[tuple[str, str]]:
    """Read a pair list: header ``from,to`` or ``imgA,imgB``, one pair of image names a line.

    Raises ``ValueError`` for another header or a line without two names.
    """
    lines = read_lines(path)
    if tuple(_cells(lines[0].lower())) not in _HEADERS:
        raise ValueError(f"{path}: starts with {lines[0][:60]!r}; expected 'from,to' or 'imgA,imgB'")
    pairs = []
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        cells = _cells(line)
        if len(cells) != 2 or not all(cells):
            raise ValueError(f"{path}: line {number} is {line[:80]!r}; expected two image names separated by a comma")
        pairs.append((cells[0], cells[1]))
    if not pairs:
        raise ValueError(f"{path}: no pair below the header; restore the file, or name another pair_list")
    return pairs


def _cells(line: str) -> list[str]:
    return [cell.strip().strip('"') for cell in line.split(",")]


def link(pairs: Sequence[tuple[str, str]], index: Mapping[str, int]) -> tuple[np.ndarray, list[str]]:
    """Return the pairs as indices, int64 (P, 2), without those that ``index`` lacks a name of, and these names."""
    numbers = np.array([(index.get(first, -1), index.get(second, -1)) for first, second in pairs], dtype=np.int64)
    numbers = numbers.reshape(-1, 2)
    whole = (numbers >= 0).all(1)
    unknown = {name for row in np.flatnonzero(~whole).tolist() for name in pairs[row] if name not in index}
    return numbers[whole], sorted(unknown)


def generate(groups: Sequence[str], usable: Sequence[bool] | np.ndarray) -> np.ndarray:
    """Return every ordered pair of two different usable members of one group, int64 (P, 2); group "" makes none."""
    members: dict[str, list[int]] = {}
    for index, (group, good) in enumerate(zip(groups, usable, strict=True)):
        if group and good:
            members.setdefault(group, []).append(index)
    made = [(first, second) for each in members.values() for first in each for second in each if first != second]
    return np.array(made, dtype=np.int64).reshape(-1, 2)


def with_torso(visibility: np.ndarray) -> np.ndarray:
    """Return bool (N,): whether both hips and both shoulders of each of (N, 18) OpenPose joints are visible."""
    return np.all(np.asarray(visibility)[:, list(TORSO)] > 0, axis=1)


def held_out(identities: Sequence[str], fraction: float) -> set[str]:
    """Return the identities that are held out: about ``fraction`` of the different ones, at least one, always the same.

    They are the first in the order of their names' SHA-256, so that an identity more or less moves at most one other.
    Raises ``ValueError`` unless 0 < fraction < 1 and both parts get an identity.
    """
    names = sorted(set(identities), key=lambda name: hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest())
    if not 0 < fraction < 1:
        raise ValueError(f"holdout: expected a fraction between 0 and 1, got {fraction}")
    if len(names) < 2:
        raise ValueError(f"holdout: expected at least 2 identities to divide, found {len(names)}")
    return set(names[: min(max(round(fraction * len(names)), 1), len(names) - 1)])


def check_disjoint(train: Any, test: Any) -> None:
    """Raise ``ValueError`` naming the first identities that persons of both sources have."""
    shared = shared_identities(train, test)
    if shared:
        more = ", ..." if len(shared) > 3 else ""
        raise ValueError(
            f"{train.name}: {len(shared):,} identities are in both split {train.split!r} and split {test.split!r}: "
            f"{', '.join(shared[:3])}{more}; expected none, use lists that are disjoint by identity"
        )


def shared_identities(train: Any, test: Any) -> list[str]:
    """Return the identities that persons of both sources have, sorted."""
    first, second = ({entry.identity for entry in source.persons if entry.identity} for source in (train, test))
    return sorted(first & second)


def different_identities(pairs: np.ndarray, identities: Sequence[str]) -> np.ndarray:
    """Return the rows of ``pairs`` whose two ends are not of one known identity."""
    first = np.array(identities, dtype=object)[pairs]  # (P, 2)
    return np.flatnonzero((first[:, 0] != first[:, 1]) | (first[:, 0] == ""))


def repeated(pairs: np.ndarray) -> np.ndarray:
    """Return the rows of ``pairs`` that repeat an earlier one."""
    return np.setdiff1d(np.arange(len(pairs)), np.unique(pairs, axis=0, return_index=True)[1])


def only_used(pairs: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the sorted indices (of ``count``) that some pair uses, and the pairs counted among those."""
    used = np.unique(pairs)
    place = np.full(count, -1, dtype=np.int64)
    place[used] = np.arange(len(used))
    return used, place[pairs]
