"""System 000, the self-attention GAN hourglass: networks, data and the order of updates (Wang et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from fastpose import losses, models, ops
from fastpose.training import distributed, optimizers, pose_data, pose_scores, schedules
from fastpose.training.estimation import InferenceConfig, PoseEstimator
from fastpose.training.sagan_config import NetworkOptimizerConfig, SaganConfig, ScheduleConfig
from fastpose.training.systems import System

if TYPE_CHECKING:
    import numpy as np

    from fastpose.metrics.report import Result
    from fastpose.training.phases import Update

_SCHEDULES = {"paper": ((40, 60, 80), 0.2), "released": ((140, 160, 180), 0.4)}


def build_generator(config: SaganConfig) -> nn.Module:
    """Return the pose network of a configuration, freshly initialised."""
    model = config.model
    options = {"stacks": model.stacks, "modules": model.modules, "width": model.width, "depth": model.depth}
    options["keypoints"] = len(pose_data.skeleton(config.data))
    chosen = {"skip": model.skip} if model.skip else {}
    if model.name == "hourglass":
        return models.create("hourglass", **options, **chosen, stem=model.stem)
    sarm = None if model.sarm == "none" else model.sarm
    stacks = model.sarm_stacks or None
    return models.create("sagan.generator", **options, **chosen, sarm=sarm, sarm_stacks=stacks, flavour=model.flavour)


def build_discriminator(config: SaganConfig) -> nn.Module | None:
    """Return the discriminator of a configuration, or None where it has none."""
    section = config.discriminator
    if section.name == "none":
        return None
    return models.create(
        "sagan.discriminator",
        modules=section.modules,
        width=section.width,
        depth=section.depth,
        keypoints=len(pose_data.skeleton(config.data)),
        sarm=None if section.sarm == "none" else section.sarm,
        flavour=section.flavour,
    )


def build_optimizer(network: nn.Module, config: NetworkOptimizerConfig) -> torch.optim.Optimizer:
    """Return the optimizer of one network."""
    if config.name == "adam":
        return optimizers.adam(network.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    return optimizers.RMSprop(network.parameters(), lr=config.lr, alpha=0.99, weight_decay=config.weight_decay)


def build_scheduler(optimizer: torch.optim.Optimizer, config: ScheduleConfig, epochs: int) -> LRScheduler:
    """Return the schedule of one optimizer, to be stepped once per epoch."""
    milestones, factor = _SCHEDULES.get(config.name, (config.milestones, config.factor))
    return schedules.named(optimizer, config.name, epochs, milestones, factor)


class SaganTrainer:
    """Networks, data and the order of updates of system 000.

    Attributes:
        networks: "generator", and "discriminator" unless the configuration has none.
        k: lambda_D of the coming step, a scalar tensor.
    """

    main_network = "generator"
    channels_last_on = ("cpu",)
    monitor_mode = "max"

    def __init__(self, config: SaganConfig) -> None:
        self.config = config
        self.skeleton = pose_data.skeleton(config.data)
        self.networks = _networks(config)
        self.optimizers = {
            name: build_optimizer(network, getattr(config.optimizer, name)) for name, network in self.networks.items()
        }
        self.schedulers = {
            name: build_scheduler(optimizer, config.schedule, config.run.epochs)
            for name, optimizer in self.optimizers.items()
            if name == "generator" or config.schedule.discriminator
        }
        self.monitor = pose_scores.monitor(config.data.name, pose_data.split_name(config.data, "validation"))
        self.equilibrium = losses.Equilibrium(gamma=config.loss.gamma, rate=config.loss.rate)
        began = config.loss.policy == "began"
        self.k = torch.tensor(self.equilibrium.start if began else config.loss.lambda_d, dtype=torch.float64)
        self._losses: list[Tensor] = []  # of the batches of one optimizer step

    # ---- one iteration -------------------------------------------------------------------------------------

    def step(self, batch: dict[str, Tensor], update: Update) -> dict[str, Tensor]:
        """Do one iteration of Algorithm 1 and return what is to be logged.

        Args:
            batch: image uint8 (B, 3, H, W); keypoints (B, K, 2) in heatmap pixels; visibility (B, K).
            update: applies one optimizer step: ``update("generator", loss)``.

        Returns:
            scalars without gradient: pose, accuracy and, with a discriminator, adversarial, real, fake, k, measure.
        """
        image = pose_data.normalise(batch["image"], self.config.data)  # (B, 3, H, W)
        if "discriminator" not in self.networks:
            return self._pose_step(image, batch, update)
        return self._adversarial_step(image, batch, update)

    def _pose_step(self, image: Tensor, batch: dict[str, Tensor], update: Update) -> dict[str, Tensor]:
        with update.autocast():
            predictions = update.network("generator")(image)  # S x (B, K, h, w)
            pose = self._pose_loss(predictions, batch)  # eq. 5
        update("generator", pose, terms={"pose": pose})
        return {"pose": pose.detach(), "accuracy": self._accuracy(predictions[-1], batch, update)}

    def _adversarial_step(self, image: Tensor, batch: dict[str, Tensor], update: Update) -> dict[str, Tensor]:
        generator, discriminator = update.network("generator"), update.network("discriminator")
        self.k = self.k.to(image.device)
        with update.autocast():
            real = self._shown(self._render(batch, image.shape), batch)  # (B, K, h, w)
            real_loss = self._reconstruction(discriminator(real, image), real)  # eq. 9
            predictions = generator(image)  # S x (B, K, h, w)
            pose = self._pose_loss(predictions, batch)  # eq. 5
            fake = self._shown(predictions[-1], batch)  # (B, K, h, w)
            fake_loss = self._reconstruction(discriminator(fake.detach(), image), fake.detach())  # eq. 8
            stale = _with_coming_weights(discriminator, fake, image) if self.config.loss.stale_d_activations else None
        loss = losses.discriminator_loss(real_loss, fake_loss, self.k.to(real_loss))  # eq. 10
        update("discriminator", loss, terms={"real": real_loss, "fake": fake_loss})
        with update.autocast():
            redrawn = discriminator(fake, image) if stale is None else stale  # through the updated discriminator
            target = fake if self.config.loss.adv_target_grad else fake.detach()
            adversarial = self._reconstruction(redrawn, target)  # eq. 6
        loss = losses.generator_loss(pose, adversarial, self.config.loss.lambda_g)  # eq. 7
        update("generator", loss, terms={"pose": pose, "adversarial": adversarial})
        logged = {"pose": pose, "adversarial": adversarial, "real": real_loss, "fake": fake_loss, "k": self.k}
        logged["measure"] = self._balance(real_loss, fake_loss, update)
        logged["accuracy"] = self._accuracy(predictions[-1], batch, update)
        return {name: value.detach() for name, value in logged.items()}

    def _pose_loss(self, predictions: Sequence[Tensor], batch: dict[str, Tensor]) -> Tensor:
        loss = self.config.loss
        return losses.pose_loss(
            predictions,
            batch["keypoints"],
            loss.sigma,
            visibility=batch["visibility"],
            missing=loss.missing,
            reduction=loss.reduction,
            backend=loss.backend,
        )

    def _render(self, batch: dict[str, Tensor], image_shape: Sequence[int]) -> Tensor:
        """Return the ground-truth heatmaps (B, K, h, w) on the batch's device."""
        return ops.render_gaussian_heatmaps(
            batch["keypoints"],
            (image_shape[-2] // 4, image_shape[-1] // 4),
            self.config.loss.sigma,
            visibility=batch["visibility"],
            backend=self.config.loss.backend,
        )

    def _shown(self, heatmaps: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Return what the discriminator sees: an ignored joint's plane is blank, or it would tell real from fake."""
        if self.config.loss.missing == "zero":
            return heatmaps
        return heatmaps * (batch["visibility"] > 0).to(heatmaps.dtype)[:, :, None, None]  # (B, K, h, w)

    def _reconstruction(self, redrawn: Tensor, heatmaps: Tensor) -> Tensor:
        return losses.reconstruction_loss(redrawn, heatmaps, reduction=self.config.loss.reduction)

    def _balance(self, real: Tensor, fake: Tensor, update: Update) -> Tensor:
        """Move k by the losses of a whole optimizer step on all ranks; return the convergence measure so far."""
        self._losses.append(torch.stack((real.detach(), fake.detach())).double())  # (2,) of one batch
        pair = distributed.mean(torch.stack(self._losses).mean(0), update.place)  # (2,)
        k, measure = self.equilibrium.advance(self.k, pair[0], pair[1])
        if update.steps_now:
            self._losses.clear()
            self.k = k if self.config.loss.policy == "began" else self.k
        return measure

    def _accuracy(self, heatmaps: Tensor, batch: dict[str, Tensor], update: Update) -> Tensor:
        return pose_scores.heatmap_accuracy(heatmaps.detach(), batch["keypoints"], batch["visibility"], update.place)

    # ---- state, data, evaluation ---------------------------------------------------------------------------

    def state(self) -> dict[str, float]:
        """Return what a resume needs beyond networks and optimizers: k_t."""
        return {"k": float(self.k)}

    def load_state(self, state: dict[str, float]) -> None:
        """Take back what ``state`` returned."""
        self.k = torch.tensor(state["k"], dtype=torch.float64)
        self._losses.clear()

    def train_dataset(self) -> Any:
        """Return the training set (augmented); each item is a dict as ``step`` wants it, without the batch axis."""
        return pose_data.train_dataset(self.config.data, seed=self.config.run.seed)

    def validation_dataset(self) -> Any:
        """Return the validation set (not augmented)."""
        return pose_data.validation_dataset(self.config.data, seed=self.config.run.seed)

    def evaluate(self, network: nn.Module, loader: Any) -> list[Result]:
        """Return the data set's metrics of ``network``, single scale, with the flip test where ``test.flip``."""
        indices, estimate = _estimator(network, self.config, None).run_loader(loader)
        return pose_scores.score(loader.dataset.source, indices, estimate)

    def samples(self, network: nn.Module, dataset: Any) -> dict[str, np.ndarray]:
        """Return pictures (RGB uint8) of the first validation persons."""
        from fastpose.training import pose_pictures

        return pose_pictures.samples(_estimator(network, self.config, None), dataset)


def _networks(config: SaganConfig) -> dict[str, nn.Module]:
    """Return the networks, initialised from the seed alone, so that a discriminator does not change the generator."""
    networks = {}
    for name, build in (("generator", build_generator), ("discriminator", build_discriminator)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.run.seed)
            network = build(config)
        if network is not None:
            networks[name] = network
    return networks


def _with_coming_weights(discriminator: nn.Module, fake: Tensor, image: Tensor) -> Tensor:
    """Return D(fake, image) whose backward reads the weights as they are then, with the activations of now.

    Saved tensors that pass through hooks are not version-checked, and a detached alias follows the update.
    """
    with torch.autograd.graph.saved_tensors_hooks(Tensor.detach, lambda saved: saved):
        return discriminator(fake, image)


def _estimator(network: nn.Module, config: SaganConfig, test: InferenceConfig | None) -> PoseEstimator:
    return PoseEstimator(network, pose_data.skeleton(config.data), config.data, test or config.test)


def _evaluate(network: nn.Module, config: SaganConfig) -> list[Result]:
    """Return the metrics on the validation persons, tested as ``config.test`` says."""
    return pose_scores.evaluate(
        _estimator(network, config, None), config.data, batch_size=config.run.batch_size, workers=config.run.workers
    )


SYSTEM = System(
    name="sagan",
    config=SaganConfig,
    trainer=SaganTrainer,
    network=build_generator,
    estimator=_estimator,
    evaluate=_evaluate,
)
