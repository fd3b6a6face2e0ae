"""Which metrics belong to which set of system 002, and how millimetres are recovered before they are taken."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fastpose import _checks, ops
from fastpose.data.loading import create_loader
from fastpose.data.mixing import MixedDataset
from fastpose.data.person import Person
from fastpose.metrics import keypoints_2d, keypoints_3d, plausibility
from fastpose.metrics.accumulate_3d import AVERAGES
from fastpose.metrics.keypoints_3d import BONE_SUM_NAME, MPJPE_NAMES, PELVIS, RELEASED_BONE_SUM
from fastpose.metrics.report import Result
from fastpose.skeletons import MPII
from fastpose.training import pose3d_data, pose_scores
from fastpose.training.estimation import BACKENDS
from fastpose.training.pose3d_reference import Reference, reference

if TYPE_CHECKING:
    from fastpose.training.pose3d_config import Pose3dConfig
    from fastpose.training.pose3d_data import Pose3dDataConfig
    from fastpose.training.pose3d_estimation import Estimate3D, Pose3dEstimator

SCALES = ("bone_sum", "gt_root_camera")
DECODERS = ("quarter", "argmax", "dark", "zhou")

_ROOT_DEPTH, _ZHOU = MPJPE_NAMES["root_depth"], MPJPE_NAMES["zhou"]
_POSITIONS = ("MPJPE (root)", _ROOT_DEPTH, MPJPE_NAMES["similarity"], MPJPE_NAMES["rigid"])
_COUNTS = ("3DPCK@150mm", "3DPCK AUC")
PROTOCOLS = (*_POSITIONS, BONE_SUM_NAME, _ZHOU, *_COUNTS)
_PLAUSIBILITY = ("bone asymmetry", "hinge violations")
_PLAUSIBILITY_BY_POSES = ("bone-length deviation", "joint-limit violations")
_KEYPOINTS = "PCK@0.2 (torso)"
_OWN = {"mpi_inf_3dhp": (*_COUNTS, "MPJPE (root)")}  # every other set with 3D truth: the protocols of positions

_log = logging.getLogger("fastpose.training")


@dataclass(frozen=True)
class Pose3dScoreConfig:
    """How a network is tested.

    Attributes:
        flip: average heatmaps and depths with those of the mirrored image.
        decoder: "quarter" (a quarter pixel toward the higher neighbour), "argmax", "dark", or "zhou", the quarter with
            the exchanged axes of the backbone's released code. With "zhou" and without flip test "MPJPE (Zhou)" is
            measured, else "MPJPE (bone sum)".
        backend: of the heatmap operations.
        scale: how a crop becomes millimetres: its 14 bones are enlarged to one sum for everybody, "bone_sum" (as
            released), or it is put in front of the camera at the root's true depth, "gt_root_camera" (needs
            intrinsics).
        bone_sum: that sum in mm; 0 takes the mean of the training set, or 4296.99, Human3.6M's, where there is none.
        average: value of a result: mean over "samples" or over "actions"; both are in its details.
        protocols: results on 3D sets by name; empty for those of the set.
        monitor: name of the result that tells the best weights, with or without its set; empty for the usual one.
    """

    flip: bool = True
    decoder: str = "quarter"
    backend: str = "auto"
    scale: str = "bone_sum"
    bone_sum: float = 0.0
    average: str = "samples"
    protocols: tuple[str, ...] = ()
    monitor: str = ""

    def __post_init__(self) -> None:
        _checks.choice("test.decoder", self.decoder, DECODERS)
        _checks.choice("test.backend", self.backend, BACKENDS)
        _checks.choice("test.scale", self.scale, SCALES)
        _checks.choice("test.average", self.average, AVERAGES)
        for name in self.protocols:
            _checks.choice("test.protocols", name, PROTOCOLS)
        if _ZHOU in self.protocols and not self.released:
            raise ValueError(
                f"test.protocols: {_ZHOU!r} is the released code's number, and needs test.decoder=zhou and "
                f"test.flip=no; {BONE_SUM_NAME!r} goes with any"
            )
        if not 0 <= self.bone_sum < float("inf"):
            raise ValueError(f"test.bone_sum: expected mm, or 0 for the training set's mean, got {self.bone_sum}")

    @property
    def released(self) -> bool:
        """Whether joints are read as the backbone's released code reads them."""
        return self.decoder == "zhou" and not self.flip


