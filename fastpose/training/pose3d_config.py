"""The configuration of system 002; defaults are Full-2s as the paper describes it, in its last stage of training."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import get_args

from fastpose import _checks
from fastpose.losses import penalties, pose
from fastpose.models.pose3d import SOURCES, DepthHead, DepthMapKind, DepthMapOrigin, Geometry, Norm
from fastpose.nn.coordinates import METHODS, TEMPERATURE
from fastpose.training.config import RunConfig
from fastpose.training.estimation import BACKENDS
from fastpose.training.optimizers import NetworkOptimizerConfig
from fastpose.training.pose3d_data import Pose3dDataConfig
from fastpose.training.pose3d_scores import Pose3dScoreConfig

STAGES = ("2d", "pose", "adversarial")
FAKES = ("both", "3d", "wild")


def _not_negative(name: str, value: float) -> None:
    _checks.not_negative(name, value)
    if math.isinf(value):
        raise ValueError(f"{name}: expected a finite number, got {value}")


def _multiple_of_8(name: str, value: int) -> None:
    if value < 1 or value % 8:
        raise ValueError(f"{name}: expected a multiple of 8, got {value}")


@dataclass(frozen=True)
class GeneratorConfig:
    """The pose network: ``models.create("pose3d.generator", ...)``.

    Attributes:
        name: "pose3d.generator".
        stacks, modules, width: hourglasses in a row, residual modules per place, feature channels.
        depth: halvings inside an hourglass.
        depth_head: "gap", three residual and downsampling modules and global pooling (paper), or "flatten", four of
            them and a linear layer on all that is left (the backbone's released code).
        regressor_modules: residual modules before each downsampling; 0 for the head's own, 1 of "gap" and 2 of
            "flatten".
    """

    name: str = "pose3d.generator"
    stacks: int = 2
    modules: int = 1
    width: int = 256
    depth: int = 4
    depth_head: str = "gap"
    regressor_modules: int = 0

    def __post_init__(self) -> None:
        _checks.choice("model.name", self.name, ("pose3d.generator",))
        _checks.choice("model.depth_head", self.depth_head, get_args(DepthHead))
        _checks.counts(model_stacks=self.stacks, model_modules=self.modules, model_depth=self.depth)
        _multiple_of_8("model.width", self.width)
        _not_negative("model.regressor_modules", self.regressor_modules)


@dataclass(frozen=True)
class DiscriminatorConfig:
    """The critic of several sources, of the stage "adversarial" alone.

    The paper names the sources and three fully connected layers; widths, embeddings and norm are ours.

    Attributes:
        name: "pose3d.discriminator".
        sources: what it sees: "image", "geometry" (pairwise descriptor), "maps" (heatmaps and depth maps). Map is image
            and maps, Geo is image and geometry, Full is all (table 2).
        width: of each source's embedding.
        hidden: of the fully connected layers.
        norm: "batch" (ours), or "none", which the penalty of "wgan-gp" needs.
        geometry: the descriptor goes through one linear layer ("flatten", ours) or through convolutions ("conv").
        depth_maps: a depth map holds the depth under the joint's bell ("gaussian", ours), everywhere ("constant"), or
            at the joint's pixel ("onehot").
        depth_maps_from: the place of that bell or pixel is read from the "heatmaps" (ours), or drawn at the "joints".
    """

    name: str = "pose3d.discriminator"
    sources: tuple[str, ...] = SOURCES
    width: int = 256
    hidden: int = 512
    norm: str = "batch"
    geometry: str = "flatten"
    depth_maps: str = "gaussian"
    depth_maps_from: str = "heatmaps"

    def __post_init__(self) -> None:
        _checks.choice("discriminator.name", self.name, ("pose3d.discriminator",))
        _checks.choice("discriminator.norm", self.norm, get_args(Norm))
        _checks.choice("discriminator.geometry", self.geometry, get_args(Geometry))
        _checks.choice("discriminator.depth_maps", self.depth_maps, get_args(DepthMapKind))
        _checks.choice("discriminator.depth_maps_from", self.depth_maps_from, get_args(DepthMapOrigin))
        for source in self.sources:
            _checks.choice("discriminator.sources", source, SOURCES)
        if not self.sources or len(set(self.sources)) != len(self.sources):
            raise ValueError(f"discriminator.sources: expected different ones of {SOURCES}, got {self.sources}")
        _checks.counts(discriminator_hidden=self.hidden)
        _multiple_of_8("discriminator.width", self.width)


@dataclass(frozen=True)
class LossConfig:
    """Weights and conventions of the losses.

    Attributes:
        sigma: of the target Gaussian in heatmap pixels; 1 in the paper, 1.75 in the backbone's released code.
        missing: a joint without label is asked to be a "zero" plane (published codes), or "ignore"d.
        pose_reduction: of eq. 2: "mean" over joints and positions (ours; lambda_g is only small enough beside it), or
            "sum" as printed; both averaged over the batch.
        depth_weight: of the depth in eq. 2: 1 in the paper, 0.1 in the backbone's released code.
        depth_over: the depth loss is averaged over the "batch", photographs without 3D truth as 0 (released code), or
            over what is "known".
        bones_weight: of the variance of bone-length ratios on photographs without 3D truth; 0.01 in the backbone's
            released code, discarded (0) in the paper.
        lambda_g: weight of the adversarial loss, lambda of eq. 5.
        gan: "bce" (eq. 3 and 4) or "wgan-gp", a Wasserstein critic with a gradient penalty.
        penalty, penalty_form: its weight; "gp" or the one-sided "lp".
        critic_steps: updates of the critic to one of the generator, all with the same batch.
        fakes: what the critic is shown as generated: estimates of "both" domains in turn, of the "3d" set or of the
            "wild" photographs alone; as many as there are true poses, so of "both" in a batch of equal halves one half
            of each (ours; eq. 3 sums over all). The generator's own loss always counts all.
        coordinates: how the critic's (x, y) are read from heatmaps, estimated and true ones alike: "softargmax" round
            the maximum, or "straight_through": the maximum, with the gradient of the soft one (both ours).
        temperature: of the soft maximum, of heatmaps at height 1; a lower one is sharper.
        backend: of the heatmap operations.
    """

    sigma: float = 1.0
    missing: str = "zero"
    pose_reduction: str = "mean"
    depth_weight: float = 1.0
    depth_over: str = "batch"
    bones_weight: float = 0.0
    lambda_g: float = 1e-4
    gan: str = "bce"
    penalty: float = 10.0
    penalty_form: str = "gp"
    critic_steps: int = 1
    fakes: str = "both"
    coordinates: str = "softargmax"
    temperature: float = TEMPERATURE
    backend: str = "auto"

    def __post_init__(self) -> None:
        _checks.choice("loss.missing", self.missing, pose.MISSING)
        _checks.choice("loss.pose_reduction", self.pose_reduction, pose.DEPTH_REDUCTIONS)
        _checks.choice("loss.depth_over", self.depth_over, pose.OVER)
        _checks.choice("loss.gan", self.gan, ("bce", "wgan-gp"))
        _checks.choice("loss.penalty_form", self.penalty_form, penalties.FORMS)
        _checks.choice("loss.fakes", self.fakes, FAKES)
        _checks.choice("loss.coordinates", self.coordinates, METHODS)
        _checks.choice("loss.backend", self.backend, BACKENDS)
        for name in ("depth_weight", "bones_weight", "lambda_g", "penalty"):
            _not_negative(f"loss.{name}", getattr(self, name))
        for name in ("sigma", "temperature"):
            _checks.positive(f"loss.{name}", getattr(self, name))
        _checks.counts(loss_critic_steps=self.critic_steps)


@dataclass(frozen=True)
class OptimizerConfig:
    """Both optimizers; the paper names neither: RMSprop is the backbone's, a tenth of its rate in this stage ours."""

    generator: NetworkOptimizerConfig = field(default_factory=lambda: NetworkOptimizerConfig(lr=2.5e-5))
    discriminator: NetworkOptimizerConfig = field(
        default_factory=lambda: NetworkOptimizerConfig(name="adam", lr=1e-4, beta1=0.5)
    )

    def __post_init__(self) -> None:
        self.generator.check("optimizer.generator")
        self.discriminator.check("optimizer.discriminator")


@dataclass(frozen=True)
class ScheduleConfig:
    """Learning rate over epochs.

    Attributes:
        name: "constant", "cosine" (to zero at the last epoch), or "milestones" with the two values below.
        milestones, factor: epochs after which the rate is multiplied by ``factor``.
        discriminator: let the critic's rate follow too.
    """

    name: str = "constant"
    milestones: tuple[int, ...] = ()
    factor: float = 0.1
    discriminator: bool = False

    def __post_init__(self) -> None:
        _checks.choice("schedule.name", self.name, ("constant", "cosine", "milestones"))
        _checks.positive("schedule.factor", self.factor)
        if self.milestones and min(self.milestones) <= 0:
            raise ValueError(f"schedule.milestones: expected epochs from 1 on, got {self.milestones}")


@dataclass(frozen=True)
class StageConfig:
    """Which part of the training this run is; weights of the one before come by ``run.start``.

    Attributes:
        name: "2d", heatmaps alone; "pose", heatmaps and depth (eq. 2); "adversarial", critic and generator in turn
            (eq. 3 to 5).
        fix_2d: leave the 2D module as it is: its parameters are not trained and its batch norms keep their statistics.
    """

    name: str = "adversarial"
    fix_2d: bool = False

    def __post_init__(self) -> None:
        _checks.choice("stage.name", self.name, STAGES)
        if self.fix_2d and self.name == "2d":
            raise ValueError("stage.fix_2d: expected no with stage.name=2d, which trains nothing else; got yes")


@dataclass(frozen=True)
class Pose3dConfig:
    """Everything that defines a run of system 002; defaults are Full-2s in the stage "adversarial".

    24 epochs of 5,000 batches of 12 are the paper's 120,000 iterations.
    """

    run: RunConfig = field(default_factory=lambda: RunConfig(epochs=24, batch_size=12))
    data: Pose3dDataConfig = field(default_factory=lambda: Pose3dDataConfig(epoch_batches=5000))
    model: GeneratorConfig = GeneratorConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    stage: StageConfig = StageConfig()
    test: Pose3dScoreConfig = field(default_factory=Pose3dScoreConfig)

    def __post_init__(self) -> None:
        self._check_size()
        if self.stage.name != "2d" and self.data.name == "none":
            raise ValueError(f"data.name: expected a set with 3D truth with stage.name={self.stage.name}, got 'none'")
        if self.stage.name == "adversarial":
            self._check_adversarial()

    def _check_size(self) -> None:
        # Heatmaps have a quarter of the side; an hourglass halves them ``depth`` times, the flatten head four times.
        halvings = max(self.model.depth, 4 if self.model.depth_head == "flatten" else 1)
        multiple = 4 * 2**halvings
        if self.data.image_size % multiple:
            raise ValueError(
                f"data.image_size: expected a multiple of {multiple} (model.depth={self.model.depth}, "
                f"model.depth_head={self.model.depth_head}), got {self.data.image_size}"
            )

    def _check_adversarial(self) -> None:
        loss = self.loss
        if self.data.mixing != "exact":
            raise ValueError(
                f"data.mixing: expected exact with stage.name=adversarial, whose batches need both domains, got "
                f"{self.data.mixing!r}"
            )
        if loss.fakes == "wild" and not self.data.wild:
            raise ValueError("loss.fakes: expected 3d or both without photographs in data.wild, got 'wild'")
        if loss.gan == "wgan-gp" and self.discriminator.norm != "none":
            raise ValueError(
                "discriminator.norm: expected none with loss.gan=wgan-gp, whose penalty is on each sample by itself, "
                f"got {self.discriminator.norm!r}"
            )
        if loss.critic_steps > 1 and self.run.accumulate > 1:
            raise ValueError(
                f"loss.critic_steps: expected 1 with run.accumulate={self.run.accumulate}, got {loss.critic_steps}"
            )
