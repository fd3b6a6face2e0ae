"""Single-person key points for training: the data section of a configuration, its sources and its normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from fastpose import _checks, data, skeletons
from fastpose.data import transforms
from fastpose.data.keypoint_dataset import KeypointDataset
from fastpose.data.mixing import MixedDataset
from fastpose.data.person import Source
from fastpose.data.unreadable import SKIP_LIMIT
from fastpose.skeletons import Skeleton
from fastpose.training.disjoint import check_disjoint

MPII_MEAN = (0.4404, 0.4440, 0.4327)
"""RGB mean of the MPII training images; the published codes subtract it and divide by nothing."""

# data set -> (training split, validation split, layout of the joints)
_DEFAULTS = {
    "lsp": ("train", "test", "mpii"),
    "lspet": ("train", "val", "mpii"),
    "mpii": ("train", "val", "mpii"),
    "coco": ("train", "val", "coco"),
    "sample": ("train", "val", "coco"),
}


@dataclass(frozen=True)
class DataConfig:
    """What is trained and evaluated on.

    Attributes:
        name: data set (see ``fastpose.data.list()``).
        root: its folder; empty for the bundled sample.
        extra: further training sets as "name:folder" (the paper trains LSP on "mpii:..." and "lspet:..." too).
        annotation: annotation file of "mpii" or "coco"; empty for the usual one.
        split, validation_split: empty for the data set's own.
        holdout: LSP-extended has no published split: its last ``holdout`` images are for validation.
        image_size: side of the square crop in pixels; heatmaps have a quarter of it.
        crop: crop preset ("exact", or a published one such as "hg_sagan").
        augmentation: augmentation preset ("sagan_paper", "sagan_released", "newell", "none").
        mean, std: RGB normalisation of images in 0..1; the published codes only subtract the mean.
        missing_images: persons whose photograph is absent are an "error" or are "drop"ped.
        on_error: an unreadable image is to "raise" or to be "skip"ped.
        skip_limit: so many different unreadable persons of a set are skipped at most.
        cache: folder that keeps the decoded photographs, so that each is decoded once; empty keeps none.
        cache_shrink: with ``cache``, keep photographs for training no larger than the closest crop needs: less disk and
            memory, and pixels that differ a little from those without; for crop "exact". Those that metrics are
            computed on stay whole.
    """

    name: str = "lsp"
    root: str = ""
    annotation: str = ""
    extra: tuple[str, ...] = ()
    split: str = ""
    validation_split: str = ""
    holdout: int = 200
    image_size: int = 256
    crop: str = "exact"
    augmentation: str = "sagan_paper"
    mean: tuple[float, ...] = MPII_MEAN
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    missing_images: str = "error"
    on_error: str = "raise"
    skip_limit: int = SKIP_LIMIT
    cache: str = ""
    cache_shrink: bool = False

    def __post_init__(self) -> None:
        _checks.choice("data.on_error", self.on_error, ("raise", "skip"))
        _checks.not_negative("data.skip_limit", self.skip_limit)
        _checks.choice("data.missing_images", self.missing_images, ("error", "drop"))
        for name in (self.name, *(entry.partition(":")[0] for entry in self.extra)):
            if name not in _DEFAULTS:
                raise ValueError(_checks.unknown("data set", name, _DEFAULTS))
        _checks.choice("data.augmentation", self.augmentation, ("none", *transforms.AUGMENTATIONS))
        check_shown(self)
        if self.cache_shrink and (self.crop != "exact" or not self.cache):
            raise ValueError(
                f"data.cache_shrink: expected data.crop=exact and a folder data.cache, got {self.crop!r} and "
                f"{self.cache!r}; leave it out"
            )


def skeleton(config: DataConfig) -> Skeleton:
    """Return the joints that a network trained on this data predicts; LSP is trained in the 16-joint MPII layout."""
    return skeletons.get(_DEFAULTS[config.name][2])


def split_name(config: DataConfig, purpose: str) -> str:
    """Return the name of the data set's split for "train" or "validation"."""
    train, validation, _ = _DEFAULTS[config.name]
    return (config.split or train) if purpose == "train" else (config.validation_split or validation)


def source(config: DataConfig, purpose: str) -> Source:
    """Return the persons of the main data set for "train" or "validation"."""
    return _source(config, config.name, config.root, split_name(config, purpose), config.holdout)


