"""Files of pose-transfer data sets: persons and pairs in the layouts of systems 001 (PATN's) and 003."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastpose import _checks, skeletons
from fastpose.data import pairs
from fastpose.data.keypoint_tables import KeypointTable, file_id, read_table
from fastpose.data.person import Person, existing, missing_images, person, resolve_under


@dataclass(frozen=True)
class Layout:
    """Where a data set's files are.

    Attributes:
        name: registry name.
        folders: usual sub-folders that hold the files, besides the root itself.
        annotations, lists: file names with ``{split}``; the first that is there counts.
        group: identity of the person (or item and colour) from an image's name, "" where the name tells none.
        apart: what of an identity must not be divided by ``holdout``.
        size: (H, W) of the images that the tables count pixels of.
        photos: folders of the images with ``{split}``; the first that is there counts.
    """

    name: str
    folders: tuple[str, ...]
    annotations: tuple[str, ...]
    lists: tuple[str, ...]
    group: Callable[[str], str]
    apart: Callable[[str], str]
    size: tuple[int, int]
    photos: tuple[str, ...] = ("{split}",)


def market_identity(name: str) -> str:
    """Return the person's number of a Market-1501 image, the part before the first "_"; "" for distractors."""
    identity = name.replace("\\", "/").rsplit("/", 1)[-1].split("_")[0]
    return identity if identity.isdigit() and identity != "0000" else ""


def market_camera(name: str) -> int:
    """Return the camera's number of a Market-1501 image (3 in ``0001_c3s1_000551_03.jpg``), -1 where it has none."""
    match = re.search(r"_c(\d+)s\d", name)
    return int(match[1]) if match else -1


def fashion_identity(name: str) -> str:
    """Return item and colour of a DeepFashion image, its flattened name up to ``id########`` and two digits.

    One item in another colour is another identity: only then are the published pairs all pairs of one identity, and the
    published training and test lists disjoint.
    """
    match = re.match(r".*?id_?\d{8}\d{2}", file_id(name))
    return match[0] if match else ""


def fashion_item(identity: str) -> str:
    """Return the item, all colours together, of ``fashion_identity``."""
    return identity[:-2]


MARKET = Layout(
    "market",
    ("market_data",),
    ("market-annotation-{split}.csv", "{split}_img_keypoints.csv"),
    ("market-pairs-{split}.csv", "{split}_img_pairs.csv"),
    market_identity,
    str,
    (128, 64),
    ("{split}", "bounding_box_{split}"),
)
# The authors of system 001 spell it "fasion".
_STEMS = ("fasion", "fashion", "fasion-resize", "fashion-resize")
DEEPFASHION = Layout(
    "deepfashion",
    ("fashion_data",),
    (*(f"{stem}-annotation-{{split}}.csv" for stem in _STEMS), "{split}_img_keypoints.csv"),
    (*(f"{stem}-pairs-{{split}}.csv" for stem in _STEMS), "{split}_img_pairs.csv"),
    fashion_identity,
    fashion_item,
    (256, 256),
)


@dataclass(frozen=True)
class PairsRead:
    """Persons and pairs of one list as read, and where they are from.

    Attributes:
        base: folder of the files.
        persons: one per row of the table.
        pairs: int64 (P, 2), indices into ``persons``.
        unknown: images of the pair list that have no row; their pairs are left out.
        table: the key points as read.
    """

    base: Path
    persons: list[Person]
    pairs: np.ndarray
    unknown: list[str]
    table: KeypointTable


def folder(layout: Layout, root: str | Path) -> Path:
    """Return the folder that holds the files: ``root`` or its usual sub-folder."""
    root = Path(root)
    for candidate in (root, *(root / part for part in layout.folders)):
        if any(annotated(layout, candidate, split) for split in ("train", "test")):
            return candidate
    return root


def annotated(layout: Layout, base: Path, split: str) -> bool:
    """Whether a split has its key points."""
    return _first(base, layout.annotations, split) is not None


def _first(base: Path, names: Sequence[str], split: str) -> Path | None:
    """Return the first of the files that is there."""
    return next(
        (base / name.format(split=split) for name in names if (base / name.format(split=split)).is_file()), None
    )


