"""Object key-point similarity, and COCO's average precision over it."""

from __future__ import annotations

import contextlib
import copy
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastpose.metrics._arrays import ArrayLike, as_double, as_lengths, as_mask, as_points, same_shape
from fastpose.metrics.report import Result
from fastpose.skeletons import COCO

_STATS = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")
_FAR = -1e5  # px, outside any image
_FARTHEST = 1e9  # px, whose squares and their sums the evaluator can hold


def oks(
    prediction: ArrayLike,
    target: ArrayLike,
    visibility: ArrayLike,
    area: ArrayLike,
    sigmas: ArrayLike | None = COCO.sigmas,
) -> Tensor:
    """Object key-point similarity of each person: mean over labelled joints of exp(-d^2 / (2 area (2 sigma)^2)).

    Args:
        prediction, target: (N, K, 2) in image pixels.
        visibility: (N, K), > 0 where the joint is labelled.
        area: (N,) segment areas in square pixels.
        sigmas: (K,) per-joint constants; default COCO's 17.

    Returns:
        (N,) float64 in [0, 1]; a prediction that is not finite adds 0.

    Raises:
        ValueError: shapes differ, an area is not positive, a person has no labelled joint, or one that is not finite.
    """
    predicted, truth = as_points("prediction", prediction), as_points("target", target)
    same_shape(predicted, truth)
    labelled = as_mask("visibility", visibility, tuple(truth.shape[:2]))
    _check_persons(labelled)
    if (labelled & ~truth.isfinite().all(-1)).any():
        raise ValueError("target: expected finite labelled joints, got some that are not; set their visibility to 0")
    areas = as_lengths("area", area, len(truth))
    if not bool((areas > 0).all()):
        raise ValueError(f"area: expected positive areas, least is {areas.min().item():g}")
    variance = (2 * as_lengths("sigmas", () if sigmas is None else sigmas, truth.shape[1])) ** 2
    squared = (predicted - truth).square().sum(-1)  # (N, K)
    similarity = torch.exp(-squared / (2 * areas[:, None] * variance))
    return (torch.nan_to_num(similarity, nan=0.0) * labelled).sum(1) / labelled.sum(1)


def _check_persons(labelled: Tensor) -> None:
    empty = (~labelled.any(1)).nonzero().flatten().tolist()
    if empty:
        raise ValueError(f"oks: {len(empty)} persons have no labelled joint (first: index {empty[0]}); drop them first")


def coco_detections(
    keypoints: ArrayLike, scores: ArrayLike, image_ids: Sequence[int], person_scores: ArrayLike | None = None
) -> list[dict[str, Any]]:
    """Return predictions in COCO's result format.

    Args:
        keypoints: (N, K, 2) in image pixels, 0-based.
        scores: (N, K) joint confidences.
        image_ids: N image ids.
        person_scores: (N,) person confidences; default the mean of the joints'.
    """
    points, confidence = as_points("keypoints", keypoints), as_double("scores", scores)
    if confidence.shape != points.shape[:2] or len(image_ids) != len(points):
        raise ValueError(
            f"scores and image_ids: expected {tuple(points.shape[:2])} and {len(points)}, "
            f"got {tuple(confidence.shape)} and {len(image_ids)}"
        )
    persons = confidence.mean(1) if person_scores is None else as_lengths("person_scores", person_scores, len(points))
    rows = torch.cat((points, confidence[..., None]), dim=-1)  # (N, K, 3)
    return [
        {"image_id": int(image), "category_id": 1, "keypoints": row.flatten().tolist(), "score": float(score)}
        for image, row, score in zip(image_ids, rows, persons, strict=True)
    ]


def coco_ground_truth(
    keypoints: ArrayLike, visibility: ArrayLike, area: ArrayLike, boxes: ArrayLike, image_ids: Sequence[int]
) -> dict[str, Any]:
    """Return annotated persons as a COCO data set.

    Args:
        keypoints: (N, 17, 2); visibility: (N, 17) in 0, 1, 2; area: (N,); boxes: (N, 4) as x, y, width, height.
        image_ids: N image ids.
    """
    points = as_points("keypoints", keypoints, len(COCO))
    flags = as_double("visibility", visibility)
    persons = zip(points, flags, as_double("area", area), as_double("boxes", boxes), image_ids, strict=True)
    annotations = [
        {
            "id": index + 1,
            "image_id": int(image),
            "category_id": 1,
            "iscrowd": 0,
            "num_keypoints": int((flag > 0).sum()),
            "keypoints": torch.cat((point, flag[:, None]), dim=-1).flatten().tolist(),
            "area": float(size),
            "bbox": box.tolist(),
        }
        for index, (point, flag, size, box, image) in enumerate(persons)
    ]
    images = [{"id": image} for image in sorted({int(image) for image in image_ids})]
    category = {"id": 1, "name": "person", "keypoints": list(COCO.joints), "skeleton": []}
    return {"images": images, "annotations": annotations, "categories": [category]}


