"""The order of updates of system 001, against the procedure written out in plain autograd."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from transfer_cases import Recorder, batch_for, descend, prepared_by_hand, update_for, weights, with_sgd, write_vgg

from fastpose.training import config as configuration
from fastpose.training import pona, transfer_data, transfer_training

STEADY = ("model.dropout=0", "appearance.dropout=0", "pose.dropout=0")


@pytest.fixture(scope="module")
def vgg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of VGG-19 as torchvision writes it, with random weights."""
    return write_vgg(tmp_path_factory.mktemp("vgg"))


def trainer_for(*overrides: str) -> pona.PonaTrainer:
    return pona.PonaTrainer(configuration.load_recipe("pona/tiny", overrides).config)


def seen_by(vgg: Path, images: Tensor) -> Tensor:
    """conv1_2 with its ReLU, of images in [-1, 1]."""
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    state = torch.load(vgg, weights_only=True)
    features = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU())
    features.load_state_dict({f"{n}.{w}": state[f"features.{n}.{w}"] for n in (0, 2) for w in ("weight", "bias")})
    return features.requires_grad_(False)(((images + 1) / 2 - mean) / std)


def criterion(kind: str, scores: Tensor, label: float) -> Tensor:
    """The released code's: BCE on a sigmoid map, or the mean square."""
    wanted = torch.full_like(scores, label)
    return (
        functional.binary_cross_entropy(scores.sigmoid(), wanted) if kind == "bce" else (scores - wanted).pow(2).mean()
    )


def by_hand(trainer: pona.PonaTrainer, batch: dict[str, Tensor], vgg: Path | None) -> dict[str, nn.Module]:
    """One iteration of the released procedure without any of the package's machinery; pools not yet full."""
    networks = copy.deepcopy(trainer.networks)
    settings = trainer.config.loss
    source, target, maps = prepared_by_hand(trainer, batch)
    fake = networks["generator"](source, torch.cat(maps, 1))
    against = {"appearance": source, "pose": maps[1]}
    adversarial = sum(
        criterion(settings.gan, networks[name](torch.cat((fake, other), 1)), 1.0) for name, other in against.items()
    )
    loss = settings.lambda_gan * adversarial / 2 + settings.lambda_l1 * functional.l1_loss(fake, target)
    if vgg is not None:
        loss = loss + settings.perceptual.weight * functional.l1_loss(seen_by(vgg, fake), seen_by(vgg, target))
    descend(networks["generator"], loss)
    for name, other in against.items():
        real = criterion(settings.gan, networks[name](torch.cat((target, other), 1)), 1.0)
        shown = criterion(settings.gan, networks[name](torch.cat((fake.detach(), other), 1)), 0.0)
        descend(networks[name], settings.lambda_gan * (real + shown) / 2)
    return networks


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("kind", ["bce", "lsgan"])
@pytest.mark.parametrize("perceptual", [False, True])
def test_a_step_is_the_published_procedure(kind: str, norm: str, perceptual: bool, vgg: Path) -> None:
    overrides = [f"{section}.norm={norm}" for section in ("model", "appearance", "pose")]
    seen = [f"loss.perceptual.vgg={vgg}", "loss.perceptual.weight=10"] if perceptual else []
    trainer = with_sgd(trainer_for(*STEADY, *overrides, *seen, f"loss.gan={kind}"))
    batch = batch_for(trainer)
    expected = by_hand(trainer, batch, vgg if perceptual else None)
    before = {name: weights(network) for name, network in trainer.networks.items()}
    trainer.step(batch, update_for(trainer))
    for name, network in trainer.networks.items():
        assert not torch.equal(weights(network), before[name])
        torch.testing.assert_close(weights(network), weights(expected[name]), rtol=2e-4, atol=2e-6)


def test_the_generator_is_updated_first_and_each_update_alone() -> None:
    trainer = trainer_for()
    update = Recorder(trainer)
    trainer.step(batch_for(trainer), update)
    assert update.order == ["generator", "appearance", "pose"]


def test_discriminators_may_be_updated_more_often() -> None:
    trainer = trainer_for("loss.ratio=3")
    update = Recorder(trainer)
    trainer.step(batch_for(trainer), update)
    assert update.order == ["generator", *["appearance"] * 3, *["pose"] * 3]


