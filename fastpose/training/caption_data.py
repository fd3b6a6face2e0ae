"""Poses and captions for training: the data section of a configuration, its sources, and what networks are given."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastpose import _checks, ops
from fastpose.data.caption_dataset import CaptionDataset, check_augmentation
from fastpose.data.captions import (
    MINIMUM_JOINTS,
    PERSONS,
    SIDE,
    CaptionedPoses,
    check_disjoint,
    read_coco,
    sample,
)

SIZE = (SIDE, SIDE)
"""(H, W) of the heatmaps."""

SIGMA = 2.0
"""Width of a joint's bell in pixels."""

THRESHOLD = 0.2
"""A joint whose map stays below this in 0..1 is absent."""

_SPLITS = {"coco": ("train", "val"), "sample": ("train", "val")}  # data set -> its splits for training and validation


@dataclass(frozen=True)
class CaptionDataConfig:
    """What is trained and evaluated on.

    Attributes:
        name: "coco" (2017) or "sample", the bundled set.
        root: folder of COCO with ``annotations/``; empty for the bundled sample. Photographs are not needed.
        split, validation_split: "train" or "val"; empty for the data set's own. With ``holdout`` both are ``split``.
        annotations, captions: files of the split relative to ``root``; empty for the usual ones. An entry "" among
            others is the usual file too.
        validation_annotations, validation_captions: the same for the validation split.
        holdout: share of the photographs of ``split`` that are for validation; 0 validates on ``validation_split``.
        persons: "all" (unconditional training), or those "single" on their photograph, whom captions tell of.
        minimum_joints: persons with fewer labelled joints are left out.
        augment: mirror and turn the training poses.
        augment_validation: the validation poses too, as the released code; the thesis speaks of training alone.
        flip, rotation, scale, translate: share mirrored; degrees, factors and pixels (see ``CaptionDataset``).
    """

    name: str = "coco"
    root: str = ""
    split: str = ""
    validation_split: str = ""
    annotations: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()
    validation_annotations: tuple[str, ...] = ()
    validation_captions: tuple[str, ...] = ()
    holdout: float = 0.0
    persons: str = "all"
    minimum_joints: int = MINIMUM_JOINTS
    augment: bool = True
    augment_validation: bool = False
    flip: float = 0.5
    rotation: float = 10.0
    scale: tuple[float, ...] = (1.0, 1.0)
    translate: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in _SPLITS:
            raise ValueError(_checks.unknown("data set with captions:", self.name, _SPLITS))
        _checks.choice("data.persons", self.persons, PERSONS)
        for key in ("split", "validation_split"):
            if getattr(self, key):
                _checks.choice(f"data.{key}", getattr(self, key), ("train", "val"))
        if not 1 <= self.minimum_joints <= 17:
            raise ValueError(f"data.minimum_joints: expected 1 to 17, got {self.minimum_joints}")
        if not 0 <= self.holdout < 1:
            raise ValueError(f"data.holdout: expected a share from 0 up to 1, got {self.holdout}")
        try:
            check_augmentation(self.flip, self.rotation, self.scale, self.translate)
        except ValueError as error:
            raise ValueError(f"data.{error}") from None
        self._check_validation()

    def _check_validation(self) -> None:
        own = [key for key in _VALIDATION if getattr(self, key)]
        if self.holdout and own:
            raise ValueError(f"data.{own[0]}: is for data.holdout = 0, which is {self.holdout}; drop one of the two")
        if self.name == "sample" and (self.root or self.holdout or any(getattr(self, key) for key in _FILES)):
            raise ValueError(
                "data.root, data.holdout, data.annotations, data.captions: data set 'sample' is bundled and divided; "
                "leave them out"
            )


_FILES = ("annotations", "captions", "validation_annotations", "validation_captions")
_VALIDATION = ("validation_split", "validation_annotations", "validation_captions")


def source(config: CaptionDataConfig, purpose: str, captioned: bool) -> CaptionedPoses:
    """Return the poses for "train" or "validation"; with ``captioned`` those alone whose photograph has a caption.

    Raises:
        FileNotFoundError: a file is absent.
        ValueError: COCO without a root, a malformed file, or nobody left.
    """
    held = purpose == "validation" and bool(config.holdout)
    usual = _SPLITS[config.name]
    own = purpose == "train" or held
    split = (config.split or usual[0]) if own else (config.validation_split or usual[1])
    if config.name == "sample":
        return sample(split, minimum_joints=config.minimum_joints)
    if not config.root:
        raise ValueError("data.root: data set 'coco' needs the folder it was unpacked to; pass data.root=PATH")
    return read_coco(
        config.root,
        split,
        annotations=config.annotations if own else config.validation_annotations,
        captions=config.captions if own else config.validation_captions,
        persons=config.persons,
        minimum_joints=config.minimum_joints,
        captioned=captioned,
        holdout=config.holdout,
        part="holdout" if held else "train",
    )


def sources(config: CaptionDataConfig, captioned: bool) -> tuple[CaptionedPoses, CaptionedPoses]:
    """Return the poses for training and validation, see ``source``; ``ValueError`` where they share photographs."""
    train, validation = (source(config, purpose, captioned) for purpose in ("train", "validation"))
    check_disjoint(train, validation, "data.split or data.validation_split, or pass data.holdout")
    return train, validation


def train_dataset(poses: CaptionedPoses, config: CaptionDataConfig, seed: int) -> CaptionDataset:
    """Return poses to train on, augmented with ``augment``."""
    return _dataset(poses, config, seed, config.augment)


def validation_dataset(poses: CaptionedPoses, config: CaptionDataConfig, seed: int) -> CaptionDataset:
    """Return poses to evaluate on, augmented only with ``augment_validation``."""
    return _dataset(poses, config, seed, config.augment_validation)


def _dataset(poses: CaptionedPoses, config: CaptionDataConfig, seed: int, augment: bool) -> CaptionDataset:
    return CaptionDataset(
        poses,
        augment=augment,
        flip=config.flip,
        rotation=config.rotation,
        scale=(config.scale[0], config.scale[1]),
        translate=config.translate,
        seed=seed,
    )


def maps(keypoints: Tensor, visibility: Tensor) -> Tensor:
    """Return the heatmaps of poses as the networks see them, float32 (B, 17, 64, 64) in [-1, 1].

    ``keypoints`` (B, 17, 2) are (x, y) in pixels of the map, joints with ``visibility`` (B, 17) of 0 an empty map.
    """
    drawn = ops.render_gaussian_heatmaps(keypoints.float(), SIZE, SIGMA, visibility=visibility)
    return drawn.mul_(2).sub_(1)


def decode(heatmaps: Tensor, threshold: float = THRESHOLD) -> tuple[Tensor, Tensor]:
    """Return the joints that heatmaps (B, 17, H, W) in [-1, 1] show, by their largest value.

    Returns:
        points float32 (B, 17, 2), (x, y) in pixels of the map, 0 where absent; present bool (B, 17): whether the
        largest value reaches ``threshold`` on the scale of 0..1.
    """
    points, heights = ops.decode_heatmaps((heatmaps.detach().float() + 1) / 2, "argmax")
    present = heights >= threshold  # (B, 17)
    return torch.where(present[..., None], points, 0.0), present
