"""Recipes of pose transfer: every one builds, has its published numbers and size; the tiny ones train and resume."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transfer_cases import batch_for, update_for, with_sgd

from fastpose import models, ops, training
from fastpose.training import config as configuration
from fastpose.training import multiscale, outcome, pona, resume_point, systems, transfer_data

RECIPES = [name for name in training.list_recipes() if name.startswith(("pona/", "multiscale/"))]
PONA = {
    "market": (0.315, 3.487, 0.814, 3.867, 0.94),
    "market-paper": (0.315, 3.487, 0.814, 3.867, 0.94),
    "market-blocks-1": (0.298, 3.367, 0.806, 3.806, 0.91),
    "market-blocks-2": (0.309, 3.419, 0.812, 3.745, 0.94),
    "market-blocks-3": (0.315, 3.487, 0.814, 3.867, 0.94),
    "market-blocks-4": (0.309, 3.481, 0.809, 3.783, 0.92),
    "market-blocks-5": (0.306, 3.449, 0.808, 3.872, 0.92),
    "market-no-cross": (0.155, 3.034, 0.729, 3.628, 0.15),
    "market-no-self": (0.307, 3.331, 0.809, 3.755, 0.93),
    "market-fusion-middle": (0.310, 3.501, 0.811, 3.897, 0.93),
    "market-fusion-tail": (0.307, 3.680, 0.807, 3.884, 0.93),
    "market-fusion-none": (0.297, 3.427, 0.804, 3.705, 0.91),
}
MULTISCALE = {
    "full": (0.769, 3.379, 0.976, 0.98, 0.200, 0.111),
    "full-125k": (0.764, 3.171, 0.975, 0.97, 0.204, 0.113),
    "a0-sum": (0.760, 3.055, 0.969, 0.97, 0.221, 0.124),
    "a0-cat": (0.760, 3.055, 0.969, 0.97, 0.221, 0.124),
    "a1-lr": (0.758, 3.211, 0.976, 0.97, 0.210, 0.117),
    "a1-hr": (0.755, 2.859, 0.965, 0.95, 0.229, 0.134),
}
# Parameters of the generators; in thousands the paper prints 34.33 M (DeepFashion) and, of two blocks, 23.31 M.
SIZES = {
    "pona/market": 34_347_340,
    "pona/deepfashion": 34_329_356,
    "pona/market-blocks-1": 12_275_654,
    "pona/market-blocks-2": 23_311_497,
    "pona/market-blocks-4": 45_383_183,
    "pona/market-blocks-5": 56_419_026,
    "multiscale/full": 90_172_928,
    "multiscale/semantic": 90_170_624,
    "multiscale/fonts": 90_153_344,
}


def config_of(name: str, *overrides: str) -> Any:
    return training.load_recipe(name, overrides).config


def built(config: Any) -> dict[str, torch.nn.Module]:
    """All networks of a configuration, without memory."""
    with torch.device("meta"):
        if isinstance(config, multiscale.MultiscaleConfig):
            pair = {"generator": multiscale.build_generator(config), "d": multiscale.build_discriminator(config)}
        else:
            pair = {name: pona.build_discriminator(config, name) for name in pona.DISCRIMINATORS}
            pair["generator"] = pona.build_generator(config)
    return {name: network for name, network in pair.items() if network is not None}


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_builds_its_networks(name: str) -> None:
    recipe = training.load_recipe(name)
    assert recipe.system == name.partition("/")[0]
    assert len(recipe.description.partition(". ")[0]) < 125
    networks = built(recipe.config)
    assert len(networks) == (3 if recipe.system == "pona" else 2)
    assert all(models.count_parameters(network) > 0 for network in networks.values())
    assert configuration.from_dict(type(recipe.config), configuration.to_dict(recipe.config)) == recipe.config


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_needs_vgg_or_says_that_it_does_not(name: str) -> None:
    recipe = training.load_recipe(name)
    needed = "loss.perceptual.vgg=FILE" in recipe.description
    assert needed == (recipe.config.loss.perceptual.weight > 0)
    bundled = recipe.config.data.name == "sample-pairs"
    assert bundled != ("data.root=" in recipe.description)


@pytest.mark.parametrize(("name", "size"), SIZES.items())
def test_published_sizes(name: str, size: int) -> None:
    assert models.count_parameters(built(config_of(name))["generator"]) == size


def test_sizes_of_the_discriminators() -> None:
    counts = {
        name: {key: models.count_parameters(network) for key, network in built(config_of(name)).items()}
        for name in ("pona/market", "pona/deepfashion", "multiscale/full")
    }
    assert (counts["pona/deepfashion"]["appearance"], counts["pona/deepfashion"]["pose"]) == (3_928_384, 3_975_424)
    assert (counts["pona/market"]["appearance"], counts["pona/market"]["pose"]) == (3_930_368, 3_977_408)
    assert counts["multiscale/full"]["d"] == 2_768_705


@pytest.mark.parametrize(("name", "row"), PONA.items())
def test_tables_1_3_4_and_5_of_system_001(name: str, row: tuple[float, ...]) -> None:
    paper = training.load_recipe(f"pona/{name}").paper
    assert tuple(paper[key] for key in ("SSIM (PATN)", "IS", "mask-SSIM", "mask-IS", "PCKh (transfer)")) == row


def test_the_other_numbers_of_table_1() -> None:
    assert training.load_recipe("pona/market").paper["PSNR (8-bit wrap)"] == 28.257
    assert training.load_recipe("pona/deepfashion").paper == {
        "SSIM (PATN, padded)": 0.775,
        "IS": 3.338,
        "PSNR (8-bit wrap)": 31.382,
        "PCKh (transfer)": 0.95,
    }


@pytest.mark.parametrize(("name", "row"), MULTISCALE.items())
def test_tables_1_and_3_of_system_003(name: str, row: tuple[float, ...]) -> None:
    paper = training.load_recipe(f"multiscale/{name}").paper
    keys = ("SSIM (7x7)", "IS", "DS", "PCKh (transfer)", "LPIPS (vgg)", "LPIPS (squeeze)")
    assert tuple(paper[key] for key in keys) == row


def test_table_4_of_system_003() -> None:
    paper = training.load_recipe("multiscale/fonts").paper
    assert tuple(paper.values()) == (0.638, 16.876, 0.208, 0.089)
    assert tuple(paper) == ("SSIM (7x7)", "PSNR", "LPIPS (vgg)", "LPIPS (squeeze)")


@pytest.mark.parametrize("name", RECIPES)
def test_the_papers_protocols_are_measured(name: str) -> None:
    """An image protocol with a published number is among those evaluated; the others need files or a detector."""
    recipe = training.load_recipe(name)
    compared = {key for key in recipe.paper if key.startswith(("SSIM", "PSNR", "mask-SSIM"))}
    assert compared <= set(recipe.config.test.protocols)


def test_market_is_as_published() -> None:
    config = config_of("pona/market")
    steps = config.data.samples_per_epoch // config.run.batch_size
    assert steps * config.run.epochs == 90_000
    assert (config.data.pose_map, config.data.sigma) == ("gaussian_rounded", 6)
    assert (config.model.blocks, config.model.norm, config.loss.gan, config.loss.pool) == (3, "batch", "bce", 50)
    weights = (config.loss.lambda_gan, config.loss.lambda_l1, config.loss.perceptual.weight)
    assert weights == (5, 10, 10)
    assert config.appearance.spectral_norm
    assert config.pose.activation == "relu"


def test_deepfashion_is_as_published() -> None:
    config = config_of("pona/deepfashion")
    assert transfer_data.image_size(config.data) == (256, 176)
    assert (config.data.pose_map, config.run.max_steps, config.run.batch_size) == ("binary", 90_000, 7)
    assert config.run.epochs == -(-90_000 // (4000 // 7))
    weights = (config.loss.lambda_gan, config.loss.lambda_l1, config.loss.perceptual.weight)
    assert (weights, config.loss.gan, config.loss.pool) == ((5, 1, 1), "lsgan", 0)
    assert {config.model.norm, config.appearance.norm, config.pose.norm} == {"instance"}


AS_PRINTED = {"spectral_norm": (True, False), "self_attention": (False, True), "activation": ("relu", "leaky_relu")}
# What a row's recipe changes of pona/market, and nothing else.
CHANGES: dict[str, dict[str, tuple[Any, Any]]] = {
    "market": {},
    "market-paper": {
        "data.pose_map": ("gaussian_rounded", "wide"),
        "model.self_attention_beta": (True, False),
        **{
            f"{section}.{key}": pair
            for section in pona.DISCRIMINATORS
            for key, pair in {**AS_PRINTED, "dropout": (0.5, 0.0)}.items()
        },
    },
    "market-blocks-1": {"model.blocks": (3, 1)},
    "market-blocks-2": {"model.blocks": (3, 2)},
    "market-blocks-3": {},
    "market-blocks-4": {"model.blocks": (3, 4)},
    "market-blocks-5": {"model.blocks": (3, 5)},
    "market-no-cross": {"model.cross_attention": (True, False)},
    "market-no-self": {"model.self_attention": (True, False)},
    "market-fusion-middle": {"model.fusion": ("head", "middle")},
    "market-fusion-tail": {"model.fusion": ("head", "tail")},
    "market-fusion-none": {"model.fusion": ("head", "none")},
}


def test_every_row_of_market_has_its_changes() -> None:
    rows = {name.removeprefix("pona/") for name in RECIPES if name.startswith("pona/market") and "small" not in name}
    assert rows == set(CHANGES) == set(PONA)


@pytest.mark.parametrize("name", CHANGES)
def test_a_row_of_market_changes_only_what_it_is_about(name: str) -> None:
    market, row = (configuration.to_dict(config_of(f"pona/{recipe}")) for recipe in ("market", name))
    assert configuration.differences(market, row) == CHANGES[name]


def test_what_the_paper_prints_is_said_in_the_recipe() -> None:
    """Losses stay as released, and the description must not promise more than the recipe has."""
    description = training.load_recipe("pona/market-paper").description
    assert "losses are those released" in description
    assert "loss.perceptual.reduction=sum" in description


def test_a_row_of_system_003_changes_one_thing() -> None:
    full = configuration.to_dict(config_of("multiscale/full-125k"))
    lr = configuration.to_dict(config_of("multiscale/a1-lr"))
    assert configuration.differences(full, lr) == {"model.gates": ([], [4])}


def test_iterations_of_system_003() -> None:
    steps = {name: config_of(f"multiscale/{name}").run.max_steps for name in ("full", "a0-sum", "semantic", "fonts")}
    assert steps == {"full": 270_000, "a0-sum": 125_000, "semantic": 65_000, "fonts": 65_000}
    pairs = {"full": 101_966, "a0-sum": 101_966, "semantic": 5_161, "fonts": 203_000}
    for name, count in pairs.items():
        epochs = config_of(f"multiscale/{name}").run.epochs
        assert (epochs - 1) * (count // 8) < steps[name] <= epochs * (count // 8)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("pona/market-small", "pona/market-small-no-attention"),
        ("multiscale/market-small", "multiscale/market-small-no-gates"),
    ],
)
def test_a_small_comparison_has_equal_budgets(first: str, second: str) -> None:
    one, other = config_of(first), config_of(second)
    changed = configuration.differences(configuration.to_dict(one), configuration.to_dict(other))
    assert changed
    assert all(key.startswith("model.") for key in changed)


@pytest.mark.parametrize("name", [name for name in RECIPES if "-small" in name])
def test_a_small_recipe_says_that_its_loss_weights_differ(name: str) -> None:
    recipe = training.load_recipe(name)
    assert "loss weights" in recipe.description.lower()
    assert "not the published ones" in recipe.description
    assert recipe.config.loss != type(recipe.config)().loss


# ---- tiny runs -------------------------------------------------------------------------------------------------

TINY = ("pona/tiny", "multiscale/tiny")
LOGGED = {
    "pona/tiny": {"l1", "cgan", "d_a", "d_p", "lr.generator", "lr.appearance", "lr.pose"},
    "multiscale/tiny": {"l1", "gan", "d_fake", "d_real", "lr.generator", "lr.discriminator"},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, training.FitResult]:
    out = tmp_path_factory.mktemp("runs")
    return {name: training.train(name, out=out, progress=False) for name in TINY}


@pytest.mark.parametrize("name", TINY)
def test_train_leaves_a_run_folder(name: str, runs: dict[str, training.FitResult]) -> None:
    run = runs[name]
    assert run.step == 3
    assert [result.name for result in run.results][:2] == ["SSIM (PATN)", "L1"]
    for file in ("config.yaml", "metrics.csv", "weights/best.safetensors", "weights/last.safetensors", "report.html"):
        assert (run.folder / file).is_file(), file
    assert list((run.folder / "samples").glob("*.png"))
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert LOGGED[name] <= set().union(*rows)


@pytest.mark.parametrize("name", TINY)
def test_evaluate_repeats_the_last_evaluation(name: str, runs: dict[str, training.FitResult]) -> None:
    results = training.evaluate(name, runs[name].folder / "weights/last.safetensors")
    assert [(result.name, result.value) for result in results] == [(r.name, r.value) for r in runs[name].results]


@pytest.mark.parametrize("name", TINY)
def test_weights_are_those_of_a_system_that_transfers(name: str, runs: dict[str, training.FitResult]) -> None:
    system, config, network = systems.load_network(runs[name].folder / "weights/best.safetensors")
    assert (system.name, system.estimator) == (name.partition("/")[0], None)
    assert system.transfer is not None
    assert system.transfer(network, config).network is network


@pytest.fixture(scope="module")
def plain() -> Iterator[None]:
    """Runs without pictures and report, which take most of their time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outcome, "write_pictures", lambda *_: [])
        patch.setattr(outcome, "write_report", lambda *_: None)
        yield


