"""Letters of fonts as pairs: a coloured capital, its skeleton, and another capital of the font (system 003, section 7).

Glyphs are drawn by matplotlib's own binding of FreeType, which also writes the captions of our pictures: it reads .ttf
and .otf files, says which letters a font has, and is a dependency already.
"""

from __future__ import annotations

import functools
import hashlib
import string
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastpose import _checks, skeletons
from fastpose.data import images, pairs
from fastpose.data.person import Person, person
from fastpose.data.thinning import thin

LETTERS = string.ascii_uppercase
SIZE = (256, 256)
HOLDOUT = 0.2
_SUFFIXES = (".ttf", ".otf")
# The largest letter of a font fills so much of the picture.
_FILL = 0.8
# Colours above this brightness would fade into the white background.
_BRIGHTEST = 200.0
# Size in pixels at which the letters' boxes are measured.
_PROBE = 64


@dataclass(frozen=True)
class FontsRead:
    """What a folder holds: fonts with all letters and their ``identity``, and (file, reason) of the others."""

    fonts: dict[Path, str]
    unusable: list[tuple[Path, str]]


class FontPairs:
    """Pairs of two different capitals of one font, in one colour per font.

    Args:
        root: folder with .ttf and .otf files at any depth. Where it has ``train/`` and ``test/``, these are the splits;
            where it has one of them, the fonts outside of it are the other one; else ``holdout`` of the fonts are the
            test split. Copies of a file are one font, whatever their names and folders.
        split: "train", "test" or "all".
        size: (H, W) of the pictures.
        seed: of colours and pairs; each font's depend on it and on the font's file name alone.
        pairs_per_font: different ordered pairs of letters per font, 1 to 650.
        holdout: share of the fonts in split "test" where no folder says.
        unusable: "error" or "skip" fonts that cannot be read or lack a letter.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        *,
        size: tuple[int, int] = SIZE,
        seed: int = 0,
        pairs_per_font: int = 200,
        holdout: float = HOLDOUT,
        unusable: str = "error",
    ):
        _checks.choice("split", split, ("train", "test", "all"))
        _checks.choice("unusable", unusable, ("error", "skip"))
        most = len(LETTERS) * (len(LETTERS) - 1)
        if not 1 <= pairs_per_font <= most:
            raise ValueError(f"pairs_per_font: expected 1 to {most} (ordered pairs of letters), got {pairs_per_font}")
        fonts = _usable(Path(root), split, holdout, unusable)
        self.name, self.split, self.guide = "fonts", split, "skeleton"
        self.skeleton = skeletons.OPENPOSE
        self.scored_joints: tuple[int, ...] = ()
        self.size, self.seed = (int(size[0]), int(size[1])), seed
        self.persons = [_glyph(font, name, letter) for font, name in fonts.items() for letter in range(len(LETTERS))]
        drawn = [_draw_pairs(font, seed, pairs_per_font) + len(LETTERS) * row for row, font in enumerate(fonts)]
        self.pairs = np.concatenate(drawn)

    def __len__(self) -> int:
        return len(self.pairs)

    def view(self, index: int, size: tuple[int, int], pixel_limit: int = images.PIXEL_LIMIT) -> dict[str, np.ndarray]:
        """Return a letter's coloured image and its skeleton at ``size`` (see ``PairSource``)."""
        font = self.persons[index].image
        mask = letter_mask(font, LETTERS[index % len(LETTERS)], size)
        return {"image": coloured(mask, colour(font, self.seed)), "skeleton": _mask_skeleton(mask)}


def font_files(root: Path) -> list[Path]:
    """Return the fonts below a folder, sorted; ``FileNotFoundError`` when there is none."""
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())
    if not files:
        raise FileNotFoundError(f"fonts: no .ttf or .otf file under {root} (see fastpose data check fonts {root})")
    return files


def read(root: Path) -> FontsRead:
    """Return which fonts below a folder have all letters, and why the others do not do."""
    found = FontsRead({}, [])
    for path in font_files(root):
        try:
            found.fonts[path] = identity(path)
        except ValueError as error:
            found.unusable.append((path, str(error)))
    return found


