"""The two domains of system 002: which sources, how many of each in a batch, and what an item of either holds."""

from __future__ import annotations

import inspect
from dataclasses import replace

import numpy as np
import pytest

from fastpose import skeletons
from fastpose.data import create_loader, pose3d
from fastpose.data.rendered_mocap import RenderedMocap
from fastpose.training import pose3d_data
from fastpose.training.pose3d_data import Pose3dDataConfig

SMALL = Pose3dDataConfig(name="sample-mocap", wild=("sample",), image_size=64, photo_size=64, fps=1.0)


@pytest.fixture
def lspet_root(tmp_path):
    """LSP-extended of six photographs."""
    import cv2
    from scipy.io import savemat

    joints = np.ones((14, 3, 6))
    joints[:, :2] = np.random.default_rng(1).uniform(5, 55, (14, 2, 6))
    savemat(tmp_path / "joints.mat", {"joints": joints})
    (tmp_path / "images").mkdir()
    for index in range(6):
        photo = np.full((60, 80, 3), 40 * index, np.uint8)
        assert cv2.imwrite(str(tmp_path / "images" / f"im{index + 1:05d}.jpg"), photo)
    return tmp_path


def test_batches_hold_exact_numbers_of_both_domains():
    dataset = pose3d_data.train_dataset(replace(SMALL, wild_share=0.25, epoch_batches=3), 0, 8)
    batches = list(create_loader(dataset, 8, shuffle=True))
    assert [batch["domain"].tolist() for batch in batches] == [[0] * 6 + [1] * 2] * 3


def test_a_photograph_that_comes_again_looks_different():
    config = replace(SMALL, epoch_batches=20, wild_augmentation="newell")
    dataset = pose3d_data.train_dataset(config, 0, 8)  # 80 draws of 60 photographs
    wild = [batch["to_image"][4:] for batch in create_loader(dataset, 8, shuffle=True)]
    assert len({view.numpy().tobytes() for batch in wild for view in batch}) == 80


def test_every_set_has_randomness_of_its_own(lspet_root):
    dataset = pose3d_data.train_dataset(replace(SMALL, wild=("sample", f"lspet:{lspet_root}"), holdout=1), 0, 4)
    assert [dataset.parts[0].stream, *(part.stream for part in dataset.parts[1].parts)] == [0, 1, 2]


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


def test_what_is_held_out_is_read_once():
    held = pose3d_data.held_out(SMALL)
    dataset = pose3d_data.validation_dataset(SMALL, 0, held=held)
    assert [part.source for part in dataset.parts] == held
    with pytest.raises(ValueError, match="are in the training set too"):
        pose3d_data.train_dataset(SMALL, 0, 4, held=pose3d_data.wild(SMALL, "train"))
    with pytest.raises(ValueError, match="expected something to evaluate on, got neither"):
        pose3d_data.validation_dataset(replace(SMALL, wild=(), validation="none"), 0)


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


@pytest.mark.parametrize(("ratio", "count"), [(1.0, 60), (0.5, 30), (100.0, 97)])
def test_a_shuffled_epoch_has_all_photographs_and_as_many_poses_as_asked_for(ratio, count):
    dataset = pose3d_data.train_dataset(replace(SMALL, mixing="shuffled", ratio_3d=ratio), 0, 1)
    assert [len(part) for part in dataset.parts] == [97, 60]
    first, second = (dataset.order(shuffle=True, seed=0, epoch=n, batch_size=1, world_size=1)[:, 1] for n in (0, 1))
    assert [int((first < 97).sum()), int((first >= 97).sum())] == [count, 60]
    assert not np.array_equal(np.sort(first), np.sort(second)) or count == 97


def test_mixing_refuses_what_it_does_not_look_at():
    for changes in ({"wild_share": 0.9}, {"epoch_batches": 3}):
        with pytest.raises(ValueError, match=r"data\.wild_share, data\.epoch_batches: are for data\.mixing=exact"):
            replace(SMALL, mixing="shuffled", **changes)
    with pytest.raises(ValueError, match=r"data\.ratio_3d: is for data\.mixing=shuffled"):
        replace(SMALL, ratio_3d=2.0)


def test_photographs_are_not_dropped_without_a_word(caplog):
    with pytest.raises(ValueError, match=r"data\.wild_share: 0 leaves out data\.wild \(sample\)"):
        replace(SMALL, wild_share=0.0)
    pose3d_data.train_dataset(replace(SMALL, wild=()), 0, 4)
    assert "no photograph in the wild is trained on" in caplog.text


def options_of(monkeypatch, config, purpose):
    """Return the options with which a configuration's 3D set is created."""
    found = {}
    with monkeypatch.context() as patched:
        patched.setattr(pose3d_data.data, "create", lambda *names, **options: found.update(options))
        pose3d_data.laboratory(config, purpose)
    return found


