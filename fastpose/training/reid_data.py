"""Market-1501 for re-identification: who is on an image by its name, query and gallery, training samples."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fastpose import _checks
from fastpose._files import sha256
from fastpose.data.images import read_image
from fastpose.data.keypoint_dataset import sample_generator
from fastpose.data.pair_layouts import market_camera
from fastpose.data.unreadable import SKIP_LIMIT, Substitute, Substitutes

MANIFEST = "manifest.jsonl"
"""File of a mixed training set that says which images are real; `augment.market` writes it."""

UNFINISHED = "unfinished.txt"
"""File that lies in a mixed training set until every image is written."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DISTRACTOR, JUNK = 0, -1
_IDENTITY = re.compile(r"(-1|\d+)_")
_FOLDERS = {"train": ("train", "bounding_box_train"), "gallery": ("bounding_box_test", "test"), "query": ("query",)}


@dataclass(frozen=True)
class ReidDataConfig:
    """What is trained and evaluated on.

    Attributes:
        name: "market".
        root: folder with ``train/`` (or ``bounding_box_train/``); Market-1501, or a mixed set of ``fastpose augment``.
        test_root: folder with ``query/`` and ``bounding_box_test/``, or with ``test/`` from which queries are chosen;
            empty for ``root``.
        only_real: of a mixed set, train on the images alone that its manifest calls real.
        height, width: of the network's images.
        flip: mirror training images at random.
        erasing: probability that a rectangle of a training image is erased (Zhong et al., AAAI 2020).
        on_error: an unreadable image is to "raise" or to be "skip"ped.
        skip_limit: so many different unreadable images are skipped at most.
    """

    name: str = "market"
    root: str = ""
    test_root: str = ""
    only_real: bool = False
    height: int = 256
    width: int = 128
    flip: bool = True
    erasing: float = 0.0
    on_error: str = "raise"
    skip_limit: int = SKIP_LIMIT

    def __post_init__(self) -> None:
        _checks.choice("data.name", self.name, ("market",))
        _checks.choice("data.on_error", self.on_error, ("raise", "skip"))
        _checks.not_negative("data.skip_limit", self.skip_limit)
        if min(self.height, self.width) < 8:
            raise ValueError(f"data.height, data.width: expected 8 or more, got {self.height} x {self.width}")
        if not 0 <= self.erasing <= 1:
            raise ValueError(f"data.erasing: expected a probability from 0 to 1, got {self.erasing}")


@dataclass(frozen=True)
class Photo:
    """One image with the identity (0 distractor, -1 junk) and the camera that its name tells."""

    path: Path
    identity: int
    camera: int


def folder(root: str | Path, kind: str) -> Path | None:
    """Return the folder of "train", "gallery" or "query" images under ``root`` or ``root/market_data``, if any."""
    bases = (Path(root).expanduser(), Path(root).expanduser() / "market_data")
    return next((base / name for base in bases for name in _FOLDERS[kind] if (base / name).is_dir()), None)


def read_folder(path: Path) -> list[Photo]:
    """Return the images of a folder in the order of their names; ``ValueError`` for a name without identity."""
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in (".jpg", ".jpeg", ".png"))
    found = []
    for file in files:
        match, camera = _IDENTITY.match(file.name), market_camera(file.name)
        if match is None or camera < 0:
            raise ValueError(f"image {file}: expected a name such as 0002_c1s1_000451_03.jpg, which tells who is on it")
        found.append(Photo(file, int(match[1]), camera))
    if not found:
        raise FileNotFoundError(f"folder {path}: no image in it; expected 0002_c1s1_000451_03.jpg and the like")
    return found


def _required(root: str, kind: str, key: str) -> Path:
    if not root:
        raise ValueError(f"{key}: data set 'market' needs the folder it was unpacked to; pass {key}=PATH")
    found = folder(root, kind)
    if found is None:
        raise FileNotFoundError(f"market: no folder {' or '.join(_FOLDERS[kind])} under {root}; set {key}")
    return found


def check_finished(root: Path) -> None:
    """Raise where ``fastpose augment`` was interrupted: a part of the images would train in place of the whole."""
    if (root / UNFINISHED).exists():
        raise ValueError(f"{root}: fastpose augment did not finish this set; remove the folder and write it anew")


def train_photos(config: ReidDataConfig) -> list[Photo]:
    """Return the training images of known persons; with ``only_real``, those that the manifest calls real."""
    path = _required(config.root, "train", "data.root")
    check_finished(path.parent)
    photos = [photo for photo in read_folder(path) if photo.identity > 0]
    if not config.only_real:
        return photos
    real = real_names(path.parent)
    return [photo for photo in photos if photo.path.name in real]


def real_names(root: Path) -> set[str]:
    """Return the names of the real images of a mixed training set."""
    path = root / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; data.only_real needs a set that fastpose augment wrote")
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return {row["name"] for row in rows if row["kind"] == "real"}
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"{path}: expected a line with 'name' and 'kind' per image; write the set anew") from None


def test_photos(config: ReidDataConfig) -> tuple[list[Photo], list[Photo]]:
    """Return queries and gallery: the published folders, or both made from ``test/`` (see `split_queries`)."""
    root = config.test_root or config.root
    gallery = read_folder(_required(root, "gallery", "data.test_root"))
    queries = folder(root, "query")
    return split_queries(gallery) if queries is None else (read_folder(queries), gallery)


