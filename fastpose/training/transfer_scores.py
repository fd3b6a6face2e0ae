"""Scores of generated images: which protocols, how images are stored before they are compared, and the judges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fastpose import _checks, skeletons
from fastpose.metrics import generative, image, lpips, pose_transfer
from fastpose.training import outcome, transfer_data
from fastpose.training.transfer_data import Inputs, TransferDataConfig

if TYPE_CHECKING:
    from fastpose.metrics.report import Result

Generate = Callable[[Inputs], Tensor]
Detector = Callable[[Tensor], Any]

STORED = ("png", "minmax_jpeg")
JPEG_QUALITY = 75
"""PIL's default, with which the released code of system 003 stores what it compares."""


@dataclass(frozen=True)
class ScoreConfig:
    """How generated images are judged.

    Attributes:
        protocols: image protocols by name (``metrics.image``); empty for those of the data set's papers.
        lpips_vgg, lpips_squeeze, lpips_alex: torchvision weights of the trunks; empty: that LPIPS is not measured.
        inception: torchvision weights of Inception v3 for IS and FID; empty: neither is measured.
        splits: of the inception score, 10 in system 001 and 1 in system 003.
        pose_weights: weights of a 2D pose network of ours, which finds joints in generated images for PCKh.
        both_directions: judge each pair in both directions, as system 003 does.
        stored: images are compared as exact "png", or stretched to their own range and compressed, "minmax_jpeg", as
            the released code of system 003 does.
    """

    protocols: tuple[str, ...] = ()
    lpips_vgg: str = ""
    lpips_squeeze: str = ""
    lpips_alex: str = ""
    inception: str = ""
    splits: int = 10
    pose_weights: str = ""
    both_directions: bool = False
    stored: str = "png"

    def __post_init__(self) -> None:
        _checks.choice("test.stored", self.stored, STORED)
        image.protocols(self.protocols)  # unknown names are refused here
        if self.splits < 1:
            raise ValueError(f"test.splits: expected 1 or more, got {self.splits}")


def monitor(config: TransferDataConfig, scores: ScoreConfig) -> str:
    """Return the name of the result that tells the best weights: the first protocol."""
    return _protocol_names(config, scores)[0]


def _protocol_names(config: TransferDataConfig, scores: ScoreConfig) -> tuple[str, ...]:
    if scores.protocols:
        return scores.protocols
    names = ["SSIM (7x7)" if transfer_data.guide(config) != "pose" else "SSIM (PATN)", "L1", "PSNR"]
    if config.name in ("market", "sample-pairs"):
        names.append("mask-SSIM")
    if config.name == "deepfashion":
        names += ["SSIM (7x7)"]
        names += ["SSIM (PATN, padded)"] if transfer_data.image_size(config) == (256, 176) else []
    return tuple(names)


@torch.no_grad()
def evaluate(
    generate: Generate,
    loader: Any,
    config: TransferDataConfig,
    scores: ScoreConfig,
    *,
    device: torch.device | None = None,
    detector: Detector | None = None,
) -> list[Result]:
    """Return the scores of generated images against their targets.

    Args:
        generate: from a batch as the networks see it to images (B, 3, H, W) in [-1, 1].
        loader: batches of the ``PairDataset`` that it has as ``dataset``.
        config, scores: the sections ``data`` and ``test`` of a configuration.
        device: where the batches are brought; None leaves them where they are.
        detector: uint8 images (B, 3, H, W) -> for each image the confidences of the persons seen, for the DS.

    Raises:
        ValueError: no pair, or a score that the data set has no key points for.
    """
    directions = 2 if scores.both_directions else 1
    judges = _judges(config, scores, detector, directions * len(loader.dataset))
    for batch in loader:
        batch = batch if device is None else outcome.to_device(batch, device)
        for view in (batch, _reversed(batch))[:directions]:
            inputs = transfer_data.prepare(view, config)
            generated = _store(transfer_data.to_bytes(generate(inputs)), scores.stored)  # (B, 3, H, W) uint8
            target = _store(view["target_image"], scores.stored)
            for update, _ in judges:
                update(generated, target, view)
    return [result for _, results in judges for result in results()]


