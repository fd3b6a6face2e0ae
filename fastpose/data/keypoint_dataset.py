"""Persons as training samples: a crop of the photograph and the key points in heatmap pixels."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from fastpose.data import fingerprints, images, pose3d, transforms
from fastpose.data.person import Person, read_photo
from fastpose.data.photo_cache import PhotoCache, open_cache
from fastpose.data.unreadable import SKIP_LIMIT, Substitute, Substitutes


def sample_generator(seed: int, epoch: int, index: int, attempt: int = 0, *, stream: int = 0) -> np.random.Generator:
    """Return the random generator of one sample: a function of its arguments alone, whatever ran before."""
    spawned = (stream,) if stream else ()
    return np.random.Generator(
        np.random.Philox(np.random.SeedSequence((seed, epoch, index, attempt), spawn_key=spawned))
    )


class KeypointDataset(Dataset):
    """Crops of persons with their key points; heatmaps are rendered later, on the device.

    Args:
        source: has ``name``, ``skeleton`` and ``persons`` (``data.create``).
        image_size: (H, W) of the crop.
        heatmap_size: (H, W) of the heatmaps in whose pixels the key points are given.
        augment: an ``Augmentation``, the name of a preset, or None.
        crop: name of a crop preset (``transforms.CROPS``).
        seed: with stream, epoch and index, all that a sample's randomness depends on.
        stream: number of the data set among those trained on together, so that each has randomness of its own.
        on_error: "raise" stops at an unreadable photograph; "skip" takes another person in its place, chosen from
            these numbers alone, logs each such person once and stops when there are more than ``skip_limit``.
        skip_limit: how many different unreadable persons "skip" puts up with.
        pixel_limit: photographs with more pixels are refused before they are decoded.
        cache: folder that keeps the decoded photographs (``photo_cache``); None decodes each anew.
        shrink: with ``cache``, photographs are kept no larger than the closest view needs: one stored pixel per pixel
            of the crop. Crops then differ a little from those of the whole photograph; without, they are the same bits.
        depth: how the depth of joints becomes a number; None leaves it out of the items.

    ``dataset[(epoch, index)]`` (or ``dataset[index]``, epoch 0) is a dict:
        image: uint8 (3, H, W) RGB.
        keypoints: float32 (K, 2), (x, y) in heatmap pixels; 0 where unlabelled.
        visibility: float32 (K,), 1 where the joint is labelled and inside the crop, else 0.
        to_image: float64 (2, 3), affine map from heatmap pixels to pixels of the original photograph.
        index: int64, position in ``source.persons`` of the person shown.
        depth, depth_known: with ``depth``: float32 (K,), how far behind the root each joint is, in units of half the
            crop's side, 0 where unknown; and 1 where it is known, else 0.

    What stands in for an unreadable person is a ``Substitute``, which is a dict as well.

    A mirrored sample (augmentation only) has its left and right joints swapped; ``to_image`` undoes the mirror but
    cannot undo that swap.
    """

    def __init__(
        self,
        source: Any,
        *,
        image_size: tuple[int, int] = (256, 256),
        heatmap_size: tuple[int, int] = (64, 64),
        augment: transforms.Augmentation | str | None = None,
        crop: str = "exact",
        seed: int = 0,
        stream: int = 0,
        on_error: str = "raise",
        skip_limit: int = SKIP_LIMIT,
        pixel_limit: int = images.PIXEL_LIMIT,
        cache: str | Path | None = None,
        shrink: bool = False,
        depth: pose3d.DepthRule | None = None,
    ):
        self.source, self.depth = source, depth
        self.image_size = checked_size("image_size", image_size)
        self.heatmap_size = checked_size("heatmap_size", heatmap_size)
        self.augment = transforms.augmentation(augment) if isinstance(augment, str) else augment
        self.crop = transforms.crop(crop)
        self.seed, self.stream, self.pixel_limit = seed, stream, pixel_limit
        self._flip = np.array(source.skeleton.flip_permutation)
        self._substitutes = Substitutes(f"{source.name} person", len(source.persons), on_error, skip_limit)
        self._cache = None if cache is None else self._opened(cache, shrink)

    def _opened(self, folder: str | Path, shrink: bool) -> PhotoCache:
        """Return the cache of the photographs, as large as the closest view of the augmentation needs them."""
        if shrink and self.crop.name != "exact":
            raise ValueError(
                f"shrink: crop {self.crop.name!r} counts whole pixels of the photograph; take crop 'exact', or keep "
                "photographs whole"
            )
        closest = 1.0 if self.augment is None else self.augment.closest
        shrink_to = min(self.image_size) / closest if shrink else None
        return open_cache(folder, self.source, shrink_to=shrink_to, pixel_limit=self.pixel_limit)

    def __len__(self) -> int:
        return len(self.source.persons)

    @property
    def skipped(self) -> int:
        """Number of different persons whose photograph could not be read so far (all workers)."""
        return self._substitutes.skipped

    @property
    def fingerprint(self) -> str:
        """What tells these persons from others, 16 hexadecimal digits."""
        return fingerprints.of_persons(self.source.persons)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, torch.Tensor]:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if not 0 <= index < len(self):
            raise IndexError(f"index: expected 0 to {len(self) - 1}, got {index}")
        shown, (photo, ratio) = self._substitutes.read(
            index,
            self._read,
            lambda attempt: int(self._generator(epoch, index, attempt).integers(len(self))),
        )
        sample = self._sample(shown, photo, ratio, self._generator(epoch, index))
        return sample if shown == index else Substitute(sample)

    def _generator(self, epoch: int, index: int, attempt: int = 0) -> np.random.Generator:
        return sample_generator(self.seed, epoch, index, attempt, stream=self.stream)

    def _read(self, index: int) -> tuple[np.ndarray, float]:
        """Return the photograph of a person, uint8 (H, W, 3), and how many of its pixels are one of the original."""
        if self._cache is not None:
            return self._cache.read(index)
        return read_photo(self.source, index, pixel_limit=self.pixel_limit), 1.0

    def _sample(self, index: int, photo: np.ndarray, ratio: float, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        person: Person = self.source.persons[index]
        view = self.augment.sample(rng) if self.augment is not None else transforms.PLAIN
        center = person.center if ratio == 1.0 else (person.center.astype(np.float64) + 0.5) * ratio - 0.5
        image = self.crop.cut_planes(photo, center, person.scale * ratio, view, self.image_size)  # (3, H, W)
        points, to_image = self.crop.place(person.keypoints, person.center, person.scale, view, self.heatmap_size)
        visible = (person.visibility > 0) & transforms.inside(points, self.heatmap_size)
        if view.flip:
            points, visible = points[self._flip], visible[self._flip]
        points = np.where(visible[:, None], points, 0.0)
        sample = {
            "image": torch.from_numpy(image),
            "keypoints": torch.from_numpy(points.astype(np.float32)),  # (K, 2)
            "visibility": torch.from_numpy(visible.astype(np.float32)),  # (K,)
            "to_image": torch.from_numpy(to_image),  # (2, 3)
            "index": torch.tensor(index),
        }
        if self.depth is not None:
            sample |= self._depth(person, view.flip, to_image)
        return sample

    def _depth(self, person: Person, flip: bool, to_image: np.ndarray) -> dict[str, torch.Tensor]:
        """Return the depth of a person's joints in units of half the crop's side, and whether it is known."""
        depth, known = np.zeros(len(self._flip)), np.zeros(len(self._flip))
        if self.depth is not None and person.pose3d is not None:
            half = math.sqrt(abs(np.linalg.det(to_image[:, :2]))) * self.heatmap_size[1] / 2  # pixels of the photo
            pixels = pose3d.relative_depth(person, self.source.skeleton, self.depth)
            depth, known = pixels / half, (person.visibility > 0).astype(np.float64)
        if flip:
            depth, known = depth[self._flip], known[self._flip]
        return {
            "depth": torch.from_numpy((depth * known).astype(np.float32)),  # (K,)
            "depth_known": torch.from_numpy(known.astype(np.float32)),  # (K,)
        }


def checked_size(argument: str, size: tuple[int, int]) -> tuple[int, int]:
    """Return a size (H, W) as two integers; ``ValueError`` when one is below 1."""
    height, width = (int(side) for side in size)
    if height < 1 or width < 1:
        raise ValueError(f"{argument}: expected (H, W) of at least 1, got {tuple(size)}")
    return height, width
