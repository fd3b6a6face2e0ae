"""What ``fastpose data check`` prints: the expected tree with a tick or cross per path, counts, first offenders."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fastpose._checks import unknown
from fastpose.data import (
    captions,
    coco,
    human36m,
    human36m_places,
    images,
    lsp,
    motion_check,
    mpi_inf_3dhp,
    mpii,
    pair_check,
    sample,
)
from fastpose.data.findings import (
    CROSS,
    TICK,
    CheckReport,
    bad_photographs,
    finding,
    listed_twice,
    mark,
    out_of_frame,
    person_names,
    same_content,
)
from fastpose.data.person import (
    Person,
    labelled,
    missing_images,
    not_finite,
    reading,
    resolve_under,
    without_size,
)
from fastpose.data.pose3d import project

# A 3D pose and its key points agree when they are this near, as a share of the crop's side.
_NEAR = 0.05


@dataclass(frozen=True)
class _Layout:
    """Expected tree of a data set: paths with what they hold; ``groups`` list alternatives, one of which must exist.

    ``places``: by path, folders in any of which the file may lie instead of the usual one.
    """

    groups: tuple[tuple[tuple[str, str], ...], ...]
    readers: dict[str, Callable[[Path], Sequence[Person]]]
    places: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


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

_H36M_FILES = tuple((each.path, each.what) for each in human36m_places.ANNOTATIONS)

_3DHP_FILES = (
    ("TS1/annot_data.mat", "official test set, TS1 to TS6"),
    ("mpi_inf_3dhp_test.npz", "mmpose, with cameras_test.pkl; test"),
    ("mpi_inf_3dhp_train.npz", "mmpose, with cameras_train.pkl; training"),
    ("test_3dhp_test.npz", "mmpose's own sample, test"),
    ("test_3dhp_train.npz", "mmpose's own sample, training"),
)


def _read_3dhp(root: Path, split: str) -> list[Person]:
    """Read a split; the official layout has no training split, which is no fault of its files."""
    try:
        return mpi_inf_3dhp.read(root, split)
    except ValueError as error:
        if split == "train" and mpi_inf_3dhp.sequence_folders(root) and "no split" in str(error):
            raise FileNotFoundError(str(error)) from None
        raise


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
    "h36m": _Layout(
        (_H36M_FILES, (("images", "S9_Posing_1.55011271_000001.jpg ..., or folders of them"), ("S1", "the same"))),
        {"train": lambda root: human36m.read(root, "train"), "val": lambda root: human36m.read(root, "val")},
        {each.path: each.places for each in human36m_places.ANNOTATIONS},
    ),
    "mpi_inf_3dhp": _Layout(
        (_3DHP_FILES,),
        {"train": lambda root: _read_3dhp(root, "train"), "test": lambda root: _read_3dhp(root, "test")},
        {path: ("", "annotations") for path, _ in _3DHP_FILES[1:]},
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
    known = (*_LAYOUTS, *pair_check.CHECKS, *motion_check.CHECKS)
    if name not in known:
        raise ValueError(unknown("data set", name, known))
    if root is None and name not in ("sample", "sample-mocap", "sample-pairs"):
        raise ValueError(f"data set {name!r} needs the folder it was unpacked to")
    folder = sample.FOLDER if root is None else Path(os.path.expanduser(root))
    if name in pair_check.CHECKS:
        return pair_check.check(name, folder)
    if name in motion_check.CHECKS:
        return motion_check.check(name, motion_check.SAMPLE if root is None else folder)
    base = _base(name, folder)
    complete, lines = _tree(name, base)
    complete = _sequences(name, base, lines) and complete
    seen: dict[str, list[Path]] = {}
    states = {split: _check_split(base, split, reader, lines, seen) for split, reader in _LAYOUTS[name].readers.items()}
    apart = _apart(list(seen.values()), lines)
    if name == "coco":
        apart = not [split for split in seen if not _as_annotated(base, split, lines)] and apart
    ready = _ready(states) if complete and apart else ""
    if name == "coco":
        _spoken(base, [split for split, state in states.items() if state is not None], lines)
    lines.append(f"{name}: {ready or 'not ready, see the crosses above'}")
    return CheckReport(name, str(base), bool(ready), tuple(lines))


def _ready(states: dict[str, bool | None]) -> str:
    """Return which splits are whole, and which have no file; "" when one is broken or none is whole."""
    whole, absent = ([split for split, state in states.items() if state is wanted] for wanted in (True, None))
    if not whole or len(whole) + len(absent) < len(states):
        return ""
    if not absent:
        return "ready"
    return f"ready for: {', '.join(whole)}; {', '.join(absent)} is not there, see the dash above"


def _base(name: str, root: Path) -> Path:
    """Step into the usual sub-folder of LSP's and MPI-INF-3DHP's archives."""
    if name == "mpi_inf_3dhp" and (root / "mpi_inf_3dhp_test_set").is_dir():
        return root / "mpi_inf_3dhp_test_set"
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
        paths = [_found(base, path, _LAYOUTS[name].places.get(path, ())) for path, _ in group]
        found = [(base / path).exists() for path in paths]
        complete = complete and any(found)
        for path, (_, what), there in zip(paths, group, found, strict=True):
            # Where alternatives exist, an absent one is a dash, not a cross.
            sign = mark(there) if there or not any(found) else "-"
            lines.append(f"  {sign} {path:<44} {what}")
        if len(group) > 1 and not any(found):
            lines.append(f"    (one of these {len(group)} is needed)")
    return complete, lines


def _found(base: Path, path: str, places: tuple[str, ...]) -> str:
    """Return where a file is: at its usual path, or in one of the places; the usual path when it is nowhere."""
    others = [(Path(place) / Path(path).name).as_posix() for place in places]
    return next((other for other in (path, *others) if (base / other).exists()), path)


def _sequences(name: str, base: Path, lines: list[str]) -> bool:
    """Append the sequences that MPI-INF-3DHP's official test set lacks; True where it is whole or not there at all."""
    there = [path.name for path in mpi_inf_3dhp.sequence_folders(base)] if name == "mpi_inf_3dhp" else []
    absent = [each for each in mpi_inf_3dhp.SEQUENCES if each not in there] if there else []
    finding(lines, "sequences of the test set missing", absent, fatal=True)
    return not absent


