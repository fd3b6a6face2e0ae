"""Samples: types, randomness from (seed, epoch, index) alone, mirrored joints, unreadable photographs."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from fastpose.data import KeypointDataset, transforms


def _same(first, second):
    return all(torch.equal(first[key], second[key]) for key in first)


def test_an_item_has_the_documented_types_and_shapes(tiny_source):
    item = KeypointDataset(tiny_source, image_size=(128, 96), heatmap_size=(32, 24))[2]
    found = {key: (tuple(value.shape), value.dtype) for key, value in item.items()}
    assert found == {
        "image": ((3, 128, 96), torch.uint8),
        "keypoints": ((14, 2), torch.float32),
        "visibility": ((14,), torch.float32),
        "to_image": ((2, 3), torch.float64),
        "index": ((), torch.int64),
    }
    assert item["index"] == 2


@pytest.mark.parametrize("crop", tuple(transforms.CROPS))
def test_to_image_leads_back_to_the_annotation(tiny_source, crop):
    item = KeypointDataset(tiny_source, crop=crop)[0]
    back = item["keypoints"].double() @ item["to_image"][:, :2].T + item["to_image"][:, 2]
    error = np.abs(back.numpy() - tiny_source.persons[0].keypoints)[item["visibility"].numpy() > 0]
    assert error.max() < (1e-4 if crop == "exact" else 200 * 0.35 / 64 / 2 + 1e-4)


def test_unlabelled_joints_are_zero(tiny_source):
    item = KeypointDataset(tiny_source, augment="newell")[0]
    unlabelled = 2 if item["keypoints"][3].any() else 3  # joints 2 and 3 swap in a mirrored sample
    assert item["visibility"][unlabelled] == 0
    assert (item["keypoints"][unlabelled] == 0).all()


def test_joints_outside_of_the_crop_are_not_visible(tiny_source):
    augment = transforms.Augmentation("close", "uniform", 0.9, flip_probability=0.0)
    items = [KeypointDataset(tiny_source, augment=augment)[(epoch, 0)] for epoch in range(20)]
    hidden = [item for item in items if item["visibility"].sum() < 13]
    assert hidden
    for item in hidden:
        assert ((item["keypoints"] > -0.51) & (item["keypoints"] < 63.51)).all()


def test_a_mirrored_sample_swaps_left_and_right(tiny_source):
    always = transforms.Augmentation("mirror", flip_probability=1.0)
    plain, mirrored = KeypointDataset(tiny_source)[0], KeypointDataset(tiny_source, augment=always)[0]
    order = list(tiny_source.skeleton.flip_permutation)
    assert torch.equal(mirrored["image"], plain["image"].flip(2))
    assert torch.equal(mirrored["visibility"], plain["visibility"][order])
    shown = mirrored["visibility"] > 0
    assert torch.allclose(mirrored["keypoints"][shown, 0], 63 - plain["keypoints"][order][shown, 0], atol=1e-4)


def test_a_sample_depends_on_seed_epoch_and_index_alone(tiny_source):
    first = KeypointDataset(tiny_source, augment="newell", seed=3)
    second = KeypointDataset(tiny_source, augment="newell", seed=3)
    second[(0, 1)]
    np.random.seed(0)  # noqa: NPY002 - the global state must not matter
    assert _same(first[(4, 2)], second[(4, 2)])


@pytest.mark.parametrize(("seed", "key"), [(4, (4, 2)), (3, (5, 2)), (3, (4, 3))])
def test_another_seed_epoch_or_index_gives_another_view(tiny_source, seed, key):
    reference = KeypointDataset(tiny_source, augment="newell", seed=3)[(4, 2)]
    assert not torch.equal(
        KeypointDataset(tiny_source, augment="newell", seed=seed)[key]["to_image"], reference["to_image"]
    )


def test_another_stream_gives_another_view(tiny_source):
    one, other = (KeypointDataset(tiny_source, augment="newell", seed=3, stream=stream)[(4, 2)] for stream in (1, 2))
    assert not torch.equal(one["to_image"], other["to_image"])


def test_an_integer_index_is_epoch_zero(tiny_source):
    dataset = KeypointDataset(tiny_source, augment="newell")
    assert _same(dataset[1], dataset[(0, 1)])


def test_without_augmentation_epochs_are_alike(tiny_source):
    dataset = KeypointDataset(tiny_source)
    assert _same(dataset[(0, 1)], dataset[(9, 1)])


def test_promise_17_an_unreadable_photograph_names_index_and_path(tiny_source):
    tiny_source.persons[4].image.write_bytes(b"")
    with pytest.raises(ValueError, match=r"tiny person 4: image .*4\.png: the file is empty"):
        KeypointDataset(tiny_source)[4]


def test_promise_17_an_absent_photograph_stays_a_file_error(tiny_source):
    tiny_source.persons[4].image.unlink()
    with pytest.raises(FileNotFoundError, match="tiny person 4: image"):
        KeypointDataset(tiny_source)[4]


def test_promise_17_skip_replaces_deterministically_and_logs_once(tiny_source, caplog):
    tiny_source.persons[4].image.write_bytes(b"")
    dataset = KeypointDataset(tiny_source, on_error="skip")
    with caplog.at_level(logging.WARNING, "fastpose.data"):
        shown = [int(dataset[(epoch, 4)]["index"]) for epoch in range(12)]
    assert len(caplog.records) == 1
    again = KeypointDataset(tiny_source, on_error="skip")
    assert shown == [int(again[(epoch, 4)]["index"]) for epoch in range(12)]
    assert 4 not in shown
    assert len(set(shown)) > 1
    assert dataset.skipped == 1


def test_promise_17_skip_is_capped(tiny_source):
    for person in tiny_source.persons[:4]:
        person.image.write_bytes(b"")
    dataset = KeypointDataset(tiny_source, on_error="skip", skip_limit=2)
    with pytest.raises(ValueError, match="3 unreadable images, more than the limit of 2"):
        [dataset[(epoch, index)] for epoch in range(20) for index in range(4)]


def test_promise_17_skip_ends_when_nothing_is_readable(tiny_source):
    for person in tiny_source.persons:
        person.image.write_bytes(b"")
    with pytest.raises(ValueError, match="unreadable images, more than the limit of 6"):
        KeypointDataset(tiny_source, on_error="skip")[0]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"on_error": "ignore"}, "on_error: expected one of raise, skip"),
        ({"image_size": (0, 64)}, "image_size: expected"),
        ({"crop": "exct"}, "did you mean 'exact'"),
        ({"augment": "newel"}, "did you mean 'newell'"),
    ],
)
def test_wrong_options_are_errors(tiny_source, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        KeypointDataset(tiny_source, **options)


@pytest.mark.parametrize("index", [-1, 7])
def test_an_index_outside_is_an_error(tiny_source, index):
    with pytest.raises(IndexError, match="expected 0 to 6"):
        KeypointDataset(tiny_source)[index]
