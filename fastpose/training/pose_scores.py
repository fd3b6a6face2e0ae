"""Which metric belongs to which key-point data set, under the name of its protocol."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastpose import skeletons
from fastpose.data.loading import create_loader
from fastpose.data.person import Person
from fastpose.metrics import keypoints_2d, oks
from fastpose.metrics.report import Result
from fastpose.training import distributed, pose_data
from fastpose.training.estimation import Estimate, PoseEstimator
from fastpose.training.pose_data import DataConfig

# result that selects the best weights
_MONITORS = {
    "lsp": "PCK@0.2",
    "lspet": "PCK@0.2",
    "mpii": "PCKh@0.5",
    "coco": "PCK@0.2 (torso)",
    "sample": "PCK@0.2 (torso)",
}


def monitor(name: str, split: str) -> str:
    """Return the name of the result that selects the best weights on a split of a data set; higher is better."""
    return f"{name} {split} {_MONITORS[name]}"


def score(source: Any, indices: np.ndarray, estimate: Estimate) -> list[Result]:
    """Return the metrics that belong to a data set, named with it: "lsp test PCK@0.2".

    LSP: PCK@0.2; MPII: PCKh@0.5; COCO and the bundled sample: PCK@0.2 of the torso, and for COCO OKS-AP where the
    ``eval`` extra is installed (persons at their annotated boxes).

    Args:
        source: the data set (``name``, ``split``, ``skeleton``, ``persons``).
        indices: (N,) positions in ``source.persons``; a person that occurs twice counts once.
        estimate: key points of those persons, (N, K, 2).
    """
    indices, first = np.unique(indices, return_index=True)
    persons = [source.persons[int(index)] for index in indices]
    unique = Estimate(estimate.keypoints[first], estimate.scores[first])
    results = _SCORES[source.name](source, persons, unique)
    return [replace(result, name=f"{source.name} {source.split} {result.name}") for result in results]


def evaluate(estimator: PoseEstimator, config: DataConfig, *, batch_size: int = 16, workers: int = 0) -> list[Result]:
    """Return the metrics of an estimator on the validation persons of ``config``, in all scales of its test."""
    if estimator.test.scales == (1.0,):
        dataset = pose_data.validation_dataset(config, seed=0)
        loader = create_loader(dataset, batch_size, shuffle=False, workers=workers)
        return score(dataset.source, *estimator.run_loader(loader))
    source = pose_data.source(config, "validation")
    return score(source, *estimator.run_source(source, on_error=config.on_error, skip_limit=config.skip_limit))


def _arrays(persons: list[Person]) -> tuple[np.ndarray, np.ndarray]:
    """Return the annotation: key points (N, K, 2) and visibility (N, K)."""
    return np.stack([person.keypoints for person in persons]), np.stack([person.visibility for person in persons])


def _lsp(source: Any, persons: list[Person], estimate: Estimate) -> list[Result]:
    target, labelled = _arrays(persons)
    layout = source.skeleton.name
    if source.name == "lspet":  # many joints have no label, and of many torsos only one diagonal
        return [keypoints_2d.lsp_pck(estimate.keypoints, target, labelled, torso="either", skeleton=layout)]
    shown = None if (labelled > 0).all() else labelled  # as published, LSP's test set counts every joint
    return [keypoints_2d.lsp_pck(estimate.keypoints, target, shown, skeleton=layout)]


def _mpii(source: Any, persons: list[Person], estimate: Estimate) -> list[Result]:
    target, labelled = _arrays(persons)
    sizes = np.array([_head_size(person) for person in persons])
    return [keypoints_2d.mpii_pckh(estimate.keypoints, target, labelled, head_size=sizes)]


def _sample(source: Any, persons: list[Person], estimate: Estimate) -> list[Result]:
    target, labelled = _arrays(persons)
    return [keypoints_2d.person_pck(estimate.keypoints, target, labelled, source.skeleton, size="torso")]


def _coco(source: Any, persons: list[Person], estimate: Estimate) -> list[Result]:
    results = _sample(source, persons, estimate)
    if source.skeleton != skeletons.COCO:  # the metric has a constant for each of COCO's joints
        return results
    if importlib.util.find_spec("faster_coco_eval") is None or any(_incomplete(person) for person in persons):
        return results
    target, labelled = _arrays(persons)
    images = [person.image_id for person in persons]
    areas, boxes = [person.area for person in persons], np.array([person.bbox for person in persons])
    truth = oks.coco_ground_truth(target, labelled, np.array(areas), boxes, images)
    found = oks.coco_detections(estimate.keypoints, estimate.scores, images)
    return [*results, oks.coco_oks_ap(found, truth)]


def _incomplete(person: Person) -> bool:
    return person.area is None or person.bbox is None


_SCORES = {"lsp": _lsp, "lspet": _lsp, "mpii": _mpii, "coco": _coco, "sample": _sample}


def _head_size(person: Person) -> float:
    """Return the PCKh unit of a person; ``ValueError`` where the annotation has none."""
    if person.head_size is not None:
        return float(person.head_size)
    if person.head_box is not None:
        return 0.6 * float(np.linalg.norm(np.asarray(person.head_box[1]) - np.asarray(person.head_box[0])))
    raise ValueError(
        f"mpii: person {person.person_id} on {person.image.name} has no head box, so PCKh is undefined; "
        "use an annotation with head boxes (see fastpose data check mpii)"
    )


def heatmap_accuracy(
    heatmaps: Tensor, keypoints: Tensor, visibility: Tensor, place: distributed.World | None = None
) -> Tensor:
    """Return the share of labelled joints whose heatmap peaks within W/20 of the target: a training monitor, not PCK.

    A scalar on the heatmaps' device, 0 without labelled joints. Unlike ``metrics.heatmaps.heatmap_accuracy`` it pools
    the joints, of all processes of ``place``, and never waits for the device.
    """
    width = heatmaps.shape[-1]
    peak = heatmaps.flatten(2).argmax(-1)  # (B, K)
    cells = torch.stack((peak % width, peak.div(width, rounding_mode="floor")), -1)  # (B, K, 2)
    near = torch.linalg.vector_norm(cells - keypoints, dim=-1) <= 0.05 * width  # (B, K)
    used = visibility > 0
    counts = torch.stack(((near & used).sum(), used.sum())).double()
    hits, joints = counts if place is None else distributed.mean(counts, place)
    return (hits / joints).nan_to_num().float()