def decoded(heatmaps: Tensor, config: Pose3dScoreConfig) -> tuple[Tensor, Tensor]:
    """Return the joints (B, K, 2) in pixels of heatmaps (B, K, S, S), as the section ``test`` says, and their scores.

    Those of "zhou" are `metrics.keypoints_3d.published_joints` without its half a cell: no alignment sees where a pose
    stands, and pixels have their centres at integers here.
    """
    if config.decoder != "zhou":
        return ops.decode_heatmaps(heatmaps, config.decoder, backend=config.backend)
    cells = keypoints_3d.published_joints(heatmaps, torch.zeros(heatmaps.shape[:2]))[..., :2]
    return (cells - 0.5).to(heatmaps), heatmaps.flatten(2).amax(-1)


# ------------------------------------------------------------------------------------------------- what tells the best


def monitor(config: Pose3dConfig) -> tuple[str, str]:
    """Return the name of the result that selects the best weights, and whether "min" or "max" is best.

    The 3D set's "MPJPE (root)", or its first protocol; key points in the stage "2d", where no depth is learnt, and
    where there are wild sets alone. ``test.monitor`` names another one. Raises ``ValueError`` for a result that the
    configuration does not give, with the nearest names, or that needs cameras which nobody in the validation set has.
    """
    names = _result_names(config)
    if not names:
        raise ValueError("data.validation, data.wild: expected something to evaluate on, got neither")
    chosen = config.test.monitor
    if not chosen:
        wanted = [name for name in names if "PCK@0.2" in name or "PCKh@" in name]
        chosen = wanted[-1] if config.stage.name == "2d" else names[0]
    if chosen not in names:
        chosen = next((name for name in names if name.endswith(f" {chosen}")), chosen)
    if chosen not in names:
        short = [name.split(" ", 2)[2] for name in names]
        raise ValueError(f"test.monitor: {_checks.unknown('result', chosen, dict.fromkeys((*short, *names)))}")
    if chosen.endswith(_ROOT_DEPTH) and not _cameras(config.data):
        raise ValueError(
            f"test.monitor: {chosen!r} needs cameras, and nobody in the validation set has one; "
            "name another, such as 'MPJPE (root)'"
        )
    return _with_mode(chosen)


def _with_mode(name: str) -> tuple[str, str]:
    return name, "max" if "PCK" in name else "min"


def _cameras(config: Pose3dDataConfig) -> bool:
    """Whether somebody of the validation set has a camera."""
    source = pose3d_data.laboratory(config, "validation")
    poses = [] if source is None else [person.pose3d for person in source.persons]
    return any(pose is not None and pose.intrinsics is not None for pose in poses)


def _result_names(config: Pose3dConfig) -> list[str]:
    """Return the names of results, the usual one first; "MPJPE #1 (root depth)" comes where there are cameras."""
    names: list[str] = []
    plausible: tuple[str, ...] = _PLAUSIBILITY
    if pose3d_data.trains_on_poses(config.data):
        plausible += _PLAUSIBILITY_BY_POSES
    for name, split in pose3d_data.evaluated_laboratory(config.data):
        own = sorted(_protocols(name, config.test), key=lambda row: row != "MPJPE (root)")
        names += [f"{name} {split} {row}" for row in (*own, _KEYPOINTS, *plausible)]
    for name, split in pose3d_data.evaluated_wild(config.data):
        names += [pose_scores.monitor(name, split), *(f"{name} {split} {row}" for row in plausible)]
    return names


