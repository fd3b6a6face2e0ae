"""Trained weights at work on a user's photographs: poses drawn on them, persons drawn in other poses."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastpose.training import systems
from fastpose.training.config import load_recipe
from fastpose.training.transfer_guides import PHOTOS, Guides, Target

if TYPE_CHECKING:
    from fastpose.training.systems import System

AnyPath = str | Path


def predict(
    recipe: str | None,
    weights: str | Path,
    inputs: Sequence[str | Path],
    *,
    out: str | Path = "predictions",
    save_keypoints: str | Path | None = None,
    overrides: Sequence[str] = (),
) -> list[Path]:
    """Draw the poses that trained weights see in photographs; return the paths of the pictures.

    Args:
        recipe: refuse weights of another recipe; None takes whatever the weights are.
        weights: a .safetensors file that a training run wrote.
        inputs: photographs, and folders of them. Each whole photograph is taken as one person's crop.
        out: folder of the pictures, ``<name>.png`` each, or ``<name>-2.png`` and so on where that file exists already.
        save_keypoints: also write key points and scores of all photographs as JSON.
        overrides: ``key=value`` texts over the configuration of the weights, such as ``test.flip=no``.

    Raises:
        ValueError, FileNotFoundError: one sentence about the weights or a photograph.
    """
    from fastpose.data.images import read_image
    from fastpose.training import distributed
    from fastpose.visual.grids import save_image
    from fastpose.visual.skeletons import draw_skeleton

    photos = find_photos(inputs)
    system, config, network = open_weights(recipe, weights, overrides)
    estimator = systems.estimator(system, network.to(distributed.choose_device(config.run.device)), config)
    Path(out).mkdir(parents=True, exist_ok=True)
    names = Names(Path(out), photos)
    written, rows = [], []
    for photo in photos:
        image = read_image(photo, exif="apply")
        estimate = estimator(image)
        picture = draw_skeleton(image, estimate.keypoints[0], None, estimator.skeleton)
        written.append(save_image(names.free(f"{photo.stem}.png"), picture))
        rows.append(_row(photo, image, estimate, estimator.skeleton))
    if save_keypoints is not None:
        Path(save_keypoints).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return written


def transfer(
    recipe: str | None,
    weights: str | Path,
    inputs: Sequence[str | Path],
    *,
    poses: AnyPath | Iterable[AnyPath] = (),
    out: str | Path = "predictions",
    keypoints: AnyPath | None = None,
    pose_weights: AnyPath | None = None,
    source_map: AnyPath | None = None,
    target_maps: AnyPath | Iterable[AnyPath] = (),
    letters: str = "",
    font: AnyPath | None = None,
    explain: bool = False,
    overrides: Sequence[str] = (),
) -> list[Path]:
    """Draw the persons of photographs as the guides say; return the paths of the files.

    Of each photograph: ``<photo>_<target>.png`` for every target, ``<photo>_sheet.png`` (source, target, generated
    side by side) and, where there are several targets, the same as a film: ``<photo>.mp4`` and ``<photo>.gif``. An
    existing file is never overwritten: names are numbered. Images have the size that the network was trained with.

    Args:
        recipe: refuse weights of another recipe; None takes whatever the weights are.
        weights: a .safetensors file of a system that transfers poses (pona, multiscale).
        inputs: photographs, and folders of them, one person in the middle of each.
        poses: target poses: files of key points (JSON of ``predict``, OpenPose's JSON, PATN's CSV), photographs, and
            folders of either.
        out: folder of the files.
        keypoints: a file with the key points of the photographs, found by their names.
        pose_weights: weights of a 2D pose network for photographs without key points.
        source_map: for weights guided by parts or skeletons: an image of what the photograph shows, or a folder of
            images named like the photographs. A letter's skeleton is found without it.
        target_maps: for these weights: images of what is to be drawn, and folders of them.
        letters, font: for weights guided by skeletons: letters of a .ttf file to draw.
        explain: also draw what the network does with the first photograph and target.
        overrides: ``key=value`` texts over the configuration of the weights, such as ``run.device=cpu``.

    Raises:
        ValueError, FileNotFoundError: one sentence about the weights, a photograph, or the guide that is missing.

    Warns:
        UserWarning: this OpenCV writes no MP4 files.
    """
    from fastpose.training import distributed, transfer_guides

    guides = Guides(
        _paths(poses),
        _path(keypoints),
        _path(pose_weights),
        _path(source_map),
        _paths(target_maps),
        letters,
        _path(font),
    )
    photos = find_photos(inputs)
    system, config, network = open_weights(recipe, weights, overrides)
    drawer = systems.transfer(system, network.to(distributed.choose_device(config.run.device)), config)
    targets, source_of = transfer_guides.reader(drawer, guides)
    names = Names(Path(out), photos)
    written = []
    for photo in photos:
        written += _drawn(drawer, photo, source_of, targets, names, explain=explain and photo == photos[0])
    return written


def open_weights(recipe: str | None, weights: str | Path, overrides: Sequence[str]) -> tuple[System, Any, Any]:
    """Return system, configuration (overridden) and network of a weights file, which must be of ``recipe``."""
    from fastpose.training.config import apply_overrides, differences, to_dict

    expected = None if recipe is None else load_recipe(recipe).name
    system, config, network = systems.load_network(weights, recipe=expected)
    changed = apply_overrides(config, overrides, expected or "")
    fixed = [key for key in differences(to_dict(config), to_dict(changed)) if key.startswith("model.")]
    if fixed:
        raise ValueError(f"{fixed[0]}: the weights {weights} fix the network; leave this override out")
    return system, changed, network


def find_photos(inputs: Sequence[str | Path]) -> list[Path]:
    """Return the files named, and the photographs of the folders named, in order."""
    photos: list[Path] = []
    for path in map(Path, inputs):
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix.lower() in PHOTOS)
            if not inside:
                raise FileNotFoundError(f"folder {path}: no image in it; expected {', '.join(PHOTOS)} files")
            photos += inside
        elif path.is_file():
            photos.append(path)
        else:
            raise FileNotFoundError(f"image {path}: no such file")
    if not photos:
        raise ValueError("predict: no image given; name files or folders")
    return photos


class Names:
    """Free file names in a folder: none that an input or any other file has.

    Args:
        folder: where the files go.
        taken: the inputs.
    """

    def __init__(self, folder: Path, taken: Iterable[Path]) -> None:
        self.folder = folder
        self._taken = {path.resolve() for path in taken}

    def free(self, name: str) -> Path:
        """Return the path of ``name``, or ``<stem>-2<suffix>`` and so on where that file exists; it is taken then."""
        wanted = Path(name)
        target, number = self.folder / wanted, 1
        while target.resolve() in self._taken or target.exists() or target.is_symlink():
            number += 1
            target = self.folder / f"{wanted.stem}-{number}{wanted.suffix}"
        self._taken.add(target.resolve())
        return target


def _path(value: AnyPath | None) -> Path | None:
    return None if value is None else Path(value)


def _paths(values: AnyPath | Iterable[AnyPath]) -> tuple[Path, ...]:
    return (Path(values),) if isinstance(values, (str, Path)) else tuple(map(Path, values))


def _row(photo: Path, image: np.ndarray, estimate: Any, skeleton: Any) -> dict[str, Any]:
    """Return one photograph's key points as JSON values."""
    return {
        "image": str(photo),
        "size": [int(image.shape[0]), int(image.shape[1])],
        "skeleton": skeleton.name,
        "joints": list(skeleton.joints),
        "persons": [
            {"keypoints": points.round(2).tolist(), "scores": scores.round(4).tolist()}
            for points, scores in zip(estimate.keypoints.astype(float), estimate.scores.astype(float), strict=True)
        ],
    }


