"""``fastpose data check`` for pairs: files, images, identities, pairs, what train and test share, first offenders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from fastpose.data import fonts, pair_layouts, pairs, photo_pairs, pose_transfer, sample, semantic
from fastpose.data.findings import (
    CROSS,
    CheckReport,
    bad_photographs,
    finding,
    mark,
    out_of_frame,
    person_names,
    same_content,
)
from fastpose.data.pair_layouts import DEEPFASHION, MARKET, Layout, PairsRead
from fastpose.data.person import Person, labelled, missing_images

State = bool | None
"""True: whole; False: broken; None: not there."""

READY = "ready"


def check(name: str, root: Path) -> CheckReport:
    """Check one of ``CHECKS`` on the disk; everything wrong with the data is in the lines."""
    lines = [f"{mark(root.is_dir())} {root}/"]
    try:
        ready = CHECKS[name](root, lines) if root.is_dir() else ""
    except (ValueError, FileNotFoundError) as error:
        lines.append(f"{CROSS} {error}")
        ready = ""
    lines.append(f"{name}: {ready or 'not ready, see the crosses above'}")
    return CheckReport(name, str(root), bool(ready), tuple(lines))


def _published(layout: Layout, root: Path, lines: list[str]) -> str:
    """Check Market-1501 or DeepFashion: both splits, and what they share; return what is ready, "" when nothing is."""
    base = pair_layouts.folder(layout, root)
    reads: dict[str, PairsRead] = {}
    states: dict[str, State] = {}
    for split in ("train", "test"):
        _files(layout, base, split, lines)
        states[split] = _split(layout, base, split, reads, lines)
    apart = len(reads) < 2 or _shared(layout, reads["train"], reads["test"], lines)
    return _ready(layout, states) if apart else ""


def _ready(layout: Layout, states: dict[str, State]) -> str:
    """Return what two splits are ready for, and what the one that is not there needs; "" when one is broken."""
    whole, absent = ([split for split, state in states.items() if state is wanted] for wanted in (True, None))
    if not whole or len(whole) + len(absent) < len(states):
        return ""
    if not absent:
        return READY
    files = ", ".join(names[0].format(split=absent[0]) for names in (layout.annotations, layout.lists, layout.photos))
    return (
        f"{READY} for: {whole[0]}; {absent[0]} needs {files}/, or data.holdout=0.2, which divides the {whole[0]} list "
        "into train and val"
    )


def _files(layout: Layout, base: Path, split: str, lines: list[str]) -> None:
    """Append the tree of a split: the file that is there, else the usual name."""
    for names, what in ((layout.annotations, "key points"), (layout.lists, "pairs")):
        usual = [name.format(split=split) for name in names]
        there = [name for name in usual if (base / name).is_file()]
        lines.append(f"  {mark(True) if there else '-'} {(there or usual)[0]:<44} {what}, {split}")
    photos = pair_layouts.photo_folder(layout, base, split)
    photos = photos if photos.is_dir() or not (base / "img").is_dir() else base / "img"
    lines.append(f"  {mark(True) if photos.is_dir() else '-'} {photos.name + '/':<44} images, {split}")


def _split(layout: Layout, base: Path, split: str, reads: dict[str, PairsRead], lines: list[str]) -> State:
    """Append what one split holds; remember it in ``reads``."""
    try:
        found = pair_layouts.read_pairs(layout, base, split)
    except FileNotFoundError as error:
        # Key points without their list are no split to train on unless pairs=all makes one: the sentence says so.
        there = pair_layouts.annotated(layout, base, split)
        lines.append(f"{CROSS if there else '  -'} {split}: {error}")
        return False if there else None
    except ValueError as error:
        lines.append(f"{CROSS} {split}: {error}")
        return False
    reads[split] = found
    used = [found.persons[index] for index in np.unique(found.pairs)]
    good = _count(split, used, len(found.pairs), lines)
    identities = [entry.identity for entry in found.persons]
    strange = pairs.different_identities(found.pairs, identities)
    finding(lines, "images of the pair list without key points", found.unknown, fatal=True)
    finding(lines, "pairs of two identities, or of none", _pair_names(found, strange), fatal=True)
    repeats = _pair_names(found, pairs.repeated(found.pairs))
    finding(lines, "pairs that repeat an earlier one", repeats, fatal=False)
    absent = missing_images(used)
    gone = np.isin(found.pairs, np.unique(found.pairs)[absent]).any(1)
    itself = _pair_names(found, np.flatnonzero(found.pairs[:, 0] == found.pairs[:, 1]))
    finding(lines, "pairs of an image with itself", itself, fatal=False)
    finding(lines, "pairs that name an absent image", _pair_names(found, np.flatnonzero(gone)), fatal=True)
    good = _photographs(layout, used, absent, found, lines) and good
    return good and not (found.unknown or len(strange) or absent)


def _count(split: str, persons: Sequence[Person], number: int, lines: list[str]) -> bool:
    identities = {entry.identity for entry in persons if entry.identity}
    lines.append(
        f"{mark(number > 0)} {split}: {len(persons):,} images, {len(identities):,} identities, {number:,} pairs"
    )
    return number > 0


def _pair_names(found: PairsRead, rows: np.ndarray) -> list[str]:
    return [
        " and ".join(found.persons[index].image.name for index in found.pairs[row].tolist()) for row in rows.tolist()
    ]


def _photographs(
    layout: Layout, used: Sequence[Person], absent: Sequence[int], found: PairsRead, lines: list[str]
) -> bool:
    """Append what is wrong with images and joints of a split's pairs."""
    photos = sorted({entry.image for entry in used})
    sizes, broken = bad_photographs(photos, {used[index].image for index in absent})
    finding(lines, "images unreadable", [text for _, text in broken], fatal=True)
    allowed = {layout.size, (256, 176)} if layout is DEEPFASHION else {layout.size}
    odd = [f"{path.name} ({size[1]} x {size[0]})" for path, size in sizes.items() if size not in allowed]
    wanted = " or ".join(f"{size[1]} x {size[0]}" for size in sorted(allowed, reverse=True))
    finding(lines, f"images that are not {wanted}", odd, fatal=True)
    mixed = len(set(sizes.values())) > 1 and not odd
    finding(lines, "sizes in one split", [f"{size[1]} x {size[0]}" for size in set(sizes.values())] * mixed, fatal=True)
    placed, known = list(used), True
    if layout is DEEPFASHION and not odd:
        known, placed = _in_stored_frame(used, found, lines)
    outside = [used[index].image.name for index in out_of_frame(placed, sizes)]
    finding(lines, "images with joints out of frame", outside, fatal=False)
    empty = [entry.image.name for entry in used if not labelled(entry)]
    finding(lines, "images without any joint", empty, fatal=bool(used) and len(empty) == len(used))
    return known and len(empty) < len(used) and not (broken or odd or mixed)


