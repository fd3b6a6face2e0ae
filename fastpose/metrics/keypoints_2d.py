"""PCK, PCKh, curves and AUC of 2D key points, each as a named protocol.

Key points are (N, K, 2) as (x, y), prediction and target in the same pixels (use the original image's). Tensors and
arrays are accepted and never changed; arithmetic is float64. A joint without a label is masked, never scored as -1;
a prediction that is NaN or infinite counts as wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastpose.metrics import protocols
from fastpose.metrics._arrays import ArrayLike, as_double, as_lengths, as_mask, as_points, same_shape
from fastpose.metrics.heatmaps import heatmap_accuracy as heatmap_accuracy
from fastpose.metrics.oks import coco_oks_ap as coco_oks_ap
from fastpose.metrics.oks import oks as oks
from fastpose.metrics.protocols import Protocol
from fastpose.metrics.report import Result
from fastpose.skeletons import Skeleton

CURVE_STEPS = 50  # thresholds 0, max/50, ..., max


@dataclass(frozen=True)
class Counts:
    """Whole-number tallies of a PCK; those of two sets of persons add up to the tally of their union, exactly.

    Attributes:
        correct: (T, K) int64, joints within each threshold; row 0 is the protocol's own threshold.
        counted: (K,) int64, joints that were scored.
        persons: (2,) int64, persons seen, and those left out: no label at all, or none for the reference.
    """

    correct: Tensor
    counted: Tensor
    persons: Tensor

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.correct + other.correct, self.counted + other.counted, self.persons + other.persons)


@dataclass(frozen=True)
class Curve:
    """PCK over thresholds.

    Attributes:
        name: e.g. ``"PCK"``.
        protocol: definition, with the threshold grid.
        thresholds: (T,) float64, rising from 0.
        values: (T,) float64, percent at each threshold (``<=``).
        per_joint: percent at each threshold by joint name, (T,) each.
        count: joints that were scored.
    """

    name: str
    protocol: str
    thresholds: Tensor
    values: Tensor
    per_joint: dict[str, Tensor]
    count: int


def normalised_distances(prediction: ArrayLike, target: ArrayLike, reference_length: ArrayLike) -> Tensor:
    """Return |prediction - target| / reference per joint, (N, K) float64; infinite for a prediction that is not."""
    predicted, truth = as_points("prediction", prediction), as_points("target", target)
    same_shape(predicted, truth)
    lengths = as_lengths("reference_length", reference_length, len(truth))
    distance = torch.linalg.vector_norm(predicted - truth, dim=-1)  # (N, K)
    return torch.nan_to_num(distance / lengths[:, None], nan=torch.inf)


def head_size(head_box: ArrayLike) -> Tensor:
    """Return MPII's head size, 0.6 x the diagonal of ``head_box`` (N, 2, 2) = [[x1, y1], [x2, y2]]: (N,) float64."""
    corners = as_double("head_box", head_box)
    if corners.dim() != 3 or tuple(corners.shape[1:]) != (2, 2):
        raise ValueError(f"head_box: expected (N, 2, 2) as [[x1, y1], [x2, y2]], got {tuple(corners.shape)}")
    return 0.6 * torch.linalg.vector_norm(corners[:, 1] - corners[:, 0], dim=-1)


def reference_lengths(protocol: Protocol, target: ArrayLike, visibility: ArrayLike | None = None) -> Tensor:
    """Return each person's reference length under ``protocol``, (N,) float64; NaN where its joints are not labelled."""
    truth = as_points("target", target, len(protocol.joints))
    labelled = as_mask("visibility", visibility, tuple(truth.shape[:2]))
    if protocol.reference == "box":
        return _box_sides(truth, labelled)
    if protocol.reference == "torso":
        return _torsos(truth, labelled, protocol.diagonals)
    raise ValueError(f"{protocol.name}: this protocol's reference length is given by the caller, not by the key points")


def _torsos(truth: Tensor, labelled: Tensor, diagonals: Sequence[tuple[int, int]]) -> Tensor:
    """Return the first diagonal whose two joints are labelled, (N,); NaN where there is none."""
    lengths = torch.full((len(truth),), torch.nan, dtype=torch.float64)
    for a, b in reversed(diagonals):
        diagonal = torch.linalg.vector_norm(truth[:, a] - truth[:, b], dim=-1)
        lengths = torch.where(labelled[:, a] & labelled[:, b], diagonal, lengths)
    return lengths


