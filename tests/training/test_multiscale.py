"""The order of updates of system 003, against the procedure written out in plain autograd."""

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

from fastpose import models
from fastpose.nn import backbones
from fastpose.training import config as configuration
from fastpose.training import multiscale


@pytest.fixture(scope="module")
def vgg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of VGG-19 as torchvision writes it, with random weights."""
    return write_vgg(tmp_path_factory.mktemp("vgg"))


def trainer_for(*overrides: str) -> multiscale.MultiscaleTrainer:
    return multiscale.MultiscaleTrainer(configuration.load_recipe("multiscale/tiny", overrides).config)


def criterion(kind: str, logits: Tensor, label: float) -> Tensor:
    wanted = torch.full_like(logits, label)
    if kind == "bce":
        return functional.binary_cross_entropy(logits.sigmoid(), wanted)
    return functional.mse_loss(logits, wanted)


def seen_by(features: nn.Sequential, images: Tensor) -> Tensor:
    """What VGG sees of images that are stretched over the whole batch, as released."""
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    return features(((images - images.min()) / (images.max() - images.min()) - mean) / std)


def by_hand(
    trainer: multiscale.MultiscaleTrainer, batch: dict[str, Tensor], vgg: Path | None
) -> tuple[dict[str, nn.Module], dict[str, Tensor]]:
    """One iteration of the released procedure without any of the package's machinery; networks and losses."""
    networks = copy.deepcopy(trainer.networks)
    generator, discriminator = networks["generator"], networks["discriminator"]
    settings = trainer.config.loss
    source, target, maps = prepared_by_hand(trainer, batch)
    fake = generator(source, torch.cat(maps, 1))
    d_fake = criterion(settings.gan, discriminator(torch.cat((source, fake), 1).detach()), 0.0)
    d_real = criterion(settings.gan, discriminator(torch.cat((source, target), 1)), 1.0)
    descend(discriminator, 0.5 * (d_fake + d_real))
    gan = criterion(settings.gan, discriminator(torch.cat((source, fake), 1)), 1.0)  # already updated
    loss = 5 * functional.l1_loss(fake, target) + gan
    terms = {"d_fake": d_fake, "d_real": d_real, "gan": gan, "l1": functional.l1_loss(fake, target)}
    if vgg is not None:
        features = backbones.load("vgg19", vgg).features
        for layer in (4, 9):
            terms[f"p{layer}"] = functional.l1_loss(seen_by(features[:layer], fake), seen_by(features[:layer], target))
            loss = loss + 5 * terms[f"p{layer}"]
    descend(generator, loss)
    return networks, terms


@pytest.mark.parametrize("kind", ["lsgan", "bce"])
@pytest.mark.parametrize("perceptual", [False, True])
def test_a_step_is_the_published_procedure(kind: str, perceptual: bool, vgg: Path) -> None:
    seen = [f"loss.perceptual.vgg={vgg}", "loss.perceptual.weight=5"] if perceptual else []
    trainer = with_sgd(trainer_for(*seen, f"loss.gan={kind}"))
    batch = batch_for(trainer)
    expected, terms = by_hand(trainer, batch, vgg if perceptual else None)
    before = {name: weights(network) for name, network in trainer.networks.items()}
    logged = trainer.step(batch, update_for(trainer))
    for name, network in trainer.networks.items():
        assert not torch.equal(weights(network), before[name])
        torch.testing.assert_close(weights(network), weights(expected[name]), rtol=2e-4, atol=5e-6)
        for found, wanted in zip(network.buffers(), expected[name].buffers(), strict=True):
            torch.testing.assert_close(found, wanted)  # running statistics see the same images in the same order
    assert set(logged) == set(terms)
    for name, value in terms.items():
        torch.testing.assert_close(logged[name], value.detach(), rtol=1e-4, atol=1e-6)


def test_the_discriminator_is_updated_first_and_each_update_alone() -> None:
    trainer = trainer_for()
    update = Recorder(trainer)
    trainer.step(batch_for(trainer), update)
    assert update.order == ["discriminator", "generator"]


def test_the_generator_draws_once_per_step() -> None:
    trainer = trainer_for()
    calls: list[int] = []
    trainer.networks["generator"].register_forward_hook(lambda *_: calls.append(1))
    trainer.step(batch_for(trainer), update_for(trainer))
    assert len(calls) == 1


def test_without_a_discriminator_the_distance_is_left() -> None:
    trainer = trainer_for("discriminator=none")
    assert set(trainer.networks) == set(trainer.optimizers) == {"generator"}
    assert set(trainer.step(batch_for(trainer), update_for(trainer))) == {"l1"}


@pytest.mark.parametrize("scaling", ["minmax_batch", "minmax_sample", "affine"])
def test_the_scaling_is_an_option(scaling: str, vgg: Path) -> None:
    trainer = trainer_for(
        f"loss.perceptual.vgg={vgg}", "loss.perceptual.weight=5", f"loss.perceptual.scaling={scaling}"
    )
    logged = trainer.step(batch_for(trainer), update_for(trainer))
    assert set(logged) == {"d_fake", "d_real", "gan", "l1", "p4", "p9"}
    assert all(torch.isfinite(value) for value in logged.values())


def test_a_missing_vgg_names_both_ways_out(tmp_path: Path) -> None:
    from fastpose import training

    with pytest.raises(ValueError, match=r"^loss\.perceptual\.vgg: expected .*name the file, or train without .*=0$"):
        training.train("multiscale/tiny", ["loss.perceptual.weight=5"], out=tmp_path / "runs", progress=False)
    assert not (tmp_path / "runs").exists()


