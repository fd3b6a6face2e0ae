"""Poses with the captions of their photographs: COCO's key points and captions, joined by the photograph's number."""

from __future__ import annotations

import functools
import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastpose import _checks, skeletons
from fastpose.data import coco
from fastpose.data import sample as bundled
from fastpose.data.pairs import held_out
from fastpose.data.person import Built, frozen, read_rows, reading
from fastpose.skeletons import Skeleton

SIDE = 64
"""Height and width of the map in whose pixels poses are given."""

MINIMUM_JOINTS = 8
"""Persons with fewer labelled joints are left out (system 004, section 4.2)."""

_ANNOTATIONS, _CAPTIONS = "annotations/person_keypoints_{}2017.json", "annotations/captions_{}2017.json"
PERSONS = ("all", "single")
SAMPLE = bundled.FOLDER / "captions.json"
SAMPLE_VECTORS = bundled.FOLDER / "caption_vectors.npz"

_SMALLEST, _FARTHEST = 1e-3, 1e7
"""In pixels: a box that is not wider has no width, and no photograph reaches so far."""

_log = logging.getLogger("fastpose.data")


@dataclass(frozen=True, eq=False)
class CaptionedPoses:
    """Poses of a data set and split, and the captions of their photographs; no photograph is needed.

    Attributes:
        name: of the data set.
        split: as it was asked for.
        skeleton: layout of the joints.
        keypoints: float32 (N, 17, 2), (x, y) in pixels of the 64 x 64 map (``normalise``); 0 where unlabelled. A joint
            outside of its person's box may lie outside of the map, as published.
        visibility: uint8 (N, 17), 0 unlabelled, 1 labelled but occluded, 2 visible; 1 counts as visible.
        boxes: float64 (N, 4), x, y, width, height in pixels of the photograph.
        image_ids, person_ids: int64 (N,), numbers of photograph and person in the data set.
        captions: all M captions of the photographs of these poses, without line breaks.
        caption_image: int64 (M,), the photograph of each caption.
        first, count: int64 (N,): pose i has the captions ``first[i]`` to ``first[i] + count[i] - 1``; ``count`` is 0
            where its photograph has none.
    """

    name: str
    split: str
    keypoints: np.ndarray
    visibility: np.ndarray
    boxes: np.ndarray
    image_ids: np.ndarray
    person_ids: np.ndarray
    captions: tuple[str, ...]
    caption_image: np.ndarray
    first: np.ndarray
    count: np.ndarray
    skeleton: Skeleton = skeletons.COCO

    def __len__(self) -> int:
        return len(self.keypoints)

    @functools.cached_property
    def fingerprint(self) -> str:
        """What tells these poses and captions from others, 16 hexadecimal digits."""
        found = hashlib.sha256("\n".join(self.captions).encode("utf-8", "surrogatepass"))
        for array in (self.keypoints, self.visibility, self.image_ids, self.first, self.count):
            found.update(np.ascontiguousarray(array).tobytes())
        return found.hexdigest()[:16]

    def own_captions(self, index: int) -> tuple[str, ...]:
        """Return the captions of a pose."""
        return self.captions[self.first[index] : self.first[index] + self.count[index]]


class Usable(NamedTuple):
    """What a folder holds for system 004.

    Attributes:
        poses: persons with enough joints.
        captioned: those of them who are listed alone on a photograph with captions.
        flat: numbers of the persons with enough joints, but with a box without width or height.
        captions, photographs: different captions of each photograph, and photographs with captions.
    """

    poses: int
    captioned: int
    flat: tuple[int, ...]
    captions: int
    photographs: int


class _Row(NamedTuple):
    """One annotation as published: key points (17, 3), box (4,)."""

    person_id: int
    image_id: int
    crowd: bool
    table: np.ndarray
    box: np.ndarray

    @property
    def joints(self) -> int:
        """Return how many joints are labelled; the file's own count may disagree."""
        return int(np.count_nonzero(self.table[:, 2] > 0))

    @property
    def has_size(self) -> bool:
        return bool((self.box[2:] > _SMALLEST).all())


