"""Image pairs for training: the data section of a configuration, its sources, and what the networks are given."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fastpose import _checks, data, ops
from fastpose.data import fingerprints
from fastpose.data.unreadable import SKIP_LIMIT

PARTS = 16
"""Parts of a semantic map: the published maps have 16 colours, of which label 0 is the background."""

_log = logging.getLogger("fastpose.training")

POSE_MAPS = ("gaussian_rounded", "binary", "gaussian", "wide")


_LISTS = ("annotation", "pair_list", "pairs", "holdout", "missing_images")


@dataclass(frozen=True)
class _Kind:
    """What a data set gives: its validation split, the size (H, W) it is published in, what guides the generation.

    ``options`` are the keys of the configuration that its class takes.
    """

    validation: str
    size: tuple[int, int]
    options: tuple[str, ...]
    guide: str = "pose"


_KINDS = {
    "market": _Kind("test", (128, 64), _LISTS),
    "deepfashion": _Kind("test", (256, 256), (*_LISTS, "crop", "coordinates")),
    "photos": _Kind("val", (256, 256), ("annotation", "holdout", "size")),
    "sample-pairs": _Kind("val", (128, 64), ("size",)),
    "semantic": _Kind("test", (256, 256), (*_LISTS, "crop", "coordinates", "maps", "palette", "tolerance"), "semantic"),
    "fonts": _Kind("test", (256, 256), ("holdout", "pairs_per_font", "size", "unusable"), "skeleton"),
}


@dataclass(frozen=True)
class TransferDataConfig:
    """Which pairs are trained and evaluated on, and how poses are drawn.

    Attributes:
        name: data set (market, deepfashion, photos, sample-pairs, semantic, fonts).
        root: its folder; empty for the bundled sample.
        annotation, pair_list: files in place of the data set's own.
        pairs: "published" pair lists, or "all" ordered pairs of one identity.
        split, validation_split: empty for the data set's own.
        holdout: share of the identities held out for validation where there is one list only; 0 is the data set's own.
        height, width: of the networks' images; 0 for the data set's own.
        crop: of DeepFashion: "176" keeps columns 40 to 215 (system 001), "none" the square (system 003).
        coordinates: of DeepFashion: annotation in the "256" or "176" frame; "auto" looks.
        pose_map: "gaussian_rounded" (released code of 001), "binary" (003, and 001 on DeepFashion), "wide" (eq. 1 of
            001) or "gaussian".
        sigma: of the pose maps in pixels; without meaning for "binary".
        samples_per_epoch: so many random pairs make an epoch; 0 takes every pair once.
        validation_pairs: evaluate on so many pairs, evenly spread over the list; 0 takes all.
        flip: mirror pairs at random, left and right joints swapped.
        pairs_per_font: of the fonts.
        unusable: fonts that cannot be read or lack a letter are an "error" or to "skip".
        maps, palette, tolerance: of the part maps: their folder, the colours of the parts ("inshop", "auto" or a list),
            and how far in RGB a colour may lie from them.
        missing_images: pairs whose photograph is absent are an "error" or are "drop"ped.
        on_error: an unreadable photograph is to "raise" or to be "skip"ped.
        skip_limit: so many different unreadable pairs are skipped at most.
    """

    name: str = "market"
    root: str = ""
    annotation: str = ""
    pair_list: str = ""
    pairs: str = "published"
    split: str = ""
    validation_split: str = ""
    holdout: float = 0.0
    height: int = 0
    width: int = 0
    crop: str = "none"
    coordinates: str = "auto"
    pose_map: str = "gaussian_rounded"
    sigma: float = 6.0
    samples_per_epoch: int = 0
    validation_pairs: int = 0
    flip: bool = False
    pairs_per_font: int = 200
    unusable: str = "error"
    maps: str = "parts"
    palette: str = "inshop"
    tolerance: float = 32.0
    missing_images: str = "error"
    on_error: str = "raise"
    skip_limit: int = SKIP_LIMIT

    def __post_init__(self) -> None:
        if self.name not in _KINDS:
            raise ValueError(_checks.unknown("data set", self.name, _KINDS))
        _checks.choice("data.pairs", self.pairs, ("published", "all"))
        _checks.choice("data.crop", self.crop, ("none", "176"))
        _checks.choice("data.coordinates", self.coordinates, ("auto", "256", "176"))
        _checks.choice("data.pose_map", self.pose_map, POSE_MAPS)
        _checks.choice("data.missing_images", self.missing_images, ("error", "drop"))
        _checks.choice("data.on_error", self.on_error, ("raise", "skip"))
        _checks.choice("data.unusable", self.unusable, ("error", "skip"))
        for name in ("height", "width", "samples_per_epoch", "validation_pairs", "skip_limit"):
            if getattr(self, name) < 0:
                raise ValueError(f"data.{name}: expected 0 or more, got {getattr(self, name)}")
        if bool(self.height) != bool(self.width):
            raise ValueError(f"data.height, data.width: expected both or neither, got {self.height} x {self.width}")
        if self.sigma <= 0:
            raise ValueError(f"data.sigma: expected a positive number of pixels, got {self.sigma}")
        if not 0 <= self.holdout < 1:
            raise ValueError(f"data.holdout: expected a share from 0 up to 1, got {self.holdout}")
        if self.pairs_per_font < 1:
            raise ValueError(f"data.pairs_per_font: expected 1 or more, got {self.pairs_per_font}")


@dataclass(frozen=True)
class Inputs:
    """A batch as the networks see it.

    Attributes:
        source, target: photographs (B, 3, H, W) in [-1, 1].
        source_guide, target_guide: (B, C, H, W) in [0, 1]: 18 pose maps, 16 part masks, or one skeleton image.
    """

    source: Tensor
    target: Tensor
    source_guide: Tensor
    target_guide: Tensor

    @property
    def guides(self) -> Tensor:
        """Both guides, the source's first, (B, 2C, H, W): the second input of every generator."""
        return torch.cat((self.source_guide, self.target_guide), dim=1)


