"""``fastpose data``: what data sets are known, whether one on the disk is complete, and one drawn from motion."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fastpose.cli import _errors, _print

app = _errors.group("The data sets: which are known, is mine complete, and one drawn from recorded motion.")


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


@app.command("render")
def render(
    root: Annotated[
        str, typer.Argument(metavar="ROOT", help="A motion file or folder (.amc, .bvh, .npz); or: sample.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="A new folder.")],
    split: Annotated[str, typer.Option(help="both (train and val in one folder), train, val, or all clips.")] = "both",
    count: Annotated[int, typer.Option(help="Most images of each split; 0: all.")] = 0,
    size: Annotated[int, typer.Option(help="Side of the images in pixels.")] = 256,
    fps: Annotated[float, typer.Option(help="Poses per second of motion.")] = 10.0,
    views: Annotated[int, typer.Option(help="Cameras per pose.")] = 1,
    seed: Annotated[int, typer.Option(help="Of cameras, clothes, light and background.")] = 0,
    unit: Annotated[
        str | None, typer.Option(help="Of lengths in .amc and .bvh: mm, cm, inch, cmu, m; else told by the size.")
    ] = None,
    recorded_fps: Annotated[
        float | None, typer.Option(help="Rate of recording of .amc files, which do not tell it; else 120.")
    ] = None,
) -> None:
    """Draw recorded motion as photographs with 2D and 3D truth, in a layout of Human3.6M; whole clips are held out."""
    from fastpose import _checks
    from fastpose.data import render_files

    _checks.choice("--split", split, ("both", "train", "val", "all"))
    splits = ("train", "val") if split == "both" else (split,)
    render_files.check_new(out)
    recorded = {"unit": unit, "recorded_fps": recorded_fps}
    told = {name: value for name, value in recorded.items() if value is not None}
    sources = {each: _motion(root, each, size=(size, size), fps=fps, views=views, seed=seed, **told) for each in splits}
    with _print.bar(sum(min(count or len(source), len(source)) for source in sources.values())) as done:
        written = render_files.write(out, sources, count=count, report=done)
    for each, images in written.items():
        typer.echo(f"{out}: {images} images of {size} x {size}, split {each}, {render_files.ANNOTATIONS[each]}")
    typer.echo(_advice(split, out))


def _advice(split: str, out: Path) -> str:
    """Return how the files are read; training needs to be told what to validate on where they have but one split."""
    if split == "val":
        return f"read it as data.validation=h36m:{out}"
    train = f"read it as data.name=h36m data.root={out}"
    if split == "both":
        return train
    held = "; it holds the clips for validation too" if split == "all" else ""
    return f"{train} data.validation=none, or name there what to validate on{held}"


def _motion(root: str, split: str, **options: Any) -> Any:
    """Return rendered motion with Human3.6M's joints."""
    from fastpose import data

    name = "sample-mocap" if root == "sample" else "mocap"
    return data.create(name, None if root == "sample" else root, split, skeleton="h36m", **options)
