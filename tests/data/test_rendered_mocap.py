"""Rendered motion: clips of the splits, random cameras, truth against a pinhole written by hand, pictures, cache."""

from __future__ import annotations

import time

import numpy as np
import pytest

from fastpose import data, skeletons
from fastpose.data import motion, rendered_mocap
from fastpose.data.rendered_mocap import Cameras, RenderedMocap, SampleMocap


@pytest.fixture(scope="module")
def everyone():
    return data.create("sample-mocap", split="all")


def clips(source):
    return {person.pose3d.clip for person in source.persons}


def write_clips(path, names, frames=4, scale=1.0):
    """Write an archive in which every clip is the beginning of a bundled one."""
    first = motion.sample()[0]
    arrays = {name: first.positions[5 * row : 5 * row + frames] * scale for row, name in enumerate(names)}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, joint_names=np.array(first.joints), parents=np.array(first.parents), fps=10.0, **arrays)
    return path


# Splits


def test_splits_are_whole_clips(everyone):
    train, val = (data.create("sample-mocap", split=split) for split in ("train", "val"))
    assert clips(train).isdisjoint(clips(val))
    assert clips(train) | clips(val) == clips(everyone)
    assert clips(val) == {"02_03", "02_04", "03_01"}
    assert len(train) + len(val) == len(everyone)
    assert (train.name, val.split, train.skeleton) == ("sample-mocap", "val", skeletons.MPII)
    assert train.scored_joints == tuple(range(16))


def test_a_person_is_the_same_in_every_split_and_at_every_rate(everyone):
    def by_name(source):
        return {str(person.image): person for person in source.persons}

    known = by_name(everyone)
    for other in (SampleMocap("val"), SampleMocap("all", fps=15), SampleMocap("all", views=2)):
        same = by_name(other)
        shared = known.keys() & same.keys()
        assert len(shared) >= min(len(known), len(same))
        for name in list(shared)[::40]:
            assert np.array_equal(known[name].pose3d.joints, same[name].pose3d.joints)
            assert np.array_equal(known[name].keypoints, same[name].keypoints)


def test_frames_and_views():
    per_second = len(SampleMocap("all", fps=15))
    assert len(SampleMocap("all", fps=5)) == pytest.approx(per_second / 3, abs=10)
    both = SampleMocap("all", fps=5, views=2)
    assert len(both) == 2 * len(SampleMocap("all", fps=5))
    assert [str(person.image) for person in both.persons[:3]] == [
        "01_01/000000-v0", "01_01/000000-v1", "01_01/000003-v0"
    ]  # fmt: skip
    first, second = both.persons[:2]
    assert not np.allclose(first.pose3d.joints, second.pose3d.joints, atol=50)
    assert (second.camera, second.pose3d.camera, second.identity, second.pose3d.action) == (1, "v1", "01", "jump")


def test_named_clips_are_held_out(tmp_path):
    root = write_clips(tmp_path / "motion.npz", "abcdefg")
    assert clips(RenderedMocap(root, "val")) == {"e"}
    assert clips(RenderedMocap(root, "val", holdout_every=3)) == {"c", "f"}
    assert clips(RenderedMocap(root, "val", validation_clips=("b", "g"))) == {"b", "g"}
    assert clips(RenderedMocap(root, "train", validation_clips=("b", "g"))) == set("acdef")
    few = write_clips(tmp_path / "few.npz", "xyz")
    assert clips(RenderedMocap(few, "val")) == {"z"}


def test_clips_of_one_name_stay_together_under_two_labels(tmp_path):
    for folder in ("one", "two"):
        write_clips(tmp_path / folder / "motion.npz", ["a", "b c/../d"])
    assert clips(RenderedMocap(tmp_path, "train")) == {"a", "a~2"}
    val = RenderedMocap(tmp_path, "val")
    assert clips(val) == {"b_c_.._d", "b_c_.._d~2"}
    assert str(val.persons[0].image) == "b_c_.._d/000000-v0"


# Truth


