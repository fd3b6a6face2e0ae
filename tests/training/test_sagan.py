"""The order of updates of system 000, against the algorithm written out in plain autograd."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastpose import losses, ops
from fastpose.nn import self_attention
from fastpose.training import config as configuration
from fastpose.training import pose_data, sagan
from fastpose.training.phases import Update

LR = 0.05


def trainer_for(*overrides: str) -> sagan.SaganTrainer:
    return sagan.SaganTrainer(configuration.load_recipe("sagan/tiny", overrides).config)


def with_sgd(trainer: sagan.SaganTrainer, lr: float = LR) -> sagan.SaganTrainer:
    """Plain gradient descent: the change of a weight is its gradient."""
    trainer.optimizers = {name: torch.optim.SGD(n.parameters(), lr=lr) for name, n in trainer.networks.items()}
    return trainer


def batch_for(trainer: sagan.SaganTrainer, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    joints, side = len(trainer.skeleton), trainer.config.data.image_size
    visibility = torch.ones(2, joints)
    visibility[0, 3] = 0
    return {
        "image": torch.randint(0, 256, (2, 3, side, side), generator=generator, dtype=torch.uint8),
        "keypoints": torch.rand(2, joints, 2, generator=generator) * (side // 4 - 1),
        "visibility": visibility,
    }


def update_for(trainer: sagan.SaganTrainer) -> Update:
    update = Update(trainer.networks, trainer.optimizers, main="generator")
    update.begin(1, "", last=True)
    return update


def weights(network: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def descend(network: nn.Module, loss: Tensor) -> None:
    gradients = torch.autograd.grad(loss, list(network.parameters()), retain_graph=True, allow_unused=True)
    with torch.no_grad():
        for parameter, gradient in zip(network.parameters(), gradients, strict=True):
            if gradient is not None:
                parameter -= LR * gradient


def by_hand(trainer: sagan.SaganTrainer, batch: dict[str, Tensor], k: float) -> dict[str, nn.Module]:
    """Algorithm 1 without any of the package's machinery; losses as the released code has them."""
    networks = copy.deepcopy(trainer.networks)
    generator, discriminator = networks["generator"], networks["discriminator"]
    settings, mse = trainer.config.loss, nn.functional.mse_loss
    image = batch["image"].float() / 255 - torch.tensor(pose_data.MPII_MEAN).view(1, 3, 1, 1)
    size = (image.shape[2] // 4, image.shape[3] // 4)
    real = ops.render_gaussian_heatmaps(batch["keypoints"], size, settings.sigma, visibility=batch["visibility"])
    real_loss = mse(discriminator(real, image), real)
    predictions = generator(image)
    fake = predictions[-1]
    fake_loss = mse(discriminator(fake.detach(), image), fake.detach())
    descend(discriminator, real_loss - k * fake_loss)
    target = fake if settings.adv_target_grad else fake.detach()
    adversarial = mse(discriminator(fake, image), target)
    descend(generator, sum(mse(one, real) for one in predictions) + settings.lambda_g * adversarial)
    return networks


@pytest.mark.parametrize(
    "overrides",
    [
        ("loss.policy=constant", "loss.lambda_d=0.5"),
        ("loss.policy=began",),
        ("loss.policy=constant", "loss.adv_target_grad=yes", "loss.lambda_g=1"),
    ],
)
def test_a_step_is_the_algorithm(overrides: tuple[str, ...]) -> None:
    trainer = with_sgd(trainer_for("loss.missing=zero", *overrides))
    batch = batch_for(trainer)
    expected = by_hand(trainer, batch, float(trainer.k))
    before = {name: weights(network) for name, network in trainer.networks.items()}
    trainer.step(batch, update_for(trainer))
    for name, network in trainer.networks.items():
        assert not torch.equal(weights(network), before[name])
        torch.testing.assert_close(weights(network), weights(expected[name]), rtol=1e-4, atol=1e-6)


def test_the_discriminator_is_updated_first() -> None:
    trainer, order = trainer_for(), []

    class Recorder(Update):
        def __call__(self, name: str, *args: Any, **options: Any) -> bool:
            order.append(name)
            return super().__call__(name, *args, **options)

    update = Recorder(trainer.networks, trainer.optimizers, main="generator")
    update.begin(1, "", last=True)
    trainer.step(batch_for(trainer), update)
    assert order == ["discriminator", "generator"]


class ToyDiscriminator(nn.Module):
    """relu(x @ first) @ second, small enough to differentiate by hand."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.first = nn.Parameter(torch.randn(4, 5, generator=generator))
        self.second = nn.Parameter(torch.randn(5, 4, generator=generator))

    def forward(self, heatmaps: Tensor, image: Tensor) -> Tensor:
        return torch.relu(heatmaps @ self.first) @ self.second


def test_stale_activations_meet_updated_weights() -> None:
    discriminator = ToyDiscriminator()
    fake = torch.randn(3, 4, generator=torch.Generator().manual_seed(4), requires_grad=True)
    redrawn = sagan._with_coming_weights(discriminator, fake, fake)
    active = (fake.detach() @ discriminator.first.detach() > 0).float()
    with torch.no_grad():
        discriminator.first.mul_(-0.5)  # another sign: fresh activations would differ
        discriminator.second.add_(1)
    upstream = torch.ones_like(redrawn)
    (found,) = torch.autograd.grad(redrawn, fake, upstream)
    expected = (upstream @ discriminator.second.T * active) @ discriminator.first.T
    torch.testing.assert_close(found, expected.detach())


def test_stale_step_differs_from_a_fresh_one_only_in_the_generator() -> None:
    outcomes = {}
    for stale in ("yes", "no"):
        options = ("loss.policy=constant", "loss.lambda_g=10", f"loss.stale_d_activations={stale}")
        trainer = with_sgd(trainer_for(*options))
        logged = trainer.step(batch_for(trainer), update_for(trainer))
        outcomes[stale] = {name: weights(network) for name, network in trainer.networks.items()} | {"log": logged}
    assert torch.equal(outcomes["yes"]["discriminator"], outcomes["no"]["discriminator"])
    assert not torch.allclose(outcomes["yes"]["generator"], outcomes["no"]["generator"])
    # The value is that of the discriminator before its update, as the released code reports it.
    torch.testing.assert_close(outcomes["yes"]["log"]["adversarial"], outcomes["yes"]["log"]["fake"])


def test_k_follows_the_equilibrium() -> None:
    trainer = trainer_for("loss.rate=0.5", "loss.gamma=0.9")
    logged = trainer.step(batch_for(trainer), update_for(trainer))
    balance = 0.9 * float(logged["real"]) - float(logged["fake"])
    assert float(logged["k"]) == 0
    assert float(trainer.k) == pytest.approx(min(max(0.5 * balance, 0), 1), abs=1e-7)
    assert float(logged["measure"]) == pytest.approx(float(logged["real"]) + abs(balance), rel=1e-5)


def test_k_moves_once_per_optimizer_step() -> None:
    trainer = trainer_for("loss.rate=0.5", "loss.gamma=5")
    update = Update(trainer.networks, trainer.optimizers, main="generator", accumulate=2)
    update.begin(1, "", last=False)
    first = trainer.step(batch_for(trainer, 0), update)
    assert float(trainer.k) == 0
    update.begin(1, "", last=True)
    second = trainer.step(batch_for(trainer, 1), update)
    balance = 5 * float(first["real"] + second["real"]) / 2 - float(first["fake"] + second["fake"]) / 2
    assert balance > 0
    assert float(trainer.k) == pytest.approx(0.5 * balance, rel=1e-5)


def test_constant_lambda_stays() -> None:
    trainer = trainer_for("loss.policy=constant", "loss.lambda_d=0.25")
    trainer.step(batch_for(trainer), update_for(trainer))
    assert float(trainer.k) == 0.25


def test_state_returns_k() -> None:
    trainer, other = trainer_for(), trainer_for()
    trainer.k = torch.tensor(1 / 3, dtype=torch.float64)
    other.load_state(trainer.state())
    assert torch.equal(other.k, trainer.k)


def test_without_discriminator_only_the_generator_is_trained() -> None:
    trainer = trainer_for("discriminator=none")
    assert set(trainer.networks) == set(trainer.optimizers) == {"generator"}
    before = weights(trainer.networks["generator"])
    assert set(trainer.step(batch_for(trainer), update_for(trainer))) == {"pose", "accuracy"}
    assert not torch.equal(weights(trainer.networks["generator"]), before)


def test_an_ignored_joint_is_blank_for_the_discriminator() -> None:
    trainer = trainer_for("loss.missing=ignore")
    seen: list[Tensor] = []
    trainer.networks["discriminator"].register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    trainer.step(batch_for(trainer), update_for(trainer))
    assert len(seen) == 3  # real, fake, and fake again through the updated discriminator
    assert all((heatmaps[0, 3] == 0).all() for heatmaps in seen)
    assert all((heatmaps[1, 3] != 0).any() for heatmaps in seen)


def test_a_discriminator_does_not_change_the_generators_start() -> None:
    with_one, without = trainer_for(), trainer_for("discriminator=none")
    assert torch.equal(weights(with_one.networks["generator"]), weights(without.networks["generator"]))


@pytest.mark.parametrize(
    ("name", "epoch", "share"),
    [("paper", 39, 1), ("paper", 40, 1 / 5), ("paper", 80, 1 / 125), ("released", 139, 1), ("released", 180, 0.4**3)],
)
def test_published_schedules(name: str, epoch: int, share: float) -> None:
    trainer = trainer_for(f"schedule={name}", "run.epochs=200", "optimizer.generator.lr=1")
    optimizer, scheduler = trainer.optimizers["generator"], trainer.schedulers["generator"]
    for _ in range(epoch):
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(share)


def test_the_discriminators_rate_follows_only_when_asked() -> None:
    assert set(trainer_for().schedulers) == {"generator"}
    assert set(trainer_for("schedule.discriminator=yes").schedulers) == {"generator", "discriminator"}


def test_optimizers_are_the_published_ones() -> None:
    optimizers = trainer_for().optimizers
    assert isinstance(optimizers["generator"], torch.optim.RMSprop)
    assert optimizers["generator"].defaults["alpha"] == 0.99
    assert isinstance(optimizers["discriminator"], torch.optim.Adam)


def losses_of(monkeypatch: pytest.MonkeyPatch, backend: str, steps: int = 3) -> list[dict[str, float]]:
    with monkeypatch.context() as patch:
        for name in ("nonlocal_attention", "nonlocal_attention_residual"):
            patch.setattr(self_attention.ops, name, partial(getattr(ops, name), backend=backend))
        # In float64, and by plain gradient descent: an untrained generator's planes are nearly flat, so that batch norm
        # magnifies rounding, and RMSprop's first step makes a whole step of the rounding of a tiny gradient.
        normalise = pose_data.normalise
        patch.setattr(pose_data, "normalise", lambda image, data: normalise(image, data).double())
        trainer = with_sgd(trainer_for(f"loss.backend={backend}"), lr=1e-3)
        for network in trainer.networks.values():
            network.double()
        trainer.networks["generator"].stacks[1].attention.gamma.data.fill_(0.5)  # so that attention matters at once
        update = update_for(trainer)
        logs = [trainer.step(batch_for(trainer, seed), update) for seed in range(steps)]
    return [{name: float(value) for name, value in log.items()} for log in logs]


def test_both_backends_train_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    for reference, fast in zip(losses_of(monkeypatch, "reference"), losses_of(monkeypatch, "cpu"), strict=True):
        assert fast == pytest.approx(reference, rel=1e-6, abs=1e-9)


def test_the_same_seed_gives_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert losses_of(monkeypatch, "auto") == losses_of(monkeypatch, "auto")


def test_another_seed_gives_other_weights() -> None:
    first, second = trainer_for(), trainer_for("run.seed=1")
    assert not torch.equal(weights(first.networks["generator"]), weights(second.networks["generator"]))


def test_one_batch_can_be_learned() -> None:
    trainer = trainer_for("loss.sigma=2", "optimizer.generator.lr=3e-3", "optimizer.generator.name=adam")
    batch, update = batch_for(trainer), update_for(trainer)
    pose = [float(trainer.step(batch, update)["pose"]) for _ in range(25)]
    assert pose[-1] < 0.5 * pose[0]


def test_training_needs_no_gradient_left_behind() -> None:
    trainer = trainer_for()
    trainer.step(batch_for(trainer), update_for(trainer))
    assert all(p.grad is None for network in trainer.networks.values() for p in network.parameters())


@pytest.mark.parametrize(
    ("section", "field", "value", "sentence"),
    [
        ("loss", "policy", "begann", "loss.policy: expected one of .*did you mean 'began'"),
        ("loss", "sigma", 0.0, "loss.sigma: expected a positive number of heatmap pixels, got 0.0"),
        ("loss", "lambda_d", 2.0, "loss.lambda_d: expected a number from 0 to 1, got 2.0"),
        ("model", "name", "hourglas", "did you mean 'hourglass'"),
        ("discriminator", "sarm", "C", "discriminator.sarm: expected one of A, B, none"),
        ("schedule", "name", "papr", "did you mean 'paper'"),
        ("data", "name", "lsptt", "unknown data set 'lsptt'; did you mean"),
        ("data", "image_size", 100, "data.image_size: expected a multiple of 16"),
        ("data", "crop", "exat", "data.crop: expected one of .*did you mean 'exact'"),
        ("data", "augmentation", "sagan_papr", "data.augmentation: .*did you mean 'sagan_paper'"),
        ("model", "flavour", "papr", "model.flavour: .*did you mean 'paper'"),
        ("model", "skip", "cnv", "model.skip: .*did you mean 'conv'"),
        ("model", "stem", "newel", "model.stem: .*did you mean 'newell'"),
        ("discriminator", "flavour", "papr", "discriminator.flavour: .*did you mean 'paper'"),
        ("loss", "backend", "referense", "loss.backend: .*did you mean 'reference'"),
        ("test", "backend", "referense", "test.backend: .*did you mean 'reference'"),
        ("loss", "lambda_g", -0.1, "loss.lambda_g: expected 0 or more, got -0.1"),
        ("loss", "rate", float("nan"), "loss.rate: expected 0 or more, got nan"),
        ("schedule", "factor", 0.0, "schedule.factor: expected a positive number, got 0.0"),
        ("schedule", "milestones", (0, 5), r"schedule.milestones: expected epochs from 1 on, got \(0, 5\)"),
        ("run", "seed", 2**63, r"run.seed: expected 0 or more and below 2\*\*63"),
        ("test", "decoder", "quarters", "did you mean 'quarter'"),
        ("test", "scales", (), "test.scales: expected at least one positive number"),
    ],
)
def test_a_bad_value_is_one_sentence(section: str, field: str, value: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        replace(getattr(sagan.SaganConfig(), section), **{field: value})


def test_weight_decay_is_not_negative() -> None:
    with pytest.raises(ValueError, match=r"weight_decay: expected 0 or more, got -1\.0"):
        sagan.NetworkOptimizerConfig(weight_decay=-1.0)


def test_the_image_size_suits_every_hourglass() -> None:
    with pytest.raises(ValueError, match=r"image_size: expected a multiple of 32 \(4 x 2\*\*model\.depth\), got 80"):
        configuration.load_recipe("sagan/tiny", ["data.image_size=80", "model.depth=3"])
    with pytest.raises(ValueError, match=r"discriminator\.depth\), got 80"):
        configuration.load_recipe("sagan/tiny", ["data.image_size=80", "discriminator.depth=3"])
    alone = ["data.image_size=80", "discriminator.depth=3", "discriminator.name=none"]
    assert configuration.load_recipe("sagan/tiny", alone).config.data.image_size == 80


def cosine(epochs: int) -> tuple[torch.optim.Optimizer, Any]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    return optimizer, sagan.build_scheduler(optimizer, sagan.ScheduleConfig(name="cosine"), epochs)


def advance(optimizer: torch.optim.Optimizer, scheduler: Any, epochs: int) -> list[float]:
    rates = []
    for _ in range(epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(("before", "after"), [(10, 10), (4, 10)])
def test_a_resumed_cosine_is_that_of_the_new_epochs(before: int, after: int) -> None:
    expected = advance(*cosine(after), after)
    assert expected == pytest.approx([0.15 * (1 + math.cos(math.pi * epoch / after)) for epoch in range(after)])
    first, first_schedule = cosine(before)
    advance(first, first_schedule, 4)  # the whole old curve, or a part of the same one
    second, second_schedule = cosine(after)
    second.load_state_dict(first.state_dict())
    second_schedule.load_state_dict(first_schedule.state_dict())
    assert advance(second, second_schedule, after - 4) == expected[4:]  # every bit
    assert second.param_groups[0]["lr"] == 0


def test_losses_use_the_config(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def spy(*args: Any, **options: Any) -> Tensor:
        given.update(options, sigma=args[2])
        return sum(prediction.sum() for prediction in args[0])

    monkeypatch.setattr(losses, "pose_loss", spy)
    trainer = trainer_for("loss.sigma=1.75", "loss.reduction=half_sum", "loss.missing=zero", "discriminator=none")
    trainer.step(batch_for(trainer), update_for(trainer))
    assert (given["sigma"], given["reduction"], given["missing"]) == (1.75, "half_sum", "zero")
