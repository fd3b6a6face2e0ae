"""Trained weights at work on a user's captions: pictures of the poses that they make, and the key points."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastpose import _checks, _files
from fastpose.training import caption_generation, prediction, systems
from fastpose.training.caption_generation import GeneratedPoses, Inputs, PoseGenerator

if TYPE_CHECKING:
    from fastpose.data.text import TextEncoder

COUNT = 16
"""Poses of each caption."""

INTERPOLATIONS = ("noise", "captions")

FREE = ("run.", "text.encoder")
"""What overrides may reach: no more, or captions mean what they did not mean in the training."""

_SHOWN = 48  # poses of one caption in a picture; the file of key points has all of them
_SHOWN_TOGETHER = 480
_ACROSS = 8
_MOST_POSES = 100_000


@dataclass(frozen=True)
class _Block:
    """Poses of one caption, of none, or between two: one caption's, or one interpolation's."""

    captions: tuple[str, ...]
    inputs: Inputs
    poses: GeneratedPoses
    about: dict[str, Any]


def generate(
    recipe: str | None,
    weights: str | Path,
    captions: str | Path | Iterable[str | Path] | None = None,
    *,
    count: int | None = None,
    seed: int = 0,
    encoder: TextEncoder | str | None = None,
    interpolate: str = "",
    spherical: bool = False,
    out: str | Path = "predictions",
    overrides: Sequence[str] = (),
) -> list[Path]:
    """Make poses of captions, or of noise alone with unconditional weights; return the paths of the files.

    Three files, ``<name>.png`` (skeletons), ``<name>_heatmaps.png`` and ``<name>.json``: the caption names them, or
    "poses" where there is no or more than one, or "interpolation". They are numbered together where one exists
    already. The JSON lists all poses, in pixels of a 64 x 64 map, in the format of ``predict``, so that it can be the
    target poses of pose transfer; the score of an absent joint is 0. The pictures show the first ones of very many.

    Args:
        recipe: refuse weights of another recipe; None takes whatever the weights are.
        weights: a .safetensors file of a system that makes poses (caption).
        captions: texts; ``@FILE``, or a path that ends in .txt, is a file with one caption per line, and ``@@home`` the
            caption "@home". One that is there twice counts once, but where lines go between captions. None for
            unconditional weights.
        count: poses of each caption, default 16; with ``interpolate`` of each line, its ends included, default 5.
        seed: of the noise; pose k of every caption has the same, whatever ``count`` is.
        encoder: of captions, as `data.text.create` takes it, or such an encoder; None takes the one that the weights
            name. It must be the one of the training.
        interpolate: "noise": from one noise to another, a line per caption; "captions": from each caption to the next.
        spherical: along arcs in place of straight lines.
        out: folder of the files.
        overrides: ``key=value`` texts over the configuration of the weights: ``run.*`` and ``text.encoder``.

    Raises:
        ValueError, FileNotFoundError: one sentence about the weights, a caption, a number or the encoder; nothing is
            written then.

    Warns:
        UserWarning: the pictures' font has no letters for a caption, which they call "caption 1" then.
    """
    texts = read_captions(captions)
    if interpolate:
        _checks.choice("interpolate", interpolate, INTERPOLATIONS)
    if interpolate != "captions":
        texts = list(dict.fromkeys(texts))
    number = count if count is not None else (caption_generation.STEPS if interpolate else COUNT)
    _check_numbers(texts, number, seed, interpolate)
    name = "interpolation" if interpolate else file_name(texts[0]) if len(texts) == 1 else "poses"
    prediction.check_folder(out)
    generator = open_generator(recipe, weights, encoder, overrides)
    _check(generator, texts, interpolate)
    how = {"interpolated": interpolate, "spherical": spherical} if interpolate else {}
    blocks = [
        _Block(of, inputs, generator.poses(*inputs), how)
        for of, inputs in _planned(generator, texts, number, seed, interpolate, spherical)
    ]
    paths = prediction.Names(Path(out), ()).together([f"{name}.png", f"{name}_heatmaps.png", f"{name}.json"])
    about = {"seed": int(seed), "count": number, **origin(weights, generator)}
    return _written(paths, generator, blocks, titles(texts), about)


def open_generator(
    recipe: str | None,
    weights: str | Path,
    encoder: TextEncoder | str | None = None,
    overrides: Sequence[str] = (),
    *,
    free: tuple[str, ...] = FREE,
) -> PoseGenerator:
    """Return what makes poses with a weights file of ``recipe``, on the device that its section ``run`` names.

    ``free`` is what the keys of overrides may begin with.
    """
    from fastpose.training import distributed

    system, config, network = prediction.open_weights(recipe, weights, overrides, only=free)
    if system.generator is not None:
        prediction.check_finite(network, weights)
    return systems.generator(system, network.to(distributed.choose_device(config.run.device)), config, encoder)


def read_captions(captions: str | Path | Iterable[str | Path] | None) -> list[str]:
    """Return captions, each on one line: given as texts, as ``@FILE``, or as paths that end in .txt.

    A text that begins with ``@@`` is a caption that begins with ``@``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an empty caption, a file without any or that is no text.
    """
    found: list[str] = []
    for entry in [captions] if isinstance(captions, str | Path) else captions or ():
        text = str(entry)
        literal = text.startswith("@@") and not isinstance(entry, Path)
        if not literal and (isinstance(entry, Path) or text.startswith("@") or _is_text_file(text)):
            found += _lines(Path(text.removeprefix("@")).expanduser())
        elif text.strip("@ ") if literal else text.strip():
            found.append(text[1:] if literal else text)
        else:
            raise ValueError(f"caption: expected a text with a word in it, got {text!r}")
    return [" ".join(text.split()) for text in found]


def file_name(caption: str) -> str:
    """Return a caption as a part of a file's name: letters and digits, hyphens between words, 100 bytes at most."""
    words = "".join(letter if letter.isalnum() else " " for letter in caption.lower()).split()
    return prediction.short("-".join(words)).rstrip("-") or "poses"


