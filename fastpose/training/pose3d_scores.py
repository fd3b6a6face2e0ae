"""Which metrics belong to which set of system 002, and how millimetres are recovered before they are taken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fastpose import _checks
from fastpose.data.loading import create_loader
from fastpose.data.mixing import MixedDataset
from fastpose.data.person import Person
from fastpose.data.pose3d import bone_sum
from fastpose.metrics import keypoints_2d, keypoints_3d, plausibility
from fastpose.metrics.accumulate_3d import AVERAGES, MPJPE_NAMES
from fastpose.metrics.keypoints_3d import RELEASED_BONE_SUM
from fastpose.metrics.plausibility import JointLimits, Proportions
from fastpose.metrics.report import Result
from fastpose.skeletons import MPII
from fastpose.training import pose3d_data, pose_scores
from fastpose.training.estimation import BACKENDS

if TYPE_CHECKING:
    from fastpose.training.pose3d_config import Pose3dConfig
    from fastpose.training.pose3d_data import Pose3dDataConfig
    from fastpose.training.pose3d_estimation import Estimate3D, Pose3dEstimator

SCALES = ("bone_sum", "gt_root_camera")
PELVIS, THORAX, UPPER_NECK = (MPII.index(joint) for joint in ("pelvis", "thorax", "upper_neck"))

_POSITIONS = ("MPJPE (root)", *(MPJPE_NAMES[how] for how in ("root_depth", "similarity", "rigid", "zhou")))
_COUNTS = ("3DPCK@150mm", "3DPCK AUC")
PROTOCOLS = (*_POSITIONS, *_COUNTS)
_PLAUSIBILITY = ("bone asymmetry", "hinge violations")
_PLAUSIBILITY_BY_POSES = ("bone-length deviation", "joint-limit violations")
_KEYPOINTS = "PCK@0.2 (torso)"
_OWN = {"mpi_inf_3dhp": (*_COUNTS, "MPJPE (root)")}  # every other set with 3D truth: the protocols of positions
_REFERENCE_POSES = 20_000  # at most so many training poses teach the limits, evenly taken


@dataclass(frozen=True)
class Pose3dScoreConfig:
    """How a network is tested.

    Attributes:
        flip: average heatmaps and depths with those of the mirrored image.
        decoder: "quarter" (a quarter pixel toward the higher neighbour), "argmax" or "dark".
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
        _checks.choice("test.decoder", self.decoder, ("quarter", "argmax", "dark"))
        _checks.choice("test.backend", self.backend, BACKENDS)
        _checks.choice("test.scale", self.scale, SCALES)
        _checks.choice("test.average", self.average, AVERAGES)
        for name in self.protocols:
            _checks.choice("test.protocols", name, PROTOCOLS)
        if not 0 <= self.bone_sum < float("inf"):
            raise ValueError(f"test.bone_sum: expected mm, or 0 for the training set's mean, got {self.bone_sum}")


# ------------------------------------------------------------------------------------------------- what tells the best


def monitor(config: Pose3dConfig) -> tuple[str, str]:
    """Return the name of the result that selects the best weights, and whether "min" or "max" is best.

    The 3D set's "MPJPE (root)", or its first protocol; key points in the stage "2d", where no depth is learnt, and
    where there are wild sets alone. ``test.monitor`` names another one. Raises ``ValueError``, with the nearest names,
    for a result that the configuration does not give.
    """
    names = _result_names(config)
    if not names:
        raise ValueError("data.validation, data.wild: expected something to evaluate on, got neither")
    chosen = config.test.monitor
    if not chosen:
        wanted = [name for name in names if "PCK@0.2" in name or "PCKh@" in name]
        return _with_mode(wanted[-1] if config.stage.name == "2d" else names[0])
    if chosen not in names:
        chosen = next((name for name in names if name.endswith(f" {chosen}")), chosen)
    _checks.choice("test.monitor", chosen, names)
    return _with_mode(chosen)


def _with_mode(name: str) -> tuple[str, str]:
    return name, "max" if "PCK" in name else "min"


