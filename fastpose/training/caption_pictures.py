"""Pictures of a generator of poses at work: poses of its captions beside the true ones, and what lies between two."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fastpose.training import caption_data

if TYPE_CHECKING:
    from fastpose.training.caption_generation import Inputs, PoseGenerator

_POSES = 24  # of an unconditional generator, as published
_ACROSS = 8
_ROWS = 4  # noises of the same captions, and interpolations


def samples(generator: PoseGenerator, dataset: Any, *, captions: int = 5, seed: int = 0) -> dict[str, np.ndarray]:
    """Return pictures (RGB uint8) of what a generator makes, the same noise each time.

    Keys: of a conditional one "captions" (validation poses under a caption of theirs, below each the poses made of it,
    with one noise per row; system 004, figure 15), "noise" and "between_captions" (interpolations, figures 19 and 20);
    of an unconditional one "poses" (24, figure 9, above some validation poses) and "noise".

    Args:
        generator: of poses.
        dataset: poses with captions (``caption_data.validation_dataset``), some of which are shown, evenly spread.
        captions: how many.
        seed: of the noise.
    """
    across = captions if generator.conditional else _ACROSS
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(across, len(dataset))).astype(int))
    items = [dataset[int(index)] for index in chosen]
    real = _real(items)
    if not generator.conditional:
        return {"poses": _poses(generator, real, seed), "noise": _noise(generator, [None] * _ROWS, seed)}
    texts = [dataset.source.captions[int(item["caption"])] for item in items]
    pictures = {"captions": _captions(generator, texts, real, seed), "noise": _noise(generator, texts[:_ROWS], seed)}
    return pictures if len(texts) < 2 else {**pictures, "between_captions": _between(generator, texts, seed)}


def _real(items: list[dict[str, torch.Tensor]]) -> list[np.ndarray]:
    """Return the pictures of true poses."""
    from fastpose.visual.captions import heatmap_picture

    points, visible = (torch.stack([item[name] for item in items]) for name in ("keypoints", "visibility"))
    heatmaps = (caption_data.maps(points, visible) + 1) / 2  # (P, 17, 64, 64)
    return [
        heatmap_picture(maps.numpy(), keypoints.numpy(), seen.numpy())
        for maps, keypoints, seen in zip(heatmaps, points, visible, strict=True)
    ]


def _made(generator: PoseGenerator, inputs: Inputs) -> list[np.ndarray]:
    """Return the pictures of generated poses."""
    return drawn(generator.heatmaps(inputs.noise, inputs.vectors))


def drawn(heatmaps: torch.Tensor, *, skeleton_only: bool = False) -> list[np.ndarray]:
    """Return the pictures of heatmaps (N, 17, 64, 64) in [0, 1]: them under the skeletons that they show, or these."""
    from fastpose.training.caption_generation import read
    from fastpose.visual.captions import heatmap_picture, skeleton_picture

    poses = read(heatmaps)
    rows = zip(heatmaps, poses.keypoints, poses.visibility, strict=True)
    if skeleton_only:
        return [skeleton_picture(keypoints, seen) for _, keypoints, seen in rows]
    return [heatmap_picture(maps.numpy(), keypoints, seen) for maps, keypoints, seen in rows]


def _poses(generator: PoseGenerator, real: list[np.ndarray], seed: int) -> np.ndarray:
    from fastpose.visual import captions

    made = _made(generator, generator.inputs(None, _POSES, seed))
    return captions.strips([(("generated",), made), (("validation",), real)], most=_ACROSS)


def _captions(generator: PoseGenerator, texts: list[str], real: list[np.ndarray], seed: int) -> np.ndarray:
    from fastpose.visual import captions

    made = _made(generator, generator.inputs(texts, _ROWS, seed))  # by caption
    rows = [made[row::_ROWS] for row in range(_ROWS)]
    return captions.columns([real, *rows], texts, labels=["validation", "generated", *[""] * (_ROWS - 1)])


def _noise(generator: PoseGenerator, texts: list[str] | list[None], seed: int) -> np.ndarray:
    from fastpose.visual import captions

    rows = []
    for number, text in enumerate(texts):
        inputs = generator.noise_inputs(text, seed=seed + number)
        rows.append(((f"noise {number + 1}" if text is None else text,), _made(generator, inputs)))
    return captions.strips(rows)


def _between(generator: PoseGenerator, texts: list[str], seed: int) -> np.ndarray:
    from fastpose.visual import captions

    pairs = list(pairwise(texts))[:_ROWS]
    return captions.strips([(pair, _made(generator, generator.caption_inputs(*pair, seed=seed))) for pair in pairs])
