"""``fastpose try-on``: a person in the clothes of another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def try_on(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="The recipe of the weights.")],
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="Photograph of the person to be dressed.")],
    weights: Annotated[Path, typer.Option(metavar="W", help="Weights guided by maps of parts.")],
    target_map: Annotated[Path, typer.Option(metavar="PNG", help="The target's map of parts.")],
    reference: Annotated[Path, typer.Option(metavar="IMAGE", help="Photograph of who wears the clothes.")],
    reference_map: Annotated[Path, typer.Option(metavar="PNG", help="The reference's map of parts.")],
    parts: Annotated[str, typer.Option(metavar="5,6", help="Numbers or names of the parts to take over.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The image to write; must not exist.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes, such as run.device=cpu.")
    ] = None,
) -> None:
    """Draw a person in what another wears on chosen parts of the body."""
    from fastpose.training.try_on import try_on as dress

    if out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ValueError(f"--out {out}: expected a name that ends in .png, .jpg or .jpeg")
    path = dress(
        recipe,
        weights,
        target,
        target_map=target_map,
        reference=reference,
        reference_map=reference_map,
        parts=[part for part in parts.split(",") if part.strip()],
        out=out,
        overrides=overrides or [],
    )
    typer.echo(path)