def _protocols(name: str, config: Pose3dScoreConfig) -> tuple[str, ...]:
    """Return the protocols of a set with 3D truth."""
    return config.protocols or _OWN.get(name, (*_POSITIONS, _ZHOU if config.released else BONE_SUM_NAME))


# ------------------------------------------------------------------------------------------------------------- scores


def evaluate(estimator: Pose3dEstimator, config: Pose3dConfig) -> list[Result]:
    """Return the metrics of an estimator on all validation persons of a configuration; tested as the estimator is."""
    dataset = pose3d_data.validation_dataset(config.data, seed=0)
    loader = create_loader(dataset, config.run.batch_size, shuffle=False, workers=config.run.workers)
    return score(dataset, *estimator.run_loader(loader), estimator.test, config.data)


def score(
    dataset: Any,
    indices: np.ndarray,
    estimate: Estimate3D,
    config: Pose3dScoreConfig,
    data_config: Pose3dDataConfig,
) -> list[Result]:
    """Return the metrics that belong to each set, named with it: "h36m val MPJPE (root)".

    Human3.6M and mocap: MPJPE under five protocols by action and limb; MPI-INF-3DHP: 3DPCK, its AUC and MPJPE; these
    also PCK@0.2 of the torso. Wild sets: the PCK that is theirs. All: the plausibility of the poses, by the training
    set's where that is known, with that of the truth as a row. Persons without a 3D pose have no part in the first, and
    those without a camera none in "MPJPE #1 (root depth)": the result counts them, and one that nobody is left for is
    named in the log.

    Args:
        dataset: what was evaluated: a ``MixedDataset`` of several sets, a ``KeypointDataset``, or a source itself.
        indices: (N,) positions in it; a person that occurs twice counts once.
        estimate: joints of those persons.
        config, data_config: the sections ``test`` and ``data``.

    Raises:
        ValueError: an estimated joint, labelled or not, that is not finite (3DPCK alone would call it wrong); a scale
            that needs a camera which a person's annotation lacks; no training set and no ``test.bone_sum``.
    """
    taught = reference(data_config, config.bone_sum)
    results: list[Result] = []
    for source, places, rows in _sets(dataset, np.asarray(indices)):
        places, first = np.unique(places, return_index=True)
        found = _rows(estimate, rows[first])
        persons = [source.persons[int(place)] for place in places]
        own = _keypoints(source, places, found)
        plausible = _plausible(found.cube, taught)
        posed = np.flatnonzero([person.pose3d is not None for person in persons])
        if len(posed):
            known, left = [persons[int(row)] for row in posed], len(persons) - len(posed)
            positions = _positions(source, known, _rows(found, posed), config, data_config, taught)
            own = [_without(row, left, "3D pose") for row in positions] + own
            true = _plausible(np.stack([_pose(person).joints for person in known]), taught)
            plausible = [_beside(row, of) for row, of in zip(plausible, true, strict=True)]
        own += plausible
        start = f"{source.name} {source.split} "
        results += [row if row.name.startswith(start) else replace(row, name=start + row.name) for row in own]
    return results


def _sets(dataset: Any, indices: np.ndarray) -> Iterator[tuple[Any, np.ndarray, np.ndarray]]:
    """Yield each source that ``indices`` (N,) reach, the places in it (n,), and which of the N they are."""
    if isinstance(dataset, MixedDataset):
        for part, places, rows in dataset.split(indices):
            for source, inner, chosen in _sets(part, places):
                yield source, inner, rows[chosen]
    elif len(indices):
        yield getattr(dataset, "source", dataset), indices, np.arange(len(indices))


def _rows(estimate: Estimate3D, rows: np.ndarray) -> Estimate3D:
    return replace(estimate, **{field.name: getattr(estimate, field.name)[rows] for field in fields(estimate)})


