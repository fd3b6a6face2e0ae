"""Trained weights at work on a user's photographs: poses on them and in space, persons drawn in other poses."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastpose import _checks, _files
from fastpose.skeletons import MPII_BONES
from fastpose.training import systems, transfer_guides
from fastpose.training.config import load_recipe
from fastpose.training.estimation import Estimate
from fastpose.training.pose3d_estimation import Estimate3D
from fastpose.training.transfer_guides import PHOTOS, Guides, Target

if TYPE_CHECKING:
    from torch import nn

    from fastpose.training.systems import System
    from fastpose.training.transfer_inference import PoseTransfer

AnyPath = str | Path

_SEEING = ("run.", "test.flip", "test.scales", "test.decoder", "test.backend", "test.bone_sum")
"""What overrides may reach where weights look at photographs: no more, or they see what they were not trained with."""

_DRAWING = ("run.", "data.palette", "data.tolerance")
"""The same where weights draw persons."""

_UNREAD = ("data.root", "data.wild", "data.validation")
"""Folders of a training or an evaluation, which photographs do not need: overrides for both may stand here too."""

PRECISIONS = ("fp32", "bf16")
"""What networks that see poses compute in."""

_LONGEST = 100  # bytes of a photograph's or a caption's part of a file name


def predict(
    recipe: str | None,
    weights: str | Path,
    inputs: Sequence[str | Path],
    *,
    out: str | Path = "predictions",
    save_keypoints: str | Path | None = None,
    precision: str = "fp32",
    overrides: Sequence[str] = (),
) -> list[Path]:
    """Draw the poses that trained weights see in photographs; return the paths of the pictures.

    Weights that know depth (pose3d) give two files of each photograph: ``<name>.png``, the photograph beside the pose
    in space from three sides, and ``<name>.gif``, where it turns. One photograph does not tell a person's size: it is
    assumed, that of the mean of the poses they were trained on unless ``test.bone_sum`` names another.

    Args:
        recipe: refuse weights of another recipe; None takes whatever the weights are.
        weights: a .safetensors file that a training run wrote.
        inputs: photographs, and folders of them. Each whole photograph is taken as one person's crop.
        out: folder of the pictures, ``<name>.png`` each, or ``<name>-2.png`` and so on where that file exists already.
        save_keypoints: also write key points and scores of all photographs as JSON, of weights that know depth the
            joints in millimetres too; must not exist.
        precision: "bf16" computes with two to three digits, in less time where the processor multiplies such numbers.
        overrides: ``key=value`` texts over the configuration of the weights, such as ``test.flip=no``: ``run.*`` and
            what of ``test`` counts for photographs.

    Raises:
        ValueError, FileNotFoundError: one sentence about the weights or a photograph; nothing is drawn then, but for
            the photographs before one whose inside alone is damaged.
    """
    from fastpose.data.images import read_image, verify_image

    _checks.choice("precision", precision, PRECISIONS)
    photos = find_photos(inputs)
    check_folder(out)
    if save_keypoints is not None:
        check_new(save_keypoints, folders=(out,))
    system, config, network = open_weights(recipe, weights, overrides, only=_SEEING)
    check_finite(network, weights)
    estimator = systems.estimator(system, for_images(network, config, precision), config)
    for photo in photos:
        verify_image(photo)
    Path(out).mkdir(parents=True, exist_ok=True)
    names = Names(Path(out), photos)
    written, rows = [], []
    for photo in photos:
        image = read_image(photo, exif="apply")
        estimate = _found(estimator, photo, image)
        written += _poses(names, photo, image, estimate, estimator)
        rows.append(_row(photo, image, estimate, estimator))
    if save_keypoints is not None:
        _files.publish(Path(save_keypoints), json.dumps(rows, indent=1) + "\n")
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
    existing file is never overwritten: all files of a photograph are numbered then. Images have the size that the
    network was trained with.

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
        overrides: ``key=value`` texts over the configuration of the weights: ``run.*``, ``data.palette`` and
            ``data.tolerance``.

    Raises:
        ValueError, FileNotFoundError: one sentence about the weights, a photograph, or the guide that is missing;
            nothing is drawn then.

    Warns:
        UserWarning: this OpenCV writes no MP4 files.
    """
    guides = Guides(
        _paths(poses),
        as_path(keypoints),
        as_path(pose_weights),
        as_path(source_map),
        _paths(target_maps),
        letters,
        as_path(font),
    )
    photos = find_photos(inputs)
    check_folder(out)
    drawer = open_transfer(recipe, weights, overrides)
    targets, source_of = transfer_guides.reader(drawer, guides)
    sources = _sources(drawer, photos, source_of, targets)
    names = Names(Path(out), photos)
    written = []
    for index, (photo, source) in enumerate(zip(photos, sources, strict=True)):
        written += _drawn(drawer, photo, source, targets, names, explain=explain and index == 0)
    return written


