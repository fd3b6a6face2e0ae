"""The configuration of system 000; defaults are Ours-C as the paper describes it."""

from __future__ import annotations

from dataclasses import dataclass, field

from fastpose import _checks
from fastpose.nn.hourglass import STEMS
from fastpose.nn.residual import SKIPS
from fastpose.nn.self_attention import FLAVOURS
from fastpose.training.config import RunConfig
from fastpose.training.estimation import BACKENDS, InferenceConfig
from fastpose.training.pose_data import DataConfig


@dataclass(frozen=True)
class GeneratorConfig:
    """The pose network: ``models.create(name, ...)``.

    Attributes:
        name: "sagan.generator" or "hourglass".
        stacks, modules, width: hourglasses in a row, residual modules per place, feature channels.
        depth: halvings inside an hourglass.
        sarm: "B" for self-attention modules, "none" for plain hourglasses.
        sarm_stacks: the stacks that carry them, 0-based; empty for all but the first.
        flavour: self-attention as in the "paper" (softmax, gamma) or as "released" (sigmoid, no gamma).
        skip: "conv" or "bn_relu_conv"; empty for the network's own default.
        stem: "newell" or "pytorch_pose", of the "hourglass" only.
    """

    name: str = "sagan.generator"
    stacks: int = 4
    modules: int = 2
    width: int = 256
    depth: int = 4
    sarm: str = "B"
    sarm_stacks: tuple[int, ...] = ()
    flavour: str = "paper"
    skip: str = ""
    stem: str = "newell"

    def __post_init__(self) -> None:
        _checks.choice("model.name", self.name, ("sagan.generator", "hourglass"))
        _checks.choice("model.sarm", self.sarm, ("B", "none"))
        _checks.choice("model.flavour", self.flavour, FLAVOURS)
        _checks.choice("model.stem", self.stem, STEMS)
        if self.skip:
            _checks.choice("model.skip", self.skip, SKIPS)


@dataclass(frozen=True)
class DiscriminatorConfig:
    """The discriminator that redraws heatmaps.

    Attributes:
        name: "sagan.discriminator", or "none" to train the generator alone.
        modules, width, depth: as in the generator.
        sarm: self-attention on its skip branches: "A", "B" or "none".
        flavour: "paper" or "released".
    """

    name: str = "sagan.discriminator"
    modules: int = 1
    width: int = 256
    depth: int = 4
    sarm: str = "B"
    flavour: str = "paper"

    def __post_init__(self) -> None:
        _checks.choice("discriminator.name", self.name, ("sagan.discriminator", "none"))
        _checks.choice("discriminator.sarm", self.sarm, ("A", "B", "none"))
        _checks.choice("discriminator.flavour", self.flavour, FLAVOURS)


@dataclass(frozen=True)
class LossConfig:
    """Weights and conventions of the losses.

    Attributes:
        sigma: of the target Gaussian in heatmap pixels; 1 in the paper, 1.75 in the Torch codes.
        missing: a joint without label is asked to be a "zero" plane (published codes), or "ignore"d.
        reduction: "mean" (released code) or "half_sum" (eq. 5, 6, 8, 9).
        lambda_g: weight of the adversarial loss of the generator.
        policy: lambda_D is k_t of the "began" equilibrium (released code), or the "constant" ``lambda_d``.
        lambda_d: the constant.
        gamma, rate: of the equilibrium.
        adv_target_grad: let gradient pass through the target of the adversarial loss; the released code does not.
        stale_d_activations: differentiate the adversarial loss through the updated weights but the activations
            from before the update, as the released code does (exact in fp32); default is to forward again.
        backend: of the heatmap operations.
    """

    sigma: float = 1.0
    missing: str = "zero"
    reduction: str = "mean"
    lambda_g: float = 0.1
    policy: str = "began"
    lambda_d: float = 0.5
    gamma: float = 0.5
    rate: float = 0.001
    adv_target_grad: bool = False
    stale_d_activations: bool = False
    backend: str = "auto"

    def __post_init__(self) -> None:
        _checks.choice("loss.policy", self.policy, ("began", "constant"))
        _checks.choice("loss.missing", self.missing, ("zero", "ignore"))
        _checks.choice("loss.reduction", self.reduction, ("mean", "half_sum"))
        _checks.choice("loss.backend", self.backend, BACKENDS)
        _checks.not_negative("loss.lambda_g", self.lambda_g)
        _checks.not_negative("loss.rate", self.rate)
        if self.sigma <= 0:
            raise ValueError(f"loss.sigma: expected a positive number of heatmap pixels, got {self.sigma}")
        if not 0 <= self.lambda_d <= 1:
            raise ValueError(f"loss.lambda_d: expected a number from 0 to 1, got {self.lambda_d}")


@dataclass(frozen=True)
class NetworkOptimizerConfig:
    """One network's optimizer: "rmsprop" (alpha 0.99, eps 1e-8) or "adam" (betas 0.9, 0.999, eps 1e-8)."""

    name: str = "rmsprop"
    lr: float = 1e-4
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _checks.choice("optimizer name", self.name, ("rmsprop", "adam"))
        if not self.lr > 0:
            raise ValueError(f"optimizer lr: expected a positive number, got {self.lr}")
        _checks.not_negative("optimizer weight_decay", self.weight_decay)


@dataclass(frozen=True)
class OptimizerConfig:
    """Both optimizers; the paper names RMSprop at 1e-4, the released code takes Adam for the discriminator."""

    generator: NetworkOptimizerConfig = NetworkOptimizerConfig()
    discriminator: NetworkOptimizerConfig = NetworkOptimizerConfig(name="adam")


@dataclass(frozen=True)
class ScheduleConfig:
    """Learning rate over epochs.

    Attributes:
        name: "paper" (/5 at 40, 60, 80), "released" (x0.4 at 140, 160, 180), "cosine" (to zero at the last
            epoch), "constant", or "milestones" with the two values below.
        milestones, factor: epochs after which the rate is multiplied by ``factor``.
        discriminator: let the discriminator's rate follow too; it never decays in the released code.
    """

    name: str = "paper"
    milestones: tuple[int, ...] = ()
    factor: float = 0.2
    discriminator: bool = False

    def __post_init__(self) -> None:
        _checks.choice("schedule.name", self.name, ("paper", "released", "cosine", "constant", "milestones"))
        if not self.factor > 0:
            raise ValueError(f"schedule.factor: expected a positive number, got {self.factor}")
        if self.milestones and min(self.milestones) <= 0:
            raise ValueError(f"schedule.milestones: expected epochs from 1 on, got {self.milestones}")


@dataclass(frozen=True)
class SaganConfig:
    """Everything that defines a run of system 000; defaults are Ours-C as the paper describes it."""

    run: RunConfig = field(default_factory=lambda: RunConfig(epochs=200, batch_size=6))
    data: DataConfig = field(default_factory=DataConfig)
    model: GeneratorConfig = GeneratorConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    test: InferenceConfig = field(default_factory=InferenceConfig)

    def __post_init__(self) -> None:
        depths = {"model": self.model.depth}
        if self.discriminator.name != "none":
            depths["discriminator"] = self.discriminator.depth
        for section, depth in depths.items():
            if depth < 1:
                raise ValueError(f"{section}.depth: expected 1 or more, got {depth}")
            multiple = 4 * 2**depth  # heatmaps have a quarter of the side, and an hourglass halves them ``depth`` times
            if self.data.image_size % multiple:
                raise ValueError(
                    f"data.image_size: expected a multiple of {multiple} (4 x 2**{section}.depth), got "
                    f"{self.data.image_size}; change it or {section}.depth"
                )
