"""What the trainers of pose transfer (systems 001 and 003) share: optimizers, schedule, perceptual loss, evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from fastpose import _checks, losses
from fastpose.losses import perceptual
from fastpose.nn import backbones
from fastpose.training import optimizers, schedules, transfer_data, transfer_scores

if TYPE_CHECKING:
    import numpy as np

    from fastpose.metrics.report import Result
    from fastpose.training.transfer_data import Inputs, TransferDataConfig
    from fastpose.training.transfer_inference import PoseTransfer

NO_VGG = (
    "loss.perceptual.vgg: expected torchvision's weights of VGG-19 (.pth or .safetensors), got none; name the file, or "
    "train without this loss: loss.perceptual.weight=0"
)


@dataclass(frozen=True)
class PerceptualConfig:
    """The loss on the features of a pretrained VGG-19, see ``losses.perceptual_losses``.

    Attributes:
        weight: of the loss; 0 is without it, and needs no file.
        vgg: torchvision's weights of VGG-19.
        layers: how many layers lead to the features; 4 is conv1_2, 9 conv2_2, with their ReLU.
        scaling: of the images: "affine", "minmax_batch" or "minmax_sample".
        reduction: "mean" (released codes) or "sum" (system 001, eq. 11 as printed).
    """

    weight: float = 10.0
    vgg: str = ""
    layers: tuple[int, ...] = (4,)
    scaling: str = "affine"
    reduction: str = "mean"

    def __post_init__(self) -> None:
        _checks.not_negative("loss.perceptual.weight", self.weight)
        _checks.choice("loss.perceptual.scaling", self.scaling, perceptual.SCALINGS)
        _checks.choice("loss.perceptual.reduction", self.reduction, perceptual.REDUCTIONS)
        rising = list(self.layers) == sorted(set(self.layers))
        if not self.layers or not rising or self.layers[0] < 1 or self.layers[-1] > 37:
            raise ValueError(f"loss.perceptual.layers: expected rising numbers from 1 to 37, got {self.layers}")


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam of all networks.

    Attributes:
        lr: learning rate.
        discriminator_lr: of the discriminators; 0 is the same.
        beta1, beta2: of Adam.
    """

    lr: float = 2e-4
    discriminator_lr: float = 0.0
    beta1: float = 0.5
    beta2: float = 0.999

    def __post_init__(self) -> None:
        if not self.lr > 0:
            raise ValueError(f"optimizer.lr: expected a positive number, got {self.lr}")
        _checks.not_negative("optimizer.discriminator_lr", self.discriminator_lr)
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"optimizer.{name}: expected a number from 0 up to 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class ScheduleConfig:
    """Learning rate over epochs, of all networks.

    Attributes:
        name: "linear", constant and then linear to 0 in the last epoch (system 001), or "constant" (system 003).
        decay_epochs: how many epochs it falls; 0 is the published share, two sevenths of ``run.epochs`` (none of one).
    """

    name: str = "linear"
    decay_epochs: int = 0

    def __post_init__(self) -> None:
        _checks.choice("schedule.name", self.name, ("linear", "constant"))
        _checks.not_negative("schedule.decay_epochs", self.decay_epochs)


def build_optimizers(networks: dict[str, nn.Module], config: OptimizerConfig) -> dict[str, torch.optim.Optimizer]:
    """Return an optimizer for each network; all but "generator" are discriminators."""
    rates = {name: config.lr if name == "generator" else config.discriminator_lr or config.lr for name in networks}
    betas = (config.beta1, config.beta2)
    return {
        name: optimizers.adam(network.parameters(), lr=rates[name], betas=betas) for name, network in networks.items()
    }


def build_schedulers(
    optimizers: dict[str, torch.optim.Optimizer], config: ScheduleConfig, epochs: int
) -> dict[str, LRScheduler]:
    """Return a schedule for each optimizer, to be stepped once per epoch; none where the rate is constant."""
    if config.name == "constant":
        return {}
    decay = decay_epochs(config, epochs)
    return {name: schedules.linear(optimizer, epochs, decay) for name, optimizer in optimizers.items()}


def decay_epochs(config: ScheduleConfig, epochs: int) -> int:
    """Return for how many of the epochs the rate falls; ``ValueError`` where there are more than all."""
    if config.decay_epochs > epochs:
        raise ValueError(
            f"schedule.decay_epochs: expected at most the {epochs} of run.epochs, got {config.decay_epochs}"
        )
    return config.decay_epochs or round(2 * epochs / 7)