def test_accumulated_batches_are_one_large_batch() -> None:
    """Two halves and the whole: equal where no image sees another, by norm, pool or a power iteration per pass."""
    apart = ["loss.pool=0", *(f"{section}.norm=instance" for section in ("model", "appearance", "pose"))]
    apart += [f"{section}.spectral_norm=no" for section in ("appearance", "pose")]
    whole, halves = (with_sgd(trainer_for(*STEADY, *apart, option)) for option in ("run.seed=0", "run.accumulate=2"))
    before = {name: weights(network) for name, network in whole.networks.items()}
    batch = batch_for(whole, count=4)
    whole.step(batch, update_for(whole))
    update = Recorder(halves, accumulate=2)
    for number in (0, 1):  # the recorder sees that nothing moves before the last
        update.begin(1, None, last=number == 1)
        halves.step({key: value[2 * number : 2 * number + 2] for key, value in batch.items()}, update)
    assert len(update.order) == 6
    for name, network in whole.networks.items():
        moved = weights(network) - before[name]
        assert float(moved.abs().max()) > 1e-4
        torch.testing.assert_close(weights(halves.networks[name]) - before[name], moved, rtol=1e-3, atol=1e-6)


def test_discriminators_see_image_first_and_what_it_must_agree_with() -> None:
    trainer = trainer_for(*STEADY)
    seen: dict[str, list[Tensor]] = {"appearance": [], "pose": []}
    for name, calls in seen.items():
        trainer.networks[name].register_forward_pre_hook(lambda _, args, calls=calls: calls.append(args[0].detach()))
    batch = batch_for(trainer)
    inputs = transfer_data.prepare(batch, trainer.config.data)
    fake = copy.deepcopy(trainer.networks["generator"])(inputs.source, inputs.guides).detach()
    trainer.step(batch, update_for(trainer))
    for name, other in (("appearance", inputs.source), ("pose", inputs.target_guide)):
        drawn, real, shown = seen[name]  # in the generator's step; in its own: real, then out of the pool
        torch.testing.assert_close(drawn, torch.cat((fake, other), 1))
        torch.testing.assert_close(real, torch.cat((inputs.target, other), 1))
        torch.testing.assert_close(shown, drawn)


def test_the_pool_gives_images_of_earlier_steps() -> None:
    trainer = trainer_for("loss.pool=2")
    shown: list[Tensor] = []
    trainer.networks["pose"].register_forward_pre_hook(lambda _, args: shown.append(args[0].detach().clone()))
    update = update_for(trainer)
    earlier: list[Tensor] = []
    exchanged = False
    for seed in range(6):
        shown.clear()
        trainer.step(batch_for(trainer, seed), update)
        drawn, _, pooled = shown
        exchanged = exchanged or any(torch.equal(image, old) for image in pooled for old in earlier)
        earlier += list(drawn)
    assert exchanged
    assert [len(pool) for pool in trainer.pools.values()] == [2, 2]


@pytest.mark.parametrize(("without", "left"), [("appearance", "pose"), ("pose", "appearance")])
def test_one_discriminator_counts_whole(without: str, left: str) -> None:
    trainer = with_sgd(trainer_for(*STEADY, f"{without}=none", "loss.lambda_l1=0"))
    assert set(trainer.networks) == set(trainer.optimizers) == {"generator", left}
    batch = batch_for(trainer)
    inputs = transfer_data.prepare(batch, trainer.config.data)
    networks = copy.deepcopy(trainer.networks)
    fake = networks["generator"](inputs.source, inputs.guides)
    other = inputs.source if left == "appearance" else inputs.target_guide
    descend(networks["generator"], 5 * criterion("bce", networks[left](torch.cat((fake, other), 1)), 1.0))
    logged = trainer.step(batch, update_for(trainer))
    torch.testing.assert_close(
        weights(trainer.networks["generator"]), weights(networks["generator"]), atol=2e-6, rtol=0
    )
    assert set(logged) == {"l1", "cgan", f"d_{left[0]}"}


def test_without_discriminators_the_distance_is_left() -> None:
    trainer = trainer_for("appearance=none", "pose=none")
    assert set(trainer.step(batch_for(trainer), update_for(trainer))) == {"l1"}
    assert trainer.state() == {}


