"""Rendered motion as files: photographs and one annotation in mmpose's layout of Human3.6M, cameras inside."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from fastpose import skeletons
from fastpose.data.rendered_mocap import RenderedMocap, write_png

ANNOTATIONS = {"train": "h36m_train.npz", "all": "h36m_train.npz", "val": "h36m_test.npz"}
"""The annotation file of each split, as the reader of Human3.6M looks for it."""


def chosen(source: RenderedMocap, count: int, seed: int) -> list[int]:
    """Return ``count`` different persons of a source in its order, or all where there are not so many; 0: all."""
    if count < 0:
        raise ValueError(f"count: expected 0 (all) or more, got {count}")
    if not 0 < count < len(source):
        return list(range(len(source)))
    drawn = np.random.Generator(np.random.Philox(seed)).choice(len(source), size=count, replace=False)
    return sorted(int(index) for index in drawn)


def write(
    out: str | Path,
    sources: Mapping[str, RenderedMocap],
    *,
    count: int = 0,
    report: Callable[[int], None] = lambda images: None,
) -> dict[str, int]:
    """Write the sources of splits into a new folder, which ``data.create("h36m", out)`` reads; return images by split.

    The folder appears when all is written. An annotation holds imgname, center, scale, part (N, 17, 3) in pixels,
    S (N, 17, 4) in metres of the camera frame, and besides mmpose's own intrinsics (N, 3, 3), which tell the reader
    that it is a rendered one, visibility (N, 17), and the names subject, action, camera and clip (N,).

    Args:
        out: the folder, which must not exist.
        sources: by split, ``RenderedMocap`` with the skeleton "h36m".
        count: most images of each split, drawn at random by the source's seed; 0: all.
        report: called with the number of images just written.

    Raises:
        ValueError: ``out`` exists, a source has another skeleton, or a clip cannot be drawn.
        OSError: the folder cannot be written.
    """
    out = Path(out)
    check_new(out)
    for source in sources.values():
        if source.skeleton != skeletons.H36M:
            raise ValueError(f"sources: expected persons with skeleton 'h36m', got {source.skeleton.name!r}")
    rows = {split: chosen(source, count, source.seed) for split, source in sources.items()}
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        for split, source in sources.items():
            _write_split(part, ANNOTATIONS[split], source, rows[split], report)
        os.replace(part, out)
    except OSError as error:
        raise OSError(f"{out}: could not be written ({error.strerror or error}); name another folder") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return {split: len(indices) for split, indices in rows.items()}


def check_new(out: Path) -> None:
    """Raise ``ValueError`` where something of that name is."""
    if out.exists() or out.is_symlink():
        raise ValueError(f"{out}: exists already; name another folder")


def _write_split(
    folder: Path, annotation: str, source: RenderedMocap, rows: list[int], report: Callable[[int], None]
) -> None:
    seen = []
    for index in rows:
        rendering = source.render(index)
        write_png(folder / "images" / f"{source.picture_name(index)}.png", rendering.image)
        seen.append(_with_spine(rendering.visibility))
        report(1)
    arrays = _arrays(source, rows) | {"visibility": np.stack(seen)}
    np.savez_compressed(folder / annotation, **arrays)  # type: ignore[arg-type]


def _arrays(source: RenderedMocap, rows: list[int]) -> dict[str, np.ndarray]:
    """Return mmpose's arrays, and what is known besides."""
    persons = [source.persons[index] for index in rows]
    poses = [person.pose3d for person in persons if person.pose3d is not None]
    joints = np.stack([pose.joints for pose in poses]).astype(np.float64) / 1000
    points = np.stack([person.keypoints for person in persons]).astype(np.float64)
    ones = np.ones((*joints.shape[:2], 1))
    return {
        "imgname": np.array([f"{source.picture_name(index)}.png" for index in rows]),
        "center": np.stack([person.center for person in persons]).astype(np.float64),
        "scale": np.array([person.scale for person in persons]),
        "part": np.concatenate([points, ones], axis=2),
        "S": np.concatenate([joints, ones], axis=2),
        "intrinsics": np.stack([np.asarray(pose.intrinsics) for pose in poses]),
        "subject": np.array([pose.subject for pose in poses]),
        "action": np.array([pose.action for pose in poses]),
        "camera": np.array([pose.camera for pose in poses]),
        "clip": np.array([pose.clip for pose in poses]),
    }


def _with_spine(visibility: np.ndarray) -> np.ndarray:
    """Return Human3.6M's 17 marks from MPII's; the spine is as visible as the less visible of its neighbours."""
    marks = dict(zip(skeletons.MPII.joints, visibility, strict=True))
    marks |= {"neck": marks["upper_neck"], "spine": min(marks["pelvis"], marks["thorax"])}
    return np.array([marks[name] for name in skeletons.H36M.joints], np.uint8)