def list_split(layout: Layout, base: Path, split: str, holdout: float, named: bool = False) -> str:
    """Return the split whose files a split is read from: with ``holdout``, "train" and "val" share one.

    Raises ``ValueError`` for "test" where they share the test list, or the list that was ``named`` for any split.
    """
    _checks.choice("split", split, ("train", "test", "val"))
    if not holdout:
        if split == "val":
            raise ValueError(
                f"{layout.name} has no split 'val': pass data.holdout=0.2 to hold out a fifth, or use 'test'"
            )
        return split
    shared = "train" if annotated(layout, base, "train") else "test"
    if split == "test" and (named or shared == "test"):
        raise ValueError(
            f"{layout.name}: holdout={holdout:g} divides the {'named' if named else 'test'} list into 'train' and "
            "'val'; split 'test' would be both of them, use 'val' or drop holdout"
        )
    return "test" if split == "test" else shared


def read_pairs(
    layout: Layout,
    root: str | Path,
    split: str,
    annotation: str | None = None,
    pair_list: str | None = None,
    rule: str = "published",
    holdout: float = 0.0,
) -> PairsRead:
    """Read persons and pairs of a split, unchecked; ``rule`` is "published" or "all"."""
    _checks.choice("pairs", rule, ("published", "all"))
    base = folder(layout, root)
    listed = list_split(layout, base, split, holdout, bool(pair_list if rule == "published" else annotation))
    table = read_table(_file(layout, base, listed, layout.annotations, annotation, "annotation"))
    if rule == "published":
        names = pairs.read_list(_file(layout, base, listed, layout.lists, pair_list, "pair list"))
        persons, numbers, unknown = _listed(layout, base, listed, table, names)
    else:
        persons = _persons(layout, base, listed, table, _image_names(base, table))
        unknown = []
        numbers = pairs.generate([entry.identity for entry in persons], pairs.with_torso(_visibility(persons)))
    if holdout:
        numbers = _part(layout, persons, numbers, split, holdout)
    return PairsRead(base, persons, numbers, unknown, table)


def _visibility(persons: Sequence[Person]) -> np.ndarray:
    return np.array([entry.visibility for entry in persons]).reshape(-1, len(skeletons.OPENPOSE))


def _file(layout: Layout, base: Path, split: str, names: Sequence[str], given: str | None, what: str) -> Path:
    """Return a file that was named, or the usual one of a split; FileNotFoundError says what tree is expected."""
    if given:
        return existing(layout.name, base / given, what)
    found = _first(base, names, split)
    if found is None:
        usual = names[0].format(split=split)
        way_out = "; pass pairs=all to pair the annotated images" if what == "pair list" else ""
        if what == "annotation" and split == "train" and _first(base, names, "test"):
            way_out = "; pass data.holdout=0.2 to divide the test list by identity"
        raise FileNotFoundError(
            f"{layout.name}: {what} {base / usual} not found{way_out}; expected {base}/{{{split}/*.jpg, "
            f"{layout.annotations[0].format(split=split)}, {layout.lists[0].format(split=split)}}} "
            f"(see fastpose data check {layout.name} {base})"
        )
    return found


def _listed(
    layout: Layout, base: Path, split: str, table: KeypointTable, names: list[tuple[str, str]]
) -> tuple[list[Person], np.ndarray, list[str]]:
    """Return the table's persons, the pairs of a list among them, and the images of the list that it lacks."""
    keys = [(file_id(a), file_id(b)) for a, b in names] if table.by_id else names
    numbers, unknown = pairs.link(keys, {name: row for row, name in enumerate(table.names)})
    spelled = dict(zip((key for pair in keys for key in pair), (name for pair in names for name in pair), strict=True))
    image_names = [spelled.get(name, name) for name in table.names] if table.by_id else table.names
    return _persons(layout, base, split, table, image_names), numbers, unknown


def photo_folder(layout: Layout, base: Path, split: str) -> Path:
    """Return the folder of a split's images; the usual one when none is there."""
    folders = [base / name.format(split=split) for name in layout.photos]
    return next((path for path in folders if path.is_dir()), folders[0])


