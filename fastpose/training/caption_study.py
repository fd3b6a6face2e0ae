"""What participants of a study choose between: a real pose of a caption and a generated one (system 004, 4.4.3)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fastpose import _checks, _files
from fastpose.training import caption_data, caption_pictures, caption_prediction, prediction
from fastpose.training.caption_generation import PoseGenerator

if TYPE_CHECKING:
    from fastpose.data.captions import CaptionedPoses
    from fastpose.data.text import TextEncoder

COUNT = 20
"""Questions, as published."""

DRAWINGS = ("heatmaps", "skeletons")
"""How both poses are drawn: heatmaps under their skeleton as published, or the skeleton alone."""

ITEMS = "items.json"

_FREE = (*caption_prediction.FREE, "data.")


def write_items(
    weights: str | Path,
    *,
    encoder: TextEncoder | str | None = None,
    count: int = COUNT,
    seed: int = 0,
    drawing: str = DRAWINGS[0],
    out: str | Path,
    overrides: Sequence[str] = (),
) -> Path:
    """Write two pictures of each of ``count`` captions and the list of them; return the path of the list.

    The captions are those of validation poses, each of another photograph, drawn at random. One picture shows the real
    pose, the other one that weights make of the caption; both are drawn alike, from heatmaps that are read alike, and
    their names, such as ``07-1.png`` and ``07-2.png``, do not tell which is which. The list, ``items.json``, does:
    ``fastpose study make-caption`` makes a page of it, where the real pose is the right answer.

    Args:
        weights: a .safetensors file of a conditional generator (caption).
        encoder: of captions, as `data.text.create` takes it, or such an encoder; None takes the one that the weights
            name. It must be the one of the training.
        count: how many captions.
        seed: of captions, noise and names.
        drawing: one of `DRAWINGS`.
        out: a folder for the files, new or empty.
        overrides: ``key=value`` texts over the configuration of the weights: ``run.*``, ``text.encoder``, and
            ``data.*``, which says where the poses are; those for training are read too, as no validation pose may
            be of a photograph of theirs.

    Raises:
        ValueError, FileNotFoundError: one sentence about the weights, the data, a number or the encoder; nothing is
            written then.
    """
    _checks.whole("count", count, 1)
    _checks.whole("seed", seed, 0)
    _checks.choice("drawing", drawing, DRAWINGS)
    folder = _new_folder(out)
    generator = caption_prediction.open_generator(None, weights, encoder, overrides, free=_FREE)
    if not generator.conditional:
        raise ValueError(
            f"weights {weights}: make poses from noise alone; a study of captions needs those of a conditional "
            "generator, such as recipe caption/wgan-lp trains"
        )
    _, poses = caption_data.sources(generator.config.data, captioned=True)
    rng = np.random.default_rng(seed)
    chosen = _chosen(poses, count, rng)
    captions = [str(rng.choice(poses.own_captions(index))) for index in chosen]
    pictures = [_real(poses, chosen, drawing), _generated(generator, captions, seed, drawing)]
    about = {"seed": int(seed), **caption_prediction.origin(weights, generator)}
    rows = [
        {"caption": caption, **names, "photograph": int(poses.image_ids[index]), **about}
        for caption, names, index in zip(captions, _names(count, rng), chosen, strict=True)
    ]
    return _written(folder, rows, pictures)


def _new_folder(out: str | Path) -> Path:
    """Return the path of a folder that is new or empty: files of two studies must not mix."""
    prediction.check_folder(out)
    folder = Path(out)
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"out: expected a new or an empty folder, {folder} has files in it; name another")
    return folder


def _chosen(poses: CaptionedPoses, count: int, rng: np.random.Generator) -> list[int]:
    """Return places of poses at random, each of another photograph."""
    order = rng.permutation(np.flatnonzero(poses.count))
    _, first = np.unique(poses.image_ids[order], return_index=True)
    if count > len(first):
        raise ValueError(
            f"count: expected 1 to {len(first)}, as many photographs with captions as {poses.name} {poses.split} has, "
            f"got {count}"
        )
    return [int(place) for place in order[np.sort(first)[:count]]]


def _real(poses: CaptionedPoses, chosen: list[int], drawing: str) -> list[np.ndarray]:
    """Return the pictures of annotated poses, read from their heatmaps as generated ones are."""
    points = torch.from_numpy(poses.keypoints[chosen])  # (N, 17, 2)
    visible = torch.from_numpy((poses.visibility[chosen] > 0).astype(np.float32))  # (N, 17)
    return caption_pictures.drawn((caption_data.maps(points, visible) + 1) / 2, skeleton_only=drawing == "skeletons")


def _generated(generator: PoseGenerator, captions: list[str], seed: int, drawing: str) -> list[np.ndarray]:
    """Return the pictures of generated poses, each of another noise."""
    heatmaps = generator.heatmaps(generator.noise(len(captions), seed), generator.encode(captions))
    return caption_pictures.drawn(heatmaps, skeleton_only=drawing == "skeletons")


def _names(count: int, rng: np.random.Generator) -> list[dict[str, str]]:
    """Return the file names of each item's right and wrong picture; the number behind the hyphen is drawn."""
    digits = max(2, len(str(count)))
    drawn = [rng.permutation(2) + 1 for _ in range(count)]
    return [
        {key: f"{k:0{digits}d}-{place}.png" for key, place in zip(("right", "wrong"), places, strict=True)}
        for k, places in enumerate(drawn, 1)
    ]


def _written(folder: Path, rows: list[dict[str, Any]], pictures: list[list[np.ndarray]]) -> Path:
    """Write all files in the order of their names, so that their times tell nothing; return the list's path."""
    from fastpose.visual.grids import save_image

    named: dict[str, np.ndarray] = {}
    for row, right, wrong in zip(rows, *pictures, strict=True):
        named |= {row["right"]: right, row["wrong"]: wrong}
    for name in sorted(named):
        save_image(folder / name, named[name])
    _files.publish(folder / ITEMS, json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    return folder / ITEMS