def _box_sides(truth: Tensor, labelled: Tensor) -> Tensor:
    """Return the longer side of the tight box round the labelled joints, (N,); NaN for fewer than two joints."""
    low = truth.masked_fill(~labelled[..., None], torch.inf).amin(dim=1)  # (N, 2)
    high = truth.masked_fill(~labelled[..., None], -torch.inf).amax(dim=1)
    return torch.where(labelled.sum(1) > 1, (high - low).amax(dim=-1), torch.nan)


def count(
    protocol: Protocol,
    prediction: ArrayLike,
    target: ArrayLike,
    visibility: ArrayLike | None = None,
    reference_length: ArrayLike | None = None,
    thresholds: ArrayLike = (),
) -> Counts:
    """Tally the joints of a batch.

    Args:
        protocol: the definition.
        prediction, target: (N, K, 2) key points in the same pixels.
        visibility: (N, K), > 0 where the joint is labelled; None counts every joint.
        reference_length: (N,) lengths, needed where the protocol's reference is ``"given"``.
        thresholds: (T,) further fractions, tallied with ``<=`` in rows 1..T.

    Raises:
        ValueError: shapes differ, a labelled target is not finite, or a reference length is 0 or not finite.
    """
    truth = as_points("target", target, len(protocol.joints))
    labelled = as_mask("visibility", visibility, tuple(truth.shape[:2]))
    used = labelled & torch.isin(torch.arange(truth.shape[1]), torch.tensor(protocol.scored))
    _check_targets(protocol, truth, used)
    lengths, skipped = _lengths(protocol, truth, labelled, reference_length)
    used &= ~skipped[:, None]
    distance = normalised_distances(prediction, truth, lengths)  # (N, K)
    own = distance <= protocol.threshold if protocol.inclusive else distance < protocol.threshold
    grid = as_double("thresholds", thresholds).reshape(-1, 1, 1)
    within = torch.cat([own[None], distance[None] <= grid])  # (1 + T, N, K)
    persons = torch.tensor([len(truth), int(skipped.sum())])
    return Counts((within & used).sum(1), used.sum(0), persons)


def _lengths(protocol: Protocol, truth: Tensor, labelled: Tensor, given: ArrayLike | None) -> tuple[Tensor, Tensor]:
    """Return usable lengths (N,) and a mask (N,) of the persons to leave out."""
    if protocol.reference == "given":
        if given is None:
            raise ValueError(f"{protocol.name}: reference_length is missing; give one length per person")
        lengths = as_lengths("reference_length", given, len(truth))
        skipped = ~labelled.any(1)
    else:
        lengths = reference_lengths(protocol, truth, labelled)
        skipped = lengths.isnan()  # targets are finite here: a joint that the length needs is not labelled
    wrong = ~skipped & ~(lengths.isfinite() & (lengths > 0))
    if wrong.any():
        first = int(wrong.nonzero()[0])
        raise ValueError(
            f"{protocol.name}: {int(wrong.sum())} of {len(truth)} persons have no positive reference length "
            f"(first: index {first}, length {lengths[first].item():g}); correct or drop them"
        )
    return torch.where(skipped, 1.0, lengths), skipped


def _check_targets(protocol: Protocol, truth: Tensor, used: Tensor) -> None:
    """Raise when a labelled joint has no finite position: a wrong annotation, not a wrong prediction."""
    wrong = used & ~truth.isfinite().all(-1)
    if wrong.any():
        person, joint = (int(index) for index in wrong.nonzero()[0])
        raise ValueError(
            f"target: {int(wrong.sum())} labelled joints are not finite (first: person {person}, "
            f"{protocol.joints[joint]}); set their visibility to 0 or correct them"
        )


