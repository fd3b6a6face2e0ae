"""How generated poses are judged (system 004, section 4.4): beside real ones, beside unseen ones, by their captions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
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
_OFF = "1-NN off 50 %"
_UNSEEN_SEED = 1  # added to the seed of the poses that are made for the validation set's captions


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
        monitor: name of the result that tells the best weights: "1-NN off 50 %" (and empty), "NN distance generated" or
            the R-precision. Of the first, errors of opposite sign cancel: look at "1-NN real" and "1-NN generated".
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


def monitor(config: CaptionScoreConfig, *, captioned: bool = True, seen: bool = True) -> tuple[str, str]:
    """Return the name of the result that tells the best weights, and whether that is its largest ("max") or "min".

    ``captioned`` says whether the model sees captions, ``seen`` whether there are validation poses; ``ValueError`` for
    a result that is not measured without.
    """
    name = config.monitor or _OFF
    modes = _modes(config, captioned, seen)
    if name not in modes:
        lacking = "captions, and model.conditional is no" if seen else "validation poses, and there are none"
        raise ValueError(f"test.monitor: {name!r} needs {lacking}; expected one of {', '.join(modes)}")
    return name, modes[name]


def _modes(config: CaptionScoreConfig, captioned: bool = True, seen: bool = True) -> dict[str, str]:
    """Return the results of which less, or more, is always better.

    Of "1-NN accuracy" and the diversity neither is: a perfect generator has 50 %, and what the real poses have.
    """
    modes = {_OFF: "min"}
    if config.retrieval and seen:
        modes["NN distance generated"] = "min"
    if config.r_precision and seen and captioned:
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


@dataclass(frozen=True, eq=False)
class _Poses:
    """Real poses of a data set that are compared.

    Attributes:
        source: the data set.
        rows: int64 (N,), which of its poses.
        caption: int64 (N,), which of its captions each has, -1 without captions.
        threshold: a joint is absent where its map stays below this.
    """

    source: CaptionedPoses
    rows: np.ndarray
    caption: np.ndarray
    threshold: float

    @cached_property
    def seen(self) -> tuple[Tensor, Tensor]:
        """Points (N, 17, 2) and presence (N, 17), as their maps show them; drawn when they are first asked for."""
        return _seen(self.source, self.rows, self.threshold)


class CaptionScorer:
    """The measures of system 004 between a generator and the data it was trained on, and those it has not seen.

    Real poses are taken from un-augmented maps as generated ones are, joints at their arg-max. What depends on real
    poses alone (their maps, their nearest neighbours, the matcher, what the captions' vectors tell) is found once, when
    it is first needed; making a scorer only chooses the poses and says what cannot be measured.

    Args:
        train, validation: the data sets; without ``validation`` retrieval and R-precision are left out.
        config: the section ``test``.
        vectors: gives the captions' vectors of a data set; None for an unconditional model. With captions, each
            generated pose has a caption of a real one, drawn by the seed, and poses without caption are left out.

    Raises:
        ValueError: fewer than two training poses, no validation pose that could be looked at, fewer captions than
            R-precision is to choose from, or a monitor that needs what is not there.
    """

    def __init__(
        self,
        train: CaptionedPoses,
        validation: CaptionedPoses | None,
        config: CaptionScoreConfig,
        vectors: Vectors | None = None,
    ) -> None:
        captioned = vectors is not None
        monitor(config, captioned=captioned, seen=validation is not None)
        self.train, self.config, self.vectors = train, config, vectors
        self._real = _chosen(train, config, captioned)
        if len(self._real.rows) < 2:
            raise ValueError(f"test: expected 2 or more training poses to compare with, got {len(self._real.rows)}")
        self._unseen = None if validation is None else _looked_at(validation, config, captioned)
        self._choices = _choices(self._unseen, config) if self._unseen and captioned and config.r_precision else None
        self._known: tuple[Tensor, Tensor] | None = None
        self._matcher: caption_matcher.Matcher | None = None
        self._separation: text_separation.Separation | None = None

    # ---- measures --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def evaluate(self, generate: Generate) -> Evaluation:
        """Return the scores of what ``generate`` makes; the random state of the process stays as it is."""
        with preserved():
            fake = self._generated(generate, self._real, self.config.seed)
            results, placed = self._two_sets(fake)
            distances = self._retrieval(placed)
            results += distances.results() if distances is not None else []
            return Evaluation(results + self._caption_results(generate), distances)

    def _generated(self, generate: Generate, like: _Poses, seed: int) -> tuple[Tensor, Tensor]:
        """Return one generated pose for each real one, with its caption where there are captions."""
        table = None if self.vectors is None else self.vectors(like.source)
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
        real = two_sample.positions(*self._real.seen).to(generated.device)
        if self._known is None or self._known[0].device != real.device:
            self._known = two_sample.nearest(real, real, exclude_self=True)
        found = two_sample.neighbours(real, generated, known=self._known)
        results = two_sample.accuracy(found) + diversity.diversity(real, generated, found, seed=self.config.seed)
        return results, (real, generated)

    def _retrieval(self, placed: tuple[Tensor, Tensor]) -> retrieval.Retrieval | None:
        """Return the distances of unseen poses to the real and generated ones."""
        if not self.config.retrieval or self._unseen is None:
            return None
        unseen = two_sample.positions(*self._unseen.seen).to(placed[0].device)
        return retrieval.retrieval_distances(unseen, *placed)

    def _caption_results(self, generate: Generate) -> list[Result]:
        """Return how often a pose fits its own validation caption best, and what the vectors of captions tell."""
        separation = self.separation()
        told = [] if separation is None else [separation.result()]
        if self._choices is None or self._unseen is None or self.vectors is None:
            return told
        fake = self._generated(generate, self._unseen, self.config.seed + _UNSEEN_SEED)
        table = self.vectors(self._unseen.source).float().cpu()
        own, real = (self._precision(*poses, table, self._choices) for poses in (fake, self._unseen.seen))
        sentence = (
            f"{own.protocol}; no other in the words of one of its own; by a matcher of {len(self._real.rows):,} real "
            "training pairs, validation captions"
        )
        return [replace(own, protocol=sentence, details={**own.details, "real": real.value}), *told]

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
                *real.seen,
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
        """Return how far captions of one training photograph and of two are apart, found once.

        None without captions, and where no photograph has two of them.
        """
        images = self.train.caption_image
        if self.vectors is None or not text_separation.separable(images):
            return None
        if self._separation is None:
            self._separation = text_separation.separation(self.vectors(self.train), images, seed=self.config.seed)
        return self._separation


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


def _chosen(source: CaptionedPoses, config: CaptionScoreConfig, captioned: bool) -> _Poses:
    """Return the poses of a data set that are compared, evenly spread, and a caption of each."""
    index = np.flatnonzero(source.count > 0) if captioned else np.arange(len(source))
    if config.samples and len(index) > config.samples:
        index = index[np.linspace(0, len(index) - 1, config.samples).round().astype(np.int64)]
    caption = np.full(len(index), -1)
    if captioned:
        caption = source.first[index] + np.random.default_rng(config.seed).integers(source.count[index])
    return _Poses(source, index, caption, config.threshold)


def _looked_at(validation: CaptionedPoses, config: CaptionScoreConfig, captioned: bool) -> _Poses | None:
    """Return the validation poses that are looked at, None where nothing is measured of them."""
    if not config.retrieval and not (config.r_precision and captioned):
        return None
    unseen = _chosen(validation, config, captioned)
    if not len(unseen.rows):
        raise ValueError(
            f"test.retrieval, test.r_precision: expected validation poses{' with captions' if captioned else ''}, "
            f"found none among {len(validation):,}; choose other ones, or pass test.retrieval=no test.r_precision=0"
        )
    return unseen


def _choices(unseen: _Poses, config: CaptionScoreConfig) -> Tensor:
    """Return the captions that each validation pose is to be told by, (V, R), its own first."""
    source = unseen.source
    try:
        return retrieval.candidates(
            source.image_ids[unseen.rows],
            unseen.caption,
            source.caption_image,
            texts=source.captions,
            number=config.r_precision,
            seed=config.seed,
        )
    except ValueError as error:
        raise ValueError(str(error).replace("number", "test.r_precision", 1)) from None


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
