"""The files of a composition: pictures and joints of each pose, a sheet of each caption (systems 004, 001, 003)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastpose import _files
from fastpose.skeletons import COCO, OPENPOSE
from fastpose.training import caption_prediction, prediction
from fastpose.training.caption_generation import PoseGenerator

if TYPE_CHECKING:
    from fastpose.data.keypoint_files import Pose
    from fastpose.training.composition import Composed, Composer

TITLES = ("heatmaps", "pose of the caption", "own pose", "placed", "generated")
"""The panels of a sheet."""

SHOWN = 24
"""Poses on a sheet."""

_SIZED = {
    "trunk": "as large as the person by the trunk",
    "bones": "as large as the person by all bones",
    "box": "as high as the person",
    "frame": "filling the photograph",
}
_PLACED = {
    "ground": "on the ground where it stands",
    "hips": "hips on hips",
    "neck": "neck on neck",
    "shoulders": "shoulder on shoulder",
    "joints": "on the joints that both show",
    "frame": "in the middle",
}

_KINDS = ("", "_pose", "_placed")
"""The pictures of one pose, by what their names end in."""


def write(
    composer: Composer,
    photo: np.ndarray,
    own: Pose,
    made: Sequence[Composed],
    names: prediction.Names,
    about: Mapping[str, Any],
    caption: str,
    title: str,
) -> list[Path]:
    """Draw the poses of one caption, which its sheet calls ``title``, and write its files; return their paths."""
    placed = [one for one in made if one.placed is not None]
    stem = f"{prediction.short(Path(about['photograph']).stem)}_{caption_prediction.file_name(caption)}"
    pictures = [f"{stem}_{one.number}{kind}.png" for one in placed for kind in _KINDS]
    sheet = [f"{stem}_sheet.png"] if placed else []
    paths = names.together([*pictures, *sheet, f"{stem}.json"])
    names.folder.mkdir(parents=True, exist_ok=True)
    if placed:
        _pictures(paths, composer, photo, own, placed, title)
    images = [path.name for path in paths[: len(pictures) : len(_KINDS)]]
    poses = [_values(one) | {"image": name} for one, name in zip(placed, images, strict=True)]
    skipped = [_values(one) for one in made if one.placed is None]
    heading = {"caption": caption} | ({} if title == caption else {"title": title})
    _files.publish_json(paths[-1], {**heading, **about, "poses": poses, "skipped": skipped})
    return paths


def _pictures(
    paths: Sequence[Path], composer: Composer, photo: np.ndarray, own: Pose, placed: Sequence[Composed], title: str
) -> None:
    """Draw poses and write the pictures of each as soon as it is drawn, and the sheet of the first ones."""
    from fastpose.visual import composition
    from fastpose.visual.grids import save_image

    own_panel = composition.on_photograph(photo, own.keypoints, own.visibility)
    rows = []
    for k, one in enumerate(composer.draw(photo, own, placed)):
        panels = _panels(one, photo, own_panel)
        for path, picture in zip(paths[len(_KINDS) * k :], _saved(panels), strict=False):
            save_image(path, picture)
        if k < SHOWN:
            rows.append([composition.panel(picture) for picture in panels])
    missing = len(placed) - len(rows)
    note = f"{len(rows)} of {len(placed)} poses are shown; each has files of its own" if missing else ""
    labels = [_label(one) for one in placed[: len(rows)]]
    save_image(paths[len(_KINDS) * len(placed)], composition.sheet(title, rows, TITLES, labels, note=note))


def _panels(one: Composed, photo: np.ndarray, own_panel: np.ndarray) -> list[np.ndarray]:
    """Return the panels of one pose in the order of `TITLES`."""
    from fastpose.visual import captions, composition

    assert one.placed is not None
    assert one.heatmaps is not None
    assert one.image is not None
    points, present = one.pose.keypoints[0], one.pose.visibility[0]
    return [
        captions.heatmap_picture(one.heatmaps, points, present),
        captions.skeleton_picture(points, present),
        own_panel,
        composition.on_photograph(photo, one.placed.keypoints, one.placed.visibility, dim=True),
        one.image,
    ]


def _saved(panels: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the pictures of one pose in the order of `_KINDS`."""
    from fastpose.visual.grids import grid

    heatmaps, skeleton, own, placed, image = panels
    return [image, grid([heatmaps, skeleton], 2), grid([own, placed], 2, ["own pose", "placed"])]


def _label(one: Composed) -> str:
    """Return a line about one pose."""
    assert one.placement is not None
    where = one.placement
    shrunk = "" if where.shrunk > 0.995 else f", {where.shrunk:.0%} of it for want of room"
    lies = f"{_SIZED[where.sized_by]}{shrunk}, {_PLACED[where.placed_by]}"
    return f"pose {one.number}: {one.joints} of {len(COCO)} joints, {lies}"


def _values(one: Composed) -> dict[str, Any]:
    """Return one pose as JSON values."""
    pose = one.pose
    row: dict[str, Any] = {
        "number": one.number,
        "joints": one.joints,
        "map": {
            "size": list(PoseGenerator.size),
            "skeleton": COCO.name,
            "keypoints": pose.keypoints[0].astype(float).round(2).tolist(),
            "visibility": pose.visibility[0].astype(int).tolist(),
            "scores": pose.scores[0].astype(float).round(4).tolist(),
        },
    }
    if one.placed is None or one.placement is None:
        return row
    return row | {"placed": pose_values(one.placed), "placement": asdict(one.placement)}


def pose_values(pose: Pose) -> dict[str, Any]:
    """Return a pose of OpenPose's joints as JSON values."""
    return {
        "skeleton": OPENPOSE.name,
        "keypoints": np.asarray(pose.keypoints, float).round(2).tolist(),
        "visibility": (np.asarray(pose.visibility) > 0).astype(int).tolist(),
    }
