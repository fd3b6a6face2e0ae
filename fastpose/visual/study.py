"""Pages for user studies: real or generated (system 003, section 4.2), and which picture fits a caption (system 004).

One self-contained HTML file: pictures inside, no server, nothing loaded or sent. A page must not give the answers away:
all pictures are cut around their centre to the narrowest shape among them, shrunk to the smallest height (at most 512
pixels) and written as JPEG of quality 92 without chroma subsampling or metadata, in mixed order under identifiers that
mean nothing, and the truth is masked. That keeps it from eyes, not from who runs the page's code.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from fastpose._files import publish
from fastpose.visual._canvas import Image, as_array, as_image, resize

PAGE_VERSION = 2
"""Raised when the page or what it saves changes."""

MOST_PIXELS = 512
_QUALITY = 92


@dataclass(frozen=True)
class Unread:
    """A picture that is read when its turn comes, so that one at a time is in memory.

    Attributes:
        size: its (H, W).
        read: returns it, RGB uint8 (H, W, 3).
    """

    size: tuple[int, int]
    read: Callable[[], Any]


@dataclass(frozen=True)
class Key:
    """What a page's identifiers stand for; for those who made it, not for participants.

    Attributes:
        study: identifier of the study: of its pictures, seed and title, not of the exposure, so that the timed and the
            untimed page of one set count as one study.
        rows: one dict per picture or question: "image" (identifier), "truth" ("real", "generated"; "caption" for
            questions), "index" (position in the sequence that was given) and "practice".
    """

    study: str
    rows: list[dict[str, Any]]


def write_study(
    out_path: str | Path,
    *,
    title: str,
    real: Sequence[Any],
    generated: Sequence[Any],
    practice: int = 10,
    images: int = 20,
    exposure: float | None = 5.0,
    seed: int = 0,
) -> Key:
    """Write the page "real or generated".

    A participant first sees the fixed practice pictures with the answers, then ``images`` others, half of them real,
    drawn at random from the rest; an answer counts during the exposure and after it.

    Args:
        out_path: HTML file to write, a new one; its folder is made.
        title: heading of the page; it should not tell what is studied.
        real, generated: RGB uint8 (H, W, 3) of any size, or `Unread` ones; the first ``practice`` of each
            are the practice pictures.
        practice: practice pictures from each set; published: 10.
        images: pictures of the test, even; published: 20.
        exposure: seconds that a picture is shown, None for no limit; published: 5 and unlimited.
        seed: of the order in the file and of the identifiers; each participant's draw has a random seed of its own.

    Returns:
        what the identifiers stand for.

    Raises:
        ValueError: too few pictures, an odd number, an exposure that is not positive, or a negative seed.
        FileExistsError: the page is there.
    """
    _check_counts(len(real), len(generated), practice, images, exposure)
    _check_new(Path(out_path), seed)
    order = np.random.default_rng(seed).permutation(len(real) + len(generated))
    given = [*real, *generated]
    pictures, size = encode([given[index] for index in order])
    study = _identifier("pictures", title, str(seed), *pictures)
    rows = [_row(study, place, int(index), len(real), practice) for place, index in enumerate(order)]
    secret = {
        "pictures": [[row["image"], row["truth"]] for row in rows],
        "practice": [place for place, row in enumerate(rows) if row["practice"]],
    }
    limit = "unlimited" if exposure is None else exposure
    _write(Path(out_path), title, "pictures", study, seed, secret, pictures, size, images=images, exposure=limit)
    return Key(study, rows)


def write_caption_study(
    out_path: str | Path, *, title: str, items: Sequence[tuple[str, Any, Any]], questions: int = 20, seed: int = 0
) -> Key:
    """Write the page that asks which of two pictures fits a caption.

    Args:
        out_path: HTML file to write, a new one; its folder is made.
        title: heading of the page.
        items: (caption, picture that fits, picture that does not), RGB uint8 (H, W, 3) or `Unread`; which stands on
            the left is drawn per participant.
        questions: how many items a participant sees, drawn at random; published: 20.
        seed: of the order in the file and of the identifiers.

    Raises:
        ValueError: fewer items than questions, an empty caption, or a negative seed.
        FileExistsError: the page is there.
    """
    if not 1 <= questions <= len(items):
        raise ValueError(f"questions: expected 1 to {len(items)}, as many as there are items, got {questions}")
    for number, (caption, _, _) in enumerate(items):
        if not caption.strip():
            raise ValueError(f"items: item {number} has an empty caption; expected the words to choose by")
    _check_new(Path(out_path), seed)
    order = np.random.default_rng(seed).permutation(2 * len(items))
    given = [picture for _, *pair in items for picture in pair]
    pictures, size = encode([given[index] for index in order])
    place = {int(index): position for position, index in enumerate(order)}
    study = _identifier("caption", title, str(seed), *(caption for caption, _, _ in items), *pictures)
    rows = [
        {"image": _identifier(study, str(number))[:10], "truth": "caption", "index": number, "practice": False}
        for number in range(len(items))
    ]
    secret = {
        "items": [
            {"id": row["image"], "caption": items[n][0], "right": place[2 * n], "wrong": place[2 * n + 1]}
            for n, row in enumerate(rows)
        ]
    }
    _write(
        Path(out_path), title, "caption", study, seed, secret, pictures, size, images=questions, exposure="unlimited"
    )
    return Key(study, rows)


def encode(pictures: Sequence[Any]) -> tuple[list[str], tuple[int, int]]:
    """Return pictures as base64 JPEG of one size, and that (H, W): the narrowest shape and the smallest height."""
    import cv2

    sizes = [_size(picture) for picture in pictures]
    height = min(MOST_PIXELS, *(tall for tall, _ in sizes))
    narrowest = min(sizes, key=lambda found: found[1] / found[0])
    size = (height, max(1, round(height * narrowest[1] / narrowest[0])))
    options = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    encoded = []
    for picture in pictures:
        array = as_image("pictures", picture.read() if isinstance(picture, Unread) else picture)
        done, data = cv2.imencode(".jpg", np.ascontiguousarray(_cut(array, size)[..., ::-1]), options)
        if not done:
            raise ValueError(f"pictures: a picture of {array.shape} could not be written as JPEG")
        encoded.append(base64.b64encode(data.tobytes()).decode("ascii"))
    return encoded, size


def _size(picture: Any) -> tuple[int, int]:
    """Return the (H, W) of a picture that is read or not; ``ValueError`` where it has none."""
    if isinstance(picture, Unread):
        return picture.size
    shape = as_array(picture).shape
    if len(shape) < 2 or 0 in shape:
        raise ValueError(f"pictures: expected an RGB image (H, W, 3), got {shape}")
    return shape[0], shape[1]


def _cut(image: Image, size: tuple[int, int]) -> Image:
    """Return the middle of an image in the shape of (H, W), resized to it."""
    height, width = image.shape[:2]
    wide = min(width, max(1, round(height * size[1] / size[0])))
    tall = min(height, max(1, round(wide * size[0] / size[1])))
    left, top = (width - wide) // 2, (height - tall) // 2
    part = np.ascontiguousarray(image[top : top + tall, left : left + wide])
    return part if part.shape[:2] == size else resize(part, size)


def _check_new(path: Path, seed: int) -> None:
    """Raise unless the seed can be drawn from and nothing is overwritten."""
    if seed < 0:
        raise ValueError(f"seed: expected 0 or more, got {seed}")
    if path.exists():
        raise FileExistsError(f"{path}: exists; name another page, or remove it")


def _check_counts(real: int, generated: int, practice: int, images: int, exposure: float | None) -> None:
    if images < 2 or images % 2:
        raise ValueError(f"images: expected an even number from 2 on, half of them real, got {images}")
    if practice < 0:
        raise ValueError(f"practice: expected 0 or more pictures of each set, got {practice}")
    if exposure is not None and not 0 < exposure < 3600:
        raise ValueError(f"exposure: expected a positive number of seconds or no limit, got {exposure:g}")
    needed = practice + images // 2
    for name, count in (("real", real), ("generated", generated)):
        if count < needed:
            raise ValueError(
                f"{name}: expected at least {needed} pictures ({practice} to practise, {images // 2} for the test), "
                f"got {count}; add pictures, or lower practice or images"
            )


def _row(study: str, place: int, index: int, real: int, practice: int) -> dict[str, Any]:
    """Return what the picture in this place of the file is; ``index`` counts through both sets."""
    truth, inside = ("real", index) if index < real else ("generated", index - real)
    identifier = _identifier(study, str(place))[:10]
    return {"image": identifier, "truth": truth, "index": inside, "practice": inside < practice}


def _identifier(*parts: str) -> str:
    """Return 16 hexadecimal digits that depend on all parts."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _write(
    path: Path,
    title: str,
    kind: str,
    study: str,
    seed: int,
    secret: dict[str, Any],
    pictures: list[str],
    size: tuple[int, int],
    **settings: Any,
) -> None:
    """Put everything into the page's template and write it."""
    mask = int(study[:8], 16) & 0x7FFFFFFF or 1
    content = {"version": PAGE_VERSION, "id": study, "kind": kind, "title": title, "seed": seed, "size": list(size)}
    content |= {**settings, "mask": mask, "masked": masked(secret, mask), "pictures": pictures}
    template = resources.files("fastpose").joinpath("visual", "study.html").read_text(encoding="utf-8")
    data = json.dumps(content).replace("<", "\\u003c")  # a title such as </script> must not end the block
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = {"@@STUDY@@": data, "@@TITLE@@": escape(title)}
    publish(path, re.sub("|".join(parts), lambda found: parts[found[0]], template))


def masked(value: Any, mask: int) -> str:
    """Return JSON under a xorshift32 stream (Marsaglia 2003) that begins at ``mask``, as base64; the page undoes it."""
    state, data = mask, bytearray(json.dumps(value).encode())
    for index in range(len(data)):
        state ^= (state << 13) & 0xFFFFFFFF
        state ^= state >> 17
        state ^= (state << 5) & 0xFFFFFFFF
        data[index] ^= state & 255
    return base64.b64encode(bytes(data)).decode("ascii")
