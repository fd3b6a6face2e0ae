"""System 004, human poses from captions: networks, data and the order of updates (Zhang et al., GCPR 2020)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from fastpose import losses, models
from fastpose.metrics.report import Result
from fastpose.models.looking import evaluating
from fastpose.training import (
    caption_data,
    caption_scores,
    caption_start,
    caption_text,
    distributed,
    optimizers,
    transfer_training,
)
from fastpose.training.caption_config import PENALISED, CaptionConfig
from fastpose.training.caption_scores import CaptionScorer, Evaluation
from fastpose.training.caption_text import Tables
from fastpose.training.distributed import World
from fastpose.training.systems import System

if TYPE_CHECKING:
    import numpy as np
    from torch.optim.lr_scheduler import LRScheduler

    from fastpose.data.captions import CaptionedPoses
    from fastpose.training.phases import Update

Terms = dict[str, Tensor]


def build_generator(config: CaptionConfig) -> nn.Module:
    """Return the network that makes poses, freshly initialised."""
    model = config.model
    return models.create(
        model.name,
        conditional=model.conditional,
        text_size=caption_text.size(config.text),
        compress=model.compress,
        noise=model.noise,
        widths=model.widths,
        self_attention=model.self_attention,
        init=model.init,
    )


def build_discriminator(config: CaptionConfig) -> nn.Module:
    """Return the critic, freshly initialised; it gives logits with every algorithm."""
    model, section = config.model, config.discriminator
    return models.create(
        section.name,
        conditional=model.conditional,
        text_size=caption_text.size(config.text),
        compress=model.compress,
        widths=section.widths,
        batch_norm=section.norm == "batch",
        self_attention=section.self_attention,
        init=model.init,
    )


class Texts(NamedTuple):
    """Vectors (B, T) of a batch's captions: the poses' own, others, the generator's own and interpolated ones."""

    own: Tensor
    mismatched: Tensor
    generator: Tensor
    interpolated: Tensor


