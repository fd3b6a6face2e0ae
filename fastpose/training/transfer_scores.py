"""Scores of generated images: which protocols, how images are stored before they are compared, and the judges."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Sequence
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
_FLAT = 1e-5  # the least range that is stretched, as released


@dataclass(frozen=True)
class ScoreConfig:
    """How generated images are judged.

    Attributes:
        protocols: image protocols by name (``metrics.image``); empty for those of the data set's papers.
        lpips_vgg, lpips_squeeze, lpips_alex: torchvision weights of the trunks; empty: that LPIPS is not measured.
        inception: torchvision weights of Inception v3 for IS and FID; empty: neither is measured.
        splits: of the inception score, 10 in system 001 and 1 in system 003.
        pose_weights: weights of a 2D pose network of ours, which finds joints in generated images for PCKh.
        detector: "module:function" that sees persons for the DS, see ``metrics.pose_transfer.DetectionScore``; it is
            imported when an evaluation starts, and given on the command line alone. Empty: the DS is not measured.
        both_directions: judge each pair in both directions, as system 003 does.
        stored: images are compared as exact "png", or stretched to their own range and compressed, "minmax_jpeg", as
            the released code of system 003 does.
        monitor: name of the result that tells the best weights; empty for the first protocol.
    """

    protocols: tuple[str, ...] = ()
    lpips_vgg: str = ""
    lpips_squeeze: str = ""
    lpips_alex: str = ""
    inception: str = ""
    splits: int = 10
    pose_weights: str = ""
    detector: str = ""
    both_directions: bool = False
    stored: str = "png"
    monitor: str = ""

    def __post_init__(self) -> None:
        _checks.choice("test.stored", self.stored, STORED)
        image.protocols(self.protocols)  # unknown names are refused here
        if self.splits < 1:
            raise ValueError(f"test.splits: expected 1 or more, got {self.splits}")
        if self.detector and not re.fullmatch(r"\w+(\.\w+)*:\w+", self.detector):
            raise ValueError(f"test.detector: expected module:function, got {self.detector!r}")


def monitor(config: TransferDataConfig, scores: ScoreConfig) -> str:
    """Return the name of the result that tells the best weights: ``test.monitor``, or the first protocol.

    Raises ``ValueError``, with the nearest names, for a result that the configuration does not give.
    """
    names = _result_names(config, scores)
    if scores.monitor:
        _checks.choice("test.monitor", scores.monitor, names)
    return scores.monitor or names[0]


def _result_names(config: TransferDataConfig, scores: ScoreConfig) -> tuple[str, ...]:
    """Return the names of the results that ``evaluate`` gives, in their order."""
    names = _protocol_names(config, scores)
    masked = ("mask-IS",) if "mask-SSIM" in names else ()
    trunks = tuple(f"LPIPS ({net})" for net in _trunks(scores))
    whole = ("IS", "FID", *masked) if scores.inception else ()
    found = ("PCKh (transfer)",) if scores.pose_weights else ()
    return (*names, *trunks, *whole, *found, *(("DS",) if scores.detector else ()))


def _trunks(scores: ScoreConfig) -> dict[str, str]:
    """Return the files of the LPIPS trunks that are named."""
    trunks = {"vgg": scores.lpips_vgg, "squeeze": scores.lpips_squeeze, "alex": scores.lpips_alex}
    return {net: path for net, path in trunks.items() if path}


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
        detector: uint8 images (B, 3, H, W) -> for each image the confidences of the persons seen, for the DS; None
            takes that of ``test.detector``.

    Raises:
        ValueError: no pair, a score that the data set has no key points for, or a detector that is not there.
    """
    ways = 2 if scores.both_directions else 1
    judges = _judges(config, scores, detector or _detector(scores.detector), len(loader.dataset), ways)
    for batch in loader:
        batch = batch if device is None else outcome.to_device(batch, device)
        for way, view in enumerate((batch, _reversed(batch))[:ways]):
            generated = _store(generate(transfer_data.prepare(view, config)), scores.stored)  # (B, 3, H, W) uint8
            target = _store(view["target_image"], scores.stored)
            for update, _ in judges:
                update(generated, target, view, way)
    return [result for _, results in judges for result in results()]


