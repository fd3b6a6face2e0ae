"""A caption and a photograph: the person of the photograph in a pose that the caption tells (systems 004, 001, 003)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fastpose import _checks
from fastpose.skeletons import COCO, OPENPOSE
from fastpose.training import (
    caption_generation,
    caption_prediction,
    composition_files,
    prediction,
    systems,
    transfer_guides,
)
from fastpose.training.caption_generation import GeneratedPoses, Inputs, PoseGenerator
from fastpose.training.placing import Placement, place
from fastpose.training.transfer_inference import BATCH

if TYPE_CHECKING:
    from fastpose.data.keypoint_files import Pose
    from fastpose.training.transfer_inference import PoseTransfer

LEAST_JOINTS = 8
"""Of a pose that is drawn: so many has every pose of system 004's training."""

MOST_POSES = 1000
"""Of all captions together."""


@dataclass(frozen=True)
class Composed:
    """One pose of a caption and what came of it.

    Attributes:
        number: of the pose among those of its caption, from 1 on.
        inputs: what the generator made it of, one row.
        pose: what its heatmaps show, one `GeneratedPoses` of length 1.
        placed: the pose on the photograph, in its pixels; None where the pose has too few joints.
        placement: how it came to lie there; None likewise.
        heatmaps: float32 (17, 64, 64) in [0, 1]; None until it is drawn.
        image: uint8 (H, W, 3) of the transfer network's size; None likewise.
    """

    number: int
    inputs: Inputs
    pose: GeneratedPoses
    placed: Pose | None = None
    placement: Placement | None = None
    heatmaps: np.ndarray | None = None
    image: np.ndarray | None = None

    @property
    def joints(self) -> int:
        """How many joints the pose has."""
        return int(self.pose.visibility.sum())


class Composer:
    """The chain from a caption to a person in its pose.

    Args:
        generator: makes poses from captions.
        drawer: draws a photograph's person in other poses; guided by poses.

    Raises:
        ValueError: the generator takes no captions, or the drawer is guided by something else.
    """

    def __init__(self, generator: PoseGenerator, drawer: PoseTransfer) -> None:
        if not generator.conditional:
            raise ValueError(
                "caption weights: make poses from noise alone; expected those of a conditional generator, such as "
                "recipe caption/wgan-lp trains"
            )
        _check_guide(drawer)
        self.generator = generator
        self.drawer = drawer

    def __call__(self, photo: np.ndarray, own: Pose, caption: str, count: int = 1, seed: int = 0) -> list[Composed]:
        """Return ``count`` poses of a caption, each with the person of the photograph in it.

        A pose of fewer than `LEAST_JOINTS` joints is not drawn.

        Args:
            photo: uint8 (h, w, 3) RGB of any size.
            own: its person's pose, in its pixels.
            caption: a text with a word in it.
            count: 1 or more.
            seed: of the noise, 0 or more; pose k is the same whatever ``count`` is.

        Raises:
            ValueError: arguments of another kind, a pose without a joint in what is shown, a network that gives NaN.
        """
        size = _size(photo)
        self.drawer.check(size, own)
        found = self.poses(caption, count, seed, own, size)
        images = self.draw(photo, own, [one for one in found if one.placed is not None])
        return [one if one.placed is None else next(images) for one in found]

    def poses(self, caption: str, count: int, seed: int, own: Pose, size: tuple[int, int]) -> list[Composed]:
        """Return the poses of a caption, placed on the person of a photograph of ``size`` (h, w), but not drawn."""
        inputs = self.generator.inputs(caption, count, seed)
        rows = [_row(inputs, k) for k in range(count)]
        made = enumerate(zip(rows, self._heatmaps(rows), strict=True), 1)
        found = (Composed(k, row, caption_generation.read(heatmaps[None], [caption])) for k, (row, heatmaps) in made)
        return [_placed(one, own, size) for one in found]

    def draw(self, photo: np.ndarray, own: Pose, placed: Sequence[Composed]) -> Iterator[Composed]:
        """Give placed poses with their heatmaps and the person of the photograph in them, drawn as they are asked for.

        ``ValueError`` where a network gives NaN.
        """
        for at in range(0, len(placed), BATCH):
            some = placed[at : at + BATCH]
            images = self.drawer(photo, own, [one.placed for one in some])
            for one, heatmaps, image in zip(some, self._heatmaps([one.inputs for one in some]), images, strict=True):
                yield replace(one, heatmaps=heatmaps.numpy(), image=image)

    def _heatmaps(self, rows: Sequence[Inputs]) -> Iterator[Tensor]:
        """Give the heatmaps (17, 64, 64) of inputs, a batch in memory at a time."""
        for at in range(0, len(rows), BATCH):
            noise, vectors, _ = zip(*rows[at : at + BATCH], strict=True)
            known = [part for part in vectors if part is not None]
            yield from self.generator.heatmaps(torch.cat(noise), torch.cat(known) if known else None)


