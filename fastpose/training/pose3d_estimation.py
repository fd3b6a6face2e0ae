"""From photographs to joints in space: a network of heatmaps and depths, read with the flip test (system 002)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fastpose import ops
from fastpose.metrics.keypoints_3d import RELEASED_BONE_SUM, scale_to
from fastpose.models.looking import evaluating
from fastpose.nn import coordinates
from fastpose.skeletons import MPII
from fastpose.training import pose_data
from fastpose.training.estimation import Estimate, crops, cut, device_of, map_points
from fastpose.training.pose3d_data import Pose3dDataConfig
from fastpose.training.pose3d_scores import Pose3dScoreConfig, decoded

ROOT = MPII.index("pelvis")


@dataclass(frozen=True)
class Estimate3D(Estimate):
    """Joints of N persons in the photograph and in space.

    Attributes:
        keypoints: float32 (N, K, 2) as (x, y) in pixels of the original image.
        scores: float32 (N, K), heights of the heatmap maxima.
        cube: float32 (N, K, 3), (x, y, z) in units of half a crop: x and y run from -1 to 1 over the crop, z is the
            depth as the network gives it, positive away from the camera; 0 is where its training had the root, so the
            pelvis is near 0 but not at it.
        crop_side: float32 (N,), side of each person's crop in pixels of the original image.
    """

    cube: np.ndarray
    crop_side: np.ndarray


class Pose3dEstimator:
    """A network of heatmaps and depths with everything that its images and its output need.

    Args:
        network: image (B, 3, H, W) -> (heatmaps of each stack (B, 16, H/4, W/4), depth (B, 16)); the last stack is
            used. It is put in evaluation mode for each call; each of its modules is given back in the mode it had.
        data: crop preset, image size and normalisation the network was trained with.
        test: flip test, decoder, backend and the assumed size of persons.

    Example::

        estimator = Pose3dEstimator.from_weights("runs/pose3d/demo/run/weights/best.safetensors")
        estimate = estimator(photo)                    # the whole photo is the crop
        joints = estimator.millimetres(estimate)       # the scale is assumed: see there
    """

    skeleton = MPII

    def __init__(self, network: nn.Module, data: Pose3dDataConfig, test: Pose3dScoreConfig | None = None) -> None:
        self.network = network
        self.data = data
        self.test = test or Pose3dScoreConfig()

    @classmethod
    def from_weights(
        cls, path: str | Path, *, device: str | torch.device = "cpu", test: Pose3dScoreConfig | None = None
    ) -> Pose3dEstimator:
        """Return an estimator from weights that a training run wrote; ``ValueError`` where they know no depth."""
        from fastpose.training import systems

        system, config, network = systems.load_network(path)
        found = systems.estimator(system, network.to(device), config, test)
        if not isinstance(found, cls):
            raise ValueError(f"checkpoint {path}: is of system {system.name}, which finds no depth; expected pose3d")
        return found

    @property
    def device(self) -> torch.device:
        """Where the network lives."""
        return device_of(self.network)

    def __call__(self, photo: np.ndarray, boxes: Sequence[Sequence[float]] | None = None) -> Estimate3D:
        """Return the joints of the persons in ``boxes``, or of one person that fills the photo.

        Args:
            photo: uint8 (H, W, 3) RGB.
            boxes: (N, 4) as (x, y, width, height) in pixels; the crop is a square a quarter larger than the box.
        """
        return self.persons(photo, *crops(photo, boxes))

    def persons(self, photo: np.ndarray, centers: Sequence[np.ndarray], scales: Sequence[float]) -> Estimate3D:
        """Return the joints of N persons given by ``centers`` (2,) and ``scales`` (crop side / 200 px).

        Raises:
            ValueError: the network gives NaN or infinite values.
        """
        found = [_nobody(len(self.skeleton))]
        for center, scale in zip(centers, scales, strict=True):
            image, to_image = cut(self.data, photo, center, scale)
            found.append(self.read(image[None], to_image[None]))
        estimate = _joined(found)
        if not (np.isfinite(estimate.cube).all() and np.isfinite(estimate.scores).all()):
            raise ValueError(
                "network: gives NaN or infinite values for this photo; expected finite ones, take other weights"
            )
        return estimate

    def maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last stack's heatmaps (B, K, H/4, W/4) and depths (B, K), float32.

        With the flip test both are the mean with those of the mirrored images, left and right joints swapped back.
        ``images`` is uint8 RGB (B, 3, H, W) on any device.
        """
        with evaluating(self.network):
            ready = pose_data.normalise(images.to(self.device), self.data)  # (B, 3, H, W)
            heatmaps, depth = _last(self.network(ready))
            if self.test.flip:
                mirrored, swapped = _last(self.network(ready.flip(-1)))
                heatmaps = ops.flip_average(heatmaps, mirrored, self.skeleton.flip_pairs, backend=self.test.backend)
                depth = (depth + swapped[:, list(self.skeleton.flip_permutation)]) / 2  # a mirror keeps the depth
        return heatmaps, depth

    def read(self, images: Tensor, to_image: Tensor) -> Estimate3D:
        """Return the joints of B crops.

        Args:
            images: uint8 RGB (B, 3, H, W).
            to_image: (B, 2, 3), affine maps from heatmap pixels to pixels of the original images.
        """
        heatmaps, depth = self.maps(images)
        points, scores = decoded(heatmaps, self.test)
        size = (heatmaps.shape[-2], heatmaps.shape[-1])
        cube = coordinates.cube(points.float(), depth, size)  # (B, K, 3)
        side = to_image[:, :, :2].double().det().abs().sqrt() * size[1]  # (B,)
        arrays = (map_points(points.cpu(), to_image.cpu()), scores.float(), cube, side.float())
        return Estimate3D(*(array.cpu().numpy() for array in arrays))

    def run_loader(self, loader: Iterable[dict[str, Tensor]]) -> tuple[np.ndarray, Estimate3D]:
        """Return the indices (N,) of the samples of a loader and their joints."""
        indices, found = [], []
        for batch in loader:
            found.append(self.read(batch["image"], batch["to_image"]))
            indices.append(batch["index"].cpu().numpy())
        if not indices:
            raise ValueError("evaluation: expected at least one sample, got an empty validation set")
        return np.concatenate(indices), _joined(found)

    @property
    def bone_sum(self) -> float:
        """Summed length in mm of `skeletons.MPII_BONES` that is assumed of everybody: ``test.bone_sum``.

        Where that is 0, the mean of Human3.6M's training poses (system 002, released code). Weights that a training run
        wrote bring the mean of the poses they were trained on.
        """
        return self.test.bone_sum or RELEASED_BONE_SUM

    def millimetres(self, estimate: Estimate3D) -> np.ndarray:
        """Return joints float32 (N, 16, 3) in mm relative to the pelvis: x right, y down, z away from the camera.

        One photograph does not tell how large a person is: each is given the bones of ``bone_sum`` together. A pose
        without extent stays a point. Raises ``ValueError`` for joints that are not finite.
        """
        joints = scale_to(estimate.cube, self.bone_sum)  # (N, 16, 3)
        return (joints - joints[:, ROOT : ROOT + 1]).float().numpy()


def _last(output: tuple[Sequence[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Return the last stack's heatmaps and the depths of a network, float32."""
    heatmaps, depth = output
    return heatmaps[-1].float(), depth.float()


def _nobody(joints: int) -> Estimate3D:
    shapes = ((0, joints, 2), (0, joints), (0, joints, 3), (0,))
    return Estimate3D(*(np.zeros(shape, np.float32) for shape in shapes))


def _joined(parts: Sequence[Estimate3D]) -> Estimate3D:
    """Return the persons of several estimates as one."""
    names = [field.name for field in fields(Estimate3D)]
    return Estimate3D(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})