def titles(captions: Iterable[str]) -> dict[str, str]:
    """Return what pictures call each caption: itself, or "caption 3" where their font has not its letters.

    Warns of the latter with a ``UserWarning``.
    """
    from fastpose.visual.captions import readable

    names = {text: text if readable(text) else f"caption {k}" for k, text in enumerate(dict.fromkeys(captions), 1)}
    unread = [text for text, name in names.items() if text != name]
    if unread:
        more = f" and {len(unread) - 1} more" if len(unread) > 1 else ""
        warnings.warn(
            f"caption {unread[0]!r}{more}: the pictures' font has not all letters of it; they say "
            f"{names[unread[0]]!r} in its place, as the .json file does beside it",
            stacklevel=2,
        )
    return names


def origin(weights: str | Path, generator: PoseGenerator) -> dict[str, Any]:
    """Return where poses are from, as JSON values."""
    about = prediction.origin(weights)
    return {"weights": about["file"], "recipe": about["recipe"], **generator.origin}


def _is_text_file(word: str) -> bool:
    return word.lower().endswith(".txt") and (Path(word).is_file() or not any(map(str.isspace, word)))


def _lines(path: Path) -> list[str]:
    """Return the captions of a file, one per line; empty lines do not count."""
    if not path.is_file():
        raise FileNotFoundError(f"captions {path}: no such file; expected one caption per line")
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        raise ValueError(
            f"captions {path}: expected UTF-8 text with one caption per line, found something else"
        ) from None
    found = [line for line in lines if line]
    if not found:
        raise ValueError(f"captions {path}: is empty; expected one caption per line")
    return found


# -------------------------------------------------------------------------------------------------------------- making


def _check_numbers(captions: Sequence[str], count: int, seed: int, interpolate: str) -> None:
    """Raise ``ValueError`` for numbers that are none, and for too few or too many poses."""
    _checks.whole("count", count, 1)
    _checks.whole("seed", seed, 0)
    if interpolate and count < 2:
        raise ValueError(f"count: expected 2 poses or more with interpolate, the two ends, got {count}")
    if count * max(1, len(captions)) > _MOST_POSES:
        raise ValueError(f"count: expected at most {_MOST_POSES:,} poses at a time, got {count:,} of each caption")


def _check(generator: PoseGenerator, captions: Sequence[str], interpolate: str) -> None:
    """Raise ``ValueError`` for captions that weights or interpolation have no use for."""
    if not generator.conditional and interpolate == "captions":
        raise ValueError("interpolate: the weights are unconditional and read no captions; expected noise")
    if interpolate == "captions" and len(captions) < 2:
        raise ValueError(f"interpolate: expected two captions or more to go between, got {len(captions)}")
    if generator.conditional and not captions:
        raise ValueError('captions: the weights make poses from captions; name one, such as "a man playing tennis"')


