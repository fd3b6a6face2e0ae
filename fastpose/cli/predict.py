"""``fastpose predict``: skeletons drawn on photographs."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

# `test.flip=no`: a dotted key, so that photographs such as `a=b.jpg` and `set/x=1.png` stay inputs
_OVERRIDE = re.compile(r"[A-Za-z_]\w*(\.\w+)+=")


def predict(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="[RECIPE] INPUT... [KEY=VALUE]...", help="Images or folders; the recipe may come first."
        ),
    ],
    weights: Annotated[
        Path | None, typer.Option(metavar="W", help="A .safetensors file that fastpose train wrote.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where the pictures go.")] = Path(
        "predictions"
    ),
    save_keypoints: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the key points as JSON too.")
    ] = None,
) -> None:
    """Draw the pose that trained weights see in each image."""
    from fastpose import training

    words, overrides = split_overrides(arguments)
    recipe, inputs = split_recipe(words, list(training.list_recipes()))
    if weights is None:
        raise ValueError(
            f"predict needs trained weights; `fastpose train {recipe or 'sagan/demo'}` makes them: pass its "
            "weights/best.safetensors with --weights"
        )
    paths = training.predict(recipe, weights, inputs, out=out, save_keypoints=save_keypoints, overrides=overrides)
    for path in paths:
        typer.echo(path)


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split the words into recipe and inputs, and ``section.key=value`` overrides; a file of that name is an input."""
    overrides = [word for word in arguments if _OVERRIDE.match(word) and not os.path.exists(word)]
    return [word for word in arguments if word not in overrides], overrides


def split_recipe(arguments: Sequence[str], known: Sequence[str]) -> tuple[str | None, list[Path]]:
    """Split ``[RECIPE] INPUT...``: the first word is a recipe when it names one or ends in .yaml or .yml.

    Raises:
        ValueError: the first word is neither a recipe nor on the disk, or no input is left.
    """
    from fastpose._checks import nearest

    if not arguments:
        raise ValueError("predict: no image given; name files or folders")
    first, *rest = arguments
    if first in known or first.endswith((".yaml", ".yml")):
        if not rest:
            raise ValueError(f"predict: recipe {first!r} is there but no image; add files or folders")
        return first, [Path(word) for word in rest]
    if not Path(first).exists():
        raise FileNotFoundError(f"predict: {first!r} is neither a recipe nor a file or folder{nearest(first, known)}")
    return None, [Path(word) for word in arguments]