def _reversed(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a batch with source and target exchanged."""
    swap = {"source": "target", "target": "source"}
    names = {key: key.partition("_") for key in batch}
    return {f"{swap[head]}_{tail}" if head in swap else key: batch[key] for key, (head, _, tail) in names.items()}


def _store(images: Tensor, mode: str) -> Tensor:
    """Return images, uint8 or in [-1, 1], as they come back from the files that are compared: uint8."""
    if mode == "png":
        return images if images.dtype == torch.uint8 else transfer_data.to_bytes(images)
    return torch.stack([_compressed(picture) for picture in images.cpu().double().numpy()]).to(images.device)


def _compressed(picture: np.ndarray) -> Tensor:
    """Return one picture (3, H, W) stretched to 0..255, rounded once and compressed, as uint8."""
    import cv2

    low, high = picture.min(), picture.max()
    stretched = np.floor((picture - low) * (255 / max(high - low, _FLAT)) + 0.5).astype(np.uint8)
    bgr = np.ascontiguousarray(stretched.transpose(1, 2, 0)[:, :, ::-1])  # (H, W, 3)
    _, coded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    decoded = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR))  # (H, W, 3)
    return torch.from_numpy(np.ascontiguousarray(decoded[:, :, ::-1].transpose(2, 0, 1)))


def _detector(name: str) -> Detector | None:
    """Return the function "module:function"; None for an empty name."""
    if not name:
        return None
    module, _, function = name.partition(":")
    try:
        found: Detector = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"test.detector: {name!r} cannot be imported ({error}); name a module:function") from None
    if not callable(found):
        raise ValueError(f"test.detector: expected a function, {name!r} is {type(found).__name__}")
    return found


# ------------------------------------------------------------------------------------------------------------ judges

Judge = tuple[Callable[[Tensor, Tensor, dict[str, Tensor], int], None], Callable[[], "list[Result]"]]
"""What takes in (generated, target, batch, direction), and what gives the results."""


def _judges(
    config: TransferDataConfig, scores: ScoreConfig, detector: Detector | None, pairs: int, ways: int
) -> list[Judge]:
    """Return the judges that the configuration asks for, in the order of their results.

    ``pairs`` will come, each in so many ``ways``: one direction or both.
    """
    judges = [_comparison(config, scores)]
    if scores.inception:
        look = generative.inception(scores.inception)
        judges.append(_each_way([_distributions(config, scores, look, pairs) for _ in range(ways)]))
    if scores.pose_weights:
        judges.append(_found_again(config, scores))
    if detector is not None:
        seen = pose_transfer.DetectionScore(detector, scores.detector or "the given detector")
        judges.append((lambda generated, target, batch, way: seen.update(generated), lambda: [seen.result()]))
    return judges


def _comparison(config: TransferDataConfig, scores: ScoreConfig) -> Judge:
    """Judge each image against its target."""
    chosen = image.protocols(_protocol_names(config, scores))
    chosen += [lpips.protocol(net, path) for net, path in _trunks(scores).items()]
    accumulator = image.ImageAccumulator(chosen)

    def update(generated: Tensor, target: Tensor, batch: dict[str, Tensor], way: int) -> None:
        accumulator.update(generated, target, batch.get("target_keypoints"), batch.get("target_visibility"))

    return update, accumulator.results


def _each_way(judges: Sequence[Judge]) -> Judge:
    """Judge the images of each direction by themselves, as a set of images is no mean over images (003, 4.1)."""

    def update(generated: Tensor, target: Tensor, batch: dict[str, Tensor], way: int) -> None:
        judges[way][0](generated, target, batch, way)

    def results() -> list[Result]:
        return [_mean(found) for found in zip(*(results() for _, results in judges), strict=True)]

    return update, results


def _mean(found: Sequence[Result]) -> Result:
    """Return the mean of one score of each direction; of one direction, its score."""
    if len(found) == 1:
        return found[0]
    return replace(
        found[0],
        protocol=f"{found[0].protocol}; mean of the scores of both directions",
        value=sum(result.value for result in found) / len(found),
        count=sum(result.count for result in found),
        details={"directions": [{"value": result.value, **result.details} for result in found]},
    )


def _distributions(config: TransferDataConfig, scores: ScoreConfig, look: generative.Look, total: int) -> Judge:
    """Judge ``total`` generated images together: IS, FID against all targets and, where limbs are masked, mask-IS."""
    whole = generative.GenerativeAccumulator(look, splits=scores.splits, total=total)
    if "mask-SSIM" not in _protocol_names(config, scores):
        return (lambda generated, target, batch, way: whole.update(generated, target)), whole.results
    masked, masked_results = _masked_score(generative.GenerativeAccumulator(look, splits=scores.splits, total=total))

    def update(generated: Tensor, target: Tensor, batch: dict[str, Tensor], way: int) -> None:
        whole.update(generated, target)
        masked(generated, target, batch, way)

    return update, lambda: whole.results() + masked_results()


def _masked_score(accumulator: generative.GenerativeAccumulator) -> Judge:
    """Judge generated images that are black outside the limbs of their targets."""

    def update(generated: Tensor, target: Tensor, batch: dict[str, Tensor], way: int) -> None:
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

    def update(generated: Tensor, target: Tensor, batch: dict[str, Tensor], way: int) -> None:
        pictures = generated.permute(0, 2, 3, 1).cpu().numpy()  # (B, H, W, 3)
        estimates = [estimator(np.ascontiguousarray(picture)) for picture in pictures]
        found = np.concatenate([estimate.keypoints for estimate in estimates])  # (B, K, 2)
        seen = np.concatenate([estimate.scores for estimate in estimates]) > 0  # (B, K)
        found, seen = convert(found, seen, estimator.skeleton, skeletons.OPENPOSE)
        accumulator.update(found, batch["target_keypoints"], seen, batch["target_visibility"])

    return update, lambda: [accumulator.result()]