def compose(
    captions: str | Sequence[str],
    *,
    person: str | Path,
    caption_weights: str | Path,
    weights: str | Path,
    keypoints: str | Path | None = None,
    pose_weights: str | Path | None = None,
    encoder: Any = None,
    count: int = 1,
    seed: int = 0,
    out: str | Path = "composed",
    overrides: Sequence[str] = (),
) -> list[Path]:
    """Draw the person of a photograph in poses that captions tell; return the paths of the files.

    A generator makes poses of each caption (system 004), `placing.place` lays them over the person's own pose, and
    pose transfer draws the person in them (systems 001 and 003). Of each caption: ``<photo>_<caption>_<k>.png``, the
    person in pose k; ``..._<k>_pose.png``, heatmaps and skeleton of that pose; ``..._<k>_placed.png``, the person's own
    pose and the placed one on the photograph; ``<photo>_<caption>_sheet.png``, all of it for the first 24
    poses; and ``<photo>_<caption>.json``: key points, placement, seed, count, sizes, and where the weights are from.
    Pictures are written as they are drawn. An existing file is never overwritten: all files of a caption are numbered
    then.

    Args:
        captions: one text or several, as `caption_prediction.read_captions` takes them.
        person: photograph of a person.
        caption_weights: a .safetensors file of poses from captions (caption).
        weights: a .safetensors file of pose transfer guided by poses (pona, multiscale).
        keypoints: a file with the key points of the photograph, found by its name.
        pose_weights: weights of a 2D pose network that sees them, where there is no file.
        encoder: of the captions, as `data.text.create` takes it; None takes the one that the caption weights name.
        count: poses of each caption; of all captions together up to `MOST_POSES`.
        seed: of the noise; the same for every caption.
        out: folder of the files.
        overrides: ``key=value`` texts over the configurations of both weights: ``run.*`` alone.

    Raises:
        ValueError, FileNotFoundError: one sentence about a caption, the photograph, weights, key points that are not
            known, or that no pose at all has joints enough; nothing is written then.

    Warns:
        UserWarning: a pose has too few joints and is not drawn, the JSON has it under "skipped"; or the pictures' font
            has no letters for a caption.
    """
    texts = list(dict.fromkeys(caption_prediction.read_captions(captions)))
    _check(texts, count, seed, overrides)
    prediction.check_folder(out)
    _check_systems(caption_weights, weights)
    person, photo = Path(person), _photograph(person)
    drawer = prediction.open_transfer(None, weights, overrides)
    own = _own_pose(drawer, person, photo, keypoints, pose_weights)
    generator = caption_prediction.open_generator(None, caption_weights, encoder, overrides)  # takes longest
    composer = Composer(generator, drawer)
    made = {text: composer.poses(text, count, seed, own, _size(photo)) for text in texts}
    _report(made)
    about = {"photograph": str(person), "size": list(_size(photo)), "seed": int(seed), "count": int(count)}
    about |= {"caption_weights": prediction.origin(caption_weights) | generator.origin}
    about |= {
        "weights": prediction.origin(weights) | {"size": list(drawer.size)},
        "own_pose": composition_files.pose_values(own),
    }
    titles, names = caption_prediction.titles(texts), prediction.Names(Path(out), [person])
    return [
        path
        for text in texts
        for path in composition_files.write(composer, photo, own, made[text], names, about, text, titles[text])
    ]


# ------------------------------------------------------------------------------------------------------------- opening


