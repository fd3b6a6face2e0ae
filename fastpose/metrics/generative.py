"""Inception score and Frechet distance of generated images, over any features or those of Inception v3.

Sums are kept in float64; memory does not grow with the number of images.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from fastpose.metrics import _ranks
from fastpose.metrics._images import check_images
from fastpose.metrics.report import Result
from fastpose.nn import backbones

INCEPTION = "torchvision's Inception v3 on images in [-1, 1], bilinear to 299 x 299"
_SIDE = 299
_EPS = torch.finfo(torch.float64).eps

Look = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From uint8 images (B, 3, H, W) to features (B, D) and class logits (B, C)."""


def inception(weights: str | Path | nn.Module, block: int = 32) -> Look:
    """Return Inception v3 as a function of uint8 images (B, 3, H, W) to features (B, 2048) and logits (B, 1000).

    Images become [-1, 1] and 299 x 299 (bilinear, corners not aligned), as in the released evaluation of system 003.

    Args:
        weights: torchvision's inception_v3 file (.pth or .safetensors), or such a network.
        block: images that pass at a time.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file holds another network, or ``block`` is no positive number.
    """
    if block < 1:
        raise ValueError(f"block: expected 1 or more images, got {block}")
    network = weights if isinstance(weights, nn.Module) else backbones.load("inception_v3", weights)
    if not isinstance(network, backbones.InceptionV3) or network.fc is None or network.transform_input:
        raise ValueError("weights: expected an inception_v3 with head=True and transform_input=False")
    head = network.fc

    @torch.no_grad()
    def look(images: Tensor) -> tuple[Tensor, Tensor]:
        network.to(check_images("images", images).device).eval()
        parts = [network.features(_resized(part)) for part in images.split(block)]
        features = torch.cat(parts) if len(images) else torch.zeros(0, 2048, device=images.device)
        return features, head(features)

    return look


def _resized(images: Tensor) -> Tensor:
    return nn.functional.interpolate(
        images.float() / 127.5 - 1, size=(_SIDE, _SIDE), mode="bilinear", align_corners=False
    )