def _planned(
    generator: PoseGenerator, captions: Sequence[str], count: int, seed: int, interpolate: str, spherical: bool
) -> Iterator[tuple[tuple[str, ...], Inputs]]:
    """Give captions and inputs of every caption's poses, or of every interpolation."""
    if interpolate == "captions":
        for pair in pairwise(captions):
            yield pair, generator.caption_inputs(*pair, count, seed, spherical=spherical)
        return
    for caption in captions or [""]:
        of, text = ((caption,), caption) if caption else ((), None)
        if interpolate:
            yield of, generator.noise_inputs(text, count, seed, spherical=spherical)
        else:
            yield of, generator.inputs(text, count, seed)


# ------------------------------------------------------------------------------------------------------------- writing


def _written(
    paths: Sequence[Path],
    generator: PoseGenerator,
    blocks: Sequence[_Block],
    names: Mapping[str, str],
    about: dict[str, Any],
) -> list[Path]:
    """Write both pictures, where captions have the ``names``, and the key points; return the paths."""
    from fastpose.visual import captions
    from fastpose.visual.grids import save_image

    shown, note = _shown(blocks)
    over = [[names[caption] for caption in block.captions] for block, _ in shown]
    skeletons = [_skeletons(block, count) for block, count in shown]
    heatmaps = [_heatmaps(generator, block, count) for block, count in shown]
    rows = [row for number, block in enumerate(blocks, 1) for row in _rows(block, number, len(blocks), names, about)]
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    for path, parts in zip(paths, (skeletons, heatmaps), strict=False):
        save_image(path, captions.strips(list(zip(over, parts, strict=True)), most=_ACROSS, note=note))
    _files.publish(paths[2], json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    return list(paths)


def _shown(blocks: Sequence[_Block]) -> tuple[list[tuple[_Block, int]], str]:
    """Return the blocks that a picture has room for with how many poses of each, and a line about the others."""
    count = len(blocks[0].poses)
    each = min(count, _SHOWN)
    shown = [(block, each) for block in blocks[: max(1, _SHOWN_TOGETHER // each)]]
    total = sum(len(block.poses) for block in blocks)
    missing = total - each * len(shown)
    return shown, f"{total - missing} of {total} poses are shown; the .json file has all of them" if missing else ""


def _skeletons(block: _Block, count: int) -> list[np.ndarray]:
    from fastpose.visual import captions

    poses = block.poses
    return [captions.skeleton_picture(poses.keypoints[k], poses.visibility[k]) for k in range(count)]


def _heatmaps(generator: PoseGenerator, block: _Block, count: int) -> list[np.ndarray]:
    from fastpose.visual import captions

    vectors = None if block.inputs.vectors is None else block.inputs.vectors[:count]
    heatmaps = generator.heatmaps(block.inputs.noise[:count], vectors).numpy()  # (count, 17, 64, 64)
    poses = block.poses
    return [captions.heatmap_picture(heatmaps[k], poses.keypoints[k], poses.visibility[k]) for k in range(count)]


def _rows(
    block: _Block, number: int, blocks: int, names: Mapping[str, str], about: dict[str, Any]
) -> list[dict[str, Any]]:
    """Return the JSON values of poses: as ``predict`` writes a photograph's, and what they are made of."""
    skeleton, poses = PoseGenerator.skeleton, block.poses
    stem = file_name(" to ".join(block.captions)) + (f"_{number}" if blocks > 1 else "")
    rows = []
    for k, caption in enumerate(poses.captions):
        present = poses.visibility[k]
        person = {
            "keypoints": poses.keypoints[k].astype(float).round(2).tolist(),
            "scores": np.where(present, poses.scores[k], 0).astype(float).round(4).tolist(),
            "visible": present.tolist(),
        }
        made = {"caption": caption or None, "number": k + 1, **_between(block, k)}
        if any(names[text] != text for text in block.captions):
            made["titles"] = [names[text] for text in block.captions]
        frame = {"image": f"{stem}_{k + 1}", "size": list(PoseGenerator.size), "skeleton": skeleton.name}
        rows.append({**frame, "joints": list(skeleton.joints), "persons": [person], **made, **about})
    return rows


def _between(block: _Block, k: int) -> dict[str, Any]:
    """Return where pose ``k`` of an interpolation lies, as JSON values; nothing of other poses."""
    if not block.about:
        return {}
    ends = {"between": list(block.captions)} if len(block.captions) == 2 else {}
    return block.about | {"at": round(k / (len(block.poses) - 1), 4)} | ends
