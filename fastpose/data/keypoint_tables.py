"""The two published key-point tables of pose transfer, 18 OpenPose joints of one person per image.

PATN's (system 001, section 6) starts with ``name:keypoints_y:keypoints_x``: y before x, -1 where missing. The other
(system 003, section 1) starts with ``file_id,img_h,img_w,p0_x,p0_y``; its file id is the image's path without slashes
and suffix.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastpose import skeletons
from fastpose._files import publish
from fastpose.data.person import UNLABELLED, VISIBLE, reading

JOINTS = len(skeletons.OPENPOSE)
PATN_HEADER = "name:keypoints_y:keypoints_x"
IDS_HEADER = ",".join(["file_id", "img_h", "img_w", *(f"p{joint}_{axis}" for joint in range(JOINTS) for axis in "xy")])

# No photograph is larger; beyond it a coordinate is damage.
_LARGEST = 1e6


@dataclass(frozen=True)
class KeypointTable:
    """A table as read.

    Attributes:
        path: the file.
        names: image names, or file ids where ``by_id``; all different.
        keypoints: float64 (N, 18, 2), (x, y) in pixels of the image; 0 where missing.
        visibility: uint8 (N, 18), 0 missing or 2.
        sizes: int64 (N, 2), (H, W) of each image; None where the table does not say.
        by_id: ``names`` are paths without slashes and suffix.
    """

    path: Path
    names: tuple[str, ...]
    keypoints: np.ndarray
    visibility: np.ndarray
    sizes: np.ndarray | None
    by_id: bool

    def __len__(self) -> int:
        return len(self.names)


def file_id(name: str) -> str:
    """Return an image's path without slashes and suffix."""
    folded = name.replace("\\", "/")
    stem, dot, suffix = folded.rpartition(".")
    return (stem if dot and "/" not in suffix else folded).replace("/", "")


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file, without a byte-order mark; ``ValueError`` when it is no text or empty."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text file ({error}); restore it") from None
    if not lines:
        raise ValueError(f"{path}: the file is empty; restore it")
    return lines


def is_table(first_line: str) -> bool:
    """Whether a file that starts with this line is one of the two tables."""
    return _squeezed(first_line).startswith((PATN_HEADER, "file_id,"))


def _squeezed(line: str) -> str:
    return line.replace(" ", "").strip().lower()


def read_table(path: Path) -> KeypointTable:
    """Read either table; the first line tells which.

    Raises:
        ValueError: another first line, a row that is malformed, a coordinate that is negative but not -1, not finite or
            beyond any photograph, or a name with two different rows; the sentence names file and row.
    """
    lines = read_lines(path)
    header = _squeezed(lines[0])
    if header == PATN_HEADER:
        names, values = _columns(path, lines, _patn_row)  # (N, 2, 18): y, x
        table = KeypointTable(path, names, *_points(path, names, values[:, ::-1].transpose(0, 2, 1)), None, False)
    elif header == IDS_HEADER:
        names, values = _columns(path, lines, _id_row)  # (N, 38)
        points = _points(path, names, values[:, 2:].reshape(-1, JOINTS, 2))
        table = KeypointTable(path, names, *points, _sizes(path, names, values[:, :2]), True)
    else:
        raise ValueError(
            f"{path}: starts with {lines[0][:60]!r}; expected {PATN_HEADER!r} or 'file_id,img_h,img_w,p0_x,p0_y,...' "
            f"for {JOINTS} joints"
        )
    return _without_repeats(table)


def _patn_row(line: str) -> tuple[str, str]:
    name, ys, xs = line.rsplit(":", 2)
    return name.strip(), f"[{ys},{xs}]"


def _id_row(line: str) -> tuple[str, str]:
    name, rest = line.split(",", 1)
    return name.strip().strip('"'), f"[{rest}]"


