"""Pictures of a pose network at work: overlays beside the annotation, heatmaps, and where chosen joints attend."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastpose import models, ops
from fastpose.training import pose_data
from fastpose.training.estimation import PoseEstimator

_TILE = 256  # side of a crop in the pictures


def samples(estimator: PoseEstimator, dataset: Any, *, persons: int = 6) -> dict[str, np.ndarray]:
    """Return pictures (RGB uint8) of some persons of a data set, evenly spread over it.

    Keys: "skeletons" (annotation and prediction side by side), "heatmaps" (of the first person) and, for a network
    with self-attention, "attention" (where the joints of the first person's prediction look).
    """
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(persons, len(dataset))).astype(int))
    items = [dataset[int(index)] for index in chosen]
    images = torch.stack([item["image"] for item in items])  # (P, 3, H, W)
    heatmaps = estimator.heatmaps(images).cpu()  # (P, K, h, w)
    points, _ = ops.decode_heatmaps(heatmaps, "quarter")  # (P, K, 2)
    crops = [_crop(image) for image in images]
    pictures = {"skeletons": _skeletons(crops, items, points, heatmaps.shape[-1], estimator)}
    pictures["heatmaps"] = _heatmaps(crops[0], heatmaps[0], estimator)
    attention = _attention(crops[0], images[:1], heatmaps[0], estimator)
    return pictures if attention is None else {**pictures, "attention": attention}


def _crop(image: Tensor) -> np.ndarray:
    """Return a crop (3, H, W) as an array (_TILE, _TILE, 3)."""
    import cv2

    array = np.ascontiguousarray(image.permute(1, 2, 0).numpy())  # (H, W, 3)
    return cv2.resize(array, (_TILE, _TILE), interpolation=cv2.INTER_LINEAR)


def _skeletons(
    crops: list[np.ndarray], items: list[dict[str, Tensor]], points: Tensor, width: int, estimator: PoseEstimator
) -> np.ndarray:
    from fastpose.visual.grids import grid
    from fastpose.visual.skeletons import draw_skeleton

    tiles, captions = [], []
    for crop, item, predicted in zip(crops, items, points, strict=True):
        truth = _to_tile(item["keypoints"], width)
        tiles.append(draw_skeleton(crop, truth, item["visibility"].numpy(), estimator.skeleton, name_missing=False))
        tiles.append(draw_skeleton(crop, _to_tile(predicted, width), None, estimator.skeleton))
        captions += [f"person {int(item['index'])}: annotation", "prediction"]
    return grid(tiles, 4, captions)


def _to_tile(points: Tensor, width: int) -> np.ndarray:
    """Return heatmap pixels (K, 2) as pixels of a tile; pixel centres are at integers in both."""
    return ((points.float() + 0.5) * (_TILE / width) - 0.5).numpy()


def _heatmaps(crop: np.ndarray, heatmaps: Tensor, estimator: PoseEstimator) -> np.ndarray:
    from fastpose.visual.heatmaps import heatmap_grid

    return heatmap_grid(crop, heatmaps.numpy(), estimator.skeleton)


def _attention(crop: np.ndarray, image: Tensor, heatmaps: Tensor, estimator: PoseEstimator) -> np.ndarray | None:
    """Return where the surest joints look in the last attention module, or None for a network without one."""
    from fastpose.visual.heatmaps import attention_grid

    cells, scores = ops.decode_heatmaps(heatmaps[None], "argmax")  # (1, K, 2), (1, K)
    surest = scores[0].argsort(descending=True, stable=True)[:4].sort().values
    ready = pose_data.normalise(image.to(estimator.device), estimator.data)  # (1, 3, H, W)
    maps = models.attention_maps(estimator.network, (ready,), cells[0, surest].long())
    if not maps:
        return None
    rows = list(maps.values())[-1][0].cpu()  # (4, h, w)
    captions = [estimator.skeleton.joints[int(joint)] for joint in surest]
    return attention_grid(crop, rows.numpy(), cells[0, surest].long().numpy(), captions=captions)
