"""``fastpose compose``: the person of a photograph in the pose that a caption tells."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from fastpose.cli import _print


def compose(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="CAPTION... [KEY=VALUE]...",
            help="What the person is to do, a text in quotes each (@FILE: one per line).",
        ),
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
    count: Annotated[int, typer.Option(metavar="N", help="Poses of each caption, 1,000 in all.")] = 1,
    seed: Annotated[int, typer.Option(metavar="S", help="Of the noise that poses are made of.")] = 0,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where the pictures go.")] = Path("composed"),
) -> None:
    """Make poses from captions, lay them over a photograph's person, and draw the person in them."""
    from fastpose.training import composition

    captions, overrides = _captions(arguments)
    with _print.warnings_as_lines():
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
    for path in paths:
        typer.echo(path)


def _captions(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split the words into captions and overrides as `predict` does; ``ValueError`` for a recipe."""
    from fastpose import training
    from fastpose.cli.predict import split_captions
    from fastpose.training.config import flatten_types

    keys = flatten_types(training.systems.get("caption").config)
    recipe, captions, overrides = split_captions(arguments, training.list_recipes(), keys)
    if recipe is not None:
        raise ValueError(f"compose: {recipe!r} is a recipe; the weights name theirs, leave it out")
    return captions, overrides
