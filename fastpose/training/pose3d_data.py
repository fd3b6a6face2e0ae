"""Two domains of system 002: a laboratory with 3D truth and photographs "in the wild" with 2D labels at most."""

from __future__ import annotations

import copy
import functools
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastpose import _checks, data, skeletons
from fastpose.data import human36m, mpi_inf_3dhp, pose3d, transforms
from fastpose.data.keypoint_dataset import KeypointDataset
from fastpose.data.mixing import MixedDataset
from fastpose.data.person import LazyPersons, Person, Source
from fastpose.data.unreadable import SKIP_LIMIT
from fastpose.training import pose_data
from fastpose.training.disjoint import check_disjoint
from fastpose.training.pose_data import MPII_MEAN, cut, normalise

__all__ = ["SKELETON", "Pose3dDataConfig", "cut", "normalise", "train_dataset", "validation_dataset"]

SKELETON = skeletons.MPII
"""What networks of this system predict."""

_log = logging.getLogger("fastpose.training")

# data set with 3D truth -> (training split, validation split)
_LABORATORY = {
    "h36m": ("train", "val"),
    "mpi_inf_3dhp": ("train", "test"),
    "mocap": ("train", "val"),
    "sample-mocap": ("train", "val"),
}
_WILD = {"mpii": "val", "lsp": "test", "lspet": "val", "coco": "val", "sample": "val"}  # data set -> validation split
_RENDERED = ("mocap", "sample-mocap")
TARGETS = ("annotated", "reprojected")


