"""What is evaluated was not trained on: photographs by their paths, recordings by their files and names."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fastpose.data import motion, render_files
from fastpose.data.motion import npz
from fastpose.data.rendered_mocap import SAMPLE_HELD_OUT, RenderedMocap, SampleMocap
from fastpose.data.sample import SamplePersons
from fastpose.training import pose3d_data
from fastpose.training.disjoint import check_disjoint
from fastpose.training.pose3d_data import Pose3dDataConfig


@pytest.fixture(scope="module")
def takes(tmp_path_factory):
    """Two folders of different recordings whose clips have the same names."""
    folder, clips = tmp_path_factory.mktemp("takes"), motion.sample()
    for number, name in enumerate(("here", "there")):
        (folder / name).mkdir()
        named = [replace(clip, name=f"take_{k}") for k, clip in enumerate(clips[2 * number : 2 * number + 2])]
        npz.write(folder / name / "takes.npz", named)
    return folder


def rendered(root, split="all"):
    return RenderedMocap(root, split, fps=1.0, size=(32, 32))


def test_promise_19_photographs_that_are_trained_on_are_refused():
    train, val = SamplePersons("train"), SamplePersons("val")
    check_disjoint([train], [val], "data.split")
    sentence = r"data: 20 of the 20 validation photographs are in the training set too, .*choose another data\.split"
    with pytest.raises(ValueError, match=sentence):
        check_disjoint([train, val], [val], "data.split")


def test_promise_19_clips_of_one_name_in_two_files_are_two_recordings(takes):
    check_disjoint([rendered(takes / "here")], [rendered(takes / "there")], "data.root")


def test_promise_19_a_recording_is_the_same_through_a_link(takes, tmp_path):
    (tmp_path / "link").symlink_to(takes / "here")
    sentence = (
        r"data: 2 of the 2 recordings of the validation set are in the training set too, first take_0; .*data\.root"
    )
    with pytest.raises(ValueError, match=sentence):
        check_disjoint([rendered(takes / "here")], [rendered(tmp_path / "link")], "data.root")


def test_promise_19_clips_that_were_rendered_into_files_are_known_by_their_names(tmp_path):
    source = SampleMocap("all", fps=0.5, size=(32, 32), skeleton="h36m")
    render_files.write(tmp_path / "drawn", {"all": source})
    config = Pose3dDataConfig(name="h36m", root=str(tmp_path / "drawn"), validation="sample-mocap", photo_size=32)
    sentence = (
        rf"3 of the 3 recordings .* first {SAMPLE_HELD_OUT[0]} \(by its name, since a set does not tell its file; "
        r"give other recordings other names\); .*choose another data\.root, data\.validation or data\.wild"
    )
    with pytest.raises(ValueError, match=sentence):
        pose3d_data.train_dataset(config, 0, 2)


def test_promise_19_the_clips_held_out_are_among_the_ways_out_of_rendered_sets():
    config = Pose3dDataConfig(
        name="sample-mocap", validation="sample-mocap", validation_clips=("02_01",), photo_size=32, fps=0.5
    )
    with pytest.raises(ValueError, match=r"data\.root, data\.validation, data\.validation_clips or data\.wild$"):
        pose3d_data.train_dataset(config, 0, 2)
    assert len(pose3d_data.train_dataset(replace(config, validation_clips=SAMPLE_HELD_OUT), 0, 2))


def test_promise_19_rendered_files_of_training_clips_go_with_the_others_for_validation(tmp_path):
    source = SampleMocap("train", fps=0.5, size=(32, 32), skeleton="h36m")
    render_files.write(tmp_path / "drawn", {"train": source}, count=4)
    config = Pose3dDataConfig(name="h36m", root=str(tmp_path / "drawn"), validation="sample-mocap", photo_size=32)
    assert len(pose3d_data.train_dataset(config, 0, 2)) == 4