def _check_systems(caption_weights: str | Path, weights: str | Path) -> None:
    """Raise where weights are of another job, by their headers."""
    poses, persons = systems.of(caption_weights), systems.of(weights)
    swapped = poses.transfer is not None and persons.generator is not None
    hint = "; the two are exchanged" if swapped else ""
    if poses.generator is None:
        raise ValueError(
            f"caption weights {caption_weights}: are of system {poses.name}, which makes no poses; expected those of "
            f"poses from captions (caption){hint}"
        )
    if persons.transfer is None:
        raise ValueError(
            f"weights {weights}: are of system {persons.name}, which draws nobody; expected those of pose transfer "
            f"guided by poses, such as pona{hint}"
        )


def _check(captions: Sequence[str], count: int, seed: int, overrides: Sequence[str]) -> None:
    """Raise ``ValueError`` for what is wrong whatever the weights are."""
    if not captions:
        raise ValueError("caption: expected a text, got none")
    _checks.whole("count", count, 1)
    _checks.whole("seed", seed, 0)
    if count * len(captions) > MOST_POSES:
        raise ValueError(
            f"count: expected at most {MOST_POSES:,} poses at a time, got {count:,} of each of {len(captions)} captions"
        )
    for key in (override.partition("=")[0] for override in overrides):
        if not key.startswith("run."):
            way = "pass the encoder with --encoder" if key.startswith("text.") else "leave this override out"
            raise ValueError(f"{key}: the weights fix it; {way} (run.* may change)")


def _row(inputs: Inputs, k: int) -> Inputs:
    vectors = None if inputs.vectors is None else inputs.vectors[k : k + 1]
    return Inputs(inputs.noise[k : k + 1], vectors, inputs.captions[k : k + 1])


def _check_guide(drawer: PoseTransfer) -> None:
    if drawer.guide != "pose":
        raise ValueError(f"weights: are guided by {drawer.guide} maps; expected weights guided by poses, as pona's")


def _photograph(person: str | Path) -> np.ndarray:
    from fastpose.data.images import read_image

    if Path(person).is_dir():
        raise ValueError(f"person {person}: is a folder; expected one photograph")
    return read_image(person, exif="apply")


def _own_pose(
    drawer: PoseTransfer,
    person: Path,
    photo: np.ndarray,
    keypoints: str | Path | None,
    pose_weights: str | Path | None,
) -> Pose:
    """Return the pose of a photograph's person; raises where the drawer could not draw it."""
    _check_guide(drawer)
    known, seeing = prediction.as_path(keypoints), prediction.as_path(pose_weights)
    own = transfer_guides.PoseReader(known, seeing, drawer.device).of(person, photo)
    drawer.check(_size(photo), own)
    return own


def _size(photo: np.ndarray) -> tuple[int, int]:
    return int(photo.shape[0]), int(photo.shape[1])


# ------------------------------------------------------------------------------------------------------------- placing


def _placed(one: Composed, own: Pose, size: tuple[int, int]) -> Composed:
    """Return a pose with its place on the photograph; as it is where it has too few joints."""
    from fastpose.data import joints
    from fastpose.data.keypoint_files import Pose

    if one.joints < LEAST_JOINTS:
        return one
    pose = one.pose
    points, known = joints.convert(pose.keypoints[0], pose.visibility[0].astype(np.float32), COCO, OPENPOSE)
    placement = place(points, known, own.keypoints, own.visibility, size)
    moved = np.where(known[:, None] > 0, placement(points), 0).astype(np.float32)
    return replace(one, placed=Pose(f"pose {one.number}", moved, known, size), placement=placement)


def _report(made: Mapping[str, Sequence[Composed]]) -> None:
    """Warn of poses that are not drawn; ``ValueError`` where there are no others."""
    every = [one for found in made.values() for one in found]
    if not any(one.placed is not None for one in every):
        raise ValueError(
            f"caption: none of {len(every)} poses has {LEAST_JOINTS} joints or more, as those of the training have, "
            f"the best has {max(one.joints for one in every)}; take another seed, more poses, or weights trained longer"
        )
    for caption, found in made.items():
        few = [one for one in found if one.placed is None]
        if few:
            which = ", ".join(f"{one.number} ({one.joints} joints)" for one in few)
            warnings.warn(
                f"{caption!r}: not drawn, having fewer than {LEAST_JOINTS} joints: pose {which}; take more poses or "
                "another seed",
                stacklevel=3,
            )
