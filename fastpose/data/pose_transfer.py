"""Market-1501 and DeepFashion In-shop for pose transfer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fastpose import _checks, skeletons
from fastpose.data import images
from fastpose.data.keypoint_tables import KeypointTable
from fastpose.data.pair_layouts import DEEPFASHION, MARKET, finish, market_camera, read_pairs
from fastpose.data.person import Person
from fastpose.data.views import photo_view

# DeepFashion's frame is told by this share of the rows and never by fewer rows than these. An x of 176 or more is in a
# quarter of the published table's rows, an x below 40, a stray, in 11 of its 4,038.
_TELLING_SHARE, _TELLING_ROWS = 0.05, 3


class MarketPairs:
    """Market-1501 pairs, 128 x 64; split "train", "test", or with ``holdout`` "train" and "val" of the one list.

    Args:
        root: folder with ``train/``, ``test/``, ``market-pairs-<split>.csv`` and ``market-annotation-<split>.csv``, or
            with ``<split>_img_pairs.csv`` and ``<split>_img_keypoints.csv`` (system 003's layout). Images may also stay
            in the data set's own ``bounding_box_train/`` and ``bounding_box_test/``.
        split: "train", "test", or "val" with ``holdout``.
        annotation, pair_list: other files, relative to ``root`` or absolute.
        pairs: "published", the pair list; or "all", every ordered pair of one identity whose two images both show
            hips and shoulders (the rule that gives the published training pairs).
        holdout: share of the identities that split "val" gets of the training list (of the test list when there is no
            training list); "train" gets the others.
        missing_images: "error" or "drop" pairs with an image that is absent or has no annotation.
        check_identities: refuse a pair of two identities, or of none.
        keep_unpaired: keep annotated persons that no pair uses, distractors included.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        *,
        annotation: str | None = None,
        pair_list: str | None = None,
        pairs: str = "published",
        holdout: float = 0.0,
        missing_images: str = "error",
        check_identities: bool = True,
        keep_unpaired: bool = False,
    ):
        found = read_pairs(MARKET, root, split, annotation, pair_list, pairs, holdout)
        persons = [replace(entry, camera=market_camera(entry.image.name)) for entry in found.persons]
        found = replace(found, persons=persons)
        self.name, self.split, self.guide = "market", split, "pose"
        self.skeleton, self.scored_joints = skeletons.OPENPOSE, tuple(range(18))
        self.size = MARKET.size
        self.persons, self.pairs = finish(MARKET, found, missing_images, check_identities, keep_unpaired)

    def __len__(self) -> int:
        return len(self.pairs)

    def view(self, index: int, size: tuple[int, int], pixel_limit: int = images.PIXEL_LIMIT) -> dict[str, np.ndarray]:
        """Return image and joints of a person at ``size`` (see ``PairSource``)."""
        entry = self.persons[index]
        photo = images.read_image(entry.image, pixel_limit=pixel_limit)
        _expect_size(entry.image, photo.shape[:2], MARKET.size)
        return photo_view(entry, photo, np.eye(2, 3), self.size, size)


