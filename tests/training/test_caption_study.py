"""Pictures for the study of captions: real and generated poses drawn alike, names that do not tell, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from caption_weights import Encoder, captioned, plain

from fastpose.data import captions
from fastpose.data.images import read_image
from fastpose.training import caption_data, caption_pictures, caption_study
from fastpose.training.caption_generation import PoseGenerator


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return captioned(tmp_path_factory.mktemp("study"))


def written(weights: Path, out: Path, **options: object) -> list[dict[str, object]]:
    items = caption_study.write_items(weights, encoder=Encoder(), out=out, **options)
    assert items == out / "items.json"
    return json.loads(items.read_text())


def test_the_right_picture_is_the_real_pose_and_the_other_one_the_networks(weights, tmp_path):
    rows = written(weights, tmp_path, count=6, seed=3)
    poses = captions.sample("val")
    network = PoseGenerator.from_weights(weights, Encoder())
    noise = network.noise(6, 3)
    for k, row in enumerate(rows):
        (index,) = np.flatnonzero(poses.image_ids == row["photograph"])
        assert row["caption"] in poses.own_captions(index)
        shown = torch.from_numpy(poses.keypoints[[index]]), torch.from_numpy(poses.visibility[[index]] > 0)
        real = caption_pictures.drawn((caption_data.maps(*shown) + 1) / 2)
        made = caption_pictures.drawn(network.heatmaps(noise[[k]], network.encode([row["caption"]])))
        for key, picture in (("right", real[0]), ("wrong", made[0])):
            assert np.array_equal(read_image(tmp_path / row[key]), picture)
    assert (rows[0]["encoder"], rows[0]["seed"], rows[0]["recipe"]) == ("toy", 3, "caption/tiny")


def test_names_do_not_tell_and_a_seed_repeats_everything(weights, tmp_path):
    rows = written(weights, tmp_path / "a", count=8)
    assert len({row["photograph"] for row in rows}) == 8
    assert {row["right"][2:] for row in rows} == {row["wrong"][2:] for row in rows} == {"-1.png", "-2.png"}
    names = sorted(path.name for path in (tmp_path / "a").glob("*.png"))
    assert names == [f"{k:02d}-{place}.png" for k in range(1, 9) for place in (1, 2)]
    assert written(weights, tmp_path / "b", count=8) == rows
    other = written(weights, tmp_path / "c", count=3, seed=1, drawing="skeletons")
    assert [row["photograph"] for row in other] != [row["photograph"] for row in rows[:3]]
    assert np.median(read_image(tmp_path / "c" / other[0]["right"])) == 255  # skeletons stand on white


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"count": 0}, "count: expected a whole number of 1 or more, got 0"),
        ({"count": 500}, r"count: expected 1 to \d+, as many photographs with captions as sample val has, got 500"),
        ({"seed": -1}, "seed: expected a whole number of 0 or more"),
        ({"drawing": "stick"}, "drawing: expected one of heatmaps, skeletons, got 'stick'"),
        ({"overrides": ["text.scale=2"]}, r"text.scale: the training of .* \(run\.\*, text\.encoder, data\.\* may"),
        (
            {"overrides": ["data.validation_split=train"]},
            "photographs of the validation poses are in the training set too",
        ),
        ({"overrides": ["data.name=coco"]}, "data.root: data set 'coco' needs the folder"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(weights, tmp_path, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        written(weights, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_unconditional_weights_and_folders_with_files_are_refused(weights, tmp_path):
    with pytest.raises(ValueError, match="make poses from noise alone; a study of captions needs those of a cond"):
        caption_study.write_items(plain(tmp_path), out=tmp_path / "out")
    (tmp_path / "mine.txt").write_text("")
    with pytest.raises(ValueError, match=r"out: expected a new or an empty folder, .* has files in it; name another"):
        written(weights, tmp_path)
