"""`fastpose compose`: a caption, a photograph and two weights files become pictures, or one line says why not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from drawing_weights import SMALL, save

from fastpose.data import captions
from fastpose.training import composition
from fastpose.visual.grids import save_image

SIZE = (60, 40)


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> dict[str, Path]:
    """Tiny weights by kind."""
    folder = tmp_path_factory.mktemp("composing")
    files = {"caption": save(folder, "caption/tiny", "text.size=384"), "pose": save(folder, "pona/tiny")}
    files["parts"] = save(folder, "multiscale/semantic", *SMALL)
    (folder / "noise").mkdir()
    return files | {"noise": save(folder / "noise", "caption/tiny", "model.conditional=no")}


@pytest.fixture
def words(made, tmp_path) -> list[object]:
    """A command line that works, without the caption."""
    person = {"keypoints": np.random.default_rng(1).uniform([12, 5], [28, 55], (17, 2)).tolist(), "scores": [1.0] * 17}
    row = {"image": "anna.png", "size": SIZE, "skeleton": "coco", "persons": [person]}
    (tmp_path / "k.json").write_text(json.dumps([row]))
    (tmp_path / "o.json").write_text(json.dumps([row | {"image": "otto.png"}]))
    save_image(tmp_path / "anna.png", np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8))
    (tmp_path / "text.png").write_bytes(b"no image at all")
    options = {"--person": "anna.png", "--caption-weights": made["caption"], "--weights": made["pose"]}
    return [word for pair in (options | {"--keypoints": "k.json", "-o": "out"}).items() for word in pair]


@pytest.fixture(scope="session")
def text() -> str:
    return captions.sample("train").captions[0]


def test_a_caption_becomes_pictures(run, words, text, tmp_path):
    code, out, err = run("compose", text, *words, "--count", 2, "--seed", 1, "run.device=cpu")
    assert (code, err) == (0, "")
    assert sorted(out.split()) == sorted(str(path.relative_to(tmp_path)) for path in (tmp_path / "out").iterdir())
    assert len(out.split()) == 8


def test_poses_that_are_not_drawn_are_a_line_on_stderr(run, words, text, monkeypatch):
    monkeypatch.setattr(composition.Composed, "joints", property(lambda one: 3 if one.number == 1 else 17))
    code, out, err = run("compose", text, *words, "--count", 2)
    assert code == 0
    few = "not drawn, having fewer than 8 joints: pose 1 (3 joints); take more poses or another seed"
    assert err == f"fastpose: {text!r}: {few}\n"
    assert len(out.split()) == 5


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"caption": ""}, "caption: expected a text with a word in it, got ''"),
        ({"caption": "a text nobody wrote"}, "no vector for 'a text nobody wrote'"),
        (
            {"--caption-weights": "pose", "--weights": "caption"},
            "makes no poses; expected those of poses from captions",
        ),
        ({"--caption-weights": "pose", "--weights": "caption"}, "the two are exchanged"),
        ({"--caption-weights": "parts"}, "are of system multiscale, which makes no poses"),
        ({"--caption-weights": "noise"}, "caption weights: make poses from noise alone"),
        ({"--caption-weights": "none.safetensors"}, "checkpoint none.safetensors: no such file"),
        ({"--weights": "parts"}, "weights: are guided by semantic maps; expected weights guided by poses"),
        ({"--weights": "noise"}, "are of system caption, which draws nobody"),
        ({"--weights": "k.json"}, "k.json"),
        ({"--person": "none.png"}, "none.png: no such file"),
        ({"--person": "text.png"}, "text.png"),
        ({"--keypoints": "o.json"}, "photograph anna.png: its key points are not known; o.json has 1 poses"),
        ({"--keypoints": None}, "its key points are not known; pass --keypoints FILE"),
        ({"--pose-weights": "caption", "--keypoints": None}, "system caption: finds no key points"),
        ({"--encoder": "nonsense"}, "unknown encoder 'nonsense'"),
        ({"--count": 0}, "count: expected a whole number of 1 or more, got 0"),
        ({"--seed": -1}, "seed: expected a whole number of 0 or more, got -1"),
        ({"-o": "k.json"}, "out: expected a folder, k.json is a file"),
        ({"extra": "model.noise=3"}, "model.noise: the weights fix it"),
        ({"extra": "text.encoder=minilm"}, "text.encoder: the weights fix it; pass the encoder with --encoder"),
        ({"caption": "photo.jpg"}, "caption 'photo.jpg': is an image"),
        ({"caption": "caption/tiny", "extra": "a man"}, "compose: 'caption/tiny' is a recipe; the weights name theirs"),
        ({"caption": "a.b=c is what a man writes"}, "no vector for 'a.b=c is what a man writes'"),
        ({"--person": "."}, "person .: is a folder; expected one photograph"),
        ({"--persons": "anna.png"}, "unknown option of fastpose compose: '--persons'; did you mean '--person'"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_done_is_one_line(run, words, made, text, tmp_path, change, sentence):
    options = dict(zip(words[::2], words[1::2], strict=True)) | change
    first = [options.pop("caption", text), *([options.pop("extra")] if "extra" in options else [])]
    given = [made.get(word, word) for pair in options.items() if pair[1] is not None for word in pair]
    before = sorted(tmp_path.iterdir())
    code, _, err = run("compose", *first, *given)
    assert code == 2, err
    assert sentence in err
    assert err.startswith("fastpose: ")
    assert err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_a_caption_is_needed(run, words):
    code, _, err = run("compose", "run.device=cpu", *words)
    assert (code, err) == (2, "fastpose: caption: expected a text, got none\n")
