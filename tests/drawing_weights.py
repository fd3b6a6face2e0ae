"""Weights files of tiny systems for the tests of what draws persons: large enough to tell inputs apart."""

from __future__ import annotations

from pathlib import Path

import torch

from fastpose.training import checkpoint, systems
from fastpose.training import config as configuration

SMALL = ("model.width=2", "model.levels=2", "data.height=32", "data.width=32")
"""Of the generators of system 003."""


def save(folder: Path, name: str, *overrides: str, value: float | None = None, **about: object) -> Path:
    """Write weights of a recipe; initial ones are so small that every input would give one grey.

    ``value`` goes into all of them, as a damaged training leaves NaN; ``about`` into the manifest.
    """
    recipe = configuration.load_recipe(name, overrides)
    torch.manual_seed(0)
    network = systems.get(recipe.system).network(recipe.config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(5 if parameter.dim() > 1 else 1)
            if parameter.numel() == 1:
                parameter.fill_(0.5)  # what attention adds
            if value is not None:
                parameter.fill_(value)
    about |= {"recipe": recipe.name, "system": recipe.system, "config": configuration.to_dict(recipe.config)}
    path = folder / f"{name.replace('/', '-')}.safetensors"
    checkpoint.save_weights(path, network, about)
    return path
