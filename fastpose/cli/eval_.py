"""``fastpose eval``: a recipe's protocol on given weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastpose.cli import _print


def evaluate(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="The recipe whose data and protocol are used.")],
    weights: Annotated[Path, typer.Option(metavar="W", help="A .safetensors file of this recipe.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes to the recipe, such as data.root=DIR.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Write the results there as well.")
    ] = None,
    precision: Annotated[
        str, typer.Option(metavar="fp32|bf16", help="Of networks that find key points; bf16 is quicker, less exact.")
    ] = "fp32",
) -> None:
    """Evaluate weights; every number is printed with the name of its protocol."""
    from fastpose import training

    with _print.warnings_as_lines():
        rows = training.evaluate(recipe, weights, overrides or [], precision=precision, out=out)
    _print.results(rows, training.load_recipe(recipe).paper)
