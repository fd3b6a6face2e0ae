"""``fastpose data``: what data sets are known and whether one on the disk is complete."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastpose.cli import _errors

app = _errors.group("The data sets: which are known, and is mine complete?")


@app.command("list")
def list_() -> None:
    """Name the data sets that recipes can use."""
    from fastpose import data

    for name in data.list():
        typer.echo(name)


@app.command("check")
def check(
    name: Annotated[str, typer.Argument(metavar="DATASET", help="A name of fastpose data list.")],
    root: Annotated[
        Path | None, typer.Argument(metavar="ROOT", help="Its folder; the bundled sample needs none.")
    ] = None,
) -> None:
    """Print the expected tree with a tick or a cross per path, counts, and the first offenders."""
    from fastpose.data.check import check as check_dataset

    report = check_dataset(name, root)
    for line in report.lines:
        typer.echo(line)
    if not report.ok:
        raise ValueError(f"data set {name} under {report.root} is not ready; the lines above say what is missing")