def test_what_is_logged_is_unweighted(vgg: Path) -> None:
    trainer = trainer_for(*STEADY, f"loss.perceptual.vgg={vgg}", "loss.perceptual.weight=3")
    batch = batch_for(trainer)
    inputs = transfer_data.prepare(batch, trainer.config.data)
    fake = copy.deepcopy(trainer.networks["generator"])(inputs.source, inputs.guides).detach()
    logged = trainer.step(batch, update_for(trainer))
    assert set(logged) == {"l1", "cgan", "percep", "d_a", "d_p"}
    assert not any(value.requires_grad for value in logged.values())
    torch.testing.assert_close(logged["l1"], functional.l1_loss(fake, inputs.target))
    expected = functional.l1_loss(seen_by(vgg, fake), seen_by(vgg, inputs.target))
    torch.testing.assert_close(logged["percep"], expected, rtol=1e-4, atol=1e-6)


# ---- perceptual loss and its file ------------------------------------------------------------------------------


def test_a_missing_vgg_names_both_ways_out(tmp_path: Path) -> None:
    from fastpose import training

    with pytest.raises(ValueError, match=r"^loss\.perceptual\.vgg: expected .*name the file, or train without .*=0$"):
        training.train("pona/tiny", ["loss.perceptual.weight=10"], out=tmp_path / "runs", progress=False)
    assert not (tmp_path / "runs").exists()


def test_a_wrong_vgg_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"vgg19.*absent\.pth"):
        trainer_for("loss.perceptual.weight=1", f"loss.perceptual.vgg={tmp_path}/absent.pth")
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"vgg19.*other\.pth.*missing"):
        trainer_for("loss.perceptual.weight=1", f"loss.perceptual.vgg={tmp_path}/other.pth")


def test_vgg_is_not_trained(vgg: Path) -> None:
    trainer = trainer_for(f"loss.perceptual.vgg={vgg}", "loss.perceptual.weight=1")
    assert trainer.features is not None
    assert len(trainer.features) == 4
    before = weights(trainer.features)
    trainer.step(batch_for(trainer), update_for(trainer))
    assert torch.equal(weights(trainer.features), before)
    assert not any(parameter.requires_grad for parameter in trainer.features.parameters())


# ---- optimizers and schedule -----------------------------------------------------------------------------------


def test_optimizers_are_the_published_ones() -> None:
    trainer = trainer_for()
    for optimizer in trainer.optimizers.values():
        assert isinstance(optimizer, torch.optim.Adam)
        assert optimizer.defaults["betas"] == (0.5, 0.999)
        assert optimizer.defaults["lr"] == 2e-4
        assert optimizer.defaults["weight_decay"] == 0


def test_discriminators_may_have_a_rate_of_their_own() -> None:
    optimizers = trainer_for("optimizer.discriminator_lr=1e-3").optimizers
    rates = {name: optimizer.defaults["lr"] for name, optimizer in optimizers.items()}
    assert rates == {"generator": 2e-4, "appearance": 1e-3, "pose": 1e-3}


def released(epoch: int, constant: int = 500, decay: int = 200) -> float:
    """The released rule for the epoch counted from 0."""
    return 1.0 - max(0, epoch + 1 + 1 - constant) / float(decay + 1)


