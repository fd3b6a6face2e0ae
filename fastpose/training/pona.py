"""System 001, pose-guided non-local attention: networks, data and the order of updates (Li et al. 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fastpose import losses, models
from fastpose.training import transfer_data, transfer_training
from fastpose.training.distributed import World, all_rows, own_rows
from fastpose.training.image_pool import ImagePool
from fastpose.training.pona_config import DiscriminatorConfig, PonaConfig
from fastpose.training.systems import System
from fastpose.training.transfer_data import Inputs

if TYPE_CHECKING:
    import numpy as np

    from fastpose.metrics.report import Result
    from fastpose.training.phases import Update

DISCRIMINATORS = ("appearance", "pose")
"""D_A and D_P, in the order of their updates."""


def build_generator(config: PonaConfig) -> nn.Module:
    """Return the generator of a configuration, freshly initialised."""
    model = config.model
    return models.create(
        model.name,
        blocks=model.blocks,
        width=model.width,
        norm=model.norm,
        fusion=model.fusion,
        cross_attention=model.cross_attention,
        self_attention=model.self_attention,
        self_attention_beta=model.self_attention_beta,
        dropout=model.dropout,
        pose_channels=2 * transfer_data.guide_channels(config.data),
    )


def build_discriminator(config: PonaConfig, name: str) -> nn.Module | None:
    """Return the discriminator "appearance" (D_A) or "pose" (D_P), or None where the configuration has none.

    Both give logits: the losses take them where the released code puts a sigmoid behind the discriminators of Market.
    """
    section: DiscriminatorConfig = getattr(config, name)
    if section.name == "none":
        return None
    return models.create(
        section.name,
        in_channels=3 + (3 if name == "appearance" else transfer_data.guide_channels(config.data)),
        width=section.width,
        blocks=section.blocks,
        norm=section.norm,
        spectral_norm=section.spectral_norm,
        self_attention=section.self_attention,
        activation=section.activation,
        dropout=section.dropout,
    )


class PonaTrainer:
    """Networks, data and the order of updates of system 001.

    Attributes:
        networks: "generator", and "appearance" (D_A) and "pose" (D_P) unless the configuration has none.
        pools: for each discriminator, what it was shown earlier.
        features: layers of VGG-19 for the perceptual loss, or None without it.

    Raises:
        ValueError: the perceptual loss has a weight but no file of VGG-19; said before anything is made.
    """

    main_network = "generator"

    def __init__(self, config: PonaConfig) -> None:
        self.config = config
        self.features = transfer_training.load_features(config.loss.perceptual)
        builders = {name: lambda name=name: build_discriminator(config, name) for name in DISCRIMINATORS}
        self.networks = transfer_training.seeded_networks(
            {"generator": lambda: build_generator(config), **builders}, config.run.seed
        )
        self.optimizers = transfer_training.build_optimizers(self.networks, config.optimizer)
        self.schedulers = transfer_training.build_schedulers(self.optimizers, config.schedule, config.run.epochs)
        self.monitor, self.monitor_mode = transfer_training.monitor(config)
        self.pools = {
            name: ImagePool(config.loss.pool, (config.run.seed, number))
            for number, name in enumerate(DISCRIMINATORS)
            if name in self.networks
        }

    # ---- one iteration -------------------------------------------------------------------------------------

    def step(self, batch: dict[str, Tensor], update: Update) -> dict[str, Tensor]:
        """Do one iteration: the generator's update, then D_A's, then D_P's; return what is to be logged.

        Args:
            batch: as ``transfer_data.prepare`` takes it.
            update: applies one optimizer step: ``update("generator", loss)``.

        Returns:
            scalars without gradient, unweighted: l1 and, where they are part of the loss, cgan, percep, and of each
            discriminator its loss, d_a and d_p.
        """
        inputs = transfer_data.prepare(batch, self.config.data)
        fake, logged = self._generator_step(inputs, update)
        for name in self.pools:
            for _ in range(self.config.loss.ratio):
                logged[f"d_{name[0]}"] = self._discriminator_step(name, inputs, fake, update)
        return {name: value.detach() for name, value in logged.items()}

    def _generator_step(self, inputs: Inputs, update: Update) -> tuple[Tensor, dict[str, Tensor]]:
        """Update the generator through discriminators that stay as they are; return its images and its losses."""
        settings = self.config.loss
        with update.autocast():
            fake = update.network("generator")(inputs.source, inputs.guides).to(inputs.source.dtype)  # (B, 3, H, W)
            terms = {"l1": (fake - inputs.target).abs().mean()}  # eq. 10
            scores = [self._score(name, self._pair(name, inputs, fake), True, update) for name in self.pools]
            if scores:
                terms["cgan"] = torch.stack(scores).mean()  # eq. 9, the mean over D_A and D_P as released
            seen = transfer_training.perceptual_terms(fake, inputs.target, self.features, settings.perceptual)
            if seen:
                terms["percep"] = torch.stack(seen).sum()  # eq. 11
        weights = {"cgan": settings.lambda_gan, "l1": settings.lambda_l1, "percep": settings.perceptual.weight}
        loss = torch.stack([weights[name] * term for name, term in terms.items()]).sum()  # eq. 8
        update("generator", loss, terms=terms)
        return fake.detach(), terms

    def _discriminator_step(self, name: str, inputs: Inputs, fake: Tensor, update: Update) -> Tensor:
        """Update one discriminator with real pairs and, out of its pool, generated ones; return its loss."""
        shown = self._from_pool(name, self._pair(name, inputs, fake), update.place)
        with update.autocast():
            real_loss = self._score(name, self._pair(name, inputs, inputs.target), True, update)
            fake_loss = self._score(name, shown, False, update)
            loss = (real_loss + fake_loss) / 2
        terms = {f"{name} real": real_loss, f"{name} fake": fake_loss}
        update(name, self.config.loss.lambda_gan * loss, terms=terms)
        return loss

    def _from_pool(self, name: str, pair: Tensor, place: World) -> Tensor:
        """Return as many pairs, some exchanged for earlier ones; each process keeps the pool of the pairs of all."""
        pool = self.pools[name]
        return pool.query(pair) if not pool.size else own_rows(pool.query(all_rows(pair.detach(), place)), place)

    def _score(self, name: str, pair: Tensor, real: bool, update: Update) -> Tensor:
        """Return the loss of a discriminator's scores against "all real" or "all generated"."""
        return losses.gan_loss(update.network(name)(pair), real, criterion=self.config.loss.gan)

    @staticmethod
    def _pair(name: str, inputs: Inputs, image: Tensor) -> Tensor:
        """Return what a discriminator sees: the image beside condition image (D_A, 6) or target pose (D_P, 21)."""
        beside = inputs.source if name == "appearance" else inputs.target_guide
        return torch.cat((image, beside), dim=1)  # (B, 3 + C, H, W)

    # ---- state, data, evaluation ---------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return what a resume needs beyond networks and optimizers: the pools and where their draws stand."""
        return {name: pool.state() for name, pool in self.pools.items()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what ``state`` returned."""
        for name, pool in self.pools.items():
            pool.load_state(state[name])

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
    name="pona",
    config=PonaConfig,
    trainer=PonaTrainer,
    network=build_generator,
    evaluate=transfer_training.evaluate,
    transfer=transfer_training.pose_transfer,
)
