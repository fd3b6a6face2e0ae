"""`predict`, `try-on`, `import`, `export` and `demo` of the systems that draw persons."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from drawing_weights import SMALL, save

from fastpose.cli import demo, export
from fastpose.data.images import read_image
from fastpose.training import load_recipe, systems
from fastpose.visual.grids import save_image

SIZE = (60, 40)


@pytest.fixture(scope="session")
def drawing(tmp_path_factory) -> dict[str, Path]:
    """Tiny weights of pose transfer, of parts and of letters."""
    folder = tmp_path_factory.mktemp("drawing")
    made = {"pose": save(folder, "pona/tiny"), "parts": save(folder, "multiscale/semantic", *SMALL)}
    return {**made, "letters": save(folder, "multiscale/fonts", *SMALL)}


@pytest.fixture
def person(tmp_path) -> Path:
    """A photograph `person.png`, its key points in `k.json`, two other poses in `p.json`."""
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    (tmp_path / "k.json").write_text(json.dumps([row("person.png", 0)]))
    (tmp_path / "p.json").write_text(json.dumps([row("one.png", 1), row("two.png", 2)]))
    return save_image(tmp_path / "person.png", pixels)


def row(name: str, seed: int) -> dict:
    points = np.random.default_rng(seed).uniform([12, 5], [28, 55], (17, 2)).tolist()
    persons = [{"keypoints": points, "scores": [1.0] * 17}]
    return {"image": name, "size": SIZE, "skeleton": "coco", "persons": persons}


# ---- predict ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", [[], ["pona/tiny"]])
def test_a_sequence_of_poses_is_drawn(run, drawing, person, tmp_path, recipe):
    words = ["person.png", "--weights", drawing["pose"], "--keypoints", "k.json", "--pose", "p.json", "-o", "out"]
    code, out, err = run("predict", *recipe, *words)
    assert (code, err) == (0, "")
    names = ["person_one.png", "person_two.png", "person_sheet.png", "person.gif", "person.mp4"]
    assert out.split() == [str(Path("out") / name) for name in names]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(names)
    assert not np.array_equal(read_image(tmp_path / "out/person_one.png"), read_image(tmp_path / "out/person_two.png"))


def test_a_photograph_as_target_takes_its_pose_from_the_file_or_a_network(run, drawing, weights, person, photo):
    base = ["predict", "person.png", "--weights", drawing["pose"], "--pose", photo]
    code, _, err = run(*base, "--keypoints", "k.json")
    assert code == 2
    assert err.startswith(f"fastpose: photograph {photo}: its key points are not known; k.json has 1 poses, none of")
    code, _, err = run(*base, "--pose-weights", weights, "-o", "out")
    # A network trained for one step is sure of no joint: that, too, is one sentence.
    assert code == 0 or "no joint of pose" in err
    assert err.count("\n") <= 1


def test_explain_draws_what_happens_inside(run, drawing, person, tmp_path):
    words = ["--keypoints", "k.json", "--pose", "k.json", "--explain", "-o", "out"]
    code, out, err = run("predict", person, "--weights", drawing["pose"], *words)
    assert (code, err) == (0, "")
    written = [Path(word).name for word in out.split()]
    assert written == ["person_person.png", "person_sheet.png", "person_features.png", "person_attention.png"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "nothing says what to draw; name target poses with --pose"),
        (["--pose", "p.json"], "photograph person.png: its key points are not known; pass --keypoints FILE"),
        (["--pose", "none.json", "--keypoints", "k.json"], "--pose none.json: no such file or folder"),
        (["--pose", "p.json", "--keypoints", "none.json"], "key points none.json: no such file"),
        (["--pose", "p.json", "--keypoints", "p.json"], "p.json has 2 poses, none of that name"),
        (["--pose", "p.json", "--keypoints", "person.png"], "person.png: not a text file"),
        (["--pose", "p.json", "--pose-weights", "none.safetensors"], "checkpoint none.safetensors: no such file"),
        (["--pose", "p.json", "--letters", "A"], "--letters: of no use to a generator guided by poses"),
        (["--pose", "p.json", "--save-keypoints", "x.json"], "--save-keypoints: the weights"),
        (["--pose", "p.json", "--precision", "bf16"], "--precision: is of key points"),
        (["--precision", "fp32"], "nothing says what to draw; name target poses with --pose"),
        (["--pose", "k.json", "--keypoints", "k.json", "model.blocks=3"], "model.blocks: the weights"),
        (["--pose", "k.json", "--keypoints", "k.json", "test.flop=3"], "unknown key 'test.flop'"),
        (["--pose", "broken.json", "--keypoints", "k.json"], "broken.json"),
        (["--poses", "k.json"], "unknown option of fastpose predict: '--poses'; did you mean '--pose'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_missing_is_one_line(run, drawing, person, tmp_path, words, sentence):
    (tmp_path / "broken.json").write_text('[{"skeleton": "coco", "image"')
    before = sorted(path.name for path in tmp_path.iterdir())
    code, _, err = run("predict", "person.png", "--weights", drawing["pose"], *words, "-o", "out")
    assert code == 2
    assert sentence in err
    assert err.startswith("fastpose: ")
    assert err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_the_key_points_must_be_of_this_photograph(run, drawing, person, tmp_path):
    save_image(person, np.zeros((120, 80, 3), np.uint8))
    words = ["--weights", drawing["pose"], "--pose", "p.json", "--keypoints", "k.json"]
    code, _, err = run("predict", "person.png", *words)
    assert code == 2
    assert "pose 'person.png' is of an image of 40 x 60 pixels, the photograph has 80 x 120" in err


def test_options_of_pose_transfer_beside_a_pose_network_are_refused(run, weights, photo):
    code, _, err = run("predict", photo, "--weights", weights, "--pose", photo)
    assert code == 2
    assert err.startswith("fastpose: --pose: the weights ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "checkpoint w.safetensors: no such file"),
        (b"", "checkpoint w.safetensors: is empty (0 bytes)"),
        (b"PK\x03\x04 and more", "of a PyTorch pickle"),
        (500, "that end before its tensors do (file truncated)"),
        ("foreign", "is safetensors but not of fastpose; 'fastpose import' converts"),
    ],
)
@pytest.mark.parametrize("guided", [True, False])
def test_broken_weights_are_called_broken_with_and_without_guides(
    run, drawing, person, tmp_path, content, sentence, guided
):
    from safetensors.torch import save_file

    path = tmp_path / "w.safetensors"
    if content == "foreign":
        save_file({"a": torch.ones(2)}, path)
    elif content is not None:
        path.write_bytes(drawing["pose"].read_bytes()[:content] if isinstance(content, int) else content)
    words = ["--pose", "p.json", "--keypoints", "k.json"] if guided else []
    code, _, err = run("predict", "person.png", "--weights", "w.safetensors", *words)
    assert code == 2
    assert sentence in err
    assert err.count("\n") == 1


def test_weights_of_another_recipe_are_refused(run, drawing, person):
    words = ["--weights", drawing["pose"], "--pose", "p.json", "--keypoints", "k.json"]
    code, _, err = run("predict", "pona/sample", "person.png", *words)
    assert code == 2
    assert "holds weights of recipe pona/tiny, expected pona/sample" in err


def test_letters_in_the_style_of_a_glyph(run, drawing, tmp_path):
    import matplotlib

    from fastpose.data import fonts

    font = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    save_image(tmp_path / "q.png", fonts.coloured(fonts.letter_mask(font, "Q", (50, 50)), np.array([200, 0, 0])))
    words = ["predict", "multiscale/fonts", "q.png", "--weights", drawing["letters"], "-o", "out"]
    code, out, err = run(*words, "--letters", "AB", "--font", font)
    assert (code, err) == (0, "")
    assert "out/q_A.png" in out
    for extra, sentence in (
        (["--letters", "AB"], "--font: expected with --letters"),
        (["--font", font], "--letters: expected with --font"),
        (["--letters", "a", "--font", font], "letter: expected one of ABC"),
        (["--letters", "A", "--font", "q.png"], "font q.png: cannot be read"),
        (["--letters", "A", "--font", "none.ttf"], "font none.ttf: no such file"),
        ([], "give --letters ABC with --font TTF"),
    ):
        code, _, err = run(*words, *extra)
        assert code == 2
        assert sentence in err
        assert err.count("\n") == 1


# ---- try-on ----------------------------------------------------------------------------------------------------


@pytest.fixture
def clothes(person, tmp_path) -> list[str]:
    """Words of a try-on that works."""
    labels = np.zeros((*SIZE, 3), np.uint8)
    labels[5:30, 5:30], labels[30:55, 5:30] = 1, 6
    save_image(tmp_path / "map.png", labels)
    return ["person.png", "--target-map", "map.png", "--reference", "person.png", "--reference-map", "map.png"]


@pytest.mark.parametrize("recipe", [[], ["multiscale/semantic"]])
def test_try_on_writes_one_image(run, drawing, clothes, tmp_path, recipe):
    words = ["try-on", *recipe, *clothes, "run.device=cpu", "--weights", drawing["parts"], "--parts", "top, 6", "-o"]
    code, out, err = run(*words, "worn.png")
    assert (code, out, err) == (0, "worn.png\n", "")
    assert read_image(tmp_path / "worn.png").shape == (32, 32, 3)
    assert run(*words, "worn.png") == (2, "", "fastpose: worn.png: exists already; name another file\n")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"--parts": "tpo"}, "unknown part 'tpo'; did you mean 'top'"),
        ({"--parts": ","}, "parts: expected at least one number or name"),
        ({"--parts": "0"}, "unknown part '0'"),
        ({"--parts": "2"}, "parts: none of 2 is in the target's map, which has 1, 6"),
        ({"--target-map": "none.png"}, "image none.png: no such file"),
        ({"--target-map": "person.png"}, "map person.png: colour"),
        ({"--reference": "k.json"}, "image k.json: not a JPEG"),
        ({"-o": "worn.gif"}, "--out worn.gif: expected a name that ends in .png, .jpg or .jpeg"),
        ({"--weights": "none.safetensors"}, "checkpoint none.safetensors: no such file"),
    ],
)
def test_try_on_names_what_is_wrong(run, drawing, clothes, tmp_path, change, sentence):
    options = dict(zip(clothes[1::2], clothes[2::2], strict=True))
    options |= {"--weights": drawing["parts"], "--parts": "top", "-o": "worn.png", **change}
    before = sorted(path.name for path in tmp_path.iterdir())
    code, _, err = run(
        "try-on", "multiscale/semantic", "person.png", *[word for pair in options.items() for word in pair]
    )
    assert code == 2
    assert sentence in err
    assert err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_try_on_dresses_one_person(run, drawing, clothes):
    options = [*clothes[1:], "--weights", drawing["parts"], "--parts", "top", "-o", "worn.png"]
    for words, sentence in (
        (["person.png", "person.png"], "try-on: expected one photograph of the person to be dressed, got 2"),
        (["multiscale/semantic"], "try-on: recipe 'multiscale/semantic' is there but no image"),
        (["person.png", "data.height=64"], "data.height: the training of"),
    ):
        code, _, err = run("try-on", *words, *options)
        assert (code, err.count("\n")) == (2, 1)
        assert sentence in err


# ---- import, export, demo --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "recipe", "overrides"),
    [("pona.generator", "pona/tiny", "model.norm=instance"), ("multiscale.generator", "multiscale/tiny", "")],
)
def test_published_weights_become_weights_that_predict_takes(run, person, tmp_path, model, recipe, overrides):
    from fastpose.models import _registry, published
    from fastpose.models._formats import FORMATS

    loaded = load_recipe(recipe, [overrides] if overrides else [])
    network = systems.get(loaded.system).network(loaded.config)
    rules = FORMATS[model].rules(_registry.defaults(model))
    theirs = {published.rename(key, rules): value for key, value in network.state_dict().items()}
    torch.save(theirs, tmp_path / "theirs.pth")
    assert run("recipes", "copy", recipe, "own.yaml")[0] == 0
    text = (tmp_path / "own.yaml").read_text()
    (tmp_path / "own.yaml").write_text(
        text.replace("  model:\n", "  model:\n    norm: instance\n") if overrides else text
    )
    code, out, err = run("import", model, "theirs.pth", "-o", "w.safetensors", "--recipe", "own.yaml")
    assert (code, err) == (0, "")
    assert "PERSON.jpg --keypoints K.json --pose POSE.json" in out
    words = [
        "predict",
        "own.yaml",
        "person.png",
        "--weights",
        "w.safetensors",
        "--pose",
        "p.json",
        "--keypoints",
        "k.json",
    ]
    assert run(*words, "-o", "out")[0] == 0


def test_import_writes_over_nothing(run, tmp_path):
    for name in ("w.safetensors", "w.json"):
        (tmp_path / name).write_text("mine")
        code, out, err = run("import", "hourglass", "no.pth", "-o", "w.safetensors")
        assert (code, out, err) == (2, "", f"fastpose: {name}: exists already; name another file\n")
        assert (tmp_path / name).read_text() == "mine"
        (tmp_path / name).unlink()


def test_promise_25_export_writes_over_nothing(run, drawing, tmp_path):
    for name in ("model.pt2", "model.part.pt2"):
        (tmp_path / name).write_text("mine")
    words = ["export", "pona/tiny", "--weights", drawing["pose"], "-o"]
    assert run(*words, "model.pt2") == (2, "", "fastpose: model.pt2: exists already; name another file\n")
    (tmp_path / "model.pt2").unlink()
    assert run(*words, "model.pt2")[0] == 0
    assert (tmp_path / "model.part.pt2").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.part.pt2", "model.pt2"]


@pytest.mark.parametrize("name", ["model.pt2", "model.onnx"])
def test_promise_25_a_folder_that_cannot_be_written_is_one_line(run, drawing, tmp_path, monkeypatch, name):
    (tmp_path / "a.txt").touch()
    words = ["export", "pona/tiny", "--weights", drawing["pose"], "-o"]
    code, _, err = run(*words, f"a.txt/{name}")
    assert (code, err.count("\n")) == (2, 1)

    def refuse(**options: object) -> None:
        raise PermissionError(13, "Permission denied", "out")

    monkeypatch.setattr(export.tempfile, "TemporaryDirectory", refuse)  # root may write everywhere
    assert run(*words, name) == (2, "", "fastpose: out: Permission denied\n")


@pytest.mark.parametrize(
    ("recipe", "shapes"),
    [
        ("sagan/tiny", {"image": (3, 64, 64)}),
        ("pona/deepfashion", {"image": (3, 256, 176), "guides": (36, 256, 176)}),
        ("multiscale/semantic", {"image": (3, 256, 256), "guides": (32, 256, 256)}),
        ("multiscale/fonts", {"image": (3, 256, 256), "guides": (2, 256, 256)}),
    ],
)
def test_the_shapes_of_an_export_come_from_the_configuration(recipe, shapes):
    loaded = load_recipe(recipe)
    assert export.input_shapes(systems.get(loaded.system), loaded.config) == shapes


def test_a_system_without_export_is_named(run, tmp_path):
    weights = save(tmp_path, "reid/tiny")
    code, _, err = run("export", "reid/tiny", "--weights", weights, "-o", "model.pt2")
    assert (code, err.count("\n")) == (2, 1)
    assert "system reid: is not exported" in err


@pytest.mark.parametrize("system", ["pona", "multiscale"])
def test_demo_of_another_system(run, monkeypatch, system):
    monkeypatch.setitem(demo.RECIPES, system, f"{system}/tiny")
    code, out, err = run("demo", system, "run.max_steps=1")
    assert code == 0, err
    for piece in ("SSIM", "report:", "weights:", f"fastpose predict {system}/tiny", "--pose", "fastpose recipes"):
        assert piece in out


def test_demo_offers_the_nearest_system(run):
    code, _, err = run("demo", "multiscal")
    assert (code, err) == (2, "fastpose: unknown system to demonstrate: 'multiscal'; did you mean 'multiscale'?\n")


@pytest.mark.parametrize("system", list(demo.RECIPES))
def test_demonstrations_train_on_the_bundled_sample(system):
    recipe = load_recipe(demo.RECIPES[system])
    assert recipe.system == system
    assert recipe.config.data.name.startswith("sample")
