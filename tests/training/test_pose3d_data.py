"""The two domains of system 002: which sources, how many of each in a batch, and what an item of either holds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fastpose import skeletons
from fastpose.data import create_loader, pose3d
from fastpose.training import pose3d_data
from fastpose.training.pose3d_data import Pose3dDataConfig

SMALL = Pose3dDataConfig(name="sample-mocap", wild=("sample",), image_size=64, photo_size=64, fps=1.0)


def test_batches_hold_exact_numbers_of_both_domains():
    dataset = pose3d_data.train_dataset(replace(SMALL, wild_share=0.25, epoch_batches=3), 0, 8)
    batches = list(create_loader(dataset, 8, shuffle=True))
    assert [batch["domain"].tolist() for batch in batches] == [[0] * 6 + [1] * 2] * 3


def test_only_the_laboratory_knows_depth():
    dataset = pose3d_data.train_dataset(SMALL, 0, 4)
    (batch,) = [batch for batch, _ in zip(create_loader(dataset, 4, shuffle=True), range(1), strict=False)]
    known = batch["depth_known"].any(1)
    assert known.tolist() == [True, True, False, False]
    assert batch["depth"][:2].abs().sum() > 0
    assert not batch["depth"][2:].any()
    assert not batch["depth"][:2, skeletons.MPII.index("pelvis")].any()


def test_wild_persons_come_in_the_joints_of_mpii():
    (wild,) = pose3d_data.wild(SMALL, "train")
    assert wild.skeleton == skeletons.MPII
    head = skeletons.MPII.index("head_top")
    assert not any(person.visibility[head] for person in wild.persons)  # COCO has none
    assert any(person.visibility[skeletons.MPII.index("pelvis")] for person in wild.persons)


def test_validation_reads_each_set_as_a_part_of_its_own():
    dataset = pose3d_data.validation_dataset(SMALL, 0)
    assert [part.source.name for part in dataset.parts] == ["sample-mocap", "sample"]
    assert [part.source.split for part in dataset.parts] == ["val", "val"]
    assert all(part.augment is None for part in dataset.parts)


def test_no_clip_is_in_two_splits():
    clips = [
        {person.pose3d.clip for person in pose3d_data.laboratory(SMALL, purpose).persons}
        for purpose in ("train", "validation")
    ]
    assert clips[0]
    assert clips[1]
    assert not clips[0] & clips[1]


def test_2d_training_needs_no_laboratory():
    dataset = pose3d_data.train_dataset(replace(SMALL, name="none"), 0, 4)
    assert [part.source.name for part in dataset.parts] == ["sample"]
    assert dataset.per_batch == (4,)


def test_reprojected_targets_are_for_training_alone():
    config = replace(SMALL, targets="reprojected")
    trained = pose3d_data.train_dataset(config, 0, 4).parts[0].source.persons[0]
    plain = pose3d_data.train_dataset(SMALL, 0, 4).parts[0].source.persons[0]
    assert np.allclose(trained.keypoints, pose3d.reprojected(plain, skeletons.MPII))
    assert not np.allclose(trained.keypoints, plain.keypoints, atol=0.1)
    held = pose3d_data.validation_dataset(config, 0).parts[0].source.persons[0]
    assert np.array_equal(held.keypoints, pose3d_data.laboratory(SMALL, "validation").persons[0].keypoints)


def test_a_shuffled_pool_has_no_exact_numbers():
    dataset = pose3d_data.train_dataset(replace(SMALL, mixing="shuffled"), 0, 4)
    assert dataset.per_batch is None
    assert len(dataset) == sum(map(len, dataset.parts))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "h36"}, r"unknown data set with 3D truth: 'h36'.*h36m"),
        ({"wild": ("lspett:there",)}, r"unknown wild data set: 'lspett'.*lspet"),
        ({"validation": "mpii:there"}, "unknown data set with 3D truth: 'mpii'"),
        ({"name": "none", "wild": ()}, "data.wild: expected at least one set"),
        ({"wild_share": 1.0}, r"data\.wild_share: expected a part of a batch in \[0, 1\)"),
        ({"targets": "projected"}, r"data\.targets"),
        ({"depth_root": "neck"}, r"data\.depth_root"),
        ({"image_size": 100}, "multiple of 16"),
        ({"fps": 0.0}, r"data\.fps"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **changes)


def test_a_share_that_leaves_a_domain_out_is_refused():
    with pytest.raises(ValueError, match="leaves a domain without a sample"):
        pose3d_data.train_dataset(replace(SMALL, wild_share=0.01), 0, 4)


def test_a_set_with_a_test_split_alone_is_not_trained_on():
    with pytest.raises(ValueError, match="has a test split only"):
        pose3d_data.laboratory(replace(SMALL, name="mpi_inf_3dhp", root="nowhere"), "train")


def test_a_set_without_its_folder_says_how_to_name_it():
    with pytest.raises(ValueError, match=r"data\.wild: mpii needs the folder.*write mpii:PATH"):
        pose3d_data.wild(replace(SMALL, wild=("mpii",)), "train")
    with pytest.raises(ValueError, match=r"data\.validation: h36m needs the folder.*write h36m:PATH"):
        pose3d_data.laboratory(replace(SMALL, validation="h36m"), "validation")