@dataclass(frozen=True)
class Pose3dDataConfig:
    """What is trained and evaluated on.

    Attributes:
        name: data set with 3D truth: "h36m", "mocap" (rendered) or "sample-mocap" (rendered, bundled); "none" trains 2D
            on the wild sets alone.
        root: its folder.
        annotation: annotation file or layout of "h36m"; empty for the one that is there.
        every: of "h36m": which frames of its 50 a second are trained on: "10fps" (as released: every fifth), "all" or a
            number, such as 5 for every fifth.
        test_every: of "h36m": which are evaluated: "zhou" (as released: every 200th), "1in64", "10fps", "all" or a
            number.
        wild: 2D sets as "name:folder" (mpii, lsp, lspet, coco), and "sample", the bundled one; may be empty.
        wild_share: part of a batch that is wild; the numbers per batch are exact.
        mixing: "exact" numbers of both domains in every batch, or "shuffled" as released: an epoch is all 2D samples
            and ``ratio_3d`` times as many of the 3D set, or all of it where it has fewer, drawn anew and shuffled.
        ratio_3d: of shuffled mixing: 3D samples to one 2D sample.
        epoch_batches: batches of an epoch of one process with exact mixing; 0: once through the 3D set.
        validation: 3D set to evaluate on as "name:folder"; empty for the validation split of ``name``, "none" for none.
        holdout: of LSP-extended as a wild set: its last images are for validation.
        image_size: side of the square crop in pixels; heatmaps have a quarter of it.
        crop: crop preset.
        augmentation, wild_augmentation: presets for the 3D set (as released: none) and for the wild ones.
        targets: heatmaps stand at the "annotated" key points (ours), or at the 3D joints "reprojected" by a scaled-
            orthographic camera (as released).
        depth_scale: pixels per millimetre: "bone_sum" (as released) or from the camera at the "root".
        depth_root: the joint of depth 0: "pelvis" (ours) or "thorax" (as released).
        views: of rendered sets: pictures of every pose, each by another camera.
        fps: of rendered sets: poses per second of motion.
        photo_size: of rendered sets: side of the square photographs in pixels.
        cache: of rendered sets: folder that keeps rendered photographs; empty keeps none.
        render_seed: of rendered sets: seed of cameras, clothes, light and background.
        validation_clips: of ``name`` where it is rendered: names of the clips for validation; empty for its own choice.
        holdout_every: of "mocap" without ``validation_clips``: one clip in so many is for validation.
        unit: of "mocap": unit of length of .amc and .bvh files; "auto" tells it by the person's size.
        recorded_fps: of "mocap": rate of recording of .amc files, which do not tell it.
        mean, std: RGB normalisation of images in 0..1.
        missing_images: persons whose photograph is absent are an "error" or are "drop"ped.
        on_error: an unreadable image is to "raise" or to be "skip"ped.
        skip_limit: so many different unreadable persons of a set are skipped at most.
    """

    name: str = "h36m"
    root: str = ""
    annotation: str = ""
    every: str = "10fps"
    test_every: str = "zhou"
    wild: tuple[str, ...] = ()
    wild_share: float = 0.5
    mixing: str = "exact"
    ratio_3d: float = 1.0
    epoch_batches: int = 0
    validation: str = ""
    holdout: int = 200
    image_size: int = 256
    crop: str = "exact"
    augmentation: str = "none"
    wild_augmentation: str = "sagan_released"
    targets: str = "annotated"
    depth_scale: str = "bone_sum"
    depth_root: str = "pelvis"
    views: int = 1
    fps: float = 10.0
    photo_size: int = 256
    cache: str = ""
    render_seed: int = 0
    validation_clips: tuple[str, ...] = ()
    holdout_every: int = 5
    unit: str = "auto"
    recorded_fps: float = 120.0
    mean: tuple[float, ...] = MPII_MEAN
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    missing_images: str = "error"
    on_error: str = "raise"
    skip_limit: int = SKIP_LIMIT

    def __post_init__(self) -> None:
        _checks.choice("data.on_error", self.on_error, ("raise", "skip"))
        _checks.not_negative("data.skip_limit", self.skip_limit)
        _checks.choice("data.missing_images", self.missing_images, ("error", "drop"))
        _checks.choice("data.mixing", self.mixing, ("exact", "shuffled"))
        _checks.choice("data.targets", self.targets, TARGETS)
        _checks.choice("data.depth_scale", self.depth_scale, pose3d.SCALES)
        _checks.choice("data.depth_root", self.depth_root, pose3d.ROOTS)
        for preset in (self.augmentation, self.wild_augmentation):
            _checks.choice("data.augmentation", preset, ("none", *transforms.AUGMENTATIONS))
        self._check_names()
        self._check_mixing()
        self._check_numbers()
        for key in ("every", "test_every"):
            value = getattr(self, key)
            if not (value.isdecimal() and int(value)):
                _checks.choice(f"data.{key}", value, tuple(human36m.EVERY))
        if self.validation_clips and self.name not in _RENDERED:
            raise ValueError(
                f"data.validation_clips: is for data.name = {' or '.join(_RENDERED)}, which is {self.name!r}; drop it"
            )

    def _check_names(self) -> None:
        if self.name not in (*_LABORATORY, "none"):
            raise ValueError(_checks.unknown("data set with 3D truth:", self.name, (*_LABORATORY, "none")))
        if self.validation and _split(self.validation)[0] not in (*_LABORATORY, "none"):
            known = (*_LABORATORY, "none")
            raise ValueError(_checks.unknown("data set with 3D truth:", _split(self.validation)[0], known))
        for entry in self.wild:
            if _split(entry)[0] not in _WILD:
                raise ValueError(_checks.unknown("wild data set:", _split(entry)[0], _WILD))
        if self.name == "none" and not self.wild:
            raise ValueError("data.wild: expected at least one set where data.name is none, got none; name one")
        places = [(name, os.path.realpath(os.path.expanduser(root))) for name, root in map(_split, self.wild)]
        for number, place in enumerate(places):
            if place in places[:number]:
                raise ValueError(f"data.wild: expected each set once, got {self.wild[number]} twice; leave one out")

    def _check_mixing(self) -> None:
        """Refuse what this way of mixing does not look at."""
        if not 0 <= self.wild_share < 1:
            raise ValueError(f"data.wild_share: expected a part of a batch in [0, 1), got {self.wild_share}")
        if not 0 < self.ratio_3d < float("inf"):
            raise ValueError(f"data.ratio_3d: expected a number above 0, got {self.ratio_3d}")
        if self.mixing == "shuffled" and (self.wild_share != _default("wild_share") or self.epoch_batches):
            raise ValueError(
                "data.wild_share, data.epoch_batches: are for data.mixing=exact, which is 'shuffled'; leave them out, "
                "or set data.ratio_3d"
            )
        if self.mixing == "exact" and self.ratio_3d != _default("ratio_3d"):
            raise ValueError(
                "data.ratio_3d: is for data.mixing=shuffled, which is 'exact'; leave it out, or set data.wild_share"
            )
        if self.mixing == "exact" and self.name != "none" and self.wild and not self.wild_share:
            raise ValueError(
                f"data.wild_share: 0 leaves out data.wild ({', '.join(self.wild)}); expected a share above 0, or no "
                "wild set"
            )

    def _check_numbers(self) -> None:
        pose_data.check_shown(self)
        if min(self.epoch_batches, self.holdout) < 0 or min(self.views, self.fps, self.photo_size) <= 0:
            raise ValueError(
                "data.epoch_batches, data.holdout: expected 0 or more; data.views, data.fps, data.photo_size: above 0"
            )


