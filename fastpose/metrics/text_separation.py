"""Does a text encoder tell captions of one photograph from those of two: the test of system 004 (section 4.2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastpose.metrics._arrays import ArrayLike, as_double
from fastpose.metrics.report import Result

PAIRS = 10_000
"""Draws, as in the thesis."""

_BLOCK = 1024


@dataclass(frozen=True)
class Separation:
    """Euclidean distances between vectors of captions, drawn at random.

    Attributes:
        same: float64 (P,), between two captions of one photograph.
        different: float64 (P,), between captions of two photographs.
    """

    same: Tensor
    different: Tensor

    def result(self) -> Result:
        """Return "caption separation": how often a distance of ``same`` is below one of ``different``, in percent.

        It is the area under the ROC curve, over all pairs of distances, ties by halves: 50 tells nothing, 100 all. The
        details hold ``drawn``, the share over the draws alone, and the two means.
        """
        ordered = self.different.sort().values
        below = torch.searchsorted(ordered, self.same)
        ties = torch.searchsorted(ordered, self.same, right=True) - below
        area = 1 - (below + ties / 2).mean().item() / len(ordered)
        drawn = ((self.same < self.different).double() + (self.same == self.different) / 2).mean().item()
        details = {"drawn": 100 * drawn, "same": self.same.mean().item(), "different": self.different.mean().item()}
        sentence = (
            f"captions of one photograph nearer than captions of two, over {len(self.same):,} random pairs of each, "
            "Euclidean distance of their vectors, area under the ROC curve, %"
        )
        return Result("caption separation", sentence, 100 * area, len(self.same), details=details)


def separation(vectors: ArrayLike, images: ArrayLike, *, pairs: int = PAIRS, seed: int = 0) -> Separation:
    """Return distances between captions of one photograph and of two, drawn as the thesis draws them.

    A photograph with two or more captions is drawn, and two different ones of its captions; then two different
    photographs, and a caption of each. The same ``seed`` draws the same.

    Args:
        vectors: (M, T), one for each caption.
        images: int (M,), the photograph of each caption.
        pairs: draws of either kind.
        seed: of the draws.

    Raises:
        TypeError, ValueError: shapes that do not fit, values that are not finite, fewer than two photographs, or none
            with two captions.
    """
    values, owners = as_double("vectors", vectors), _owners(images)
    if values.dim() != 2 or len(values) != len(owners):
        raise ValueError(f"vectors: expected ({len(owners)}, T), one per caption, got {tuple(values.shape)}")
    if not bool(values.isfinite().all()):
        raise ValueError("vectors: expected finite values, found NaN or infinite ones")
    if pairs < 1:
        raise ValueError(f"pairs: expected 1 or more, got {pairs}")
    order = np.argsort(owners, kind="stable")
    _, first, count = np.unique(owners[order], return_index=True, return_counts=True)
    if not separable(owners):
        raise ValueError(
            f"images: expected two or more photographs, one of them with two captions, got {len(count)} photographs of "
            f"at most {count.max(initial=0)}"
        )
    rng = np.random.default_rng(seed)
    same = _of_one(rng, first[count > 1], count[count > 1], pairs)
    different = _of_two(rng, first, count, pairs)
    return Separation(*(_distances(values, torch.from_numpy(order[chosen])) for chosen in (same, different)))


def separable(images: ArrayLike) -> bool:
    """Return whether captions of these photographs, int (M,), can be drawn: of two, and two of one."""
    _, count = np.unique(_owners(images), return_counts=True)
    return len(count) > 1 and bool(count.max() > 1)


def _owners(images: ArrayLike) -> np.ndarray:
    owners = np.asarray(images.detach().cpu() if isinstance(images, Tensor) else images)
    if owners.ndim != 1 or owners.dtype.kind not in "iu":
        raise ValueError(f"images: expected whole numbers, one per caption, got {owners.dtype} {owners.shape}")
    return owners


def _of_one(rng: np.random.Generator, first: np.ndarray, count: np.ndarray, pairs: int) -> np.ndarray:
    """Return two different captions of one photograph, (2, P)."""
    image = rng.integers(len(first), size=pairs)
    one = rng.integers(count[image])
    other = (one + rng.integers(1, count[image])) % count[image]
    return first[image] + np.stack([one, other])


def _of_two(rng: np.random.Generator, first: np.ndarray, count: np.ndarray, pairs: int) -> np.ndarray:
    """Return captions of two different photographs, (2, P)."""
    one = rng.integers(len(first), size=pairs)
    image = np.stack([one, (one + rng.integers(1, len(first), size=pairs)) % len(first)])
    return first[image] + rng.integers(count[image])


def _distances(vectors: Tensor, pairs: Tensor) -> Tensor:
    """Return the distances (P,) of pairs (2, P)."""
    blocks = pairs.split(_BLOCK, dim=1)
    return torch.cat([torch.linalg.vector_norm(vectors[one] - vectors[other], dim=-1) for one, other in blocks])
