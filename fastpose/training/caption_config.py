"""The configuration of system 004; defaults are the final conditional model of the thesis: WGAN-LP, halved widths."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from fastpose import _checks
from fastpose.training.caption_data import CaptionDataConfig
from fastpose.training.caption_scores import CaptionScoreConfig, monitor
from fastpose.training.config import RunConfig
from fastpose.training.optimizers import NetworkOptimizerConfig

ALGORITHMS = ("gan", "wgan", "wgan-gp", "wgan-lp")
PENALISED = {"wgan-gp": "gp", "wgan-lp": "lp"}
"""The algorithms with a gradient penalty, and its form."""
VECTOR_SIZE = 300
"""Numbers of the thesis' text vectors, fastText's."""


def _widths(name: str, widths: tuple[int, ...]) -> None:
    if len(widths) != 4 or min(widths) < 1:
        raise ValueError(f"{name}: expected four numbers of channels from 1 on, got {widths}")


@dataclass(frozen=True)
class TextConfig:
    """How captions become vectors; of a conditional model alone.

    Attributes:
        encoder: what `data.text.create` takes: "minilm", "sample", or a file .vec, .bin or .npz.
        size: numbers of a vector; 0 takes the encoder's, and 300 (fastText's) where there is none to ask.
        scale: vectors are multiplied by it before the networks see them, so that the noise does not drown them.
        lower: fastText sees captions in lower case (released code; the thesis does not say).
        fingerprint: of the encoder that alone may be used; empty takes any to train with, and what it was lies in the
            manifest of the weights.
    """

    encoder: str = ""
    size: int = 0
    scale: float = 30.0
    lower: bool = True
    fingerprint: str = ""

    def __post_init__(self) -> None:
        _checks.not_negative("text.size", self.size)
        _checks.positive("text.scale", self.scale)


@dataclass(frozen=True)
class GeneratorConfig:
    """The network that makes poses: ``models.create("caption.generator", ...)``.

    Attributes:
        name: "caption.generator".
        conditional: whether captions say what pose; else it makes poses from noise alone.
        compress, noise: numbers that a caption's vector is compressed to, and numbers of noise.
        widths: channels from 4 x 4 to 32 x 32; (512, 256, 128, 64) is the full model, the default the reduced one.
        self_attention: a non-local block on the 32 x 32 maps (ours).
        init: first weights of both networks: the batch norms' bias 0 ("paper") or drawn ("released"), or convolutions
            as wide as their inputs ask ("scaled", ours, for networks much narrower than the published ones).
    """

    name: str = "caption.generator"
    conditional: bool = True
    compress: int = 128
    noise: int = 128
    widths: tuple[int, ...] = (256, 128, 64, 32)
    self_attention: bool = False
    init: str = "paper"

    def __post_init__(self) -> None:
        _checks.choice("model.name", self.name, ("caption.generator",))
        _checks.choice("model.init", self.init, ("paper", "released", "scaled"))
        _widths("model.widths", self.widths)
        _checks.counts(model_compress=self.compress, model_noise=self.noise)


@dataclass(frozen=True)
class DiscriminatorConfig:
    """The critic: ``models.create("caption.discriminator", ...)``; ``model`` says whether it sees captions.

    It gives logits with every algorithm: the log losses of "gan" take them, where thesis and released code put a
    sigmoid before the logarithms; the same loss, but finite and with a gradient at every score, also in 16 bits.

    Attributes:
        name: "caption.discriminator".
        widths: channels from 32 x 32 to 4 x 4; (64, 128, 256, 512) is the full model.
        norm: "none" (WGAN-GP, WGAN-LP) or "batch" after every convolution but the last (GAN, WGAN).
        self_attention: a non-local block on the 32 x 32 maps (ours).
    """

    name: str = "caption.discriminator"
    widths: tuple[int, ...] = (32, 64, 128, 256)
    norm: str = "none"
    self_attention: bool = False

    def __post_init__(self) -> None:
        _checks.choice("discriminator.name", self.name, ("caption.discriminator",))
        _checks.choice("discriminator.norm", self.norm, ("none", "batch"))
        _widths("discriminator.widths", self.widths)


@dataclass(frozen=True)
class LossConfig:
    """The algorithm and its numbers.

    Attributes:
        algorithm: "gan" (algorithm 1, with captions 4), "wgan" (2), "wgan-gp" (3) or "wgan-lp" (5).
        critic_steps: updates of the critic to one of the generator, k; each has a batch of its own, and they are
            counted on over the epochs.
        penalty: weight of the gradient penalty, lambda: 10 of WGAN-GP (20 in an early released code), 150 of the
            conditional WGAN-LP.
        penalty_norm: the norms of the gradients by pose and by caption are penalised "separate"ly (eq. 9), or there is
            one "joint" norm of both (released code).
        clip: of "wgan": every parameter of the critic is kept within +-clip.
        alpha: weight of a true pose with another caption (eq. 8).
        beta: share of the first of two interpolated captions (eq. 7).
        gan_weights: of "gan" with captions: eq. 5, 1, 1/2 and 1/2 ("paper"), or 2, 1 and 1 ("released"), both at alpha
            1: (1 + alpha), alpha and 1, which "paper" divides by 1 + alpha.
        generator_captions: the generator's own captions are those of the "batch" that the critic has just seen (h_i,
            i = 1..m, of the gradient in algorithms 4 and 5, whose captions h_(i+m) and h_(i+2m) are the interpolated
            ones alone; released code), or "fresh" ones at random.
    """

    algorithm: str = "wgan-lp"
    critic_steps: int = 5
    penalty: float = 150.0
    penalty_norm: str = "separate"
    clip: float = 0.01
    alpha: float = 1.0
    beta: float = 0.5
    gan_weights: str = "paper"
    generator_captions: str = "batch"

    def __post_init__(self) -> None:
        _checks.choice("loss.algorithm", self.algorithm, ALGORITHMS)
        _checks.choice("loss.penalty_norm", self.penalty_norm, ("separate", "joint"))
        _checks.choice("loss.gan_weights", self.gan_weights, ("paper", "released"))
        _checks.choice("loss.generator_captions", self.generator_captions, ("batch", "fresh"))
        for name in ("penalty", "clip"):
            _checks.positive(f"loss.{name}", getattr(self, name))
        _checks.counts(loss_critic_steps=self.critic_steps)
        if not 0 <= self.alpha < math.inf:
            raise ValueError(f"loss.alpha: expected a finite number of 0 or more, got {self.alpha}")
        if not 0 <= self.beta <= 1:
            raise ValueError(f"loss.beta: expected a share from 0 to 1, got {self.beta}")


def _adam() -> NetworkOptimizerConfig:
    return NetworkOptimizerConfig(name="adam", lr=4e-4, beta1=0.0, beta2=0.9)


@dataclass(frozen=True)
class OptimizerConfig:
    """Both optimizers, the same in all published runs."""

    generator: NetworkOptimizerConfig = field(default_factory=_adam)
    discriminator: NetworkOptimizerConfig = field(default_factory=_adam)

    def __post_init__(self) -> None:
        self.generator.check("optimizer.generator")
        self.discriminator.check("optimizer.discriminator")


@dataclass(frozen=True)
class StartConfig:
    """What both networks of a conditional model begin with (section 4.3).

    Attributes:
        run: folder of an unconditional run of equal widths, whose newest resume point is taken; empty is random.
        needed: refuse to begin at random.
    """

    run: str = ""
    needed: bool = False


@dataclass(frozen=True)
class CaptionConfig:
    """Everything that defines a run of system 004; a step of it is one update of the critic."""

    run: RunConfig = field(default_factory=lambda: RunConfig(epochs=1000, batch_size=128))
    data: CaptionDataConfig = field(default_factory=CaptionDataConfig)
    text: TextConfig = TextConfig()
    model: GeneratorConfig = GeneratorConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    start: StartConfig = StartConfig()
    test: CaptionScoreConfig = field(default_factory=CaptionScoreConfig)

    def __post_init__(self) -> None:
        self._check_start()
        monitor(self.test, captioned=self.model.conditional)
        if self.run.accumulate > 1:
            raise ValueError(
                "run.accumulate: expected 1, as the generator's turn is counted in updates of the critic, each with a "
                f"batch of its own, got {self.run.accumulate}; choose run.batch_size"
            )
        if self.loss.algorithm in PENALISED and self.discriminator.norm != "none":
            raise ValueError(
                f"discriminator.norm: expected none with loss.algorithm={self.loss.algorithm}, whose penalty is on "
                f"each sample by itself, got {self.discriminator.norm!r}"
            )

    def _check_start(self) -> None:
        if self.start.run and not self.model.conditional:
            raise ValueError(
                "start.run: expected none with model.conditional=no, as it makes a conditional model of an "
                f"unconditional run, got {self.start.run!r}; take its weights with run.start, or go on with --resume"
            )
        if self.start.run and self.run.start:
            raise ValueError(
                f"start.run: expected none beside run.start={self.run.start}, got {self.start.run!r}; choose one"
            )