def identity(path: Path) -> str:
    """Return a font's family, style and the first digits of its content's SHA-256; errors as ``letter_mask``."""
    font = _outline(path)[0]
    return f"{font.family_name} {font.style_name} {hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"


def _usable(root: Path, split: str, holdout: float, unusable: str) -> dict[Path, str]:
    """Return the fonts of a split with their identities."""
    found = read(root)
    if found.unusable and unusable == "error":
        raise ValueError(
            f"fonts: {len(found.unusable):,} of {len(found.unusable) + len(found.fonts):,} fonts are of no use, first "
            f"{found.unusable[0][1]}; remove them or pass unusable=skip (see fastpose data check fonts {root})"
        )
    fonts = in_split(root, found.fonts, split, holdout)
    if not fonts:
        raise ValueError(
            f"fonts: no usable font for split {split!r} under {root} (see fastpose data check fonts {root})"
        )
    return fonts


def in_split(root: Path, fonts: Mapping[Path, str], split: str, holdout: float = HOLDOUT) -> dict[Path, str]:
    """Return those of the fonts below ``root``, with their identities, that are in a split (see ``FontPairs``)."""
    if split == "all":
        return dict(fonts)
    folders = [name for name in ("train", "test") if (root / name).is_dir()]
    if split in folders:
        return {path: name for path, name in fonts.items() if path.is_relative_to(root / split)}
    if folders:
        return _outside(root, fonts, folders[0], split)
    held = pairs.held_out(list(fonts.values()), holdout)
    return {path: name for path, name in fonts.items() if (name in held) == (split == "test")}


def _outside(root: Path, fonts: Mapping[Path, str], folder: str, split: str) -> dict[Path, str]:
    """Return the fonts of the split that has no folder: neither in the other one's nor copies of what is there."""
    taken = {name for path, name in fonts.items() if path.is_relative_to(root / folder)}
    rest = {path: name for path, name in fonts.items() if name not in taken}
    if not rest:
        raise ValueError(
            f"fonts: {root} has a folder {folder}/, and no other font outside of it for split {split!r}; put some into "
            f"{split}/ (see fastpose data check fonts {root})"
        )
    return rest


def _glyph(font: Path, identity: str, letter: int) -> Person:
    joints = len(skeletons.OPENPOSE)
    middle = np.array([(SIZE[1] - 1) / 2, (SIZE[0] - 1) / 2])
    nothing = np.zeros((joints, 2)), np.zeros(joints)
    return person(font, *nothing, middle, SIZE[0] / 200, person_id=letter, identity=identity)


def _generator(font: Path, seed: int, purpose: int) -> np.random.Generator:
    """Random numbers of one font: whatever other fonts there are, they stay the same."""
    return np.random.Generator(
        np.random.Philox(np.random.SeedSequence((seed, zlib.crc32(font.name.encode()), purpose)))
    )


def _draw_pairs(font: Path, seed: int, count: int) -> np.ndarray:
    """Return ``count`` different ordered pairs of different letters, int64 (count, 2)."""
    letters = len(LETTERS)
    drawn = np.sort(_generator(font, seed, 0).choice(letters * (letters - 1), size=count, replace=False))
    first, other = np.divmod(drawn, letters - 1)
    return np.stack([first, other + (other >= first)], axis=1).astype(np.int64)


def colour(font: Path, seed: int) -> np.ndarray:
    """Return the font's colour, uint8 (3,) RGB: uniform among those that are dark enough to show on white."""
    rng = _generator(font, seed, 1)
    while True:
        drawn: np.ndarray = rng.integers(0, 256, 3, dtype=np.uint8)
        if drawn @ np.array([0.299, 0.587, 0.114]) <= _BRIGHTEST:
            return drawn


def coloured(mask: np.ndarray, rgb: np.ndarray) -> np.ndarray:
    """Return uint8 (H, W, 3): white, painted with ``rgb`` through a coverage mask (H, W) of 0 to 255."""
    share = mask[:, :, None].astype(np.float32) / 255
    return np.rint(255 + share * (rgb.astype(np.float32) - 255)).astype(np.uint8)


