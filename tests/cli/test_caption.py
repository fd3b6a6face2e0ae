"""`predict` and `demo` of the system that makes poses from captions."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from unittest.mock import Mock

import pytest
import yaml
from caption_weights import plain
from drawing_weights import save

from fastpose.cli import demo
from fastpose.cli.predict import split_captions
from fastpose.data import captions, text
from fastpose.training import caption, list_recipes, load_recipe
from fastpose.visual import curves

KNOWN = ["caption/tiny", "caption/wgan-lp"]
KEYS = ["run.device", "data.root"]


@pytest.fixture(scope="module")
def making(tmp_path_factory) -> Path:
    """Tiny weights that know the bundled captions."""
    encoder = text.create("sample")
    folder = tmp_path_factory.mktemp("making")
    return save(folder, "caption/tiny", f"text.size={encoder.size}", f"text.fingerprint={encoder.fingerprint}")


@pytest.fixture(scope="module")
def free(tmp_path_factory) -> Path:
    """Tiny weights without captions."""
    return plain(tmp_path_factory.mktemp("free"))


@pytest.fixture(scope="module")
def known() -> tuple[str, ...]:
    """Two bundled captions."""
    return captions.sample("val").captions[:2]


@pytest.mark.parametrize("recipe", [[], ["caption/tiny"]])
def test_predict_makes_poses_of_a_caption(run, making, known, recipe):
    code, out, err = run("predict", *recipe, known[0], "--weights", making, "--count", 2, "--seed", 5, "-o", "out")
    assert (code, err) == (0, "")
    paths = [Path(line) for line in out.splitlines()]
    assert [path.suffix for path in paths] == [".png", ".png", ".json"]
    rows = json.loads(paths[2].read_text())
    assert [(row["caption"], row["seed"], row["encoder"]) for row in rows] == [(known[0], 5, "minilm")] * 2


def test_predict_takes_files_of_captions_overrides_and_an_encoder(run, making, known, tmp_path):
    (tmp_path / "two.txt").write_text("\n".join(known))
    for word in ("two.txt", "@two.txt"):
        words = ["--encoder", "sample", "--interpolate", "captions", "--spherical", "run.device=cpu"]
        code, out, err = run("predict", word, "--weights", making, *words, "-o", "out")
        assert (code, err) == (0, "")
        rows = json.loads(Path(out.splitlines()[-1]).read_text())
        assert len(rows) == 5
        assert rows[0]["between"] == list(known)
        assert rows[0]["spherical"]


def test_warnings_are_lines_without_the_place_in_the_code(run, tmp_path):
    (tmp_path / "ok.vec").write_text("man 0.5 1.0\nwoman 1.0 0.5\n")
    weights = save(tmp_path, "caption/tiny", "text.size=2", "text.encoder=")
    code, _, err = run("predict", "日本", "--weights", weights, "--encoder", "ok.vec", "--count", 1, "-o", "out")
    assert code == 0
    lines = err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("fastpose: ok.vec: no word of 1 of 1 texts is known")
    assert lines[1].startswith("fastpose: caption '日本': the pictures' font has not all letters of it; they say 'capt")


def test_predict_needs_no_caption_where_noise_is_enough(run, free):
    code, out, err = run("predict", "--weights", free, "--count", 3, "-o", "out")
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == str(Path("out/poses.png"))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], 'captions: the weights make poses from captions; name one, such as "a man playing tennis"'),
        ([""], "caption: expected a text with a word in it, got ''"),
        (["a man no file knows"], "no vector for 'a man no file knows'; the file knows "),
        (["caption/tiny a man"], 'begins with the name of a recipe; put the quotes after it: caption/tiny "a man"'),
        (["a man", "caption/tiny"], "begins with the name of a recipe; it comes before all captions"),
        (["caption/tyni", "a man"], "caption 'caption/tyni': is no recipe; did you mean 'caption/tiny'"),
        (["caption/wgan-lp", "a man"], "holds weights of recipe caption/tiny, expected caption/wgan-lp"),
        (["photo.jpg"], "caption 'photo.jpg': is an image; the weights make poses from captions, expected a text"),
        (["@none"], "captions none: no such file; expected one caption per line"),
        (["a man", "--count", "0"], "count: expected a whole number of 1 or more, got 0"),
        (["a man", "--seed", "-1"], "seed: expected a whole number of 0 or more, got -1"),
        (["a man", "--interpolate", "captions"], "interpolate: expected two captions or more"),
        (["a man", "--interpolate", "noise", "--count", "1"], "count: expected 2 poses or more with interpolate"),
        (["a man", "--spherical"], "--spherical: is of interpolations; add --interpolate noise or captions"),
        (["a man", "--encoder", "minilmm"], "text.encoder: unknown encoder 'minilmm'; did you mean 'minilm'"),
        (["a man", "--pose", "p.json"], "--pose: of no use to the weights"),
        (["a man", "--save-keypoints", "k.json"], "--save-keypoints: of no use to the weights"),
        (["a man", "--explain"], "--explain: of no use to the weights"),
        (["a man", "--precision", "bf16"], "--precision: of no use to the weights"),
        (["a man", "--precision", "fp32", "--count", "0"], "count: expected a whole number of 1 or more, got 0"),
        (["a man", "text.scale=3"], "text.scale: the training of"),
        (["a man", "run.devise=cpu"], "unknown key 'run.devise'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_wrong_is_one_line(run, making, tmp_path, words, sentence):
    code, _, err = run("predict", *words, "--weights", making, "-o", "out")
    assert code == 2
    assert sentence in err
    assert err.startswith("fastpose: ")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--count", "--seed", "--encoder", "--interpolate"])
def test_options_of_captions_beside_other_weights_are_refused(run, photo, tmp_path, option):
    weights = save(tmp_path, "sagan/tiny")
    code, _, err = run("predict", photo, "--weights", weights, option, "0")
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(f"fastpose: {option}: the weights {weights} make no poses; expected those of poses from")


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["caption/wgan-lp", "a man"], "train caption/wgan-lp"),
        (["caption/wgan-gp"], "train caption/wgan-gp"),
        (["a man", "--count", "3"], "demo caption"),
    ],
)
def test_predict_without_weights_names_the_command_that_trains_some(run, words, command):
    code, _, err = run("predict", *words)
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(f"fastpose: predict needs trained weights; `fastpose {command}` makes them")


def test_captions_that_look_like_overrides():
    words = ["caption/tiny", "a.b=c d", "run.device=cpu", "data.root=my folder", "a.b=c", "x=1 is a man"]
    recipe, found, overrides = split_captions(words, KNOWN, KEYS)
    assert (recipe, found) == ("caption/tiny", ["a.b=c d", "x=1 is a man"])
    assert overrides == ["run.device=cpu", "data.root=my folder", "a.b=c"]  # the last is an unknown key, and said so
    assert split_captions(["mine.yaml", "man/woman"], KNOWN, KEYS) == ("mine.yaml", ["man/woman"], [])
    assert split_captions([], KNOWN, KEYS) == (None, [], [])


@pytest.fixture
def plain_plots(monkeypatch) -> None:
    """Let trainings draw no plots and no sample pictures, which take most of their seconds."""
    monkeypatch.setattr(caption.CaptionTrainer, "samples", lambda *_: {})
    monkeypatch.setattr(curves, "plot_curves", Mock(side_effect=ValueError))


def test_demo_trains_makes_poses_and_says_what_comes_next(run, monkeypatch, tmp_path, plain_plots):
    first = yaml.safe_load((resources.files("fastpose") / "recipes/caption/tiny.yaml").read_text())
    first["config"]["model"]["conditional"] = False
    del first["config"]["text"]
    (tmp_path / "first.yaml").write_text(yaml.safe_dump(first))
    monkeypatch.setitem(demo.FIRST, "caption", "first.yaml")
    monkeypatch.setitem(demo.RECIPES, "caption", "caption/tiny")
    code, out, err = run("demo", "caption", "run.max_steps=1", "test.samples=8", "test.r_precision=0")
    assert code == 0, err
    for piece in ("1-NN", "report:", "fastpose predict caption/tiny", "--interpolate captions", "coco ROOT"):
        assert piece in out
    lines = {line.partition(":")[0]: Path(line.split()[-1]) for line in out.splitlines() if line.startswith("runs", 10)}
    for label, suffix in (("poses", ".png"), ("heatmaps", ".png"), ("joints", ".json")):
        assert lines[label].suffix == suffix
        assert (tmp_path / lines[label]).stat().st_size


def test_the_recipes_that_the_demo_names_are_there():
    words = [line.split() for line in demo._REAL["caption"]]
    named = [line[line.index("train") + 1] for line in words]
    assert set(named) <= set(list_recipes())
    assert [load_recipe(name).config.model.conditional for name in named] == [False, True]