def _in_stored_frame(used: Sequence[Person], found: PairsRead, lines: list[str]) -> tuple[bool, list[Person]]:
    """Return whether the annotation's frame can be told, and the persons with joints in the stored images' pixels."""
    try:
        frame = pose_transfer.frame_width(found.table)
        width = pose_transfer.stored_width(used)
    except ValueError as error:
        lines.append(f"  {CROSS} {error}")
        return False, list(used)
    lines.append(f"  {mark(True)} images {width} columns wide, key points count columns of {frame}")
    return True, pose_transfer.in_stored_frame(used, frame, width)


def _shared(layout: Layout, train: PairsRead, test: PairsRead, lines: list[str]) -> bool:
    """Append the identities that both splits have, and for items the ones that come in other colours."""
    groups = [{read.persons[index].identity for index in np.unique(read.pairs)} - {""} for read in (train, test)]
    both = sorted(groups[0] & groups[1])
    lines.append(f"{mark(not both)} train and test share {len(both):,} identities")
    finding(lines, "identities in train and test", both, fatal=True)
    items = [{layout.apart(identity) for identity in group} for group in groups]
    others = sorted(items[0] & items[1]) if layout is DEEPFASHION else []
    finding(lines, "items in train and test, in different colours", others, fatal=False)
    photos = [sorted({read.persons[index].image for index in np.unique(read.pairs)}) for read in (train, test)]
    finding(lines, "images of train that are copies of test's", same_content(photos[0], photos[1]), fatal=False)
    return not both


def _photos(root: Path, lines: list[str]) -> str:
    """Check a user's own photographs, and name those that are left out."""
    found = photo_pairs.read(root)
    persons = found.persons
    numbers = pairs.generate([entry.identity for entry in persons], [True] * len(persons))
    good = _count("all", persons, len(numbers), lines)
    few = [f"{_place(path)} ({joints})" for path, joints in found.too_few]
    finding(lines, "photographs with too few joints (left out)", few, fatal=False)
    finding(lines, "photographs without key points (left out)", [_place(path) for path in found.without], fatal=False)
    single = [_place(persons[row].image) for row in sorted(set(range(len(persons))) - set(numbers.ravel().tolist()))]
    finding(lines, "photographs alone in their folder (in no pair)", single, fatal=False)
    broken = _unreadable([entry.image for entry in persons], lines)
    return READY if good and not broken else ""