class CaptionTrainer:
    """Networks, data and the order of updates of system 004, with and without captions.

    Attributes:
        networks: "generator" and "discriminator".
        encoder: of the captions; None of an unconditional model.
        fresh: which weights began at random although ``start.run`` gave the others, by network; see ``begin``.

    Raises:
        ValueError: a conditional model without an encoder, or with another than the configuration names by size or
            fingerprint; said before anything is made.
        FileNotFoundError: no such file of an encoder.
    """

    main_network = "generator"
    channels_last_on = ("cpu",)

    def __init__(self, config: CaptionConfig) -> None:
        self.encoder = caption_text.create(config.text) if config.model.conditional else None
        caption_text.check_encoder(self.encoder, config)
        self.config = caption_text.completed(config, self.encoder)
        self.networks = transfer_training.seeded_networks(
            {
                "generator": lambda: build_generator(self.config),
                "discriminator": lambda: build_discriminator(self.config),
            },
            config.run.seed,
        )
        self.fresh: dict[str, list[str]] = {}
        self.optimizers = {
            name: optimizers.build(list(network.parameters()), getattr(config.optimizer, name))
            for name, network in self.networks.items()
        }
        self.schedulers: dict[str, LRScheduler] = {}
        self.monitor, self.monitor_mode = caption_scores.monitor(config.test)
        self.tables = Tables(self.encoder, config.text)
        self._evaluation: Evaluation | None = None
        self._critic_updates = 0

    def begin(self) -> None:
        """Give both networks what ``start.run`` knows of them; raises as ``caption_start.warm_start``."""
        self.fresh = caption_start.warm_start(self.networks, self.config, lambda: self._poses[1])

    # ---- one iteration -------------------------------------------------------------------------------------

    def step(self, batch: dict[str, Tensor], update: Update) -> Terms:
        """Update the critic, and after every ``loss.critic_steps`` updates of it the generator.

        Args:
            batch: an item of ``CaptionDataset``, with a batch axis.
            update: applies one optimizer step: ``update("generator", loss)``.

        Returns:
            scalars without gradient: of the critic real, fake, with captions mismatched, each unweighted, critic, their
            weighted sum, and penalty, unweighted; generator where it had its turn.
        """
        real = caption_data.maps(batch["keypoints"], batch["visibility"])  # (B, 17, 64, 64)
        texts = self._texts(batch, real)
        logged = self._critic_step(real, texts, update)
        self._critic_updates += 1
        if self._critic_updates % self.config.loss.critic_steps == 0:
            logged["generator"] = self._generator_step(real, texts, update)
        return {name: value.detach() for name, value in logged.items()}

    def _critic_step(self, real: Tensor, texts: Texts | None, update: Update) -> Terms:
        """Update the critic with poses made for the batch's own captions; return the terms of its loss."""
        settings, critic = self.config.loss, update.network("discriminator")
        with update.autocast():
            with torch.no_grad():  # the generator is in training mode all the same
                noise = self._noise(real, update.place)
                fake = _run(update.network("generator"), noise, texts and texts.own).to(real.dtype)
            terms = critic_terms(critic, real, fake, texts, self.config)
        loss = terms["critic"]
        if settings.algorithm in PENALISED:
            terms["penalty"] = self._penalty(critic, real, fake, texts, update.place)
            loss = loss + settings.penalty * terms["penalty"]
        changed = update("discriminator", loss, terms=terms)
        if changed and settings.algorithm == "wgan":
            _clip(critic.parameters(), settings.clip)
        return terms

    def _penalty(self, critic: nn.Module, real: Tensor, fake: Tensor, texts: Texts | None, place: World) -> Tensor:
        """Return the gradient penalty between true and made poses, both at the matching caption (eq. 4 and 9)."""
        shared = () if texts is None else (texts.own,)
        settings = self.config.loss
        return losses.gradient_penalty(
            critic,
            (real, *shared),
            (fake, *shared),
            form=PENALISED[settings.algorithm],
            separate=settings.penalty_norm == "separate",
            share=distributed.drawn(lambda count: torch.rand(count, device=real.device), len(real), place),
        )

    def _generator_step(self, real: Tensor, texts: Texts | None, update: Update) -> Tensor:
        """Update the generator through the updated critic, also with interpolated captions (eq. 6); return its loss."""
        generator, critic = update.network("generator"), update.network("discriminator")
        with update.autocast():
            loss = torch.stack(
                [
                    _score(
                        _run(critic, _run(generator, self._noise(real, update.place), text), text), True, self.config
                    )
                    for text in ((None,) if texts is None else (texts.generator, texts.interpolated))
                ]
            ).sum()
        update("generator", loss, terms={"generator": loss})
        return loss

    def _noise(self, real: Tensor, place: World) -> Tensor:
        """Return noise (B, Z) for as many poses."""
        size, device, dtype = self.config.model.noise, real.device, real.dtype
        return distributed.drawn(lambda count: torch.randn(count, size, device=device, dtype=dtype), len(real), place)

    def _texts(self, batch: dict[str, Tensor], real: Tensor) -> Texts | None:
        """Return the vectors of a training batch's captions, None without captions."""
        if self.encoder is None:
            return None
        return look_up(self.tables.of(self._poses[0], real), batch, self.config)

    # ---- state, data, evaluation ---------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return how often the critic was updated, which tells the generator's turn, and whose vectors it saw.

        A step with an update that was skipped does not count: the engine puts the state from before it back.
        """
        return {"critic_updates": self._critic_updates, "encoder": self.encoder and self.encoder.fingerprint}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what ``state`` returned; ``ValueError`` where the captions' vectors were another encoder's."""
        own = self.encoder and self.encoder.fingerprint
        if state["encoder"] != own:
            raise ValueError(
                f"text encoder: expected the one that the run was trained with, fingerprint {state['encoder']}, got "
                f"{own} (text.encoder={self.config.text.encoder}); put that one in its place"
            )
        self._critic_updates = int(state["critic_updates"])

    def measured(self) -> dict[str, Any]:
        """Return what the configuration leaves to the encoder: the size of its vectors, and its fingerprint."""
        if self.encoder is None:
            return {}
        return {"text.size": self.encoder.size, "text.fingerprint": self.encoder.fingerprint}

    @cached_property
    def _poses(self) -> tuple[CaptionedPoses, CaptionedPoses]:
        """The poses for training and for validation."""
        return caption_data.sources(self.config.data, self.config.model.conditional)

    @cached_property
    def _scorer(self) -> CaptionScorer:
        return _scorer_of(self._poses, self.config, self.tables)

    def train_dataset(self) -> Any:
        """Return the training poses; each item is a dict as ``step`` wants it, without the batch axis."""
        return caption_data.train_dataset(self._poses[0], self.config.data, self.config.run.seed)

    def validation_dataset(self) -> Any:
        """Return the validation poses; ``ValueError`` where they cannot be judged as the section ``test`` says."""
        _ = self._scorer  # it says what cannot be, before the first step
        return caption_data.validation_dataset(self._poses[1], self.config.data, self.config.run.seed)

    def evaluate(self, network: nn.Module, loader: Any) -> list[Result]:
        """Return the scores of the poses that ``network`` makes, and the losses on the validation poses."""
        self._evaluation = self._scorer.evaluate(_made(network, self.config))
        return [*self._evaluation.results, *self._losses(network, loader)]

    def _losses(self, network: nn.Module, loader: Any) -> list[Result]:
        """Return critic's and generator's loss over a loader's poses, in evaluation mode."""
        noise = torch.Generator().manual_seed(self.config.run.seed)
        sums, count = torch.zeros(2, dtype=torch.float64), 0
        critic = self.networks["discriminator"]
        with evaluating(network), evaluating(critic):
            for batch in loader:
                real = caption_data.maps(batch["keypoints"], batch["visibility"])
                texts = None
                if self.encoder is not None:
                    texts = look_up(self.tables.of(loader.dataset.source, real), batch, self.config)
                found = validation_losses(network, critic, real, texts, self.config, noise)
                sums, count = sums + len(real) * found.cpu().double(), count + len(real)
        return _loss_results(sums / max(count, 1), count, self.config)

    def samples(self, network: nn.Module, dataset: Any) -> dict[str, np.ndarray]:
        """Return pictures (RGB uint8) of poses that ``network`` makes, and of the distances last measured."""
        from fastpose.training import caption_pictures

        pictures = caption_pictures.samples(_generator(network, self.config, self.encoder), dataset)
        if self._evaluation is None:
            return pictures
        return pictures | caption_scores.pictures(self._evaluation, self._scorer.separation())