class InceptionScore:
    """exp of the mean divergence of each image's class distribution from the mean one, per part of the images.

    Args:
        splits: parts of the images: 10 in system 001, 1 in system 003. Image i goes to part i mod ``splits``, unless
            ``total`` says how many images there are: then the parts are consecutive, as published.
        total: number of images, 0 when it is not known.
        judge: what gives the logits, in words, for the sentence.
        name: of the result; ``"mask-IS"`` for images from :func:`fastpose.metrics.pose_transfer.masked`.
    """

    def __init__(self, splits: int = 10, total: int = 0, judge: str = INCEPTION, name: str = "IS") -> None:
        if splits < 1:
            raise ValueError(f"splits: expected 1 or more, got {splits}")
        if total < 0 or 0 < total < splits:
            raise ValueError(
                f"total: expected 0 (not known) or at least {splits} images for {splits} splits, got {total}"
            )
        self.name, self.splits, self.total = name, splits, total
        parts = (
            f"mean over {splits} {'consecutive parts' if total else 'parts dealt in turn'}" if splits > 1 else "1 part"
        )
        self.sentence = f"inception score, exp(mean KL(p(y|x) || p(y))), {parts}, by {judge}"
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        self._seen = 0
        self._counts = torch.zeros(self.splits, dtype=torch.float64)
        self._negentropy = torch.zeros(self.splits, dtype=torch.float64)  # sum of p log p
        self._classes: Tensor | None = None  # (splits, C), sums of p

    def update(self, logits: Tensor, index: Tensor | None = None) -> None:
        """Add a batch; a failed batch adds nothing.

        Args:
            logits: (B, C) class logits.
            index: (B,) number of each image from 0 among all; default the order of arrival. Ranks of a distributed run
                name it, so that parts do not depend on who saw which image.

        Raises:
            TypeError: logits of no floating-point type.
            ValueError: shapes that do not fit, values that are not finite, or an index beyond ``total``.
        """
        rows = _rows("logits", logits)
        if self._classes is not None and rows.shape[1] != self._classes.shape[1]:
            raise ValueError(f"logits: expected {self._classes.shape[1]} classes as before, got {rows.shape[1]}")
        part = self._part(torch.arange(len(rows)) + self._seen if index is None else torch.as_tensor(index).cpu())
        if part.shape != rows.shape[:1]:
            raise ValueError(f"index: expected ({len(rows)},), one number per image, got {tuple(part.shape)}")
        logs = rows.log_softmax(1)
        chances = logs.exp()
        entropy = torch.where(chances > 0, chances * logs, 0.0).sum(1)
        classes = (
            torch.zeros(self.splits, rows.shape[1], dtype=torch.float64) if self._classes is None else self._classes
        )
        self._classes = classes.index_add(0, part, chances)
        self._counts = self._counts.index_add(0, part, torch.ones_like(entropy))
        self._negentropy = self._negentropy.index_add(0, part, entropy)
        self._seen += len(rows)

    def _part(self, index: Tensor) -> Tensor:
        """Return the part of each image."""
        if index.is_floating_point():
            raise TypeError(f"index: expected whole numbers, got {index.dtype}")
        if bool((index < 0).any()) or (self.total and bool((index >= self.total).any())):
            raise ValueError(f"index: expected 0..{self.total - 1 if self.total else '...'}, got {index.tolist()[:5]}")
        if not self.total:
            return index % self.splits
        ends = torch.tensor([(part + 1) * self.total // self.splits for part in range(self.splits)])
        return torch.searchsorted(ends, index.long().contiguous(), right=True)

    def merge(self, other: InceptionScore) -> None:
        """Add the images of another score of the same sentence; ``ValueError`` when they differ."""
        if (other.sentence, other.total) != (self.sentence, self.total):
            raise ValueError(f"merge: expected {self.sentence!r} of {self.total} images, got {other.sentence!r}")
        widths = {each._classes.shape[1] for each in (self, other) if each._classes is not None}
        if len(widths) > 1:
            raise ValueError(f"merge: expected scores of one number of classes, got {sorted(widths)}")
        self._seen += other._seen
        self._counts = self._counts + other._counts
        self._negentropy = self._negentropy + other._negentropy
        if self._classes is None or other._classes is None:
            self._classes = other._classes if self._classes is None else self._classes
        else:
            self._classes = self._classes + other._classes

    def all_reduce(self, device: torch.device | str | None = None) -> None:
        """Sum over all ranks; without a process group, nothing happens."""
        width = _ranks.greatest(0 if self._classes is None else self._classes.shape[1], device)
        if not _ranks.distributed() or not width:
            return
        classes = torch.zeros(self.splits, width, dtype=torch.float64) if self._classes is None else self._classes
        self._counts, self._negentropy, self._classes = _ranks.summed((self._counts, self._negentropy, classes), device)
        self._seen = int(self._counts.sum())

    def result(self) -> Result:
        """Return the score; ``ValueError`` while a part has no image."""
        if self._classes is None or bool((self._counts == 0).any()):
            raise ValueError(
                f"IS: expected at least one image for each of {self.splits} splits, got {self._seen} images; "
                "take fewer splits"
            )
        if self.total and self._seen != self.total:
            raise ValueError(f"IS: expected {self.total} images as total says, got {self._seen}")
        mean = self._classes / self._counts[:, None]
        marginal = torch.where(mean > 0, mean * mean.log(), 0.0).sum(1)
        scores = (self._negentropy / self._counts - marginal).clamp(min=0).exp()
        details = {"splits": scores.tolist(), "std": float(scores.std(correction=0))}
        return Result(self.name, self.sentence, float(scores.mean()), self._seen, details=details)


class Moments:
    """Mean and covariance of feature rows in one stream, in float64, by the pairwise update that loses no digits."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Tensor | None = None  # (D,)
        self.scatter: Tensor | None = None  # (D, D), sum of (x - mean)(x - mean)^T

    def add(self, rows: Tensor) -> None:
        """Add rows (B, D); ``ValueError`` when D differs from before."""
        if not len(rows):
            return
        mean = rows.mean(0)
        away = rows - mean
        self._join(len(rows), mean).addmm_(away.mT, away)  # in place: one pass over (D, D) for a batch

    def merge(self, other: Moments) -> None:
        """Add the rows of another stream."""
        if other.mean is not None and other.scatter is not None:
            self._join(other.count, other.mean).add_(other.scatter)

    def _join(self, count: int, mean: Tensor) -> Tensor:
        """Add rows as if each were their mean; return the scatter, to which theirs about that mean is to be added."""
        if self.mean is None or self.scatter is None:
            self.count, self.mean, self.scatter = count, mean.clone(), mean.new_zeros(len(mean), len(mean))
            return self.scatter
        if mean.shape != self.mean.shape:
            raise ValueError(f"features: expected (B, {len(self.mean)}) as before, got (B, {len(mean)})")
        total, step = self.count + count, mean - self.mean
        self.scatter.addr_(step, step, alpha=self.count * count / total)
        self.mean, self.count = self.mean + step * (count / total), total
        return self.scatter

    def all_reduce(self, device: torch.device | str | None = None) -> None:
        """Join the streams of all ranks; without a process group, nothing happens."""
        width = _ranks.greatest(0 if self.mean is None else len(self.mean), device)
        if not _ranks.distributed() or not width:
            return
        mine = torch.zeros(width, dtype=torch.float64) if self.mean is None else self.mean
        scatter = torch.zeros(width, width, dtype=torch.float64) if self.scatter is None else self.scatter
        count, total = _ranks.summed((torch.tensor([self.count], dtype=torch.float64), mine * self.count), device)
        self.mean = total / count
        away = mine - self.mean
        (self.scatter,) = _ranks.summed([scatter + torch.outer(away, away) * self.count], device)
        self.count = int(count)

    def gaussian(self) -> tuple[Tensor, Tensor]:
        """Return mean (D,) and sample covariance (D, D); ``ValueError`` below two rows."""
        if self.mean is None or self.scatter is None or self.count < 2:
            raise ValueError(f"FID: expected at least 2 images of each kind, got {self.count}")
        return self.mean, self.scatter / (self.count - 1)


class FrechetDistance:
    """Frechet distance between Gaussians fitted to the features of generated and of real images.

    Args:
        judge: what gives the features, in words, for the sentence.
    """

    name = "FID"

    def __init__(self, judge: str = INCEPTION) -> None:
        self.sentence = (
            "Frechet distance |m1 - m2|^2 + tr(S1 + S2 - 2 sqrt(S1 S2)), features of generated and target images, "
            f"sample covariance, by {judge}"
        )
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        self._generated, self._target = Moments(), Moments()

    def update(self, generated: Tensor | None = None, target: Tensor | None = None) -> None:
        """Add features (B, D) of generated images, of target images, or of both, in any numbers.

        Raises ``TypeError`` or ``ValueError`` for anything but finite floating-point rows of one length.
        """
        pairs = ((self._generated, "generated", generated), (self._target, "target", target))
        rows = [(moments, _rows(name, features)) for moments, name, features in pairs if features is not None]
        lengths = {len(each.mean) for each in (self._generated, self._target) if each.mean is not None}
        lengths |= {features.shape[1] for _, features in rows}
        if len(lengths) > 1:
            raise ValueError(f"features: expected rows of one length, got lengths {sorted(lengths)}")
        for moments, features in rows:
            moments.add(features)

    def merge(self, other: FrechetDistance) -> None:
        """Add the images of another distance of the same sentence; ``ValueError`` when they differ."""
        if other.sentence != self.sentence:
            raise ValueError(f"merge: expected {self.sentence!r}, got {other.sentence!r}")
        self._generated.merge(other._generated)
        self._target.merge(other._target)

    def all_reduce(self, device: torch.device | str | None = None) -> None:
        """Join the images of all ranks; without a process group, nothing happens."""
        self._generated.all_reduce(device)
        self._target.all_reduce(device)

    def result(self) -> Result:
        """Return the distance; ``ValueError`` below two images of a kind."""
        value = frechet(*self._generated.gaussian(), *self._target.gaussian())
        details = {"targets": self._target.count}
        return Result(self.name, self.sentence, value, self._generated.count, details=details)


def frechet(mean1: Tensor, covariance1: Tensor, mean2: Tensor, covariance2: Tensor) -> float:
    """Return the squared Frechet distance of two Gaussians, means (D,) and covariances (D, D) in float64; 0 or more.

    tr sqrt(S1 S2) is the sum of the singular values of F1^T F2 for any factors S = F F^T, so singular covariances are
    no exception and no root of a small negative number is taken.

    Raises:
        ValueError: a value that is not finite.
    """
    if not all(bool(part.isfinite().all()) for part in (mean1, covariance1, mean2, covariance2)):
        raise ValueError("frechet: expected finite means and covariances, got some that are not")
    root = torch.linalg.svdvals(_factor(covariance1).mT @ _factor(covariance2)).sum()
    distance = (mean1 - mean2).square().sum() + covariance1.trace() + covariance2.trace() - 2 * root
    return max(float(distance), 0.0)


def _factor(covariance: Tensor) -> Tensor:
    """Return F (D, R) with F F^T the covariance, without directions that rounding alone fills."""
    variances, directions = torch.linalg.eigh(covariance)
    kept = variances > variances[-1:].abs() * len(variances) * _EPS
    return directions[:, kept] * variances[kept].sqrt()


class GenerativeAccumulator:
    """IS and FID in one pass of a judge over generated and target images.

    Args:
        look: from :func:`inception`, or any function of uint8 images (B, 3, H, W) to features (B, D) and logits (B, C).
        splits, total: of :class:`InceptionScore`.
        judge: ``look`` in words, for the sentences.
    """

    def __init__(self, look: Look, *, splits: int = 10, total: int = 0, judge: str = INCEPTION) -> None:
        self._look = look
        self._score, self._distance = InceptionScore(splits, total, judge), FrechetDistance(judge)
        self._targets = False

    def reset(self) -> None:
        """Forget all batches."""
        self._score.reset()
        self._distance.reset()
        self._targets = False

    def update(self, generated: Tensor, target: Tensor | None = None, index: Tensor | None = None) -> None:
        """Add uint8 images (B, 3, H, W); without any target, FID is left out. ``index`` as `InceptionScore.update`."""
        features, logits = self._look(check_images("generated", generated))
        truth = None if target is None else self._look(check_images("target", target))[0]
        self._score.update(logits, index)
        self._distance.update(features, truth)
        self._targets |= truth is not None

    def merge(self, other: GenerativeAccumulator) -> None:
        """Add the images of another accumulator of the same sentences."""
        self._score.merge(other._score)
        self._distance.merge(other._distance)
        self._targets |= other._targets

    def all_reduce(self, device: torch.device | str | None = None) -> None:
        """Sum over all ranks; without a process group, nothing happens."""
        self._score.all_reduce(device)
        self._distance.all_reduce(device)
        self._targets = bool(_ranks.greatest(int(self._targets), device))

    def results(self) -> list[Result]:
        """Return IS and, where targets were seen, FID; ``ValueError`` with too few images."""
        return [self._score.result(), *([self._distance.result()] if self._targets else [])]


def _rows(argument: str, value: Tensor) -> Tensor:
    """Return finite floating-point (B, D) as float64 on the CPU."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        found = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{argument}: expected a floating-point tensor (B, D), got {found}")
    if value.dim() != 2 or not value.shape[1]:
        raise ValueError(f"{argument}: expected (B, D), got {tuple(value.shape)}")
    rows = value.detach().to("cpu", torch.float64)
    if not bool(rows.isfinite().all()):
        raise ValueError(f"{argument}: expected finite values, got some that are not; check the judge's weights")
    return rows