@functools.lru_cache(maxsize=64)
def _outline(path: Path) -> tuple[Any, float, float]:
    """Return an open font, and width and height of its largest capital per unit of size."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(str(path))
        lacking = [letter for letter in LETTERS if not font.get_char_index(ord(letter))]
        font.set_size(_PROBE, 72)
        boxes = [] if lacking else [font.load_char(ord(letter)).bbox for letter in LETTERS]
    except OSError as error:
        raise ValueError(f"font {path}: cannot be read ({error.strerror})") from None
    except (RuntimeError, ValueError, TypeError):  # FreeType's own words are a line of its source and a number
        raise ValueError(f"font {path}: cannot be read: no TrueType or OpenType font, or a damaged one") from None
    lacking += [letter for letter, box in zip(LETTERS, boxes, strict=bool(boxes)) if box[2] <= box[0]]
    if lacking:
        raise ValueError(f"font {path}: lacks {len(lacking)} of the 26 capitals: {' '.join(lacking)}")
    table = np.array(boxes) / (64 * _PROBE)  # (26, 4) x1, y1, x2, y2
    return font, float((table[:, 2] - table[:, 0]).max()), float((table[:, 3] - table[:, 1]).max())


def letter_mask(path: str | Path, letter: str, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Return uint8 (H, W): how much of each pixel a capital covers, 0 to 255; its box is centred.

    All letters of a font have one scale, at which the largest just fits. Raises ``ValueError`` for a font that cannot
    be read or lacks a capital, ``FileNotFoundError`` for an absent one.
    """
    path = Path(path)
    if letter not in LETTERS or len(letter) != 1:
        raise ValueError(f"letter: expected one of {LETTERS}, got {letter!r}")
    if not path.is_file():
        raise FileNotFoundError(f"font {path}: no such file")
    font, width, height = _outline(path)
    font.set_size(_FILL * min(size[1] / width, size[0] / height), 72)  # at 72 dpi a point is a pixel
    font.set_text(letter, 0.0)
    font.draw_glyphs_to_bitmap(antialiased=True)
    return _centred(np.array(font.get_image(), dtype=np.uint8), size)


def _centred(ink: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a picture with the ink's box in its middle."""
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    box = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if len(rows) else ink[:0, :0]
    box = box[: size[0], : size[1]]
    picture = np.zeros(size, np.uint8)
    top, left = (size[0] - box.shape[0]) // 2, (size[1] - box.shape[1]) // 2
    picture[top : top + box.shape[0], left : left + box.shape[1]] = box
    return picture


def letter_skeleton(path: str | Path, letter: str, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Return the skeleton of a font's capital, uint8 (H, W), 0 or 255; errors as ``letter_mask``."""
    return _mask_skeleton(letter_mask(path, letter, size))


def skeleton(image: np.ndarray) -> np.ndarray:
    """Return the skeleton of a letter in any colour on white, uint8 (H, W), 0 or 255, from uint8 (H, W, 3) RGB.

    A pixel belongs to the letter when it is nearer to the letter's strongest ink than to white.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"image: expected uint8 (H, W, 3), got {image.dtype} {image.shape}")
    ink = 255 - image.min(axis=2).astype(np.int64)
    return _mask_skeleton(np.where(2 * ink > ink.max(), 255, 0).astype(np.uint8))


def _mask_skeleton(mask: np.ndarray) -> np.ndarray:
    """Binarise a coverage mask, blur it by the 3 x 3 Gaussian (1, 2, 1) x (1, 2, 1) / 16, binarise, and thin it."""
    solid = np.pad((mask > 127).astype(np.int64), 1)
    wide = solid[:, :-2] + 2 * solid[:, 1:-1] + solid[:, 2:]
    blurred = wide[:-2] + 2 * wide[1:-1] + wide[2:]  # sixteenths
    return np.where(thin(blurred > 7), 255, 0).astype(np.uint8)


def read_skeleton(path: str | Path) -> np.ndarray:
    """Read the picture of a skeleton, light lines on dark, as uint8 (H, W), 0 or 255; errors as ``read_image``."""
    grey: np.ndarray = images.read_image(path).max(axis=2)
    return np.where(grey > 127, 255, 0).astype(np.uint8)