def guide(config: TransferDataConfig) -> str:
    """Return what guides the generation: "pose", "semantic" or "skeleton"."""
    return _KINDS[config.name].guide


def guide_channels(config: TransferDataConfig) -> int:
    """Return the channels of one guide: 18 joints, 16 parts, or 1 skeleton image."""
    return {"pose": 18, "semantic": PARTS, "skeleton": 1}[guide(config)]


def image_size(config: TransferDataConfig) -> tuple[int, int]:
    """Return (H, W) of the networks' images."""
    if config.height:
        return config.height, config.width
    height, width = _KINDS[config.name].size
    return height, 176 if "crop" in _KINDS[config.name].options and config.crop == "176" else width


def split_name(config: TransferDataConfig, purpose: str) -> str:
    """Return the name of the data set's split for "train" or "validation"."""
    if purpose == "train":
        return config.split or "train"
    # One list alone is divided by identity, and its parts are called train and val.
    divided = config.holdout and "pair_list" in _KINDS[config.name].options
    return config.validation_split or ("val" if divided else _KINDS[config.name].validation)


def source(config: TransferDataConfig, purpose: str) -> Any:
    """Return the pairs of the data set for "train" or "validation"."""
    chosen = {key: image_size(config) if key == "size" else getattr(config, key) for key in _KINDS[config.name].options}
    # Empty texts and no holdout leave the data set's own.
    given = {key: value for key, value in chosen.items() if value != "" and not (key == "holdout" and value == 0)}
    return data.create(config.name, config.root or None, split_name(config, purpose), **given)


def train_dataset(config: TransferDataConfig, seed: int) -> Dataset[dict[str, Tensor]]:
    """Return the training pairs; a person or font of the validation pairs among them is an error, and so is no pose.

    One split for both is the user's own wish, and is said in the log.
    """
    train = source(config, "train")
    if guide(config) == "pose" and not any(entry.visibility.any() for entry in train.persons):
        raise ValueError(
            f"{train.name}: no image of split {train.split!r} has a joint; expected poses to train on (see fastpose "
            f"data check {config.name} {config.root})"
        )
    if split_name(config, "train") == split_name(config, "validation"):
        _log.warning("data: split %r is trained and validated on alike; its scores are no test", train.split)
    else:
        data.pairs.check_disjoint(train, source(config, "validation"))
    return _dataset(train, config, seed, samples_per_epoch=config.samples_per_epoch, flip=config.flip)


