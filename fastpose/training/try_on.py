"""Virtual try-on (system 003, section 4.5.2): one person in the clothes of another, part by part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastpose.training import prediction


def try_on(
    recipe: str | None,
    weights: str | Path,
    target: str | Path,
    *,
    target_map: str | Path,
    reference: str | Path,
    reference_map: str | Path,
    parts: Sequence[int | str],
    out: str | Path,
    overrides: Sequence[str] = (),
) -> Path:
    """Draw a person in what another wears on chosen parts of the body; return the path of the image.

    The generator draws the reference as the target's map has it, crude = G(reference image, reference map, target map);
    the result is M crude + (1 - M) target, M being 1 on the chosen parts of the target's map. It has the size that the
    network was trained with.

    Args:
        recipe: refuse weights of another recipe; None takes whatever the weights are.
        weights: of a generator guided by maps of parts, such as recipe multiscale/semantic trains.
        target: photograph of the person to be dressed; ``target_map`` is its map of parts.
        reference: photograph of who wears the clothes; ``reference_map`` is its map of parts.
        parts: numbers of the parts to be taken over, in the order of the palette, or names (`data.semantic.PARTS`).
        out: the image to write, .png or .jpg; must not exist.
        overrides: ``key=value`` texts over the configuration of the weights, such as ``run.device=cpu``.

    Raises:
        ValueError, FileNotFoundError: one sentence about the weights, an image, a map or a part.
    """
    from fastpose.data.images import read_image
    from fastpose.training import transfer_guides
    from fastpose.visual.grids import save_image

    prediction.check_new(out, folders=(Path(out).parent,))
    person, wearer = (read_image(path, exif="apply") for path in (target, reference))
    drawer = prediction.open_transfer(recipe, weights, overrides)
    if drawer.guide != "semantic":
        raise ValueError(
            f"weights {weights}: are guided by a {drawer.guide}; expected maps of parts (multiscale/semantic)"
        )
    chosen = part_numbers(parts, drawer.data.palette)
    own_map, worn_map = (transfer_guides.read_parts(path, drawer.data) for path in (target_map, reference_map))
    return save_image(out, dress(drawer, person, own_map, wearer, worn_map, chosen))


def part_numbers(parts: Sequence[int | str], palette: str = "inshop") -> dict[int, str]:
    """Return the numbers of parts given by number or name, each with the word that asked for it.

    The names are those of the published colours, ``palette`` "inshop"; the parts of other palettes have numbers alone.
    ``ValueError`` offers the nearest name.
    """
    from fastpose.data import semantic
    from fastpose.training import transfer_guides

    names = list(semantic.PARTS[1:]) if palette == "inshop" else []  # without the background; part 1 first
    count = len(names) or len(transfer_guides.colours(palette)) - 1
    numbers = {}
    for word in (str(part).strip() for part in parts):
        if word.isdecimal() and 1 <= int(word) <= count:
            numbers[int(word)] = word
        elif word in names:
            numbers[names.index(word) + 1] = word
        else:
            raise ValueError(_unknown_part(word, names, count))
    if not numbers:
        raise ValueError("parts: expected at least one number or name, got none")
    return numbers


def _unknown_part(word: str, names: Sequence[str], count: int) -> str:
    from fastpose import _checks

    if names:
        return f"parts: {_checks.unknown('part', word, names)} (or a number from 1 to {count})"
    return f"parts: unknown part {word!r}; expected a number from 1 to {count}, palettes of your own have no names"


def dress(
    drawer: Any,
    person: np.ndarray,
    own_map: np.ndarray,
    wearer: np.ndarray,
    worn_map: np.ndarray,
    parts: Mapping[int, str] | Sequence[int],
) -> np.ndarray:
    """Return the person, uint8 (H, W, 3) of the network's size, in what the wearer has on.

    Args:
        drawer: `PoseTransfer` guided by maps of parts.
        person, own_map: photograph uint8 (h, w, 3) and its part numbers uint8 (h, w).
        wearer, worn_map: the same of the reference.
        parts: numbers to be taken over, with the words for them where there are some.

    Raises:
        ValueError: sizes differ, or none of the parts is in the person's map.
    """
    labels = drawer.side(own_map, "target map", person.shape[:2])["labels"]
    mask = np.isin(labels, list(parts))  # (H, W)
    if not mask.any():
        words = list(parts.values()) if isinstance(parts, Mapping) else list(map(str, parts))
        there = _words(np.unique(own_map[own_map > 0]).tolist(), words)
        raise ValueError(f"parts: none of {', '.join(words)} is in the target's map, which has {there or 'none'}")
    (crude,) = drawer(wearer, worn_map, [own_map])
    return np.where(mask[..., None], crude, drawer.fitted(person))


def _words(numbers: Sequence[int], asked: Sequence[str]) -> str:
    """Return part numbers as text: as names where one was asked for by name."""
    from fastpose.data import semantic

    named = not all(word.isdecimal() for word in asked)
    return ", ".join(semantic.PARTS[number] if named else str(number) for number in numbers)
