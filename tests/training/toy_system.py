"""A system small enough to train in a test: two networks, a penalty, dropout, batch norm, a number that is state.

Run as a script it trains, for the tests that start processes::

    python toy_system.py OUT [--resume RUN] [key=value ...]
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastpose.metrics.report import Result
from fastpose.training import config as configuration
from fastpose.training import engine
from fastpose.training.config import Recipe, RunConfig


@dataclass(frozen=True)
class DataConfig:
    name: str = "points"
    root: str = ""
    length: int = 48


@dataclass(frozen=True)
class ToyConfig:
    run: RunConfig = field(
        default_factory=lambda: RunConfig(epochs=2, batch_size=4, workers=0, log_every=3, checkpoint_every=1)
    )
    data: DataConfig = DataConfig()
    lr: float = 0.01
    width: int = 8
    norm: bool = True
    dropout: float = 0.1
    poison: str = ""  # name of the loss that becomes NaN
    poison_from: int = 10**9  # first step of it
    poison_to: int = 10**9  # the step after its last
    pause: float = 0.0  # seconds per step


class Points:
    """Points and their images under a fixed map; the noise of an item comes from (epoch, index) alone."""

    def __init__(self, length: int, offset: int = 0) -> None:
        self.length, self.offset = length, offset

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: Any) -> dict[str, Tensor]:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        random = np.random.default_rng((epoch, index, self.offset))
        x = torch.from_numpy(random.standard_normal(4)).float()
        y = torch.stack((x[0] + x[1], x[2] * x[3]))
        return {"x": x, "y": y, "index": torch.tensor(index)}


class ToyTrainer:
    main_network = "generator"
    monitor = "score"
    monitor_mode = "max"

    def __init__(self, config: ToyConfig) -> None:
        self.config = config
        norm = nn.BatchNorm1d(config.width) if config.norm else nn.Identity()
        head = [nn.Linear(4, config.width), norm, nn.ReLU(), nn.Dropout(config.dropout), nn.Linear(config.width, 2)]
        critic = [nn.Linear(6, config.width), nn.Tanh(), nn.Linear(config.width, 1)]
        self.networks = {"generator": nn.Sequential(*head), "critic": nn.Sequential(*critic)}
        self.optimizers = {
            "generator": torch.optim.RMSprop(self.networks["generator"].parameters(), lr=config.lr),
            "critic": torch.optim.Adam(self.networks["critic"].parameters(), lr=config.lr),
        }
        self.schedulers = {
            "generator": torch.optim.lr_scheduler.MultiStepLR(self.optimizers["generator"], [1, 3], 0.5),
            "critic": torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizers["critic"], 5),
        }
        self.k, self.count = 0.0, 0
        self.scores: list[float] = []

    def step(self, batch: dict[str, Tensor], update: Any) -> dict[str, Tensor]:
        self.count += 1
        if self.config.pause:
            import time

            time.sleep(self.config.pause)
        generator, critic = update.network("generator"), update.network("critic")
        x, y = batch["x"], batch["y"]
        with update.autocast():
            fake = generator(x)
        real_score = critic(torch.cat((x, y), 1)).mean()
        fake_score = critic(torch.cat((x, fake.detach().float()), 1)).mean()
        penalty = self._poisoned("penalty", self._penalty(critic, x, y))
        terms = {"real": real_score, "penalty": penalty}
        update("critic", self._poisoned("critic", fake_score - real_score + penalty), terms=terms)
        pose = nn.functional.mse_loss(fake.float(), y)
        adversarial = -critic(torch.cat((x, fake.float()), 1)).mean()
        update("generator", self._poisoned("generator", pose + 0.01 * adversarial))
        self.k = 0.9 * self.k + float((fake_score - real_score).detach())
        return {"pose": pose.detach(), "adversarial": adversarial.detach()}

    def _poisoned(self, name: str, loss: Tensor) -> Tensor:
        active = self.config.poison == name and self.config.poison_from <= self.count < self.config.poison_to
        return loss * float("nan") if active else loss

    @staticmethod
    def _penalty(critic: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        point = torch.cat((x, y), 1).requires_grad_()
        (gradient,) = torch.autograd.grad(critic(point).sum(), point, create_graph=True)
        return (gradient.norm(dim=1) - 1).square().mean()

    def state(self) -> dict[str, float]:
        return {"k": self.k}

    def load_state(self, state: dict[str, float]) -> None:
        self.k = state["k"]

    def train_dataset(self) -> Points:
        return Points(self.config.data.length)

    def validation_dataset(self) -> Points:
        return Points(8, offset=1)

    def evaluate(self, network: nn.Module, loader: Any) -> list[Result]:
        torch.rand(1)  # an evaluation may draw; training must not notice
        errors = torch.cat([(network(batch["x"]) - batch["y"]).square().mean(1) for batch in loader])
        value = self.scores.pop(0) if self.scores else -float(errors.mean())
        return [Result("score", "minus the mean square error", value, len(errors))]

    def samples(self, network: nn.Module, dataset: Points) -> dict[str, np.ndarray]:
        return {"grey": np.full((8, 8, 3), 128, np.uint8)}


def recipe(*overrides: str) -> Recipe:
    """Return the toy recipe with overrides."""
    config = configuration.apply_overrides(ToyConfig(), overrides, "toy/points")
    return Recipe("toy/points", "toy", "Two networks on points.", config, {"score": 0.0})


def train(out: Path, *overrides: str, resume: Path | None = None, **options: Any) -> engine.FitResult:
    """Train the toy recipe without display."""
    chosen = recipe(*overrides)
    options = {"progress": False, **options}
    return engine.launch(chosen, lambda: ToyTrainer(chosen.config), out=out, resume=resume, **options)


def main(arguments: list[str]) -> None:
    """Train as the command line says."""
    torch.set_num_threads(1)
    out, rest = arguments[0], arguments[1:]
    resume = Path(rest[1]) if rest[:1] == ["--resume"] else None
    result = train(Path(out), *(rest[2:] if resume else rest), resume=resume, progress=True)
    if os.environ.get("RANK", "0") == "0":
        print(result.folder)


if __name__ == "__main__":
    main(sys.argv[1:])