def _source(config: DataConfig, name: str, root: str, split: str, holdout: int) -> Source:
    options: dict[str, Any] = {} if name == "sample" else {"missing_images": config.missing_images}
    if name in ("lsp", "lspet"):
        options["skeleton"] = "mpii"
    if name == "lspet":
        options["holdout"] = holdout
    if name == config.name and config.annotation:
        options["annotation"] = config.annotation
    return data.create(name, root or None, split, **options)


def train_dataset(config: DataConfig, seed: int) -> KeypointDataset | MixedDataset:
    """Return the augmented training samples of the main data set and of the extra ones."""
    validation = source(config, "validation")
    sources = [source(config, "train")]
    for entry in config.extra:
        name, _, root = entry.partition(":")
        # The main data set is the one validated: nothing of another one is held out.
        holdout = config.holdout if name == config.name else 0
        sources.append(_source(config, name, root, _DEFAULTS[name][0], holdout))
    _check_skeletons(sources)
    check_disjoint(sources, [validation], "data.split, data.validation_split or data.extra")
    parts = [
        _dataset(one, config, seed, config.augmentation, stream=stream, shrink=config.cache_shrink)
        for stream, one in enumerate(sources)
    ]
    return parts[0] if len(parts) == 1 else MixedDataset(parts)


def validation_dataset(config: DataConfig, seed: int) -> KeypointDataset:
    """Return the validation samples, not augmented, of whole photographs: a metric does not depend on a cache."""
    return _dataset(source(config, "validation"), config, seed, "none")


def _dataset(
    one: Source, config: DataConfig, seed: int, augmentation: str, *, stream: int = 0, shrink: bool = False
) -> KeypointDataset:
    side = config.image_size
    return KeypointDataset(
        one,
        image_size=(side, side),
        heatmap_size=(side // 4, side // 4),
        augment=augmentation,
        crop=config.crop,
        seed=seed,
        stream=stream,
        on_error=config.on_error,
        skip_limit=config.skip_limit,
        cache=config.cache or None,
        shrink=shrink,
    )


def _check_skeletons(sources: Sequence[Source]) -> None:
    for one in sources[1:]:
        if one.skeleton != sources[0].skeleton:
            raise ValueError(
                f"data.extra: {one.name} has the joints of {one.skeleton.name!r}, {sources[0].name} those of "
                f"{sources[0].skeleton.name!r}; expected one layout"
            )


class Shown(Protocol):
    """How a configuration shows a person to its network: `DataConfig` and its like of other systems."""

    @property
    def image_size(self) -> int: ...
    @property
    def crop(self) -> str: ...
    @property
    def mean(self) -> tuple[float, ...]: ...
    @property
    def std(self) -> tuple[float, ...]: ...


def check_shown(config: Shown) -> None:
    """Raise ``ValueError`` unless crop, image size and normalisation of a configuration can be."""
    _checks.choice("data.crop", config.crop, tuple(transforms.CROPS))
    if config.image_size < 32 or config.image_size % 16:
        raise ValueError(f"data.image_size: expected a multiple of 16 from 32 on, got {config.image_size}")
    if len(config.mean) != 3 or len(config.std) != 3 or min(config.std) <= 0:
        raise ValueError(f"data.mean, data.std: expected 3 numbers each, std > 0, got {config.mean}, {config.std}")


def cut(config: Shown, photo: np.ndarray, center: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a person's crop, uint8 (S, S, 3), and the affine map (2, 3) from its heatmap's pixels to the photo's."""
    crop, side = transforms.crop(config.crop), config.image_size
    image = crop.cut(photo, center, scale, transforms.PLAIN, (side, side))
    nothing = np.zeros((0, 2))
    _, to_image = crop.place(nothing, center, scale, transforms.PLAIN, (side // 4, side // 4))
    return image, to_image


def normalise(images: Tensor, config: Shown) -> Tensor:
    """Return uint8 RGB images (B, 3, H, W) as float32: divided by 255, minus the mean, divided by std."""
    mean = torch.tensor(config.mean, device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(config.std, device=images.device).view(1, 3, 1, 1)
    # In place after the first step: on a CPU fresh memory costs more than the arithmetic.
    shown = images.to(torch.float32, copy=True).div_(255).sub_(mean)
    return shown if all(value == 1 for value in config.std) else shown.div_(std)