def validation_dataset(config: TransferDataConfig, seed: int) -> Dataset[dict[str, Tensor]]:
    """Return the validation pairs, or ``validation_pairs`` of them, evenly spread over the list; never augmented."""
    whole = _dataset(source(config, "validation"), config, seed)
    if not 0 < config.validation_pairs < len(whole):
        return whole
    return _Part(whole, np.linspace(0, len(whole) - 1, config.validation_pairs).round().astype(int).tolist())


def _dataset(pairs: Any, config: TransferDataConfig, seed: int, **options: Any) -> Any:
    size, limit = image_size(config), config.skip_limit
    return data.PairDataset(pairs, size=size, seed=seed, on_error=config.on_error, skip_limit=limit, **options)


class _Part(Dataset[dict[str, Tensor]]):
    """Some samples of a data set, asked for by index or (epoch, index)."""

    def __init__(self, whole: Any, indices: Sequence[int]) -> None:
        self.whole, self.indices, self.source = whole, tuple(indices), whole.source

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def skipped(self) -> int:
        """Number of different pairs that could not be read so far."""
        return int(self.whole.skipped)

    @property
    def fingerprint(self) -> str:
        """What tells these samples from others, 16 hexadecimal digits."""
        return fingerprints.of_parts([self.whole.fingerprint, *map(str, self.indices)])

    def __getitem__(self, key: Any) -> dict[str, Tensor]:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        return self.whole[(epoch, self.indices[index])]


def prepare(batch: dict[str, Tensor], config: TransferDataConfig) -> Inputs:
    """Return a batch of ``PairDataset`` as the networks see it, guides drawn on the batch's device."""
    shape = batch["source_image"].shape[-2:]
    return Inputs(
        to_network(batch["source_image"]),
        to_network(batch["target_image"]),
        draw_guide(_side(batch, "source"), shape, config),
        draw_guide(_side(batch, "target"), shape, config),
    )


def _side(batch: dict[str, Tensor], side: str) -> dict[str, Tensor]:
    """Return what a batch holds of the "source" or the "target", without that prefix."""
    return {key.removeprefix(f"{side}_"): value for key, value in batch.items() if key.startswith(f"{side}_")}


def draw_guide(side: dict[str, Tensor], size: tuple[int, int] | torch.Size, config: TransferDataConfig) -> Tensor:
    """Return the guide of one side of a batch, float32 (B, C, H, W) in [0, 1].

    Args:
        side: keypoints (B, 18, 2) in pixels and visibility (B, 18); or labels (B, H, W); or skeleton (B, 1, H, W).
        size: (H, W).
        config: says which of these, and how poses are drawn.
    """
    if guide(config) == "semantic":
        planes = torch.arange(PARTS, device=side["labels"].device).view(1, PARTS, 1, 1)
        return (side["labels"][:, None] == planes).float()  # (B, 16, H, W)
    if guide(config) == "skeleton":
        return side["skeleton"].float() / 255  # (B, 1, H, W)
    return ops.render_gaussian_heatmaps(
        side["keypoints"],
        (int(size[0]), int(size[1])),
        config.sigma,
        visibility=side["visibility"],
        profile=config.pose_map,
    )  # (B, 18, H, W)


def to_network(images: Tensor) -> Tensor:
    """Return uint8 images as float32 in [-1, 1]."""
    return images.to(torch.float32, copy=True).div_(127.5).sub_(1)  # in place: fresh memory costs more than arithmetic


def to_bytes(images: Tensor) -> Tensor:
    """Return images in [-1, 1] as uint8, rounded to the nearest; what lies outside is cut off."""
    return ((images.detach().float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