def test_key_points_are_the_projections_of_the_joints(everyone):
    for person in everyone.persons[::97]:
        pose, camera = person.pose3d, person.pose3d.intrinsics
        x = camera[0, 0] * pose.joints[:, 0] / pose.joints[:, 2] + camera[0, 2]
        y = camera[1, 1] * pose.joints[:, 1] / pose.joints[:, 2] + camera[1, 2]
        assert np.abs(person.keypoints - np.stack([x, y], axis=1)).max() < 1e-3
        assert person.keypoints.dtype == np.float32
        assert (camera[0, 2], camera[1, 2], camera[2, 2]) == (127.5, 127.5, 1)
        assert np.allclose(data.pose3d.project(pose.joints, camera), person.keypoints, atol=1e-3)


def test_poses_are_the_recorded_ones_turned_and_of_another_height(everyone):
    recorded = {clip.name: motion.to_skeleton(clip, "mpii") for clip in motion.sample()}
    factors = []
    for person in everyone.persons[::53]:
        frame = int(person.image.name[:6])
        world = 1000 * recorded[person.pose3d.clip][frame].astype(np.float64)
        seen = person.pose3d.joints.astype(np.float64)
        world, seen = world - world.mean(0), seen - seen.mean(0)
        factor = np.linalg.norm(seen) / np.linalg.norm(world)
        turn = np.linalg.lstsq(world, seen / factor, rcond=None)[0]
        assert np.abs(world @ turn * factor - seen).max() < 0.1
        assert np.linalg.det(turn) == pytest.approx(1, abs=1e-3)  # a mirror would swap left and right
        factors.append(factor)
    assert 0.9 <= min(factors) < 0.93
    assert 1.07 < max(factors) <= 1.1


def test_cameras_look_from_all_sides_and_mostly_from_above():
    source = SampleMocap("all", fps=2, cameras=Cameras(roll=0))
    recorded = {clip.name: motion.to_skeleton(clip, "mpii") for clip in motion.sample()}
    sights = []
    for person in source.persons:
        world = recorded[person.pose3d.clip][int(person.image.name[:6])].astype(np.float64)
        world, seen = world - world.mean(0), person.pose3d.joints - person.pose3d.joints.mean(0)
        turn = np.linalg.lstsq(world, seen / 1000, rcond=None)[0]
        sights.append(turn[:, 2] / np.linalg.norm(turn[:, 2]))
    sights = np.array(sights)  # where the camera looks, in the world
    elevation, azimuth = np.rad2deg(np.arcsin(-sights[:, 1])), np.arctan2(sights[:, 0], sights[:, 2])
    assert -10.5 < elevation.min() < -5
    assert 35 < elevation.max() < 40.5
    assert np.histogram(azimuth, 6, (-np.pi, np.pi))[0].min() > len(sights) / 12


@pytest.mark.parametrize("size", [(256, 256), (128, 320)])
def test_persons_fill_the_picture_and_lie_in_their_crop(size):
    source = SampleMocap("val", size=size)
    shares = []
    for person in source.persons:
        shares.append((person.bbox[2:] / size[::-1]).max())
        side = 200 * person.scale
        low, high = person.center - side / 2, person.center + side / 2
        assert (person.keypoints > low).all()
        assert (person.keypoints < high).all()
        assert (person.keypoints > 0).all()
        assert (person.keypoints < np.array(size[::-1]) - 1).all()
        assert side == pytest.approx(1.25 * person.bbox[2:].max(), rel=1e-5)
    assert min(shares) > 0.5
    assert max(shares) < 0.85


def test_human36m_joints_show_the_same_pictures(everyone):
    other = SampleMocap("all", skeleton="h36m")
    spine = skeletons.H36M.index("spine")
    assert other.persons[7].keypoints.shape == (17, 2)
    assert np.array_equal(other.photo(7), everyone.photo(7))
    names = ["neck" if name == "upper_neck" else name for name in skeletons.MPII.joints]
    moved = [skeletons.H36M.index(name) for name in names]
    assert np.array_equal(other.persons[7].pose3d.joints[moved], everyone.persons[7].pose3d.joints)
    ends = other.persons[7].pose3d.joints[[skeletons.H36M.index(name) for name in ("pelvis", "thorax")]]
    assert np.linalg.norm(other.persons[7].pose3d.joints[spine] - ends.mean(0)) < 120


# Pictures


def test_photographs_follow_from_seed_and_name_alone(everyone):
    val = SampleMocap("val")
    place = {str(person.image): index for index, person in enumerate(everyone.persons)}
    for index in (0, 30):
        picture = val.photo(index)
        assert picture.shape == (256, 256, 3)
        assert picture.dtype == np.uint8
        assert np.array_equal(picture, val.photo(index))
        assert np.array_equal(picture, everyone.photo(place[str(val.persons[index].image)]))
    assert (val.photo(0) != SampleMocap("val", seed=1).photo(0)).mean() > 0.5
    assert (val.photo(0) != val.photo(1)).mean() > 0.5


