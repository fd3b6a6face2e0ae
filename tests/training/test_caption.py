"""The order of updates of system 004, against its algorithms written out in plain autograd, in double precision."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transfer_cases import Recorder, update_for, weights

from fastpose import models, ops
from fastpose.training import caption, caption_data
from fastpose.training import config as configuration
from fastpose.training.distributed import World

KINDS = ["gan", "wgan", "wgan-gp", "wgan-lp"]
CONDITIONS = ["model.conditional=no", "model.conditional=yes"]
COUNT = 2
STEPS = 3  # with two updates of the critic to one of the generator


@pytest.fixture(autouse=True)
def double(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heatmaps in double precision where a batch is."""
    single = caption_data.maps

    def maps(keypoints: Tensor, visibility: Tensor) -> Tensor:
        if keypoints.dtype != torch.float64:
            return single(keypoints, visibility)
        return 2 * ops.render_gaussian_heatmaps(keypoints, (64, 64), 2.0, visibility=visibility) - 1

    monkeypatch.setattr(caption_data, "maps", maps)


def trainer_for(*overrides: str, dtype: torch.dtype = torch.float64) -> caption.CaptionTrainer:
    trainer = caption.CaptionTrainer(configuration.load_recipe("caption/tiny", overrides).config)
    for network in trainer.networks.values():
        network.to(dtype)
    return trainer