def rates_of(epochs: int, **options: Any) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = transfer_training.ScheduleConfig(**options)
    (scheduler,) = transfer_training.build_schedulers({"generator": optimizer}, schedule, epochs).values()
    rates = []
    for _ in range(epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_the_rate_is_the_released_one() -> None:
    rates = rates_of(700)
    assert rates == pytest.approx([released(epoch) for epoch in range(700)])
    assert rates == rates_of(700, decay_epochs=200)
    assert rates[498] == 1
    assert rates[499] == pytest.approx(200 / 201)
    assert rates[-1] == 0


@pytest.mark.parametrize(("epochs", "rates"), [(1, [1]), (2, [0.5, 0]), (3, [1, 0.5, 0]), (4, [1, 1, 0.5, 0])])
def test_few_epochs(epochs: int, rates: list[float]) -> None:
    assert rates_of(epochs) == pytest.approx(rates)


def test_the_decay_can_be_chosen() -> None:
    assert rates_of(5, decay_epochs=3) == pytest.approx([1, 0.75, 0.5, 0.25, 0])
    assert trainer_for("schedule=constant").schedulers == {}
    assert set(trainer_for("schedule=linear").schedulers) == {"generator", "appearance", "pose"}


@pytest.mark.parametrize(("before", "after"), [(14, 14), (7, 21)])
def test_a_resumed_rate_is_that_of_the_new_epochs(before: int, after: int) -> None:
    def made(epochs: int) -> tuple[torch.optim.Optimizer, Any]:
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
        schedule = transfer_training.ScheduleConfig()
        return optimizer, transfer_training.build_schedulers({"generator": optimizer}, schedule, epochs)["generator"]

    first, first_schedule = made(before)
    for _ in range(6):
        first.step()
        first_schedule.step()
    second, second_schedule = made(after)
    second.load_state_dict(first.state_dict())
    second_schedule.load_state_dict(first_schedule.state_dict())
    found = []
    for _ in range(6, after):
        found.append(second.param_groups[0]["lr"])
        second.step()
        second_schedule.step()
    assert found == pytest.approx([0.3 * rate for rate in rates_of(after)[6:]])
    assert second_schedule.get_last_lr() == [0]


def test_a_schedules_state_of_an_older_version_is_read() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    schedule = transfer_training.build_schedulers({"a": optimizer}, transfer_training.ScheduleConfig(), 14)["a"]
    schedule.load_state_dict({**schedule.state_dict(), "last_epoch": 12, "curve": (10, 4), "T_max": 14})
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.3 * (1 - 4 / 5))
    assert not {"curve", "T_max", "share"} & set(schedule.state_dict())


# ---- state -----------------------------------------------------------------------------------------------------


def test_the_state_holds_the_pools() -> None:
    trainer, other = trainer_for(), trainer_for()
    trainer.step(batch_for(trainer), update_for(trainer))
    other.load_state(trainer.state())
    for name in ("appearance", "pose"):
        mine, theirs = trainer.pools[name].state(), other.pools[name].state()
        assert mine["queries"] == theirs["queries"] == 1
        assert all(torch.equal(*pair) for pair in zip(mine["images"], theirs["images"], strict=True))


def test_a_skipped_step_leaves_the_pools_as_they_were() -> None:
    trainer = trainer_for()
    before = trainer.state()
    trainer.step(batch_for(trainer), update_for(trainer))
    assert before["pose"] == {"images": [], "queries": 0}
    trainer.load_state(before)
    assert len(trainer.pools["pose"]) == 0


def test_pools_draw_apart() -> None:
    trainer = trainer_for()
    assert trainer.pools["appearance"].seed != trainer.pools["pose"].seed


# ---- precision, start, learning --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bce", "lsgan"])
def test_sixteen_bits_train(kind: str, vgg: Path) -> None:
    trainer = trainer_for(f"loss.gan={kind}", f"loss.perceptual.vgg={vgg}", "loss.perceptual.weight=1")
    update = update_for(trainer, precision="bf16")
    for seed in range(2):
        logged = trainer.step(batch_for(trainer, seed), update)
        assert all(torch.isfinite(value) and value.dtype == torch.float32 for value in logged.values())
    assert not update.disturbed
    assert {image.dtype for image in trainer.pools["pose"].state()["images"]} == {torch.float32}


def test_a_discriminator_does_not_change_the_generators_start() -> None:
    with_both, without = trainer_for(), trainer_for("appearance=none", "pose=none")
    assert torch.equal(weights(with_both.networks["generator"]), weights(without.networks["generator"]))


def test_no_gradient_is_left_behind() -> None:
    trainer = trainer_for()
    trainer.step(batch_for(trainer), update_for(trainer))
    assert all(p.grad is None for network in trainer.networks.values() for p in network.parameters())


def test_one_batch_can_be_learned() -> None:
    trainer = trainer_for(*STEADY, "optimizer.lr=5e-3", "loss.lambda_gan=0.1")
    batch, update = batch_for(trainer), update_for(trainer)
    distances = [float(trainer.step(batch, update)["l1"]) for _ in range(30)]
    assert distances[-1] < 0.8 * distances[0]


@pytest.mark.parametrize(
    ("options", "monitor", "mode"),
    [
        (["test.protocols="], "SSIM (PATN)", "max"),
        (["test.protocols=L1,PSNR"], "L1", "min"),
        (["test.monitor=PSNR"], "PSNR", "max"),
        (["test.monitor=FID", "test.inception=W"], "FID", "min"),
        (["test.monitor=LPIPS (vgg)", "test.lpips_vgg=W"], "LPIPS (vgg)", "min"),
        (["test.monitor=PCKh (transfer)", "test.pose_weights=W"], "PCKh (transfer)", "max"),
    ],
)
def test_a_result_tells_the_best_weights(options: list[str], monitor: str, mode: str) -> None:
    trainer = trainer_for(*options)
    assert (trainer.monitor, trainer.monitor_mode) == (monitor, mode)


