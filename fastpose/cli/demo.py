"""``fastpose demo``: the main job on the bundled sample of photographs, of motion, and of captions."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from fastpose.cli import _print

RECIPES = {
    "sagan": "sagan/demo",
    "pona": "pona/sample",
    "multiscale": "multiscale/sample",
    "pose3d": "pose3d/demo",
    "caption": "caption/demo",
}
"""What each system's demonstration trains; the first is shown where none is named."""

FIRST = {"caption": "caption/demo-poses"}
"""The stage before it, with whose run it begins."""

_SECOND = ("text.", "start.", "test.", "model.conditional=")
"""What overrides of the second stage alone begin with."""


def demo(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SYSTEM] [KEY=VALUE]...", help="sagan, pona, multiscale, pose3d or caption; changes to its recipe."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where run folders are made.")] = Path("runs"),
) -> None:
    """Train a small network on bundled photographs, evaluate it, draw; minutes on two CPU cores."""
    from fastpose import training

    system, overrides = split_system(arguments or [])
    recipe = RECIPES[system]
    with _print.warnings_as_lines():
        if system in FIRST and not any(override.startswith("start.run=") for override in overrides):
            overrides = [*overrides, f"start.run={_first_stage(system, overrides, out)}"]
        result = training.train(recipe, overrides, out=out)
        if not _print.speaks():
            return
        typer.echo("")
        _print.results(result.results)
        _print.run_folder(result.folder)
        if system == "pose3d":
            _turn(recipe, result.folder)
        if system == "caption":
            _pose(recipe, result.folder)
    _print_next(system, recipe, result.folder)


def _first_stage(system: str, overrides: list[str], out: Path) -> Path:
    """Train the stage before a system's demonstration; return its run folder.

    Raises:
        ValueError: what the second stage would refuse, or several processes: one launch makes one group of them.
    """
    from fastpose import training

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(
            f"demo {system}: trains two stages one after the other, which takes one process; train {FIRST[system]} and "
            f"then {RECIPES[system]} start.run=RUN under torchrun instead"
        )
    later = training.load_recipe(RECIPES[system], [*overrides, "start.run=RUN"])
    training.systems.get(later.system).trainer(later.config)  # a recipe or an encoder that cannot be is told first
    shared = [override for override in overrides if not override.startswith(_SECOND)]
    return training.train(FIRST[system], shared, out=out).folder


def split_system(arguments: list[str]) -> tuple[str, list[str]]:
    """Split ``[SYSTEM] [KEY=VALUE]...``; ``ValueError`` offers the nearest system."""
    from fastpose._checks import unknown

    if not arguments or "=" in arguments[0]:
        return next(iter(RECIPES)), arguments
    if arguments[0] not in RECIPES:
        raise ValueError(unknown("system to demonstrate:", arguments[0], RECIPES))
    return arguments[0], arguments[1:]


def _turn(recipe: str, folder: Path) -> None:
    """Draw the pose that the run's network sees in a bundled photograph, and let it turn."""
    from fastpose import training
    from fastpose.data import sample
    from fastpose.data.person import labelled

    photo = max(sample.SamplePersons("val").persons, key=labelled).image
    weights = folder / "weights/best.safetensors"
    for path in training.predict(recipe, weights, [photo], out=folder / "samples"):
        typer.echo(f"{'turning:' if path.suffix == '.gif' else 'pose:':<10}{path}")


def _pose(recipe: str, folder: Path) -> None:
    """Draw poses that the run's network makes of bundled captions, which it has not been trained with."""
    from fastpose import training

    weights = folder / "weights/best.safetensors"
    for path in training.generate(recipe, weights, _captions(3), count=8, out=folder / "samples"):
        label = "joints" if path.suffix == ".json" else "heatmaps" if "heatmaps" in path.name else "poses"
        typer.echo(f"{label + ':':<10}{path}")


def _captions(count: int) -> list[str]:
    """Return captions of bundled validation poses, evenly spread."""
    from fastpose.data import captions

    poses = captions.sample("val")
    return [poses.own_captions(k * (len(poses) - 1) // max(1, count - 1))[0] for k in range(count)]


def _print_next(system: str, recipe: str, folder: Path) -> None:
    typer.echo("")
    typer.echo("The sample is small: the numbers show that everything works, not what the method can do. Next:")
    predict = ["fastpose", "predict", recipe, "--weights", str(folder / "weights/best.safetensors")]
    for words in _inputs(system):
        typer.echo(f"  {shlex.join([*predict, *words, '-o', 'out'])}")
    if system == "caption":
        typer.echo('  pip install "fastpose[text]"        then any caption does, with --encoder minilm')
    typer.echo("  fastpose recipes")
    for line in _REAL[system]:
        typer.echo(f"  {line}")


def _inputs(system: str) -> list[list[str]]:
    """Return what predict is given besides a system's weights, one list of words per line to try."""
    if system == "caption":
        first, second = _captions(2)
        return [[first, "--count", "16"], [first, second, "--interpolate", "captions"]]
    if system in ("sagan", "pose3d"):
        return [["PHOTO.jpg"]]
    return [["PERSON.jpg", "--keypoints", "K.json", "--pose", "POSE.json"]]


_REAL = {
    "sagan": ("fastpose data check lspet ROOT && fastpose train sagan/ours-c data=lspet data.root=ROOT",),
    "pona": ("fastpose data check market ROOT && fastpose train pona/market data.root=ROOT",),
    "pose3d": (
        "fastpose data check h36m ROOT && fastpose data check mpii ROOT2",
        "fastpose train pose3d/stage-1-2s data.wild=mpii:ROOT2     then stage-2-2s and full-2s, each with",
        "                                     data.root=ROOT data.wild=mpii:ROOT2 run.start=WEIGHTS of the one before",
    ),
    "caption": (
        "fastpose data check coco ROOT && fastpose train caption/wgan-gp-reduced data.root=ROOT",
        "fastpose train caption/wgan-lp data.root=ROOT text.encoder=minilm start.run=RUN of the one before",
    ),
    "multiscale": ("fastpose data check deepfashion ROOT && fastpose train multiscale/full data.root=ROOT",),
}
