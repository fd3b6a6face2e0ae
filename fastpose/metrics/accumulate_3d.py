"""Errors of joints in space, streaming: batches in, MPJPE or 3DPCK out, with a row for every action and limb."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fastpose import _checks, skeletons
from fastpose.metrics import _alignment, _ranks
from fastpose.metrics._alignment import RELEASED_BONE_SUM
from fastpose.metrics._arrays import ArrayLike
from fastpose.metrics._tally import Tally
from fastpose.metrics.report import Result
from fastpose.skeletons import MPII, Skeleton

MPJPE_NAMES = {
    "none": "MPJPE",
    "root_depth": "MPJPE #1 (root depth)",
    "root": "MPJPE (root)",
    "similarity": "MPJPE #2 (similarity)",
    "rigid": "MPJPE #2 (rigid)",
    "zhou": "MPJPE (Zhou)",
}
"""Name of the protocol by its alignment."""
BONE_SUM_NAME = "MPJPE (bone sum)"
"""Name of the alignment "zhou" where it is not all of that protocol."""

AVERAGES = ("samples", "actions")

LIMBS = {"U.Arms": "elbow", "L.Arms": "wrist", "U.Legs": "knee", "L.Legs": "ankle"}
"""Rows of system 002's table 2 and the joint, left and right, at the far end of each; the paper only names them."""

_UNIT = 2.0**-20  # mm; errors of 4.4 million kilometres together fit
_CHUNK = 4096  # persons whose errors are spread over actions or thresholds at a time