def check_size(config: TransferDataConfig, multiple: int, reason: str) -> None:
    """Raise ``ValueError`` unless the networks' images have sides that are multiples of ``multiple``."""
    height, width = transfer_data.image_size(config)
    if height % multiple or width % multiple:
        raise ValueError(
            f"data.height, data.width: expected multiples of {multiple} ({reason}), got {height} x {width}; change them"
        )


def check_smallest(config: TransferDataConfig, smallest: int, reason: str) -> None:
    """Raise ``ValueError`` unless the networks' images have sides of at least ``smallest`` pixels."""
    height, width = transfer_data.image_size(config)
    if min(height, width) < smallest:
        raise ValueError(
            f"data.height, data.width: expected {smallest} or more ({reason}), got {height} x {width}; change them"
        )


def seeded_networks(builders: dict[str, Callable[[], nn.Module | None]], seed: int) -> dict[str, nn.Module]:
    """Return the networks that are not None, each initialised from the seed alone: none changes another's start."""
    networks = {}
    for name, build in builders.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = build()
        if network is not None:
            networks[name] = network
    return networks


def load_features(config: PerceptualConfig) -> nn.Sequential | None:
    """Return the frozen layers of VGG-19 that the loss looks through, or None where its weight is 0.

    Raises:
        ValueError: no file named, or not the weights of VGG-19.
        FileNotFoundError: the file is not there.
    """
    if config.weight == 0:
        return None
    if not config.vgg:
        raise ValueError(NO_VGG)
    features: Any = backbones.load("vgg19", Path(config.vgg).expanduser()).features
    return features[: config.layers[-1]]


def perceptual_terms(
    generated: Tensor, target: Tensor, features: nn.Sequential | None, config: PerceptualConfig
) -> list[Tensor]:
    """Return the unweighted loss of each of ``config.layers``, or no entry where the weight is 0."""
    if features is None:
        return []
    return losses.perceptual_losses(
        generated,
        target,
        features.to(generated.device),
        config.layers,
        scaling=config.scaling,
        reduction=config.reduction,
    )


def generate(network: nn.Module) -> Callable[[Inputs], Tensor]:
    """Return what draws the target of a batch, (B, 3, H, W) in [-1, 1]."""
    return lambda inputs: network(inputs.source, inputs.guides)


def score(network: nn.Module, loader: Any, config: Any, device: torch.device | None = None) -> list[Result]:
    """Return the scores of what ``network`` generates of a loader's pairs, judged as the section ``test`` says."""
    return transfer_scores.evaluate(generate(network), loader, config.data, config.test, device=device)


def evaluate(network: nn.Module, config: Any) -> list[Result]:
    """Return the scores on the validation pairs of ``config``."""
    from fastpose.data.loading import create_loader

    dataset = validation_dataset(config)
    loader = create_loader(dataset, config.run.batch_size, shuffle=False, workers=config.run.workers)
    return score(network, loader, config, next(network.parameters()).device)


def train_dataset(config: Any) -> Any:
    """Return the training pairs; each item is a dict as a trainer's ``step`` wants it, without the batch axis."""
    return transfer_data.train_dataset(config.data, seed=config.run.seed)


def validation_dataset(config: Any) -> Any:
    """Return the validation pairs."""
    return transfer_data.validation_dataset(config.data, seed=config.run.seed)


def samples(network: nn.Module, config: Any, dataset: Any) -> dict[str, np.ndarray]:
    """Return pictures (RGB uint8) of some pairs of ``dataset``."""
    from fastpose.training import transfer_pictures

    return transfer_pictures.samples(network, config, dataset)


def pose_transfer(network: nn.Module, config: Any) -> PoseTransfer:
    """Return what draws photographs' persons in other poses with a trained network."""
    from fastpose.training.transfer_inference import PoseTransfer

    return PoseTransfer(network, config)


def monitor(config: Any) -> tuple[str, str]:
    """Return the name of the result that tells the best weights, and whether that is its largest ("max") or "min"."""
    name = transfer_scores.monitor(config.data, config.test)
    return name, "min" if name.startswith(("L1", "LPIPS", "FID")) else "max"
