"""The bundled persons and their mirror images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastpose import data, skeletons


@pytest.fixture(scope="module")
def everyone():
    return data.create("sample-pairs", split="all")


def test_every_person_is_there_twice_and_paired_both_ways(everyone):
    assert (len(everyone.persons), len(everyone), everyone.size) == (160, 160, (128, 64))
    assert everyone.pairs[:4].tolist() == [[0, 1], [1, 0], [2, 3], [3, 2]]
    assert everyone.skeleton is skeletons.OPENPOSE


def test_train_and_val_are_disjoint():
    train, val = (data.create("sample-pairs", split=split) for split in ("train", "val"))
    assert (len(train), len(val)) == (120, 40)
    data.pairs.check_disjoint(train, val)


def test_both_of_a_pair_are_one_identity(everyone):
    for first, second in everyone.pairs:
        assert everyone.persons[first].identity == everyone.persons[second].identity != ""


def test_the_target_is_the_mirror_image(everyone):
    swap = list(skeletons.OPENPOSE.flip_permutation)
    for size in (None, (64, 48)):
        dataset = data.PairDataset(everyone, size=size)
        for index in (0, 7, 90):
            sample = dataset[index]
            assert torch.equal(sample["target_image"], sample["source_image"].flip(2))
            assert torch.equal(sample["target_visibility"], sample["source_visibility"][swap])
            seen = sample["target_visibility"] > 0
            columns = sample["source_image"].shape[2] - 1 - sample["source_keypoints"][swap, 0]
            assert torch.allclose(sample["target_keypoints"][seen, 0], columns[seen])


def test_all_labelled_joints_are_in_the_picture(everyone):
    for index in range(0, 160, 2):
        view = everyone.view(index, (128, 64))
        assert view["image"].shape == (128, 64, 3)
        person = everyone.persons[index]
        assert np.count_nonzero(view["visibility"]) == np.count_nonzero(person.visibility)


def test_persons_keep_their_aspect(everyone):
    """In any size one pixel of the photograph is as wide as high."""
    for size in ((128, 64), (96, 96), (64, 128)):
        person, view = everyone.persons[0], everyone.view(0, size)
        both = (person.visibility > 0) & (view["visibility"] > 0)
        old, new = np.ptp(person.keypoints[both], axis=0), np.ptp(view["keypoints"][both], axis=0)
        assert np.allclose(new[0] / old[0], new[1] / old[1], rtol=1e-3)


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="split: expected one of train, val, all, got 'test'"):
        data.create("sample-pairs", split="test")
