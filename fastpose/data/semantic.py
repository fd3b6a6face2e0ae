"""Maps of body parts by colour, and DeepFashion pairs led by them (system 003, section 7).

DeepFashion In-shop comes with such maps for a part of its images: 16 colours, that is the background and 15 parts.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from fastpose import _checks
from fastpose.data import images, pair_layouts, pairs
from fastpose.data.geometry import cut, resize_matrix
from fastpose.data.keypoint_tables import file_id
from fastpose.data.pose_transfer import DeepFashionPairs

PARTS = (
    *("background", "top", "skirt", "leggings", "dress", "outer", "pants", "bag"),
    *("neckwear", "headwear", "eyeglass", "belt", "footwear", "hair", "skin", "face"),
)
"""Names of the labels 0 to 15 of the published colours."""

PALETTE: tuple[tuple[int, int, int], ...] = (
    (0, 0, 0), (255, 250, 250), (250, 235, 215), (70, 130, 180), (16, 78, 139), (255, 250, 205), (255, 140, 0),
    (50, 205, 50), (220, 220, 220), (255, 0, 0), (127, 255, 212), (0, 100, 0), (255, 255, 0), (211, 211, 211),
    (144, 238, 144), (245, 222, 179),
)  # fmt: skip
"""RGB of the labels 0 to 15, as the data set's own page lists them."""

MOST = 16
"""Colours of a palette, the background's among them: system 003 has 16 masks."""

TOLERANCE = 32.0
FOLDER = "parts"


class SemanticPairs:
    """DeepFashion pairs with a map of parts for either image; joints come along where the annotation has them.

    Args:
        root, split, and options not named here: as ``DeepFashionPairs``.
        maps: folder of the maps, relative to ``root`` (or to ``root/fashion_data``) or absolute. A map belongs to the
            image of its name, letters and digits compared only: the data set's
            ``WOMEN/Dresses/id_00000002/02_1_front_segment.png`` fits ``fashionWOMENDressesid0000000202_1front.jpg``.
            Grey pictures of values up to 15 hold labels; one folder's maps hold either labels or colours.
        palette: "inshop", the published colours; "auto", the colours of all maps in the folder, sorted, after the most
            frequent one as the background; or colours as ``"000000,fffafa,..."``, background first.
        tolerance: largest distance in RGB to the nearest colour of the palette (compression moves colours).
        missing_maps: "error" or "drop" pairs with an image that has no map (many have none).

    A mirrored map keeps its labels: a palette that tells left from right parts must not be flipped.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        *,
        maps: str = FOLDER,
        palette: str = "inshop",
        tolerance: float = TOLERANCE,
        missing_maps: str = "drop",
        annotation: str | None = None,
        pair_list: str | None = None,
        pairs: str = "published",
        crop: str = "none",
        coordinates: str = "auto",
        holdout: float = 0.0,
        missing_images: str = "error",
        check_identities: bool = True,
    ):
        _checks.choice("missing_maps", missing_maps, ("error", "drop"))
        folder = maps_folder(root, maps)
        known = map_files(folder)
        self._photos = DeepFashionPairs(
            root, split, annotation=annotation, pair_list=pair_list, pairs=pairs, crop=crop, coordinates=coordinates,
            holdout=holdout, missing_images=missing_images, check_identities=check_identities,
        )  # fmt: skip
        self.name, self.split, self.guide = "semantic", split, "semantic"
        self.skeleton, self.scored_joints = self._photos.skeleton, self._photos.scored_joints
        self.size = self._photos.size
        self._keep(known, folder, missing_maps)
        files = sorted(known.values())
        self.palette = find_palette(palette, files)
        labels = hold_labels(files, self.palette)
        self._read = functools.partial(read_map, palette=self.palette, tolerance=tolerance, labels=labels)

    def _keep(self, known: Mapping[str, Path], folder: Path, missing_maps: str) -> None:
        """Keep the pairs whose two images have a map."""
        found = match_maps(known, [entry.image for entry in self._photos.persons])
        absent = [row for row, path in enumerate(found) if path is None]
        numbers = self._photos.pairs[~np.isin(self._photos.pairs, absent).any(1)]
        if absent and (missing_maps == "error" or not len(numbers)):
            raise FileNotFoundError(
                f"semantic: {len(absent):,} of {len(found):,} images have no map under {folder}, first "
                f"{self._photos.persons[absent[0]].image.name}; add them or pass missing_maps=drop (see fastpose data "
                f"check semantic {folder.parent})"
            )
        kept, self.pairs = pairs.only_used(numbers, len(found))
        self.persons = [self._photos.persons[row] for row in kept]
        self.maps = [path for row in kept if (path := found[row]) is not None]
        self._rows = kept

    def __len__(self) -> int:
        return len(self.pairs)

    def view(self, index: int, size: tuple[int, int], pixel_limit: int = images.PIXEL_LIMIT) -> dict[str, np.ndarray]:
        """Return image, labels and joints of a person at ``size`` (see ``PairSource``)."""
        view = self._photos.view(int(self._rows[index]), size, pixel_limit)
        labels = self._read(self.maps[index], pixel_limit=pixel_limit)
        square = (256, self._photos.stored_width)
        shown = cut(placed(labels, square), self._photos.placement(), self.size, fill=0, nearest=True)
        view["labels"] = cut(shown, resize_matrix(self.size, size), size, fill=0, nearest=True)
        return view


def key(name: str) -> str:
    """Return the letters and digits that the names of an image and of its map share: item, colour and view."""
    folded = re.sub(r"[^A-Za-z0-9]", "", re.sub(r"_segment$", "", file_id(name)))
    match = re.match(r"(?:.*(?<!WO))?((?:WO)?MEN[A-Z]\w*id\d{8}.*)", folded)
    return match[1] if match else folded


def maps_folder(root: str | Path, maps: str = FOLDER) -> Path:
    """Return the folder of the maps: below ``root``, or beside the data set's other files in its usual sub-folder."""
    given = Path(root) / maps
    return given if given.is_dir() else pair_layouts.folder(pair_layouts.DEEPFASHION, root) / maps