def _check_split(
    base: Path,
    split: str,
    reader: Callable[[Path], Sequence[Person]],
    lines: list[str],
    seen: dict[str, list[Path]],
) -> bool | None:
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
    seen[split] = photos
    apart = _poses(persons, lines)
    whole = _persons(persons, photos, lines)
    return bool(persons) and whole and not apart


def _persons(persons: Sequence[Person], photos: Sequence[Path], lines: list[str]) -> bool:
    """Append who of a split cannot be trained on, and who is odd; True when all that counts is there."""

    def found(what: str, indices: Sequence[int], *, fatal: bool = False) -> bool:
        finding(lines, what, person_names(persons, indices), fatal=fatal)
        return fatal and bool(indices)

    absent = missing_images(persons)
    sizes, broken = bad_photographs(photos, {persons[index].image for index in absent})
    finding(lines, "photographs missing", sorted({persons[index].image.name for index in absent}), fatal=True)
    finding(lines, "photographs unreadable", [text for _, text in broken], fatal=True)
    sizeless = [index for index in without_size(persons) if labelled(persons[index])]
    empty = [index for index, entry in enumerate(persons) if not labelled(entry)]
    flat = [index for index, entry in enumerate(persons) if entry.bbox is not None and not (entry.bbox[2:] > 0).all()]
    bad = [
        found("persons with NaN or infinite coordinates", not_finite(persons), fatal=True),
        found("persons with a scale of 0 or less", sizeless, fatal=True),
        found("persons with joints out of frame", out_of_frame(persons, sizes)),
        found("persons with a box without width or height", flat),
        found("persons listed twice", listed_twice(persons)),
        found("persons without any labelled joint (left out)", empty),
    ]
    if persons and len(empty) == len(persons):
        lines.append(f"  {CROSS} nobody has a labelled joint: there is nothing to train on")
    return len(empty) < len(persons) and not (absent or broken or any(bad))


