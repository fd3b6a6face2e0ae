"""``fastpose predict``: poses on photographs and in space, persons in other poses, or poses from captions.

Which of them is done, the weights say.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from fastpose.cli import _print

# `test.flip=no`: a dotted key, so that photographs such as `a=b.jpg` and `set/x=1.png` stay inputs
_OVERRIDE = re.compile(r"[A-Za-z_]\w*(\.\w+)+=")
_LIKE_A_RECIPE = re.compile(r"[\w.-]+/[\w.-]+")
_NEAR = 0.75  # so alike are a recipe and a misspelled one


Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[RECIPE] INPUT... [KEY=VALUE]...",
        help="Images or folders, or captions in quotes (@FILE: one per line, @@ for an @); the recipe may come first.",
    ),
]
Weights = Annotated[Path | None, typer.Option(metavar="W", help="A .safetensors file that fastpose train wrote.")]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where the pictures go.")]
SaveKeypoints = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Write the key points as JSON too, of 3D weights in mm of an assumed size; must not exist."
    ),
]
Precision = Annotated[
    str, typer.Option(metavar="fp32|bf16", help="Of networks that find key points; bf16 is quicker, less exact.")
]
Pose = Annotated[
    list[Path] | None,
    typer.Option(metavar="P", help="Pose transfer: the target poses; key points, photographs, folders of them."),
]
Keypoints = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Pose transfer: key points of the inputs, JSON or CSV.")
]
PoseWeights = Annotated[
    Path | None, typer.Option(metavar="W2", help="Pose transfer: a 2D pose network, for photographs without.")
]
SourceMap = Annotated[
    Path | None, typer.Option(metavar="PNG", help="Guided by parts: what the input shows, or a folder.")
]
TargetMap = Annotated[
    list[Path] | None, typer.Option(metavar="PNG", help="Guided by parts or skeletons: what is to be drawn.")
]
Letters = Annotated[str, typer.Option(metavar="ABC", help="Guided by skeletons: draw these letters.")]
Font = Annotated[Path | None, typer.Option(metavar="TTF", help="The font of the letters.")]
Explain = Annotated[bool, typer.Option("--explain", help="Also draw features, gates and attention.")]
Count = Annotated[
    int | None, typer.Option(metavar="N", help="Captions: poses of each, 16; of an interpolation from end to end, 5.")
]
Seed = Annotated[int | None, typer.Option(metavar="S", help="Captions: of the noise, 0.")]
Encoder = Annotated[str | None, typer.Option(metavar="E", help="Captions: minilm, sample, or a file .vec, .bin, .npz.")]
Interpolate = Annotated[str | None, typer.Option(metavar="noise|captions", help="Captions: what lies between two.")]
Spherical = Annotated[bool, typer.Option("--spherical", help="Interpolate along arcs in place of straight lines.")]


def predict(
    arguments: Inputs = None,
    weights: Weights = None,
    out: Out = Path("predictions"),
    save_keypoints: SaveKeypoints = None,
    precision: Precision = "fp32",
    pose: Pose = None,
    keypoints: Keypoints = None,
    pose_weights: PoseWeights = None,
    source_map: SourceMap = None,
    target_map: TargetMap = None,
    letters: Letters = "",
    font: Font = None,
    explain: Explain = False,
    count: Count = None,
    seed: Seed = None,
    encoder: Encoder = None,
    interpolate: Interpolate = None,
    spherical: Spherical = False,
) -> None:
    """Draw the pose in each image, with 3D weights also turning; with weights of pose transfer, its person anew.

    With weights of poses from captions, make poses.
    """
    maps = {"source_map": source_map, "target_maps": target_map or ()}
    guides: dict[str, Any] = {"poses": pose or (), "keypoints": keypoints, "pose_weights": pose_weights, **maps}
    guides |= {"letters": letters, "font": font, "explain": explain}
    other = None if precision == "fp32" else precision  # fp32 is what all weights compute in
    seeing = {"save_keypoints": save_keypoints, "precision": other}
    seeing = {name: value for name, value in seeing.items() if value is not None}
    making = {"count": count, "seed": seed, "encoder": encoder, "interpolate": interpolate}
    making = {name: value for name, value in (making | {"spherical": spherical or None}).items() if value is not None}
    with _print.warnings_as_lines():
        paths = _drawn(arguments or [], weights, guides, making, seeing, out)
    for path in paths:
        typer.echo(path)


def _drawn(
    arguments: list[str],
    weights: Path | None,
    guides: dict[str, Any],
    making: dict[str, Any],
    seeing: dict[str, Any],
    out: Path,
) -> list[Path]:
    """Do what the weights are for; options of another job are refused."""
    from fastpose import training

    if weights is None:
        raise ValueError(_without_weights(arguments, making))
    if training.systems.of(weights).generator is None:
        _refuse(making, f"the weights {weights} make no poses; expected those of poses from captions (caption)")
        return _of_photographs(arguments, weights, guides, seeing, out)
    given = {name: value for name, value in {**guides, **seeing}.items() if value}
    _refuse(given, f"of no use to the weights {weights}, which make poses; leave it out")
    if "spherical" in making and "interpolate" not in making:
        raise ValueError("--spherical: is of interpolations; add --interpolate noise or captions, or leave it out")
    return _generate(arguments, weights, making, out)


def _without_weights(arguments: list[str], making: dict[str, Any]) -> str:
    """Return the sentence about absent weights; what is wrong with the inputs of other systems is raised."""
    from fastpose import training

    known = list(training.list_recipes())
    recipe = arguments[0] if arguments and arguments[0] in known else None
    poses = recipe is not None and training.systems.get(training.load_recipe(recipe).system).generator is not None
    if not poses and not making:
        recipe, _ = split_recipe(split_overrides(arguments)[0], known)
    if recipe == "caption/demo" or (recipe is None and making):
        command = "demo caption"  # of two stages
    else:
        command = f"train {recipe or 'sagan/demo'}"
    return (
        f"predict needs trained weights; `fastpose {command}` makes them: pass its weights/best.safetensors with "
        "--weights"
    )


def _of_photographs(
    arguments: list[str], weights: Path, guides: dict[str, Any], seeing: dict[str, Any], out: Path
) -> list[Path]:
    """Draw poses in photographs, or their persons in other poses."""
    from fastpose import training

    words, overrides = split_overrides(arguments)
    recipe, inputs = split_recipe(words, list(training.list_recipes()))
    if training.systems.transfers(weights):
        return _transfer(recipe, weights, inputs, guides, seeing, out=out, overrides=overrides)
    given = {name: value for name, value in guides.items() if value}
    _refuse(given, f"the weights {weights} draw no person; expected those of pose transfer")
    return training.predict(recipe, weights, inputs, out=out, overrides=overrides, **seeing)


def _generate(arguments: list[str], weights: Path, making: dict[str, Any], out: Path) -> list[Path]:
    """Make poses of captions, or of noise alone."""
    from fastpose import training
    from fastpose.training.config import flatten_types

    known = training.list_recipes()
    keys = flatten_types(training.systems.of(weights).config)
    recipe, captions, overrides = split_captions(arguments, known, keys)
    return training.generate(recipe, weights, captions, out=out, overrides=overrides, **making)


def _transfer(
    recipe: str | None,
    weights: Path,
    inputs: Sequence[Path],
    guides: dict[str, Any],
    seeing: dict[str, Any],
    **options: Any,
) -> list[Path]:
    """Draw persons; what Python would warn of is a line on stderr."""
    from fastpose import training

    if "precision" in seeing:
        raise ValueError(f"--precision: is of key points, which the weights {weights} do not find; leave it out")
    if seeing:
        raise ValueError(f"--save-keypoints: the weights {weights} find none; give it with those of a 2D pose network")
    return training.transfer(recipe, weights, inputs, **guides, **options)


def _refuse(given: Collection[str], why: str) -> None:
    """Raise where an option stands beside weights that have no use for it."""
    from fastpose.training.transfer_guides import option

    for name in given:
        raise ValueError(f"{option(name)}: {why}")


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split the words into recipe and inputs, and ``section.key=value`` overrides; a file of that name is an input."""
    overrides = [word for word in arguments if _OVERRIDE.match(word) and not os.path.exists(word)]
    return [word for word in arguments if word not in overrides], overrides


