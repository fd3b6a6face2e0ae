"""What a generator does with its guides, as pictures: features around attention and gates, and where it looks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from fastpose import models, skeletons
from fastpose.training import transfer_data

if TYPE_CHECKING:
    from fastpose.training.transfer_data import Inputs

SHOWN = ("neck", "r_wrist", "l_wrist", "r_ankle", "l_ankle")
"""Joints of the target pose whose places in the attention maps are shown."""

_ATTENTION_STRIDE = 4  # of the attended maps of system 001
_WORDS = {
    "image": "image code",
    "pose": "pose code",
    "self": "self-attention",
    "cross": "cross-modal attention",
}


def explain(network: nn.Module, inputs: Inputs, keypoints: Any = None, visibility: Any = None) -> dict[str, np.ndarray]:
    """Return pictures (RGB uint8) of what happens to the first sample of a batch.

    Keys, as the network has them: "features" (before and after each cross-modal attention and pose update, or each
    gate), "gates" (what each level lets through) and "attention" (where places look in each attention module, those of
    joints of the target pose; weights above the map's mean).

    Args:
        network: a generator of system 001 or 003, on the device of ``inputs``.
        inputs: a batch as the network sees it.
        keypoints, visibility: (18, 2) pixels and (18,) of the first target pose; None shows no attention.
    """
    from fastpose.visual import features as drawing

    pair = (inputs.source[:1], inputs.guides[:1])
    image = transfer_data.to_bytes(inputs.source[0]).permute(1, 2, 0).cpu().numpy()  # (H, W, 3)
    seen = {name: value[0].float().cpu() for name, value in models.features(network, pair).items()}  # (C, h, w) each
    pictures = {}
    stages = _stages(seen)
    if stages:
        pictures["features"] = drawing.before_after(stages, image=image)
    gates = {f"level {name.split('.')[1]}": value for name, value in seen.items() if name.endswith(".gate")}
    if gates:
        pictures["gates"] = drawing.gate_picture(gates, image=image)
    attention = None if keypoints is None else _attention(network, pair, image, keypoints, visibility)
    return pictures if attention is None else {**pictures, "attention": attention}


def _stages(seen: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the features that come before and after one step, by words for it."""
    stages = {}
    for name, before in seen.items():
        step, _, side = name.rpartition(".")
        if side == "before" and f"{step}.after" in seen:
            stages[_described(step)] = (before, seen[f"{step}.after"])
    return stages


def _described(step: str) -> str:
    """Return words for "blocks.0.image", "blocks.0.pose", "blocks.0.self" or "gates.4"."""
    kind, number, *what = step.split(".")
    if kind == "blocks" and what:
        return f"block {int(number) + 1}, {_WORDS.get(what[0], what[0])}"
    return f"{kind.removesuffix('s')} of level {number}"


def _attention(
    network: nn.Module, pair: tuple[Tensor, Tensor], image: np.ndarray, keypoints: Any, visibility: Any
) -> np.ndarray | None:
    """Return where the places of some joints look in each attention module, or None without either."""
    from fastpose.visual.heatmaps import attention_grid
    from fastpose.visual.transfer import pose_picture

    names, cells = _cells(np.asarray(keypoints), np.asarray(visibility), image.shape)
    maps = models.attention_maps(network, pair, torch.tensor(cells)) if names else {}
    if not maps:
        return None
    pose = pose_picture(keypoints, visibility, image.shape[:2])
    captions, rows = [name.replace("_", " ") for name in names], []
    for module, weights in maps.items():
        # What is above a map's mean: a place that looks everywhere alike would else be as bright as one that does not.
        shown = (weights[0] - weights[0].mean((1, 2), keepdim=True)).clamp(min=0).float().cpu().numpy()  # (P, h, w)
        picture = attention_grid(
            image,
            shown,
            cells,
            captions=captions,
            columns=len(names) + 1,
            tile=288,
            heading=f"{_described(module)}: where joints look",
            first=(pose, "target pose"),
        )
        rows.append(picture)
    return np.concatenate(rows)


def _cells(
    keypoints: np.ndarray, visibility: np.ndarray, shape: tuple[int, ...]
) -> tuple[list[str], list[tuple[int, int]]]:
    """Return the joints shown that are known, and the cells (x, y) of the attended maps where they lie."""
    names, cells = [], []
    for name in SHOWN:
        joint = skeletons.OPENPOSE.index(name)
        x, y = keypoints[joint]
        if visibility[joint] > 0 and -0.5 <= x < shape[1] - 0.5 and -0.5 <= y < shape[0] - 0.5:
            names.append(name)
            cells.append((int((x + 0.5) // _ATTENTION_STRIDE), int((y + 0.5) // _ATTENTION_STRIDE)))
    return names, cells
