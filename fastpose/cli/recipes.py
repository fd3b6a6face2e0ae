"""``fastpose recipes``: the published configurations, the paper's number beside each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastpose.cli import _errors

app = typer.Typer(
    help="List the published configurations; show or copy one.",
    cls=_errors.Verbs,
    invoke_without_command=True,
    rich_markup_mode=None,
)


@app.callback()
def list_(context: typer.Context) -> None:
    """List the published configurations with the paper's number beside each; show or copy one."""
    if context.invoked_subcommand is not None:
        return
    from fastpose.metrics.report import align
    from fastpose.training import list_recipes, load_recipe

    rows = [["recipe", "the paper's number", "what it is"]]
    for recipe in map(load_recipe, list_recipes()):
        paper = ", ".join(f"{protocol} {value:g}" for protocol, value in recipe.paper.items())
        rows.append([recipe.name, paper or "-", recipe.description.partition(". ")[0].rstrip(".")])
    typer.echo(align(rows))


@app.command("show")
def show(name: Annotated[str, typer.Argument(metavar="RECIPE")]) -> None:
    """Print a recipe with every default filled in, as YAML."""
    from fastpose.training import load_recipe
    from fastpose.training.config import to_yaml

    recipe = load_recipe(name)
    typer.echo(f"# {recipe.name}: {recipe.description}")
    for protocol, value in recipe.paper.items():
        typer.echo(f"# the paper's {protocol}: {value:g}")
    typer.echo(to_yaml(recipe.config), nl=False)


@app.command("copy")
def copy(
    name: Annotated[str, typer.Argument(metavar="RECIPE")],
    target: Annotated[Path, typer.Argument(metavar="FILE", help="Where the copy goes; must not exist.")],
) -> None:
    """Copy a recipe's file, to be changed and given to fastpose train."""
    from fastpose.training import copy_recipe

    path = copy_recipe(name, target)
    typer.echo(f"{path}: change it, then: fastpose train {path}")