def split_captions(
    arguments: Sequence[str], known: Sequence[str], keys: Collection[str]
) -> tuple[str | None, list[str], list[str]]:
    """Split ``[RECIPE] CAPTION... [KEY=VALUE]...``; return the recipe, the captions and the overrides.

    A caption with spaces is an override only where it sets one of ``keys``, the configuration's.

    Raises:
        ValueError: a caption that begins with the name of a recipe, looks like a misspelled one, or is a photograph.
    """
    words, overrides = list(arguments), []
    recipe = words.pop(0) if words and (words[0] in known or words[0].endswith((".yaml", ".yml"))) else None
    captions = []
    for word in words:
        key, _, value = word.partition("=")
        if _OVERRIDE.match(word) and (key in keys or not any(map(str.isspace, value))):
            overrides.append(word)
        else:
            _check_caption(word, known)
            captions.append(word)
    return recipe, captions, overrides


def _check_caption(word: str, known: Sequence[str]) -> None:
    """Raise ``ValueError`` for what is hardly meant as a caption."""
    from fastpose._checks import nearest
    from fastpose.data.images import SUFFIXES

    first, _, rest = word.partition(" ")
    if first in known:
        way = f'put the quotes after it: {first} "{rest.strip()}"' if rest.strip() else "it comes before all captions"
        raise ValueError(f"caption {word!r}: begins with the name of a recipe; {way}")
    systems = {name.partition("/")[0] for name in known}
    near = word.partition("/")[0] in systems or difflib.get_close_matches(word, known, cutoff=_NEAR)
    if _LIKE_A_RECIPE.fullmatch(word) and near:
        raise ValueError(f"caption {word!r}: is no recipe{nearest(word, known)}")
    if Path(word).suffix.lower() in SUFFIXES and not rest:
        raise ValueError(f"caption {word!r}: is an image; the weights make poses from captions, expected a text")


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
