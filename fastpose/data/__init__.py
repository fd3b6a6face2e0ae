"""Data sets in their original file formats, crops and augmentation, restartable loaders."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastpose._checks import nearest, unknown
from fastpose.data import (
    caption_dataset,
    captions,
    check,
    coco,
    fonts,
    human36m,
    images,
    joints,
    keypoint_dataset,
    keypoint_files,
    loading,
    lsp,
    mixing,
    motion,
    mpi_inf_3dhp,
    mpii,
    pairs,
    person,
    photo_cache,
    photo_pairs,
    pose3d,
    pose_transfer,
    rendered_mocap,
    sample,
    sample_pairs,
    semantic,
    text,
    transforms,
)
from fastpose.data.caption_dataset import CaptionDataset
from fastpose.data.captions import CaptionedPoses
from fastpose.data.keypoint_dataset import KeypointDataset
from fastpose.data.loading import create_loader
from fastpose.data.pair_dataset import PairDataset
from fastpose.data.person import PairSource, Person, Source

__all__ = [
    "CaptionDataset",
    "CaptionedPoses",
    "KeypointDataset",
    "PairDataset",
    "PairSource",
    "Person",
    "Source",
    "caption_dataset",
    "captions",
    "check",
    "coco",
    "create",
    "create_loader",
    "fonts",
    "human36m",
    "images",
    "joints",
    "keypoint_dataset",
    "keypoint_files",
    "list",
    "loading",
    "lsp",
    "mixing",
    "motion",
    "mpi_inf_3dhp",
    "mpii",
    "pairs",
    "person",
    "photo_cache",
    "photo_pairs",
    "pose3d",
    "pose_transfer",
    "rendered_mocap",
    "sample",
    "sample_pairs",
    "semantic",
    "text",
    "transforms",
]

_SOURCES: dict[str, Callable[..., Source]] = {
    "coco": coco.COCOKeypoints,
    "deepfashion": pose_transfer.DeepFashionPairs,
    "fonts": fonts.FontPairs,
    "h36m": human36m.Human36M,
    "lsp": lsp.LSP,
    "lspet": lsp.LSPExtended,
    "market": pose_transfer.MarketPairs,
    "mocap": rendered_mocap.RenderedMocap,
    "mpi_inf_3dhp": mpi_inf_3dhp.MPIINF3DHP,
    "mpii": mpii.MPII,
    "photos": photo_pairs.PhotoPairs,
    "sample": sample.SamplePersons,
    "sample-mocap": rendered_mocap.SampleMocap,
    "sample-pairs": sample_pairs.SamplePairs,
    "semantic": semantic.SemanticPairs,
}


def list() -> tuple[str, ...]:
    """Return the names that ``create`` knows."""
    return tuple(_SOURCES)


def create(name: str, root: str | Path | None = None, split: str = "train", **options: Any) -> Source:
    """Return the persons of a data set: ``create("lspet", "data/lspet", "train", holdout=200)``.

    ``options`` are the keyword arguments of the data set's class. ``root`` is its unpacked folder (``~`` is the
    home folder; the bundled sets have none). Raises ``ValueError`` for an unknown name or option,
    ``FileNotFoundError`` for missing files.
    """
    if name not in _SOURCES:
        raise ValueError(unknown("data set", name, _SOURCES))
    source = _SOURCES[name]
    known = [option for option in inspect.signature(source).parameters if option not in ("root", "split")]
    for option in options:
        if option not in known:
            raise ValueError(f"unknown option {option!r} for data set {name!r}{nearest(option, known)}")
    if name in ("sample", "sample-mocap", "sample-pairs"):
        if root is not None:
            raise ValueError(
                f"data.root: data set {name!r} is bundled and has no folder, got {str(root)!r}; leave it out"
            )
        return source(split=split, **options)
    if root is None:
        raise ValueError(f"data.root: data set {name!r} needs the folder it was unpacked to; pass data.root=PATH")
    return source(Path(os.path.expanduser(root)), split=split, **options)
