"""Recipes, training, and the jobs of the command line: ``train``, ``evaluate``, ``predict``, ``generate``..."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastpose import _checks
from fastpose.training import systems
from fastpose.training.caption_prediction import generate
from fastpose.training.config import Recipe, copy_recipe, list_recipes, load_recipe
from fastpose.training.engine import FitResult
from fastpose.training.prediction import PRECISIONS, check_folder, for_images, open_weights, predict, transfer

if TYPE_CHECKING:
    from fastpose.metrics.report import Result

__all__ = [
    "FitResult",
    "Recipe",
    "copy_recipe",
    "evaluate",
    "generate",
    "list_recipes",
    "load_recipe",
    "predict",
    "systems",
    "train",
    "transfer",
]


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
        overrides: ``key=value`` texts over the recipe; on a resume, over the run's own configuration. Files and folders
            that they name relative to the working folder stand in ``config.yaml`` with their full paths.
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
    from fastpose.training.config import anchored

    if resume is None:
        loaded = load_recipe(recipe, overrides)
        loaded = replace(loaded, config=anchored(loaded.config))
    else:
        loaded = _resumed(recipe, overrides, resume)
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
    recipe: str,
    weights: str | Path,
    overrides: Sequence[str] = (),
    *,
    precision: str = "fp32",
    out: str | Path | None = None,
) -> list[Result]:
    """Return a recipe's metrics of given weights, each under the name of its protocol.

    Args:
        recipe: whose weights, data and test they are.
        weights: a .safetensors file that a training run wrote.
        overrides: ``key=value`` texts over the configuration the weights were trained with, such as ``data.root=...``
            or ``test.scales=0.8,0.9,1,1.1,1.2,1.3``. The training's cache of photographs counts only where
            ``data.cache=...`` names one again.
        precision: "bf16" computes with two to three digits, in less time; for systems that find key points.
        out: also write ``results.jsonl`` into this folder.

    Raises:
        ValueError, FileNotFoundError: one sentence about the recipe, the weights or the data.
    """
    import torch

    from fastpose.metrics.report import write_jsonl
    from fastpose.training import checkpoint, distributed, randomness
    from fastpose.training.config import code_left_out

    _checks.choice("precision", precision, PRECISIONS)
    if out is not None:
        check_folder(out)
    system, config, network = open_weights(recipe, weights, [*_without_photo_cache(recipe), *overrides])
    code = code_left_out(checkpoint.read_about(weights).get("config", {}), overrides)
    if code:
        warnings.warn(
            f"{weights}: names {code}, code that a file may not choose; add it to have its score", stacklevel=2
        )
    if system.estimator is not None:
        network = for_images(network, config, precision)
    elif precision != "fp32":
        raise ValueError(f"precision: expected fp32, got {precision!r}: system {system.name} finds no key points")
    network.to(distributed.choose_device(config.run.device))
    with torch.no_grad(), randomness.preserved():
        results = system.evaluate(network, config)
    if out is not None:
        Path(out).mkdir(parents=True, exist_ok=True)
        write_jsonl(Path(out) / "results.jsonl", results)
    return results


def _without_photo_cache(recipe: str) -> list[str]:
    """Return overrides against a cache that weights name: it is the training machine's, and one pass gains nothing."""
    from fastpose.training.config import flatten_types

    known = flatten_types(systems.get(load_recipe(recipe).system).config)
    return ["data.cache=", "data.cache_shrink=no"] if "data.cache_shrink" in known else []


def _resumed(recipe: str, overrides: Sequence[str], resume: str | Path) -> Recipe:
    """Return the recipe with the configuration of the run to go on with, the overrides applied."""
    from fastpose.training.config import anchored, apply_overrides, code_left_out, from_dict, without_code
    from fastpose.training.run_folder import RunFolder

    loaded = load_recipe(recipe)
    name, values = RunFolder.open(resume).read_config()
    if name and name != loaded.name:
        raise ValueError(f"run {resume}: is of recipe {name}, cannot go on as {loaded.name}; name the recipe {name}")
    config: Any = from_dict(systems.get(loaded.system).config, without_code(values), recipe=loaded.name)
    code = code_left_out(values, overrides)
    if code:
        key = code.partition("=")[0]
        raise ValueError(
            f"run {resume}: names {code}, code that a file may not choose; add it, or {key}= to leave it out"
        )
    return replace(loaded, config=anchored(apply_overrides(config, overrides, loaded.name), config))