def look_up(table: Tensor, batch: dict[str, Tensor], config: CaptionConfig) -> Texts:
    """Return the vectors of a batch's captions, the interpolated ones as eq. 7 says, from those of all captions."""
    settings = config.loss
    own, mismatched, fresh, first, second = (
        table[batch[name]] for name in ("caption", "mismatched", "fresh", "first", "second")
    )
    between = settings.beta * first + (1 - settings.beta) * second
    return Texts(own, mismatched, own if settings.generator_captions == "batch" else fresh, between)


def critic_terms(critic: nn.Module, real: Tensor, fake: Tensor, texts: Texts | None, config: CaptionConfig) -> Terms:
    """Return the terms of the critic's loss, unweighted, and ``critic``, their weighted sum without the penalty.

    Each group of poses is seen by itself, as batch norm feels it: true ones, with other captions, made ones. Without
    batch norm the true ones are looked at once for both captions.
    """
    alpha, settings = config.loss.alpha, config.loss
    own = texts and texts.own
    seen = _seen(critic, real, texts)
    terms = {"real": _score(seen(own), True, config)}
    weights = {"real": 1.0, "fake": 1.0}
    if texts is not None:
        terms["mismatched"] = _score(seen(texts.mismatched), False, config)
        weights |= {"real": 1 + alpha, "mismatched": alpha}
        if settings.algorithm == "gan" and settings.gan_weights == "paper":
            weights = {name: weight / (1 + alpha) for name, weight in weights.items()}
    terms["fake"] = _score(_run(critic, fake, own), False, config)
    return terms | {"critic": torch.stack([weights[name] * term for name, term in terms.items()]).sum()}


def validation_losses(
    generator: nn.Module,
    critic: nn.Module,
    real: Tensor,
    texts: Texts | None,
    config: CaptionConfig,
    noise: torch.Generator,
) -> Tensor:
    """Return the losses (2,) of critic, without the penalty, and generator on a batch; ``noise`` is a CPU's."""

    def made(text: Tensor | None) -> Tensor:
        drawn = torch.randn(len(real), config.model.noise, generator=noise).to(real)
        return _run(generator, drawn, text)

    critics = critic_terms(critic, real, made(texts and texts.own), texts, config)["critic"]
    wanted = (None,) if texts is None else (texts.generator, texts.interpolated)
    own = sum((_score(_run(critic, made(text), text), True, config) for text in wanted), torch.zeros(()).to(real))
    return torch.stack([critics, own])