class DeepFashionPairs:
    """DeepFashion In-shop pairs, 256 x 256 or cropped to 256 x 176; splits and other arguments as ``MarketPairs``.

    ``root`` holds ``fasion-pairs-<split>.csv`` and ``fasion-annotation-<split>.csv`` (or ``fashion-...``), or system
    003's files with the images under ``img/``. Stored images are 256 x 256 or 256 x 176.

    Args:
        crop: "none" gives 256 x 256 (narrow images are padded with white), "176" columns 40 to 215.
        coordinates: frame of the annotation, "256" or "176" (x smaller by 40); "auto" tells from the table's widths or
            from the rows whose x only one of the frames explains (``frame_width``).
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        *,
        annotation: str | None = None,
        pair_list: str | None = None,
        pairs: str = "published",
        crop: str = "none",
        coordinates: str = "auto",
        holdout: float = 0.0,
        missing_images: str = "error",
        check_identities: bool = True,
        keep_unpaired: bool = False,
    ):
        _checks.choice("crop", crop, ("none", "176"))
        _checks.choice("coordinates", coordinates, ("auto", "256", "176"))
        found = read_pairs(DEEPFASHION, root, split, annotation, pair_list, pairs, holdout)
        self.stored_width = stored_width(found.persons)
        frame = frame_width(found.table) if coordinates == "auto" else int(coordinates)
        found = replace(found, persons=in_stored_frame(found.persons, frame, self.stored_width))
        self.name, self.split, self.guide = "deepfashion", split, "pose"
        self.skeleton, self.scored_joints = skeletons.OPENPOSE, tuple(range(18))
        self.size = (256, 176) if crop == "176" else DEEPFASHION.size
        self.persons, self.pairs = finish(DEEPFASHION, found, missing_images, check_identities, keep_unpaired)

    def __len__(self) -> int:
        return len(self.pairs)

    def view(self, index: int, size: tuple[int, int], pixel_limit: int = images.PIXEL_LIMIT) -> dict[str, np.ndarray]:
        """Return image and joints of a person at ``size`` (see ``PairSource``)."""
        entry = self.persons[index]
        photo = images.read_image(entry.image, pixel_limit=pixel_limit)
        _expect_size(entry.image, photo.shape[:2], (256, self.stored_width))
        return photo_view(entry, photo, self.placement(), self.size, size)

    def placement(self) -> np.ndarray:
        """Return the map (2, 3) from a stored image's pixels to those of ``size``."""
        return np.array([[1.0, 0.0, (self.size[1] - self.stored_width) / 2], [0.0, 1.0, 0.0]])


def _expect_size(path: Path, found: Sequence[int], expected: tuple[int, int]) -> None:
    if tuple(found) != expected:
        raise ValueError(
            f"image {path}: expected {expected[1]} x {expected[0]} pixels, found {found[1]} x {found[0]}; its key "
            "points count pixels of that size, restore it"
        )


def stored_width(persons: Sequence[Person]) -> int:
    """Return 256 or 176, the width of DeepFashion's first image that is there; 256 when none is."""
    for entry in persons:
        if entry.image.is_file():
            height, width = images.image_size(entry.image)
            if height != 256 or width not in (176, 256):
                raise ValueError(
                    f"image {entry.image}: expected 256 x 256 or 176 x 256 pixels, found {width} x {height}; centre "
                    "it on a white square of 256 x 256"
                )
            return width
    return 256


def frame_width(table: KeypointTable) -> int:
    """Return 256 or 176: the width that DeepFashion's annotation counts in, from its sizes or its x coordinates.

    In the square images a person stands in columns 40 to 215: a row with an x of 176 or more speaks for the wide frame,
    one with an x below 40 for the narrow one. Raises ``ValueError`` unless 5 % of the rows, and at least 3, speak for
    one frame and fewer than a fifth of that for the other: single joints stray.
    """
    if table.sizes is not None:
        widths = np.unique(table.sizes[:, 1]).tolist()
        if widths in ([176], [256]):
            return int(widths[0])
        raise ValueError(f"{table.path}: img_w is {widths[:5]}; expected 256 throughout, or 176 throughout")
    seen, x = table.visibility > 0, table.keypoints[..., 0]
    wide, narrow = (int((seen & told).any(1).sum()) for told in (x >= 176, x < 40))
    needed = max(_TELLING_ROWS, _TELLING_SHARE * int(seen.any(1).sum()))
    if max(wide, narrow) >= needed and 5 * min(wide, narrow) < max(wide, narrow):
        return 256 if wide > narrow else 176
    raise ValueError(
        f"{table.path}: no telling whether x counts columns of 256 x 256 or of 256 x 176 images ({wide:,} of "
        f"{len(table):,} rows have an x of 176 or more, {narrow:,} an x below 40); pass coordinates=256 or "
        "coordinates=176"
    )


def in_stored_frame(persons: Sequence[Person], frame: int, width: int) -> list[Person]:
    """Return persons annotated in images ``frame`` columns wide, in pixels of images ``width`` columns wide."""
    if frame == width == DEEPFASHION.size[1]:
        return list(persons)
    columns = np.array([(width - frame) // 2, 0], np.float32)
    center = _frozen(np.array([(width - 1) / 2, (DEEPFASHION.size[0] - 1) / 2]))
    return [
        replace(
            entry,
            center=center,
            keypoints=_frozen(np.where(entry.visibility[:, None] > 0, entry.keypoints + columns, 0)),
        )
        for entry in persons
    ]


def _frozen(values: np.ndarray) -> np.ndarray:
    array = values.astype(np.float32)
    array.flags.writeable = False
    return array