def test_optimizers_and_rate_are_the_published_ones() -> None:
    trainer = trainer_for()
    assert trainer.schedulers == {}
    for optimizer in trainer.optimizers.values():
        assert isinstance(optimizer, torch.optim.Adam)
        assert (optimizer.defaults["lr"], optimizer.defaults["betas"]) == (1e-3, (0.5, 0.999))
        assert (optimizer.defaults["eps"], optimizer.defaults["weight_decay"]) == (1e-8, 0)


@pytest.mark.parametrize(("name", "channels"), [("sample-pairs", 18), ("semantic", 16), ("fonts", 1)])
def test_every_kind_of_guide_is_trained(name: str, channels: int) -> None:
    trainer = trainer_for(f"data={name}")
    assert trainer.networks["generator"].channels == (3, 2 * channels)
    logged = trainer.step(batch_for(trainer), update_for(trainer))
    assert all(torch.isfinite(value) for value in logged.values())


def test_there_is_nothing_to_remember() -> None:
    trainer = trainer_for()
    assert trainer.state() == {}
    trainer.load_state({})


@pytest.mark.parametrize("kind", ["lsgan", "bce"])
def test_sixteen_bits_train(kind: str, vgg: Path) -> None:
    trainer = trainer_for(f"loss.gan={kind}", f"loss.perceptual.vgg={vgg}", "loss.perceptual.weight=5")
    update = update_for(trainer, precision="bf16")
    for seed in range(2):
        logged = trainer.step(batch_for(trainer, seed), update)
        assert all(torch.isfinite(value) and value.dtype == torch.float32 for value in logged.values())
    assert not update.disturbed


def test_a_discriminator_does_not_change_the_generators_start() -> None:
    with_one, without = trainer_for(), trainer_for("discriminator=none")
    assert torch.equal(weights(with_one.networks["generator"]), weights(without.networks["generator"]))


def test_one_batch_can_be_learned() -> None:
    trainer = trainer_for("loss.lambda_gan=0.1")
    batch, update = batch_for(trainer), update_for(trainer)
    distances = [float(trainer.step(batch, update)["l1"]) for _ in range(40)]
    assert distances[-1] < 0.8 * distances[0]


def test_without_a_discriminator_batches_may_be_accumulated_and_images_be_small() -> None:
    config = trainer_for("discriminator=none", "run.accumulate=2", "data.height=8", "data.width=8").config
    assert (config.run.accumulate, config.data.height) == (2, 8)


def test_no_gradient_is_left_behind() -> None:
    trainer = trainer_for()
    trainer.step(batch_for(trainer), update_for(trainer))
    assert all(p.grad is None for network in trainer.networks.values() for p in network.parameters())


# ---- configuration ---------------------------------------------------------------------------------------------


def test_the_defaults_are_the_full_model() -> None:
    config = multiscale.MultiscaleConfig()
    assert (config.loss.gan, config.loss.lambda_gan, config.loss.lambda_l1) == ("lsgan", 1, 5)
    seen = config.loss.perceptual
    assert (seen.weight, seen.layers, seen.scaling, seen.reduction) == (5, (4, 9), "minmax_batch", "mean")
    assert (config.run.batch_size, config.run.max_steps, config.data.pose_map) == (8, 270_000, "binary")
    with torch.device("meta"):
        generator, discriminator = multiscale.build_generator(config), multiscale.build_discriminator(config)
    assert discriminator is not None
    assert models.count_parameters(generator) == 90_172_928
    assert models.count_parameters(discriminator) == 2_768_705


def test_a_section_of_a_recipe_keeps_the_systems_other_defaults() -> None:
    values = {"loss": {"perceptual": {"vgg": "file"}}, "optimizer": {"beta1": 0.9}, "schedule": {"decay_epochs": 2}}
    config = configuration.from_dict(multiscale.MultiscaleConfig, values)
    assert (config.loss.perceptual.layers, config.loss.perceptual.scaling) == ((4, 9), "minmax_batch")
    assert (config.optimizer.lr, config.schedule.name) == (1e-3, "constant")


@pytest.mark.parametrize(
    ("section", "field", "value", "sentence"),
    [
        ("loss", "gan", "lsgam", "did you mean 'lsgan'"),
        ("loss", "lambda_gan", -1.0, r"loss\.lambda_gan: expected 0 or more, got -1\.0"),
        ("loss", "lambda_l1", float("nan"), r"loss\.lambda_l1: expected 0 or more, got nan"),
        ("model", "name", "multiscale.generatr", "did you mean 'multiscale.generator'"),
        ("model", "fusion", "concat", "model.fusion: .*did you mean 'cat'"),
        ("model", "levels", 0, r"model\.levels: expected 1 or more, got 0"),
        ("discriminator", "name", "non", "did you mean 'none'"),
    ],
)
def test_a_bad_value_is_one_sentence(section: str, field: str, value: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        replace(getattr(multiscale.MultiscaleConfig(), section), **{field: value})


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["model.levels=3", "data.height=36", "data.width=16"], r"multiples of 8 \(2\*\*model\.levels\), got 36 x 16"),
        (["model.gates=3"], r"gates: expected levels from 1 \(finest\) to 2 \(deepest\), got \(3,\)"),
        (["model.gates=1", "model.fusion=sum"], r"gates: expected \(\) beside fusion='sum', got \(1,\)"),
        (["schedule.decay_epochs=3"], r"schedule\.decay_epochs: expected at most the 2 of run\.epochs, got 3"),
        (
            ["run.accumulate=2"],
            r"run\.accumulate: expected 1, as .*, got 2; choose run\.batch_size, or train",
        ),
        (["discriminator.layers=3"], r"expected 24 or more \(3 x 2\*\*discriminator\.layers\), got 32 x 16"),
        (["discriminator.layers=0"], r"discriminator\.layers: expected 1 or more, got 0"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(overrides: list[str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        trainer_for(*overrides)