def _place(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def _unreadable(photos: Sequence[Path], lines: list[str]) -> bool:
    broken = bad_photographs(sorted(set(photos)), set())[1]
    finding(lines, "images unreadable", [text for _, text in broken], fatal=True)
    return bool(broken)


def _sample_pairs(root: Path, lines: list[str]) -> str:
    """Check the bundled persons."""
    good = True
    for split in ("train", "val"):
        persons = sample.read(root, split)
        broken = bad_photographs([entry.image for entry in persons], set())[1]
        good = _count(split, persons, 2 * len(persons), lines) and good and not broken
        finding(lines, "images unreadable", [text for _, text in broken], fatal=True)
        empty = [index for index, entry in enumerate(persons) if not labelled(entry)]
        finding(lines, "persons without any joint", person_names(persons, empty), fatal=False)
    return READY if good else ""


def _fonts(root: Path, lines: list[str]) -> str:
    """Check a folder of fonts and its splits, and name the fonts that are of no use, in no split, or copies."""
    found = fonts.read(root)
    most = len(fonts.LETTERS) * (len(fonts.LETTERS) - 1)
    lines.append(
        f"{mark(bool(found.fonts))} {len(found.fonts):,} fonts with all {len(fonts.LETTERS)} capitals, up to "
        f"{len(found.fonts) * most:,} pairs"
    )
    finding(lines, "fonts of no use (pass unusable=skip)", [reason for _, reason in found.unusable], fatal=False)
    copies = _copies(root, found.fonts)
    finding(lines, "fonts that are copies of another (they count as one font)", copies, fatal=False)
    splits = {split: fonts.in_split(root, found.fonts, split) for split in ("train", "test")}
    for split, inside in splits.items():
        lines.append(f"{mark(bool(inside))} {split}: {len(inside):,} fonts")
    left = [
        path.relative_to(root).as_posix() for path in found.fonts if not any(path in part for part in splits.values())
    ]
    finding(lines, "fonts in neither split", left, fatal=False)
    both = sorted(set(splits["train"].values()) & set(splits["test"].values()))
    finding(lines, "fonts in train and test", both, fatal=True)
    return READY if all(splits.values()) and not both else ""


def _copies(root: Path, found: dict[Path, str]) -> list[str]:
    """Return the fonts whose content an earlier file has too."""
    first: dict[str, Path] = {}
    named = [(path, first.setdefault(identity, path)) for path, identity in found.items()]
    return [" of ".join(each.relative_to(root).as_posix() for each in pair) for pair in named if pair[0] != pair[1]]


def _semantic(root: Path, lines: list[str]) -> str:
    """Check DeepFashion, and the maps of its images."""
    ready = _published(DEEPFASHION, root, lines)
    base = pair_layouts.folder(DEEPFASHION, root)
    known = semantic.map_files(semantic.maps_folder(root))
    lines.append(f"{mark(bool(known))} {semantic.FOLDER}/: {len(known):,} maps")
    whole = [_maps(base, split, known, lines) for split in ("train", "test")]
    return ready if any(state is True for state in whole) and not any(state is False for state in whole) else ""


def _maps(base: Path, split: str, known: dict[str, Path], lines: list[str]) -> State:
    """Append how many pairs of a split have both maps, and the maps that cannot be read."""
    try:
        found = pair_layouts.read_pairs(DEEPFASHION, base, split)
    except (FileNotFoundError, ValueError):
        return None
    maps = semantic.match_maps(known, [entry.image for entry in found.persons])
    there = np.array([path is not None for path in maps])[found.pairs].all(1)
    lines.append(f"  {mark(bool(there.any()))} {split}: {int(there.sum()):,} of {len(there):,} pairs have both maps")
    used = {maps[index] for index in np.unique(found.pairs[there])}
    labels = semantic.hold_labels(sorted(known.values()))
    bad = [text for path in sorted(path for path in used if path) if (text := _map_error(path, labels))]
    finding(lines, "maps unreadable or in other colours (palette=auto reads the colours from them)", bad, fatal=True)
    return bool(there.any()) and not bad


def _map_error(path: Path, labels: bool) -> str:
    try:
        semantic.read_map(path, labels=labels)
    except (ValueError, OSError) as error:
        return str(error)
    return ""


CHECKS: dict[str, Callable[[Path, list[str]], str]] = {
    "market": lambda root, lines: _published(MARKET, root, lines),
    "deepfashion": lambda root, lines: _published(DEEPFASHION, root, lines),
    "photos": _photos,
    "sample-pairs": _sample_pairs,
    "semantic": _semantic,
    "fonts": _fonts,
}