def map_files(folder: Path) -> dict[str, Path]:
    """Return the maps below a folder by ``key``; ``FileNotFoundError`` when there is no such folder."""
    if not folder.is_dir():
        raise FileNotFoundError(
            f"semantic: no folder {folder} of maps (PNG, one per image, named like it); add it or pass maps=FOLDER "
            f"(see fastpose data check semantic {folder.parent})"
        )
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in images.SUFFIXES)
    return {key(path.relative_to(folder).as_posix()): path for path in files}


def match_maps(known: Mapping[str, Path], photos: Sequence[Path]) -> list[Path | None]:
    """Return the map of every photograph, by its name or by its folders too (``WOMEN/Dresses/id_.../..``), or None."""
    return [known.get(key(photo.name)) or known.get(key("/".join(photo.parts[-4:]))) for photo in photos]


def placed(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return labels (h, w) resized to just fit ``size`` (H, W), in its middle on background; nearest pixel."""
    scale = min(size[0] / labels.shape[0], size[1] / labels.shape[1])
    middle = [(new - 1) / 2 - scale * (old - 1) / 2 for new, old in zip(size, labels.shape, strict=True)]
    matrix = np.array([[scale, 0.0, middle[1]], [0.0, scale, middle[0]]])
    return cut(labels, matrix, size, fill=0, nearest=True)


def read_map(
    path: str | Path,
    *,
    palette: Sequence[Sequence[int]] = PALETTE,
    tolerance: float = TOLERANCE,
    labels: bool | None = None,
    pixel_limit: int = images.PIXEL_LIMIT,
) -> np.ndarray:
    """Read a map of parts as labels, uint8 (H, W): the row of the nearest colour of ``palette``, 0 the background.

    ``labels`` says whether the picture holds labels (True) or colours (False); None looks at it. Raises ``ValueError``
    when it does not, for a label that ``palette`` has no row for, and for a colour farther than ``tolerance`` from all
    of ``palette``; errors as ``read_image``.
    """
    picture = images.read_image(path, pixel_limit=pixel_limit)
    found = _holds_labels(picture, palette)
    if labels is not None and not (_dark_grey(picture) if labels else not found):
        is_one, others = ("labels", "colours") if found else ("colours", "labels")
        raise ValueError(
            f"map {path}: holds {is_one}, and the first map of its folder {others}; keep them in two folders"
        )
    if found if labels is None else labels:
        return _checked_labels(path, picture, len(palette))
    return _nearest(path, picture, palette, tolerance)


def _checked_labels(path: str | Path, picture: np.ndarray, count: int) -> np.ndarray:
    """Return the labels of a grey picture (H, W, 3), all below ``count``."""
    labels = np.ascontiguousarray(picture[:, :, 0])
    if labels.max() >= count:
        y, x = np.argwhere(labels >= count)[0]
        raise ValueError(
            f"map {path}: label {labels[y, x]} at x {x}, y {y}; expected 0 to {count - 1}, the palette has {count} "
            "colours; pass palette=COLOURS with one for each label"
        )
    return labels


def _nearest(path: str | Path, picture: np.ndarray, palette: Sequence[Sequence[int]], tolerance: float) -> np.ndarray:
    """Return the row of ``palette`` nearest to every pixel's colour, uint8 (H, W)."""
    colours, rows = _colours(picture)
    distance = np.linalg.norm(colours[:, None] - np.asarray(palette, dtype=np.float64)[None], axis=2)  # (C, P)
    worst = int(distance.min(axis=1).argmax())
    if distance[worst].min() > tolerance:
        y, x = divmod(int(np.flatnonzero(rows == worst)[0]), picture.shape[1])
        raise ValueError(
            f"map {path}: colour {_hex(colours[worst])} at x {x}, y {y} is none of the {len(palette)} colours of the "
            f"palette (nearest {_hex(palette[int(distance[worst].argmin())])}, distance {distance[worst].min():.0f}); "
            "pass palette=auto, palette=COLOURS or a larger tolerance"
        )
    return distance.argmin(axis=1).astype(np.uint8)[rows].reshape(picture.shape[:2])


def hold_labels(maps: Sequence[Path], palette: Sequence[Sequence[int]] = PALETTE) -> bool:
    """Whether maps hold labels rather than colours: the first that can be read and is not all black tells."""
    for path in maps:
        try:
            picture = images.read_image(path)
        except (ValueError, OSError):  # whoever reads this map will say so
            continue
        if picture.any():
            return _holds_labels(picture, palette)
    return False


def _dark_grey(picture: np.ndarray) -> bool:
    """Whether a picture is grey with values below ``MOST``."""
    return bool(picture.max() < MOST and (picture == picture[:, :, :1]).all())


def _holds_labels(picture: np.ndarray, palette: Sequence[Sequence[int]]) -> bool:
    """Whether a picture holds labels rather than colours: dark greys, not all of them the palette's own."""
    if not _dark_grey(picture) or not picture.any():
        return False
    return not {(value, value, value) for value in np.unique(picture).tolist()} <= {tuple(each) for each in palette}


def _colours(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the different colours, float64 (C, 3), and which of them each pixel has, (H * W,)."""
    packed = picture.astype(np.int64) @ np.array([65536, 256, 1])
    codes, rows = np.unique(packed, return_inverse=True)
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1).astype(np.float64), rows.reshape(-1)


def _hex(colour: Iterable[float]) -> str:
    return "#" + "".join(f"{int(value):02x}" for value in colour)


def find_palette(palette: str, maps: Sequence[Path]) -> tuple[tuple[int, int, int], ...]:
    """Return the colours that ``palette`` means: "inshop", "auto" or hexadecimal numbers with commas."""
    if palette == "inshop":
        return PALETTE
    if palette == "auto":
        return palette_of(maps)
    words = [word.strip().removeprefix("#") for word in palette.split(",")]
    if not 2 <= len(words) <= MOST or not all(re.fullmatch(r"[0-9A-Fa-f]{6}", word) for word in words):
        raise ValueError(
            f"palette: expected inshop, auto, or 2 to {MOST} colours such as 000000,fffafa, got {palette[:60]!r}"
        )
    return tuple((int(word[:2], 16), int(word[2:4], 16), int(word[4:], 16)) for word in words)


def palette_of(maps: Sequence[Path]) -> tuple[tuple[int, int, int], ...]:
    """Return the colours of maps: the most frequent one first, as the background, the others sorted.

    Maps of labels give the grey of each label in order, so that label and row are one. Raises ``ValueError`` when there
    are more than ``MOST``: such maps were compressed with loss.
    """
    counts: dict[tuple[int, int, int], int] = {}
    for path in maps:
        colours, rows = _colours(images.read_image(path))
        for colour, count in zip(colours.astype(int).tolist(), np.bincount(rows).tolist(), strict=True):
            counts[tuple(colour)] = counts.get(tuple(colour), 0) + count
        if len(counts) > MOST:
            raise ValueError(
                f"palette: more than {MOST} colours by {path.name}; expected lossless maps, or pass palette=COLOURS"
            )
    if all(len(set(colour)) == 1 and colour[0] < MOST for colour in counts):
        return tuple((label, label, label) for label in range(max(counts)[0] + 1))
    background = max(counts, key=lambda colour: counts[colour])
    return (background, *sorted(colour for colour in counts if colour != background))
