"""Small key-point tables and pair lists in the published formats."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def table_row(name: str, points: np.ndarray) -> str:
    """A row of PATN's table: y before x; ``points`` (18, 2) as (x, y), -1 where missing."""
    whole = np.rint(points).astype(int)
    return f"{name}: {whole[:, 1].tolist()}: {whole[:, 0].tolist()}"


def standing(size: tuple[int, int] = (128, 64), seed: int = 0) -> np.ndarray:
    """Eighteen joints (x, y) on whole pixels well inside of a picture of ``size``; the last one is missing."""
    height, width = size
    rng = np.random.default_rng(seed)
    points = np.rint(rng.uniform([width * 0.2, height * 0.1], [width * 0.8, height * 0.9], (18, 2)))
    points[17] = -1
    return points


def write_tables(
    folder: Path, stem: str, split: str, names: list[str], pairs: list[tuple[str, str]], size: tuple[int, int]
) -> None:
    """Write ``<stem>-annotation-<split>.csv`` and ``<stem>-pairs-<split>.csv``."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [table_row(name, standing(size, index)) for index, name in enumerate(names)]
    (folder / f"{stem}-annotation-{split}.csv").write_text("\n".join(["name:keypoints_y:keypoints_x", *rows]) + "\n")
    lines = ["from,to", *(",".join(pair) for pair in pairs)]
    (folder / f"{stem}-pairs-{split}.csv").write_text("\n".join(lines) + "\n")


def both_ways(names: list[str]) -> list[tuple[str, str]]:
    """Every ordered pair of two different names."""
    return [(first, second) for first in names for second in names if first != second]


def sentence(read: Callable[[], Any]) -> str:
    """Return what ``read`` refuses its input with, or an empty text when it takes it; any other error passes."""
    try:
        read()
    except (ValueError, FileNotFoundError) as error:
        return str(error)
    return ""
