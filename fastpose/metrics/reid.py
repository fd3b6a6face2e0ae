"""Person re-identification as Market-1501 measures it: mean average precision and the matching curve (CMC)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastpose._checks import choice
from fastpose.metrics._arrays import ArrayLike
from fastpose.metrics.report import Result

JUNK = -1
"""Identity of gallery images that are left out: bad detections. Distractors (identity 0) stay, as wrong answers."""

PRECISIONS = {
    "trapezoid": "area under precision over recall by trapezoids, as Market-1501's own evaluation",
    "hits": "mean of the precisions at the right images",
}
_BLOCK = 256  # queries whose similarities are held at a time


@dataclass(frozen=True)
class Labels:
    """Who is on each of N images, and which camera took it: integers (N,)."""

    identities: ArrayLike
    cameras: ArrayLike


def evaluate(
    query: ArrayLike,
    gallery: ArrayLike,
    query_labels: Labels,
    gallery_labels: Labels,
    *,
    similarity: str = "cosine",
    precision: str = "trapezoid",
    ranks: Sequence[int] = (1, 5, 10),
) -> list[Result]:
    """Return mAP, then CMC at each rank, in percent.

    For each query the gallery is ordered by similarity. Images of the query's identity by the query's own camera are
    junk, as are those of identity -1: they are taken out of the order. A query without another image of its identity
    is left out. A wrong image as similar as a right one comes before it, so that equal features gain nothing.

    Args:
        query, gallery: features (Q, D) and (G, D); compared in float64 in blocks, never as a whole (Q, G) matrix.
        query_labels, gallery_labels: their identities and cameras.
        similarity: "cosine", or "euclidean" (the nearest first).
        precision: average precision by "trapezoid" or by "hits".
        ranks: CMC at these; the share of queries with a right image among so many first ones.

    Returns:
        results named "mAP", "rank-1", ...; ``count`` is the number of queries that count, ``details`` hold those left
        out.

    Raises:
        TypeError, ValueError: features or labels of another shape, features that are not finite or too large to be
            compared, no query that counts.
    """
    choice("similarity", similarity, ("cosine", "euclidean"))
    choice("precision", precision, tuple(PRECISIONS))
    if not ranks or min(ranks) < 1:
        raise ValueError(f"ranks: expected numbers from 1 on, got {tuple(ranks)}")
    features = _features("query", query), _features("gallery", gallery)
    if features[0].shape[1] != features[1].shape[1]:
        raise ValueError(f"gallery: expected (G, {features[0].shape[1]}) as the query has, got {_shape(features[1])}")
    who = _labels("query", query_labels, len(features[0])), _labels("gallery", gallery_labels, len(features[1]))
    hits = [row for block in _blocks(*features, similarity) for row in _positions(*block, *who)]
    counted = [row for row in hits if len(row)]
    if not counted:
        raise ValueError("query: expected a query with an image of its identity by another camera in the gallery")
    return _results(counted, len(hits) - len(counted), similarity, precision, ranks)


def _features(argument: str, value: ArrayLike) -> Tensor:
    features = value.detach().cpu().double() if isinstance(value, Tensor) else torch.from_numpy(_numbers(value))
    if features.dim() != 2 or 0 in features.shape:
        raise ValueError(f"{argument}: expected features (N, D), got {_shape(features)}")
    if not bool(torch.isfinite(features).all()):
        raise ValueError(f"{argument}: expected finite features, found NaN or infinite ones")
    return features


def _numbers(value: ArrayLike) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"features: expected numbers in a tensor or array, got {array.dtype}")
    return array.astype(np.float64)


def _shape(value: Tensor) -> tuple[int, ...]:
    return tuple(value.shape)


def _labels(argument: str, labels: Labels, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return identities and cameras, int64 (N,)."""
    arrays = []
    for name, value in (("identities", labels.identities), ("cameras", labels.cameras)):
        array = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value)
        if array.dtype.kind not in "iu" or array.shape != (count,):
            raise ValueError(
                f"{argument}_labels.{name}: expected {count} integers, one per image, got {array.dtype} {array.shape}"
            )
        arrays.append(array.astype(np.int64))
    return arrays[0], arrays[1]


def _blocks(query: Tensor, gallery: Tensor, similarity: str) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first query, similarities (B, G)) block by block; greater is more similar."""
    if similarity == "cosine":
        query, gallery = _unit(query), _unit(gallery)
        shift = torch.zeros(())
    else:  # |q - g|^2 = |q|^2 - 2 q g + |g|^2, and |q|^2 does not change the order of a query's gallery
        mean = gallery.mean(0)  # far from the origin the difference of the two terms would lose its digits
        query, gallery = query - mean, gallery - mean
        shift = gallery.square().sum(1) / 2  # (G,)
    for start in range(0, len(query), _BLOCK):
        scores = query[start : start + _BLOCK] @ gallery.T - shift
        if not bool(torch.isfinite(scores).all()):
            raise ValueError(
                "query, gallery: expected features whose squares are finite, found larger ones; scale both"
            )
        yield start, scores.numpy()


def _unit(features: Tensor) -> Tensor:
    """Return features of length 1; nothing overflows on the way, and zeros stay zeros."""
    largest = features.abs().amax(1, keepdim=True).clamp(min=torch.finfo(features.dtype).tiny)
    return torch.nn.functional.normalize(features / largest, dim=1)


def _positions(
    start: int, scores: np.ndarray, query: tuple[np.ndarray, np.ndarray], gallery: tuple[np.ndarray, np.ndarray]
) -> list[np.ndarray]:
    """Return, for each query of a block, the 0-based places of its right images in the order without junk."""
    found = []
    for row, identity, camera in zip(scores, query[0][start:], query[1][start:], strict=False):
        same = gallery[0] == identity
        right = row[same & (gallery[1] != camera)] if identity != JUNK else row[:0]
        wrong = np.sort(row[~same & (gallery[0] != JUNK)])  # ascending
        ordered = np.sort(right)[::-1]
        ahead = len(wrong) - np.searchsorted(wrong, ordered, side="left")  # wrong images as similar or more so
        found.append(ahead + np.arange(len(ordered)))
    return found


def _average_precision(places: np.ndarray, precision: str) -> float:
    """Return the average precision of one query from the 0-based places of its right images, in ascending order."""
    number = np.arange(1, len(places) + 1)
    at_hit = number / (places + 1)
    if precision == "hits":
        return float(at_hit.mean())
    before = np.where(places > 0, (number - 1) / np.maximum(places, 1), 1.0)  # precision one place earlier
    return float(((at_hit + before) / 2).mean())


def _results(
    counted: list[np.ndarray], left_out: int, similarity: str, precision: str, ranks: Sequence[int]
) -> list[Result]:
    rule = f"Market-1501 protocol, {similarity} similarity, same identity and camera and identity -1 removed"
    details = {"queries_left_out": left_out}
    mean = float(np.mean([_average_precision(places, precision) for places in counted]))
    first = np.array([places[0] for places in counted])
    results = [
        Result("mAP", f"{rule}; average precision: {PRECISIONS[precision]}", 100 * mean, len(counted), details=details)
    ]
    for rank in ranks:
        share = 100 * float((first < rank).mean())
        sentence = f"{rule}; queries with a right image among the first {rank}"
        results.append(Result(f"rank-{rank}", sentence, share, len(counted), details=details))
    return results
