"""Pairs as training samples: what comes out, mirroring, random pairs, unreadable photographs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastpose import data
from fastpose.data import PairDataset
from fastpose.data.images import read_image
from fastpose.data.pair_dataset import mirrored


@pytest.fixture
def source(market):
    return data.create("market", market, "train")


def _first(dataset, flipped):
    """The sample of the first epoch in which pair 0 is mirrored, or not."""
    plain = PairDataset(dataset.source)[0]["source_image"]
    for epoch in range(50):
        sample = dataset[(epoch, 0)]
        if torch.equal(sample["source_image"], plain) != flipped:
            return sample
    raise AssertionError("no such epoch")


def test_a_sample_has_the_documented_entries(source):
    sample = PairDataset(source)[(3, 1)]
    shapes = {name: (tuple(value.shape), value.dtype) for name, value in sample.items()}
    expected = {"index": ((), torch.int64)}
    for side in ("source", "target"):
        expected[f"{side}_image"] = ((3, 128, 64), torch.uint8)
        expected[f"{side}_keypoints"] = ((18, 2), torch.float32)
        expected[f"{side}_visibility"] = ((18,), torch.float32)
    assert shapes == expected


def test_source_and_target_are_the_pair(source):
    dataset = PairDataset(source)
    for index in range(len(dataset)):
        sample = dataset[index]
        assert sample["index"] == index
        for side, person in zip(("source", "target"), source.pairs[index], strict=True):
            photo = read_image(source.persons[person].image)
            assert np.array_equal(sample[f"{side}_image"].permute(1, 2, 0).numpy(), photo)  # bit by bit
            assert np.array_equal(sample[f"{side}_keypoints"].numpy(), source.persons[person].keypoints)


def test_missing_joints_are_zero(source):
    sample = PairDataset(source)[0]
    assert sample["source_visibility"].tolist() == [1] * 17 + [0]
    assert not sample["source_keypoints"][17].any()


def test_another_size_resizes_image_and_joints(source):
    small, plain = PairDataset(source, size=(64, 32))[0], PairDataset(source)[0]
    assert small["source_image"].shape == (3, 64, 32)
    seen = plain["source_visibility"] > 0
    expected = (plain["source_keypoints"] + 0.5) / 2 - 0.5  # the edges of both pictures coincide
    assert torch.allclose(small["source_keypoints"][seen], expected[seen])
    difference = small["source_image"].float() - torch.nn.functional.avg_pool2d(plain["source_image"].float(), 2)
    assert difference.abs().mean() < 1.5


def test_a_mirrored_pair_mirrors_both_images_and_swaps_sides(source):
    sample, plain = _first(PairDataset(source, flip=True), True), PairDataset(source)[0]
    swap = list(source.skeleton.flip_permutation)
    for side in ("source", "target"):
        assert torch.equal(sample[f"{side}_image"], plain[f"{side}_image"].flip(2))
        assert torch.equal(sample[f"{side}_visibility"], plain[f"{side}_visibility"][swap])
        seen = sample[f"{side}_visibility"] > 0
        points = plain[f"{side}_keypoints"][swap].clone()
        points[:, 0] = 63 - points[:, 0]
        assert torch.equal(sample[f"{side}_keypoints"][seen], points[seen])
        assert not sample[f"{side}_keypoints"][~seen].any()


def test_mirroring_twice_changes_nothing(source):
    swap = np.array(source.skeleton.flip_permutation)
    view = source.view(0, (128, 64)) | {"labels": np.arange(128 * 64, dtype=np.uint8).reshape(128, 64)}
    again = mirrored(mirrored(view, swap), swap)
    assert all(np.array_equal(again[name], value) for name, value in view.items())
    assert np.array_equal(mirrored(view, swap)["labels"], view["labels"][:, ::-1])


def test_about_half_of_the_samples_are_mirrored(source):
    dataset, plain = PairDataset(source, flip=True), PairDataset(source)[0]["source_image"]
    share = np.mean([not torch.equal(dataset[(epoch, 0)]["source_image"], plain) for epoch in range(60)])
    assert 0.3 < share < 0.7


def test_a_sample_depends_on_seed_epoch_and_index_alone(source):
    first, second = (
        PairDataset(source, seed=4, flip=True, samples_per_epoch=9),
        PairDataset(source, seed=4, flip=True, samples_per_epoch=9),
    )
    wanted = [first[(2, index)] for index in range(9)]
    for index in reversed(range(9)):
        again = second[(2, index)]
        assert all(torch.equal(again[name], value) for name, value in wanted[index].items())


def test_random_pairs_make_an_epoch_of_any_length(source):
    dataset = PairDataset(source, samples_per_epoch=40)
    assert len(dataset) == 40
    drawn = [[int(dataset[(epoch, index)]["index"]) for index in range(40)] for epoch in (0, 1)]
    assert set(drawn[0]) == set(range(6))
    assert drawn[0] != drawn[1]
    other = PairDataset(source, samples_per_epoch=40, seed=1)
    assert drawn[0] != [int(other[(0, index)]["index"]) for index in range(40)]


def test_pairs_travel_through_a_loader(source):
    loader = data.create_loader(PairDataset(source, samples_per_epoch=8), 4, shuffle=True, workers=1)
    batches = list(loader)
    assert [batch["target_image"].shape for batch in batches] == [(4, 3, 128, 64)] * 2
    alone = list(data.create_loader(PairDataset(source, samples_per_epoch=8), 4, shuffle=True))
    assert all(torch.equal(a["source_image"], b["source_image"]) for a, b in zip(batches, alone, strict=True))


def test_promise_17_an_unreadable_photograph_stops_or_is_replaced(source):
    path = source.persons[1].image
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(ValueError, match=r"market pair 0: image .*truncated"):
        PairDataset(source)[0]
    dataset = PairDataset(source, on_error="skip")
    shown = int(dataset[0]["index"])
    assert shown not in (0, 1)
    assert shown == int(PairDataset(source, on_error="skip")[0]["index"])
    assert 1 <= dataset.skipped <= 2


def test_promise_17_too_many_unreadable_photographs_stop(source):
    for person in source.persons:
        person.image.write_bytes(b"")
    dataset = PairDataset(source, on_error="skip", skip_limit=2)
    with pytest.raises(ValueError, match="3 unreadable images, more than the limit of 2"):
        dataset[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"samples_per_epoch": -1}, "samples_per_epoch: expected 0"),
        ({"size": (0, 64)}, "size: expected"),
        ({"on_error": "ignore"}, "on_error: expected one of raise, skip"),
    ],
)
def test_options_out_of_range(source, options, words):
    with pytest.raises(ValueError, match=words):
        PairDataset(source, **options)


def test_an_index_out_of_range(source):
    with pytest.raises(IndexError, match="expected 0 to 5, got 6"):
        PairDataset(source)[6]
