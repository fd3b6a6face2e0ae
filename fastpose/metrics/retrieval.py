"""Retrieval of poses: how near real and generated sets come to unseen poses, and which caption a pose fits best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastpose.metrics import two_sample
from fastpose.metrics._arrays import ArrayLike
from fastpose.metrics.report import Result
from fastpose.metrics.two_sample import DISTANCE

Similarity = Callable[[Tensor, Tensor], Tensor]
"""From indices of n poses (n,) and of R captions for each (n, R), int64, to similarities (n, R), greater is nearer."""


# ----------------------------------------------------------------------------------------------------------- distances


@dataclass(frozen=True)
class Retrieval:
    """How far the nearest real and the nearest generated pose of each unseen pose are (system 004, 4.4.2).

    Attributes:
        real, generated: float32 (V,), d_r and d_g in pixels of the map, summed over the joints.
        among: how many real and how many generated poses were looked at; the more, the nearer.
    """

    real: Tensor
    generated: Tensor
    among: int

    def results(self) -> list[Result]:
        """Return "NN distance real", "NN distance generated" and "NN distance gap": by how many percent d_g is longer.

        A good generator has a gap near 0; below 0 its poses are nearer to the unseen ones than real poses are.
        """
        means = self.real.double().mean().item(), self.generated.double().mean().item()
        gap = 100 * (means[1] / means[0] - 1) if means[0] > 0 else 0.0 if means[1] == 0 else float("inf")
        count, details = len(self.real), {"real": means[0], "generated": means[1]}
        rule = f"mean over unseen poses of the distance to the nearest of {self.among:,} {{}} poses, pixels; {DISTANCE}"
        ratio = (
            f"distance of unseen poses to the nearest generated over that to the nearest real pose - 1, %; {DISTANCE}"
        )
        return [
            Result("NN distance real", rule.format("real training"), means[0], count),
            Result("NN distance generated", rule.format("generated"), means[1], count),
            Result("NN distance gap", ratio, gap, count, details=details),
        ]


def retrieval_distances(unseen: ArrayLike, real: ArrayLike, generated: ArrayLike) -> Retrieval:
    """Return how far the nearest real and generated poses of unseen ones are.

    Args:
        unseen: poses (V, K, 2) that nobody was trained on, as ``two_sample.positions`` gives them.
        real, generated: as many poses of each, (N, K, 2): in a larger set something nearer is found.

    Raises:
        ValueError: shapes that do not fit, sets of different sizes, or no pose.
    """
    sets = {"unseen": two_sample.positions(unseen), "real": two_sample.positions(real)}
    sets["generated"] = two_sample.positions(generated)
    empty = [name for name, poses in sets.items() if not len(poses)]
    if empty:
        raise ValueError(f"{empty[0]}: expected at least one pose, got none")
    if len(sets["real"]) != len(sets["generated"]):
        raise ValueError(
            f"generated: expected {len(sets['real'])} poses, as many as real ones, got {len(sets['generated'])}"
        )
    found = [two_sample.nearest(sets["unseen"], sets[name])[0].cpu() for name in ("real", "generated")]
    return Retrieval(found[0], found[1], len(sets["real"]))


# --------------------------------------------------------------------------------------------------------- R-precision


def candidates(
    images: ArrayLike,
    true: ArrayLike,
    caption_images: ArrayLike,
    *,
    texts: Sequence[str] | None = None,
    number: int = 10,
    seed: int = 0,
) -> Tensor:
    """Return for each pose the captions to choose from, int64 (N, R): its own first, then R - 1 of other photographs.

    The others are drawn at random without repetition, the same for one ``seed``. All captions of a photograph count as
    those of each pose on it.

    Args:
        images: (N,) photograph of each pose.
        true: (N,) index of the pose's own caption.
        caption_images: (M,) photograph of each caption.
        texts: M captions; with them, no other is drawn in the words of one of the own photograph, upper and lower case
            being one: whoever takes it for the pose's is not mistaken.
        number: R, 2 or more.
        seed: of the draw.

    Raises:
        ValueError: shapes or indices that do not fit, or fewer than R - 1 captions that may be drawn.
    """
    own, first, shown = (
        _integers(*pair) for pair in (("images", images), ("true", true), ("caption_images", caption_images))
    )
    if number < 2:
        raise ValueError(f"number: expected 2 or more captions to choose from, got {number}")
    if own.shape != first.shape:
        raise ValueError(f"true: expected {len(own)} indices, one per pose, got {len(first)}")
    if len(first) and (first.min() < 0 or first.max() >= len(shown)):
        raise ValueError(f"true: expected indices of the {len(shown)} captions, got {first.min()}..{first.max()}")
    words = _words(texts, len(shown))
    rng = np.random.default_rng(seed)
    rows = [_others(image, shown, words, number - 1, rng) for image in own]
    return torch.from_numpy(np.column_stack([first, np.array(rows, np.int64).reshape(len(own), number - 1)]))


def _integers(argument: str, value: ArrayLike) -> np.ndarray:
    array = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ValueError(f"{argument}: expected whole numbers in one row, got {array.dtype} {array.shape}")
    return array.astype(np.int64)


def _words(texts: Sequence[str] | None, count: int) -> np.ndarray:
    """Return a number (M,) for each caption, one and the same for the same words; without texts all differ."""
    if texts is None:
        return np.arange(count)
    if len(texts) != count:
        raise ValueError(f"texts: expected {count} captions as caption_images has, got {len(texts)}")
    known: dict[str, int] = {}
    return np.array([known.setdefault(text.lower(), len(known)) for text in texts], np.int64)


def _others(image: int, shown: np.ndarray, words: np.ndarray, wanted: int, rng: np.random.Generator) -> np.ndarray:
    """Return so many different captions of other photographs, none in the words of one of this photograph."""
    same = shown == image
    left = np.flatnonzero(~np.isin(words, words[same]))
    if len(left) < wanted:
        raise ValueError(
            f"number: expected at most {len(left) + 1}, as so many captions are of other photographs, in other "
            f"words, and one is the pose's own, got {wanted + 1}"
        )
    drawn = rng.choice(len(shown), wanted + same.sum(), replace=False)  # enough even with all of its own, words apart
    kept = drawn[np.isin(drawn, left)][:wanted]
    return kept if len(kept) == wanted else rng.choice(left, wanted, replace=False)


def r_precision(
    similarity: Similarity, choices: ArrayLike, *, ranks: Sequence[int] = (1,), block: int = 256
) -> list[Result]:
    """Return "R-precision@k of R" for each rank k, in percent: poses whose caption is among the k most similar ones.

    A wrong caption as similar as the right one comes before it, so that equal similarities gain nothing. The details
    hold what chance would give.

    Args:
        similarity: see :data:`Similarity`; what measures it is to be named where the result is reported.
        choices: captions to choose from (N, R), the right one first, as :func:`candidates` gives them.
        ranks: k, from 1 to R.
        block: poses whose similarities are asked for at a time.

    Raises:
        ValueError: shapes that do not fit, no pose, a rank out of range, or a similarity that is NaN.
    """
    rows = torch.as_tensor(choices)
    if rows.dim() != 2 or not len(rows) or rows.shape[1] < 2 or rows.is_floating_point():
        raise ValueError(
            f"choices: expected whole numbers (N, R), R of 2 or more, got {rows.dtype} {tuple(rows.shape)}"
        )
    number = rows.shape[1]
    if not ranks or min(ranks) < 1 or max(ranks) > number:
        raise ValueError(f"ranks: expected numbers from 1 to {number}, got {tuple(ranks)}")
    parts = zip(torch.arange(len(rows)).split(block), rows.split(block), strict=True)
    ahead = torch.cat([_ahead(similarity(poses, captions), captions) for poses, captions in parts])  # (N,)
    rule = f"poses whose own caption is among the {{}} most similar of {number}, the others of other photographs, %"
    return [
        Result(
            f"R-precision@{rank} of {number}",
            rule.format(rank),
            100 * (ahead < rank).double().mean().item(),
            len(rows),
            details={"chance": 100 * rank / number},
        )
        for rank in ranks
    ]


def _ahead(found: Tensor, captions: Tensor) -> Tensor:
    """Return how many wrong captions are at least as similar as the right one, (n,)."""
    if found.shape != captions.shape:
        raise ValueError(f"similarity: expected {tuple(captions.shape)} numbers, got {tuple(found.shape)}")
    if bool(found.isnan().any()):
        raise ValueError("similarity: expected numbers, got NaN; check the poses and the captions' vectors")
    return (found[:, 1:] >= found[:, :1]).sum(1).cpu()