def open_weights(
    recipe: str | None, weights: str | Path, overrides: Sequence[str], *, only: tuple[str, ...] = ()
) -> tuple[System, Any, Any]:
    """Return system, configuration (overridden) and network of a weights file, which must be of ``recipe``.

    ``only``: what the keys of overrides begin with that may change something, besides folders that are not read; empty
    allows all but ``model.*``. What the configuration leaves to the training set is filled in (see
    `systems.load_network`).
    """
    from fastpose.training.config import apply_overrides, differences, flatten_types, to_dict

    expected = None if recipe is None else load_recipe(recipe).name
    system, config, network = systems.load_network(weights, recipe=expected)
    changed = apply_overrides(config, overrides, expected or "")
    keys = list(differences(to_dict(config), to_dict(changed)))
    fixed = [key for key in keys if key.startswith("model.")]
    if fixed:
        raise ValueError(f"{fixed[0]}: the weights {weights} fix the network; leave this override out")
    other = [key for key in keys if only and not key.startswith(only + _UNREAD)]
    if other:
        why = "counts in an evaluation alone" if other[0].startswith("test.") else f"the training of {weights} fixed it"
        own = flatten_types(system.config)
        free = ", ".join(f"{key}*" if key.endswith(".") else key for key in only if key.endswith(".") or key in own)
        raise ValueError(f"{other[0]}: {why}; leave this override out ({free} may change)")
    return system, changed, network


def for_images(network: nn.Module, config: Any, precision: str = "fp32") -> nn.Module:
    """Return a network that sees or draws on its device: channels last on a CPU, in "bf16" a copy for inference."""
    import torch

    from fastpose import models
    from fastpose.training import distributed

    device = distributed.choose_device(config.run.device)
    if precision == "bf16":
        return models.for_inference(network.to(device), dtype=torch.bfloat16)
    order = torch.channels_last if device.type == "cpu" else torch.preserve_format
    return network.to(device=device, memory_format=order)  # type: ignore[call-overload]


def open_transfer(recipe: str | None, weights: str | Path, overrides: Sequence[str]) -> PoseTransfer:
    """Return what draws persons with a weights file of ``recipe``, on the device that its section ``run`` names.

    Overrides reach what the training did not fix: the section ``run``, and the colours of the maps given now.
    """
    system, config, network = open_weights(recipe, weights, overrides, only=_DRAWING)
    return systems.transfer(system, for_images(network, config), config)


def find_photos(inputs: Sequence[str | Path]) -> list[Path]:
    """Return the files named, and the photographs of the folders named, in order."""
    photos = [
        photo
        for path in map(Path, inputs)
        for photo in ([path] if path.is_file() else transfer_guides.find_files(path, PHOTOS, "image"))
    ]
    if not photos:
        raise ValueError("predict: no image given; name files or folders")
    return photos