def _image_names(base: Path, table: KeypointTable) -> Sequence[str]:
    """Return the image of every row; for a table of file ids the images on the disk tell."""
    if not table.by_id:
        return table.names
    known = {}
    for path in sorted(base.rglob("*.*")):  # of two images of one id the last is taken, on every disk the same
        if path.suffix.lower() in (".jpg", ".jpeg", ".png"):
            name = path.relative_to(base).as_posix()
            known[file_id(name)] = name
    return [known.get(name, f"{name}.jpg") for name in table.names]


def _persons(layout: Layout, base: Path, split: str, table: KeypointTable, image_names: Sequence[str]) -> list[Person]:
    """Return a person per row; PATN's images lie in a folder per split, those of file ids under the root."""
    photos = base if table.by_id else photo_folder(layout, base, split)
    height, width = layout.size
    center = np.array([(width - 1) / 2, (height - 1) / 2])
    return [
        person(
            resolve_under(photos, name, table.path),
            table.keypoints[row],
            table.visibility[row],
            center,
            height / 200.0,
            image_id=row,
            person_id=row,
            identity=layout.group(name),
        )
        for row, name in enumerate(image_names)
    ]


def _part(layout: Layout, persons: Sequence[Person], numbers: np.ndarray, split: str, holdout: float) -> np.ndarray:
    """Return the pairs of "val" (held-out identities) or of "train" (the others)."""
    if split == "test":
        return numbers
    groups = [layout.apart(entry.identity) for entry in persons]
    held = pairs.held_out([groups[index] for index in np.unique(numbers)], holdout)
    inside = np.array([groups[first] in held for first in numbers[:, 0]], dtype=bool)
    return numbers[inside if split == "val" else ~inside]


def finish(
    layout: Layout, found: PairsRead, on_missing: str, check_identities: bool, keep_unpaired: bool
) -> tuple[list[Person], np.ndarray]:
    """Hold pairs to the rules of training: one identity, photographs on the disk; return persons used and pairs.

    Raises ``FileNotFoundError`` for absent photographs (unless ``on_missing`` is "drop"), ``ValueError`` for a pair of
    two identities and when no pair is left.
    """
    _checks.choice("missing_images", on_missing, ("error", "drop"))
    if found.unknown and on_missing == "error":
        raise ValueError(
            f"{layout.name}: {len(found.unknown):,} images of the pair list have no row in {found.table.path}, first "
            f"{found.unknown[0]}; name the annotation that belongs to the list, or pass missing_images=drop"
        )
    persons, numbers = found.persons, found.pairs
    used = np.arange(len(persons)) if keep_unpaired else np.unique(numbers)
    absent = {int(used[index]) for index in missing_images([persons[index] for index in used])}
    if absent and on_missing == "error":
        first = persons[min(absent)].image
        raise FileNotFoundError(
            f"{layout.name}: {len(used) - len(absent):,} of {len(used):,} images found under "
            f"{first.parent}; first missing: {first.name}; add them or pass missing_images=drop "
            f"(see fastpose data check {layout.name} {found.base})"
        )
    numbers = numbers[~np.isin(numbers, list(absent)).any(1)]
    if check_identities:
        _one_identity(layout, persons, numbers)
    if not len(numbers):
        raise ValueError(
            f"{layout.name}: no pair left under {found.base} (see fastpose data check {layout.name} {found.base})"
        )
    if keep_unpaired:
        kept = np.setdiff1d(used, list(absent))
        return [persons[index] for index in kept], np.searchsorted(kept, numbers)
    kept, numbers = pairs.only_used(numbers, len(persons))
    return [persons[index] for index in kept], numbers


def _one_identity(layout: Layout, persons: Sequence[Person], numbers: np.ndarray) -> None:
    for row in pairs.different_identities(numbers, [entry.identity for entry in persons])[:1]:
        first, second = (persons[index] for index in numbers[row])
        raise ValueError(
            f"{layout.name}: pair {first.image.name}, {second.image.name} is of identities {first.identity!r} and "
            f"{second.identity!r}; expected one and the same, or pass check_identities=no"
        )
