"""The data section of system 004: splits, what is held out, heatmaps to the networks and back."""

from __future__ import annotations

import math

import pytest
import torch
from caption_files import caption, person, write

from fastpose.training import caption_data
from fastpose.training.caption_data import CaptionDataConfig


@pytest.fixture
def coco(tmp_path):
    """Twenty photographs of one person and two of two in split val, five in train; some with captions."""
    rows = [person(image, image) for image in range(1, 23)] + [person(100 + image, image) for image in (21, 22)]
    write(tmp_path, rows, [caption(image, f"of {image}") for image in range(1, 20)])
    return write(tmp_path, [person(image, image) for image in range(50, 55)], [caption(50, "x")], split="train")


def _images(poses):
    return set(poses.image_ids.tolist())


def test_published_splits(coco):
    config = CaptionDataConfig(root=str(coco))
    assert [len(poses) for poses in caption_data.sources(config, captioned=False)] == [5, 24]
    assert [len(poses) for poses in caption_data.sources(config, captioned=True)] == [1, 19]
    single = CaptionDataConfig(root=str(coco), persons="single", minimum_joints=9)
    assert [len(poses) for poses in caption_data.sources(single, captioned=False)] == [5, 20]


def test_what_is_held_out_is_not_trained_on_by_any_configuration(coco):
    config = CaptionDataConfig(root=str(coco), split="val", holdout=0.25)
    train, held = caption_data.sources(config, captioned=False)
    assert not _images(train) & _images(held)
    assert len(_images(train) | _images(held)) == 22
    single = CaptionDataConfig(root=str(coco), split="val", holdout=0.25, persons="single")
    alone = caption_data.source(single, "validation", captioned=True)
    assert _images(alone) <= _images(held)  # the unconditional start of a conditional run has seen none of them


def test_one_split_for_both_is_refused(coco):
    config = CaptionDataConfig(root=str(coco), split="val")
    with pytest.raises(ValueError, match=r"22 of the 22 .*choose another data\.split.* or pass data\.holdout"):
        caption_data.sources(config, captioned=False)


def test_files_by_name(coco):
    write(coco, [person(300, 300)], name="more.json")
    config = CaptionDataConfig(root=str(coco), annotations=("", "annotations/more.json"))
    assert len(caption_data.source(config, "train", captioned=False)) == 6
    config = CaptionDataConfig(root=str(coco), validation_annotations=("annotations/more.json",))
    assert len(caption_data.source(config, "validation", captioned=False)) == 1


def test_validation_is_augmented_only_when_asked_for(coco):
    poses = caption_data.source(CaptionDataConfig(root=str(coco)), "train", captioned=False)
    plain, turned = (
        caption_data.validation_dataset(poses, CaptionDataConfig(augment_validation=asked), 0)
        for asked in (False, True)
    )
    assert torch.equal(plain[0]["keypoints"], plain[(1, 0)]["keypoints"])
    assert not torch.equal(turned[0]["keypoints"], plain[0]["keypoints"])
    train = caption_data.train_dataset(poses, CaptionDataConfig(augment=False), 0)
    assert torch.equal(train[0]["keypoints"], train[(1, 0)]["keypoints"])


def test_the_sample_needs_nothing():
    config = CaptionDataConfig(name="sample")
    assert [len(poses) for poses in caption_data.sources(config, captioned=True)] == [340, 60]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"name": "cocoo"}, "unknown data set with captions: 'cocoo'; did you mean 'coco'"),
        ({"persons": "one"}, r"data\.persons: expected one of all, single"),
        ({"split": "test"}, r"data\.split: expected one of train, val"),
        ({"minimum_joints": 0}, r"data\.minimum_joints: expected 1 to 17"),
        ({"holdout": -0.1}, r"data\.holdout: expected a share"),
        ({"flip": 2.0}, r"data\.flip: expected a share"),
        ({"scale": (1.0,)}, r"data\.scale: expected"),
        ({"holdout": 0.1, "validation_split": "val"}, r"data\.validation_split: is for data\.holdout = 0"),
        ({"name": "sample", "root": "x"}, "'sample' is bundled"),
        ({"name": "sample", "holdout": 0.1}, "'sample' is bundled"),
    ],
)
def test_a_configuration_that_cannot_be(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        CaptionDataConfig(**options)


def test_coco_needs_a_root():
    with pytest.raises(ValueError, match=r"data\.root: data set 'coco' needs the folder"):
        caption_data.source(CaptionDataConfig(), "train", captioned=False)


def test_maps_are_bells_from_minus_one_to_one():
    points = torch.tensor([[[20.0, 30.0], [10.5, 7.25], [5.0, 5.0]]])
    drawn = caption_data.maps(points, torch.tensor([[2, 1, 0]]))
    assert drawn.shape == (1, 3, 64, 64)
    assert drawn[0, 0, 30, 20] == 1
    squared = (13 - 10.5) ** 2 + (9 - 7.25) ** 2
    assert drawn[0, 1, 9, 13].item() == pytest.approx(2 * math.exp(-squared / 8) - 1, abs=1e-6)
    assert (drawn[0, 2] == -1).all()


def test_decode_undoes_maps_to_the_nearest_pixel():
    torch.manual_seed(0)
    points, visible = torch.rand(3, 17, 2) * 63, torch.rand(3, 17) > 0.3
    found, present = caption_data.decode(caption_data.maps(points, visible).bfloat16().float())
    assert torch.equal(present, visible)
    assert (found - points)[visible].abs().max() <= 1
    assert not found[~visible].any()
    assert (found.dtype, present.dtype) == (torch.float32, torch.bool)


def test_a_joint_below_the_threshold_is_absent():
    heatmaps = torch.full((1, 3, 64, 64), -1.0)
    heatmaps[0, 0, 4, 9], heatmaps[0, 1, 4, 9], heatmaps[0, 2] = 2 * 0.25 - 1, 2 * 0.19 - 1, float("nan")
    found, present = caption_data.decode(heatmaps)
    assert present.tolist() == [[True, False, False]]
    assert found[0].tolist() == [[9, 4], [0, 0], [0, 0]]
    assert not caption_data.decode(heatmaps, threshold=0.3)[1].any()