def _reversed(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a batch with source and target exchanged."""
    swap = {"source": "target", "target": "source"}
    names = {key: key.partition("_") for key in batch}
    return {f"{swap[head]}_{tail}" if head in swap else key: batch[key] for key, (head, _, tail) in names.items()}


def _store(images: Tensor, mode: str) -> Tensor:
    """Return images as they come back from the files that are compared."""
    if mode == "png":
        return images
    import cv2

    stored = []
    for picture in images.cpu().numpy():
        low, high = int(picture.min()), int(picture.max())
        stretched = np.rint((picture.astype(np.float64) - low) * (255 / max(high - low, 1))).astype(np.uint8)
        bgr = np.ascontiguousarray(stretched.transpose(1, 2, 0)[:, :, ::-1])  # (H, W, 3)
        _, coded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        decoded = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR))  # (H, W, 3)
        stored.append(torch.from_numpy(np.ascontiguousarray(decoded[:, :, ::-1].transpose(2, 0, 1))))
    return torch.stack(stored).to(images.device)


# ------------------------------------------------------------------------------------------------------------ judges

Judge = tuple[Callable[[Tensor, Tensor, dict[str, Tensor]], None], Callable[[], "list[Result]"]]
"""What takes in (generated, target, batch), and what gives the results."""


def _judges(config: TransferDataConfig, scores: ScoreConfig, detector: Detector | None, total: int) -> list[Judge]:
    """Return the judges that the configuration asks for, in the order of their results; ``total`` images will come."""
    judges = [_comparison(config, scores)]
    if scores.inception:
        judges += _distributions(config, scores, total)
    if scores.pose_weights:
        judges.append(_found_again(config, scores))
    if detector is not None:
        seen = pose_transfer.DetectionScore(detector)
        judges.append((lambda generated, target, batch: seen.update(generated), lambda: [seen.result()]))
    return judges


def _comparison(config: TransferDataConfig, scores: ScoreConfig) -> Judge:
    """Judge each image against its target."""
    chosen = image.protocols(_protocol_names(config, scores))
    trunks = {"vgg": scores.lpips_vgg, "squeeze": scores.lpips_squeeze, "alex": scores.lpips_alex}
    chosen += [lpips.protocol(net, path) for net, path in trunks.items() if path]
    accumulator = image.ImageAccumulator(chosen)

    def update(generated: Tensor, target: Tensor, batch: dict[str, Tensor]) -> None:
        accumulator.update(generated, target, batch.get("target_keypoints"), batch.get("target_visibility"))

    return update, accumulator.results


def _distributions(config: TransferDataConfig, scores: ScoreConfig, total: int) -> list[Judge]:
    """Judge all generated images together: IS, FID against all targets and, where limbs are masked, mask-IS."""
    judge = generative.inception(scores.inception)
    whole = generative.GenerativeAccumulator(judge, splits=scores.splits, total=total)
    judges: list[Judge] = [(lambda generated, target, batch: whole.update(generated, target), whole.results)]
    if "mask-SSIM" in _protocol_names(config, scores):
        judges.append(_masked_score(generative.GenerativeAccumulator(judge, splits=scores.splits, total=total)))
    return judges


def _masked_score(accumulator: generative.GenerativeAccumulator) -> Judge:
    """Judge generated images that are black outside the limbs of their targets."""

    def update(generated: Tensor, target: Tensor, batch: dict[str, Tensor]) -> None:
        limbs = pose_transfer.masked(generated, batch["target_keypoints"], batch["target_visibility"])
        accumulator.update(limbs)

    def results() -> list[Result]:
        (score,) = accumulator.results()
        return [
            replace(score, name="mask-IS", protocol=f"images black outside the limbs of the target, {score.protocol}")
        ]

    return update, results


def _found_again(config: TransferDataConfig, scores: ScoreConfig) -> Judge:
    """Judge whether a 2D pose network finds the target's joints on the generated images."""
    from fastpose.data.joints import convert
    from fastpose.training.estimation import PoseEstimator

    if transfer_data.guide(config) != "pose":
        raise ValueError(f"test.pose_weights: data set {config.name!r} has no joints to find again; leave it empty")
    estimator = PoseEstimator.from_weights(scores.pose_weights)
    accumulator = pose_transfer.TransferPCKh()

    def update(generated: Tensor, target: Tensor, batch: dict[str, Tensor]) -> None:
        pictures = generated.permute(0, 2, 3, 1).cpu().numpy()  # (B, H, W, 3)
        estimates = [estimator(np.ascontiguousarray(picture)) for picture in pictures]
        found = np.concatenate([estimate.keypoints for estimate in estimates])  # (B, K, 2)
        seen = np.concatenate([estimate.scores for estimate in estimates]) > 0  # (B, K)
        found, seen = convert(found, seen, estimator.skeleton, skeletons.OPENPOSE)
        accumulator.update(found, batch["target_keypoints"], seen, batch["target_visibility"])

    return update, lambda: [accumulator.result()]
