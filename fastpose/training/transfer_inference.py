"""From a photograph and poses to generated images: fitting to the network's frame, guides, batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from fastpose.models.looking import evaluating
from fastpose.training import transfer_data
from fastpose.training.estimation import device_of
from fastpose.training.transfer_data import Inputs, TransferDataConfig
from fastpose.training.transfer_frame import Fit, check_own, fit_photo, fit_pose

if TYPE_CHECKING:
    from fastpose.data.keypoint_files import Pose

BATCH = 8
"""Images generated at a time."""


class PoseTransfer:
    """A generator with everything that its photographs and guides need.

    Args:
        network: (image (B, 3, H, W), guides (B, 2C, H, W)) -> image (B, 3, H, W), all in [-1, 1]. It is put in
            evaluation mode for each call; each of its modules is given back in the mode it had.
        config: the configuration it was trained with; its section ``data`` says size and kind of guides.

    Example::

        transfer = PoseTransfer.from_weights("runs/pona/sample/run/weights/best.safetensors")
        first, second = transfer(photo, pose, [other, another])
    """

    def __init__(self, network: nn.Module, config: Any) -> None:
        self.network = network
        self.config = config
        self.data: TransferDataConfig = config.data

    @classmethod
    def from_weights(cls, path: str | Path, *, device: str | torch.device = "cpu") -> PoseTransfer:
        """Return the pose transfer of weights that a training run wrote; ``ValueError`` for weights of another job."""
        from fastpose.training import systems

        system, config, network = systems.load_network(path)
        return systems.transfer(system, network.to(device), config)

    @property
    def device(self) -> torch.device:
        """Where the network lives."""
        return device_of(self.network)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the generated images."""
        return transfer_data.image_size(self.data)

    @property
    def guide(self) -> str:
        """What guides the generation: "pose", "semantic" or "skeleton"."""
        return transfer_data.guide(self.data)

    def __call__(self, photo: np.ndarray, source: Any, targets: Sequence[Any]) -> list[np.ndarray]:
        """Return the person of a photograph as each target says.

        Args:
            photo: uint8 (H, W, 3) RGB of any size; `transfer_frame.fit_photo` says what of it is shown.
            source: what the photograph shows: a `Pose` in its pixels, or, as the network was trained, a map of parts
                uint8 (H, W) or a skeleton image uint8 (H, W), 0 or 255, of the photograph's size.
            targets: what the images are to show, of any size each.

        Returns:
            one uint8 image per target, (H, W, 3) of the network's size.

        Raises:
            ValueError: arguments of another shape, a pose without a joint in what is shown, a map or a skeleton of
                background alone, or a network that gives NaN.
        """
        sides = self._sides(targets)
        parts = [
            self.generate(self._batch(photo, source, sides[at : at + BATCH])) for at in range(0, len(sides), BATCH)
        ]
        return [image for part in parts for image in part.permute(0, 2, 3, 1).numpy()]

    def inputs(self, photo: np.ndarray, source: Any, targets: Sequence[Any]) -> Inputs:
        """Return the batch of one photograph and its targets as the network sees it, on the network's device.

        ``target``, the photographs to be approximated, is not known: it is the source again.
        """
        return self._batch(photo, source, self._sides(targets))

    def fitted(self, photo: np.ndarray, source: Any = None) -> np.ndarray:
        """Return a photograph uint8 (h, w, 3) that shows ``source`` in the network's frame, uint8 (H, W, 3)."""
        if not isinstance(photo, np.ndarray) or photo.ndim != 3 or photo.shape[2] != 3 or photo.dtype != np.uint8:
            raise ValueError(f"photo: expected uint8 (H, W, 3) RGB, got {_found(photo)}")
        return fit_photo(_size(photo), self.data, source if self.guide == "pose" else None).image(photo)

    def check(self, size: tuple[int, int], source: Any) -> None:
        """Raise what drawing would raise of a photograph of ``size`` (h, w) and its guide, nothing being drawn."""
        fit_photo(size, self.data, source if self.guide == "pose" else None)
        self.side(source, "source", size)

    def _sides(self, targets: Sequence[Any]) -> list[dict[str, np.ndarray]]:
        if not targets:
            raise ValueError("targets: expected at least one, got none")
        return [self.side(target, f"targets[{index}]") for index, target in enumerate(targets)]

    def _batch(self, photo: np.ndarray, source: Any, sides: Sequence[dict[str, np.ndarray]]) -> Inputs:
        shown = self.fitted(photo, source)
        image = torch.from_numpy(np.ascontiguousarray(shown.transpose(2, 0, 1)))[None].to(self.device)
        own = self._draw([self.side(source, "source", _size(photo))])  # (1, C, H, W)
        images = transfer_data.to_network(image).expand(len(sides), -1, -1, -1)  # (B, 3, H, W)
        return Inputs(images, images, own.expand(len(sides), -1, -1, -1), self._draw(sides))

    def side(self, guide: Any, argument: str, size: tuple[int, int] | None = None) -> dict[str, np.ndarray]:
        """Return one guide in the network's frame, by the names of a sample of ``PairDataset`` without their prefix.

        ``size``: (h, w) of the photograph that the guide belongs to.
        """
        if self.guide == "pose":
            return self._pose_side(guide, argument, size)
        plane = np.asarray(guide)
        if plane.ndim != 2 or plane.dtype != np.uint8 or 0 in plane.shape:
            raise ValueError(f"{argument}: expected uint8 (H, W), got {_found(plane)}")
        if size is not None and plane.shape != self.size and not _alike(plane.shape, size):
            raise ValueError(
                f"{argument}: expected a map as wide and high as its photograph of {size[1]} x {size[0]} pixels, got "
                f"{plane.shape[1]} x {plane.shape[0]}"
            )
        fit = Fit.of(_size(plane), self.data)
        if self.guide == "skeleton":
            return {"skeleton": _lines(fit, plane, argument)[None]}
        if plane.max() >= transfer_data.PARTS:
            raise ValueError(f"{argument}: expected part numbers 0 to {transfer_data.PARTS - 1}, got {plane.max()}")
        labels = fit.labels(plane)
        if not labels.any():
            raise ValueError(f"{argument}: expected a map that shows parts, found background alone in what is shown")
        return {"labels": labels}

    def _pose_side(self, pose: Pose, argument: str, size: tuple[int, int] | None) -> dict[str, np.ndarray]:
        check_own(pose, argument, size)
        fit = fit_pose(pose, self.data) if size is None else fit_photo(size, self.data, pose)
        points, visibility = fit.points(pose.keypoints, pose.visibility)
        if not visibility.any():
            raise ValueError(
                f"{argument}: no joint of pose {pose.name!r} lies in the part of its image that is shown in "
                f"{self.size[1]} x {self.size[0]} pixels; cut the image round the person"
            )
        return {"keypoints": points, "visibility": visibility}

    def _draw(self, sides: Sequence[dict[str, np.ndarray]]) -> Tensor:
        """Return the guides (B, C, H, W) of B sides on the network's device."""
        batch = {name: torch.from_numpy(np.stack([side[name] for side in sides])) for name in sides[0]}
        on_device = {name: value.to(self.device) for name, value in batch.items()}
        return transfer_data.draw_guide(on_device, self.size, self.data)

    def picture(self, target: Any) -> np.ndarray:
        """Return a target as a picture in the network's frame, RGB uint8: a skeleton, coloured parts, a grey image."""
        from fastpose.visual import transfer as drawing

        side = self.side(target, "target")
        if self.guide == "pose":
            return drawing.pose_picture(side["keypoints"], side["visibility"], self.size)
        if self.guide == "semantic":
            return drawing.part_picture(side["labels"])
        return 255 - np.repeat(side["skeleton"][0][..., None], 3, axis=2)

    def explain(self, photo: np.ndarray, source: Any, target: Any) -> dict[str, np.ndarray]:
        """Return pictures of what the network does on the way to one target (see `transfer_explain.explain`)."""
        from fastpose.training import transfer_explain

        side = self.side(target, "target")
        inputs = self.inputs(photo, source, [target])
        return transfer_explain.explain(self.network, inputs, side.get("keypoints"), side.get("visibility"))

    def generate(self, inputs: Inputs) -> Tensor:
        """Return the images of a batch, uint8 (B, 3, H, W) on the CPU; the network runs in evaluation mode."""
        with evaluating(self.network):
            images = self.network(inputs.source, inputs.guides)
            if not torch.isfinite(images).all():
                raise ValueError("network: expected finite images, got NaN or infinite values; take other weights")
            return transfer_data.to_bytes(images).cpu()


def _lines(fit: Fit, drawing: np.ndarray, argument: str) -> np.ndarray:
    """Return a skeleton's lines in the frame; ``ValueError`` for a picture without lines or of dark lines on light."""
    light = float((drawing > 127).mean())
    lines = fit.lines(drawing) if 0 < light <= 0.5 else None
    if lines is None or not lines.any():
        raise ValueError(
            f"{argument}: expected a skeleton of light lines on dark, found {light:.0%} of the pixels light; draw what "
            "the network is to follow, or turn dark into light"
        )
    return lines


def _alike(first: Sequence[int], second: Sequence[int]) -> bool:
    """Whether two sizes (h, w) have one aspect, but for rounding."""
    return bool(np.isclose(first[0] * second[1], first[1] * second[0], rtol=0.02))


def _size(image: np.ndarray) -> tuple[int, int]:
    return int(image.shape[0]), int(image.shape[1])


def _found(value: Any) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