def test_some_joints_are_hidden_by_the_body(everyone):
    marks = np.stack([everyone.visibility(index) for index in range(0, len(everyone), 20)])
    assert set(np.unique(marks)) == {1, 2}
    assert 0.05 < (marks == 1).mean() < 0.5
    assert np.array_equal(everyone.render(0).visibility, everyone.visibility(0))
    assert (everyone.persons[0].visibility == 2).all()


def test_the_source_starts_at_once(tmp_path):
    """15,000 persons within a second on an idle core; here within four."""
    root = write_clips(tmp_path / "motion.npz", [f"c{row}" for row in range(10)], frames=295)
    began = time.perf_counter()
    assert len(RenderedMocap(root, "all", views=5)) == 14750
    assert time.perf_counter() - began < 4


def test_samples_for_training_have_depth():
    dataset = data.KeypointDataset(
        SampleMocap("val", size=(96, 96)), image_size=(64, 64), depth=data.pose3d.DepthRule()
    )
    item = dataset[3]
    assert item["image"].shape == (3, 64, 64)
    assert item["depth"].shape == (16,)
    assert item["depth_known"].all()
    assert item["visibility"].all()


def test_the_cache_keeps_pictures_and_mixes_none_up(tmp_path):
    def made():
        return sorted(path for path in (tmp_path / "cache").rglob("*") if path.is_file())

    plain, kept = SampleMocap("val"), SampleMocap("val", cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    assert np.array_equal(kept.photo(0), plain.photo(0))
    (first,) = made()
    assert first.suffix == ".png"
    assert np.array_equal(data.images.read_image(first), plain.photo(0))
    assert np.array_equal(kept.photo(0), plain.photo(0))
    for other in ({"seed": 1}, {"size": (64, 64)}, {"cameras": Cameras(roll=0)}):
        SampleMocap("val", cache=tmp_path / "cache", **other).photo(0)
    assert len(made()) == 4
    rendered_mocap.write_png(first, np.zeros((256, 256, 3), np.uint8))
    assert not kept.photo(0).any()  # it is read, not drawn
    first.write_bytes(first.read_bytes()[:100])
    assert np.array_equal(kept.photo(0), plain.photo(0))
    assert np.array_equal(data.images.read_image(first), plain.photo(0))


# Mistakes


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "test"}, "split: expected one of train, val, all, got 'test'"),
        ({"fps": 0}, "fps: expected a positive number, got 0"),
        ({"views": 0}, "views: expected a positive number, got 0"),
        ({"size": (0, 5)}, "size: expected"),
        ({"skeleton": "lsp"}, "skeleton: expected one of mpii, h36m, got 'lsp'"),
        ({"validation_clips": ("02_1",)}, r"validation_clips: .*unknown clip '02_1'; did you mean"),
        ({"cameras": Cameras(distance=(0.3, 0.4))}, r"clip 01_01: a joint is -?\d+ mm from the camera"),
    ],
)
def test_wrong_options_are_one_sentence(options, words):
    with pytest.raises(ValueError, match=words) as error:
        SampleMocap(**options)
    assert "\n" not in str(error.value)


def test_wrong_folders_are_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="holdout_every: expected 2 or more, got 1"):
        RenderedMocap(motion.library.SAMPLE, holdout_every=1)
    with pytest.raises(FileNotFoundError, match="no motion found"):
        data.create("mocap", tmp_path, "train")
    only = write_clips(tmp_path / "only.npz", "x")
    with pytest.raises(ValueError, match=r"mocap: no clip for split 'val' under .*only.npz, which holds 1"):
        data.create("mocap", only, "val")
    large = write_clips(tmp_path / "large.npz", "xy", scale=100)
    with pytest.raises(ValueError, match=r"clip x: a joint is -\d+ mm .* is the motion in metres"):
        data.create("mocap", large, "train")
    small = data.create("mocap", write_clips(tmp_path / "small.npz", "xy", scale=0.001), "train")
    with pytest.raises(ValueError, match="expected a body in millimetres"):
        small.photo(0)
