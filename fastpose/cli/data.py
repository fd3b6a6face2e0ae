"""``fastpose data``: what data sets are known, is one complete, one drawn from motion, and captions as vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from fastpose.cli import _errors, _print

app = _errors.group("The data sets: which are known, is mine complete, one drawn from motion, captions as vectors.")


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


@app.command("encode")
def encode(
    name: Annotated[str, typer.Argument(metavar="DATASET", help="coco or sample.")],
    root: Annotated[
        Path | None, typer.Argument(metavar="ROOT", help="COCO's folder with annotations/; the sample needs none.")
    ] = None,
    *,
    encoder: Annotated[str, typer.Option(metavar="E", help="minilm, or a file .vec or .bin of fastText.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="A new file, .npz.")],
    split: Annotated[str, typer.Option(help="both, train, or val.")] = "both",
    annotations: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Key points instead of ROOT's usual file, here or under ROOT; repeatable."),
    ] = None,
    captions: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Captions instead of ROOT's usual file, here or under ROOT; repeatable."),
    ] = None,
    device: Annotated[str, typer.Option(help="Where minilm computes: cpu, cuda.")] = "cpu",
) -> None:
    """Write the vectors of a data set's captions into a file, with which one trains without their encoder."""
    from fastpose import _checks
    from fastpose.data import text
    from fastpose.training import prediction

    _checks.choice("DATASET", name, ("coco", "sample"))
    _checks.choice("--split", split, ("both", "train", "val"))
    prediction.check_new(out)
    if out.suffix.lower() != ".npz":
        raise ValueError(f"--out {out}: expected a file name that ends in .npz")
    splits = ("train", "val") if split == "both" else (split,)
    found = _captions(name, root, splits, {"annotations": annotations or (), "captions": captions or ()})
    made = text.create(encoder, device=device)
    with _print.warnings_as_lines(), _print.bar(len({text.key(one) for one in found}), "captions") as done:
        count = text.save_vectors(out, made, found, report=done)
    typer.echo(f"{out}: {count:,} captions, {made.size} numbers each, of {made.name} ({made.fingerprint})")
    typer.echo(f"train with it: text.encoder={out}")


def _captions(name: str, root: Path | None, splits: Sequence[str], files: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the captions of all poses of a data set's splits."""
    from fastpose.data import captions

    if name == "sample":
        if root is not None or any(files.values()):
            raise ValueError("data set 'sample' is bundled; expected neither ROOT nor files of it, leave them out")
        return [caption for split in splits for caption in captions.sample(split).captions]
    if root is None:
        raise ValueError("ROOT: data set 'coco' needs its folder; pass the one with annotations/ inside")
    if not root.expanduser().is_dir():
        raise FileNotFoundError(f"ROOT: there is no folder {root}; pass the one with annotations/ inside")
    if any(files.values()) and len(splits) > 1:
        raise ValueError("--split: expected train or val where files are named, as they are of one split, got 'both'")
    named: dict[str, Any] = {option: tuple(map(_here, given)) for option, given in files.items()}
    sources = [captions.read_coco(root, split, captioned=True, **named) for split in splits]
    return [caption for source in sources for caption in source.captions]


def _here(name: str) -> str:
    """Return a file of the working folder by its full path; what is not there lies under the data set's folder."""
    path = Path(name).expanduser()
    return str(path.absolute()) if path.is_file() else name