def test_the_pools_are_in_the_resume_point(runs: dict[str, training.FitResult]) -> None:
    state, _ = resume_point.load(runs["pona/tiny"].folder / "state")
    pools = state["trainer"]
    assert {name: (len(pool["images"]), pool["queries"]) for name, pool in pools.items()} == {
        "appearance": (3, 3),
        "pose": (3, 3),
    }
    assert pools["appearance"]["images"][0].shape == (6, 32, 16)
    assert pools["pose"]["images"][0].shape == (21, 32, 16)


def losses_of_pona(backend: str, monkeypatch: pytest.MonkeyPatch) -> tuple[list[dict[str, float]], set[str]]:
    """Return the losses of three steps, and the backends that attention would choose by itself."""
    attention, chosen = ops.nonlocal_attention_residual, set()

    def watched(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        chosen.add(ops.explain("nonlocal_attention", query, key, value).chosen)
        return attention(query, key, value, *rest, backend=backend)

    with monkeypatch.context() as patch:
        patch.setattr(ops, "nonlocal_attention_residual", watched)
        patch.setattr(ops, "render_gaussian_heatmaps", partial(ops.render_gaussian_heatmaps, backend=backend))
        # In float64 and by plain gradient descent, so that rounding is not made large by batch norm and Adam.
        patch.setattr(transfer_data, "to_network", lambda images: images.double() / 127.5 - 1)
        draw = transfer_data.draw_guide
        patch.setattr(transfer_data, "draw_guide", lambda *arguments: draw(*arguments).double())
        recipe = training.load_recipe("pona/tiny", ["model.dropout=0", "appearance.dropout=0", "pose.dropout=0"])
        trainer = with_sgd(systems.get(recipe.system).trainer(recipe.config), lr=1e-3)
        for network in trainer.networks.values():
            network.double()
        for key, parameter in trainer.networks["generator"].named_parameters():
            if key.endswith("gamma"):
                parameter.data.fill_(0.5)  # so that attention matters at once
        update = update_for(trainer)
        logs = [trainer.step(batch_for(trainer, seed), update) for seed in range(3)]
    return [{key: float(value) for key, value in log.items()} for log in logs], chosen


def test_both_backends_train_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    (reference, _), (fast, chosen) = (losses_of_pona(backend, monkeypatch) for backend in ("reference", "auto"))
    if chosen == {"reference"}:
        pytest.skip("no other backend serves this machine")
    assert chosen == {"cpu"}
    for slow_step, fast_step in zip(reference, fast, strict=True):
        assert fast_step == pytest.approx(slow_step, rel=1e-6, abs=1e-9)
    assert losses_of_pona("auto", monkeypatch)[0] == fast


# ---- on real photographs ---------------------------------------------------------------------------------------

SMALL = [
    "run.max_steps=1",
    "run.batch_size=2",
    "run.workers=0",
    "run.ema=0",
    "model.width=4",
    "data.validation_pairs=2",
]
ARCHIVES = {"market": "market1501_sample/market_data.tar", "deepfashion": "deepfashion_sample/fashion_data.tar"}


@pytest.mark.parametrize("name", ["pona/market-small", "multiscale/deepfashion-small"])
def test_a_small_recipe_trains_on_its_data(name: str, plain: None, shared: Path, tmp_path: Path) -> None:
    with tarfile.open(shared / "data" / ARCHIVES[config_of(name).data.name]) as archive:
        archive.extractall(tmp_path, filter="data")
    (root,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    result = training.train(name, [*SMALL, f"data.root={root}"], out=tmp_path / "runs", progress=False)
    assert result.step == 1
    assert all(torch.isfinite(torch.tensor(score.value)) for score in result.results)