def _apart(splits: Sequence[Sequence[Path]], lines: list[str]) -> bool:
    """Append the photographs that two splits share; True when there are none."""
    if len(splits) < 2:
        return True
    shared = sorted(set(splits[0]) & set(splits[1]))
    finding(lines, "photographs in both splits", [path.name for path in shared], fatal=True)
    others = [sorted(set(split) - set(shared)) for split in splits]
    copies = same_content(others[0], others[1])
    finding(lines, "photographs of one split that are copies of the other's", copies, fatal=False)
    return not shared


def _as_annotated(base: Path, split: str, lines: list[str]) -> bool:
    """Append COCO's photographs that have another size than the annotation says; True when there are none."""
    path = coco.annotation_path(base, split)
    changed = []
    try:
        with reading(path, "an image"):
            for entry in coco.read_content(path)["images"]:
                photo = resolve_under(base / f"{split}2017", entry["file_name"], path)
                with suppress(OSError, ValueError):  # absent and unreadable ones are told already
                    found, told = images.image_size(photo), (entry.get("height"), entry.get("width"))
                    if None not in told and found != told:
                        changed.append(f"{photo.name} ({found[1]} x {found[0]}, annotated {told[1]} x {told[0]})")
    except ValueError as error:  # of a photograph without persons, which training takes no notice of
        lines.append(f"  {CROSS} {error}")
        return False
    finding(lines, f"photographs of {split} of another size than annotated", changed, fatal=True)
    return not changed


def _spoken(base: Path, splits: Sequence[str], lines: list[str]) -> None:
    """Append what COCO's splits hold for poses from captions (system 004); the other systems need none of it."""
    for split in splits:
        try:
            found = captions.usable(base, split)
        except (ValueError, OSError) as error:
            lines.append(f"  ! poses from captions, {split}: {error}")
            continue
        told = f"{found.captions:,} captions of {found.photographs:,} photographs"
        absent = f"no captions, expected annotations/captions_{split}2017.json"
        lines.append(f"  {TICK if found.captions else '-'} {split}: {told if found.captions else absent}")
        lines.append(
            f"    poses from captions (no photograph needed): {found.poses:,} persons of {captions.MINIMUM_JOINTS} "
            f"joints or more, {found.captioned:,} of them alone on a photograph with captions"
        )
        flat = [str(number) for number in found.flat]
        finding(lines, "of these persons with a box without width or height (left out)", flat, fatal=False)


def _poses(persons: Sequence[Person], lines: list[str]) -> bool:
    """Append who does what in the 3D poses, if there are any; True when poses and key points are not of one person."""
    poses = [entry.pose3d for entry in persons if entry.pose3d is not None]
    if not poses:
        return False
    seen = [entry for entry in persons if entry.pose3d is not None and entry.pose3d.intrinsics is not None]
    subjects, actions = (sorted({getattr(pose, what) for pose in poses} - {""}) for what in ("subject", "action"))
    lines.append(
        f"    {len(poses):,} 3D poses, {len(seen):,} with a camera; subjects {', '.join(subjects) or 'not named'}; "
        f"{len(actions)} actions, {len({pose.clip for pose in poses})} recordings"
    )
    away = [index for index, entry in enumerate(persons) if _is_away(entry)]
    what = f"3D poses that project farther than {_NEAR:.0%} of the crop from their key points"
    finding(lines, what, person_names(persons, away), fatal=True)
    return bool(away)


def _is_away(entry: Person) -> bool:
    """Whether a 3D pose seen by its camera is not where the key points are."""
    pose = entry.pose3d
    if pose is None or pose.intrinsics is None or not np.isfinite(pose.joints).all():
        return False
    if not (pose.joints[:, 2] > 0).all():
        return True
    distances = np.linalg.norm(project(pose.joints, pose.intrinsics) - entry.keypoints, axis=1)
    return bool((distances[entry.visibility > 0] > _NEAR * 200.0 * entry.scale).any())
