"""Small photographs and sources for the data tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from fastpose import skeletons
from fastpose.data.person import Person, person


@dataclass
class TinySource:
    """A source of persons in memory."""

    persons: list[Person]
    name: str = "tiny"
    split: str = "train"
    skeleton: skeletons.Skeleton = skeletons.LSP
    scored_joints: tuple[int, ...] = tuple(range(14))

    def __len__(self) -> int:
        return len(self.persons)


def write_photo(path: Path, size: tuple[int, int] = (60, 80), seed: int = 0) -> Path:
    """Write a smooth random photograph of ``size`` (H, W) and return its path."""
    import cv2

    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC))
    return path


@pytest.fixture
def photo(tmp_path: Path) -> Callable[..., Path]:
    """``photo("a.jpg", size=(60, 80), seed=0)`` writes a photograph under the test's folder."""
    return lambda name, size=(60, 80), seed=0: write_photo(tmp_path / name, size, seed)


@pytest.fixture
def tiny_source(tmp_path: Path) -> TinySource:
    """Seven persons of 14 joints on photographs of 60 x 80 pixels; joint 3 is unlabelled."""
    rng = np.random.default_rng(5)
    visibility = np.full(14, 2)
    visibility[3] = 0
    persons = []
    for index in range(7):
        path = write_photo(tmp_path / "photos" / f"{index}.png", seed=index)
        points = rng.uniform([20, 15], [60, 45], (14, 2))
        persons.append(person(path, points, visibility, np.array([40.0, 30.0]), 0.35, person_id=index))
    return TinySource(persons)
