"""The re-identification baseline (system 001, table VI), trained with and without generated images."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from fastpose import models
from fastpose.data.loading import create_loader
from fastpose.metrics import reid as scores
from fastpose.models.reid import Embedder
from fastpose.nn import backbones
from fastpose.training import optimizers, reid_data, schedules
from fastpose.training.reid_config import ReidConfig, ReidOptimizerConfig
from fastpose.training.systems import System

if TYPE_CHECKING:
    from fastpose.metrics.report import Result
    from fastpose.training.phases import Update

MONITOR = "market test mAP"
_GREEN, _RED = (38, 142, 60), (196, 52, 42)


def build_network(config: ReidConfig) -> Embedder:
    """Return the network of a configuration, freshly initialised; ``model.weights`` is read by the trainer alone."""
    model = config.model
    network: Any = models.create(
        "reid.embedder",
        backbone=model.backbone,
        widths=model.widths,
        features=model.features,
        identities=model.identities,
        dropout=model.dropout,
        last_stride=model.last_stride,
    )
    return network


def build_optimizer(network: Embedder, config: ReidOptimizerConfig) -> torch.optim.Optimizer:
    """Return the optimizer: the backbone at its own rate, bottleneck and classifier at ``lr``."""
    head = [*network.bottleneck.parameters(), *network.classifier.parameters()]
    groups = [
        {"params": list(network.backbone.parameters()), "lr": config.lr * config.backbone_factor},
        {"params": head, "lr": config.lr},
    ]
    if config.name == "adam":
        return optimizers.adam(groups, lr=config.lr, weight_decay=config.weight_decay)
    return torch.optim.SGD(groups, lr=config.lr, momentum=0.9, nesterov=True, weight_decay=config.weight_decay)


def build_scheduler(optimizer: torch.optim.Optimizer, config: ReidConfig) -> LRScheduler:
    """Return the schedule, to be stepped once per epoch."""
    schedule = config.schedule
    return schedules.named(optimizer, schedule.name, config.run.epochs, schedule.milestones, schedule.factor)


class ReidTrainer:
    """An identity classifier whose features are compared at the test."""

    main_network = "embedder"
    monitor = MONITOR
    monitor_mode = "max"

    def __init__(self, config: ReidConfig) -> None:
        self.config = config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.run.seed)
            network = build_network(config)
        if config.model.weights:
            given = backbones.load(config.model.backbone, config.model.weights, last_stride=config.model.last_stride)
            network.backbone.load_state_dict(given.state_dict())
        self.networks: dict[str, nn.Module] = {"embedder": network}
        self.optimizers = {"embedder": build_optimizer(network, config.optimizer)}
        self.schedulers = {"embedder": build_scheduler(self.optimizers["embedder"], config)}

    def step(self, batch: dict[str, Tensor], update: Update) -> dict[str, Tensor]:
        """Do one step of cross-entropy and return what is to be logged.

        Args:
            batch: image uint8 (B, 3, H, W), B > 1; label int64 (B,).
            update: applies one optimizer step.
        """
        images = reid_data.normalise(batch["image"])  # (B, 3, H, W)
        with update.autocast():
            _, logits = update.network("embedder")(images)  # (B, identities)
            loss = nn.functional.cross_entropy(
                logits.float(), batch["label"], label_smoothing=self.config.loss.smoothing
            )
        update("embedder", loss, terms={"identity": loss})
        accuracy = (logits.argmax(1) == batch["label"]).float().mean()
        return {"identity": loss.detach(), "accuracy": accuracy.detach()}

    def state(self) -> dict[str, Any]:
        """Return nothing: networks and optimizers are the whole state."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what ``state`` returned."""

    def train_dataset(self) -> reid_data.ReidDataset:
        """Return the training images; ``ValueError`` unless they show as many persons as the network has classes."""
        dataset = reid_data.train_dataset(self.config.data, self.config.run.seed)
        found = len(dataset.identities)
        if found != self.config.model.identities:
            raise ValueError(
                f"model.identities: expected {found}, as many as the training images of {self.config.data.root} show, "
                f"got {self.config.model.identities}; pass model.identities={found}"
            )
        return dataset

    def validation_dataset(self) -> reid_data.ReidDataset:
        """Return queries and gallery."""
        return reid_data.test_dataset(self.config.data)

    def evaluate(self, network: nn.Module, loader: Any) -> list[Result]:
        """Return mAP and CMC of the test images."""
        return score(network, loader, self.config)

    def samples(self, network: nn.Module, dataset: reid_data.ReidDataset) -> dict[str, np.ndarray]:
        """Return a picture of some queries, each with the most similar of a part of the gallery."""
        return {"ranking": ranking(network, dataset, self.config)}


