"""The configuration of system 003; defaults are the full model on DeepFashion as the released code trains it."""

from __future__ import annotations

from dataclasses import dataclass, field

from fastpose import _checks
from fastpose.losses import gan
from fastpose.training import transfer_training
from fastpose.training.config import RunConfig
from fastpose.training.transfer_data import TransferDataConfig
from fastpose.training.transfer_scores import ScoreConfig
from fastpose.training.transfer_training import OptimizerConfig, PerceptualConfig, ScheduleConfig


@dataclass(frozen=True)
class GeneratorConfig:
    """The network that draws: ``models.create("multiscale.generator", ...)``.

    Attributes:
        name: "multiscale.generator".
        width, levels: channels at full resolution, halvings of the resolution.
        gates: levels at which the pose code gates the image code, 1 (half the resolution) to ``levels``; empty for all
            of them, or for none beside a ``fusion``.
        fusion: how the deepest codes are joined in place of the gates: "none" (they are not), "sum" or "cat" (A0).
    """

    name: str = "multiscale.generator"
    width: int = 64
    levels: int = 4
    gates: tuple[int, ...] = ()
    fusion: str = "none"

    def __post_init__(self) -> None:
        _checks.choice("model.name", self.name, ("multiscale.generator",))
        _checks.choice("model.fusion", self.fusion, ("none", "sum", "cat"))
        if self.levels < 1:
            raise ValueError(f"model.levels: expected 1 or more, got {self.levels}")


@dataclass(frozen=True)
class DiscriminatorConfig:
    """The discriminator that scores patches of an image beside the condition image.

    Attributes:
        name: "multiscale.discriminator", or "none" to train without it.
        width, layers: channels after the first convolution, convolutions between the first and the last.
    """

    name: str = "multiscale.discriminator"
    width: int = 64
    layers: int = 3

    def __post_init__(self) -> None:
        _checks.choice("discriminator.name", self.name, ("multiscale.discriminator", "none"))
        if self.layers < 1:
            raise ValueError(f"discriminator.layers: expected 1 or more, got {self.layers}")


@dataclass(frozen=True)
class LossConfig:
    """Weights and kinds of the losses (section 3.3).

    Attributes:
        gan: "lsgan" (released code) or "bce" (paper).
        lambda_gan: weight of the adversarial loss, lambda_2.
        lambda_l1: weight of the L1 loss, lambda_1.
        perceptual: its weight is lambda_3; after conv1_2 and conv2_2, and the released code stretches images over the
            whole batch before VGG.
    """

    gan: str = "lsgan"
    lambda_gan: float = 1.0
    lambda_l1: float = 5.0
    perceptual: PerceptualConfig = field(
        default_factory=lambda: PerceptualConfig(weight=5.0, layers=(4, 9), scaling="minmax_batch")
    )

    def __post_init__(self) -> None:
        _checks.choice("loss.gan", self.gan, gan.CRITERIA)
        for name in ("lambda_gan", "lambda_l1"):
            _checks.not_negative(f"loss.{name}", getattr(self, name))


@dataclass(frozen=True)
class MultiscaleConfig:
    """Everything that defines a run of system 003; defaults are the full model: 270,000 iterations of 8 pairs."""

    run: RunConfig = field(default_factory=lambda: RunConfig(epochs=22, batch_size=8, max_steps=270000))
    data: TransferDataConfig = field(default_factory=lambda: TransferDataConfig(name="deepfashion", pose_map="binary"))
    model: GeneratorConfig = GeneratorConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=1e-3))
    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(name="constant"))
    test: ScoreConfig = field(default_factory=lambda: ScoreConfig(splits=1, both_directions=True))

    def __post_init__(self) -> None:
        transfer_training.check_size(self.data, 2**self.model.levels, "2**model.levels")
        transfer_training.decay_epochs(self.schedule, self.run.epochs)
        if self.discriminator.name == "none":
            return
        layers = self.discriminator.layers
        transfer_training.check_smallest(self.data, 3 * 2**layers, "3 x 2**discriminator.layers")
        if self.run.accumulate > 1:
            raise ValueError(
                "run.accumulate: expected 1, as the generator steps through the discriminator that has just been "
                f"updated, got {self.run.accumulate}; choose run.batch_size, or train with discriminator=none"
            )
