"""What ``fastpose data check`` prints: the expected tree with a tick or cross per path, counts, first offenders."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fastpose._checks import unknown
from fastpose.data import coco, lsp, mpii, pair_check, sample
from fastpose.data.findings import CROSS, CheckReport, bad_photographs, finding, mark, out_of_frame, person_names
from fastpose.data.person import Person, labelled, missing_images, not_finite, without_size


@dataclass(frozen=True)
class _Layout:
    """Expected tree of a data set: paths with what they hold; ``groups`` list alternatives, one of which must exist."""

    groups: tuple[tuple[tuple[str, str], ...], ...]
    readers: dict[str, Callable[[Path], list[Person]]]


_MPII_FILES = tuple(
    (f"annot/{name}", what)
    for name, what in (
        ("valid.json", "HRNet, validation persons"),
        ("train.json", "HRNet, training persons"),
        ("mpii_annotations.json", "pytorch-pose, both splits"),
        ("valid.h5", "stacked hourglass, validation persons"),
        ("train.h5", "stacked hourglass, training persons"),
        (mpii.OFFICIAL, "official, all training persons"),
    )
)

_LAYOUTS: dict[str, _Layout] = {
    "lsp": _Layout(
        ((("joints.mat", "array joints (3, 14, 2000)"),), (("images", "im0001.jpg ... im2000.jpg"),)),
        {"all": lambda root: lsp.read(root, "lsp")},
    ),
    "lspet": _Layout(
        ((("joints.mat", "array joints (14, 3, N)"),), (("images", "im00001.jpg ... one per column"),)),
        {"all": lambda root: lsp.read(root, "lspet")},
    ),
    "mpii": _Layout(
        (_MPII_FILES, (("images", "015601864.jpg ..."),)),
        {"train": lambda root: mpii.read(root, "train"), "val": lambda root: mpii.read(root, "val")},
    ),
    "coco": _Layout(
        (
            (
                ("annotations/person_keypoints_train2017.json", "training persons"),
                ("annotations/person_keypoints_val2017.json", "validation persons"),
            ),
            (("train2017", "000000000009.jpg ..."), ("val2017", "000000000139.jpg ...")),
        ),
        {"train": lambda root: coco.read(root, "train"), "val": lambda root: coco.read(root, "val")},
    ),
    "sample": _Layout(
        ((("annotations.json", "persons of both splits"),), (("images", "the photographs"),)),
        {split: lambda root, split=split: sample.read(root, split) for split in ("train", "val")},  # type: ignore[misc]
    ),
}


def check(name: str, root: str | Path | None = None) -> CheckReport:
    """Check a data set on disk before training: files, counts, photographs, coordinates.

    ``root`` is the unpacked folder; the bundled "sample" needs none. Raises ``ValueError`` for an unknown name;
    everything wrong with the data is reported in the lines.
    """
    if name not in _LAYOUTS and name not in pair_check.CHECKS:
        raise ValueError(unknown("data set", name, (*_LAYOUTS, *pair_check.CHECKS)))
    if root is None and name not in ("sample", "sample-pairs"):
        raise ValueError(f"data set {name!r} needs the folder it was unpacked to")
    if name in pair_check.CHECKS:
        return pair_check.check(name, sample.FOLDER if root is None else Path(os.path.expanduser(root)))
    base = _base(name, sample.FOLDER if root is None else Path(os.path.expanduser(root)))
    complete, lines = _tree(name, base)
    good = [_check_split(base, split, reader, lines) for split, reader in _LAYOUTS[name].readers.items()]
    # A split whose file is absent is no error as long as another split is whole.
    ok = complete and any(state is True for state in good) and not any(state is False for state in good)
    lines.append(f"{name}: ready" if ok else f"{name}: not ready, see the crosses above")
    return CheckReport(name, str(base), ok, tuple(lines))


def _base(name: str, root: Path) -> Path:
    """Step into the usual sub-folder of LSP archives."""
    if name in ("lsp", "lspet"):
        try:
            return lsp.folder(root, name)
        except FileNotFoundError:
            return root
    return root


def _tree(name: str, base: Path) -> tuple[bool, list[str]]:
    """Return whether every group has a path, and the tree's lines."""
    lines = [f"{mark(base.is_dir())} {base}/"]
    complete = base.is_dir()
    for group in _LAYOUTS[name].groups:
        found = [(base / path).exists() for path, _ in group]
        complete = complete and any(found)
        for (path, what), there in zip(group, found, strict=True):
            # Where alternatives exist, an absent one is a dash, not a cross.
            sign = mark(there) if there or not any(found) else "-"
            lines.append(f"  {sign} {path:<44} {what}")
        if len(group) > 1 and not any(found):
            lines.append(f"    (one of these {len(group)} is needed)")
    return complete, lines


def _check_split(base: Path, split: str, reader: Callable[[Path], list[Person]], lines: list[str]) -> bool | None:
    """Append the lines of one split; True when it is whole, False when not, None when its file is absent."""
    try:
        persons = reader(base)
    except FileNotFoundError as error:
        lines.append(f"  - {split}: {error}")
        return None
    except ValueError as error:
        lines.append(f"{CROSS} {split}: {error}")
        return False
    photos = sorted({entry.image for entry in persons})
    joints = sum(labelled(entry) for entry in persons)
    lines.append(
        f"{mark(bool(persons))} {split}: {len(persons):,} persons, {len(photos):,} photographs, {joints:,} joints"
    )
    absent = missing_images(persons)
    broken = bad_photographs(photos, {persons[index].image for index in absent})
    offenders, sizeless = not_finite(persons), [i for i in without_size(persons) if labelled(persons[i])]
    finding(lines, "photographs missing", sorted({persons[index].image.name for index in absent}), fatal=True)
    finding(lines, "photographs unreadable", [text for _, text in broken[1]], fatal=True)
    finding(lines, "persons with NaN or infinite coordinates", person_names(persons, offenders), fatal=True)
    finding(lines, "persons with a scale of 0 or less", person_names(persons, sizeless), fatal=True)
    finding(
        lines, "persons with joints out of frame", person_names(persons, out_of_frame(persons, broken[0])), fatal=False
    )
    empty = [index for index, entry in enumerate(persons) if not labelled(entry)]
    finding(lines, "persons without any labelled joint (left out)", person_names(persons, empty), fatal=False)
    return bool(persons) and not (absent or broken[1] or offenders or sizeless)