def check_new(path: str | Path, *, folders: Sequence[str | Path] = ()) -> None:
    """Raise ``ValueError`` where a file is there already, or nowhere could it go but into a folder that will be made.

    ``folders``: those that will be made.
    """
    path = Path(path)
    if path.exists() or path.is_symlink():
        raise ValueError(f"{path}: exists already; name another file")
    if not path.parent.is_dir() and path.parent.resolve() not in [Path(folder).resolve() for folder in folders]:
        raise ValueError(f"{path}: there is no folder {path.parent}; make it or name another file")


def check_folder(path: str | Path) -> None:
    """Raise ``ValueError`` where a folder cannot be, as it or one that should hold it is a file."""
    there = next(place for place in (Path(path).absolute(), *Path(path).absolute().parents) if place.exists())
    if not there.is_dir():
        raise ValueError(f"out: expected a folder, {path} is a file or lies in one; name another")


def short(words: str) -> str:
    """Return words as a part of a file's name: no more than 100 bytes, cut between letters.

    Disks take 255 bytes of a whole name; two such parts, a number and an ending are fewer.
    """
    while len(os.fsencode(words)) > _LONGEST:
        words = words[:-1]
    return words


def origin(weights: AnyPath) -> dict[str, str | None]:
    """Return where weights are from, as JSON values: ``file``, ``system`` and ``recipe``."""
    from fastpose.training import checkpoint

    about = checkpoint.read_about(weights)
    return {"file": str(weights), "system": about.get("system"), "recipe": about.get("recipe")}


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
        return self.together([name])[0]

    def together(self, names: Sequence[str]) -> list[Path]:
        """Return the paths of files that belong together: all of one number, the first with which none exists."""
        number, paths = 1, [self.folder / name for name in names]
        while any(map(self._is_taken, paths)):
            number += 1
            paths = [self.folder / f"{Path(name).stem}-{number}{Path(name).suffix}" for name in names]
        self._taken |= {path.resolve() for path in paths}
        return paths

    def _is_taken(self, path: Path) -> bool:
        return path.resolve() in self._taken or path.exists() or path.is_symlink()


def as_path(value: AnyPath | None) -> Path | None:
    """Return a path or what stands for one as a path; None stays."""
    return None if value is None else Path(value)


def _paths(values: AnyPath | Iterable[AnyPath]) -> tuple[Path, ...]:
    return (Path(values),) if isinstance(values, (str, Path)) else tuple(map(Path, values))


def check_finite(network: nn.Module, weights: str | Path) -> None:
    """Raise for a network that diverged: what it finds are no key points, and nothing would tell."""
    broken = [name for name, value in network.state_dict().items() if not value.isfinite().all()]
    if broken:
        raise ValueError(f"weights {weights}: {broken[0]} holds NaN or infinite values; take other weights")


def _found(estimator: Any, photo: Path, image: np.ndarray) -> Estimate:
    """Return what an estimator finds in a photograph; its ``ValueError`` names the photograph."""
    try:
        return estimator(image)
    except ValueError as error:
        raise ValueError(f"image {photo}: {error}") from None


def _poses(names: Names, photo: Path, image: np.ndarray, estimate: Estimate, estimator: Any) -> list[Path]:
    """Write the pictures of one photograph's pose; return their paths."""
    from fastpose.training import pose3d_pictures
    from fastpose.visual import poses3d
    from fastpose.visual.grids import save_image
    from fastpose.visual.skeletons import draw_skeleton

    stem = short(photo.stem)
    if not isinstance(estimate, Estimate3D):
        picture = draw_skeleton(image, estimate.keypoints[0], None, estimator.skeleton)
        return [save_image(names.free(f"{stem}.png"), picture)]
    still, film = names.together([f"{stem}.png", f"{stem}.gif"])
    save_image(still, pose3d_pictures.portrait(image, estimate, estimator))
    poses3d.turning_gif(film, pose3d_pictures.film(image, estimate, estimator), estimator.skeleton)
    return [still, film]


