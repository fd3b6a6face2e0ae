"""Pairs of views as training samples: both images at the network's size, with joints, part labels or skeletons."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from fastpose.data import fingerprints, images
from fastpose.data.keypoint_dataset import checked_size, sample_generator
from fastpose.data.unreadable import SKIP_LIMIT, Substitute, Substitutes

View = dict[str, np.ndarray]


class PairDataset(Dataset):
    """Pairs (source, target) of one identity; pose maps are rendered later, on the device.

    Args:
        source: pairs of ``data.create`` ("market", "deepfashion", "photos", "sample-pairs", "semantic", "fonts").
        size: (H, W) of the network's images; None for the source's own.
        seed: with epoch and index, all that a sample's randomness depends on.
        samples_per_epoch: 0 gives every pair once per epoch; N > 0 gives N pairs drawn at random with replacement
            (PATN's 4,000).
        flip: mirror half of the pairs, both images alike; left and right joints swap.
        on_error: "raise" stops at an unreadable photograph; "skip" takes another pair in its place, chosen from
            (seed, epoch, index) alone, logs each such pair once and stops when there are more than ``skip_limit``.
        skip_limit: how many different unreadable pairs "skip" puts up with.
        pixel_limit: photographs with more pixels are refused before they are decoded.

    ``dataset[(epoch, index)]`` (or ``dataset[index]``, epoch 0) is a dict:
        source_image, target_image: uint8 (3, H, W) RGB.
        index: int64, the pair's row in ``source.pairs``.
        source_keypoints, target_keypoints: float32 (18, 2), (x, y) in pixels of the image; 0 where missing.
        source_visibility, target_visibility: float32 (18,), 1 where the joint is labelled and inside of the image.
        source_labels, target_labels ("semantic"): uint8 (H, W), 0 background, then the parts.
        source_skeleton, target_skeleton ("fonts"): uint8 (1, H, W), 0 or 255.

    What stands in for an unreadable pair is a ``Substitute``, which is a dict as well.

    Raises:
        ValueError: ``flip`` for glyphs (a mirrored letter is none), a size below 1, or a negative number.
    """

    def __init__(
        self,
        source: Any,
        *,
        size: tuple[int, int] | None = None,
        seed: int = 0,
        samples_per_epoch: int = 0,
        flip: bool = False,
        on_error: str = "raise",
        skip_limit: int = SKIP_LIMIT,
        pixel_limit: int = images.PIXEL_LIMIT,
    ):
        if samples_per_epoch < 0:
            raise ValueError(f"samples_per_epoch: expected 0 (every pair once) or more, got {samples_per_epoch}")
        if flip and source.guide == "skeleton":
            raise ValueError(f"flip: a mirrored letter of {source.name!r} is no letter; pass flip=no")
        self.source = source
        self.size = checked_size("size", source.size if size is None else size)
        self.seed, self.samples_per_epoch, self.flip, self.pixel_limit = seed, samples_per_epoch, flip, pixel_limit
        self._swap = np.array(source.skeleton.flip_permutation)
        self._substitutes = Substitutes(f"{source.name} pair", len(source.pairs), on_error, skip_limit)

    def __len__(self) -> int:
        return self.samples_per_epoch or len(self.source.pairs)

    @property
    def skipped(self) -> int:
        """Number of different pairs of which a photograph could not be read so far (all workers)."""
        return self._substitutes.skipped

    @property
    def fingerprint(self) -> str:
        """What tells these persons and pairs from others, 16 hexadecimal digits."""
        return fingerprints.of_persons(self.source.persons, np.asarray(self.source.pairs))

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, torch.Tensor]:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if not 0 <= index < len(self):
            raise IndexError(f"index: expected 0 to {len(self) - 1}, got {index}")
        rng = sample_generator(self.seed, epoch, index)
        flipped = bool(rng.random() < 0.5) and self.flip
        drawn = int(rng.integers(len(self.source.pairs))) if self.samples_per_epoch else index
        shown, views = self._substitutes.read(
            drawn,
            self._views,
            lambda attempt: int(sample_generator(self.seed, epoch, index, attempt).integers(len(self.source.pairs))),
        )
        sample = {"index": torch.tensor(shown)}
        for side, view in zip(("source", "target"), views, strict=True):
            for name, value in (mirrored(view, self._swap) if flipped else view).items():
                sample[f"{side}_{name}"] = _tensor(name, value)
        return sample if shown == drawn else Substitute(sample)

    def _views(self, pair: int) -> tuple[View, View]:
        first, second = (int(index) for index in self.source.pairs[pair])
        source = self.source.view(first, self.size, self.pixel_limit)
        return source, self.source.view(second, self.size, self.pixel_limit)


def mirrored(view: View, swap: np.ndarray) -> View:
    """Return a view mirrored left to right: images and maps by columns, joints by x -> W - 1 - x with sides swapped.

    Args:
        view: image (H, W, 3), and any of keypoints (K, 2), visibility (K,), labels (H, W), skeleton (H, W).
        swap: (K,), the joint that takes each joint's place.
    """
    turned = {name: value[:, ::-1] for name, value in view.items() if name not in ("keypoints", "visibility")}
    if "keypoints" in view:
        points, visible = view["keypoints"][swap].copy(), view["visibility"][swap]
        points[:, 0] = np.where(visible > 0, view["image"].shape[1] - 1 - points[:, 0], 0)
        turned |= {"keypoints": points, "visibility": visible}
    return turned


def _tensor(name: str, value: np.ndarray) -> torch.Tensor:
    """Return a view's entry as a tensor, channels first."""
    if name == "image":
        value = value.transpose(2, 0, 1)  # (3, H, W)
    elif name == "skeleton":
        value = value[None]  # (1, H, W)
    return torch.from_numpy(np.ascontiguousarray(value))
