"""``fastpose demo``: the main job on the bundled sample of photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastpose.cli import _print

RECIPE = "sagan/demo"


def demo(
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes to the recipe sagan/demo.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where run folders are made.")] = Path("runs"),
) -> None:
    """Train a small self-attention GAN on bundled photographs, evaluate it, draw; minutes on two CPU cores."""
    from fastpose import training

    result = training.train(RECIPE, overrides or [], out=out)
    if not _print.speaks():
        return
    typer.echo("")
    _print.results(result.results)
    _print.run_folder(result.folder)
    _print_next(result.folder)


def _print_next(folder: Path) -> None:
    typer.echo("")
    typer.echo("The sample is small: the numbers show that everything works, not what the method can do. Next:")
    typer.echo(f"  fastpose predict {RECIPE} --weights {folder / 'weights/best.safetensors'} PHOTO.jpg -o out")
    typer.echo("  fastpose recipes")
    typer.echo("  fastpose data check lspet ROOT && fastpose train sagan/ours-c data=lspet data.root=ROOT")
