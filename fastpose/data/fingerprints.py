"""What tells a set of persons from another: names of photographs, annotations, pairs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from fastpose.data.person import Person

_READ = 50_000  # of a larger set so many, spread evenly: a run does not wait for millions to be built


def of_persons(persons: Sequence[Person], pairs: np.ndarray | None = None) -> str:
    """Return 16 hexadecimal digits from persons and their order, and from ``pairs`` of them, int64 (P, 2).

    A photograph counts by its name without its folder, which may have moved. Its pixels are not read.
    """
    found = hashlib.sha256(f"{len(persons)}".encode())
    for index in np.unique(np.linspace(0, len(persons) - 1, min(len(persons), _READ)).astype(np.int64)):
        entry = persons[int(index)]
        found.update(f"\n{entry.image.name} {entry.identity} {entry.scale!r}".encode("utf-8", "surrogatepass"))
        joints = () if entry.pose3d is None else (entry.pose3d.joints,)
        for array in (entry.keypoints, entry.visibility, entry.center, *joints):
            found.update(np.ascontiguousarray(array).tobytes())
    if pairs is not None:
        found.update(np.ascontiguousarray(pairs).tobytes())
    return found.hexdigest()[:16]


def of_parts(fingerprints: Iterable[str]) -> str:
    """Return the fingerprint of several data sets in their order."""
    return hashlib.sha256(" ".join(fingerprints).encode()).hexdigest()[:16]