def _run(network: nn.Module, first: Tensor, text: Tensor | None) -> Tensor:
    return network(first) if text is None else network(first, text)


def _seen(critic: Any, poses: Tensor, texts: Texts | None) -> Callable[[Tensor | None], Tensor]:
    """Return what scores the same poses with one text or another, in one look at them where that is the same."""
    if texts is None or critic.batch_norm:  # whose running statistics count how often it looked
        return lambda text: _run(critic, poses, text)
    features = critic.features(poses)
    return lambda text: critic.scores(features, text)


def _score(scores: Tensor, real: bool, config: CaptionConfig) -> Tensor:
    """Return the loss of the critic's scores (B,) against one verdict: log losses of "gan", else Wasserstein's."""
    if config.loss.algorithm == "gan":
        return losses.gan_loss(scores, real, criterion="bce")
    return losses.wasserstein_loss(scores, real)


@torch.no_grad()
def _clip(parameters: Iterable[nn.Parameter], limit: float) -> None:
    """Keep every value of the parameters within +-limit (algorithm 2)."""
    tensors: list[Tensor] = list(parameters)
    torch._foreach_clamp_min_(tensors, -limit)
    torch._foreach_clamp_max_(tensors, limit)


def _loss_results(values: Tensor, count: int, config: CaptionConfig) -> list[Result]:
    algorithm, rest = config.loss.algorithm, ""
    penalty = ", without the gradient penalty" if algorithm in PENALISED else ""
    if config.discriminator.norm == "batch":
        rest += ", batch norm of the critic with the statistics of all it was shown, true, made and mismatched together"
    if config.run.ema:
        rest += "; of the averaged generator (run.ema), with which this critic was not trained"
    protocols = {
        "critic loss": f"the critic's {algorithm} loss on all validation poses in evaluation mode{penalty}{rest}",
        "generator loss": f"the generator's {algorithm} loss for as many poses in evaluation mode{rest}",
    }
    return [
        Result(name, protocol, float(value), count)
        for (name, protocol), value in zip(protocols.items(), values, strict=True)
    ]


def _scorer_of(poses: tuple[CaptionedPoses, CaptionedPoses], config: CaptionConfig, tables: Tables) -> CaptionScorer:
    """Return what judges generated poses beside those for training and for validation."""
    return CaptionScorer(*poses, config.test, tables.of if config.model.conditional else None)


def _made(network: nn.Module, config: CaptionConfig) -> Callable[[Tensor | None, int, int], tuple[Tensor, Tensor]]:
    """Return what makes poses from vectors of captions (n, T) or None, their number and a seed, to be judged."""
    place = next(network.parameters())

    def make(vectors: Tensor | None, count: int, seed: int) -> tuple[Tensor, Tensor]:
        source = torch.Generator().manual_seed(seed)
        noise = torch.randn(count, config.model.noise, generator=source).to(place)
        with evaluating(network):
            heatmaps = _run(network, noise, None if vectors is None else vectors.to(place))
        return caption_data.decode(heatmaps, config.test.threshold)

    return make


def _evaluate(network: nn.Module, config: CaptionConfig) -> list[Result]:
    """Return the scores of the poses that ``network`` makes, judged as the section ``test`` says."""
    encoder = caption_text.create(config.text) if config.model.conditional else None
    caption_text.check_encoder(encoder, config)
    poses = caption_data.sources(config.data, config.model.conditional)
    scorer = _scorer_of(poses, config, Tables(encoder, config.text))
    return scorer.evaluate(_made(network, config)).results


def _generator(network: Any, config: CaptionConfig, encoder: Any) -> Any:
    from fastpose.training.caption_generation import PoseGenerator

    return PoseGenerator(network, config, encoder)


SYSTEM = System(
    name="caption",
    config=CaptionConfig,
    trainer=CaptionTrainer,
    network=build_generator,
    evaluate=_evaluate,
    generator=_generator,
)