def _result_names(config: Pose3dConfig) -> list[str]:
    """Return the names of results that surely come, the usual one first."""
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
    return config.protocols or _OWN.get(name, _POSITIONS)


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
    set's where that is known, with that of the truth in ``details["truth"]``. "MPJPE #1 (root depth)" is left out where
    no camera tells where the root is.

    Args:
        dataset: what was evaluated: a ``MixedDataset`` of several sets, a ``KeypointDataset``, or a source itself.
        indices: (N,) positions in it; a person that occurs twice counts once.
        estimate: joints of those persons.
        config, data_config: the sections ``test`` and ``data``.

    Raises:
        ValueError: a pose that is not finite, or a scale that needs a camera which a person's annotation lacks.
    """
    results: list[Result] = []
    for source, places, rows in _sets(dataset, np.asarray(indices)):
        places, first = np.unique(places, return_index=True)
        found = _rows(estimate, rows[first])
        persons = [source.persons[int(place)] for place in places]
        own = _keypoints(source, places, found)
        plausible = _plausible(found.cube, _reference(data_config))
        if all(person.pose3d is not None for person in persons):
            own = _positions(source, persons, found, config, data_config) + own
            true = _plausible(np.stack([_pose(person).joints for person in persons]), _reference(data_config))
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
    source: Any, persons: Sequence[Person], estimate: Estimate3D, config: Pose3dScoreConfig, data: Pose3dDataConfig
) -> list[Result]:
    """Return the protocols of a set with 3D truth."""
    target = np.stack([_pose(person).joints for person in persons]).astype(np.float64)  # (N, 16, 3)
    labelled = np.stack([person.visibility for person in persons])
    length = config.bone_sum or _reference(data).bone_sum
    joints, placed = millimetres(persons, estimate, config, data, length)
    names = [_pose(person).action for person in persons]
    actions = [name or "unknown" for name in names] if any(names) else None
    how = "scale from the true depth of the root and the camera"
    if config.scale == "bone_sum":
        how = f"14 bones scaled to {length:g} mm together"
    results = []
    for name in _protocols(source.name, config):
        if name == MPJPE_NAMES["zhou"]:
            released = RELEASED_BONE_SUM if source.name == "h36m" else length
            results.append(_zhou(estimate, target, labelled, actions, config, released))
        elif name in _COUNTS:
            measure = keypoints_3d.pck_3d if name == _COUNTS[0] else keypoints_3d.auc_3d
            results.append(_said(measure(joints, target, labelled, actions=actions), how))
        elif placed or name != MPJPE_NAMES["root_depth"]:
            align = next(align for align, row in MPJPE_NAMES.items() if row == name)
            average = config.average if actions else "samples"
            found = keypoints_3d.mpjpe(joints, target, labelled, align=align, actions=actions, average=average)
            results.append(_said(found, how))
    return results


def _said(result: Result, how: str) -> Result:
    return replace(result, protocol=f"{result.protocol}; {how}")


def _zhou(
    estimate: Estimate3D,
    target: np.ndarray,
    labelled: np.ndarray,
    actions: Sequence[str] | None,
    config: Pose3dScoreConfig,
    length: float,
) -> Result:
    """Return the backbone's MPJPE of joints that our decoder reads; the truth's thorax is the middle there too.

    The released truth has Human3.6M's spine in that place, which is no joint of MPII's.
    """
    middle = target.copy()
    middle[:, THORAX] = (target[:, PELVIS] + target[:, UPPER_NECK]) / 2
    average = config.average if actions else "samples"
    found = keypoints_3d.mpjpe(
        estimate.cube, middle, labelled, align="zhou", actions=actions, average=average, bone_sum=length
    )
    return _said(found, f"joints read by {config.decoder!r}, the truth's thorax put in the same middle")


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
) -> tuple[Tensor, bool]:
    """Return the joints of N persons in the camera frame, float64 (N, 16, 3) in mm, and whether the root is placed.

    The root's depth is the true one. With the scale "bone_sum" the pose has ``length`` mm of bones and its root lies
    on the ray of the pelvis' pixel; where a person has no camera, on the true root, and False is returned.

    Raises ``ValueError`` where the scale "gt_root_camera" meets a person without intrinsics.
    """
    truth = torch.from_numpy(np.stack([_pose(person).joints for person in persons])).double()  # (N, 16, 3)
    cameras = [_pose(person).intrinsics for person in persons]
    known = all(camera is not None for camera in cameras)
    if config.scale == "gt_root_camera":
        if not known:
            lacking = persons[[camera is None for camera in cameras].index(True)]
            raise ValueError(
                f"test.scale: gt_root_camera needs intrinsics, and person {lacking.person_id} on {lacking.image.name} "
                "has none; use bone_sum"
            )
        return _in_camera(estimate, truth, np.stack(cameras), data_config), True
    joints = keypoints_3d.scale_to(estimate.cube, torch.tensor(length, dtype=torch.float64))
    root = truth[:, PELVIS]
    if known:
        root = _on_ray(estimate.keypoints[:, PELVIS], root[:, 2], np.stack(cameras))
    return joints - joints[:, PELVIS : PELVIS + 1] + root[:, None], known


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


# ------------------------------------------------------------------------------------------------- plausibility


@dataclass(frozen=True, eq=False)
class Reference:
    """What the poses of a training set say about bodies.

    Attributes:
        bone_sum: mean length in mm of the 14 bones together; Human3.6M's where there are no poses.
        proportions, limits: for the measures of plausibility; None where there are no poses.
    """

    bone_sum: float = RELEASED_BONE_SUM
    proportions: Proportions | None = None
    limits: JointLimits | None = None


@lru_cache(maxsize=4)
def _reference(config: Pose3dDataConfig) -> Reference:
    """Return what the training poses of a configuration say; read once."""
    source = pose3d_data.laboratory(config, "train") if pose3d_data.trains_on_poses(config) else None
    persons = [person for person in ([] if source is None else source.persons) if person.pose3d is not None]
    whole = [person for person in persons if (person.visibility > 0).all()] or persons
    if not whole:
        return Reference()
    poses = np.stack([_pose(person).joints for person in whole]).astype(np.float64)  # (N, 16, 3)
    chosen = poses[np.unique(np.linspace(0, len(poses) - 1, _REFERENCE_POSES).round().astype(int))]
    return Reference(float(bone_sum(poses).mean()), Proportions.from_poses(chosen), JointLimits.from_poses(chosen))


def _beside(result: Result, truth: Result) -> Result:
    """Return a result with what the true poses have in its details."""
    return replace(result, details={**result.details, "truth": truth.value})


def _plausible(poses: np.ndarray, reference: Reference) -> list[Result]:
    """Return the measures of plausibility of poses (N, 16, 3) in any unit.

    Predicted ones are taken as they stand in the crop, as only that is known in the wild. There perspective alone makes
    near limbs longer: a few percent of asymmetry and deviation are no fault of the network.
    """
    results = [plausibility.bone_asymmetry(poses), plausibility.hinge_violations(poses)]
    if reference.proportions is not None and reference.limits is not None:
        results.append(plausibility.bone_length_deviation(poses, reference.proportions))
        results.append(plausibility.joint_limit_violations(poses, reference.limits))
    return results