def _keypoints(source: Any, places: np.ndarray, estimate: Estimate3D) -> list[Result]:
    """Return the PCK of a set: its own in the wild, else that of persons by their torso."""
    if source.name in ("mpii", "lsp", "lspet"):
        return pose_scores.score(source, places, estimate)
    persons = [source.persons[int(place)] for place in places]
    target, labelled = np.stack([one.keypoints for one in persons]), np.stack([one.visibility for one in persons])
    return [keypoints_2d.person_pck(estimate.keypoints, target, labelled, source.skeleton, size="torso")]


def _positions(
    source: Any,
    persons: Sequence[Person],
    estimate: Estimate3D,
    config: Pose3dScoreConfig,
    data: Pose3dDataConfig,
    taught: Reference,
) -> list[Result]:
    """Return the protocols of a set with 3D truth, of persons who have it."""
    length = config.bone_sum or taught.bone_sum
    joints, placed = millimetres(persons, estimate, config, data, length)
    results = []
    for name in _protocols(source.name, config):
        rows = np.flatnonzero(placed) if name == _ROOT_DEPTH else np.arange(len(persons))
        if not len(rows):
            _log.warning("%s %s: %r is left out: nobody has a camera", source.name, source.split, name)
            continue
        some = [persons[int(row)] for row in rows]
        if name in (BONE_SUM_NAME, _ZHOU):
            result = _bone_sum(estimate.cube[rows], some, config, RELEASED_BONE_SUM if name == _ZHOU else length)
            result = replace(result, name=name)
        else:
            result = _measured(name, joints[rows], some, config, length)
        results.append(_without(result, len(persons) - len(rows), "camera"))
    return results


def _measured(name: str, joints: Tensor, persons: Sequence[Person], config: Pose3dScoreConfig, length: float) -> Result:
    """Return one protocol of joints (N, 16, 3) in mm."""
    how = "scale from the true depth of the root and the camera"
    if config.scale == "bone_sum":
        how = f"14 bones scaled to {length:g} mm together"
    truth = _truth(persons)
    if name in _COUNTS:
        measure = keypoints_3d.pck_3d if name == _COUNTS[0] else keypoints_3d.auc_3d
        return _said(measure(joints, **truth), how)
    align = next(align for align, row in MPJPE_NAMES.items() if row == name)
    return _said(keypoints_3d.mpjpe(joints, **truth, align=align, average=_average(config, truth)), how)


def _truth(persons: Sequence[Person]) -> dict[str, Any]:
    """Return what estimates of N persons are measured by: target (N, 16, 3) in mm, visibility (N, 16) and actions."""
    names = [_pose(person).action for person in persons]
    return {
        "target": np.stack([_pose(person).joints for person in persons]).astype(np.float64),
        "visibility": np.stack([person.visibility for person in persons]),
        "actions": [name or "unknown" for name in names] if any(names) else None,
    }


def _average(config: Pose3dScoreConfig, truth: dict[str, Any]) -> str:
    return config.average if truth["actions"] else "samples"


def _said(result: Result, how: str) -> Result:
    return replace(result, protocol=f"{result.protocol}; {how}")


def _without(result: Result, number: int, lacking: str) -> Result:
    """Return a result that says for how many persons it was not to be had."""
    if not number:
        return result
    details = {**result.details, "persons_left_out": result.details.get("persons_left_out", 0) + number}
    return _said(replace(result, details=details), f"left out: {number} without a {lacking}")


def _bone_sum(cube: np.ndarray, persons: Sequence[Person], config: Pose3dScoreConfig, length: float) -> Result:
    """Return the backbone's MPJPE of joints as they were read; the truth's thorax is the middle there too.

    That is what remains different where they were read as released: the released truth has Human3.6M's spine in that
    place, which is no joint of MPII's.
    """
    truth = _truth(persons)
    middle = keypoints_3d.thorax_between(torch.from_numpy(truth["target"]))
    found = keypoints_3d.mpjpe(
        cube, **{**truth, "target": middle}, align="zhou", average=_average(config, truth), bone_sum=length
    )
    flip = "with" if config.flip else "without"
    return _said(
        found, f"joints read by {config.decoder!r} {flip} flip test; the truth's thorax put in the same middle"
    )