def result(protocol: Protocol, counts: Counts) -> Result:
    """Return the protocol's number from a tally; ``ValueError`` when nobody has a labelled joint."""
    total = int(counts.counted.sum())
    if total == 0:
        raise ValueError(f"{protocol.name}: no labelled joint among {int(counts.persons[0])} persons")
    joints = _percent(counts.correct[0], counts.counted)
    rows = {name: _mean([joints[k] for k in indices if k in joints]) for name, indices in protocol.rows}
    unlabelled = [protocol.joints[k] for k in protocol.scored if k not in joints]
    return Result(
        name=protocol.name,
        protocol=protocol.sentence,
        value=_overall(protocol, counts.correct[0], counts.counted),
        count=total,
        per_joint={protocol.joints[k]: value for k, value in joints.items()},
        details={
            "rows": {name: value for name, value in rows.items() if value is not None},
            "persons": int(counts.persons[0]),
            "persons_left_out": int(counts.persons[1]),
            "joints_without_labels": unlabelled,
        },
    )


def _percent(correct: Tensor, counted: Tensor) -> dict[int, float]:
    """Return the percentage of each joint that was counted at all, by index."""
    pairs = enumerate(zip(correct.tolist(), counted.tolist(), strict=True))
    return {k: 100.0 * right / number for k, (right, number) in pairs if number}


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _overall(protocol: Protocol, correct: Tensor, counted: Tensor) -> float:
    """Return the percentage over all joints as the protocol averages it."""
    if protocol.average == "pooled":
        return 100.0 * int(correct.sum()) / int(counted.sum())
    joints = _percent(correct, counted)
    return sum(joints.values()) / len(joints)


def grid(maximum: float, steps: int = CURVE_STEPS) -> Tensor:
    """Return the curve's thresholds 0, maximum/steps, ..., maximum, (steps + 1,) float64."""
    if not maximum > 0 or steps < 1:
        raise ValueError(f"grid: expected maximum > 0 and steps >= 1, got {maximum!r} and {steps!r}")
    return torch.linspace(0, maximum, steps + 1, dtype=torch.float64)


def curve(protocol: Protocol, counts: Counts, thresholds: Tensor) -> Curve:
    """Return PCK over ``thresholds`` from a tally whose rows 1..T were taken at them."""
    if len(counts.correct) != len(thresholds) + 1:
        raise ValueError(f"thresholds: expected {len(counts.correct) - 1}, as were tallied, got {len(thresholds)}")
    total = result(protocol, counts).count  # the same refusal of an empty tally
    values = [_overall(protocol, row, counts.counted) for row in counts.correct[1:]]
    rows = [_percent(row, counts.counted) for row in counts.correct[1:]]
    joints = {protocol.joints[k]: torch.tensor([row[k] for row in rows]) for k in rows[0]}
    name = protocol.name.split("@")[0]
    low, high, steps = float(thresholds[0]), float(thresholds[-1]), len(thresholds) - 1
    sentence = f"{protocol.sentence}; {name} (<=) at {steps + 1} thresholds from {low:g} to {high:g}"
    return Curve(name, sentence, thresholds, torch.tensor(values, dtype=torch.float64), joints, total)


def auc(of: Curve) -> Result:
    """Return the area under a PCK curve in percent of its range: trapezoids between thresholds.

    A perfect prediction gives exactly 100 because the curve is taken with ``<=`` and starts at threshold 0.
    """
    if len(of.thresholds) < 2:
        raise ValueError(f"auc: expected a curve of at least 2 thresholds, got {len(of.thresholds)}")
    value = _area(of.thresholds, of.values)
    return Result(
        name=f"{of.name} AUC",
        protocol=f"area under {of.protocol}, trapezoids, in percent of the range",
        value=value,
        count=of.count,
        per_joint={joint: _area(of.thresholds, values) for joint, values in of.per_joint.items()},
    )


def _area(thresholds: Tensor, values: Tensor) -> float:
    """Return the mean height of the curve, kept within its least and greatest value so that rounding adds nothing."""
    mean = torch.trapezoid(values.double(), thresholds) / (thresholds[-1] - thresholds[0])
    return float(mean.clamp(float(values.min()), float(values.max())))