def _columns(
    path: Path, lines: Sequence[str], split: Callable[[str], tuple[str, str]]
) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the names and the numbers of all rows: parsed at once, and row by row only to name a bad one."""
    rows = [(number, line) for number, line in enumerate(lines[1:], start=2) if line.strip()]
    shape = (2, JOINTS) if split is _patn_row else (2 + 2 * JOINTS,)
    try:
        parts = [split(line) for _, line in rows]
        values = np.array(json.loads(f"[{','.join(text for _, text in parts)}]"), dtype=np.float64)
        if values.shape[1:] == shape and len(values) == len(rows) and all(name for name, _ in parts):
            return tuple(name for name, _ in parts), values
    except (ValueError, TypeError, OverflowError, RecursionError):
        pass
    for number, line in rows:
        with reading(path, f"line {number}"):
            name, text = split(line)
            found = np.array(json.loads(text), dtype=np.float64)
            if found.shape != shape or not name:
                raise ValueError(f"{name[:80]!r} with numbers {found.shape}, expected a name and {shape}")
    raise ValueError(f"{path}: no row below the header; restore the file, or name another annotation")


def _points(path: Path, names: Sequence[str], table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return key points (N, 18, 2) and visibility (N, 18) of a raw table (N, 18, 2) with -1 where missing."""
    missing = (table == -1).any(2)
    good = missing | ((table >= 0) & (table <= _LARGEST)).all(2)
    for row, joint in np.argwhere(~good)[:1]:
        x, y = table[row, joint]
        raise ValueError(
            f"{path}: {names[row]}: joint {joint} ({skeletons.OPENPOSE.joints[joint]}) is at x {x:g}, y {y:g}; "
            f"expected pixels from 0, or -1 where it is missing"
        )
    visibility = np.where(missing, UNLABELLED, VISIBLE).astype(np.uint8)
    return np.where(missing[:, :, None], 0.0, table), visibility


def _sizes(path: Path, names: Sequence[str], sizes: np.ndarray) -> np.ndarray:
    """Return (H, W) of each image as integers."""
    bad = ~((sizes >= 1) & (sizes <= _LARGEST)).all(1)
    for row in np.flatnonzero(bad)[:1]:
        raise ValueError(f"{path}: {names[row]}: an image of size {sizes[row].tolist()}; expected img_h, img_w above 0")
    return sizes.astype(np.int64)


def _without_repeats(table: KeypointTable) -> KeypointTable:
    """Drop rows that repeat an earlier one exactly; two rows that differ under one name are a ``ValueError``."""
    first: dict[str, int] = {}
    kept = []
    for row, name in enumerate(table.names):
        earlier = first.setdefault(name, row)
        if earlier == row:
            kept.append(row)
        elif not np.array_equal(table.keypoints[earlier], table.keypoints[row]):
            raise ValueError(f"{table.path}: {name} has two different rows; leave one of them")
    if len(kept) == len(table):
        return table
    sizes = None if table.sizes is None else table.sizes[kept]
    names = tuple(table.names[row] for row in kept)
    return KeypointTable(table.path, names, table.keypoints[kept], table.visibility[kept], sizes, table.by_id)


def write_patn(path: str | Path, names: Sequence[str], keypoints: np.ndarray, visibility: np.ndarray) -> None:
    """Write PATN's table: key points (N, 18, 2) as (x, y), rounded to whole pixels; -1 where not visible (N, 18)."""
    rounded = np.rint(np.where(np.isfinite(keypoints), keypoints, -1)).astype(np.int64)
    # A joint left of or above the image cannot be written: negative numbers mean "missing" in this table.
    there = (np.asarray(visibility) > 0) & (rounded >= 0).all(2) & np.isfinite(keypoints).all(2)
    whole = np.where(there[:, :, None], rounded, -1)
    rows = [f"{name}: {one[:, 1].tolist()}: {one[:, 0].tolist()}" for name, one in zip(names, whole, strict=True)]
    publish(Path(path), "\n".join([PATN_HEADER, *rows]) + "\n")
