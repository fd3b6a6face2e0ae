"""Runs of the systems in memory, and their networks on what they were last given: for what is saved and loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import runs
import torch
from torch import Tensor, nn

from fastpose.training import config as configuration
from fastpose.training import engine, loop, systems
from fastpose.training.distributed import World
from fastpose.training.run_folder import RunFolder


class Trained:
    """A run of two steps with a resume point after each, and what its networks were last given."""

    def __init__(self, system: str, out: Path) -> None:
        self.trainer, self.recipe = new_trainer(system, "run.max_steps=2", "run.checkpoint_steps=1", "run.ema=0.9")
        self.networks: dict[str, nn.Module] = self.trainer.networks
        self.given: dict[str, Any] = {}
        handles = [network.register_forward_pre_hook(self._keep(name)) for name, network in self.networks.items()]
        self.folder = RunFolder.create(self.recipe.name, out).path
        with runs.without_pictures():
            engine.fit(self.trainer, self.recipe, RunFolder(self.folder), progress=False)
        for handle in handles:
            handle.remove()

    def _keep(self, name: str) -> Callable[..., None]:
        def keep(module: nn.Module, given: tuple[Any, ...]) -> None:
            self.given[name] = tuple(value.detach().clone() if isinstance(value, Tensor) else value for value in given)

        return keep

    @torch.no_grad()
    def seen(self, networks: dict[str, nn.Module]) -> dict[str, list[Tensor]]:
        """Return what networks, in evaluation mode, make of what this run's were last given."""
        return {name: _flat(networks[name].eval()(*given)) for name, given in self.given.items() if name in networks}


def new_trainer(system: str, *more: str) -> tuple[Any, configuration.Recipe]:
    """Return a system's trainer in its smallest form, and the recipe."""
    recipe = configuration.load_recipe(f"{system}/tiny", runs.overrides(system, *more))
    return systems.get(system).trainer(recipe.config), recipe


def new_job(system: str, folder: Path, *more: str) -> loop.Job:
    """Return a run in memory that stands before its first step, with weights of another seed."""
    trainer, recipe = new_trainer(system, "run.seed=7", "run.ema=0.9", *more)
    job = loop.Job(trainer, recipe, World(0, 1, torch.device("cpu")), engine._default_loader())
    job.folder = RunFolder(folder)
    return job


def _flat(value: Any) -> list[Tensor]:
    """Return the tensors of a network's output."""
    if isinstance(value, Tensor):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [tensor for one in inner for tensor in _flat(one)]
