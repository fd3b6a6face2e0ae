"""Data sets in their original file formats, crops and augmentation, restartable loaders."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastpose._checks import nearest, unknown
from fastpose.data import check, coco, images, keypoint_dataset, loading, lsp, mpii, person, sample, transforms
from fastpose.data.keypoint_dataset import KeypointDataset
from fastpose.data.loading import create_loader
from fastpose.data.person import Person, Source

__all__ = [
    "KeypointDataset",
    "Person",
    "Source",
    "check",
    "coco",
    "create",
    "create_loader",
    "images",
    "keypoint_dataset",
    "list",
    "loading",
    "lsp",
    "mpii",
    "person",
    "sample",
    "transforms",
]

_SOURCES: dict[str, Callable[..., Source]] = {
    "coco": coco.COCOKeypoints,
    "lsp": lsp.LSP,
    "lspet": lsp.LSPExtended,
    "mpii": mpii.MPII,
    "sample": sample.SamplePersons,
}


def list() -> tuple[str, ...]:
    """Return the names that ``create`` knows."""
    return tuple(_SOURCES)


def create(name: str, root: str | Path | None = None, split: str = "train", **options: Any) -> Source:
    """Return the persons of a data set: ``create("lspet", "data/lspet", "train", holdout=200)``.

    ``options`` are the keyword arguments of the data set's class. ``root`` is its unpacked folder (``~`` is the
    home folder; not needed for the bundled "sample"). Raises ``ValueError`` for an unknown name or option,
    ``FileNotFoundError`` for missing files.
    """
    if name not in _SOURCES:
        raise ValueError(unknown("data set", name, _SOURCES))
    source = _SOURCES[name]
    known = [option for option in inspect.signature(source).parameters if option not in ("root", "split")]
    for option in options:
        if option not in known:
            raise ValueError(f"unknown option {option!r} for data set {name!r}{nearest(option, known)}")
    if name == "sample":
        return source(split=split, **options)
    if root is None:
        raise ValueError(f"data.root: data set {name!r} needs the folder it was unpacked to; pass data.root=PATH")
    return source(Path(os.path.expanduser(root)), split=split, **options)
