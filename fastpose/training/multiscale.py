"""System 003, multi-scale attention: networks, data and the order of updates (Roy et al. 2023)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fastpose import losses, models
from fastpose.training import transfer_data, transfer_training
from fastpose.training.multiscale_config import MultiscaleConfig
from fastpose.training.systems import System
from fastpose.training.transfer_data import Inputs

if TYPE_CHECKING:
    import numpy as np

    from fastpose.metrics.report import Result
    from fastpose.training.phases import Update


def build_generator(config: MultiscaleConfig) -> nn.Module:
    """Return the generator of a configuration, freshly initialised."""
    model = config.model
    return models.create(
        model.name,
        pose_channels=2 * transfer_data.guide_channels(config.data),
        width=model.width,
        levels=model.levels,
        gates=model.gates or None,
        fusion=None if model.fusion == "none" else model.fusion,
    )


def build_discriminator(config: MultiscaleConfig) -> nn.Module | None:
    """Return the discriminator of a configuration, or None where it has none."""
    section = config.discriminator
    if section.name == "none":
        return None
    return models.create(section.name, in_channels=6, width=section.width, layers=section.layers)


class MultiscaleTrainer:
    """Networks, data and the order of updates of system 003.

    Attributes:
        networks: "generator", and "discriminator" unless the configuration has none.
        features: layers of VGG-19 for the perceptual loss, or None without it.

    Raises:
        ValueError: the perceptual loss has a weight but no file of VGG-19; said before anything is made.
    """

    main_network = "generator"

    def __init__(self, config: MultiscaleConfig) -> None:
        self.config = config
        self.features = transfer_training.load_features(config.loss.perceptual)
        builders = {"generator": lambda: build_generator(config), "discriminator": lambda: build_discriminator(config)}
        self.networks = transfer_training.seeded_networks(builders, config.run.seed)
        self.optimizers = transfer_training.build_optimizers(self.networks, config.optimizer)
        self.schedulers = transfer_training.build_schedulers(self.optimizers, config.schedule, config.run.epochs)
        self.monitor, self.monitor_mode = transfer_training.monitor(config)

    # ---- one iteration -------------------------------------------------------------------------------------

    def step(self, batch: dict[str, Tensor], update: Update) -> dict[str, Tensor]:
        """Do one iteration: the discriminator's update, then the generator's through it; return what is to be logged.

        Args:
            batch: as ``transfer_data.prepare`` takes it.
            update: applies one optimizer step: ``update("generator", loss)``.

        Returns:
            scalars without gradient, unweighted: l1 and, where they are part of the loss, gan, p4 and p9 (by layer),
            and the discriminator's d_fake and d_real.
        """
        inputs = transfer_data.prepare(batch, self.config.data)
        with update.autocast():
            fake = update.network("generator")(inputs.source, inputs.guides).to(inputs.source.dtype)  # (B, 3, H, W)
        logged = self._discriminator_step(inputs, fake.detach(), update) if "discriminator" in self.networks else {}
        logged |= self._generator_step(inputs, fake, update)
        return {name: value.detach() for name, value in logged.items()}

    def _discriminator_step(self, inputs: Inputs, fake: Tensor, update: Update) -> dict[str, Tensor]:
        """Update the discriminator (3.3.2); return the two halves of its loss."""
        with update.autocast():
            # In the order of the released code, as the running statistics of batch norm feel it.
            halves = {"d_fake": self._score(inputs, fake, False, update)}
            halves["d_real"] = self._score(inputs, inputs.target, True, update)
            loss = (halves["d_fake"] + halves["d_real"]) / 2
        update("discriminator", loss, terms=halves)
        return halves

    def _generator_step(self, inputs: Inputs, fake: Tensor, update: Update) -> dict[str, Tensor]:
        """Update the generator through the updated discriminator (3.3.1); return the terms of its loss."""
        settings = self.config.loss
        with update.autocast():
            terms = {"l1": (fake - inputs.target).abs().mean()}
            weights = {"l1": settings.lambda_l1}
            if "discriminator" in self.networks:
                terms["gan"], weights["gan"] = self._score(inputs, fake, True, update), settings.lambda_gan
            seen = transfer_training.perceptual_terms(fake, inputs.target, self.features, settings.perceptual)
            terms |= {f"p{layer}": term for layer, term in zip(settings.perceptual.layers, seen, strict=False)}
        loss = torch.stack([weights.get(name, settings.perceptual.weight) * term for name, term in terms.items()]).sum()
        update("generator", loss, terms=terms)
        return terms

    def _score(self, inputs: Inputs, image: Tensor, real: bool, update: Update) -> Tensor:
        """Return the loss of the discriminator's scores of (condition image, image) against one label."""
        scores = update.network("discriminator")(torch.cat((inputs.source, image), dim=1))  # (B, 1, h, w)
        return losses.gan_loss(scores, real, criterion=self.config.loss.gan)

    # ---- state, data, evaluation ---------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return what a resume needs beyond networks and optimizers: nothing."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what ``state`` returned."""

    def train_dataset(self) -> Any:
        """Return the training pairs; each item is a dict as ``step`` wants it, without the batch axis."""
        return transfer_training.train_dataset(self.config)

    def validation_dataset(self) -> Any:
        """Return the validation pairs."""
        return transfer_training.validation_dataset(self.config)

    def evaluate(self, network: nn.Module, loader: Any) -> list[Result]:
        """Return the scores of what ``network`` generates."""
        return transfer_training.score(network, loader, self.config)

    def samples(self, network: nn.Module, dataset: Any) -> dict[str, np.ndarray]:
        """Return pictures (RGB uint8) of some validation pairs."""
        return transfer_training.samples(network, self.config, dataset)


SYSTEM = System(
    name="multiscale",
    config=MultiscaleConfig,
    trainer=MultiscaleTrainer,
    network=build_generator,
    evaluate=transfer_training.evaluate,
    transfer=transfer_training.pose_transfer,
)
