"""Recipes of system 002: every row of its tables builds and says how it is started; the tiny one trains and resumes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fastpose import models, training
from fastpose.data import transforms
from fastpose.training import checkpoint, outcome, pose3d, pose3d_scores, systems
from fastpose.training import config as configuration

RECIPES = [name for name in training.list_recipes() if name.startswith("pose3d/")]
P1 = "h36m val MPJPE #1 (root depth)"

# Table 2: the mean over joints in mm; its limbs are rows of the result, and stand in docs/pose3d.md.
TABLE_2 = {
    "baseline-fix-2d": 65.2,
    "baseline": 64.8,
    "map": 61.3,
    "geo": 60.3,
    "full-fix-2d": 63.1,
    "full-no-pretrain": 63.4,
    "full-2s": 59.7,
}
# What a row's recipe changes of full-2s, and nothing else.
CHANGES: dict[str, dict[str, tuple[Any, Any]]] = {
    "baseline": {"stage.name": ("adversarial", "pose")},
    "map": {"discriminator.sources": (["image", "geometry", "maps"], ["image", "maps"])},
    "geo": {"discriminator.sources": (["image", "geometry", "maps"], ["image", "geometry"])},
    "full-fix-2d": {"stage.fix_2d": (False, True)},
    "full-no-pretrain": {"optimizer.generator.lr": (2.5e-5, 2.5e-4)},
    "full-4s": {"model.stacks": (2, 4)},
    "full-3dhp": {"data.validation": ("", "mpi_inf_3dhp"), "test.monitor": ("", "mpii val PCKh@0.5")},
    "full-2s-bones": {"loss.bones_weight": (0.0, 0.01)},
    "full-2s-wgan-gp": {
        "discriminator.norm": ("batch", "none"),
        "loss.gan": ("bce", "wgan-gp"),
        "loss.critic_steps": (1, 5),
    },
    "baseline-3dhp": {
        "stage.name": ("adversarial", "pose"),
        "data.validation": ("", "mpi_inf_3dhp"),
        "test.monitor": ("", "mpii val PCKh@0.5"),
    },
    "baseline-bones": {"stage.name": ("adversarial", "pose"), "loss.bones_weight": (0.0, 0.01)},
}
# Parameters of the generators; 14,429,104 is the released backbone's.
SIZES = {"full-2s": 7_288_240, "full-4s": 13_576_144, "zhou": 14_429_104}


def config_of(name: str, *overrides: str) -> Any:
    return training.load_recipe(f"pose3d/{name}", overrides).config


def changes(first: str, second: str) -> dict[str, tuple[Any, Any]]:
    pair = (configuration.to_dict(config_of(name)) for name in (first, second))
    return configuration.differences(*pair)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_builds_its_networks(name: str) -> None:
    recipe = training.load_recipe(name)
    assert recipe.system == "pose3d"
    assert 20 < len(recipe.description.partition(". ")[0]) < 125
    with torch.device("meta"):
        assert models.count_parameters(pose3d.build_generator(recipe.config)) > 0
        critic = pose3d.build_discriminator(recipe.config)
    assert (critic is not None) == (recipe.config.stage.name == "adversarial")
    assert configuration.from_dict(type(recipe.config), configuration.to_dict(recipe.config)) == recipe.config


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_says_what_it_needs(name: str) -> None:
    recipe = training.load_recipe(name)
    data, text = recipe.config.data, recipe.description
    assert ("data.root=" in text) == (data.name in ("h36m", "mocap"))
    assert ("data.wild=" in text) == (data.wild != ("sample",))
    assert ("data.validation=" in text) == bool(data.validation)
    starts = recipe.config.stage.name != "2d" and name.partition("/")[2] not in ("tiny", "demo", "mocap-small-pose")
    assert ("run.start=WEIGHTS, those of pose3d/" in text) == starts
    if starts:
        before = text.rpartition("those of ")[2].rstrip(".")
        assert before in RECIPES
        ours, theirs = recipe.config, training.load_recipe(before).config
        assert ours.model == theirs.model
        assert ours.data.image_size == theirs.data.image_size


@pytest.mark.parametrize(("name", "size"), SIZES.items())
def test_published_sizes(name: str, size: int) -> None:
    with torch.device("meta"):
        assert models.count_parameters(pose3d.build_generator(config_of(name))) == size


@pytest.mark.parametrize(("name", "mean"), TABLE_2.items())
def test_table_2(name: str, mean: float) -> None:
    assert training.load_recipe(f"pose3d/{name}").paper == {P1: mean}


def test_tables_1_and_4() -> None:
    paper = {name: training.load_recipe(f"pose3d/{name}").paper for name in ("full-4s", "baseline-3dhp", "full-3dhp")}
    assert paper["full-4s"] == {P1: 58.6, "h36m val MPJPE #2 (rigid)": 37.7}
    assert tuple(paper["baseline-3dhp"].values()) == (50.1, 21.6)
    assert tuple(paper["full-3dhp"].values()) == (69.0, 32.0)
    assert set(paper["full-3dhp"]) == {"mpi_inf_3dhp test 3DPCK@150mm", "mpi_inf_3dhp test 3DPCK AUC"}


@pytest.mark.parametrize("name", CHANGES)
def test_a_row_changes_only_what_it_is_about(name: str) -> None:
    assert changes("full-2s", name) == CHANGES[name]


def test_iterations_of_the_paper() -> None:
    full, second = config_of("full-4s"), config_of("stage-2-4s")
    assert full.run.epochs * full.data.epoch_batches == 120_000
    assert (second.run.epochs - 1) * second.data.epoch_batches < second.run.max_steps == 200_000
    assert second.run.max_steps <= second.run.epochs * second.data.epoch_batches
    assert full.run.batch_size == second.run.batch_size == 12
    assert (second.schedule.milestones, second.optimizer.generator.lr) == ((25,), 2.5e-4)


def test_fix_2d_has_the_budget_of_the_rows_without() -> None:
    """Stage 2 behind the 2D module of stage 1, then as many steps with a critic as without."""
    fixed = {"stage.fix_2d": (False, True)}
    assert changes("stage-2-2s", "stage-2-2s-fix-2d") == changes("baseline", "baseline-fix-2d") == fixed
    assert changes("baseline-fix-2d", "full-fix-2d") == {"stage.name": ("pose", "adversarial")}
    for name in ("baseline-fix-2d", "full-fix-2d"):
        text = training.load_recipe(f"pose3d/{name}").description
        assert text.endswith("those of pose3d/stage-2-2s-fix-2d.")


@pytest.mark.parametrize("name", ["full-3dhp", "baseline-3dhp"])
def test_the_best_weights_are_not_chosen_by_the_unseen_data(name: str) -> None:
    assert pose3d_scores.monitor(config_of(name)) == ("mpii val PCKh@0.5", "max")


@pytest.mark.parametrize("name", RECIPES)
def test_the_papers_results_are_measured(name: str) -> None:
    recipe = training.load_recipe(name)
    for result in recipe.paper:
        if "(root depth)" in result:  # whether there are cameras the data tell
            result = result.replace("#1 (root depth)", "(root)")
        chosen = configuration.apply_overrides(recipe.config, [f"test.monitor={result}"])
        assert pose3d_scores.monitor(chosen)[0] == result


def test_the_backbone_is_as_released() -> None:
    config = config_of("zhou")
    assert (config.model.stacks, config.model.modules, config.model.depth_head) == (2, 2, "flatten")
    assert (config.loss.depth_weight, config.loss.bones_weight, config.loss.sigma) == (0.1, 0.01, 1.75)
    assert (config.data.targets, config.data.depth_root, config.data.mean) == ("reprojected", "thorax", (0, 0, 0))
    assert (config.data.mixing, config.data.ratio_3d, config.data.every) == ("shuffled", 1, "10fps")
    assert (config.data.test_every, config.test.released) == ("zhou", True)
    assert transforms.augmentation(config.data.wild_augmentation).gain == (0.6, 1.0)
    assert (config.run.epochs, config.run.batch_size, config.optimizer.generator.lr) == (10, 6, 2.5e-5)
    assert config_of("zhou-stage-2").loss.bones_weight == 0


@pytest.mark.parametrize("name", ["map", "geo", "full"])
def test_the_small_comparison_has_equal_budgets(name: str) -> None:
    changed = changes("mocap-small-baseline", f"mocap-small-{name}")
    assert set(changed) <= {"stage.name", "discriminator.sources"}
    assert "stage.name" in changed
    assert set(changes("map", "geo")) == set(changes("mocap-small-map", "mocap-small-geo")) == {"discriminator.sources"}


@pytest.mark.parametrize("name", [name for name in RECIPES if "small" in name or "demo" in name])
def test_a_small_recipe_says_that_its_settings_are_not_published(name: str) -> None:
    assert "not the published ones" in training.load_recipe(name).description


# ---- tiny runs -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> training.FitResult:
    return training.train("pose3d/tiny", out=tmp_path_factory.mktemp("runs"), progress=False)


@pytest.fixture(scope="module")
def plain() -> Iterator[None]:
    """Runs without evaluation, pictures and report, which take most of their time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outcome, "write_pictures", lambda *_: [])
        patch.setattr(outcome, "write_report", lambda *_: None)
        patch.setattr(outcome, "evaluate", lambda *_: [])
        yield


