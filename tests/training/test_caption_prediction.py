"""Captions at work: which files are made, what they hold, and what is refused before any is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from caption_weights import Encoder, captioned, plain

from fastpose import training
from fastpose.data import keypoint_files
from fastpose.data.images import read_image
from fastpose.training import caption_prediction
from fastpose.training.caption_generation import PoseGenerator
from fastpose.training.caption_prediction import file_name, read_captions

TEXTS = ["A man, playing tennis!", "a woman doing yoga"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("captions")


@pytest.fixture(scope="module")
def weights(folder) -> Path:
    return captioned(folder)


@pytest.fixture(scope="module")
def free(folder) -> Path:
    """Weights of an unconditional generator."""
    return plain(folder)


def test_a_caption_becomes_two_pictures_and_key_points(weights, tmp_path):
    options = {"count": 3, "seed": 4, "encoder": Encoder(), "out": tmp_path / "out"}
    paths = training.generate("caption/tiny", weights, TEXTS[0], **options)
    name = "a-man-playing-tennis"
    assert [path.name for path in paths] == [f"{name}.png", f"{name}_heatmaps.png", f"{name}.json"]
    expected = PoseGenerator.from_weights(weights, Encoder())(TEXTS[0], 3, seed=4)
    rows = json.loads(paths[2].read_text())
    assert [row["image"] for row in rows] == [f"{name}_{k}" for k in (1, 2, 3)]
    for k, row in enumerate(rows):
        assert row["persons"][0]["keypoints"] == expected.keypoints[k].tolist()
        assert row["persons"][0]["visible"] == expected.visibility[k].tolist()
        assert (row["caption"], row["number"], row["seed"]) == (TEXTS[0], k + 1, 4)
        assert (row["recipe"], row["encoder"], row["skeleton"], row["size"]) == (
            "caption/tiny",
            "toy",
            "coco",
            [64, 64],
        )
    assert read_image(paths[0]).shape == read_image(paths[1]).shape
    assert np.isin(read_image(paths[0]), 255).mean() > 0.5


def test_the_key_points_are_target_poses_of_pose_transfer(weights, tmp_path):
    *_, path = training.generate(None, weights, TEXTS, count=2, encoder=Encoder(), out=tmp_path)
    assert path.name == "poses.json"
    rows = json.loads(path.read_text())
    rows[0]["persons"][0] |= {"scores": [1.0] * 5 + [0.0] * 12}
    path.write_text(json.dumps(rows))
    poses = keypoint_files.read(path)
    assert [pose.name for pose in poses] == [row["image"] for row in rows]
    assert len({pose.name for pose in poses}) == 4
    assert poses[0].size == (64, 64)
    assert poses[0].visibility.sum() == 5


def test_files_that_are_there_stay_and_all_of_a_call_have_one_number(weights, tmp_path):
    (tmp_path / "poses_heatmaps.png").write_text("mine")
    paths = training.generate(None, weights, TEXTS, count=1, encoder=Encoder(), out=tmp_path)
    assert [path.name for path in paths] == ["poses-2.png", "poses_heatmaps-2.png", "poses-2.json"]
    assert (tmp_path / "poses_heatmaps.png").read_text() == "mine"


def test_noise_alone_makes_poses_of_unconditional_weights(free, tmp_path):
    *_, path = training.generate(None, free, count=5, out=tmp_path)
    rows = json.loads(path.read_text())
    assert [(row["caption"], row["encoder"], row["image"]) for row in rows] == [
        (None, None, f"poses_{k}") for k in range(1, 6)
    ]
    for captions, options, sentence in (
        (TEXTS, {}, "the network is unconditional"),
        (None, {"encoder": "sample"}, "the network is unconditional, and reads no captions"),
        (None, {"interpolate": "captions"}, "interpolate: the weights are unconditional"),
    ):
        with pytest.raises(ValueError, match=sentence):
            training.generate(None, free, captions, **options, out=tmp_path / "no")
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("kind", ["noise", "captions"])
def test_interpolations_say_where_each_pose_lies(weights, tmp_path, kind):
    options = {"interpolate": kind, "encoder": Encoder(), "out": tmp_path, "spherical": True}
    *_, path = training.generate(None, weights, [*TEXTS, TEXTS[0]], **options)
    assert path.name == "interpolation.json"
    rows = json.loads(path.read_text())
    assert [row["at"] for row in rows[:5]] == [0, 0.25, 0.5, 0.75, 1]
    assert {row["interpolated"] for row in rows} == {kind}
    assert {(row["spherical"], row["count"], row["fingerprint"]) for row in rows} == {(True, 5, Encoder().fingerprint)}
    first = [row["caption"] for row in rows[:5]]
    if kind == "noise":
        assert (len(rows), first) == (10, [TEXTS[0]] * 5)
        assert "between" not in rows[0]
    else:
        assert (len(rows), first) == (10, [TEXTS[0], None, None, None, TEXTS[1]])
        assert rows[0]["between"] == TEXTS
        assert rows[5]["between"] == TEXTS[::-1]


def test_very_many_poses_are_all_in_the_file_and_some_in_the_picture(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(caption_prediction, "_SHOWN", 2)
    monkeypatch.setattr(caption_prediction, "_SHOWN_TOGETHER", 2)
    picture, _, path = training.generate(None, weights, TEXTS, count=4, encoder=Encoder(), out=tmp_path)
    assert len(json.loads(path.read_text())) == 8
    assert read_image(picture).shape[1] < 3 * 200
    with pytest.raises(ValueError, match="count: expected at most 100,000 poses at a time, got 60,000 of each caption"):
        training.generate(None, weights, TEXTS, count=60_000, encoder=Encoder(), out=tmp_path)


def test_captions_without_letters_in_the_font_have_numbers_for_titles(weights, tmp_path):
    texts = [TEXTS[0], "テニスをする人"]
    with pytest.warns(
        UserWarning, match="caption 'テニスをする人': the pictures' font has not all letters of it"
    ) as told:
        *_, path = training.generate(None, weights, texts, count=1, encoder=Encoder(), out=tmp_path)
    assert len(told) == 1
    rows = json.loads(path.read_text())
    assert [(row["caption"], row.get("titles")) for row in rows] == [(texts[0], None), (texts[1], ["caption 2"])]
    assert caption_prediction.titles(texts[:1] * 2) == {texts[0]: texts[0]}


def test_an_encoder_file_of_the_weights_that_is_not_here_is_named(tmp_path):
    weights = captioned(tmp_path, "text.encoder=enc/ok.vec")
    sentence = r"enc/ok.vec: no such file here; .* \(fingerprint 0123456789abcdef\) as encoder \(--encoder FILE\)"
    with pytest.raises(FileNotFoundError, match=sentence):
        PoseGenerator.from_weights(weights)


def test_captions_come_from_files_too(tmp_path):
    (tmp_path / "a.txt").write_text("\ufeffone  man\n\n  two men \n", encoding="utf-8")
    path = tmp_path / "a.txt"
    assert read_captions([f"@{path}", "three\nmen", str(path), path]) == [
        *("one man", "two men", "three men"),
        *("one man", "two men") * 2,
    ]
    assert read_captions("a man reads notes.txt") == ["a man reads notes.txt"]
    assert read_captions(["@@home a man reads", "@@ home"]) == ["@home a man reads", "@ home"]
    assert read_captions(None) == []
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00\xd8")
    for wrong, error, sentence in (
        (f"@{tmp_path}/none", FileNotFoundError, "no such file; expected one caption per line"),
        ("none.txt", FileNotFoundError, "captions none.txt: no such file"),
        (tmp_path / "empty.txt", ValueError, "is empty; expected one caption per line"),
        (tmp_path / "binary.txt", ValueError, "expected UTF-8 text"),
        (["@@"], ValueError, "caption: expected a text with a word in it, got '@@'"),
        ([" "], ValueError, "caption: expected a text with a word in it, got ' '"),
    ):
        with pytest.raises(error, match=sentence):
            read_captions(wrong)


def test_any_caption_makes_a_file_name():
    assert file_name("../../A/b: C?") == "a-b-c"
    assert file_name("日本 の 猫") == "日本-の-猫"
    assert file_name("!?") == "poses"
    assert len(file_name("word " * 100)) == 99  # no hyphen at its end
    assert file_name("猫" * 100) == "猫" * 33  # three bytes each
    assert file_name("𝔸b" * 60) == "𝔸b" * 20


@pytest.mark.parametrize(
    ("captions", "options", "sentence"),
    [
        ([], {}, "captions: the weights make poses from captions; name one, such as"),
        (TEXTS[:1], {"interpolate": "captions"}, "interpolate: expected two captions or more to go between, got 1"),
        (TEXTS, {"interpolate": "voice"}, "interpolate: expected one of noise, captions, got 'voice'"),
        (TEXTS, {"interpolate": "noise", "count": 1}, "count: expected 2 poses or more with interpolate, the two ends"),
        (TEXTS, {"count": 0}, "count: expected a whole number of 1 or more, got 0"),
        (TEXTS, {"seed": -1}, "seed: expected a whole number of 0 or more, got -1"),
        (TEXTS, {"overrides": ["text.scale=3"]}, r"text.scale: the training of .* fixed it"),
        (TEXTS, {"overrides": ["model.noise=3"]}, r"model.noise: the weights .* fix the network"),
        (TEXTS, {"encoder": "nowhere.vec"}, "text.encoder: nowhere.vec: no such file"),
        (
            TEXTS,
            {"overrides": ["text.encoder=nowhere.bin"], "encoder": None},
            r"nowhere.bin: no such file here; pass the one that .* with \(fingerprint 0123456789abcdef\) as encoder",
        ),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(weights, tmp_path, captions, options, sentence):
    with pytest.raises((ValueError, FileNotFoundError), match=sentence):
        training.generate(None, weights, captions, **{"encoder": Encoder(), **options}, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_that_diverged_or_are_of_another_recipe_are_refused(weights, tmp_path):
    with pytest.raises(ValueError, match="holds NaN or infinite values; take other weights"):
        training.generate(None, captioned(tmp_path, value=float("nan")), TEXTS, encoder=Encoder(), out=tmp_path / "o")
    with pytest.raises(ValueError, match="holds weights of recipe caption/tiny, expected caption/wgan-lp"):
        training.generate("caption/wgan-lp", weights, TEXTS, encoder=Encoder(), out=tmp_path / "out")
