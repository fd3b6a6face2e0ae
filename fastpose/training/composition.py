"""A caption and a photograph: the person of the photograph in a pose that the caption tells (systems 004, 001, 003)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastpose.skeletons import COCO, OPENPOSE
from fastpose.training import caption_generation, caption_prediction, files, prediction, systems, transfer_guides
from fastpose.training.caption_generation import GeneratedPoses, PoseGenerator
from fastpose.training.placing import Placement, place

if TYPE_CHECKING:
    from fastpose.data.keypoint_files import Pose
    from fastpose.training.transfer_inference import PoseTransfer

LEAST_JOINTS = 8
"""Of a pose that is drawn: so many has every pose of system 004's training."""

TITLES = ("heatmaps", "pose of the caption", "own pose", "placed", "generated")
"""The panels of a sheet."""

MOST_POSES = 1000
"""Of a caption."""

_SIZED = {
    "trunk": "as large as the person by the trunk",
    "bones": "as large as the person by all bones",
    "box": "as high as the person",
    "frame": "filling the photograph",
}
_PLACED = {"feet": "on the same ground", "hips": "hips on hips", "box": "middle on middle", "frame": "in the middle"}


@dataclass(frozen=True)
class Composed:
    """One pose of a caption and what came of it.

    Attributes:
        number: of the pose among those of its caption, from 1 on.
        heatmaps: float32 (17, 64, 64) in [0, 1].
        pose: what they show, one `GeneratedPoses` of length 1.
        placed: the pose on the photograph, in its pixels; None where the pose has too few joints.
        placement: how it came to lie there; None likewise.
        image: uint8 (H, W, 3) of the transfer network's size; None likewise.
    """

    number: int
    heatmaps: np.ndarray
    pose: GeneratedPoses
    placed: Pose | None = None
    placement: Placement | None = None
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
        if drawer.guide != "pose":
            raise ValueError(f"weights: are guided by {drawer.guide} maps; expected weights guided by poses, as pona's")
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
        size = (int(photo.shape[0]), int(photo.shape[1]))
        self.drawer.check(size, own)
        found = [_placed(one, own, size) for one in self.poses(caption, count, seed)]
        drawn = [one.placed for one in found if one.placed is not None]
        images = iter(self.drawer(photo, own, drawn) if drawn else ())
        return [one if one.placed is None else replace(one, image=next(images)) for one in found]

    def poses(self, caption: str, count: int, seed: int) -> list[Composed]:
        """Return the poses of a caption, not yet placed."""
        inputs = self.generator.inputs(caption, count, seed)
        heatmaps = self.generator.heatmaps(inputs.noise, inputs.vectors)  # (N, 17, 64, 64)
        return [
            Composed(k + 1, heatmaps[k].numpy(), caption_generation.read(heatmaps[k : k + 1], [caption]))
            for k in range(count)
        ]


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
    pose and the placed one on the photograph; ``<photo>_<caption>_sheet.png``, all of it; and
    ``<photo>_<caption>.json``: key points, placement, seed, sizes, and where the weights are from. An existing file is
    never overwritten: all files of a caption are numbered then.

    Args:
        captions: one text or several, as `caption_prediction.read_captions` takes them.
        person: photograph of a person.
        caption_weights: a .safetensors file of poses from captions (caption).
        weights: a .safetensors file of pose transfer guided by poses (pona, multiscale).
        keypoints: a file with the key points of the photograph, found by its name.
        pose_weights: weights of a 2D pose network that sees them, where there is no file.
        encoder: of the captions, as `data.text.create` takes it; None takes the one that the caption weights name.
        count: poses of each caption, up to `MOST_POSES`.
        seed: of the noise; the same for every caption.
        out: folder of the files.
        overrides: ``key=value`` texts over the configurations of both weights: ``run.*``.

    Raises:
        ValueError, FileNotFoundError: one sentence about a caption, the photograph, weights, key points that are not
            known, or that no pose at all has joints enough; nothing is written then.

    Warns:
        UserWarning: a pose has too few joints and is not drawn; the JSON has it under "skipped".
    """
    from fastpose.data.images import read_image

    texts = list(dict.fromkeys(caption_prediction.read_captions(captions)))
    if not texts:
        raise ValueError("caption: expected a text, got none")
    if not 1 <= count <= MOST_POSES:
        raise ValueError(f"count: expected 1 to {MOST_POSES:,} poses, got {count}")
    prediction.check_folder(out)
    _check_systems(caption_weights, weights)
    person = Path(person)
    photo = read_image(person, exif="apply")
    composer, about = _open(caption_weights, weights, encoder, overrides)
    reader = transfer_guides.PoseReader(_path(keypoints), _path(pose_weights), composer.drawer.device)
    own = reader.of(person, photo)
    made = {text: composer(photo, own, text, count, seed) for text in texts}
    _report(made)
    names = prediction.Names(Path(out), [person])
    about |= {"photograph": str(person), "size": list(photo.shape[:2]), "seed": seed, "own_pose": _pose_values(own)}
    return [path for text in texts for path in _written(names, photo, own, text, made[text], about)]


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


def _open(
    caption_weights: str | Path, weights: str | Path, encoder: Any, overrides: Sequence[str]
) -> tuple[Composer, dict[str, Any]]:
    """Return the chain and where its weights are from, as JSON values."""
    generator = caption_prediction.open_generator(None, caption_weights, encoder, overrides)
    composer = Composer(generator, prediction.open_transfer(None, weights, overrides))
    about = {
        "caption_weights": _origin(caption_weights) | {"encoder": getattr(generator.encoder, "name", None)},
        "weights": _origin(weights) | {"size": list(composer.drawer.size)},
    }
    return composer, about


def _origin(weights: str | Path) -> dict[str, Any]:
    from fastpose.training import checkpoint

    about = checkpoint.read_about(weights)
    return {"file": str(weights), "system": about.get("system"), "recipe": about.get("recipe")}


def _path(value: str | Path | None) -> Path | None:
    return None if value is None else Path(value)


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
    if not any(one.image is not None for one in every):
        raise ValueError(
            f"caption: none of {len(every)} poses has {LEAST_JOINTS} joints or more, as those of the training have, "
            f"the best has {max(one.joints for one in every)}; take another seed, more poses, or weights trained longer"
        )
    for caption, found in made.items():
        few = [one for one in found if one.image is None]
        if few:
            which = ", ".join(f"{one.number} ({one.joints} joints)" for one in few)
            warnings.warn(
                f"{caption!r}: not drawn, having fewer than {LEAST_JOINTS} joints: pose {which}; take more poses or "
                "another seed",
                stacklevel=3,
            )


# ------------------------------------------------------------------------------------------------------------- writing


def _written(
    names: prediction.Names, photo: np.ndarray, own: Pose, caption: str, made: Sequence[Composed], about: dict[str, Any]
) -> list[Path]:
    """Write all files of one caption; return their paths."""
    from fastpose.visual.grids import save_image

    drawn = [one for one in made if one.image is not None]
    rows = {one.number: _panels(one, photo, own) for one in drawn}
    stem = f"{Path(about['photograph']).stem}_{caption_prediction.file_name(caption)}"
    pictures = {f"{stem}_{one.number}{kind}.png": picture for one in drawn for kind, picture in _files(rows, one)}
    if drawn:
        pictures[f"{stem}_sheet.png"] = _sheet(caption, rows, drawn)
    paths = names.together([*pictures, f"{stem}.json"])
    names.folder.mkdir(parents=True, exist_ok=True)
    written = [save_image(path, picture) for path, picture in zip(paths, pictures.values(), strict=False)]
    images = dict(zip(pictures, (path.name for path in paths), strict=False))
    poses = [_values(one) | {"image": images[f"{stem}_{one.number}.png"]} for one in drawn]
    skipped = [_values(one) for one in made if one.image is None]
    files.publish_json(paths[-1], {"caption": caption, **about, "poses": poses, "skipped": skipped})
    return [*written, paths[-1]]


def _panels(one: Composed, photo: np.ndarray, own: Pose) -> list[np.ndarray]:
    """Return the panels of one pose in the order of `TITLES`."""
    from fastpose.visual import captions, composition

    assert one.placed is not None
    assert one.image is not None
    points, present = one.pose.keypoints[0], one.pose.visibility[0]
    return [
        captions.heatmap_picture(one.heatmaps, points, present),
        captions.skeleton_picture(points, present),
        composition.on_photograph(photo, own.keypoints, own.visibility),
        composition.on_photograph(photo, one.placed.keypoints, one.placed.visibility, dim=True),
        one.image,
    ]


def _files(rows: Mapping[int, Sequence[np.ndarray]], one: Composed) -> list[tuple[str, np.ndarray]]:
    """Return the pictures of one pose, by what their names end in."""
    from fastpose.visual.grids import grid

    heatmaps, skeleton, own, placed, image = rows[one.number]
    return [
        ("", image),
        ("_pose", grid([heatmaps, skeleton], 2)),
        ("_placed", grid([own, placed], 2, ["own pose", "placed"])),
    ]


def _sheet(caption: str, rows: Mapping[int, Sequence[np.ndarray]], drawn: Sequence[Composed]) -> np.ndarray:
    from fastpose.visual import composition

    return composition.sheet(caption, list(rows.values()), TITLES, [_label(one) for one in drawn])


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
            "size": list(one.heatmaps.shape[1:]),
            "skeleton": COCO.name,
            "keypoints": pose.keypoints[0].astype(float).round(2).tolist(),
            "visibility": pose.visibility[0].astype(int).tolist(),
            "scores": pose.scores[0].astype(float).round(4).tolist(),
        },
    }
    if one.placed is None or one.placement is None:
        return row
    return row | {"placed": _pose_values(one.placed), "placement": asdict(one.placement)}


def _pose_values(pose: Pose) -> dict[str, Any]:
    return {
        "skeleton": OPENPOSE.name,
        "keypoints": np.asarray(pose.keypoints, float).round(2).tolist(),
        "visibility": (np.asarray(pose.visibility) > 0).astype(int).tolist(),
    }