def _row(photo: Path, image: np.ndarray, estimate: Estimate, estimator: Any) -> dict[str, Any]:
    """Return one photograph's key points as JSON values."""
    skeleton = estimator.skeleton
    row = {
        "image": str(photo),
        "size": [int(image.shape[0]), int(image.shape[1])],
        "skeleton": skeleton.name,
        "joints": list(skeleton.joints),
        "persons": [
            {"keypoints": points.round(2).tolist(), "scores": scores.round(4).tolist()}
            for points, scores in zip(estimate.keypoints.astype(float), estimate.scores.astype(float), strict=True)
        ],
    }
    return _in_space(row, estimate, estimator) if isinstance(estimate, Estimate3D) else row


def _in_space(row: dict[str, Any], estimate: Estimate3D, estimator: Any) -> dict[str, Any]:
    """Return the JSON values of a photograph with the joints in space and what they mean."""
    for person, joints in zip(row["persons"], estimator.millimetres(estimate).astype(float), strict=True):
        person["joints_3d"] = (joints.round(1) + 0.0).tolist()
    meaning = {
        "unit": "mm",
        "frame": "x right, y down, z away from the camera; the pelvis is the origin; scaled-orthographic",
        "scale": f"assumed: the {len(MPII_BONES)} bones together are {estimator.bone_sum:.1f} mm long",
    }
    return {**row, "joints_3d": meaning}


# ------------------------------------------------------------------------------------------------------- pose transfer


def _sources(drawer: PoseTransfer, photos: Sequence[Path], source_of: Any, targets: Sequence[Target]) -> list[Any]:
    """Return the guide of each photograph; whatever is wrong with one of them or a target is raised here."""
    from fastpose.data.images import read_image

    for target in targets:
        drawer.side(target.guide, f"target {target.name!r}")
    sources = []
    for photo in photos:
        image = read_image(photo, exif="apply")
        source = source_of(photo, image)
        drawer.check((image.shape[0], image.shape[1]), source)
        sources.append(source)
    return sources


def _drawn(
    drawer: PoseTransfer, photo: Path, source: Any, targets: Sequence[Target], names: Names, *, explain: bool
) -> list[Path]:
    """Draw one photograph's person as each target says and write all files of it; return their paths."""
    from fastpose.data.images import read_image
    from fastpose.visual import sequences
    from fastpose.visual.grids import save_image

    image = read_image(photo, exif="apply")
    generated = drawer(image, source, [target.guide for target in targets])
    pictures = dict(zip((target.name for target in targets), generated, strict=True))
    fitted = drawer.fitted(image, source)
    rows = [[fitted, drawer.picture(target.guide), picture] for target, picture in zip(targets, generated, strict=True)]
    titles = ("source", {"pose": "target pose"}.get(drawer.guide, "target"), "generated")
    pictures["sheet"] = sequences.contact_sheet(rows, titles, list(pictures))
    if explain:
        pictures |= drawer.explain(image, source, targets[0].guide)
    stem = short(photo.stem)
    films = [f"{stem}.gif", f"{stem}.mp4"] if len(rows) > 1 else []
    paths = names.together([*(f"{stem}_{name}.png" for name in pictures), *films])
    names.folder.mkdir(parents=True, exist_ok=True)
    written = [save_image(path, picture) for path, picture in zip(paths, pictures.values(), strict=False)]
    return written + (_films(paths[-2:], rows) if films else [])


def _films(paths: Sequence[Path], rows: Sequence[Any]) -> list[Path]:
    """Write the rows as a film, GIF and MP4; return the paths of what this OpenCV can write."""
    from fastpose import skeletons
    from fastpose.visual import sequences
    from fastpose.visual.skeletons import limb_colours

    film = sequences.frames(rows)
    written = [sequences.save_gif(paths[0], film, keep=((255, 255, 255), *limb_colours(skeletons.OPENPOSE)))]
    try:
        written.append(sequences.save_video(paths[1], film))
    except ValueError as error:
        warnings.warn(str(error), stacklevel=2)
    return written