def batch_for(trainer: caption.CaptionTrainer, seed: int = 0, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    batch: dict[str, Tensor] = {"index": torch.arange(COUNT)}
    batch["keypoints"] = 64 * torch.rand(COUNT, 17, 2, generator=generator, dtype=dtype)
    batch["visibility"] = (torch.rand(COUNT, 17, generator=generator) > 0.2).to(dtype)
    for name in ("caption", "mismatched", "fresh", "first", "second"):
        batch[name] = torch.randint(0, 1000, (COUNT,), generator=generator)
    return batch


# ---- the algorithms by hand ------------------------------------------------------------------------------------


class ByHand:
    """The algorithms as printed: loops, scores and torch's own optimizers, nothing of the package but the networks."""

    def __init__(self, trainer: caption.CaptionTrainer) -> None:
        self.config = trainer.config
        self.networks = copy.deepcopy(trainer.networks)
        self.generator, self.critic = self.networks["generator"], self.networks["discriminator"]
        self.optimizers = {name: self.optimizer(name) for name in self.networks}
        self.table: Tensor | None = None
        if trainer.encoder is not None:
            texts = caption_data.source(self.config.data, "train", captioned=True).captions
            self.table = 30 * torch.from_numpy(trainer.encoder(texts)).double()

    def optimizer(self, name: str) -> torch.optim.Optimizer:
        section, parameters = getattr(self.config.optimizer, name), list(self.networks[name].parameters())
        if section.name == "rmsprop":
            return torch.optim.RMSprop(parameters, lr=section.lr, alpha=0.99)
        return torch.optim.Adam(parameters, lr=section.lr, betas=(section.beta1, section.beta2))

    def descend(self, name: str, loss: Tensor) -> None:
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()
        loss.backward()
        self.optimizers[name].step()

    def noise(self) -> Tensor:
        return torch.randn(COUNT, self.config.model.noise, dtype=torch.float64)

    def train(self, batches: list[dict[str, Tensor]]) -> list[dict[str, float]]:
        logged = []
        for number, batch in enumerate(batches, 1):
            h = None if self.table is None else {name: self.table[batch[name]] for name in batch if name[0] in "cmfs"}
            logged.append({"critic": self.critic_step(batch, h)})
            if number % self.config.loss.critic_steps == 0:
                logged[-1]["generator"] = self.generator_step(h)
        return logged

    def critic_step(self, batch: dict[str, Tensor], h: dict[str, Tensor] | None) -> float:
        settings = self.config.loss
        x = 2 * ops.render_gaussian_heatmaps(batch["keypoints"], (64, 64), 2.0, visibility=batch["visibility"]) - 1
        own = () if h is None else (h["caption"],)
        fake = self.generator(self.noise(), *own).detach()
        scores = {"real": self.critic(x, *own)}
        if h is not None:
            scores["wrong"] = self.critic(x, h["mismatched"])
        scores["fake"] = self.critic(fake, *own)
        loss = adversarial = self.adversarial(scores)
        if settings.algorithm in ("wgan-gp", "wgan-lp"):
            loss = adversarial + settings.penalty * self.penalty(x, fake, own)
        self.descend("discriminator", loss)
        if settings.algorithm == "wgan":
            for parameter in self.critic.parameters():
                parameter.data.clamp_(-settings.clip, settings.clip)
        return adversarial.item()

    def adversarial(self, scores: dict[str, Tensor]) -> Tensor:
        """Alg. 1 to 5, eq. 5 and 9."""
        alpha, settings = self.config.loss.alpha, self.config.loss
        if settings.algorithm != "gan":
            wrong = alpha * (scores["wrong"] - scores["real"]) if "wrong" in scores else 0
            return (scores["fake"] - scores["real"] + wrong).mean()
        scores = {name: value.sigmoid() for name, value in scores.items()}
        right, fake = scores["real"].log(), (1 - scores["fake"]).log()
        if "wrong" not in scores:
            return -(right + fake).mean()
        wrong = (1 - scores["wrong"]).log()
        if settings.gan_weights == "paper":
            return -(right + (wrong + fake) / 2).mean()
        return -(2 * right + wrong + fake).mean()

    def penalty(self, x: Tensor, fake: Tensor, own: tuple[Tensor, ...]) -> Tensor:
        """Of eq. 4 and 9; at points between true and made poses that all share their captions."""
        settings = self.config.loss
        share = torch.rand(COUNT).double()[:, None, None, None]
        points = [(share * x + (1 - share) * fake).requires_grad_(), *(h.clone().requires_grad_() for h in own)]
        gradients = torch.autograd.grad(self.critic(*points).sum(), points, create_graph=True)
        squares = [gradient.flatten(1).square().sum(1) for gradient in gradients]
        norms = [sum(squares).sqrt()] if settings.penalty_norm == "joint" else [one.sqrt() for one in squares]
        excess = [norm - 1 for norm in norms]
        if settings.algorithm == "wgan-lp":
            excess = [one.clamp(min=0) for one in excess]
        return sum(one.square().mean() for one in excess)

    def generator_step(self, h: dict[str, Tensor] | None) -> float:
        settings, wanted = self.config.loss, [()]
        if h is not None:
            first = h["caption"] if settings.generator_captions == "batch" else h["fresh"]
            wanted = [(first,), (settings.beta * h["first"] + (1 - settings.beta) * h["second"],)]
        scores = [self.critic(self.generator(self.noise(), *text), *text) for text in wanted]
        gan = settings.algorithm == "gan"
        loss = -sum((score.sigmoid().log() if gan else score).mean() for score in scores)
        self.descend("generator", loss)
        return loss.item()


GAN = ("loss.algorithm=gan", "discriminator.norm=batch", "optimizer.generator.lr=1e-3", "optimizer.generator.beta1=0.5")
CLIPPED = (
    "loss.algorithm=wgan",
    "discriminator.norm=batch",
    "optimizer.generator.name=rmsprop",
    "optimizer.discriminator.name=rmsprop",
)
ALGORITHMS = {
    "1: gan": ("model.conditional=no", *GAN),
    "2: wgan": ("model.conditional=no", *CLIPPED),
    "3: wgan-gp": ("model.conditional=no", "loss.algorithm=wgan-gp", "loss.penalty=10"),
    "3: wgan-lp": ("model.conditional=no", "loss.penalty=10"),
    "4: gan": GAN,
    "4: gan, released weights": ("loss.gan_weights=released", *GAN),
    "2: wgan with captions": ("loss.alpha=0.5", *CLIPPED),
    "5: wgan-lp": (),
    "5: wgan-lp, fresh captions": ("loss.generator_captions=fresh", "loss.alpha=0.3", "loss.beta=0.2"),
    "5: wgan-lp, joint": ("loss.penalty_norm=joint",),
    "5: wgan-gp, joint": ("loss.algorithm=wgan-gp", "loss.penalty_norm=joint", "loss.penalty=10"),
    "5: wgan-gp": ("loss.algorithm=wgan-gp",),
    "5: attention": ("model.self_attention=yes", "discriminator.self_attention=yes"),
}


def steeper(trainer: caption.CaptionTrainer) -> None:
    """A critic that is steep enough for a one-sided penalty to see it."""
    with torch.no_grad():
        for parameter in trainer.networks["discriminator"].parameters():
            parameter.mul_(12)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_updates_are_the_printed_algorithm(name: str) -> None:
    trainer = trainer_for(*ALGORITHMS[name])
    if "lp" in name or name == "5: attention":
        steeper(trainer)
    expected = ByHand(trainer)
    batches = [batch_for(trainer, seed) for seed in range(STEPS)]
    torch.manual_seed(7)
    wanted = expected.train(batches)
    torch.manual_seed(7)
    update = update_for(trainer)
    logged = [trainer.step(batch, update) for batch in batches]
    for key, network in trainer.networks.items():
        torch.testing.assert_close(weights(network), weights(expected.networks[key]), rtol=1e-7, atol=1e-10)
        for found, buffer in zip(network.buffers(), expected.networks[key].buffers(), strict=True):
            torch.testing.assert_close(found, buffer, rtol=1e-7, atol=1e-10)
    for found_terms, terms in zip(logged, wanted, strict=True):
        for term, value in terms.items():
            assert float(found_terms[term]) == pytest.approx(value, rel=1e-6, abs=1e-9)
        assert ("generator" in found_terms) == ("generator" in terms)


def test_a_one_sided_penalty_was_seen() -> None:
    trainer = trainer_for()
    steeper(trainer)
    assert float(trainer.step(batch_for(trainer), update_for(trainer))["penalty"]) > 1e-3


@pytest.mark.parametrize(("norm", "looks"), [("none", 2), ("batch", 3)])
def test_true_poses_are_looked_at_once_for_both_captions_unless_batch_norm_counts_the_looks(
    norm: str, looks: int
) -> None:
    trainer = trainer_for("loss.algorithm=wgan", f"discriminator.norm={norm}")
    seen: list[Tensor] = []
    trainer.networks["discriminator"].first.register_forward_hook(lambda module, inputs, output: seen.append(output))
    trainer.step(batch_for(trainer), update_for(trainer))
    assert len(seen) == looks


# ---- order, counting, clipping ---------------------------------------------------------------------------------


def test_the_generators_turn_is_counted_in_updates_of_the_critic() -> None:
    trainer = trainer_for("loss.critic_steps=3")
    update = Recorder(trainer)
    for _ in range(4):
        trainer.step(batch_for(trainer), update)
    critic, generator = "discriminator", "generator"
    assert update.order == [critic, critic, critic, generator, critic]
    assert trainer.state()["critic_updates"] == 4
    again = trainer_for("loss.critic_steps=3")
    again.load_state(trainer.state())
    update = Recorder(again)
    for _ in range(2):
        again.step(batch_for(again), update)
    assert update.order == [critic, critic, generator]


@torch.no_grad()
def spoil(network: nn.Module) -> None:
    for parameter in network.parameters():
        parameter.fill_(float("nan"))


@pytest.mark.parametrize("algorithm", KINDS)
@pytest.mark.parametrize("condition", CONDITIONS)
def test_poses_that_are_not_finite_skip_every_update(algorithm: str, condition: str) -> None:
    trainer = trainer_for(f"loss.algorithm={algorithm}", condition, "loss.critic_steps=1")
    spoil(trainer.networks["generator"])
    before = weights(trainer.networks["discriminator"])
    update = update_for(trainer)
    trainer.step(batch_for(trainer), update)
    assert update.disturbed
    assert update.skipped == {"generator": 1, "discriminator": 1}
    assert torch.equal(weights(trainer.networks["discriminator"]), before)


def test_the_critic_is_clipped_after_its_update_and_not_after_one_that_was_skipped() -> None:
    trainer = trainer_for("model.conditional=no", *CLIPPED)
    largest = lambda: float(weights(trainer.networks["discriminator"]).abs().max())  # noqa: E731
    before = largest()
    assert before > 0.5  # a weight of batch norm
    spoil(trainer.networks["generator"])
    trainer.step(batch_for(trainer), update_for(trainer))
    assert largest() == before
    trainer = trainer_for("model.conditional=no", *CLIPPED)
    trainer.step(batch_for(trainer), update_for(trainer))
    assert largest() == 0.01


def test_noise_comes_from_the_stream_and_is_each_processs_part_of_it() -> None:
    trainer = trainer_for("model.conditional=no", "loss.algorithm=wgan-gp")
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(trainer._noise(torch.zeros(COUNT, 1, dtype=torch.float64), World(0, 1, torch.device("cpu"))))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    for rank in (0, 1):
        torch.manual_seed(1)
        part = trainer._noise(torch.zeros(COUNT // 2, 1, dtype=torch.float64), World(rank, 2, torch.device("cpu")))
        assert torch.equal(part, found[0][rank * (COUNT // 2) :][: COUNT // 2])


@pytest.mark.parametrize("algorithm", KINDS)
@pytest.mark.parametrize("condition", CONDITIONS)
def test_sixteen_bits_train(algorithm: str, condition: str) -> None:
    trainer = trainer_for(f"loss.algorithm={algorithm}", condition, dtype=torch.float32)
    update = update_for(trainer, precision="bf16")
    for seed in range(2):
        logged = trainer.step(batch_for(trainer, seed, torch.float32), update)
        assert all(torch.isfinite(value) and value.dtype == torch.float32 for value in logged.values())
    assert not update.disturbed
    assert "generator" in logged


def test_a_very_sure_critic_of_a_gan_learns_in_sixteen_bits() -> None:
    """Scores far beyond what a probability in bfloat16 tells from 1: made poses cost their logit, with a gradient."""
    trainer = trainer_for("loss.algorithm=gan", "model.conditional=no", dtype=torch.float32)
    critic = trainer.networks["discriminator"]
    real = caption_data.maps(*(batch_for(trainer, dtype=torch.float32)[name] for name in ("keypoints", "visibility")))
    with torch.no_grad():
        critic.last[0].weight.mul_(12 / critic(real)[0])
    with torch.autocast("cpu", torch.bfloat16):
        terms = caption.critic_terms(critic, real, real[:1], None, trainer.config)
    assert float(terms["fake"].detach()) == pytest.approx(12, rel=0.05)
    terms["fake"].backward()
    last = critic.last[0].weight
    assert float((last.grad * last.detach()).sum()) == pytest.approx(12, rel=0.05)


def test_no_gradient_is_left_behind() -> None:
    trainer = trainer_for("loss.critic_steps=1")
    trainer.step(batch_for(trainer), update_for(trainer))
    assert all(p.grad is None for network in trainer.networks.values() for p in network.parameters())


def test_the_critic_can_tell_poses_apart() -> None:
    settings = ("model.conditional=no", "loss.penalty=1", "loss.critic_steps=99", "optimizer.discriminator.lr=0.01")
    trainer = trainer_for(*settings, dtype=torch.float32)
    batch, update = batch_for(trainer, dtype=torch.float32), update_for(trainer)
    losses = [float(trainer.step(batch, update)["critic"]) for _ in range(20)]
    assert losses[-1] < losses[0] - 0.5


# ---- validation ------------------------------------------------------------------------------------------------


class Loader:
    """Two batches of different sizes of a data set."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __iter__(self) -> Any:
        for indices in (range(3), range(3, 5)):
            items = [self.dataset[index] for index in indices]
            yield {name: torch.stack([item[name] for item in items]) for name in items[0]}


@pytest.mark.parametrize("overrides", [(), ("model.conditional=no", *GAN)])
def test_validation_losses_are_means_over_poses_in_evaluation_mode(overrides: tuple[str, ...]) -> None:
    trainer = trainer_for(*overrides, dtype=torch.float32)
    network, critic = trainer.networks["generator"], trainer.networks["discriminator"]
    loader = Loader(trainer.validation_dataset())
    before = {name: [buffer.clone() for buffer in one.buffers()] for name, one in trainer.networks.items()}
    state = torch.get_rng_state()
    results = trainer._losses(network, loader)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(one.training for one in trainer.networks.values())
    for name, buffers in before.items():
        for old, new in zip(buffers, trainer.networks[name].buffers(), strict=True):
            assert torch.equal(old, new)
    assert [(result.name, result.count) for result in results] == [("critic loss", 5), ("generator loss", 5)]
    critic_loss, generator_loss = by_hand(trainer, loader, network.eval(), critic.eval())
    assert results[0].value == pytest.approx(critic_loss, rel=1e-5, abs=1e-6)
    assert results[1].value == pytest.approx(generator_loss, rel=1e-5, abs=1e-6)
    assert ("without the gradient penalty" in results[0].protocol) == (not overrides)
    assert ("batch norm of the critic with the statistics of" in results[1].protocol) == bool(overrides)
    assert "averaged" not in results[0].protocol + results[1].protocol


def test_losses_of_averaged_weights_are_named_so() -> None:
    trainer = trainer_for("run.ema=0.9", dtype=torch.float32)
    results = trainer._losses(trainer.networks["generator"], Loader(trainer.validation_dataset()))
    assert all("of the averaged generator (run.ema)" in result.protocol for result in results)


def test_a_monitor_that_is_not_measured_is_refused() -> None:
    with pytest.raises(ValueError, match=r"test\.monitor: 'R-precision@1 of 10' needs captions, and model"):
        trainer_for("model.conditional=no", "test.monitor=R-precision@1 of 10")


@torch.no_grad()
def by_hand(trainer: Any, loader: Loader, generator: nn.Module, critic: nn.Module) -> tuple[float, float]:
    """Sums over all five poses."""
    noise, totals = torch.Generator().manual_seed(0), [0.0, 0.0]
    draw: Callable[[int], Tensor] = lambda count: torch.randn(count, 8, generator=noise)  # noqa: E731
    for batch in loader:
        x, count = caption_data.maps(batch["keypoints"], batch["visibility"]), len(batch["index"])
        if trainer.encoder is None:
            right, fake = critic(x).sigmoid(), critic(generator(draw(count))).sigmoid()
            totals[0] -= (right.log() + (1 - fake).log()).sum().item()
            totals[1] -= critic(generator(draw(count))).sigmoid().log().sum().item()
            continue
        table = 30 * torch.from_numpy(trainer.encoder(loader.dataset.source.captions))
        h, wrong, first, second = (table[batch[name]] for name in ("caption", "mismatched", "first", "second"))
        totals[0] += (critic(x, wrong) - 2 * critic(x, h) + critic(generator(draw(count), h), h)).sum().item()
        between = (first + second) / 2
        made = [critic(generator(draw(count), text), text) for text in (h, between)]
        totals[1] -= sum(one.sum().item() for one in made)
    return totals[0] / 5, totals[1] / 5


# ---- what the networks are ------------------------------------------------------------------------------------


def test_networks_are_built_as_the_configuration_says() -> None:
    trainer = trainer_for("model.self_attention=yes", *GAN)
    assert models.count_parameters(trainer.networks["generator"]) > models.count_parameters(
        trainer_for(*GAN).networks["generator"]
    )
    critic = trainer.networks["discriminator"]
    assert sum(isinstance(module, nn.BatchNorm2d) for module in critic.modules()) == 5
    assert not any(isinstance(module, nn.Sigmoid) for module in critic.modules())
    assert trainer.networks["generator"].text_size == trainer.encoder.size == trainer.config.text.size
    assert trainer.schedulers == {}


def test_a_critic_does_not_change_the_generators_start() -> None:
    first, second = (trainer_for(f"discriminator.widths={widths}") for widths in ("4,8,8,16", "4,4,4,4"))
    assert torch.equal(weights(first.networks["generator"]), weights(second.networks["generator"]))
