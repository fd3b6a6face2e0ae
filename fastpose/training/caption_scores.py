"""How generated poses are judged (system 004, section 4.4): beside real ones, beside unseen ones, by their captions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastpose import _checks
from fastpose.metrics import diversity, retrieval, text_separation, two_sample
from fastpose.metrics.report import Result
from fastpose.training import caption_data, caption_matcher
from fastpose.training.randomness import preserved

if TYPE_CHECKING:
    from fastpose.data.captions import CaptionedPoses

Generate = Callable[[Tensor | None, int, int], tuple[Tensor, Tensor]]
"""From vectors of captions (n, T), None without captions, their number n and a seed to n poses: points (n, 17, 2) in
map pixels and presence (n, 17), as ``caption_data.decode`` gives them. At most ``BLOCK`` poses are wanted at a time."""

Vectors = Callable[["CaptionedPoses"], Tensor]
"""From a data set to the vectors (M, T) of its captions as the networks see them."""

BLOCK = 256
_ACCURACY, _OFF = "1-NN accuracy", "1-NN off 50 %"
_OTHERS = 1  # added to the seed of the poses that are made for the validation set's captions


@dataclass(frozen=True)
class CaptionScoreConfig:
    """How generated poses are judged.

    Attributes:
        samples: training poses that are compared with as many generated ones, evenly spread over the set, and the most
            validation poses that are looked at; 0 takes all, one generated pose per training pose, as the thesis.
            Distances to the nearest pose shrink as it grows: compare those of one number alone.
        threshold: a joint is absent where its map stays below this, in 0..1.
        retrieval: measure the distances of the validation poses to the nearest real and generated ones.
        r_precision: captions from which a pose's own is to be found, 2 or more, by a matcher that is trained on real
            pairs; 0: not measured. Unconditional models have none.
        seed: of noise, captions, pairs and the matcher.
        monitor: name of the result that tells the best weights; empty for "1-NN off 50 %".
    """

    samples: int = 2000
    threshold: float = caption_data.THRESHOLD
    retrieval: bool = True
    r_precision: int = 10
    seed: int = 0
    monitor: str = ""

    def __post_init__(self) -> None:
        if self.samples < 0 or self.samples == 1:
            raise ValueError(f"test.samples: expected 2 or more poses, or 0 for all, got {self.samples}")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"test.threshold: expected a height from 0 to 1, got {self.threshold}")
        if self.r_precision < 0 or self.r_precision == 1:
            raise ValueError(f"test.r_precision: expected 2 or more captions, or 0 for none, got {self.r_precision}")
        _checks.not_negative("test.seed", self.seed)
        if self.monitor:
            _checks.choice("test.monitor", self.monitor, tuple(_modes(self)))


def monitor(config: CaptionScoreConfig) -> tuple[str, str]:
    """Return the name of the result that tells the best weights, and whether that is its largest ("max") or "min"."""
    name = config.monitor or _OFF
    return name, _modes(config)[name]


def _modes(config: CaptionScoreConfig) -> dict[str, str]:
    """Return the results of which less, or more, is always better."""
    modes = {_OFF: "min"}
    if config.retrieval:
        modes["NN distance generated"] = "min"
    if config.r_precision:
        modes[_r_precision(config)] = "max"
    return modes


def _r_precision(config: CaptionScoreConfig) -> str:
    return f"R-precision@1 of {config.r_precision}"


def score(
    generate: Generate,
    train: CaptionedPoses,
    validation: CaptionedPoses | None,
    config: CaptionScoreConfig,
    vectors: Vectors | None = None,
) -> list[Result]:
    """Return the scores of generated poses, as :class:`CaptionScorer` does, which keeps what does not change."""
    return CaptionScorer(train, validation, config, vectors).evaluate(generate).results


class Evaluation(NamedTuple):
    """What one evaluation found.

    Attributes:
        results: the scores.
        retrieval: the distances behind the second measure, None where they were not measured.
    """

    results: list[Result]
    retrieval: retrieval.Retrieval | None


class _Poses(NamedTuple):
    """Real poses of a data set that are compared: as points, and which caption each has, -1 without captions."""

    points: Tensor  # (N, 17, 2), at the arg-max of their maps
    present: Tensor  # (N, 17)
    rows: np.ndarray  # (N,), indices of the data set's poses
    caption: np.ndarray  # (N,), indices of the data set's captions


class CaptionScorer:
    """The measures of system 004 between a generator and the data it was trained on, and those it has not seen.

    Real poses are taken from un-augmented maps as generated ones are, joints at their arg-max. What depends on real
    poses alone (their nearest neighbours, the matcher) is found once.

    Args:
        train, validation: the data sets; without ``validation`` retrieval and R-precision are left out.
        config: the section ``test``.
        vectors: gives the captions' vectors of a data set; None for an unconditional model. With captions, each
            generated pose has a caption of a real one, drawn by the seed, and poses without caption are left out.

    Raises:
        ValueError: fewer than two poses.
    """

    def __init__(
        self,
        train: CaptionedPoses,
        validation: CaptionedPoses | None,
        config: CaptionScoreConfig,
        vectors: Vectors | None = None,
    ) -> None:
        self.train, self.validation, self.config, self.vectors = train, validation, config, vectors
        self._real = _chosen(train, config, captioned=vectors is not None)
        if len(self._real.rows) < 2:
            raise ValueError(f"test: expected 2 or more training poses to compare with, got {len(self._real.rows)}")
        unseen = None if validation is None else _chosen(validation, config, captioned=vectors is not None)
        self._unseen = unseen if unseen is not None and len(unseen.rows) else None
        self._known: tuple[Tensor, Tensor] | None = None
        self._matcher: caption_matcher.Matcher | None = None

    # ---- measures --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def evaluate(self, generate: Generate) -> Evaluation:
        """Return the scores of what ``generate`` makes; the random state of the process stays as it is."""
        with preserved():
            fake = self._generated(generate, self.train, self._real, self.config.seed)
            results, placed = self._two_sets(fake)
            distances = self._retrieval(placed)
            results += distances.results() if distances is not None else []
            return Evaluation(results + self._caption_results(generate), distances)

    def _generated(self, generate: Generate, source: CaptionedPoses, like: _Poses, seed: int) -> tuple[Tensor, Tensor]:
        """Return one generated pose for each real one, with its caption where there are captions."""
        table = None if self.vectors is None else self.vectors(source)
        parts = []
        for block, start in enumerate(range(0, len(like.rows), BLOCK)):
            rows = torch.from_numpy(like.caption[start : start + BLOCK])  # (n,)
            vectors = None if table is None else table[rows.to(table.device)]
            own = int(np.random.SeedSequence((seed, block)).generate_state(1)[0])
            parts.append(_checked(generate(vectors, len(rows), own), len(rows)))
        points, present = zip(*parts, strict=True)
        return torch.cat(points), torch.cat(present)

    def _two_sets(self, fake: tuple[Tensor, Tensor]) -> tuple[list[Result], tuple[Tensor, Tensor]]:
        """Return the scores of generated beside real poses, and the positions of both."""
        generated = two_sample.positions(*fake)
        real = two_sample.positions(self._real.points, self._real.present).to(generated.device)
        if self._known is None or self._known[0].device != real.device:
            self._known = two_sample.nearest(real, real, exclude_self=True)
        found = two_sample.neighbours(real, generated, known=self._known)
        results = two_sample.accuracy(found) + diversity.diversity(real, generated, found, seed=self.config.seed)
        return results, (real, generated)

    def _retrieval(self, placed: tuple[Tensor, Tensor]) -> retrieval.Retrieval | None:
        """Return the distances of unseen poses to the real and generated ones."""
        if not self.config.retrieval or self._unseen is None:
            return None
        unseen = two_sample.positions(self._unseen.points, self._unseen.present).to(placed[0].device)
        return retrieval.retrieval_distances(unseen, *placed)

    def _caption_results(self, generate: Generate) -> list[Result]:
        """Return how often a generated pose fits its own caption best, and a real one; of the validation captions."""
        source, unseen = self.validation, self._unseen
        if not self.config.r_precision or source is None or unseen is None or self.vectors is None:
            return []
        choices = retrieval.candidates(
            source.image_ids[unseen.rows],
            unseen.caption,
            source.caption_image,
            number=self.config.r_precision,
            seed=self.config.seed,
        )
        fake = self._generated(generate, source, unseen, self.config.seed + _OTHERS)
        table = self.vectors(source).float().cpu()
        own, real = (
            self._precision(points, present, table, choices)
            for points, present in (fake, (unseen.points, unseen.present))
        )
        sentence = f"{own.protocol}; by a matcher of {len(self._real.rows):,} real training pairs, validation captions"
        return [replace(own, protocol=sentence, details={**own.details, "real": real.value})]

    def _precision(self, points: Tensor, present: Tensor, table: Tensor, choices: Tensor) -> Result:
        """Return how often poses fit the first of their choices among the captions of a table best."""
        fits = caption_matcher.similarity(self.matcher(), points.float().cpu(), present.cpu(), table)
        (found,) = retrieval.r_precision(fits, choices)
        return found

    def matcher(self) -> caption_matcher.Matcher:
        """Return the judge of poses and captions, trained on the real training pairs when it is first asked for."""
        if self._matcher is None:
            if self.vectors is None:
                raise ValueError("vectors: expected those of the captions, as a matcher needs them, got None")
            real = self._real
            first, count = (torch.from_numpy(own[real.rows]) for own in (self.train.first, self.train.count))
            self._matcher = caption_matcher.fit(
                real.points,
                real.present,
                self.vectors(self.train).float().cpu(),
                (first, count),
                torch.from_numpy(self.train.image_ids[real.rows]),
                flip=self.train.skeleton.flip_permutation,
                steps=caption_matcher.STEPS,
                seed=self.config.seed,
            )
        return self._matcher

    # ---- the text encoder and pictures ---------------------------------------------------------------------------

    def separation(self) -> text_separation.Separation | None:
        """Return what tells captions of one training photograph from those of two; None without captions."""
        if self.vectors is None:
            return None
        table = self.vectors(self.train)
        return text_separation.separation(table, self.train.caption_image, seed=self.config.seed)


def pictures(evaluation: Evaluation, separation: text_separation.Separation | None = None) -> dict[str, np.ndarray]:
    """Return histograms (RGB uint8) of what was measured: "nearest_distances" (figure 21), "caption_distances" (10)."""
    from fastpose.visual.histograms import histogram

    drawn: dict[str, np.ndarray] = {}
    if evaluation.retrieval is not None:
        drawn["nearest_distances"] = histogram(
            {"to real poses": evaluation.retrieval.real, "to generated poses": evaluation.retrieval.generated},
            title="Validation poses: distance to the nearest pose",
            xlabel="sum of joint distances, pixels",
        )
    if separation is not None:
        drawn["caption_distances"] = histogram(
            {"of one photograph": separation.same, "of two photographs": separation.different},
            title="Vectors of two captions",
            xlabel="Euclidean distance",
        )
    return drawn


def _chosen(source: CaptionedPoses, config: CaptionScoreConfig, *, captioned: bool) -> _Poses:
    """Return the poses of a data set that are compared, evenly spread, and a caption of each."""
    index = np.flatnonzero(source.count > 0) if captioned else np.arange(len(source))
    if config.samples and len(index) > config.samples:
        index = index[np.linspace(0, len(index) - 1, config.samples).round().astype(np.int64)]
    caption = np.full(len(index), -1)
    if captioned:
        caption = source.first[index] + np.random.default_rng(config.seed).integers(source.count[index])
    return _Poses(*_seen(source, index, config.threshold), index, caption)


def _seen(source: CaptionedPoses, index: np.ndarray, threshold: float) -> tuple[Tensor, Tensor]:
    """Return real poses as their maps show them."""
    parts = [
        caption_data.decode(
            caption_data.maps(torch.from_numpy(source.keypoints[part]), torch.from_numpy(source.visibility[part])),
            threshold,
        )
        for part in np.array_split(index, max(1, -(-len(index) // BLOCK)))
    ]
    points, present = zip(*parts, strict=True)
    return torch.cat(points), torch.cat(present)


def _checked(poses: tuple[Tensor, Tensor], count: int) -> tuple[Tensor, Tensor]:
    """Return generated poses; ``ValueError`` unless there are as many as were asked for."""
    points, present = poses
    if len(points) != count or present.shape != points.shape[:2]:
        raise ValueError(
            f"generate: expected {count} poses as points (n, K, 2) and presence (n, K), got {tuple(points.shape)} and "
            f"{tuple(present.shape)}"
        )
    return points, present
