"""The configuration of system 001; defaults are the Market-1501 model."""

from __future__ import annotations

from dataclasses import dataclass, field

from fastpose import _checks
from fastpose.losses import gan
from fastpose.training import transfer_training
from fastpose.training.config import RunConfig
from fastpose.training.transfer_data import TransferDataConfig
from fastpose.training.transfer_scores import ScoreConfig
from fastpose.training.transfer_training import OptimizerConfig, PerceptualConfig, ScheduleConfig

NORMS = ("batch", "instance")


@dataclass(frozen=True)
class GeneratorConfig:
    """The network that draws: ``models.create("pona.generator", ...)``.

    Attributes:
        name: "pona.generator".
        blocks, width: PoNA blocks in a row, channels after the first convolution.
        norm: "batch" (Market-1501) or "instance" (DeepFashion).
        fusion: where image and pose code are joined: "head", "middle", "tail" or "none" (table V).
        cross_attention: attention of the image code guided by the pose code (eq. 4 to 7).
        self_attention: attention of the joined codes to themselves (eq. 2).
        self_attention_beta: its second scalar, of the released code alone.
        dropout: in the blocks, while training.
    """

    name: str = "pona.generator"
    blocks: int = 3
    width: int = 64
    norm: str = "batch"
    fusion: str = "head"
    cross_attention: bool = True
    self_attention: bool = True
    self_attention_beta: bool = True
    dropout: float = 0.5

    def __post_init__(self) -> None:
        _checks.choice("model.name", self.name, ("pona.generator",))
        _checks.choice("model.norm", self.norm, NORMS)
        _checks.choice("model.fusion", self.fusion, ("head", "middle", "tail", "none"))


@dataclass(frozen=True)
class DiscriminatorConfig:
    """A discriminator that scores each place of an image beside what it is to agree with.

    Attributes:
        name: "pona.discriminator", or "none" to train without it.
        width, blocks: channels after the first convolution, residual blocks.
        norm: "batch" or "instance".
        spectral_norm: of every convolution (released code alone).
        self_attention: after each residual block (paper alone).
        activation: "relu" (released code) or "leaky_relu" of slope 0.2 (paper).
        dropout: in the residual blocks (released code alone).
    """

    name: str = "pona.discriminator"
    width: int = 64
    blocks: int = 3
    norm: str = "batch"
    spectral_norm: bool = True
    self_attention: bool = False
    activation: str = "relu"
    dropout: float = 0.5

    def __post_init__(self) -> None:
        _checks.choice("discriminator name", self.name, ("pona.discriminator", "none"))
        _checks.choice("discriminator norm", self.norm, NORMS)
        _checks.choice("discriminator activation", self.activation, ("relu", "leaky_relu"))


@dataclass(frozen=True)
class LossConfig:
    """Weights and kinds of the losses (eq. 8).

    Attributes:
        gan: "bce" (eq. 9; Market-1501) or "lsgan" (released code on DeepFashion).
        lambda_gan: weight of the adversarial loss, lambda_1.
        lambda_l1: weight of the L1 loss, lambda_2; eq. 10 with the mean over pixels.
        perceptual: its weight is lambda_3.
        pool: so many generated images are kept to show discriminators earlier ones too; 0 is off.
        ratio: updates of each discriminator to one of the generator.
    """

    gan: str = "bce"
    lambda_gan: float = 5.0
    lambda_l1: float = 10.0
    perceptual: PerceptualConfig = field(default_factory=PerceptualConfig)
    pool: int = 50
    ratio: int = 1

    def __post_init__(self) -> None:
        _checks.choice("loss.gan", self.gan, gan.CRITERIA)
        for name in ("lambda_gan", "lambda_l1", "pool"):
            _checks.not_negative(f"loss.{name}", getattr(self, name))
        if self.ratio < 1:
            raise ValueError(f"loss.ratio: expected 1 or more, got {self.ratio}")


@dataclass(frozen=True)
class PonaConfig:
    """Everything that defines a run of system 001; defaults are the Market-1501 model.

    Sections ``appearance`` and ``pose`` are the discriminators D_A (image beside condition image) and D_P (image
    beside target pose). 720 epochs of 4,000 pairs, 32 at a time, are the paper's 90,000 iterations.
    """

    run: RunConfig = field(default_factory=lambda: RunConfig(epochs=720, batch_size=32))
    data: TransferDataConfig = field(default_factory=lambda: TransferDataConfig(samples_per_epoch=4000))
    model: GeneratorConfig = GeneratorConfig()
    appearance: DiscriminatorConfig = DiscriminatorConfig()
    pose: DiscriminatorConfig = DiscriminatorConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    test: ScoreConfig = field(default_factory=ScoreConfig)

    def __post_init__(self) -> None:
        transfer_training.check_size(self.data, 4, "the networks halve them twice")
        if {self.appearance.name, self.pose.name} != {"none"}:
            transfer_training.check_smallest(self.data, 8, "the discriminators mirror margins at a quarter of the size")
        transfer_training.decay_epochs(self.schedule, self.run.epochs)
        if self.loss.ratio > 1 and self.run.accumulate > 1:
            raise ValueError(f"loss.ratio: expected 1 with run.accumulate={self.run.accumulate}, got {self.loss.ratio}")
