"""Pictures of a 3D pose network at work: photographs beside poses from several sides, truth, heatmaps, descriptor."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastpose import ops
from fastpose.metrics import keypoints_3d
from fastpose.nn import coordinates
from fastpose.training.pose3d_estimation import ROOT, Estimate3D, Pose3dEstimator
from fastpose.training.pose3d_reference import reference

FRAMES = 48
"""Pictures of a turn."""

_TILE = 240  # side of a panel


def samples(estimator: Pose3dEstimator, dataset: Any, *, persons: int = 4) -> dict[str, np.ndarray]:
    """Return pictures (RGB uint8) of some persons of a validation set, evenly spread over each domain.

    Keys: "poses" (persons with 3D truth: annotation, prediction, and both in space from three sides, the truth grey),
    "wild" (the same of photographs without 3D truth), "heatmaps" and "descriptor" of the first person.
    """
    estimator, pictures = _sized(estimator), {}
    for name, parts in _domains(dataset).items():
        chosen = _spread(parts, persons)
        pictures[name] = _poses(estimator, chosen)
        if "heatmaps" not in pictures:
            pictures |= _inside(estimator, chosen[0][1])
    return pictures


def portrait(photo: np.ndarray, estimate: Estimate3D, estimator: Pose3dEstimator) -> np.ndarray:
    """Return a photograph with the first person's key points beside the pose from three sides (RGB uint8)."""
    from fastpose.visual import poses3d

    joints, skeleton = estimator.millimetres(estimate)[0], estimator.skeleton
    caption = f"size assumed: {estimator.bone_sum:,.0f} mm of bones together; upright is what the camera had upright"
    return poses3d.beside(photo, estimate.keypoints[0], joints, skeleton, caption=caption)


def film(photo: np.ndarray, estimate: Estimate3D, estimator: Pose3dEstimator) -> list[np.ndarray]:
    """Return the frames of a photograph with the first person's key points beside the turning pose (RGB uint8)."""
    from fastpose.visual import poses3d

    keypoints, cube = estimate.keypoints[0], estimate.cube[0]
    return poses3d.turning(photo, keypoints, cube, estimator.skeleton, frames=FRAMES)


def _sized(estimator: Pose3dEstimator) -> Pose3dEstimator:
    """Return an estimator that assumes the persons' size as the evaluation does, from the training set if need be."""
    if estimator.test.bone_sum:
        return estimator
    length = reference(estimator.data).bone_sum
    return Pose3dEstimator(estimator.network, estimator.data, replace(estimator.test, bone_sum=length))


def _domains(dataset: Any) -> dict[str, list[Any]]:
    """Return the parts of a data set by what is known of them: "poses" in space, or photographs that are "wild"."""
    domains: dict[str, list[Any]] = {"poses": [], "wild": []}
    for part in getattr(dataset, "parts", (dataset,)):
        known = any(person.pose3d is not None for person in part.source.persons)
        domains["poses" if known else "wild"].append(part)
    return {name: parts for name, parts in domains.items() if parts}


def _spread(parts: list[Any], count: int) -> list[tuple[Any, dict[str, Tensor]]]:
    """Return ``count`` items, evenly spread over data sets one behind the other, each with its data set."""
    places = [(part, index) for part in parts for index in range(len(part))]
    chosen = np.unique(np.linspace(0, len(places) - 1, min(count, len(places))).astype(int))
    return [(part, part[index]) for part, index in (places[at] for at in chosen)]


def _poses(estimator: Pose3dEstimator, chosen: list[tuple[Any, dict[str, Tensor]]]) -> np.ndarray:
    """Return a row of panels per person: annotation, prediction, three sides."""
    from fastpose.visual import poses3d
    from fastpose.visual.skeletons import draw_skeleton
    from fastpose.visual.transfer import panels

    items, skeleton = [item for _, item in chosen], estimator.skeleton
    images = torch.stack([item["image"] for item in items])  # (P, 3, H, W)
    estimate = estimator.read(images, torch.stack([item["to_image"] for item in items]))
    size = (images.shape[-2] // 4, images.shape[-1] // 4)
    points = coordinates.heatmap_pixels(torch.from_numpy(estimate.cube), size)  # (P, K, 2)
    rows, captions = [], []
    for (part, item), found, joints in zip(chosen, points, estimator.millimetres(estimate), strict=True):
        crop = _crop(item["image"])
        annotated = draw_skeleton(
            crop, _to_tile(item["keypoints"], size[1]), item["visibility"].numpy(), skeleton, name_missing=False
        )
        drawn = draw_skeleton(crop, _to_tile(found, size[1]), None, skeleton, name_missing=False)
        index = int(item["index"])
        person, caption = part.source.persons[index], f"{part.source.name} {part.source.split}, person {index}"
        truth = None if person.pose3d is None else _labelled(person.pose3d.joints, person.visibility)
        if truth is not None:
            caption += f": {_apart(joints, truth)}, bones of {estimator.bone_sum:,.0f} mm together"
        rows.append([annotated, drawn, *poses3d.views(joints, skeleton, truth=truth, size=(_TILE, _TILE))])
        captions.append(caption)
    return panels(rows, ("annotation", "prediction", *poses3d.VIEWS), captions=captions)


def _labelled(joints: np.ndarray, visibility: np.ndarray) -> np.ndarray:
    """Return true joints (K, 3) in mm relative to the pelvis, NaN where they have no label."""
    return np.where(visibility[:, None] > 0, joints - joints[ROOT], np.nan)


def _apart(joints: np.ndarray, truth: np.ndarray) -> str:
    """Return the words for the mean distance of joints (K, 3) in mm from the truth, which is NaN without label."""
    labelled = np.isfinite(truth).all(1)
    errors = keypoints_3d.joint_errors(joints[None], truth[None], labelled[None], align="root")
    return f"{errors.nanmean():.0f} mm off, pelvis on pelvis" if labelled[ROOT] else "its pelvis has no label"


def _inside(estimator: Pose3dEstimator, item: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """Return the heatmaps of a person, and what a critic with the geometric source would see of its pose."""
    from fastpose.visual.heatmaps import heatmap_grid
    from fastpose.visual.poses3d import descriptor_image

    heatmaps, _ = estimator.maps(item["image"][None])
    cube = estimator.read(item["image"][None], item["to_image"][None]).cube
    descriptor = ops.pairwise_descriptor(torch.from_numpy(cube))[0]  # (6, K, K)
    return {
        "heatmaps": heatmap_grid(_crop(item["image"]), heatmaps[0].cpu().numpy(), estimator.skeleton),
        "descriptor": descriptor_image(descriptor, estimator.skeleton),
    }


def _crop(image: Tensor) -> np.ndarray:
    """Return a crop (3, H, W) as an array (_TILE, _TILE, 3)."""
    import cv2

    array = np.ascontiguousarray(image.permute(1, 2, 0).numpy())  # (H, W, 3)
    return cv2.resize(array, (_TILE, _TILE), interpolation=cv2.INTER_LINEAR)


def _to_tile(points: Tensor, width: int) -> np.ndarray:
    """Return heatmap pixels (K, 2) as pixels of a tile; pixel centres are at integers in both."""
    return ((points.float() + 0.5) * (_TILE / width) - 0.5).numpy()
