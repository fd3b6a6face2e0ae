"""How different generated poses are from each other, beside real ones: what a collapsed generator does not show.

Every measure gives the real set's own value in its details, as ``real``: that is what a perfect generator has.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fastpose.metrics import two_sample
from fastpose.metrics._arrays import ArrayLike
from fastpose.metrics.report import Result
from fastpose.metrics.two_sample import DISTANCE, Neighbours

DUPLICATE = 17.0
"""Distance in pixels below which two poses are one and the same: a pixel for each of COCO's 17 joints."""

PAIRS = 100_000
"""Pairs over which the mean distance is taken where there are more."""

_BLOCK = 4096  # pairs at a time


def diversity(
    real: ArrayLike, fake: ArrayLike, found: Neighbours | None = None, *, duplicate: float = DUPLICATE, seed: int = 0
) -> list[Result]:
    """Return "diversity distance", "diversity coverage" and "diversity duplicates" of generated poses.

    - distance: how far two generated poses are apart in the mean, over all pairs or ``PAIRS`` drawn at random.
    - coverage: of the real poses the share in percent that are nearest to at least one generated pose. The value beside
      it is the share that are nearest to another real pose. Collapsed generators meet few of them; the coverage of
      Naeem et al. (ICML 2020) asks for a neighbourhood of each real pose instead.
    - duplicates: share of generated poses in percent with another one nearer than ``duplicate``.

    Args:
        real, fake: poses (N, K, 2) as ``two_sample.positions`` gives them, N of 2 or more.
        found: their ``two_sample.neighbours`` where they are known.
        duplicate: pixels, summed over the joints.
        seed: of the pairs that are drawn.

    Raises:
        ValueError: shapes that do not fit, sets of different sizes, or a negative ``duplicate``.
    """
    if not duplicate >= 0:
        raise ValueError(f"duplicate: expected pixels, 0 or more, got {duplicate}")
    found = found or two_sample.neighbours(real, fake)
    count = len(found.real[0])
    apart = mean_distance(fake, seed=seed), mean_distance(real, seed=seed)
    met = _distinct(found.fake_to_real[1]), _distinct(found.real[1])
    twins = _near(found.fake[0], duplicate), _near(found.real[0], duplicate)
    sentences = {
        "distance": (apart, f"mean distance between two generated poses, pixels; {DISTANCE}"),
        "coverage": (
            met,
            f"real poses that are nearest to some generated pose, %; beside it: to another real one; {DISTANCE}",
        ),
        "duplicates": (twins, f"generated poses with another one nearer than {duplicate:g} pixels, %; {DISTANCE}"),
    }
    return [
        Result(f"diversity {name}", sentence, own, count, details={"real": other})
        for name, ((own, other), sentence) in sentences.items()
    ]


def mean_distance(poses: ArrayLike, *, pairs: int = PAIRS, seed: int = 0) -> float:
    """Return the mean distance between two different poses of a set (N, K, 2), in pixels summed over the joints.

    Over all pairs, or so many drawn at random where there are more; ``ValueError`` below two poses or one pair.
    """
    places = two_sample.positions(poses)
    if len(places) < 2 or pairs < 1:
        raise ValueError(f"poses: expected 2 or more and at least one pair, got {len(places)} poses, {pairs} pairs")
    first, second = (index.to(places.device) for index in _pairs(len(places), pairs, seed))
    parts = zip(first.split(_BLOCK), second.split(_BLOCK), strict=True)
    sums = [torch.linalg.vector_norm(places[i] - places[j], dim=-1).double().sum() for i, j in parts]
    return (torch.stack(sums).sum() / len(first)).item()


def _pairs(count: int, most: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return the indices of all pairs of different poses, or of ``most`` drawn ones."""
    if count * (count - 1) // 2 <= most:
        first, second = torch.triu_indices(count, count, 1)
        return first, second
    rng = np.random.default_rng(seed)
    one = rng.integers(count, size=most)
    other = (one + rng.integers(1, count, size=most)) % count  # any pose but that one
    return torch.from_numpy(one), torch.from_numpy(other)


def _distinct(index: Tensor) -> float:
    return 100 * len(index.unique()) / len(index)


def _near(distance: Tensor, limit: float) -> float:
    return 100 * (distance < limit).double().mean().item()