def normalise(keypoints: np.ndarray, bbox: np.ndarray) -> np.ndarray:
    """Move key points (..., K, 2) of a photograph into the 64 x 64 map, float64: the longer side of the person's box
    fills it, the shorter one is in its middle, without a margin.

    ``bbox`` (..., 4) is x, y, width, height. The box's corner comes to 0 and its other end to 64, half a pixel beyond
    the map's edge, as published. What lies outside of the box stays outside.

    Raises:
        ValueError: a box without width or height, or that is not finite.
    """
    center, side = _square(bbox)
    return (np.asarray(keypoints, np.float64) - center) * (SIDE / side) + SIDE / 2


def denormalise(points: np.ndarray, bbox: np.ndarray) -> np.ndarray:
    """Move points (..., K, 2) of the map back into the photograph: the inverse of ``normalise``, which it raises as."""
    center, side = _square(bbox)
    return (np.asarray(points, np.float64) - SIDE / 2) * (side / SIDE) + center


def _square(bbox: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the centre (..., 1, 2) and the longer side (..., 1, 1) of boxes."""
    box = np.asarray(bbox, np.float64)
    if box.shape[-1:] != (4,) or not np.isfinite(box).all() or not (box[..., 2:] > 0).all():
        raise ValueError(f"bbox: expected (..., 4) of x, y and a positive width and height, got {_short(box)}")
    center = box[..., :2] + box[..., 2:] / 2
    return center[..., None, :], box[..., 2:].max(-1)[..., None, None]


def _short(box: np.ndarray) -> str:
    return str(box.tolist()) if box.ndim == 1 else f"an array {box.shape}"


def read_coco(
    root: str | Path,
    split: str = "train",
    *,
    annotations: Sequence[str] = (),
    captions: Sequence[str] = (),
    persons: str = "all",
    minimum_joints: int = MINIMUM_JOINTS,
    captioned: bool = False,
    holdout: float = 0.0,
    part: str = "train",
) -> CaptionedPoses:
    """Read the poses of COCO 2017 and the captions of their photographs, in the files' order.

    Args:
        root: folder with ``annotations/``; photographs are not looked for.
        split: "train" or "val".
        annotations: key-point files relative to ``root`` or absolute; "" (and none) is
            ``annotations/person_keypoints_<split>2017.json``. A person that is in two files counts once.
        captions: the same for captions, ``annotations/captions_<split>2017.json``, which may be absent unless it is
            named or ``captioned`` asks for it.
        persons: "all", or "single" for photographs of which the files list one annotation, crowds counted too. Of a
            file that does not list everybody, who is listed alone may not be alone.
        minimum_joints: persons with fewer labelled joints are left out. Crowd rows are never persons.
        captioned: leave out the poses of photographs without a caption.
        holdout: share of the photographs that make up the part "holdout". It divides the photographs of the annotation
            files before anything is left out: the same ones are held out whatever the other options are.
        part: "train" or "holdout".

    Raises:
        FileNotFoundError: a file is absent.
        ValueError: a file is malformed, or nobody is left.
    """
    for argument, value, known in (
        ("split", split, ("train", "val")),
        ("persons", persons, PERSONS),
        ("part", part, ("train", "holdout")),
    ):
        _checks.choice(argument, value, known)
    _check_numbers(minimum_joints, holdout, part)
    files = _paths(root, annotations, _ANNOTATIONS.format(split))
    rows = _annotations(files)
    chosen = _select(rows, persons, minimum_joints, _images_of(rows, holdout, part), files)
    spoken = _captions(_paths(root, captions, _CAPTIONS.format(split)), captioned or any(captions))
    return _joined("coco", split, chosen, spoken, captioned)


def sample(split: str = "train", *, minimum_joints: int = MINIMUM_JOINTS) -> CaptionedPoses:
    """Return the bundled poses (see sample/ATTRIBUTION.md), each with three captions of its photograph.

    Each is the only person that the annotations and captions used tell of; the photograph may show others.

    ``split`` is "train", "val" or "all"; the photographs of the first two are disjoint. Persons with fewer labelled
    joints than ``minimum_joints`` are left out.
    """
    _checks.choice("split", split, ("train", "val", "all"))
    _check_numbers(minimum_joints, 0.0, "train")
    content = coco.read_content(SAMPLE, "bundled file of captions", ("poses",))
    with reading(SAMPLE, "an entry"):
        rows = [row for row in content["poses"] if split in ("all", row["split"])]
        spoken = {row["image_id"]: tuple(row["captions"]) for row in rows}
        found = [_annotation(row, SAMPLE) for row in rows]
    chosen = _select(found, "all", minimum_joints, spoken, [SAMPLE])
    return _joined("sample", split, chosen, spoken, captioned=True)


def usable(root: str | Path, split: str) -> Usable:
    """Count what ``read_coco`` finds in the usual files of a split; raises as it does, but not where nobody is left."""
    rows = _annotations(_paths(root, (), _ANNOTATIONS.format(split)))
    posed = [row for row in rows if not row.crowd and row.joints >= MINIMUM_JOINTS]
    alone = _alone(rows)
    whole = [row for row in posed if row.has_size]
    spoken = _captions(_paths(root, (), _CAPTIONS.format(split)), required=False)
    return Usable(
        poses=len(whole),
        captioned=sum(row.image_id in alone and row.image_id in spoken for row in whole),
        flat=tuple(row.person_id for row in posed if not row.has_size),
        captions=sum(len(captions) for captions in spoken.values()),
        photographs=len(spoken),
    )


def check_disjoint(train: CaptionedPoses, validation: CaptionedPoses, options: str) -> None:
    """Raise ``ValueError`` where photographs of the validation poses are trained on.

    ``options`` are the keys of the configuration that choose the poses, for the message.
    """
    if train.name != validation.name:
        return
    shared = np.intersect1d(train.image_ids, validation.image_ids)
    if len(shared):
        raise ValueError(
            f"data: {len(shared):,} of the {len(np.unique(validation.image_ids)):,} photographs of the validation "
            f"poses are in the training set too, first {shared[0]}; expected none, choose another {options}"
        )


def clean(caption: str) -> str:
    """Return a caption without line breaks, and with one space between words."""
    return " ".join(caption.split())


def _check_numbers(minimum_joints: int, holdout: float, part: str) -> None:
    if not 1 <= minimum_joints <= len(skeletons.COCO):
        raise ValueError(f"minimum_joints: expected 1 to {len(skeletons.COCO)}, got {minimum_joints}")
    if not 0 <= holdout < 1:
        raise ValueError(f"holdout: expected a share from 0 up to 1, got {holdout}")
    if part == "holdout" and not holdout:
        raise ValueError("part: expected train where holdout is 0, got 'holdout'; pass a share such as holdout=0.1")


def _paths(root: str | Path, names: Sequence[str], usual: str) -> list[Path]:
    """Return the files that were named, or the usual one."""
    if isinstance(names, str):
        raise TypeError(f"annotations, captions: expected a sequence of file names, got {names!r}; pass ({names!r},)")
    return [Path(root).expanduser() / (name or usual) for name in (names or ("",))]


def _annotations(files: Iterable[Path]) -> list[_Row]:
    """Return the annotations of all files, each once."""
    found: dict[int, _Row] = {}
    for path in files:
        for row in _entries(path, "annotation file", _annotation):
            first = found.setdefault(row.person_id, row)
            if first.image_id != row.image_id:
                raise ValueError(
                    f"{path}: annotation {row.person_id} is of image {row.image_id}, elsewhere of {first.image_id}; "
                    "expected one image, restore the file"
                )
    return list(found.values())


def _entries(path: Path, what: str, build: Callable[[dict[str, Any], Path], Built]) -> list[Built]:
    """Return what ``build`` makes of every entry of a file of COCO's kind."""
    content = coco.read_content(path, what, ("annotations",))
    with reading(path, "an entry"):
        return read_rows(path, content["annotations"], lambda row, _: build(row, path))


def _annotation(row: dict[str, Any], path: Path) -> _Row:
    person_id, image_id = (_whole(row, key) for key in ("id", "image_id"))
    if row.get("iscrowd", 0):
        return _Row(person_id, image_id, True, np.zeros((17, 3)), np.zeros(4))
    table, box = coco.keypoint_table(row, path), np.array(row["bbox"], dtype=np.float64)
    labelled = table[:, 2] > 0
    if not set(table[:, 2].tolist()) <= {0, 1, 2}:
        raise ValueError(f"{path}: annotation {person_id} has visibilities other than 0, 1 and 2; restore the file")
    if box.shape != (4,) or not all((np.abs(values) < _FARTHEST).all() for values in (box, table[labelled])):
        raise ValueError(
            f"{path}: annotation {person_id} has a box or key points that are not finite or not 4 numbers; "
            "restore the file"
        )
    return _Row(person_id, image_id, False, table, box)


def _whole(row: dict[str, Any], key: str) -> int:
    value = row[key]
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 2**63:
        raise ValueError(f"{key}: expected a whole number, got {value!r:.60}")
    return value


def _images_of(rows: Iterable[_Row], holdout: float, part: str) -> Collection[int]:
    """Return the photographs of a part."""
    images = {row.image_id for row in rows}
    if not holdout:
        return images
    if len(images) < 2:
        raise ValueError(f"holdout: expected at least 2 photographs to divide, found {len(images)}; pass holdout=0")
    held = {int(name) for name in held_out([str(image) for image in images], holdout)}
    return held if part == "holdout" else images - held


def _select(
    rows: Sequence[_Row], persons: str, minimum_joints: int, images: Collection[int], files: Sequence[Path]
) -> list[_Row]:
    """Return the rows that are poses by the rules of ``read_coco``."""
    alone = _alone(rows)
    posed = [row for row in rows if not row.crowd and row.joints >= minimum_joints and row.image_id in images]
    wanted = [row for row in posed if persons == "all" or row.image_id in alone]
    flat = [row.person_id for row in wanted if not row.has_size]
    if flat:
        _log.warning("coco: %d persons left out, whose box has no width or height; first %d", len(flat), flat[0])
    chosen = [row for row in wanted if row.has_size]
    if not chosen:
        where = " alone on a photograph" if persons == "single" else ""
        names = ", ".join(str(path) for path in files)
        raise ValueError(f"coco: no person with at least {minimum_joints} labelled joints{where} found in {names}")
    return chosen


def _alone(rows: Iterable[_Row]) -> set[int]:
    """Return the photographs of which one annotation is listed, crowds counted too."""
    counts = Counter(row.image_id for row in rows)
    return {image for image, count in counts.items() if count == 1}


def _captions(files: Iterable[Path], required: bool) -> dict[int, tuple[str, ...]]:
    """Return the different captions of every photograph, in the files' order; none where no file has to be there."""
    spoken: dict[int, dict[str, None]] = {}
    for path in files:
        if not required and not path.is_file():
            continue
        for image, caption in _entries(path, "caption file", _said):
            if caption:
                spoken.setdefault(image, {})[caption] = None
    return {image: tuple(captions) for image, captions in spoken.items()}


def _said(row: dict[str, Any], path: Path) -> tuple[int, str]:
    """Return the photograph and the text of a caption."""
    image, caption = _whole(row, "image_id"), row["caption"]
    if not isinstance(caption, str):
        raise ValueError(f"{path}: a caption of image {image} is {caption!r:.60}; expected text, restore the file")
    return image, clean(caption)


def _joined(
    name: str, split: str, rows: Sequence[_Row], spoken: dict[int, tuple[str, ...]], captioned: bool
) -> CaptionedPoses:
    """Join poses and captions by their photographs."""
    found = [row for row in rows if row.image_id in spoken] if captioned else rows
    if not found:
        raise ValueError(
            f"{name}: none of the {len(rows):,} poses has a caption; expected captions of the same photographs, name "
            "their file"
        )
    images = [image for image in dict.fromkeys(row.image_id for row in found) if image in spoken]
    starts = dict(zip(images, np.cumsum([0, *(len(spoken[image]) for image in images)]).tolist(), strict=False))
    table, boxes = np.stack([row.table for row in found]), np.stack([row.box for row in found])  # (N, 17, 3), (N, 4)
    points = np.where(table[..., 2:] > 0, normalise(table[..., :2], boxes), 0.0)
    return CaptionedPoses(
        name,
        split,
        keypoints=frozen(points),
        visibility=frozen(table[..., 2], np.uint8),
        boxes=frozen(boxes, np.float64),
        image_ids=frozen(np.array([row.image_id for row in found]), np.int64),
        person_ids=frozen(np.array([row.person_id for row in found]), np.int64),
        captions=tuple(caption for image in images for caption in spoken[image]),
        caption_image=frozen(np.repeat(np.array(images, np.int64), [len(spoken[image]) for image in images]), np.int64),
        first=frozen(np.array([starts.get(row.image_id, 0) for row in found]), np.int64),
        count=frozen(np.array([len(spoken.get(row.image_id, ())) for row in found]), np.int64),
    )