def coco_oks_ap(
    detections: Sequence[Mapping[str, Any]],
    ground_truth: Mapping[str, Any] | str | Path,
    *,
    image_ids: Sequence[int] | None = None,
) -> Result:
    """COCO's key-point average precision, in percent, through ``faster-coco-eval`` (the ``eval`` extra).

    Args:
        detections: COCO results: ``image_id``, ``category_id``, ``keypoints`` (51 numbers), ``score``.
        ground_truth: a COCO data set or its JSON file.
        image_ids: images to evaluate; default all of the ground truth.

    Returns:
        a result whose details hold AP50, AP75, APm, APl, AR, ...; a size without any person is absent. Its count is
        the number of persons with labelled joints. No detection at all gives 0.

    Raises:
        ImportError: the extra is not installed.
        ValueError: the ground truth has no person with labelled joints among the images.
    """
    coco_class, evaluation_class = _evaluator()
    with contextlib.redirect_stdout(io.StringIO()):  # the evaluator prints its progress
        # the evaluator writes into the annotations it is given
        truth = coco_class(str(ground_truth) if isinstance(ground_truth, str | Path) else copy.deepcopy(ground_truth))
    images = sorted(truth.getImgIds() if image_ids is None else {int(image) for image in image_ids})
    persons = _labelled_persons(truth, images)
    kept = [_finite(row) for row in detections if row["image_id"] in set(images)]
    stats = _stats(evaluation_class, truth, kept, images) if kept else dict.fromkeys(_STATS, 0.0)
    return Result(
        name="OKS-AP",
        protocol="COCO key-point AP, mean over OKS 0.50:0.05:0.95, at most 20 detections an image",
        value=stats["AP"],
        count=persons,
        details={"rows": {name: value for name, value in stats.items() if name != "AP"}, "images": len(images)},
    )


def _evaluator() -> tuple[Any, Any]:
    try:
        from faster_coco_eval import COCO as CocoData
        from faster_coco_eval import COCOeval_faster
    except ImportError as error:
        raise ImportError(
            'OKS-AP needs faster-coco-eval, which is not installed; run: pip install "fastpose[eval]"'
        ) from error
    return CocoData, COCOeval_faster


def _finite(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a detection in which joints that are not finite, or too far, lie outside; such a score is 0."""
    keypoints = [float(value) if abs(value) <= _FARTHEST else _FAR for value in row["keypoints"]]
    score = float(row["score"])
    return {**row, "keypoints": keypoints, "score": score if math.isfinite(score) else 0.0}


def _labelled_persons(truth: Any, images: Sequence[int]) -> int:
    """Return how many persons the images hold that have labelled joints and are no crowd."""
    rows = truth.loadAnns(truth.getAnnIds(imgIds=images))
    persons = sum(1 for row in rows if row.get("num_keypoints", 0) and not row.get("iscrowd", 0))
    if not all(abs(value) <= _FARTHEST for row in rows for value in row.get("keypoints", ())):
        raise ValueError(f"ground_truth: expected key points of up to {_FARTHEST:g} pixels, found some that are not")
    if not persons:
        raise ValueError(f"ground_truth: no person with labelled joints on {len(images)} images; check image_ids")
    return persons


def _stats(evaluation_class: Any, truth: Any, detections: list[dict[str, Any]], images: list[int]) -> dict[str, float]:
    """Return COCO's ten summary numbers in percent, those without any person left out."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = evaluation_class(truth, truth.loadRes(detections), iouType="keypoints")
        evaluation.params.imgIds = images
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    values = np.asarray(evaluation.stats, dtype=np.float64)[: len(_STATS)]
    # the evaluator marks a size range without persons by -1
    return {name: 100.0 * float(value) for name, value in zip(_STATS, values, strict=True) if value >= 0}
