"""From photographs to key points: single-scale, flip and multi-scale testing of a heatmap network."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from fastpose import _checks, ops
from fastpose.data.unreadable import SKIP_LIMIT, Substitutes, say_left_out
from fastpose.models.looking import evaluating
from fastpose.training import pose_data
from fastpose.training.pose_data import DataConfig

if TYPE_CHECKING:
    from fastpose.skeletons import Skeleton

MULTI_SCALE = (0.8, 0.9, 1.0, 1.1, 1.2, 1.3)
"""The six scales of the published multi-scale test."""

PIXELS_PER_SCALE = 200.0
"""A person of scale 1 is cropped by a square of this side."""


BACKENDS = ("auto", *ops.heatmap.functional.DECODE.backend_names)
"""What the heatmap operations can run on."""


@dataclass(frozen=True)
class InferenceConfig:
    """How a network is tested.

    Attributes:
        flip: average the heatmaps with those of the mirrored image.
        scales: crop sizes relative to the person's; more than one is the multi-scale test, whose heatmaps are
            averaged in the image frame and read by the integer maximum. The published six are 0.8 to 1.3.
        decoder: "quarter" (a quarter pixel toward the higher neighbour), "argmax" (eq. 11) or "dark"; single scale.
        backend: of the heatmap operations.
    """

    flip: bool = True
    scales: tuple[float, ...] = (1.0,)
    decoder: str = "quarter"
    backend: str = "auto"

    def __post_init__(self) -> None:
        _checks.choice("test.decoder", self.decoder, ("quarter", "argmax", "dark"))
        _checks.choice("test.backend", self.backend, BACKENDS)
        if not self.scales or min(self.scales) <= 0:
            raise ValueError(f"test.scales: expected at least one positive number, got {self.scales}")


@dataclass(frozen=True)
class Estimate:
    """Key points of N persons.

    Attributes:
        keypoints: float32 (N, K, 2) as (x, y) in pixels of the original image.
        scores: float32 (N, K), heights of the heatmap maxima, about 1 for a sure joint and 0 for none.
    """

    keypoints: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.keypoints)


class PoseEstimator:
    """A heatmap network with everything that its images and its output need.

    Args:
        network: image (B, 3, H, W) -> heatmaps of each stack (B, K, H/4, W/4); the last stack is used. It is put in
            evaluation mode for each call; each of its modules is given back in the mode it had.
        skeleton: joints of the heatmaps; its left/right pairs serve the flip test.
        data: crop preset, image size and normalisation the network was trained with.
        test: how to test.

    Example::

        estimator = PoseEstimator.from_weights("runs/sagan/demo/run/weights/best.safetensors")
        estimate = estimator(photo)                    # the whole photo is the crop
        estimate = estimator(photo, boxes=[[x, y, w, h]])
    """

    def __init__(
        self, network: nn.Module, skeleton: Skeleton, data: DataConfig, test: InferenceConfig | None = None
    ) -> None:
        self.network = network
        self.skeleton = skeleton
        self.data = data
        self.test = test or InferenceConfig()

    @classmethod
    def from_weights(
        cls, path: str | Path, *, device: str | torch.device = "cpu", test: InferenceConfig | None = None
    ) -> PoseEstimator:
        """Return an estimator from weights that a training run wrote; their manifest names system and configuration."""
        from fastpose.training import systems

        system, config, network = systems.load_network(path)
        return systems.estimator(system, network.to(device), config, test)

    @property
    def device(self) -> torch.device:
        """Where the network lives."""
        return device_of(self.network)

    def __call__(self, photo: np.ndarray, boxes: Sequence[Sequence[float]] | None = None) -> Estimate:
        """Return the key points of the persons in ``boxes``, or of one person that fills the photo.

        Args:
            photo: uint8 (H, W, 3) RGB.
            boxes: (N, 4) as (x, y, width, height) in pixels; the crop is a square a quarter larger than the box.
        """
        return self.persons(photo, *crops(photo, boxes))

    def persons(self, photo: np.ndarray, centers: Sequence[np.ndarray], scales: Sequence[float]) -> Estimate:
        """Return the key points of N persons given by ``centers`` (2,) and ``scales`` (crop side / 200 px)."""
        joints = len(self.skeleton)
        keypoints = np.zeros((len(centers), joints, 2), np.float32)
        scores = np.zeros((len(centers), joints), np.float32)
        for index, (center, scale) in enumerate(zip(centers, scales, strict=True)):
            keypoints[index], scores[index] = self._person(photo, center, scale)
        return Estimate(keypoints, scores)

    def _person(self, photo: np.ndarray, center: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
        views = [cut(self.data, photo, center, scale * factor) for factor in self.test.scales]
        images = torch.stack([image for image, _ in views])  # (V, 3, H, W)
        to_image = torch.stack([affine for _, affine in views])  # (V, 2, 3)
        if len(views) == 1:
            points, scores = self.read(images, to_image)
        else:
            side = PIXELS_PER_SCALE * scale * max(self.test.scales)
            points, scores = self._read_pasted(images, to_image, _frame(photo.shape, center, side))
        return points[0].numpy(), scores[0].numpy()

    def heatmaps(self, images: Tensor) -> Tensor:
        """Return the last stack's heatmaps (B, K, H/4, W/4), float32, flip-averaged where the test says so.

        ``images`` is uint8 RGB (B, 3, H, W) on any device.
        """
        with evaluating(self.network):
            ready = pose_data.normalise(images.to(self.device), self.data)  # (B, 3, H, W)
            heatmaps = self.network(ready)[-1].float()  # (B, K, h, w)
            if self.test.flip:
                flipped = self.network(ready.flip(-1))[-1].float()
                heatmaps = ops.flip_average(heatmaps, flipped, self.skeleton.flip_pairs, backend=self.test.backend)
        return heatmaps

    def read(self, images: Tensor, to_image: Tensor) -> tuple[Tensor, Tensor]:
        """Return key points (B, K, 2) in pixels of the original images and scores (B, K) of B crops, on the CPU.

        Args:
            images: uint8 RGB (B, 3, H, W).
            to_image: (B, 2, 3), affine maps from heatmap pixels to pixels of the original images.
        """
        points, scores = ops.decode_heatmaps(self.heatmaps(images), self.test.decoder, backend=self.test.backend)
        return map_points(points.cpu(), to_image), scores.cpu()

    def _read_pasted(self, images: Tensor, to_image: Tensor, frame: tuple[int, int, int, int]) -> tuple[Tensor, Tensor]:
        """Return the integer maxima of the heatmaps of all views, averaged in ``frame`` (x, y, width, height)."""
        pasted = torch.stack(
            [_resample(maps, affine, frame) for maps, affine in zip(self.heatmaps(images), to_image, strict=True)]
        )  # (V, K, height, width)
        points, scores = ops.decode_heatmaps(pasted.mean(0, keepdim=True), "argmax", backend=self.test.backend)
        return (points + points.new_tensor(frame[:2])).cpu(), scores.cpu()

    def run_loader(self, loader: Iterable[dict[str, Tensor]]) -> tuple[np.ndarray, Estimate]:
        """Return the indices (N,) of the samples of a loader and their key points, single scale."""
        indices, keypoints, scores = [], [], []
        for batch in loader:
            points, heights = self.read(batch["image"], batch["to_image"])
            indices.append(batch["index"].cpu())
            keypoints.append(points)
            scores.append(heights)
        if not indices:
            raise ValueError("evaluation: expected at least one sample, got an empty validation set")
        return torch.cat(indices).numpy(), Estimate(torch.cat(keypoints).numpy(), torch.cat(scores).numpy())

    def run_source(
        self, source: Any, *, on_error: str = "raise", skip_limit: int = SKIP_LIMIT
    ) -> tuple[np.ndarray, Estimate]:
        """Return the indices (N,) and key points of all persons of a source, in whatever scales the test names.

        With ``on_error`` "skip", persons whose photograph cannot be read are left out, as many as ``skip_limit``.
        """
        from fastpose.data.person import read_photo

        count, parts = len(source.persons), {}
        reader = Substitutes(f"{source.name} person", count, on_error, skip_limit)
        for index, person in enumerate(source.persons):
            photo = reader.read_or_none(index, lambda each: read_photo(source, each))
            if photo is not None:
                parts[index] = self.persons(photo, [person.center], [person.scale])
        say_left_out(reader.skipped, count)
        if not parts:
            raise ValueError("evaluation: expected at least one person, got an empty validation set")
        keypoints = np.concatenate([part.keypoints for part in parts.values()])  # (N, K, 2)
        return np.array(list(parts)), Estimate(keypoints, np.concatenate([part.scores for part in parts.values()]))


def device_of(network: nn.Module) -> torch.device:
    """Return where a network lives: a copy made by `models.for_inference` may hold buffers alone."""
    return next(itertools.chain(network.parameters(), network.buffers()), torch.empty(0)).device


def map_points(points: Tensor, affine: Tensor) -> Tensor:
    """Return points (B, K, 2) under affine maps (B, 2, 3), computed in float64, as float32."""
    linear, shift = affine.double()[:, :, :2], affine.double()[:, :, 2]  # (B, 2, 2), (B, 2)
    return (points.double() @ linear.transpose(1, 2) + shift[:, None]).float()  # (B, K, 2)


def crops(photo: np.ndarray, boxes: Sequence[Sequence[float]] | None = None) -> tuple[list[np.ndarray], list[float]]:
    """Return centres (2,) and scales of the square crops of N boxes (x, y, width, height), or of the whole photo.

    Raises:
        ValueError: the photo is not uint8 (H, W, 3), or a box is not finite with a positive size.
    """
    if photo.ndim != 3 or photo.shape[2] != 3 or photo.dtype != np.uint8:
        raise ValueError(f"photo: expected uint8 (H, W, 3) RGB, got {photo.dtype} {photo.shape}")
    pairs = [_whole(photo)] if boxes is None else [_around(box) for box in boxes]
    return [center for center, _ in pairs], [scale for _, scale in pairs]


def cut(data: Any, photo: np.ndarray, center: np.ndarray, scale: float) -> tuple[Tensor, Tensor]:
    """Return a person's crop, uint8 (3, S, S), and the affine map (2, 3) from its heatmap's pixels to the photo's.

    ``data`` is the section of a configuration that names ``crop`` and ``image_size``.
    """
    image, to_image = pose_data.cut(data, photo, center, scale)
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))), torch.from_numpy(to_image)


def _whole(photo: np.ndarray) -> tuple[np.ndarray, float]:
    """Return centre and scale of the square that holds a whole photo."""
    height, width = photo.shape[:2]
    return np.array([(width - 1) / 2, (height - 1) / 2], np.float32), max(height, width) / PIXELS_PER_SCALE


def _around(box: Sequence[float]) -> tuple[np.ndarray, float]:
    """Return centre and scale of the square a quarter larger than a box (x, y, width, height)."""
    x, y, width, height = (float(value) for value in box)
    if not (np.isfinite([x, y, width, height]).all() and width > 0 and height > 0):
        raise ValueError(f"boxes: expected finite (x, y, width, height) with positive sizes, got {tuple(box)}")
    return np.array([x + width / 2, y + height / 2], np.float32), 1.25 * max(width, height) / PIXELS_PER_SCALE


def _frame(shape: Sequence[int], center: np.ndarray, side: float) -> tuple[int, int, int, int]:
    """Return the part (x, y, width, height) of the image that a square of ``side`` around ``center`` covers."""
    height, width = shape[:2]
    sizes = np.array([width, height])
    left, top = np.clip(np.floor(center - side / 2), 0, sizes - 1).astype(int).tolist()
    right, bottom = np.clip(np.ceil(center + side / 2), 1, sizes).astype(int).tolist()
    return left, top, max(right - left, 1), max(bottom - top, 1)


def _resample(heatmaps: Tensor, to_image: Tensor, frame: tuple[int, int, int, int]) -> Tensor:
    """Return heatmaps (K, h, w) at the pixels of a part of the image, (K, height, width): bilinear, zero outside."""
    left, top, width, height = frame
    linear, shift = to_image.double()[:, :2], to_image.double()[:, 2]  # (2, 2), (2,)
    y, x = torch.meshgrid(
        torch.arange(top, top + height, dtype=torch.float64),
        torch.arange(left, left + width, dtype=torch.float64),
        indexing="ij",
    )
    points = (torch.stack((x, y), -1) - shift) @ torch.linalg.inv(linear).T  # (height, width, 2) in heatmap pixels
    extent = torch.tensor([heatmaps.shape[-1] - 1, heatmaps.shape[-2] - 1], dtype=torch.float64)
    grid = (2 * points / extent.clamp(min=1) - 1).to(heatmaps)  # (height, width, 2), -1..1 at pixel centres
    return torch.nn.functional.grid_sample(heatmaps[None], grid[None], align_corners=True)[0]
