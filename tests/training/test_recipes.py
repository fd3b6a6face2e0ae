"""Every recipe builds; the published rows have the published sizes; train, evaluate and predict work end to end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from fastpose import data, models, training
from fastpose.models.inference import Inference
from fastpose.training import checkpoint, pose_data, sagan, systems
from fastpose.training import config as configuration
from fastpose.training.pose_data import DataConfig
from fastpose.training.prediction import for_images

RECIPES = [name for name in training.list_recipes() if name.startswith("sagan/")]

# Parameters of generator and discriminator (None: has none).
SIZES = {
    "ours-a": (24_872_256, 3_494_160),
    "ours-b": (24_872_256, 3_757_332),
    "ours-c": (25_762_563, 3_757_332),
    "ours-c-released": (25_460_784, 4_217_872),
    "released-defaults": (25_460_784, 4_286_480),
    "self-gan": (24_871_872, 3_428_368),
    "hg4": (24_871_872, None),
    "hg8": (25_434_112, None),
    "sarm-3-released": (25_460_784, None),
}
PUBLISHED = {"ours-a", "ours-b", "ours-c", "self-gan", "hg4", "sarm-1", "sarm-2", "sarm-3"}


def config_of(name: str, *overrides: str) -> sagan.SaganConfig:
    return training.load_recipe(f"sagan/{name}", overrides).config


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_builds_its_networks(name: str) -> None:
    recipe = training.load_recipe(name)
    assert recipe.system == "sagan"
    assert len(recipe.description) > 20
    with torch.device("meta"):
        assert models.count_parameters(sagan.build_generator(recipe.config)) > 0
        sagan.build_discriminator(recipe.config)


@pytest.mark.parametrize(("name", "sizes"), SIZES.items())
def test_published_sizes(name: str, sizes: tuple[int, int | None]) -> None:
    with torch.device("meta"):
        generator = sagan.build_generator(config_of(name))
        discriminator = sagan.build_discriminator(config_of(name))
    found = None if discriminator is None else models.count_parameters(discriminator)
    assert (models.count_parameters(generator), found) == sizes


def test_the_papers_numbers_stand_beside() -> None:
    lsp = {name: training.load_recipe(f"sagan/{name}").paper["lsp test PCK@0.2"] for name in PUBLISHED}
    assert (lsp["hg4"], lsp["sarm-1"], lsp["sarm-2"], lsp["sarm-3"]) == (93.6, 93.7, 93.9, 94.0)
    assert (lsp["self-gan"], lsp["ours-a"], lsp["ours-b"], lsp["ours-c"]) == (94.0, 94.2, 94.2, 94.3)
    mpii = {name: training.load_recipe(f"sagan/{name}").paper for name in PUBLISHED}
    assert mpii["ours-c"]["mpii val PCKh@0.5"] == 88.07
    assert [mpii[name]["mpii test PCKh@0.5"] for name in ("ours-a", "ours-b", "ours-c")] == [92.0, 92.1, 92.3]


def test_ours_c_is_as_the_paper_describes_it() -> None:
    config = config_of("ours-c")
    assert (config.run.epochs, config.run.batch_size, config.data.image_size) == (200, 6, 256)
    assert (config.optimizer.generator.name, config.optimizer.generator.lr) == ("rmsprop", 1e-4)
    assert (config.schedule.name, config.loss.sigma, config.loss.lambda_g) == ("paper", 1.0, 0.1)


def test_the_released_flavour_is_as_the_code_has_it() -> None:
    config = config_of("ours-c-released")
    assert (config.optimizer.generator.lr, config.optimizer.discriminator.name) == (2.5e-4, "adam")
    assert (config.loss.sigma, config.loss.policy, config.loss.stale_d_activations) == (1.75, "began", True)
    assert (config.model.flavour, config.discriminator.flavour) == ("released", "released")


@pytest.mark.parametrize(("name", "carry"), [("hg4", []), ("sarm-1", [3]), ("sarm-2", [2, 3]), ("sarm-3", [1, 2, 3])])
def test_which_stacks_carry_attention(name: str, carry: list[int]) -> None:
    with torch.device("meta"):
        generator = sagan.build_generator(config_of(name))
    assert [
        i for i, stack in enumerate(generator.stacks) if not isinstance(stack.attention, torch.nn.Identity)
    ] == carry


def test_the_small_comparison_has_equal_budgets() -> None:
    hg, sarm, gan = (config_of(f"lspet-small-{name}") for name in ("hg", "sarm", "gan"))
    assert hg.run == sarm.run == gan.run
    assert hg.data == sarm.data == gan.data
    assert hg.optimizer.generator == sarm.optimizer.generator == gan.optimizer.generator
    assert (sarm.model, hg.discriminator.name) == (gan.model, "none")


def test_the_data_set_can_be_overridden() -> None:
    config = config_of("ours-c", "data=lspet", "data.root=some/folder")
    assert (config.data.name, config.data.root) == ("lspet", "some/folder")


def test_an_unknown_key_offers_the_nearest() -> None:
    with pytest.raises(
        ValueError, match=r"unknown key 'model\.stack' for recipe sagan/ours-c; did you mean 'model\.stacks'"
    ):
        config_of("ours-c", "model.stack=2")


# ---- data ------------------------------------------------------------------------------------------------------


def test_the_sample_has_cocos_joints() -> None:
    dataset = pose_data.train_dataset(DataConfig(name="sample", image_size=64), seed=0)
    assert dataset[0]["image"].shape == (3, 64, 64)
    assert dataset[0]["keypoints"].shape == (17, 2)
    assert dataset.heatmap_size == (16, 16)


def test_extra_data_sets_are_joined() -> None:
    config = DataConfig(name="sample", extra=("sample:",), image_size=64)
    joined, alone = pose_data.train_dataset(config, 0), pose_data.train_dataset(DataConfig(name="sample"), 0)
    assert len(joined) == 2 * len(alone)
    assert joined.locate(len(alone) + 5) == (1, 5)
    first, again = joined[(3, 5)], joined[(3, len(alone) + 5)]
    assert not torch.equal(first["to_image"], again["to_image"])  # each set is augmented by random numbers of its own
    with pytest.raises(IndexError, match="expected 0 to 119"):
        joined[len(joined)]


def test_extra_data_sets_of_other_joints_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    lsp = SimpleNamespace(name="lsp", skeleton=pose_data.skeletons.MPII, persons=[])
    sources = {"sample": data.create("sample"), "lsp": lsp}
    monkeypatch.setattr(pose_data.data, "create", lambda name, *_args, **_options: sources[name])
    with pytest.raises(ValueError, match=r"data\.extra: lsp has the joints of 'mpii', sample those of 'coco'"):
        pose_data.train_dataset(DataConfig(name="sample", extra=("lsp:folder",)), 0)


@pytest.mark.parametrize("changes", [{"split": "all"}, {"validation_split": "train"}, {"split": "val"}])
def test_validation_photographs_are_never_trained_on(changes: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"data: \d+ of the \d+ validation photographs are in the training set too"):
        pose_data.train_dataset(DataConfig(name="sample", image_size=64, **changes), 0)


def test_an_extra_part_of_the_main_set_keeps_its_holdout(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def create(name: str, root: str, split: str, **options: object) -> object:
        asked.append((name, split, options.get("holdout")))
        return data.create("sample", split=split)

    monkeypatch.setattr(pose_data, "data", SimpleNamespace(create=create))
    pose_data.train_dataset(DataConfig(name="lspet", root="x", extra=("lspet:x",), holdout=7), 0)
    assert sorted(set(asked)) == [("lspet", "train", 7), ("lspet", "val", 7)]
    assert len(asked) == 3


def test_a_data_set_without_folder_says_so() -> None:
    with pytest.raises(ValueError, match="data set 'lspet' needs the folder"):
        pose_data.train_dataset(DataConfig(name="lspet"), 0)


def test_normalise_subtracts_the_mean() -> None:
    config = DataConfig(mean=(0.5, 0.25, 0.0), std=(1.0, 0.5, 1.0))
    images = torch.tensor([255, 51, 0], dtype=torch.uint8).view(1, 3, 1, 1)
    torch.testing.assert_close(pose_data.normalise(images, config).flatten(), torch.tensor([0.5, -0.1, 0.0]))


# ---- end to end ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> training.FitResult:
    return training.train("sagan/tiny", out=tmp_path_factory.mktemp("runs"), progress=False)


def test_train_leaves_a_run_folder(run: training.FitResult) -> None:
    assert run.step == 3
    assert [result.name for result in run.results] == ["sample val PCK@0.2 (torso)"]
    for name in ("config.yaml", "metrics.csv", "weights/best.safetensors", "weights/last.safetensors", "report.html"):
        assert (run.folder / name).is_file(), name
    pictures = {path.stem for path in (run.folder / "samples").glob("*.png")}
    assert {"skeletons", "heatmaps", "attention"} <= pictures


def test_the_losses_are_logged(run: training.FitResult) -> None:
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    logged = set().union(*rows)
    assert {"pose", "adversarial", "real", "fake", "k", "measure", "accuracy"} <= logged


def test_promise_8_goes_on_with_photographs_kept_too(run: training.FitResult, tmp_path: Path) -> None:
    part = training.train("sagan/tiny", ["run.max_steps=2"], out=tmp_path, progress=False)
    assert part.step == 2
    changes = ["run.max_steps=3", f"data.cache={tmp_path / 'kept'}"]
    whole = training.train("sagan/tiny", changes, resume=part.folder, progress=False)
    assert len(list((tmp_path / "kept").glob("sample-*.pixels"))) == 2  # training and validation
    assert (whole.step, whole.folder) == (3, part.folder)
    last = "weights/last.safetensors"
    weights = [training.systems.load_network(folder / last)[2].state_dict() for folder in (whole.folder, run.folder)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_evaluate_repeats_the_last_evaluation(run: training.FitResult, tmp_path: Path) -> None:
    results = training.evaluate("sagan/tiny", run.folder / "weights/last.safetensors", out=tmp_path / "eval")
    assert [(result.name, result.value) for result in results] == [(r.name, r.value) for r in run.results]
    assert json.loads((tmp_path / "eval/results.jsonl").read_text())["name"] == results[0].name


def test_evaluate_makes_no_cache_unless_told_and_never_shrinks(run: training.FitResult, tmp_path: Path) -> None:
    state, about = checkpoint.load_weights(run.folder / "weights/last.safetensors")
    (tmp_path / "file").touch()  # stands for a folder of another machine
    about["config"]["data"] |= {"cache": str(tmp_path / "file/kept"), "cache_shrink": True}
    weights = tmp_path / "last.safetensors"
    checkpoint.save_weights(weights, state, {key: about[key] for key in ("recipe", "system", "config", "step")})
    told = [f"data.cache={tmp_path / 'kept'}", "data.cache_shrink=yes"]
    for overrides in ([], told):
        results = training.evaluate("sagan/tiny", weights, overrides)
        assert [result.value for result in results] == [result.value for result in run.results]
        assert (tmp_path / "kept").exists() == (overrides == told)
    (pixels,) = (tmp_path / "kept").glob("*.pixels")
    source = pose_data.source(config_of("tiny").data, "validation")
    sizes = {person.image: cv2.imread(str(person.image)).size for person in source.persons}
    assert pixels.stat().st_size >= sum(sizes.values())


def test_evaluate_in_sixteen_bits(run: training.FitResult, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, made = run.folder / "weights/last.safetensors", []
    copied = models.for_inference
    monkeypatch.setattr(models, "for_inference", lambda *a, dtype=None: made.append(dtype) or copied(*a, dtype=dtype))
    for precision in ("fp32", "bf16"):
        (result,) = training.evaluate("sagan/tiny", weights, precision=precision)
        assert result.name == run.results[0].name
    assert made == [torch.bfloat16]
    with pytest.raises(ValueError, match=r"precision: expected one of .*, got 'fp64'"):
        training.evaluate("sagan/tiny", weights, precision="fp64")


def test_heatmaps_in_sixteen_bits_are_those_of_float32_but_for_their_digits(run: training.FitResult) -> None:
    system, config, network = systems.load_network(run.folder / "weights/last.safetensors")
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    exact, found = (
        systems.estimator(system, for_images(network, config, precision), config).heatmaps(images)
        for precision in ("fp32", "bf16")
    )
    assert not torch.equal(found, exact)
    assert (found - exact).norm() < 0.02 * exact.norm()


def test_photographs_are_seen_channels_last(run: training.FitResult) -> None:
    _, config, network = systems.load_network(run.folder / "weights/last.safetensors")
    assert for_images(network, config) is network
    assert network.stem.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert isinstance(for_images(network, config, "bf16"), Inference)


def test_evaluate_multi_scale(run: training.FitResult) -> None:
    (result,) = training.evaluate("sagan/tiny", run.folder / "weights/last.safetensors", ["test.scales=0.9,1.1"])
    assert result.name == "sample val PCK@0.2 (torso)"


def test_the_weights_fix_the_network(run: training.FitResult) -> None:
    with pytest.raises(ValueError, match=r"model\.stacks: the weights .* fix the network"):
        training.evaluate("sagan/tiny", run.folder / "weights/last.safetensors", ["model.stacks=1"])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "some photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("b.jpg", "a.png"):
        cv2.imwrite(str(folder / name), rng.integers(0, 255, (90, 70, 3), dtype=np.uint8))
    (folder / "notes.txt").write_text("no photo")
    return folder


def test_predict_draws_and_writes_key_points(run: training.FitResult, photos: Path, tmp_path: Path) -> None:
    weights, out = run.folder / "weights/best.safetensors", tmp_path / "out"
    paths = training.predict(None, weights, [photos, photos / "b.jpg"], out=out, save_keypoints=tmp_path / "k.json")
    assert [path.name for path in paths] == ["a.png", "b.png", "b-2.png"]
    assert all(cv2.imread(str(path)).shape == (90, 70, 3) for path in paths)
    rows = json.loads((tmp_path / "k.json").read_text())
    assert [Path(row["image"]).name for row in rows] == ["a.png", "b.jpg", "b.jpg"]
    points = np.array(rows[0]["persons"][0]["keypoints"])
    assert points.shape == (17, 2)
    assert rows[0]["joints"][0] == "nose"


def test_predict_never_writes_over_its_input(run: training.FitResult, photos: Path) -> None:
    before = (photos / "a.png").read_bytes()
    (path,) = training.predict(None, run.folder / "weights/best.safetensors", [photos / "a.png"], out=photos)
    assert path.name == "a-2.png"
    assert (photos / "a.png").read_bytes() == before


def test_predict_never_writes_over_any_file(run: training.FitResult, photos: Path) -> None:
    weights = run.folder / "weights/best.safetensors"
    (photos / "b.png").write_bytes((photos / "a.png").read_bytes())  # b.jpg would be drawn to b.png, another input
    (photos / "a-2.png").symlink_to(photos / "absent.png")
    before = {path: path.read_bytes() for path in photos.iterdir() if path.is_file()}
    inputs = [photos / "a.png", photos / "b.jpg", photos / "b.png"]
    first = training.predict(None, weights, inputs, out=photos)
    assert [path.name for path in first] == ["a-3.png", "b-2.png", "b-3.png"]
    (again,) = training.predict(None, weights, [photos / "b.jpg"], out=photos)
    assert again.name == "b-4.png"
    assert {path: path.read_bytes() for path in before} == before
    assert not (photos / "absent.png").exists()


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        (lambda photos: [photos / "absent.jpg"], "absent.jpg: no such file"),
        (lambda photos: [photos.parent / "empty"], "no image in it"),
        (lambda photos: [photos / "notes.txt"], "not a JPEG, PNG, BMP or WebP file"),
    ],
)
def test_a_bad_input_is_one_sentence(
    run: training.FitResult, photos: Path, inputs: Callable[[Path], list[Path]], sentence: str
) -> None:
    (photos.parent / "empty").mkdir()
    with pytest.raises((ValueError, FileNotFoundError), match=sentence):
        training.predict(None, run.folder / "weights/best.safetensors", inputs(photos), out=photos.parent / "out")


def test_predict_refuses_weights_of_another_recipe(run: training.FitResult, photos: Path) -> None:
    with pytest.raises(ValueError, match="holds weights of recipe sagan/tiny, expected sagan/demo"):
        training.predict("sagan/demo", run.folder / "weights/best.safetensors", [photos])


def test_configurations_survive_the_round_trip() -> None:
    for name in ("ours-c", "demo", "lspet-small-gan"):
        config = config_of(name)
        assert configuration.from_dict(sagan.SaganConfig, configuration.to_dict(config)) == config
