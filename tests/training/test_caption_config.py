"""The configuration of system 004 and its recipes: the published values, and what does not go together."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fastpose import models, training
from fastpose.training import caption
from fastpose.training import config as configuration
from fastpose.training.caption_config import CaptionConfig

RECIPES = [name for name in training.list_recipes() if name.startswith("caption/")]

# Parameters of generator and critic; those of conditional models with fastText's 300 numbers.
SIZES = {
    "gan": (3_820_416, 3_043_200),
    "wgan": (3_820_416, 3_043_200),
    "wgan-gp": (3_820_416, 3_040_256),
    "wgan-gp-reduced": (1_222_080, 766_464),
    "wgan-lp": (1_784_896, 837_760),
    "wgan-lp-full": (4_907_520, 3_144_320),
    "wgan-lp-random-init": (1_784_896, 837_760),
}
# algorithm, k, optimizer, rate, beta1, beta2, epochs (sections 4.1 and 4.3, and an early released code)
PUBLISHED = {
    "gan": ("gan", 1, "adam", 5e-4, 0.5, 0.999, 50),
    "wgan": ("wgan", 5, "rmsprop", 1e-4, None, None, 200),
    "wgan-gp": ("wgan-gp", 5, "adam", 1e-4, 0.0, 0.9, 200),
    "wgan-gp-reduced": ("wgan-gp", 5, "adam", 1e-4, 0.0, 0.9, 200),
    "wgan-lp": ("wgan-lp", 5, "adam", 4e-4, 0.0, 0.9, 1000),
    "wgan-lp-full": ("wgan-lp", 5, "adam", 4e-4, 0.0, 0.9, 1000),
    "gan-conditional": ("gan", 1, "adam", 5e-4, 0.5, 0.999, 400),
    "gan-released": ("gan", 1, "adam", 1e-4, 0.5, 0.999, 50),
    "wgan-released": ("wgan", 5, "adam", 1e-3, 0.0, 0.9, 200),
    "wgan-gp-released": ("wgan-gp", 5, "adam", 4e-4, 0.0, 0.9, 200),
}


def config_of(name: str, *overrides: str) -> CaptionConfig:
    return training.load_recipe(f"caption/{name}", overrides).config


def changes(first: str, second: str) -> dict[str, tuple[Any, Any]]:
    return configuration.differences(*(configuration.to_dict(config_of(name)) for name in (first, second)))


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_builds_and_says_what_it_needs(name: str) -> None:
    recipe = training.load_recipe(name)
    config, text = recipe.config, recipe.description
    assert recipe.system == "caption"
    assert 20 < len(text.partition(". ")[0]) < 125
    with torch.device("meta"):
        networks = [caption.build_generator(config), caption.build_discriminator(config)]
    assert all(models.count_parameters(network) > 0 for network in networks)
    assert configuration.from_dict(CaptionConfig, configuration.to_dict(config)) == config
    assert ("data.root=" in text) == (config.data.name == "coco")
    assert ("text.encoder=" in text) == (config.model.conditional and not config.text.encoder)
    assert ("start.run=RUN, that of caption/" in text) == config.start.needed
    if config.start.needed:
        before = training.load_recipe(text.rpartition("that of ")[2].rstrip(".")).config
        assert not before.model.conditional
        assert before.discriminator == config.discriminator
        for part in ("noise", "widths", "self_attention"):
            assert getattr(before.model, part) == getattr(config.model, part)


@pytest.mark.parametrize(("name", "sizes"), SIZES.items())
def test_published_sizes(name: str, sizes: tuple[int, int]) -> None:
    with torch.device("meta"):
        networks = (caption.build_generator(config_of(name)), caption.build_discriminator(config_of(name)))
    assert tuple(map(models.count_parameters, networks)) == sizes


@pytest.mark.parametrize(("name", "values"), PUBLISHED.items())
def test_published_rates(name: str, values: tuple[Any, ...]) -> None:
    config = config_of(name)
    assert config.run.batch_size == 128
    assert config.data.persons == ("single" if config.model.conditional else "all")
    for section in (config.optimizer.generator, config.optimizer.discriminator):
        betas = (section.beta1, section.beta2) if section.name == "adam" else (None, None)
        found = (config.loss.algorithm, config.loss.critic_steps, section.name, section.lr, *betas, config.run.epochs)
        assert found == values
    norm = "batch" if config.loss.algorithm in ("gan", "wgan") else "none"
    assert config.discriminator.norm == norm
    penalties = {"wgan-gp": 10.0, "wgan-lp": 150.0, "wgan-gp-released": 20.0}
    penalty = penalties.get(name, penalties.get(config.loss.algorithm, config.loss.penalty))
    assert (config.loss.penalty, config.loss.clip, config.loss.penalty_norm) == (penalty, 0.01, "separate")
    released = name.endswith("-released")
    assert (config.model.init, config.data.augment_validation) == ("released" if released else "paper", released)


@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith(("caption/gan", "caption/wgan"))])
def test_losses_come_after_each_epoch_and_the_thesis_scores_are_of_all_poses(name: str) -> None:
    recipe, final = training.load_recipe(name), name.startswith("caption/wgan-lp")
    assert (recipe.config.test.samples, recipe.config.run.evaluate_every) == ((0, 10) if final else (2000, 1))
    assert ("come every tenth epoch (ours)" in recipe.description) == final


def test_those_listed_alone_may_not_be_alone() -> None:
    assert config_of("coco-small-conditional").data.persons == "single"
    assert "others may be there" in training.load_recipe("caption/coco-small-conditional").description


def test_the_thesis_values_stand_beside() -> None:
    paper = training.load_recipe("caption/wgan-lp").paper
    assert paper == {"1-NN accuracy": 66.7, "NN distance real": 100.9, "NN distance generated": 105.0}
    config = config_of("wgan-lp")
    assert (config.loss.alpha, config.loss.beta, config.text.scale, config.text.lower) == (1.0, 0.5, 30.0, True)


def test_experiments_change_one_thing() -> None:
    assert changes("wgan-lp", "wgan-lp-random-init") == {"start.needed": (True, False)}
    attention = {f"{part}.self_attention": (False, True) for part in ("model", "discriminator")}
    assert changes("wgan-lp", "wgan-lp-attention") == attention
    assert changes("wgan-gp-reduced", "wgan-gp-attention") == attention
    assert changes("coco-small-wgan-gp", "coco-small-wgan-gp-attention") == attention
    wider = changes("wgan-gp-reduced", "wgan-gp")
    assert set(wider) == {"model.widths", "discriminator.widths"} == set(changes("wgan-lp", "wgan-lp-full"))
    released = changes("wgan-lp", "wgan-lp-released")
    assert released == {
        "data.augment_validation": (False, True),
        "model.init": ("paper", "released"),
        "loss.penalty_norm": ("separate", "joint"),
    }


def test_the_defaults_are_the_final_model() -> None:
    found = configuration.differences(
        configuration.to_dict(CaptionConfig()), configuration.to_dict(config_of("wgan-lp"))
    )
    own = {"data.persons", "run.evaluate_every", "run.checkpoint_every", "start.needed", "test.samples"}
    assert set(found) == own


def test_the_small_comparison_has_equal_budgets() -> None:
    names = [f"coco-small-{name}" for name in ("gan", "wgan", "wgan-gp", "wgan-lp", "wgan-gp-attention")]
    configs = [config_of(name) for name in names]
    assert all(config.data == configs[0].data for config in configs)
    assert all(config.model.widths == configs[0].model.widths for config in configs)
    assert all(config.run.batch_size == configs[0].run.batch_size for config in configs)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("loss.algorithm=wgan-pl", "did you mean 'wgan-lp'"),
        ("loss.penalty_norm=jont", "did you mean 'joint'"),
        ("loss.gan_weights=thesis", r"loss\.gan_weights: expected one of paper, released, got 'thesis'"),
        ("loss.generator_captions=frsh", "did you mean 'fresh'"),
        ("loss.clip=0", r"loss\.clip: expected a positive finite number, got 0\.0"),
        ("loss.penalty=-1", r"loss\.penalty: expected a positive finite number"),
        ("loss.critic_steps=0", r"loss\.critic_steps: expected 1 or more, got 0"),
        ("loss.alpha=-1", r"loss\.alpha: expected a finite number of 0 or more, got -1"),
        ("loss.beta=2", r"loss\.beta: expected a share from 0 to 1, got 2"),
        ("text.size=-1", r"text\.size: expected 0 or more, got -1"),
        ("text.scale=0", r"text\.scale: expected a positive finite number"),
        ("model=caption.genrator", r"model\.name: .*did you mean 'caption\.generator'"),
        ("model.init=papr", "did you mean 'paper'"),
        ("model.widths=1,2,3", r"model\.widths: expected four numbers of channels from 1 on, got \(1, 2, 3\)"),
        ("model.noise=0", r"model\.noise: expected 1 or more, got 0"),
        ("discriminator.widths=1,2,3,0", r"discriminator\.widths: expected four numbers"),
        ("discriminator.norm=btch", "did you mean 'batch'"),
        ("discriminator.norm=batch", r"expected none with loss\.algorithm=wgan-lp, whose penalty is on each sample"),
        ("optimizer.discriminator.lr=0", r"optimizer\.discriminator\.lr: expected a positive finite number"),
        ("optimizer.generator.name=adm", "did you mean 'adam'"),
        ("run.accumulate=2", r"run\.accumulate: expected 1, .*got 2; choose run\.batch_size"),
    ],
)
def test_a_bad_value_is_one_sentence(override: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        config_of("tiny", override)


def test_one_start_is_enough() -> None:
    with pytest.raises(ValueError, match=r"start\.run: expected none with model\.conditional=no, .*run\.start"):
        config_of("tiny", "model.conditional=no", "start.run=somewhere")
    with pytest.raises(ValueError, match=r"start\.run: expected none beside run\.start=weights, got 'somewhere'"):
        config_of("tiny", "run.start=weights", "start.run=somewhere")
