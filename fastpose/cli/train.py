"""``fastpose train``: a recipe, from its first step or from where a run stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastpose.cli import _print


def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A published configuration; see fastpose recipes.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes to the recipe, such as run.epochs=5.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Go on with this run folder.")] = None,
    allow_changes: Annotated[
        bool, typer.Option("--allow-changes", help="Go on although configuration or data set differ.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="The run's name inside OUT/RECIPE.")] = None,
    out: Annotated[Path, typer.Option(help="Where run folders are made.")] = Path("runs"),
) -> None:
    """Train a recipe; under torchrun, on several devices."""
    from fastpose import training

    with _print.warnings_as_lines():
        result = training.train(recipe, overrides or [], out=out, name=name, resume=resume, allow_changes=allow_changes)
    if _print.speaks():
        _print.results(result.results, training.load_recipe(recipe).paper)
        _print.run_folder(result.folder)
