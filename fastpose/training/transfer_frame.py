"""How photographs, poses and maps of any size come to lie in the frame of a generator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from fastpose.data import geometry, transforms
from fastpose.data.keypoint_files import LEAST_SCORE
from fastpose.training import transfer_data
from fastpose.training.transfer_data import TransferDataConfig

if TYPE_CHECKING:
    from fastpose.data.keypoint_files import Pose

_CUT_TO_PERSONS = ("photos", "sample-pairs")
"""Data sets whose pictures are cut to each person; those of the others are whole photographs."""

_LEAST_JOINTS = 4

_MARGIN = 1.3
"""Of the box of a person's joints: hair, hands and feet reach beyond the last joint."""

LEAST_SIDE, MOST_ASPECT = 8, 16
"""Of photographs; what is smaller or longer could show nobody, and would take all memory to enlarge."""

_PERSON_COLUMNS = {"deepfashion": 176 / 256, "semantic": 176 / 256}
"""Share of a square's columns that persons fill in these data sets; the rest is white."""


@dataclass(frozen=True)
class Fit:
    """How an image of any size lies in the network's frame: scaled to its height, cropped or padded at both sides.

    Attributes:
        size: (h, w) of the image.
        frame: (H, W) of the network.
        width: columns of the scaled image.
        shown: of these, the columns kept, those in the middle.
    """

    size: tuple[int, int]
    frame: tuple[int, int]
    width: int
    shown: int

    @classmethod
    def of(cls, size: tuple[int, int], config: TransferDataConfig) -> Fit:
        """Return how an image of ``size`` (h, w) lies in the frame of a configuration.

        The height becomes the frame's and the width keeps the aspect. What is wider than persons are in the data
        (176 of 256 columns of a DeepFashion square) is cut at both sides, and white is added up to the frame. An image
        of the frame's size stays as it is. ``ValueError`` for a strip that could show nobody.
        """
        frame = transfer_data.image_size(config)
        if tuple(size) == frame:
            return cls(size, frame, frame[1], frame[1])
        _check_shape(size)
        share = _PERSON_COLUMNS.get(config.name, 1.0) if frame[0] == frame[1] else 1.0
        width = max(1, round(size[1] * frame[0] / size[0]))
        return cls(size, frame, width, min(width, round(frame[1] * share)))

    @property
    def cut(self) -> int:
        """Columns of the scaled image left of those kept."""
        return (self.width - self.shown) // 2

    @property
    def left(self) -> int:
        """Columns of the frame left of the image."""
        return (self.frame[1] - self.shown) // 2

    def points(self, keypoints: np.ndarray, visibility: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return key points (K, 2) in pixels of the frame, 0 where missing, and visibility (K,), both float32.

        Joints that are not finite or come to lie outside the part shown are missing.
        """
        scale = np.array([self.width / self.size[1], self.frame[0] / self.size[0]])
        mapped = (np.asarray(keypoints, np.float64) + 0.5) * scale - 0.5 - [self.cut, 0]  # (K, 2) in what is shown
        inside = ((mapped >= -0.5) & (mapped <= np.array([self.shown, self.frame[0]]) - 0.5)).all(1)
        known = inside & (np.asarray(visibility) > 0)
        mapped = np.where(known[:, None], mapped + [self.left, 0], 0.0)
        return mapped.astype(np.float32), known.astype(np.float32)

    def image(self, photo: np.ndarray) -> np.ndarray:
        """Return a photograph (h, w, 3) in the frame, uint8 (H, W, 3): bicubic, white beside it."""
        return self._place(photo, "bicubic", 255)

    def labels(self, numbers: np.ndarray) -> np.ndarray:
        """Return a map of part numbers (h, w) in the frame, uint8 (H, W): nearest, background beside it."""
        return self._place(numbers[..., None], "nearest-exact", 0)[..., 0]

    def lines(self, drawing: np.ndarray) -> np.ndarray:
        """Return thin light lines (h, w) in the frame, uint8 (H, W), 0 or 255: whole and one pixel wide again."""
        from fastpose.data.thinning import thin

        placed = self._place(drawing[..., None], "max", 0)[..., 0] > 127
        return np.where(placed if drawing.shape == tuple(self.frame) else thin(placed), 255, 0).astype(np.uint8)

    def _place(self, image: np.ndarray, mode: str, beside: int) -> np.ndarray:
        if image.shape[:2] != tuple(self.size):
            raise ValueError(f"image: expected the size {self.size} that was to be fitted, got {image.shape[:2]}")
        scaled = _resize(image, (self.frame[0], self.width), mode)[:, self.cut : self.cut + self.shown]
        right = self.frame[1] - self.shown - self.left
        return np.pad(scaled, ((0, 0), (self.left, right), (0, 0)), constant_values=beside)


def _check_shape(size: tuple[int, int]) -> None:
    """Raise for an image that could show nobody."""
    if min(size) < LEAST_SIDE or max(size) > MOST_ASPECT * min(size):
        raise ValueError(
            f"image of {size[1]} x {size[0]} pixels: expected sides from {LEAST_SIDE} pixels on, none of them more "
            f"than {MOST_ASPECT} times the other; cut it round the person"
        )


def _resize(image: np.ndarray, size: tuple[int, int], mode: str) -> np.ndarray:
    """Return an image uint8 (h, w, C) as (*size, C); one of that size already is not resampled.

    ``mode``: "bicubic", "nearest-exact", or "max": of the pixels that come to lie in one.
    """
    if image.shape[:2] == size:
        return image
    planes = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None].float()  # (1, C, h, w)
    if mode == "bicubic":
        resized = nn.functional.interpolate(planes, size, mode=mode, antialias=True)
    elif mode == "max" and size[0] <= image.shape[0] and size[1] <= image.shape[1]:
        resized = nn.functional.adaptive_max_pool2d(planes, size)
    else:
        resized = nn.functional.interpolate(planes, size, mode="nearest-exact")
    return resized.round().clamp(0, 255).to(torch.uint8)[0].permute(1, 2, 0).numpy()


@dataclass(frozen=True)
class BoxFit:
    """How a photograph lies in the frame when that shows the box of a person's joints and some margin.

    Attributes:
        frame: (H, W) of the network.
        matrix: (2, 3), from the photograph's pixels to the frame's.
    """

    frame: tuple[int, int]
    matrix: np.ndarray

    @classmethod
    def of(cls, pose: Pose, config: TransferDataConfig) -> BoxFit:
        """Return the fit of a pose with joints."""
        points = np.asarray(pose.keypoints, np.float64)[_known(pose)]
        low, high = points.min(0), points.max(0)
        if (high - low).max() < 1:
            raise ValueError(
                f"pose {pose.name!r}: all its joints lie at ({low[0]:.0f}, {low[1]:.0f}); expected those of a person"
            )
        frame = transfer_data.image_size(config)
        return cls(frame, geometry.fit_matrix(np.concatenate([low, high - low + 1]), _MARGIN, frame))

    def points(self, keypoints: np.ndarray, visibility: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return key points (K, 2) in pixels of the frame, 0 where missing, and visibility (K,), both float32."""
        points = np.asarray(keypoints, np.float64)
        finite = np.asarray(np.isfinite(points).all(1))
        mapped = np.where(finite[:, None], points, 0.0) @ self.matrix[:, :2].T + self.matrix[:, 2]
        known = finite & (np.asarray(visibility) > 0) & transforms.inside(mapped, self.frame)
        return np.where(known[:, None], mapped, 0.0).astype(np.float32), known.astype(np.float32)

    def image(self, photo: np.ndarray) -> np.ndarray:
        """Return a photograph (h, w, 3) in the frame, uint8 (H, W, 3), white beside it."""
        return geometry.cut(photo, self.matrix, self.frame, fill=255)


def fit_photo(size: tuple[int, int], config: TransferDataConfig, pose: Pose | None = None) -> Fit | BoxFit:
    """Return how a photograph of ``size`` (h, w) lies in the frame of the network that ``config`` trained.

    Where the training pictures are cut to persons ("photos", "sample-pairs") the box of the pose's joints is shown, as
    in training; else the middle of the photograph, see `Fit.of`. What has the frame's size is cut already.
    """
    if pose is not None and tuple(size) != transfer_data.image_size(config) and _shows_person(pose, config):
        _check_shape(size)
        return BoxFit.of(pose, config)
    return Fit.of(size, config)


def fit_pose(pose: Pose, config: TransferDataConfig) -> Fit | BoxFit:
    """Return how a target pose lies in the frame, by the size of its own image.

    A pose that does not tell it counts the pixels of the data set's pictures: of DeepFashion those of the squares,
    which system 001 crops. ``ValueError`` where its joints lie beyond.
    """
    if pose.size is not None:
        return fit_photo((int(pose.size[0]), int(pose.size[1])), config, pose)
    points = np.asarray(pose.keypoints)[_known(pose)]
    if _shows_person(pose, config):
        return BoxFit.of(pose, config)
    size = _published_size(points, config)
    if (points > np.array([size[1], size[0]])).any():
        raise ValueError(
            f"pose {pose.name!r}: does not say the size of its image, and its joints reach "
            f"({points[:, 0].max():.0f}, {points[:, 1].max():.0f}), beyond {size[1]} x {size[0]}; take key points that "
            "fastpose predict --save-keypoints wrote"
        )
    return Fit.of(size, config)


def check_own(pose: Pose, argument: str, size: tuple[int, int] | None = None) -> None:
    """Raise where a pose has no joint, or counts the pixels of another image than the one it belongs to.

    ``size`` (h, w) is that of its photograph; None takes what the pose says.
    """
    points = np.asarray(pose.keypoints)[_known(pose)]
    if not len(points):
        raise ValueError(
            f"{argument}: no joint of pose {pose.name!r} is known (none scored at least {LEAST_SCORE}); take a "
            "photograph or key points that show the person"
        )
    if size is not None and pose.size is not None and tuple(pose.size) != tuple(size):
        raise ValueError(
            f"{argument}: pose {pose.name!r} is of an image of {pose.size[1]} x {pose.size[0]} pixels, the photograph "
            f"has {size[1]} x {size[0]}; find the key points of this photograph"
        )
    image = pose.size if size is None else size
    if image is not None and not transforms.inside(points, image).any():
        raise ValueError(
            f"{argument}: no joint of pose {pose.name!r} lies in the photograph of {image[1]} x {image[0]} pixels; "
            "find the key points of this photograph"
        )
    if size is not None and pose.size is None and (points > np.array([size[1], size[0]])).any():
        raise ValueError(
            f"{argument}: the joints of pose {pose.name!r} reach ({points[:, 0].max():.0f}, {points[:, 1].max():.0f}), "
            f"beyond the photograph of {size[1]} x {size[0]}; find the key points of this photograph"
        )


def _published_size(points: np.ndarray, config: TransferDataConfig) -> tuple[int, int]:
    """Return the size (H, W) in which a table without sizes counts: of DeepFashion the squares that are cropped."""
    frame = transfer_data.image_size(config)
    cropped = config.name == "deepfashion" and frame == (256, 176) and config.coordinates != "176"
    narrow = len(points) > 0 and points[:, 0].min() < (256 - 176) // 2
    return (256, 256) if cropped and not narrow else frame


def _shows_person(pose: Pose, config: TransferDataConfig) -> bool:
    """Whether the frame shows the box of the joints: as in training, and where enough are known to tell a person."""
    return config.name in _CUT_TO_PERSONS and int(_known(pose).sum()) >= _LEAST_JOINTS


def _known(pose: Pose) -> np.ndarray:
    return (np.asarray(pose.visibility) > 0) & np.isfinite(pose.keypoints).all(1)