def _pose(person: Person) -> Any:
    if person.pose3d is None:
        raise ValueError(f"person {person.person_id} on {person.image.name}: has no 3D pose; expected one")
    return person.pose3d


# -------------------------------------------------------------------------------------------------------- millimetres


def millimetres(
    persons: Sequence[Person],
    estimate: Estimate3D,
    config: Pose3dScoreConfig,
    data_config: Pose3dDataConfig,
    length: float,
) -> tuple[Tensor, np.ndarray]:
    """Return the joints of N persons in the camera frame, float64 (N, 16, 3) in mm, and whose root (N,) is placed.

    The root's depth is the true one. With the scale "bone_sum" the pose has ``length`` mm of bones and its root lies
    on the ray of the pelvis' pixel; of a person without camera on the true root, and it is not placed.

    Raises ``ValueError`` where the scale "gt_root_camera" meets a person without intrinsics.
    """
    truth = torch.from_numpy(np.stack([_pose(person).joints for person in persons])).double()  # (N, 16, 3)
    cameras = [_pose(person).intrinsics for person in persons]
    placed = np.array([camera is not None for camera in cameras])
    if config.scale == "gt_root_camera":
        if not placed.all():
            lacking = persons[int(placed.argmin())]
            raise ValueError(
                f"test.scale: gt_root_camera needs intrinsics, and person {lacking.person_id} on {lacking.image.name} "
                "has none; use bone_sum"
            )
        return _in_camera(estimate, truth, np.stack(cameras), data_config), placed
    joints = keypoints_3d.scale_to(estimate.cube, length)
    root, rows = truth[:, PELVIS].clone(), np.flatnonzero(placed)
    if len(rows):
        known = np.stack([cameras[row] for row in rows])
        root[rows] = _on_ray(estimate.keypoints[rows, PELVIS], root[rows, 2], known)
    return joints - joints[:, PELVIS : PELVIS + 1] + root[:, None], placed


def _in_camera(estimate: Estimate3D, truth: Tensor, cameras: np.ndarray, data_config: Pose3dDataConfig) -> Tensor:
    """Return joints on the rays of their pixels, their depths from the network's and that of the true root."""
    root = MPII.index(data_config.depth_root)
    half = torch.from_numpy(estimate.crop_side).double() / 2  # (N,) pixels
    depth = torch.from_numpy(estimate.cube[..., 2]).double() * half[:, None]  # (N, K) pixels
    behind = depth - depth[:, root : root + 1]
    scale = data_config.depth_scale
    return keypoints_3d.back_project(estimate.keypoints, behind, truth[:, root, 2], cameras, scale=scale)


def _on_ray(keypoints: np.ndarray, depth: Tensor, cameras: np.ndarray) -> Tensor:
    """Return points (N, 3) at a depth (N,) on the rays of pixels (N, 2)."""
    points, nothing = torch.from_numpy(keypoints).double()[:, None], torch.zeros(len(depth), 1)
    return keypoints_3d.back_project(points, nothing, depth, cameras, scale="root")[:, 0]


# ------------------------------------------------------------------------------------------------------- plausibility


def _plausible(poses: np.ndarray, taught: Reference) -> list[Result]:
    """Return the measures of plausibility of poses (N, 16, 3) in any unit.

    Predicted ones are taken as they stand in the crop, as only that is known in the wild. There perspective alone makes
    near limbs longer: a few percent of asymmetry and deviation are no fault of the network.
    """
    results = [plausibility.bone_asymmetry(poses), plausibility.hinge_violations(poses)]
    if taught.proportions is not None and taught.limits is not None:
        results.append(plausibility.bone_length_deviation(poses, taught.proportions))
        results.append(plausibility.joint_limit_violations(poses, taught.limits))
    return results


def _beside(result: Result, truth: Result) -> Result:
    """Return a result with what the true poses have as its last row."""
    return replace(result, details={**result.details, "rows": {**result.rows, "truth": truth.value}})
