"""The data section of pose transfer: sizes, splits, what the networks are given."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch

from fastpose import data
from fastpose.training import transfer_data
from fastpose.training.transfer_data import TransferDataConfig

SAMPLE = TransferDataConfig(name="sample-pairs")


def batch_of(dataset, count=3):
    return torch.utils.data.default_collate([dataset[index] for index in range(count)])


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"name": "marked"}, "did you mean 'market'"),
        ({"pose_map": "binari"}, "did you mean 'binary'"),
        ({"height": 64}, "expected both or neither, got 64 x 0"),
        ({"sigma": 0.0}, "data.sigma: expected a positive number"),
        ({"holdout": 1.0}, "data.holdout: expected a share"),
        ({"samples_per_epoch": -1}, "data.samples_per_epoch: expected 0 or more"),
        ({"pairs_per_font": 0}, "data.pairs_per_font: expected 1 or more"),
    ],
)
def test_bad_values_are_named(overrides, words):
    with pytest.raises(ValueError, match=words):
        TransferDataConfig(**overrides)


@pytest.mark.parametrize(
    ("config", "size", "channels"),
    [
        (TransferDataConfig(), (128, 64), 18),
        (TransferDataConfig(name="deepfashion"), (256, 256), 18),
        (TransferDataConfig(name="deepfashion", crop="176"), (256, 176), 18),
        (TransferDataConfig(name="deepfashion", crop="176", height=128, width=88), (128, 88), 18),
        (TransferDataConfig(name="semantic"), (256, 256), 16),
        (TransferDataConfig(name="fonts"), (256, 256), 1),
    ],
)
def test_sizes_and_guides(config, size, channels):
    assert transfer_data.image_size(config) == size
    assert transfer_data.guide_channels(config) == channels


def test_a_single_list_is_divided():
    divided = TransferDataConfig(name="deepfashion", split="test", holdout=0.2)
    assert transfer_data.split_name(divided, "validation") == "val"
    assert transfer_data.split_name(TransferDataConfig(name="deepfashion"), "validation") == "test"


def test_the_networks_see_both_sides():
    train = transfer_data.train_dataset(SAMPLE, seed=0)
    inputs = transfer_data.prepare(batch_of(train), SAMPLE)
    assert inputs.source.shape == inputs.target.shape == (3, 3, 128, 64)
    assert inputs.guides.shape == (3, 36, 128, 64)
    assert inputs.source.min() >= -1
    assert inputs.source.max() <= 1
    assert torch.equal(inputs.guides[:, :18], inputs.source_guide)


def test_a_pose_map_peaks_at_its_joint():
    config = TransferDataConfig(name="market", pose_map="gaussian_rounded", sigma=6.0)
    keypoints, visibility = torch.zeros(1, 18, 2), torch.zeros(1, 18)
    keypoints[0, 4], visibility[0, 4] = torch.tensor([20.0, 70.0]), 1
    maps = transfer_data.draw_guide({"keypoints": keypoints, "visibility": visibility}, (128, 64), config)
    assert maps[0, 4, 70, 20] == 1
    assert maps[0, 4, 70, 26].item() == pytest.approx(np.exp(-0.5), abs=1e-6)  # 6 pixels away: one sigma
    assert maps.sum() == maps[0, 4].sum()


def test_binary_maps_have_one_pixel():
    config = TransferDataConfig(name="market", pose_map="binary")
    side = {"keypoints": torch.full((1, 18, 2), 10.0), "visibility": torch.ones(1, 18)}
    assert transfer_data.draw_guide(side, (128, 64), config).sum() == 18


def test_every_pixel_belongs_to_one_part_mask():
    labels = torch.tensor([[[0, 1], [15, 5]]], dtype=torch.uint8)
    masks = transfer_data.draw_guide({"labels": labels}, (2, 2), TransferDataConfig(name="semantic"))
    assert masks.shape == (1, 16, 2, 2)
    assert torch.equal(masks.sum(1), torch.ones(1, 2, 2))
    assert masks[0, 0, 0, 0] == masks[0, 1, 0, 1] == masks[0, 15, 1, 0] == masks[0, 5, 1, 1] == 1


def test_bytes_and_back():
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(1, 3, 1, 1)
    assert torch.equal(transfer_data.to_bytes(transfer_data.to_network(images)), images)
    assert transfer_data.to_bytes(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]


def test_a_part_of_the_validation_pairs_is_spread_over_them():
    whole = transfer_data.validation_dataset(SAMPLE, seed=0)
    part = transfer_data.validation_dataset(TransferDataConfig(name="sample-pairs", validation_pairs=3), seed=0)
    assert [int(part[index]["index"]) for index in range(3)] == [0, round((len(whole) - 1) / 2), len(whole) - 1]
    assert torch.equal(part[(5, 2)]["source_image"], whole[len(whole) - 1]["source_image"])
    assert part.source is not None


def test_training_persons_are_not_validated(monkeypatch):
    config = TransferDataConfig(name="sample-pairs", split="all", validation_split="val")
    with pytest.raises(ValueError, match="identities are in both"):
        transfer_data.train_dataset(config, seed=0)


@pytest.mark.parametrize(
    ("options", "given"),
    [
        ({"tolerance": 0.0}, {"tolerance": 0.0}),
        ({"tolerance": 8.0, "annotation": "A"}, {"tolerance": 8.0, "annotation": "A"}),
        ({"holdout": 0.2}, {"holdout": 0.2, "tolerance": 32.0}),
    ],
)
def test_only_what_is_empty_is_left_to_the_data_set(options, given, monkeypatch):
    seen = {}
    monkeypatch.setattr(data, "create", lambda name, root, split, **options: seen.update(options))
    transfer_data.source(TransferDataConfig(name="semantic", **options), "train")
    assert given.items() <= seen.items()
    assert "pair_list" not in seen
    assert ("holdout" in seen) == ("holdout" in options)
    assert ("annotation" in seen) == ("annotation" in options)


def test_one_split_for_both_is_said(caplog):
    transfer_data.train_dataset(TransferDataConfig(name="sample-pairs", split="val"), seed=0)
    assert "trained and validated on alike" in caplog.text


def test_every_kind_is_a_data_set():
    assert set(transfer_data._KINDS) <= set(data.list())


@pytest.mark.parametrize("name", transfer_data._KINDS)
def test_the_options_are_those_of_the_class(name):
    known = set(inspect.signature(data._SOURCES[name]).parameters)
    assert set(transfer_data._KINDS[name].options) <= known
