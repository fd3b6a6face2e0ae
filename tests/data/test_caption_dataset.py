"""Poses as training samples: entries, augmentation about the centre, captions drawn from (seed, epoch, index) alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from caption_files import caption, person, write

from fastpose import data
from fastpose.data import CaptionDataset, captions
from fastpose.training import resuming

DRAWN = ("caption", "mismatched", "fresh", "first", "second")


@pytest.fixture(scope="module")
def source():
    return captions.sample("val")


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Two poses, the second without captions."""
    root = write(tmp_path_factory.mktemp("coco"), [person(1, 1), person(2, 2)], [caption(1, "x"), caption(1, "y")])
    return captions.read_coco(root, "val")


def _same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


def test_a_sample_has_the_documented_entries(source):
    sample = CaptionDataset(source)[(3, 5)]
    shapes = {name: (tuple(value.shape), value.dtype) for name, value in sample.items()}
    expected = {"keypoints": ((17, 2), torch.float32), "visibility": ((17,), torch.float32)}
    assert shapes == expected | dict.fromkeys(("index", *DRAWN), ((), torch.int64))
    assert sample["index"] == 5
    assert source.captions[sample["caption"]] in source.own_captions(5)


def test_without_augmentation_a_pose_is_as_annotated(source):
    sample = CaptionDataset(source, augment=False)[(3, 5)]
    assert np.array_equal(sample["keypoints"].numpy(), source.keypoints[5])
    assert np.array_equal(sample["visibility"].numpy(), source.visibility[5] > 0)


def test_randomness_is_of_seed_epoch_and_index_alone(source):
    dataset = CaptionDataset(source, seed=4)
    once = dataset[(2, 7)]
    dataset[(9, 1)]
    assert _same(dataset[(2, 7)], once)
    assert _same(CaptionDataset(source, seed=4)[(2, 7)], once)
    for other in (dataset[(3, 7)], CaptionDataset(source, seed=5)[(2, 7)]):
        assert not torch.equal(other["keypoints"], once["keypoints"])
    plain = CaptionDataset(source, seed=4, augment=False)[(2, 7)]
    assert all(plain[name] == once[name] for name in DRAWN)


def test_a_mirrored_pose_is_64_minus_x_with_its_sides_swapped(source):
    swap = list(source.skeleton.flip_permutation)
    sample = CaptionDataset(source, flip=1, rotation=0)[3]
    seen = source.visibility[3][swap] > 0
    assert np.array_equal(sample["visibility"].numpy() > 0, seen)
    assert np.allclose(sample["keypoints"][seen, 0], 64 - source.keypoints[3][swap][seen, 0], atol=1e-5)
    assert np.allclose(sample["keypoints"][seen, 1], source.keypoints[3][swap][seen, 1], atol=1e-5)
    assert not sample["keypoints"][~seen].any()


def test_half_of_the_poses_are_mirrored(source):
    dataset = CaptionDataset(source, rotation=0)
    plain = CaptionDataset(source, augment=False)
    changed = [not torch.allclose(dataset[(epoch, 0)]["keypoints"], plain[0]["keypoints"]) for epoch in range(200)]
    assert 70 < sum(changed) < 130


def _angles(dataset, source, epochs):
    """How far joints are turned about (32, 32), in degrees, and how their distance from it changes."""
    seen = source.visibility[0] > 0
    before = torch.view_as_complex(torch.tensor(source.keypoints[0][seen] - 32).contiguous())
    after = [torch.view_as_complex((dataset[(epoch, 0)]["keypoints"][seen] - 32).contiguous()) for epoch in epochs]
    ratios = torch.stack(after) / before  # (E, K)
    return torch.rad2deg(ratios.angle()), ratios.abs()


def test_poses_turn_about_the_centre_by_up_to_ten_degrees(source):
    angles, scales = _angles(CaptionDataset(source, flip=0), source, range(60))
    assert torch.allclose(angles, angles[:, :1], atol=1e-2)  # all joints alike
    assert torch.allclose(scales, torch.ones(1), atol=1e-4)
    assert 8 < angles.max() <= 10
    assert -10 <= angles.min() < -8


def test_scale_and_move_are_options(source):
    _, scales = _angles(CaptionDataset(source, flip=0, rotation=0, scale=(0.5, 0.6)), source, range(20))
    assert (scales.min() > 0.499, scales.max() < 0.601, scales.max() > scales.min() + 0.02) == (True, True, True)
    sample = CaptionDataset(source, flip=0, rotation=0, translate=3.0)[0]
    seen = sample["visibility"] > 0
    moved = sample["keypoints"][seen] - torch.tensor(source.keypoints[0])[seen]
    assert torch.allclose(moved, moved[:1], atol=1e-4)
    assert 0 < moved.abs().max() <= 3


def test_every_caption_comes_and_others_are_of_the_whole_set(source):
    dataset = CaptionDataset(source, augment=False)
    drawn = [dataset[(epoch, 4)] for epoch in range(300)]
    own = [int(sample["caption"]) - int(source.first[4]) for sample in drawn]
    assert np.bincount(own, minlength=3).min() > 60
    for name in DRAWN[1:]:
        places = np.array([int(sample[name]) for sample in drawn])
        assert places.min() >= 0
        assert places.max() < len(source.captions)
        assert np.histogram(places, 3, (0, len(source.captions)))[0].min() > 60
    assert any(sample["first"] != sample["second"] for sample in drawn)


def test_a_pose_without_captions_says_so(bare):
    sample = CaptionDataset(bare)[1]
    assert sample["caption"] == -1
    assert {int(CaptionDataset(bare)[(epoch, 1)]["fresh"]) for epoch in range(20)} == {0, 1}


def test_a_source_without_captions_says_so(tmp_path):
    silent = captions.read_coco(write(tmp_path, [person(1, 1)]), "val")
    assert [int(CaptionDataset(silent)[0][name]) for name in DRAWN] == [-1] * 5


def test_workers_change_no_batch(source):
    def batches(workers):
        return list(data.create_loader(CaptionDataset(source), 24, shuffle=True, seed=3, workers=workers, epoch=2))

    alone = batches(0)
    assert [len(batch["index"]) for batch in alone] == [24, 24]
    assert all(_same(first, second) for first, second in zip(alone, batches(2), strict=True))


def test_the_fingerprint_tells_poses_and_captions_apart(source, bare):
    found = resuming.fingerprint(CaptionDataset(source))
    assert found == {
        "kind": "CaptionDataset",
        "source": "sample",
        "length": 60,
        "fingerprint": captions.sample("val").fingerprint,
    }
    assert bare.fingerprint != captions.sample("train").fingerprint != source.fingerprint


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"flip": 1.5}, "flip: expected a share"),
        ({"rotation": -1}, "rotation: expected 0 to 180"),
        ({"rotation": float("nan")}, "rotation: expected 0 to 180"),
        ({"scale": (2.0, 1.0)}, "scale: expected"),
        ({"scale": (0.0, 1.0)}, "scale: expected"),
        ({"translate": -2}, "translate: expected 0 or more"),
        ({"translate": float("inf")}, "translate: expected a finite"),
    ],
)
def test_numbers_out_of_range(source, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        CaptionDataset(source, **options)


def test_an_index_out_of_range(source):
    with pytest.raises(IndexError, match="index: expected 0 to 59, got 60"):
        CaptionDataset(source)[60]