# ------------------------------------------------------------------------------------------------------- pose transfer


def _drawn(
    drawer: Any, photo: Path, source_of: Any, targets: Sequence[Target], names: Names, *, explain: bool
) -> list[Path]:
    """Draw one photograph's person as each target says and write all files of it; return their paths."""
    from fastpose.data.images import read_image
    from fastpose.visual.grids import save_image

    image = read_image(photo, exif="apply")
    source = source_of(photo, image)
    generated = drawer(image, source, [target.guide for target in targets])
    names.folder.mkdir(parents=True, exist_ok=True)
    written = [
        save_image(names.free(f"{photo.stem}_{target.name}.png"), picture)
        for target, picture in zip(targets, generated, strict=True)
    ]
    fitted = drawer.fitted(image, source)
    shown = [drawer.picture(target.guide) for target in targets]
    rows = [[fitted, guide, picture] for guide, picture in zip(shown, generated, strict=True)]
    titles = ("source", {"pose": "target pose"}.get(drawer.guide, "target"), "generated")
    written += _sheet_and_film(rows, titles, photo.stem, [target.name for target in targets], names)
    if explain:
        pictures = drawer.explain(image, source, targets[0].guide)
        written += [save_image(names.free(f"{photo.stem}_{name}.png"), one) for name, one in pictures.items()]
    return written


def _sheet_and_film(
    rows: Sequence[Any], titles: Sequence[str], stem: str, captions: Sequence[str], names: Names
) -> list[Path]:
    """Write the contact sheet and, of several rows, the film as MP4 and GIF."""
    from fastpose.visual import grids, sequences

    written = [grids.save_image(names.free(f"{stem}_sheet.png"), sequences.contact_sheet(rows, titles, captions))]
    if len(rows) > 1:
        film = sequences.frames(rows)
        written.append(sequences.save_gif(names.free(f"{stem}.gif"), film))
        try:
            written.append(sequences.save_video(names.free(f"{stem}.mp4"), film))
        except ValueError as error:
            warnings.warn(str(error), stacklevel=2)
    return written
