"""Poses as training samples: key points mirrored and turned about the centre of the map, and captions drawn."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from fastpose import _checks
from fastpose.data.captions import SIDE, CaptionedPoses
from fastpose.data.keypoint_dataset import sample_generator

_OTHERS = ("mismatched", "fresh", "first", "second")


class _Turn(NamedTuple):
    """How a pose is shown: mirrored first, then turned by an angle in radians, scaled, and moved by (x, y) pixels."""

    flip: bool
    angle: float
    scale: float
    move: np.ndarray

    def place(self, points: np.ndarray) -> np.ndarray:
        """Return points (K, 2), moved about the centre (32, 32) of the map; a mirrored x becomes 64 - x."""
        center = SIDE / 2
        away = points.astype(np.float64) - center
        if self.flip:
            away[:, 0] = -away[:, 0]
        cosine, sine = math.cos(self.angle), math.sin(self.angle)
        turned = away @ np.array([[cosine, sine], [-sine, cosine]])  # clockwise as y runs down
        return self.scale * turned + center + self.move


class CaptionDataset(Dataset):
    """Poses with captions drawn at random; heatmaps are rendered later, on the device.

    Args:
        source: the poses.
        augment: mirror and turn poses; off, they are as annotated.
        flip: share that is mirrored: x becomes 64 - x (off by one pixel from the picture's mirror, as published), left
            and right joints swap.
        rotation: poses are turned by up to so many degrees either way, about the centre (32, 32).
        scale: (lowest, highest) factor of their size; as published (1, 1).
        translate: they are moved by up to so many pixels along either axis; as published 0.
        seed: with epoch and index, all that a sample's randomness depends on.

    ``dataset[(epoch, index)]`` (or ``dataset[index]``, epoch 0) is a dict:
        keypoints: float32 (17, 2), (x, y) in pixels of the 64 x 64 map; 0 where unlabelled.
        visibility: float32 (17,), 1 where the joint is labelled, also outside of the map, else 0.
        index: int64, the pose.
        caption: int64, one of the pose's own captions, as a place in ``source.captions``; -1 where it has none.
        mismatched, fresh, first, second: int64, any of all captions (the pose's own too, as published); -1 where the
            source has none.

    Raises:
        ValueError: a number out of its range.
    """

    def __init__(
        self,
        source: CaptionedPoses,
        *,
        augment: bool = True,
        flip: float = 0.5,
        rotation: float = 10.0,
        scale: tuple[float, float] = (1.0, 1.0),
        translate: float = 0.0,
        seed: int = 0,
    ):
        check_augmentation(flip, rotation, scale, translate)
        self.source, self.augment, self.seed = source, augment, seed
        self.flip, self.rotation, self.translate = flip, math.radians(rotation), translate
        self.scale = (float(scale[0]), float(scale[1]))
        self._swap = np.array(source.skeleton.flip_permutation)

    def __len__(self) -> int:
        return len(self.source)

    @property
    def fingerprint(self) -> str:
        """What tells these poses and captions from others."""
        return self.source.fingerprint

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, torch.Tensor]:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if not 0 <= index < len(self):
            raise IndexError(f"index: expected 0 to {len(self) - 1}, got {index}")
        rng = sample_generator(self.seed, epoch, index)
        captions = self._captions(index, rng)  # drawn first, so that augmentation changes none
        points, visible = self.source.keypoints[index], self.source.visibility[index] > 0
        if self.augment:
            turn = self._turn(rng)
            if turn.flip:
                points, visible = points[self._swap], visible[self._swap]
            points = np.where(visible[:, None], turn.place(points), 0.0)
        numbers = {"index": index, **captions}
        return {
            "keypoints": torch.from_numpy(points.astype(np.float32)),  # (17, 2)
            "visibility": torch.from_numpy(visible.astype(np.float32)),  # (17,)
            **dict(zip(numbers, torch.tensor(list(numbers.values())).unbind(), strict=True)),
        }

    def _captions(self, index: int, rng: np.random.Generator) -> dict[str, int]:
        """Return the places of the captions of a sample."""
        own, total = int(self.source.count[index]), len(self.source.captions)
        drawn = rng.random(1 + len(_OTHERS))
        caption = int(self.source.first[index]) + int(drawn[0] * own) if own else -1
        others = (drawn[1:] * total).astype(np.int64).tolist() if total else [-1] * len(_OTHERS)
        return {"caption": caption, **dict(zip(_OTHERS, others, strict=True))}

    def _turn(self, rng: np.random.Generator) -> _Turn:
        return _Turn(
            bool(rng.random() < self.flip),
            float(rng.uniform(-self.rotation, self.rotation)),
            float(rng.uniform(*self.scale)),
            rng.uniform(-self.translate, self.translate, 2),
        )


def check_augmentation(flip: float, rotation: float, scale: tuple[float, ...], translate: float) -> None:
    """Raise ``ValueError`` unless the numbers of ``CaptionDataset`` are in their ranges."""
    if not 0 <= flip <= 1:
        raise ValueError(f"flip: expected a share from 0 to 1, got {flip}")
    if not 0 <= rotation <= 180:
        raise ValueError(f"rotation: expected 0 to 180 degrees, got {rotation}")
    if len(scale) != 2 or not 0 < scale[0] <= scale[1] < math.inf:
        raise ValueError(f"scale: expected (lowest, highest) of positive factors, got {tuple(scale)}")
    _checks.not_negative("translate", translate)
    if not translate < math.inf:
        raise ValueError(f"translate: expected a finite number of pixels, got {translate}")