def test_training_and_evaluation_take_frames_by_rules_of_their_own(monkeypatch):
    config = replace(SMALL, name="h36m", root="there")
    assert options_of(monkeypatch, config, "train")["every"] == "10fps"
    assert options_of(monkeypatch, config, "validation")["every"] == "zhou"  # 1 in 200, as released
    config = replace(config, every="all", test_every="320")
    assert options_of(monkeypatch, config, "train")["every"] == "all"
    assert options_of(monkeypatch, config, "validation")["every"] == 320


def test_frames_that_a_file_does_not_hold_are_refused_by_the_name_of_the_field(tmp_path):
    config = Pose3dDataConfig(name="h36m", root=str(tmp_path))
    for word, subject, step in (("train", "S1", 3), ("test", "S9", 64)):
        names = [f"{subject}_Directions_1.54138969_{1 + step * row:06d}.jpg" for row in range(40)]
        np.savez(tmp_path / f"h36m_{word}.npz", imgname=np.array(names))  # looked at before all else
    ways_out = r"h36m_test\.npz: data\.test_every: .*take data\.test_every=1600, data\.test_every=64 for the whole file"
    with pytest.raises(ValueError, match=ways_out):
        pose3d_data.validation_dataset(config, 0)
    with pytest.raises(ValueError, match=r"h36m_train\.npz: data\.every: .*take data\.every=15, data\.every=3 for"):
        pose3d_data.train_dataset(config, 0, 4)
    with pytest.raises(ValueError, match=r"no frame of split 'val' .*; name another .*, subjects or data\.test_every$"):
        pose3d_data.validation_dataset(replace(config, annotation="h36m_train.npz"), 0)


def test_held_out_clips_and_pictures_can_be_chosen(monkeypatch):
    config = replace(SMALL, validation_clips=("02_01",), render_seed=3)
    clips = {
        purpose: {person.pose3d.clip for person in pose3d_data.laboratory(config, purpose).persons}
        for purpose in ("train", "validation")
    }
    assert clips["validation"] == {"02_01"}
    assert "02_01" not in clips["train"]
    assert pose3d_data.laboratory(config, "train").seed == 3
    found = options_of(monkeypatch, replace(config, name="mocap", root="there", holdout_every=3), "train")
    assert (found["holdout_every"], found["seed"], found["validation_clips"]) == (3, 3, ("02_01",))


def test_defaults_of_motion_are_the_sources_own(monkeypatch):
    own = inspect.signature(RenderedMocap).parameters
    found = options_of(monkeypatch, Pose3dDataConfig(name="mocap", root="there"), "train")
    assert {key: value for key, value in found.items() if own[key].default != value} == {}


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
        ({"every": "0"}, r"data\.every: expected one of all, 10fps, 1in64, zhou"),
        ({"test_every": "1in65"}, r"data\.test_every: .*1in64"),
        ({"ratio_3d": 0.0}, r"data\.ratio_3d: expected a number above 0"),
        ({"wild": ("sample", "sample")}, r"data\.wild: expected each set once, got sample twice"),
        ({"wild": ("lspet:a/b", "lspet:a/../a/b/")}, r"data\.wild: expected each set once"),
        ({"name": "h36m", "validation_clips": ("02_01",)}, r"data\.validation_clips: is for data\.name = mocap"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **changes)


def test_a_share_that_leaves_a_domain_out_is_refused():
    with pytest.raises(ValueError, match="leaves a domain without a sample"):
        pose3d_data.train_dataset(replace(SMALL, wild_share=0.01), 0, 4)


def test_3dhp_is_trained_on_where_it_has_a_training_split(shared, tmp_path):
    prepared = replace(SMALL, name="mpi_inf_3dhp", root=str(shared / "data" / "mpi_inf_3dhp_sample"))
    assert pose3d_data.trains_on_poses(prepared)
    assert {person.pose3d.subject for person in pose3d_data.laboratory(prepared, "train").persons} == {"S4", "S8"}
    (tmp_path / "TS1").mkdir()
    (tmp_path / "TS1" / "annot_data.mat").write_bytes(b"")
    official = replace(prepared, root=str(tmp_path))
    assert not pose3d_data.trains_on_poses(official)
    with pytest.raises(ValueError, match="official test sequences, which have no split 'train'"):
        pose3d_data.laboratory(official, "train")


def test_a_bundled_set_has_no_folder():
    with pytest.raises(ValueError, match="'sample' is bundled and has no folder"):
        pose3d_data.wild(replace(SMALL, wild=("sample:/nowhere",)), "train")
    with pytest.raises(ValueError, match="'sample-mocap' is bundled and has no folder"):
        pose3d_data.laboratory(replace(SMALL, validation="sample-mocap:/nowhere"), "validation")


def test_a_set_without_its_folder_says_how_to_name_it():
    with pytest.raises(ValueError, match=r"data\.wild: mpii needs the folder.*write mpii:PATH"):
        pose3d_data.wild(replace(SMALL, wild=("mpii",)), "train")
    with pytest.raises(ValueError, match=r"data\.validation: h36m needs the folder.*write h36m:PATH"):
        pose3d_data.laboratory(replace(SMALL, validation="h36m"), "validation")
