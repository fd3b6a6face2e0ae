"""Small photographs and sources for the data tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from pair_files import both_ways, write_tables

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


@pytest.fixture
def market(tmp_path: Path) -> Path:
    """A Market-1501 of three training and two test persons, two images each."""
    for split, people in (("train", ("0007", "0010", "0022")), ("test", ("0001", "0003"))):
        names, pairs = [], []
        for person_id in people:
            own = [f"{person_id}_c{camera}s1_00010{camera}_01.jpg" for camera in (1, 2)]
            names, pairs = names + own, pairs + both_ways(own)
        write_tables(tmp_path, "market", split, names, pairs, (128, 64))
        for index, name in enumerate(names):
            write_photo(tmp_path / split / name, (128, 64), index)
    return tmp_path


@pytest.fixture
def fashion(tmp_path: Path) -> Path:
    """DeepFashion test images of two items, one of them in two colours; square, with white margins."""
    names, pairs = [], []
    for item in ("fashionWOMENDressesid0000000202", "fashionWOMENDressesid0000000203", "fashionMENDenimid0000008001"):
        own = [f"{item}_1front.png", f"{item}_3back.png"]
        names, pairs = names + own, pairs + both_ways(own)
    write_tables(tmp_path, "fasion", "test", names, pairs, (256, 256))
    for index, name in enumerate(names):
        _write_square(write_photo(tmp_path / "test" / name, (256, 256), index))
    return tmp_path


def _write_square(path: Path) -> None:
    import cv2

    picture = cv2.imread(str(path))
    picture[:, :40] = picture[:, 216:] = 255
    cv2.imwrite(str(path), picture)
