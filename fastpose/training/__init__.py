"""Recipes, the training loop, and the three jobs of the command line: ``train``, ``evaluate``, ``predict``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastpose.training import systems
from fastpose.training.config import Recipe, copy_recipe, list_recipes, load_recipe
from fastpose.training.engine import FitResult

if TYPE_CHECKING:
    from fastpose.metrics.report import Result
    from fastpose.training.systems import System

__all__ = [
    "FitResult",
    "Recipe",
    "copy_recipe",
    "evaluate",
    "list_recipes",
    "load_recipe",
    "predict",
    "systems",
    "train",
]

_PHOTOS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


def train(
    recipe: str,
    overrides: Sequence[str] = (),
    *,
    out: str | Path = "runs",
    name: str | None = None,
    resume: str | Path | None = None,
    allow_changes: bool = False,
    progress: bool = True,
) -> FitResult:
    """Train a recipe in a new run folder, or go on with an old one.

    Args:
        recipe: ``<system>/<row>`` or the path of a YAML file.
        overrides: ``key=value`` texts over the recipe; on a resume, over the run's own configuration.
        out, name: the run folder is ``<out>/<recipe>/<name>[-N]``.
        resume: a run folder to go on with.
        allow_changes: go on although configuration or data set differ from the run's.
        progress: whether to show anything.

    Returns:
        the run's ``folder``, the ``results`` of the last evaluation, the best one, and how the run ended.

    Raises:
        ValueError, FileNotFoundError: one sentence about the recipe, the data or the resume point.
        SystemExit: 143 or 130 after SIGTERM or SIGINT, the state being saved.
    """
    from fastpose.training import engine

    loaded = load_recipe(recipe, overrides) if resume is None else _resumed(recipe, overrides, resume)
    system = systems.get(loaded.system)
    return engine.launch(
        loaded,
        lambda: system.trainer(loaded.config),
        out=out,
        name=name,
        resume=resume,
        allow_changes=allow_changes,
        progress=progress,
    )


def evaluate(
    recipe: str, weights: str | Path, overrides: Sequence[str] = (), *, out: str | Path | None = None
) -> list[Result]:
    """Return a recipe's metrics of given weights, each under the name of its protocol.

    Args:
        recipe: whose weights, data and test they are.
        weights: a .safetensors file that a training run wrote.
        overrides: ``key=value`` texts over the configuration the weights were trained with, such as ``data.root=...``
            or ``test.scales=0.8,0.9,1,1.1,1.2,1.3``.
        out: also write ``results.jsonl`` into this folder.

    Raises:
        ValueError, FileNotFoundError: one sentence about the recipe, the weights or the data.
    """
    import torch

    from fastpose.metrics.report import write_jsonl
    from fastpose.training import distributed, randomness

    system, config, network = _open(recipe, weights, overrides)
    network.to(distributed.choose_device(config.run.device))
    with torch.no_grad(), randomness.preserved():
        results = system.evaluate(network, config)
    if out is not None:
        Path(out).mkdir(parents=True, exist_ok=True)
        write_jsonl(Path(out) / "results.jsonl", results)
    return results


def predict(
    recipe: str | None,
    weights: str | Path,
    inputs: Sequence[str | Path],
    *,
    out: str | Path = "predictions",
    save_keypoints: str | Path | None = None,
    overrides: Sequence[str] = (),
) -> list[Path]:
    """Draw the poses that trained weights see in photographs; return the paths of the pictures.

    Args:
        recipe: refuse weights of another recipe; None takes whatever the weights are.
        weights: a .safetensors file that a training run wrote.
        inputs: photographs, and folders of them. Each whole photograph is taken as one person's crop.
        out: folder of the pictures, ``<name>.png`` each, or ``<name>-2.png`` and so on where that file exists already.
        save_keypoints: also write key points and scores of all photographs as JSON.
        overrides: ``key=value`` texts over the configuration of the weights, such as ``test.flip=no``.

    Raises:
        ValueError, FileNotFoundError: one sentence about the weights or a photograph.
    """
    from fastpose.data.images import read_image
    from fastpose.training import distributed
    from fastpose.visual.grids import save_image
    from fastpose.visual.skeletons import draw_skeleton

    photos = _photos(inputs)
    system, config, network = _open(recipe, weights, overrides)
    estimator = system.estimator(network.to(distributed.choose_device(config.run.device)), config, None)
    Path(out).mkdir(parents=True, exist_ok=True)
    written, rows = [], []
    for photo, target in zip(photos, _targets(photos, Path(out)), strict=True):
        image = read_image(photo, exif="apply")
        estimate = estimator(image)
        save_image(target, draw_skeleton(image, estimate.keypoints[0], None, estimator.skeleton))
        written.append(target)
        rows.append(_row(photo, estimate, estimator.skeleton))
    if save_keypoints is not None:
        Path(save_keypoints).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return written


def _resumed(recipe: str, overrides: Sequence[str], resume: str | Path) -> Recipe:
    """Return the recipe with the configuration of the run to go on with, the overrides applied."""
    from fastpose.training.config import apply_overrides, from_dict
    from fastpose.training.run_folder import RunFolder

    loaded = load_recipe(recipe)
    name, values = RunFolder.open(resume).read_config()
    if name and name != loaded.name:
        raise ValueError(f"run {resume}: is of recipe {name}, cannot go on as {loaded.name}; name the recipe {name}")
    config: Any = from_dict(systems.get(loaded.system).config, values, recipe=loaded.name)
    return replace(loaded, config=apply_overrides(config, overrides, loaded.name))


def _open(recipe: str | None, weights: str | Path, overrides: Sequence[str]) -> tuple[System, Any, Any]:
    """Return system, configuration (overridden) and network of a weights file, which must be of ``recipe``."""
    from fastpose.training.config import apply_overrides, differences, to_dict

    expected = None if recipe is None else load_recipe(recipe).name
    system, config, network = systems.load_network(weights, recipe=expected)
    changed = apply_overrides(config, overrides, expected or "")
    fixed = [key for key in differences(to_dict(config), to_dict(changed)) if key.startswith("model.")]
    if fixed:
        raise ValueError(f"{fixed[0]}: the weights {weights} fix the network; leave this override out")
    return system, changed, network


def _photos(inputs: Sequence[str | Path]) -> list[Path]:
    """Return the files named, and the photographs of the folders named, in order."""
    photos: list[Path] = []
    for path in map(Path, inputs):
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix.lower() in _PHOTOS)
            if not inside:
                raise FileNotFoundError(f"folder {path}: no image in it; expected {', '.join(_PHOTOS)} files")
            photos += inside
        elif path.is_file():
            photos.append(path)
        else:
            raise FileNotFoundError(f"image {path}: no such file")
    if not photos:
        raise ValueError("predict: no image given; name files or folders")
    return photos


def _targets(photos: Sequence[Path], out: Path) -> list[Path]:
    """Return one picture path per photograph; a name that a photograph or any other file has is numbered."""
    taken = {photo.resolve() for photo in photos}
    targets = []
    for photo in photos:
        target, number = out / f"{photo.stem}.png", 1
        while target.resolve() in taken or target.exists() or target.is_symlink():
            number += 1
            target = out / f"{photo.stem}-{number}.png"
        taken.add(target.resolve())
        targets.append(target)
    return targets


def _row(photo: Path, estimate: Any, skeleton: Any) -> dict[str, Any]:
    """Return one photograph's key points as JSON values."""
    return {
        "image": str(photo),
        "skeleton": skeleton.name,
        "joints": list(skeleton.joints),
        "persons": [
            {"keypoints": points.round(2).tolist(), "scores": scores.round(4).tolist()}
            for points, scores in zip(estimate.keypoints.astype(float), estimate.scores.astype(float), strict=True)
        ],
    }