def test_train_leaves_a_run_folder(run: training.FitResult) -> None:
    assert run.step == 3
    names = {result.name for result in run.results}
    assert {"sample-mocap val MPJPE (root)", "sample val PCK@0.2 (torso)"} <= names
    for file in ("config.yaml", "metrics.csv", "weights/best.safetensors", "weights/last.safetensors", "report.html"):
        assert (run.folder / file).is_file(), file
    assert list((run.folder / "samples").glob("*.png"))
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    logged = {"heatmap", "depth", "adversarial", "real", "fake", "accuracy", "lr.generator", "lr.discriminator"}
    assert logged <= set().union(*rows)
    assert run.best is not None
    assert run.best["name"] == "sample-mocap val MPJPE (root)"


def test_the_weights_say_how_long_the_bones_of_their_training_set_are(run: training.FitResult) -> None:
    measured = checkpoint.load_weights(run.folder / "weights/last.safetensors")[1]["measured"]
    assert measured["test.bone_sum"] > 1000
    assert systems.load_network(run.folder / "weights/last.safetensors")[1].test.bone_sum == measured["test.bone_sum"]


def test_evaluate_repeats_the_last_evaluation(run: training.FitResult) -> None:
    results = training.evaluate("pose3d/tiny", run.folder / "weights/last.safetensors")
    assert [result.name for result in results] == [result.name for result in run.results]
    assert [result.value for result in results] == [result.value for result in run.results]


