"""System 002, adversarial 3D pose in the wild: networks, data and the order of updates (Yang et al. 2018)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from fastpose import losses, models, ops
from fastpose.nn import coordinates
from fastpose.training import (
    distributed,
    optimizers,
    pose3d_data,
    pose3d_reference,
    pose3d_scores,
    pose_scores,
    schedules,
    transfer_training,
)
from fastpose.training.pose3d_config import Pose3dConfig
from fastpose.training.pose3d_estimation import Pose3dEstimator
from fastpose.training.pose3d_evidence import Evidence, choose, partners
from fastpose.training.systems import System

if TYPE_CHECKING:
    import numpy as np

    from fastpose.data.person import Source
    from fastpose.metrics.report import Result
    from fastpose.training.phases import Update

Terms = dict[str, Tensor]


def build_generator(config: Pose3dConfig) -> nn.Module:
    """Return the pose network of a configuration, freshly initialised."""
    model = config.model
    return models.create(
        model.name,
        stacks=model.stacks,
        modules=model.modules,
        width=model.width,
        depth=model.depth,
        keypoints=len(pose3d_data.SKELETON),
        depth_head=model.depth_head,
        regressor_modules=model.regressor_modules or None,
        image_size=config.data.image_size,
    )


def build_discriminator(config: Pose3dConfig) -> nn.Module | None:
    """Return the critic of a configuration, or None in the stages before it."""
    if config.stage.name != "adversarial":
        return None
    section = config.discriminator
    return models.create(
        section.name,
        sources=section.sources,
        keypoints=len(pose3d_data.SKELETON),
        width=section.width,
        hidden=section.hidden,
        norm=section.norm,
        geometry=section.geometry,
        depth_maps=section.depth_maps,
        depth_maps_from=section.depth_maps_from,
        sigma=config.loss.sigma,
    )


class Pose3dTrainer:
    """Networks, data and the order of updates of system 002, in any of its stages.

    Attributes:
        networks: "generator", and in the stage "adversarial" "discriminator".
    """

    main_network = "generator"
    channels_last_on = ("cpu",)

    def __init__(self, config: Pose3dConfig) -> None:
        self.config = config
        self.networks = transfer_training.seeded_networks(
            {"generator": lambda: build_generator(config), "discriminator": lambda: build_discriminator(config)},
            config.run.seed,
        )
        if config.stage.fix_2d:
            generator: Any = self.networks["generator"]
            generator.train_depth_only()
        self.optimizers = self._optimizers()
        self.schedulers = self._schedulers()
        self.monitor, self.monitor_mode = pose3d_scores.monitor(config)

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        settings = self.config.optimizer
        built = {"generator": optimizers.build(self._trained(), settings.generator)}
        if "discriminator" in self.networks:
            parameters = list(self.networks["discriminator"].parameters())
            built["discriminator"] = optimizers.build(parameters, settings.discriminator)
        return built

    def _trained(self) -> list[nn.Parameter]:
        """Return the generator's parameters that this stage trains."""
        generator: Any = self.networks["generator"]
        if self.config.stage.name == "2d":
            return list(generator.two_d_parameters())
        return list(generator.depth_parameters() if self.config.stage.fix_2d else generator.parameters())

    def _schedulers(self) -> dict[str, LRScheduler]:
        section, epochs = self.config.schedule, self.config.run.epochs
        return {
            name: schedules.named(optimizer, section.name, epochs, section.milestones, section.factor)
            for name, optimizer in self.optimizers.items()
            if name == "generator" or section.discriminator
        }

    # ---- one iteration -------------------------------------------------------------------------------------

    def step(self, batch: dict[str, Tensor], update: Update) -> Terms:
        """Do one iteration of this stage and return what is to be logged.

        Args:
            batch: image uint8 (B, 3, H, W); keypoints (B, K, 2) in heatmap pixels; visibility, depth and depth_known
                (B, K), depth in units of half a crop and known in samples of the 3D set alone.
            update: applies one optimizer step: ``update("generator", loss)``.

        Returns:
            scalars without gradient, unweighted: heatmap, accuracy and, where they are part of the loss, depth, bones,
            adversarial, and of the critic real, fake and penalty.
        """
        image = pose3d_data.normalise(batch["image"], self.config.data)  # (B, 3, H, W)
        with update.autocast():
            heatmaps, depth = self._generate(image, update)  # S x (B, K, h, w), (B, K)
            terms = self._pose_terms(heatmaps, depth, batch)  # eq. 2
        critic: Terms = {}
        if depth is not None and "discriminator" in self.networks:
            real, fake = self._truth(image, batch), self._estimate(image, heatmaps[-1], depth, batch)
            known = real.shown.any(1).tolist()  # waits for the device, so once
            for turn in range(self.config.loss.critic_steps):
                rows, others = choose(known, self.config.loss.fakes, turn)
                critic = self._critic_step(real.take(rows), fake.detach().take(others), update)
            with update.autocast():
                terms["adversarial"] = self._adversarial(real.take(partners(known)), fake, update)  # eq. 4
        update("generator", self._weighted(terms), terms=terms)  # eq. 5
        logged = terms | critic | {"accuracy": self._accuracy(heatmaps[-1], batch, update)}
        return {name: value.detach() for name, value in logged.items()}

    def _generate(self, image: Tensor, update: Update) -> tuple[list[Tensor], Tensor | None]:
        """Return the heatmaps of all stacks and the depth; the stage "2d" does not run the depth module."""
        generator: Any = update.network("generator")
        return (generator.two_d(image), None) if self.config.stage.name == "2d" else generator(image)

    def _pose_terms(self, heatmaps: Sequence[Tensor], depth: Tensor | None, batch: dict[str, Tensor]) -> Terms:
        """Return the parts of L_pose that this stage trains."""
        settings = self.config.loss
        terms = {"heatmap": self._heatmap_loss(heatmaps, batch)}
        if depth is None:
            return terms
        terms["depth"] = losses.depth_loss(
            depth, batch["depth"], batch["depth_known"], reduction=settings.pose_reduction, over=settings.depth_over
        )
        if settings.bones_weight:
            size = (heatmaps[-1].shape[-2], heatmaps[-1].shape[-1])
            joints = coordinates.cube(batch["keypoints"], depth.to(batch["keypoints"].dtype), size)  # (B, K, 3)
            wild = ~_has_truth(batch)[:, None]  # (B, 1)
            terms["bones"] = losses.bone_ratio_loss(joints, (batch["visibility"] > 0) & wild)
        return terms

    def _heatmap_loss(self, heatmaps: Sequence[Tensor], batch: dict[str, Tensor]) -> Tensor:
        settings = self.config.loss
        return losses.pose_loss(
            heatmaps,
            batch["keypoints"],
            settings.sigma,
            visibility=batch["visibility"],
            missing=settings.missing,
            reduction=settings.pose_reduction,
            backend=settings.backend,
        )

    def _weighted(self, terms: Terms) -> Tensor:
        settings = self.config.loss
        weights = {"depth": settings.depth_weight, "bones": settings.bones_weight, "adversarial": settings.lambda_g}
        return torch.stack([weights.get(name, 1.0) * term for name, term in terms.items()]).sum()

    # ---- the critic ----------------------------------------------------------------------------------------

    def _critic_step(self, real: Evidence, fake: Evidence, update: Update) -> Terms:
        """Update the critic with as many true poses as estimates (eq. 3); return its losses.

        Each true pose has an estimated one as partner, and both hide what one of them lacks: which joints are hidden
        does not tell them apart.
        """
        real, fake = real.paired(fake)
        count = len(real.image)
        with update.autocast():
            scores = update.network("discriminator")(*real.beside(fake).sources())  # (2N,)
            terms = {"real": self._score(scores[:count], True), "fake": self._score(scores[count:], False)}
        loss = terms["real"] + terms["fake"]
        if self.config.loss.gan == "wgan-gp":
            terms["penalty"] = self._penalty(real, fake, update)
            loss = loss + self.config.loss.penalty * terms["penalty"]
        update("discriminator", loss, terms=terms)
        return terms

    def _adversarial(self, real: Evidence, fake: Evidence, update: Update) -> Tensor:
        """Return how far the updated critic is from taking all estimates for true.

        A critic with batch norm is shown as many true poses, paired with them as in its own update: its statistics,
        and so its verdict on the estimates, would be others without. They have no part in the loss.
        """
        first = 0
        if self.config.discriminator.norm == "batch":
            real, fake = real.paired(fake)
            first, fake = len(real.image), real.beside(fake)
        scores = update.network("discriminator")(*fake.sources())
        return self._score(scores[first:], True)

    def _score(self, scores: Tensor, real: bool) -> Tensor:
        """Return the loss of the critic's scores against one verdict."""
        if self.config.loss.gan == "wgan-gp":
            return losses.wasserstein_loss(scores, real)
        return losses.gan_loss(scores, real, criterion="bce")

    def _penalty(self, real: Evidence, fake: Evidence, update: Update) -> Tensor:
        critic, form = update.network("discriminator"), self.config.loss.penalty_form
        count, device = len(real.image), real.image.device
        share = distributed.drawn(lambda number: torch.rand(number, device=device), count, update.place)
        return losses.gradient_penalty(critic, real.sources(), fake.sources(), form=form, share=share)

    def _truth(self, image: Tensor, batch: dict[str, Tensor]) -> Evidence:
        """Return the true poses; of samples without 3D truth nothing is shown.

        Their (x, y) are read from their heatmaps as the estimates' are: no grid of pixels tells them apart.
        """
        settings, size = self.config.loss, (image.shape[-2] // 4, image.shape[-1] // 4)
        shown = (batch["visibility"] > 0) & (batch["depth_known"] > 0)  # (B, K)
        heatmaps = ops.render_gaussian_heatmaps(
            batch["keypoints"], size, settings.sigma, visibility=shown, backend=settings.backend
        )
        return Evidence(image, heatmaps, self._joints(heatmaps, batch["depth"]), shown)

    def _estimate(self, image: Tensor, heatmaps: Tensor, depth: Tensor, batch: dict[str, Tensor]) -> Evidence:
        """Return the estimated poses; joints without label are not shown: nothing teaches their heatmaps.

        Depths count from the estimate's own root, as the truth's do from theirs: a root that is not at 0 would tell an
        estimate, and say nothing of its body.
        """
        heatmaps, depth = heatmaps.to(image.dtype), depth.to(image.dtype)
        root = pose3d_data.SKELETON.index(self.config.data.depth_root)
        joints = self._joints(heatmaps, depth - depth[:, root : root + 1])
        return Evidence(image, heatmaps, joints, batch["visibility"] > 0)

    def _joints(self, heatmaps: Tensor, depth: Tensor) -> Tensor:
        """Return joints (B, K, 3) in the crop's cube."""
        method: Any = self.config.loss.coordinates
        return coordinates.joints_3d(heatmaps, depth, method=method, temperature=self.config.loss.temperature)

    def _accuracy(self, heatmaps: Tensor, batch: dict[str, Tensor], update: Update) -> Tensor:
        return pose_scores.heatmap_accuracy(heatmaps.detach(), batch["keypoints"], batch["visibility"], update.place)

    # ---- state, data, evaluation ---------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return what a resume needs beyond networks and optimizers: nothing."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what ``state`` returned."""

    def measured(self) -> dict[str, float]:
        """Return the values that the configuration leaves to the training set, by their keys."""
        if self.config.test.bone_sum or not pose3d_data.trains_on_poses(self.config.data):
            return {}
        return {"test.bone_sum": pose3d_reference.reference(self.config.data).bone_sum}

    @functools.cached_property
    def _held(self) -> list[Source]:
        """What is evaluated, read once: training looks at it too, to keep away from it."""
        return pose3d_data.held_out(self.config.data)

    def train_dataset(self) -> Any:
        """Return the training set of both domains; each item is a dict as ``step`` wants it, without the batch axis."""
        run = self.config.run
        return pose3d_data.train_dataset(self.config.data, run.seed, run.batch_size, held=self._held)

    def validation_dataset(self) -> Any:
        """Return the validation set (not augmented)."""
        return pose3d_data.validation_dataset(self.config.data, self.config.run.seed, held=self._held)

    def evaluate(self, network: nn.Module, loader: Any) -> list[Result]:
        """Return the metrics of ``network`` on a loader's samples, as the section ``test`` says."""
        found = _estimator(network, self.config, None).run_loader(loader)
        return pose3d_scores.score(loader.dataset, *found, self.config.test, self.config.data)

    def samples(self, network: nn.Module, dataset: Any) -> dict[str, np.ndarray]:
        """Return pictures (RGB uint8) of some validation persons."""
        from fastpose.training import pose3d_pictures

        return pose3d_pictures.samples(_estimator(network, self.config, None), dataset)


def _has_truth(batch: dict[str, Tensor]) -> Tensor:
    """Return which samples (B,) have 3D truth."""
    return (batch["depth_known"] > 0).any(1)


def _estimator(network: nn.Module, config: Pose3dConfig, test: Any) -> Pose3dEstimator:
    return Pose3dEstimator(network, config.data, test or config.test)


def _evaluate(network: nn.Module, config: Pose3dConfig) -> list[Result]:
    """Return the metrics on the validation persons, tested as ``config.test`` says."""
    return pose3d_scores.evaluate(_estimator(network, config, None), config)


SYSTEM = System(
    name="pose3d",
    config=Pose3dConfig,
    trainer=Pose3dTrainer,
    network=build_generator,
    estimator=_estimator,
    evaluate=_evaluate,
)
