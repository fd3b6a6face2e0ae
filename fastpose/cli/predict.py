"""``fastpose predict``: poses on photographs and in space, or persons drawn in other poses, as the weights have it."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

# `test.flip=no`: a dotted key, so that photographs such as `a=b.jpg` and `set/x=1.png` stay inputs
_OVERRIDE = re.compile(r"[A-Za-z_]\w*(\.\w+)+=")


def predict(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="[RECIPE] INPUT... [KEY=VALUE]...", help="Images or folders; the recipe may come first."
        ),
    ],
    weights: Annotated[
        Path | None, typer.Option(metavar="W", help="A .safetensors file that fastpose train wrote.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where the pictures go.")] = Path(
        "predictions"
    ),
    save_keypoints: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the key points as JSON too, of 3D weights in mm of an assumed size; must not exist.",
        ),
    ] = None,
    pose: Annotated[
        list[Path] | None,
        typer.Option(metavar="P", help="Pose transfer: the target poses; key points, photographs, folders of them."),
    ] = None,
    keypoints: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Pose transfer: key points of the inputs, JSON or CSV.")
    ] = None,
    pose_weights: Annotated[
        Path | None, typer.Option(metavar="W2", help="Pose transfer: a 2D pose network, for photographs without.")
    ] = None,
    source_map: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Guided by parts: what the input shows, or a folder.")
    ] = None,
    target_map: Annotated[
        list[Path] | None, typer.Option(metavar="PNG", help="Guided by parts or skeletons: what is to be drawn.")
    ] = None,
    letters: Annotated[str, typer.Option(metavar="ABC", help="Guided by skeletons: draw these letters.")] = "",
    font: Annotated[Path | None, typer.Option(metavar="TTF", help="The font of the letters.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Also draw features, gates and attention.")] = False,
) -> None:
    """Draw the pose in each image, with 3D weights also turning; with weights of pose transfer, its person anew."""
    from fastpose import training

    words, overrides = split_overrides(arguments)
    recipe, inputs = split_recipe(words, list(training.list_recipes()))
    if weights is None:
        raise ValueError(
            f"predict needs trained weights; `fastpose train {recipe or 'sagan/demo'}` makes them: pass its "
            "weights/best.safetensors with --weights"
        )
    guides: dict[str, Any] = {
        "poses": pose or (),
        "keypoints": keypoints,
        "pose_weights": pose_weights,
        "source_map": source_map,
    }
    guides |= {"target_maps": target_map or (), "letters": letters, "font": font, "explain": explain}
    if training.systems.transfers(weights):
        paths = _transfer(recipe, weights, inputs, guides, save_keypoints, out=out, overrides=overrides)
    else:
        _refuse(guides, weights)
        paths = training.predict(recipe, weights, inputs, out=out, save_keypoints=save_keypoints, overrides=overrides)
    for path in paths:
        typer.echo(path)


def _transfer(
    recipe: str | None,
    weights: Path,
    inputs: Sequence[Path],
    guides: dict[str, Any],
    save_keypoints: Path | None,
    **options: Any,
) -> list[Path]:
    """Draw persons; what Python would warn of is a line on stderr."""
    from fastpose import training

    if save_keypoints is not None:
        raise ValueError(f"--save-keypoints: the weights {weights} find none; give it with those of a 2D pose network")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        paths = training.transfer(recipe, weights, inputs, **guides, **options)
    for warning in caught:
        typer.echo(f"fastpose: {warning.message}", err=True)
    return paths


def _refuse(guides: dict[str, Any], weights: Path) -> None:
    """Raise where an option of pose transfer stands beside weights that find key points."""
    from fastpose.training.transfer_guides import option

    for name, value in guides.items():
        if value:
            raise ValueError(f"{option(name)}: the weights {weights} draw no person; expected those of pose transfer")


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split the words into recipe and inputs, and ``section.key=value`` overrides; a file of that name is an input."""
    overrides = [word for word in arguments if _OVERRIDE.match(word) and not os.path.exists(word)]
    return [word for word in arguments if word not in overrides], overrides


def split_recipe(
    arguments: Sequence[str], known: Sequence[str], verb: str = "predict"
) -> tuple[str | None, list[Path]]:
    """Split ``[RECIPE] INPUT...``: the first word is a recipe when it names one or ends in .yaml or .yml.

    ``verb`` begins the sentences.

    Raises:
        ValueError: the first word is neither a recipe nor on the disk, or no input is left.
    """
    from fastpose._checks import nearest

    if not arguments:
        raise ValueError(f"{verb}: no image given; name files or folders")
    first, *rest = arguments
    if first in known or first.endswith((".yaml", ".yml")):
        if not rest:
            raise ValueError(f"{verb}: recipe {first!r} is there but no image; add files or folders")
        return first, [Path(word) for word in rest]
    if not Path(first).exists():
        raise FileNotFoundError(f"{verb}: {first!r} is neither a recipe nor a file or folder{nearest(first, known)}")
    return None, [Path(word) for word in arguments]
