"""``fastpose compose``: the person of a photograph in the pose that a caption tells."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import typer


def compose(
    arguments: Annotated[
        list[str],
        typer.Argument(metavar="CAPTION... [KEY=VALUE]...", help="What the person is to do, a text in quotes each."),
    ],
    person: Annotated[Path, typer.Option(metavar="IMAGE", help="Photograph of a person.")],
    caption_weights: Annotated[Path, typer.Option(metavar="W1", help="Weights of poses from captions.")],
    weights: Annotated[Path, typer.Option(metavar="W2", help="Weights of pose transfer, guided by poses.")],
    keypoints: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Key points of the photograph, JSON or CSV.")
    ] = None,
    pose_weights: Annotated[
        Path | None, typer.Option(metavar="W3", help="A 2D pose network that sees them, where no file has them.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(metavar="E", help="Text encoder: minilm, sample or a file; else that of W1.")
    ] = None,
    count: Annotated[int, typer.Option(metavar="N", help="Poses of each caption.")] = 1,
    seed: Annotated[int, typer.Option(metavar="S", help="Of the noise that poses are made of.")] = 0,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where the pictures go.")] = Path("composed"),
) -> None:
    """Make poses from captions, lay them over a photograph's person, and draw the person in them."""
    from fastpose.cli.predict import split_overrides
    from fastpose.training import composition

    captions, overrides = split_overrides(arguments)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        paths = composition.compose(
            captions,
            person=person,
            caption_weights=caption_weights,
            weights=weights,
            keypoints=keypoints,
            pose_weights=pose_weights,
            encoder=encoder,
            count=count,
            seed=seed,
            out=out,
            overrides=overrides,
        )
    for warning in caught:
        typer.echo(f"fastpose: {warning.message}", err=True)
    for path in paths:
        typer.echo(path)