def test_weights_are_those_of_a_system_with_an_estimator(run: training.FitResult) -> None:
    system, config, network = systems.load_network(run.folder / "weights/best.safetensors")
    assert (system.name, config.stage.name) == ("pose3d", "adversarial")
    estimator = systems.estimator(system, network, config)
    assert estimator.network is network


@pytest.mark.usefixtures("plain")
def test_stages_hand_their_weights_on(tmp_path: Path) -> None:
    """Stage 1 to 3, and a 2D module that stays as stage 1 left it."""
    start: list[str] = []
    two_d: list[dict[str, torch.Tensor]] = []
    for stage in (["stage=2d", "data.name=none", "data.epoch_batches=0"], ["stage=pose", "stage.fix_2d=yes"], []):
        options = [*stage, *start, "run.max_steps=2"]
        result = training.train("pose3d/tiny", options, out=tmp_path / "runs", progress=False)
        weights = result.folder / "weights/last.safetensors"
        start = [f"run.start={weights}"]
        network: Any = systems.load_network(weights)[2]
        two_d.append(network.two_d.state_dict())
    assert all(torch.equal(two_d[0][key], two_d[1][key]) for key in two_d[0])
    assert any(not torch.equal(two_d[1][key], two_d[2][key]) for key in two_d[0])


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("name", ["mocap-small-pose", "mocap-small-full"])
def test_a_small_recipe_trains(name: str, tmp_path: Path) -> None:
    data = ["data.name=sample-mocap", "data.wild=sample", "data.photo_size=96", "data.fps=1"]
    short = ["run.max_steps=2", "run.workers=0", "run.ema=0", "model.width=16"]
    result = training.train(f"pose3d/{name}", [*data, *short], out=tmp_path, progress=False)
    assert result.step == 2