def _default(field: str) -> Any:
    return Pose3dDataConfig.__dataclass_fields__[field].default


def _split(entry: str) -> tuple[str, str]:
    """Return name and folder of "name:folder"."""
    name, _, root = entry.partition(":")
    return name, root


# -------------------------------------------------------------------------------------------------------------- names


def evaluated_laboratory(config: Pose3dDataConfig) -> list[tuple[str, str]]:
    """Return name and split of the 3D set that is evaluated; nothing where there is none."""
    name = _split(config.validation or config.name)[0]
    return [] if name == "none" else [(name, _LABORATORY[name][1])]


def evaluated_wild(config: Pose3dDataConfig) -> list[tuple[str, str]]:
    """Return names and splits of the wild sets that are evaluated."""
    return [(name, _WILD[name]) for name, _ in map(_split, config.wild)]


def trains_on_poses(config: Pose3dDataConfig) -> bool:
    """Whether there is a training set with 3D truth; MPI-INF-3DHP may be there with its test set alone."""
    if config.name == "mpi_inf_3dhp" and not config.annotation:
        return mpi_inf_3dhp.holds_training(config.root)
    return config.name != "none"


# ------------------------------------------------------------------------------------------------------------ sources


def laboratory(config: Pose3dDataConfig, purpose: str) -> Source | None:
    """Return the persons with 3D truth for "train" or "validation"; None where there are to be none."""
    name, root, annotation = config.name, config.root, config.annotation
    if purpose == "validation" and config.validation:
        (name, root), annotation = _split(config.validation), ""
    if name == "none":
        return None
    if not root and purpose == "validation" and config.validation and name != "sample-mocap":
        raise ValueError(f"data.validation: {name} needs the folder it was unpacked to; write {name}:PATH")
    split = _LABORATORY[name][purpose != "train"]
    try:
        return data.create(name, root or None, split, **_options(config, name, annotation, purpose))
    except human36m.EveryError as error:
        raise error.of(f"data.{_every(purpose)}") from None


def _every(purpose: str) -> str:
    """Return the field that says which frames of "h36m" are taken."""
    return "every" if purpose == "train" else "test_every"


def _options(config: Pose3dDataConfig, name: str, annotation: str, purpose: str) -> dict[str, Any]:
    """Return the options of a source with 3D truth."""
    if name in _RENDERED:
        return _rendering(config, name, purpose)
    options: dict[str, Any] = {"missing_images": config.missing_images}
    if annotation:
        options["annotation"] = annotation
    if name == "h36m":
        every = getattr(config, _every(purpose))
        options["every"] = int(every) if every.isdecimal() else every
    return options


def _rendering(config: Pose3dDataConfig, name: str, purpose: str) -> dict[str, Any]:
    """Return the options of a rendered set; those of its clips where it is the one that is trained on too."""
    options: dict[str, Any] = {
        "fps": config.fps,
        "views": config.views if purpose == "train" else 1,
        "size": (config.photo_size, config.photo_size),
        "seed": config.render_seed,
        "cache": config.cache,
    }
    if name == "mocap":
        options |= {"unit": config.unit, "recorded_fps": config.recorded_fps, "holdout_every": config.holdout_every}
    if config.validation_clips and (purpose == "train" or not config.validation):
        options["validation_clips"] = config.validation_clips
    return options


def wild(config: Pose3dDataConfig, purpose: str) -> list[Source]:
    """Return the 2D sets for "train" or "validation", all in MPII's joints."""
    return [_wild(config, *_split(entry), purpose) for entry in config.wild]


def _wild(config: Pose3dDataConfig, name: str, root: str, purpose: str) -> Source:
    if not root and name != "sample":
        raise ValueError(f"data.wild: {name} needs the folder it was unpacked to; write {name}:PATH")
    options: dict[str, Any] = {} if name == "sample" else {"missing_images": config.missing_images}
    if name in ("lsp", "lspet"):
        options["skeleton"] = "mpii"
    if name == "lspet":
        options["holdout"] = config.holdout
    split = "train" if purpose == "train" else _WILD[name]
    return data.joints.relabel(data.create(name, root or None, split, **options), SKELETON)


# ----------------------------------------------------------------------------------------------------------- datasets


