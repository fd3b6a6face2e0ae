"""Where the annotation files of Human3.6M are looked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fastpose.data.human36m_files import is_rendered
from fastpose.data.person import existing


@dataclass(frozen=True)
class Annotation:
    """An annotation file that is looked for.

    Attributes:
        path: where it usually lies under the root.
        splits: "train" or "val" (which "test" is too), or both.
        what: whose layout it has.
        places: other folders in which it may lie.
    """

    path: str
    splits: tuple[str, ...]
    what: str
    places: tuple[str, ...] = ("annot",)


_FPS10, _MMPOSE = "annotation_body3d/fps10", "with cameras.pkl, or rendered"
_MMPOSE_PLACES = ("", "annotation_body3d", _FPS10, "annotation_body3d/fps50", "annot")
ANNOTATIONS = (
    Annotation(f"{_FPS10}/h36m_train.npz", ("train",), f"mmpose, training, {_MMPOSE}", _MMPOSE_PLACES),
    Annotation(f"{_FPS10}/h36m_test.npz", ("val",), f"mmpose, test, {_MMPOSE}", _MMPOSE_PLACES),
    # A test's .h5 may lack the 3D poses that its .mat has.
    Annotation("annot/train.mat", ("train",), "c2f-vol, training"),
    Annotation("annot/train.h5", ("train",), "c2f-vol, training, with train_images.txt"),
    Annotation("annot/valid.mat", ("val",), "c2f-vol, test"),
    Annotation("annot/valid.h5", ("val",), "c2f-vol, test, with valid_images.txt"),
    Annotation("annotSampleTest.h5", ("train", "val"), "pose-hg-3d, both splits, 1 in 200 test frames"),
    Annotation("annotFullTest.h5", ("train", "val"), "pose-hg-3d, both splits"),
    Annotation("annotTrain.h5", ("train",), "pose-hg-3d, training"),
)
"""The files that hold a split, in the order of trial."""


def annotation_path(root: str | Path, split: str, annotation: str | None = None, step: int = 5) -> Path:
    """Return the annotation file of a split: the one named, or the first known one under ``root``.

    ``step``: 1 in how many frames is wanted; mmpose has files of 10 and of 50 fps.
    """
    root = Path(root)
    if annotation is not None:
        return existing("h36m", root / annotation, "annotation file")
    for name in _known(split, step):
        if (root / name).is_file():
            return root / name
    if rendered := _rendered(root):
        raise FileNotFoundError(
            f"h36m: {root} was rendered and holds {rendered} alone, nothing of split {split!r}; render that split too, "
            "or name another set for it"
        )
    known = ", ".join(f"{each.path} ({each.what})" for each in ANNOTATIONS if _holds(each, split))
    raise FileNotFoundError(
        f"h36m: no annotation of split {split!r} under {root}; expected images/ and one of: {known}; Human3.6M needs a "
        f"registration with its authors (see fastpose data check h36m {root})"
    )


def _holds(file: Annotation, split: str) -> bool:
    return ("train" if split == "train" else "val") in file.splits


def _rendered(root: Path) -> str:
    """Return the name of a rendered annotation at its place under the root, "" where there is none."""
    for name in ("h36m_train.npz", "h36m_test.npz"):
        if (root / name).is_file() and is_rendered(root / name):
            return name
    return ""


def _known(split: str, step: int) -> Iterator[str]:
    """Give the places of a split's annotation in each layout, in the order of trial."""
    for file in ANNOTATIONS:
        if _holds(file, split):
            usual = Path(file.path)
            # Where 1 in 5 frames does not do, the file of all is tried before that of every fifth.
            places = sorted(file.places, key=lambda place: place.endswith("fps10")) if step % 5 else file.places
            others = ((Path(place) / usual.name).as_posix() for place in places)
            yield from dict.fromkeys((*others, file.path) if len(file.places) > 1 else (file.path, *others))