_SENTENCES = {
    "none": "as given in the camera frame",
    "root_depth": "after the pelvis' depth alone is aligned (system 002, protocol 1 as printed)",
    "root": "after pelvis is put on pelvis",
    "similarity": "after the best rotation, shift and scale of each pose, no reflection (protocol 2, usual)",
    "rigid": "after the best rotation and shift of each pose, no scale, no reflection (protocol 2, as printed)",
    "zhou": "after 14 bones are scaled to {length:g} mm together, pelvis is put on pelvis and the thorax put between "
    "pelvis and upper neck (as system 002's backbone aligns)",
}
_GROUPS = {
    "head": ("head_top",),
    "neck": ("upper_neck",),
    **{joint: (f"r_{joint}", f"l_{joint}") for joint in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")},
}


def joint_errors(
    prediction: ArrayLike,
    target: ArrayLike,
    visibility: ArrayLike | None = None,
    *,
    align: str = "root",
    skeleton: Skeleton = MPII,
    bone_sum: float = RELEASED_BONE_SUM,
) -> Tensor:
    """Return the distance of each joint from its target after an alignment, (N, K) float64 in the targets' unit.

    NaN where a joint has no label, and for persons without the joints that the alignment needs: the pelvis, or for
    "rigid" and "similarity" any joint at all.

    Args:
        prediction, target: (N, K, 3) joints in one frame; the prediction in any unit for "similarity" and "zhou".
        visibility: (N, K), > 0 where the joint is labelled; None counts all.
        align: see :func:`mpjpe`.
        skeleton: the joints; "zhou" is defined for MPII's.
        bone_sum: length of the 14 bones together for "zhou".

    Raises:
        ValueError: shapes differ, a labelled joint of a counted person is not finite, or a bone sum is no length.
    """
    _checks.choice("align", align, _alignment.ALIGNMENTS)
    _alignment.positive("bone_sum", bone_sum)
    if align == "zhou" and skeleton != MPII:
        raise ValueError(f"align: 'zhou' is defined for the 16 joints of mpii, got {skeleton.name!r}; convert first")
    predicted, truth, used = _alignment.pair(prediction, target, visibility, len(skeleton))
    root = skeleton.index("pelvis")
    if align in ("root_depth", "root", "zhou"):
        used = used & used[:, root : root + 1]
    _alignment.finite("target", truth, used)
    _alignment.finite("prediction", predicted, used.any(1, keepdim=True) if align == "zhou" else used)
    kept = used.any(1)
    errors = torch.full(used.shape, torch.nan, dtype=torch.float64)
    moved = _alignment.align(align, predicted[kept], truth[kept], used[kept], root=root, length=bone_sum)
    errors[kept] = torch.linalg.vector_norm(moved - truth[kept], dim=-1)
    return torch.where(used, errors, torch.nan)


class MPJPEAccumulator:
    """Mean per joint position error under one protocol over any number of batches and ranks.

    Args:
        align: the protocol's alignment, see :func:`fastpose.metrics.keypoints_3d.mpjpe`.
        actions: every action that may come; empty keeps no rows of actions.
        average: whether the value is the mean over all "samples" or that of the "actions"; both are in the details.
        skeleton: joints of the poses.
        bone_sum: length of the 14 bones together for "zhou".

    Sums are whole multiples of 2^-20 mm, so that batches, merges and ranks in any order give the same digits.
    """

    def __init__(
        self,
        align: str = "root",
        *,
        actions: Sequence[str] = (),
        average: str = "samples",
        skeleton: str | Skeleton = MPII,
        bone_sum: float = RELEASED_BONE_SUM,
    ) -> None:
        _checks.choice("align", align, _alignment.ALIGNMENTS)
        _checks.choice("average", average, AVERAGES)
        _alignment.positive("bone_sum", bone_sum)
        self.align, self.average, self.bone_sum = align, average, float(bone_sum)
        self.actions = _distinct(actions)
        self.skeleton = skeletons.get(skeleton) if isinstance(skeleton, str) else skeleton
        if average == "actions" and not self.actions:
            raise ValueError("average: 'actions' needs the actions' names, got none; name them, or average 'samples'")
        self.reset()

    @property
    def name(self) -> str:
        """Name of the protocol; with another bone sum than the released one "zhou" is but a "MPJPE (bone sum)"."""
        other = self.align == "zhou" and self.bone_sum != RELEASED_BONE_SUM
        return BONE_SUM_NAME if other else MPJPE_NAMES[self.align]

    @property
    def protocol(self) -> str:
        """The sentence that defines the number."""
        how = _SENTENCES[self.align].format(length=self.bone_sum)
        mean = "mean over joint x person" if self.average == "samples" else "unweighted mean of the actions"
        return f"mean joint position error in mm {how}, labelled joints of {self.skeleton.name}, {mean}"

    def reset(self) -> None:
        """Forget all batches."""
        self._tally = self._empty()
        self._persons = torch.zeros(2, dtype=torch.int64)  # seen, left out

    def _empty(self) -> Tally:
        return Tally(max(1, len(self.actions)) * len(self.skeleton), _UNIT)

    def update(
        self,
        prediction: ArrayLike,
        target: ArrayLike,
        visibility: ArrayLike | None = None,
        actions: Sequence[str] | None = None,
    ) -> None:
        """Add a batch; arguments as :func:`joint_errors`, and one action per person. A failed batch adds nothing.

        Raises ``ValueError`` as there, and for errors of 4.4 million kilometres together under one action and joint.
        """
        errors = joint_errors(
            prediction, target, visibility, align=self.align, skeleton=self.skeleton, bone_sum=self.bone_sum
        )  # (N, K)
        rows, added = _rows(self.actions, actions, len(errors)), self._empty()
        for some in torch.arange(len(errors)).split(_CHUNK):
            columns = torch.full((len(some), max(1, len(self.actions)), errors.shape[1]), torch.nan).double()
            columns[torch.arange(len(some)), rows[some]] = errors[some]
            added.add(columns.flatten(1))  # (n, A * K)
        self._tally.merge(added)
        self._persons = self._persons + torch.tensor([len(errors), int(errors.isnan().all(1).sum())])

    def state(self) -> dict[str, Tensor]:
        """Return the tallies, int64 on the CPU: ``sums`` and ``counts`` (A * K,), ``persons`` (2,)."""
        tally = self._tally
        return {"sums": tally.sums.clone(), "counts": tally.counts.clone(), "persons": self._persons.clone()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Replace the tallies by those of :meth:`state`; ``ValueError`` when they do not fit."""
        fitting = _fitting(state, self.state(), self.name)
        self._tally.sums, self._tally.counts, self._persons = fitting

    def merge(self, other: MPJPEAccumulator) -> None:
        """Add the batches of another accumulator of the same protocol, actions and joints."""
        if (other.protocol, other.actions) != (self.protocol, self.actions):
            raise ValueError(
                f"merge: expected protocol {self.protocol!r} over actions {self.actions}, "
                f"got {other.protocol!r} over {other.actions}"
            )
        self._tally.merge(other._tally)
        self._persons = self._persons + other._persons

    def all_reduce(self, device: torch.device | str | None = None) -> None:
        """Sum the tallies over all ranks; ``device`` is where the collective runs, as for ``PCKAccumulator``."""
        self._tally.all_reduce(device)
        (self._persons,) = _ranks.summed([self._persons], device)

    def result(self) -> Result:
        """Return the number so far; ``ValueError`` when no labelled joint was seen.

        ``details["rows"]`` holds the limbs of table 2 and the actions; ``details["averages"]`` both means.
        """
        counts = self._tally.counts.view(-1, len(self.skeleton))  # (A, K)
        totals = self._tally.totals().view_as(counts)  # (A, K) in mm
        if not int(counts.sum()):
            raise ValueError(f"{self.name}: no labelled joint among {int(self._persons[0])} persons")
        joints = _means(totals.sum(0), counts.sum(0), self.skeleton.joints)
        limbs = {row: _sides(self.skeleton, joint) for row, joint in LIMBS.items()}
        actions = _means(totals.sum(1), counts.sum(1), self.actions) if self.actions else {}
        averages = {"over samples": float(totals.sum() / counts.sum())}
        if actions:
            averages["over actions"] = sum(actions.values()) / len(actions)
        return Result(
            name=self.name,
            protocol=self.protocol,
            value=averages[f"over {self.average}"],
            count=int(counts.sum()),
            per_joint=joints,
            details={
                "rows": {**_grouped(totals.sum(0), counts.sum(0), limbs), **actions},
                "averages": averages,
                "actions": actions,
                "persons": int(self._persons[0]),
                "persons_left_out": int(self._persons[1]),
            },
        )


class PCK3DAccumulator:
    """Joints within a distance of their targets, as MPI-INF-3DHP's script counts them, over batches and ranks.

    Args:
        threshold: in mm; 150 as published.
        maximum, step: of the thresholds of the AUC: 0, step, ..., maximum mm.
        actions: every activity that may come; empty keeps no rows of activities.
        joints: names of the MPII joints that count; None takes the official 14, without pelvis and thorax.

    Poses are compared pelvis on pelvis. The script asks for ``<``; here a joint exactly on a threshold is within it,
    so that a perfect prediction has 100 for both numbers.
    """

    def __init__(
        self,
        threshold: float = 150.0,
        *,
        maximum: float = 150.0,
        step: float = 5.0,
        actions: Sequence[str] = (),
        joints: Sequence[str] | None = None,
    ) -> None:
        if not (0 < threshold < math.inf and 0 < step <= maximum < math.inf):
            raise ValueError(
                "3DPCK: expected finite mm, threshold > 0 and maximum >= step > 0, "
                f"got {threshold}, {maximum} and {step}"
            )
        if not math.isclose(round(maximum / step) * step, maximum, rel_tol=1e-9):
            raise ValueError(
                f"3DPCK AUC: expected a maximum that is a multiple of the step of {step:g} mm, got {maximum:g}"
            )
        names = [name for group in _GROUPS.values() for name in group] if joints is None else joints
        self.joints = tuple(sorted(MPII.index(name) for name in names))
        self.threshold, self.actions = float(threshold), _distinct(actions)
        self.thresholds = torch.arange(0, round(maximum / step) + 1, dtype=torch.float64) * step  # (T,)
        self.reset()

    @property
    def protocol(self) -> str:
        """The sentence that defines the number."""
        return (
            f"3DPCK, <= {self.threshold:g} mm after pelvis is put on pelvis, labelled joints out of {len(self.joints)} "
            "(head top, neck and limbs are MPI-INF-3DHP's 14), mean over joint x person"
        )

    def reset(self) -> None:
        """Forget all batches."""
        rows, joints = max(1, len(self.actions)), len(MPII)
        self._correct = torch.zeros(rows, 1 + len(self.thresholds), joints, dtype=torch.int64)
        self._counted = torch.zeros(rows, joints, dtype=torch.int64)
        self._persons = torch.zeros(2, dtype=torch.int64)  # seen, left out

    def update(
        self,
        prediction: ArrayLike,
        target: ArrayLike,
        visibility: ArrayLike | None = None,
        actions: Sequence[str] | None = None,
    ) -> None:
        """Add a batch of (N, 16, 3) poses in mm; a prediction that is not finite is wrong. A failed one adds nothing.

        Persons whose pelvis is not labelled are left out, and counted in ``details["persons_left_out"]``.
        """
        predicted, truth, used = _alignment.pair(prediction, target, visibility, len(MPII))
        rows = _rows(self.actions, actions, len(truth))
        left_out = ~used[:, _alignment.PELVIS]
        used = used & ~left_out[:, None] & torch.isin(torch.arange(len(MPII)), torch.tensor(self.joints))
        _alignment.finite("target", truth, used)
        moved = _alignment.align("root", predicted, truth, used)
        distance = torch.linalg.vector_norm(moved - truth, dim=-1).nan_to_num(nan=torch.inf)  # (N, K)
        limits = torch.cat((torch.tensor([self.threshold], dtype=torch.float64), self.thresholds))
        for some in torch.arange(len(truth)).split(_CHUNK):
            within = (distance[some, None] <= limits[:, None]) & used[some, None]  # (n, 1 + T, K)
            self._correct = self._correct.index_add(0, rows[some], within.long())
        self._counted = self._counted.index_add(0, rows, used.long())
        self._persons = self._persons + torch.tensor([len(truth), int(left_out.sum())])

    def state(self) -> dict[str, Tensor]:
        """Return the tallies, int64: ``correct`` (A, 1 + T, K), ``counted`` (A, K), ``persons`` (2,)."""
        return {
            "correct": self._correct.clone(),
            "counted": self._counted.clone(),
            "persons": self._persons.clone(),
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Replace the tallies by those of :meth:`state`; ``ValueError`` when they do not fit."""
        self._correct, self._counted, self._persons = _fitting(state, self.state(), "3DPCK")

    def merge(self, other: PCK3DAccumulator) -> None:
        """Add the batches of another accumulator of the same thresholds, joints and activities."""
        mine, its = ((each.threshold, each.thresholds.tolist(), each.joints, each.actions) for each in (self, other))
        if mine != its:
            raise ValueError(f"merge: expected thresholds, joints and actions {mine}, got {its}")
        self._correct, self._counted = self._correct + other._correct, self._counted + other._counted
        self._persons = self._persons + other._persons

    def all_reduce(self, device: torch.device | str | None = None) -> None:
        """Sum the tallies over all ranks; ``device`` is where the collective runs, as for ``PCKAccumulator``."""
        tallies = _ranks.summed([self._correct, self._counted, self._persons], device)
        self._correct, self._counted, self._persons = tallies

    def result(self) -> Result:
        """Return 3DPCK so far in percent; ``ValueError`` when no labelled joint was seen."""
        return self._result(f"3DPCK@{self.threshold:g}mm", self.protocol, self._correct[:, 0].double())

    def auc(self) -> Result:
        """Return the mean of 3DPCK over the thresholds so far in percent; ``ValueError`` as ``result``."""
        last, number = float(self.thresholds[-1]), len(self.thresholds)
        sentence = f"mean of 3DPCK (<=) at {number} thresholds from 0 to {last:g} mm; {self.protocol}"
        return self._result("3DPCK AUC", sentence, self._correct[:, 1:].double().mean(1))

    def _result(self, name: str, sentence: str, correct: Tensor) -> Result:
        """Return the percentages of correct (A, K) joints, in whole or in parts."""
        correct = 100.0 * correct
        counted = self._counted
        if not int(counted.sum()):
            raise ValueError(f"{name}: no labelled joint among {int(self._persons[0])} persons")
        groups = {row: [k for k in map(MPII.index, names) if k in self.joints] for row, names in _GROUPS.items()}
        actions = _means(correct.sum(1), counted.sum(1), self.actions) if self.actions else {}
        return Result(
            name=name,
            protocol=sentence,
            value=float(correct.sum() / counted.sum()),
            count=int(counted.sum()),
            per_joint=_means(correct.sum(0), counted.sum(0), MPII.joints),
            details={
                "rows": {**_grouped(correct.sum(0), counted.sum(0), groups), **actions},
                "actions": actions,
                "persons": int(self._persons[0]),
                "persons_left_out": int(self._persons[1]),
            },
        )


def _distinct(actions: Sequence[str]) -> tuple[str, ...]:
    """Return the names of actions once each, in their order; ``ValueError`` for one string instead of several."""
    if isinstance(actions, str):
        raise ValueError(f"actions: expected a list of names, got {actions!r}")
    return tuple(dict.fromkeys(actions))


def _rows(known: tuple[str, ...], actions: Sequence[str] | None, persons: int) -> Tensor:
    """Return the row of each person's action, (N,) int64; all in row 0 where no action is known."""
    if not known:
        return torch.zeros(persons, dtype=torch.int64)
    if actions is None or len(actions) != persons:
        found = "none" if actions is None else len(actions)
        raise ValueError(f"actions: expected {persons} names, one per person, got {found}")
    for action in actions:
        if action not in known:
            raise ValueError(_checks.unknown("action", action, known))
    return torch.tensor([known.index(action) for action in actions], dtype=torch.int64)


def _sides(skeleton: Skeleton, joint: str) -> list[int]:
    """Return the left and right index of a joint; none where the skeleton lacks it."""
    return [skeleton.index(name) for name in (f"l_{joint}", f"r_{joint}") if name in skeleton.joints]


def _means(sums: Tensor, counts: Tensor, names: Sequence[str]) -> dict[str, float]:
    """Return sum over count by name, without those that were never counted."""
    rows = zip(names, sums.tolist(), counts.tolist(), strict=True)
    return {name: total / number for name, total, number in rows if number}


def _grouped(sums: Tensor, counts: Tensor, groups: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Return the mean over each group of columns, without groups that were never counted."""
    columns = {name: torch.tensor(list(group), dtype=torch.int64) for name, group in groups.items()}
    totals = {name: (float(sums[group].sum()), int(counts[group].sum())) for name, group in columns.items()}
    return {name: total / number for name, (total, number) in totals.items() if number}


def _fitting(state: Mapping[str, Tensor], mine: Mapping[str, Tensor], name: str) -> list[Tensor]:
    """Return copies of a state's tensors in the order of ``mine``; ``ValueError`` where a shape differs."""
    for key, value in mine.items():
        if key not in state or state[key].shape != value.shape:
            found = tuple(state[key].shape) if key in state else "nothing"
            raise ValueError(f"state[{key!r}]: expected {tuple(value.shape)} for {name}, got {found}")
    return [state[key].to("cpu", torch.int64).clone() for key in mine]
