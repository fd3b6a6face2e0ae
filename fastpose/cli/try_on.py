"""``fastpose try-on``: a person in the clothes of another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def try_on(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="[RECIPE] TARGET [KEY=VALUE]...",
            help="Photograph of the person to be dressed; the recipe may come first.",
        ),
    ],
    weights: Annotated[Path, typer.Option(metavar="W", help="Weights guided by maps of parts.")],
    target_map: Annotated[Path, typer.Option(metavar="PNG", help="The target's map of parts.")],
    reference: Annotated[Path, typer.Option(metavar="IMAGE", help="Photograph of who wears the clothes.")],
    reference_map: Annotated[Path, typer.Option(metavar="PNG", help="The reference's map of parts.")],
    parts: Annotated[str, typer.Option(metavar="5,6", help="Numbers or names of the parts to take over.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The image to write; must not exist.")],
) -> None:
    """Draw a person in what another wears on chosen parts of the body."""
    from fastpose import training
    from fastpose.cli.predict import split_overrides, split_recipe
    from fastpose.training.try_on import try_on as dress

    words, overrides = split_overrides(arguments)
    recipe, targets = split_recipe(words, list(training.list_recipes()), "try-on")
    if len(targets) != 1:
        raise ValueError(f"try-on: expected one photograph of the person to be dressed, got {len(targets)}")
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ValueError(f"--out {out}: expected a name that ends in .png, .jpg or .jpeg")
    path = dress(
        recipe,
        weights,
        targets[0],
        target_map=target_map,
        reference=reference,
        reference_map=reference_map,
        parts=[part for part in parts.split(",") if part.strip()],
        out=out,
        overrides=overrides,
    )
    typer.echo(path)