@torch.no_grad()
def embed(network: nn.Module, images: Tensor, *, flip: bool) -> Tensor:
    """Return the features (B, F) of uint8 images (B, 3, H, W), float32 on the CPU; the mode is put back.

    With ``flip``, the sum of the unit features of the image and of its mirror image.
    """
    was_training = network.training
    network.eval()
    try:
        device = next(network.parameters()).device
        ready = reid_data.normalise(images.to(device))
        views = [ready, ready.flip(-1)] if flip else [ready]
        unit = [nn.functional.normalize(network(view)[0].float(), dim=1) for view in views]
        return torch.stack(unit).sum(0).cpu()
    finally:
        network.train(was_training)


def score(network: nn.Module, loader: Any, config: ReidConfig) -> list[Result]:
    """Return mAP and CMC over a loader of `reid_data.test_dataset`, named "market test mAP" and so on."""
    rows: dict[str, list[Tensor]] = {name: [] for name in ("features", "identity", "camera", "query")}
    for batch in loader:
        rows["features"].append(embed(network, batch["image"], flip=config.test.flip))
        for name in ("identity", "camera", "query"):
            rows[name].append(batch[name].cpu())
    if not rows["query"]:
        raise ValueError("evaluation: expected at least one image, got an empty test set")
    whole = {name: torch.cat(parts) for name, parts in rows.items()}
    query = whole.pop("query").bool()
    sides = [{name: value[chosen] for name, value in whole.items()} for chosen in (query, ~query)]
    results = scores.evaluate(
        sides[0]["features"],
        sides[1]["features"],
        *(scores.Labels(side["identity"], side["camera"]) for side in sides),
        similarity=config.test.similarity,
        precision=config.test.precision,
    )
    return [replace(result, name=f"{config.data.name} test {result.name}") for result in results]


def ranking(
    network: nn.Module, dataset: reid_data.ReidDataset, config: ReidConfig, *, queries: int = 6, shown: int = 5
) -> np.ndarray:
    """Return a grid: a query a row, then the images most similar to it, framed green where the person is the same.

    The gallery is thinned to at most 300 images besides those of the queries' persons; junk is left out as in the test.
    """
    from fastpose.visual.grids import grid

    asked = np.unique(np.linspace(0, dataset.queries - 1, min(queries, dataset.queries)).astype(int))
    persons = {dataset.photos[index].identity for index in asked}
    rest = range(dataset.queries, len(dataset))
    thinned = set(np.linspace(dataset.queries, len(dataset) - 1, min(300, len(rest))).astype(int).tolist())
    kept = [index for index in rest if index in thinned or dataset.photos[index].identity in persons]
    images = {index: dataset[int(index)]["image"] for index in [*asked.tolist(), *kept]}
    features = {i: embed(network, image[None], flip=config.test.flip)[0] for i, image in images.items()}
    gallery = nn.functional.normalize(torch.stack([features[index] for index in kept]), dim=1)  # (G, F)
    tiles, captions = [], []
    for index in asked.tolist():
        own = dataset.photos[index]
        order = (gallery @ features[index]).argsort(descending=True).tolist()
        best = [kept[at] for at in order if not _is_junk(own, dataset.photos[kept[at]])][:shown]
        tiles += [_framed(images[index], (0, 0, 0))]
        tiles += [_framed(images[i], _GREEN if dataset.photos[i].identity == own.identity else _RED) for i in best]
        tiles += [np.full_like(tiles[0], 255)] * (shown - len(best))
        captions += ["query", *(str(rank + 1) for rank in range(shown))]
    return grid(tiles, shown + 1, captions)


def _is_junk(query: reid_data.Photo, other: reid_data.Photo) -> bool:
    same = other.identity == query.identity and other.camera == query.camera
    return same or other.identity == reid_data.JUNK


def _framed(image: Tensor, colour: tuple[int, int, int]) -> np.ndarray:
    """Return an image (3, H, W) as (H + 8, W + 8, 3) with a frame."""
    height, width = image.shape[1:]
    tile = np.full((height + 8, width + 8, 3), colour, np.uint8)
    tile[4:-4, 4:-4] = image.permute(1, 2, 0).numpy()
    return tile


def _evaluate(network: nn.Module, config: ReidConfig) -> list[Result]:
    dataset = reid_data.test_dataset(config.data)
    loader = create_loader(dataset, config.run.batch_size, shuffle=False, workers=config.run.workers)
    return score(network, loader, config)


SYSTEM = System(name="reid", config=ReidConfig, trainer=ReidTrainer, network=build_network, evaluate=_evaluate)