def held_out(config: Pose3dDataConfig) -> list[Source]:
    """Return the sources that are evaluated: the 3D set, where there is one, then each wild set."""
    return [*_present(laboratory(config, "validation")), *wild(config, "validation")]


def train_dataset(
    config: Pose3dDataConfig, seed: int, batch_size: int, *, held: Sequence[Source] | None = None
) -> MixedDataset:
    """Return the training samples: part 0 the 3D set, part 1 all wild sets (one of them alone where the other is none).

    Items are those of ``KeypointDataset`` with depth, and those of ``MixedDataset``. ``held`` is ``held_out(config)``
    where that was read already.

    Raises:
        ValueError: a validation photograph or clip is in the training set too, or a domain gets no place in a batch.
    """
    truth, photographs = laboratory(config, "train"), wild(config, "train")
    held = held_out(config) if held is None else held
    check_disjoint([*_present(truth), *photographs], held, _choices(config))
    parts: list[Any] = [_dataset(each, config, seed, config.augmentation) for each in _present(truth)]
    outside = [_dataset(each, config, seed, config.wild_augmentation, n) for n, each in enumerate(photographs, 1)]
    if outside:
        parts.append(outside[0] if len(outside) == 1 else MixedDataset(outside))
    else:
        _log.warning("data.wild: none is named; no photograph in the wild is trained on")
    if config.mixing == "shuffled":
        return MixedDataset(parts, per_epoch=_shuffled([len(part) for part in parts], config.ratio_3d))
    return MixedDataset(parts, _numbers(config, batch_size, len(parts)), batches=config.epoch_batches)


def _choices(config: Pose3dDataConfig) -> str:
    """Return the fields that choose what is trained on and evaluated."""
    clips = ", data.validation_clips" if config.name in _RENDERED else ""
    return f"data.root, data.validation{clips} or data.wild"


def _shuffled(sizes: list[int], ratio: float) -> list[int]:
    """Return how many samples of each part make an epoch of shuffled mixing."""
    return sizes if len(sizes) == 1 else [max(1, min(sizes[0], round(ratio * sizes[1]))), sizes[1]]


def _numbers(config: Pose3dDataConfig, batch_size: int, parts: int) -> tuple[int, ...]:
    """Return how many samples of each part make a batch."""
    if parts == 1:
        return (batch_size,)
    outside = round(batch_size * config.wild_share)
    if not 0 < outside < batch_size:
        raise ValueError(
            f"data.wild_share: {config.wild_share} of a batch of {batch_size} leaves a domain without a sample; "
            "expected at least one of each, change it or run.batch_size"
        )
    return batch_size - outside, outside


def validation_dataset(config: Pose3dDataConfig, seed: int, *, held: Sequence[Source] | None = None) -> MixedDataset:
    """Return the validation samples, not augmented: those of each source of ``held_out`` as a part of its own.

    ``held`` is ``held_out(config)`` where that was read already.
    """
    sources = held_out(config) if held is None else held
    if not sources:
        raise ValueError("data.validation, data.wild: expected something to evaluate on, got neither")
    plain = replace(config, targets="annotated")  # what was labelled is what is measured
    return MixedDataset([_dataset(each, plain, seed, "none") for each in sources])


def _present(source: Source | None) -> list[Source]:
    return [] if source is None else [source]


def _dataset(
    source: Source, config: Pose3dDataConfig, seed: int, augmentation: str, stream: int = 0
) -> KeypointDataset:
    side = config.image_size
    return KeypointDataset(
        _with_targets(source, config),
        image_size=(side, side),
        heatmap_size=(side // 4, side // 4),
        augment=augmentation,
        crop=config.crop,
        seed=seed,
        stream=stream,
        on_error=config.on_error,
        skip_limit=config.skip_limit,
        depth=pose3d.DepthRule(config.depth_scale, config.depth_root),
    )


def _with_targets(source: Source, config: Pose3dDataConfig) -> Source:
    """Return a source whose key points are where heatmaps are to stand."""
    if config.targets == "annotated" or all(entry.pose3d is None for entry in source.persons):
        return source
    moved: Any = copy.copy(source)
    moved.persons = LazyPersons(np.arange(len(source)), functools.partial(_reprojected, source))
    return moved


def _reprojected(source: Source, index: int) -> Person:
    entry = source.persons[index]
    return entry if entry.pose3d is None else replace(entry, keypoints=pose3d.reprojected(entry, SKELETON))
