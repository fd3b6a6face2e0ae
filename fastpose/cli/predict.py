"""``fastpose predict``: skeletons drawn on photographs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer


def predict(
    arguments: Annotated[
        list[str], typer.Argument(metavar="[RECIPE] INPUT...", help="Images or folders; the recipe may come first.")
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

    recipe, inputs = split_recipe(arguments, list(training.list_recipes()))
    if weights is None:
        raise ValueError(
            f"predict needs trained weights; `fastpose train {recipe or 'sagan/demo'}` makes them: pass its "
            "weights/best.safetensors with --weights"
        )
    for path in training.predict(recipe, weights, inputs, out=out, save_keypoints=save_keypoints):
        typer.echo(path)


def split_recipe(arguments: Sequence[str], known: Sequence[str]) -> tuple[str | None, list[Path]]:
    """Split ``[RECIPE] INPUT...``: the first word is a recipe when it names one.

    Raises:
        ValueError: the first word is neither a recipe nor on the disk, or no input is left.
    """
    from fastpose._checks import nearest

    first, *rest = arguments
    if first in known:
        if not rest:
            raise ValueError(f"predict: recipe {first!r} is there but no image; add files or folders")
        return first, [Path(word) for word in rest]
    if not Path(first).exists():
        raise FileNotFoundError(f"predict: {first!r} is neither a recipe nor a file or folder{nearest(first, known)}")
    return None, [Path(word) for word in arguments]