def pck(
    prediction: ArrayLike,
    target: ArrayLike,
    visibility: ArrayLike | None,
    reference_length: ArrayLike,
    threshold: float = 0.2,
    inclusive: bool = True,
    joints: Sequence[str] | None = None,
) -> Result:
    """PCK against lengths that the caller gives.

    Args:
        prediction, target: (N, K, 2) key points in the same pixels.
        visibility: (N, K), > 0 where the joint is labelled; None counts all.
        reference_length: (N,) or one number, in those pixels.
        threshold: fraction of the reference length.
        inclusive: ``<=`` if true, else ``<``.
        joints: K joint names for the per-joint values.

    Raises:
        ValueError: shapes differ, a reference length is not positive, or no joint is labelled.
    """
    number = as_points("target", target).shape[1]
    names = tuple(joints) if joints is not None else tuple(f"joint {k}" for k in range(number))
    sign = "<=" if inclusive else "<"
    sentence = f"PCK@{threshold:g}, {sign} {threshold:g} x the given length, labelled joints, mean over joint x person"
    scored = tuple(range(len(names)))
    protocol = Protocol(f"PCK@{threshold:g}", sentence, names, scored, threshold, inclusive, "given", (), (), "pooled")
    return result(protocol, count(protocol, prediction, target, visibility, reference_length))


def lsp_pck(
    prediction: ArrayLike,
    target: ArrayLike,
    visibility: ArrayLike | None = None,
    threshold: float = 0.2,
    torso: str = "lsho-rhip",
    skeleton: str = "lsp",
) -> Result:
    """PCK on LSP, person-centric, over its 14 joints; see :func:`fastpose.metrics.protocols.lsp`.

    Without ``visibility`` all 14 joints count, as published. With it, unlabelled joints are masked and persons whose
    torso is not labelled are left out (``details["persons_left_out"]``), and the protocol says so: LSP-extended has
    many of both.
    """
    protocol = protocols.lsp(threshold, torso, skeleton, every_joint=visibility is None)
    return result(protocol, count(protocol, prediction, target, visibility))


def mpii_pckh(
    prediction: ArrayLike,
    target: ArrayLike,
    visibility: ArrayLike | None,
    *,
    head_box: ArrayLike | None = None,
    head_size: ArrayLike | None = None,
    threshold: float = 0.5,
) -> Result:
    """PCKh on MPII; see :func:`fastpose.metrics.protocols.mpii`.

    Args:
        prediction, target: (N, 16, 2) in MPII's joint order.
        visibility: (N, 16), > 0 where the joint is labelled (``1 - jnt_missing``).
        head_box: (N, 2, 2) corners [[x1, y1], [x2, y2]]; or
        head_size: (N,) the normaliser itself, 0.6 x the box's diagonal.
        threshold: fraction of the head size.
    """
    protocol = protocols.mpii(threshold)
    return result(protocol, count(protocol, prediction, target, visibility, _one_size(head_box, head_size)))


def _one_size(head_box: ArrayLike | None, size: ArrayLike | None) -> ArrayLike:
    if (head_box is None) == (size is None):
        raise ValueError("PCKh: give either head_box (N, 2, 2) or head_size (N,), not both and not neither")
    return head_size(head_box) if head_box is not None else size  # type: ignore[return-value]


def person_pck(
    prediction: ArrayLike,
    target: ArrayLike,
    visibility: ArrayLike,
    skeleton: Skeleton,
    threshold: float = 0.2,
    size: str = "box",
) -> Result:
    """PCK against the person's own size; see :func:`fastpose.metrics.protocols.person`.

    Persons without such a size (a single labelled joint; no labelled torso) are left out and counted in
    ``details["persons_left_out"]``.
    """
    protocol = protocols.person(skeleton, threshold, size)
    return result(protocol, count(protocol, prediction, target, visibility))


def pck_curve(
    protocol: Protocol,
    prediction: ArrayLike,
    target: ArrayLike,
    visibility: ArrayLike | None = None,
    reference_length: ArrayLike | None = None,
    maximum: float | None = None,
    steps: int = CURVE_STEPS,
) -> Curve:
    """PCK over thresholds from 0 to ``maximum`` (default: the protocol's own threshold) in equal steps."""
    thresholds = grid(protocol.threshold if maximum is None else maximum, steps)
    counts = count(protocol, prediction, target, visibility, reference_length, thresholds)
    return curve(protocol, counts, thresholds)