# ---- configuration ---------------------------------------------------------------------------------------------


def test_the_defaults_are_the_market_model() -> None:
    config = pona.PonaConfig()
    assert (config.loss.gan, config.loss.lambda_gan, config.loss.lambda_l1) == ("bce", 5, 10)
    assert (config.loss.perceptual.weight, config.loss.perceptual.layers, config.loss.pool) == (10, (4,), 50)
    assert (config.model.blocks, config.model.norm, config.data.samples_per_epoch) == (3, "batch", 4000)
    assert config.run.epochs * (config.data.samples_per_epoch // config.run.batch_size) == 90_000


@pytest.mark.parametrize(
    ("section", "field", "value", "sentence"),
    [
        ("loss", "gan", "bec", "loss.gan: expected one of bce, lsgan.*did you mean 'bce'"),
        ("loss", "lambda_gan", -1.0, r"loss\.lambda_gan: expected 0 or more, got -1\.0"),
        ("loss", "lambda_l1", float("nan"), r"loss\.lambda_l1: expected 0 or more, got nan"),
        ("loss", "pool", -1, r"loss\.pool: expected 0 or more, got -1"),
        ("loss", "ratio", 0, r"loss\.ratio: expected 1 or more, got 0"),
        ("model", "name", "pona.generatr", "did you mean 'pona.generator'"),
        ("model", "norm", "batc", "model.norm: .*did you mean 'batch'"),
        ("model", "fusion", "heads", "model.fusion: .*did you mean 'head'"),
        ("appearance", "name", "non", "did you mean 'none'"),
        ("pose", "norm", "instanse", "did you mean 'instance'"),
        ("pose", "activation", "relo", "did you mean 'relu'"),
        ("optimizer", "lr", 0.0, r"optimizer\.lr: expected a positive number, got 0\.0"),
        ("optimizer", "discriminator_lr", -1.0, r"optimizer\.discriminator_lr: expected 0 or more"),
        ("optimizer", "beta1", 1.0, r"optimizer\.beta1: expected a number from 0 up to 1, got 1\.0"),
        ("schedule", "name", "lineal", "did you mean 'linear'"),
        ("schedule", "decay_epochs", -1, r"schedule\.decay_epochs: expected 0 or more, got -1"),
    ],
)
def test_a_bad_value_is_one_sentence(section: str, field: str, value: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        replace(getattr(pona.PonaConfig(), section), **{field: value})


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("weight", -1.0, r"loss\.perceptual\.weight: expected 0 or more"),
        ("layers", (), r"loss\.perceptual\.layers: expected rising numbers from 1 to 37, got \(\)"),
        ("layers", (9, 4), r"got \(9, 4\)"),
        ("layers", (0, 4), r"got \(0, 4\)"),
        ("layers", (38,), r"got \(38,\)"),
        ("scaling", "afine", "did you mean 'affine'"),
        ("reduction", "men", "did you mean 'mean'"),
    ],
)
def test_a_bad_perceptual_loss_is_one_sentence(field: str, value: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        replace(transfer_training.PerceptualConfig(), **{field: value})


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["data.height=30", "data.width=16"], r"expected multiples of 4 .*got 30 x 16"),
        (["schedule.decay_epochs=3"], r"schedule\.decay_epochs: expected at most the 2 of run\.epochs, got 3"),
        (["data.height=4", "data.width=4"], r"data\.height, data\.width: expected 8 or more \(.*\), got 4 x 4"),
        (["test.monitor=FID"], r"test\.monitor: expected one of SSIM \(PATN\), L1, PSNR, mask-SSIM, got 'FID'"),
        (["loss.ratio=2", "run.accumulate=2"], r"loss\.ratio: expected 1 with run\.accumulate=2, got 2"),
        (["appearence=none"], r"unknown key 'appearence'.*did you mean 'appearance'"),
        (["model.blocks=0"], "blocks: expected at least 1, got 0"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(overrides: list[str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        trainer_for(*overrides)