def split_queries(photos: Sequence[Photo]) -> tuple[list[Photo], list[Photo]]:
    """Return queries and gallery made from one folder.

    Market-1501's rule, as far as the images go: of each identity and camera one image, the first by name, becomes a
    query, as long as it and every earlier query keep an image of the identity by another camera in the gallery. All
    else, distractors and junk with it, is the gallery.
    """
    groups: dict[int, list[Photo]] = {}
    for photo in photos:
        if photo.identity > 0:
            groups.setdefault(photo.identity, []).append(photo)
    queries = [query for group in groups.values() for query in _queries(group)]
    taken = {query.path for query in queries}
    return queries, [photo for photo in photos if photo.path not in taken]


def _queries(group: list[Photo]) -> list[Photo]:
    """Return the queries among the images of one identity."""
    rest = list(group)
    chosen: list[Photo] = []
    for camera in sorted({photo.camera for photo in group}):
        first = next(photo for photo in rest if photo.camera == camera)
        left = [photo for photo in rest if photo is not first]
        if all(any(other.camera != query.camera for other in left) for query in [*chosen, first]):
            rest, chosen = left, [*chosen, first]
    return chosen


class ReidDataset(Dataset[dict[str, Tensor]]):
    """Images resized to the network's frame; each item a dict.

    image: uint8 (3, H, W) RGB; identity, camera: int64 as the names tell; label: int64, number of the identity among
    the set's, in ascending order; query: 1 for the first ``queries`` images, else 0; index: int64.
    """

    def __init__(self, photos: Sequence[Photo], config: ReidDataConfig, *, seed: int = 0, queries: int = 0) -> None:
        if not photos:
            raise ValueError("market: expected at least one image of a known person, found none")
        self.photos, self.config, self.seed, self.queries = list(photos), config, seed, queries
        self.augmented = False
        self.identities = sorted({photo.identity for photo in photos})
        self._labels = {identity: label for label, identity in enumerate(self.identities)}
        self._substitutes = Substitutes("market image", len(self.photos), config.on_error, config.skip_limit)

    def __len__(self) -> int:
        return len(self.photos)

    @property
    def skipped(self) -> int:
        """Number of different images that could not be read so far (all workers)."""
        return self._substitutes.skipped

    @property
    def fingerprint(self) -> str:
        """What tells this list of images from another."""
        return sha256("\n".join(photo.path.name for photo in self.photos).encode())

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Tensor]:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if not 0 <= index < len(self):
            raise IndexError(f"index: expected 0 to {len(self) - 1}, got {index}")
        shown, image = self._substitutes.read(
            index,
            lambda each: read_image(self.photos[each].path),
            lambda attempt: int(sample_generator(self.seed, epoch, index, attempt).integers(len(self))),
        )
        photo, image = self.photos[shown], resize(image, (self.config.height, self.config.width))  # (H, W, 3)
        if self.augmented:
            image = augment(image, self.config, sample_generator(self.seed, epoch, index))
        numbers = {"identity": photo.identity, "camera": photo.camera, "label": self._labels[photo.identity]}
        numbers |= {"query": int(shown < self.queries), "index": shown}
        pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))  # (3, H, W)
        sample = {"image": pixels, **{name: torch.tensor(number) for name, number in numbers.items()}}
        return sample if shown == index else Substitute(sample)


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return an image uint8 (h, w, 3) as (*size, 3), bicubic."""
    import cv2

    return image if image.shape[:2] == size else cv2.resize(image, size[::-1], interpolation=cv2.INTER_CUBIC)


def augment(image: np.ndarray, config: ReidDataConfig, rng: np.random.Generator) -> np.ndarray:
    """Return an image mirrored with probability one half and with a rectangle erased as ``config`` says."""
    image = image[:, ::-1] if config.flip and rng.random() < 0.5 else image
    if rng.random() >= config.erasing:
        return image
    height, width = image.shape[:2]
    for _ in range(100):  # a rectangle of 2 to 40 % of the area and an aspect of 0.3 to 1 / 0.3 that fits
        area, aspect = rng.uniform(0.02, 0.4) * height * width, rng.uniform(0.3, 1 / 0.3)
        tall, wide = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
        if 0 < tall < height and 0 < wide < width:
            top, left = rng.integers(height - tall + 1), rng.integers(width - wide + 1)
            erased = image.copy()
            erased[top : top + tall, left : left + wide] = np.rint(255 * np.array(IMAGENET_MEAN)).astype(np.uint8)
            return erased
    return image


def train_dataset(config: ReidDataConfig, seed: int) -> ReidDataset:
    """Return the training images, augmented."""
    dataset = ReidDataset(train_photos(config), config, seed=seed)
    dataset.augmented = True
    return dataset


def test_dataset(config: ReidDataConfig) -> ReidDataset:
    """Return the queries, then the gallery; a person of the training set among them is an error."""
    queries, gallery = test_photos(config)
    if not queries:
        raise ValueError("market: the test images give no query; expected an identity seen by two cameras")
    trained = folder(config.root, "train") if config.root else None
    persons = {photo.identity for photo in read_folder(trained)} if trained else set()
    shared = sorted(persons & {photo.identity for photo in queries})
    if shared:
        raise ValueError(
            f"market: {len(shared)} identities are in training and test set, first {shared[0]}; expected none"
        )
    return ReidDataset([*queries, *gallery], config, queries=len(queries))


def normalise(images: Any) -> Tensor:
    """Return uint8 RGB images (B, 3, H, W) as float32, normalised as ImageNet's are."""
    mean, std = (torch.tensor(v, device=images.device).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (images.float() / 255 - mean) / std
