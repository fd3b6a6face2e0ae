"""Rendered motion: clips of the splits, random cameras, truth against a pinhole written by hand, pictures, cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from motion_files import write_pair

from fastpose import data, skeletons
from fastpose.data import bodies, motion, rendered_mocap
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
        for name in sorted(shared)[::40]:
            assert np.array_equal(known[name].pose3d.joints, same[name].pose3d.joints)
            assert np.array_equal(known[name].keypoints, same[name].keypoints)


def test_frames_and_views():
    per_second = len(SampleMocap("all", fps=15))
    assert len(SampleMocap("all", fps=5)) == pytest.approx(per_second / 3, abs=10)
    both = SampleMocap("all", fps=5, views=2)
    assert len(both) == 2 * len(SampleMocap("all", fps=5))
    assert [both.picture_name(index) for index in range(3)] == ["01_01/000000-v0", "01_01/000000-v1", "01_01/000003-v0"]
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
    assert val.picture_name(0) == "b_c_.._d/000000-v0"


def test_a_person_is_told_by_motion_file_clip_frame_and_view(tmp_path, monkeypatch):
    """Recordings of one name in two folders are strangers; one recording is itself by every path, rate and label."""
    for folder in ("one", "two"):
        write_clips(tmp_path / folder / "motion.npz", ["walk", "a/../b"])
    (tmp_path / "link.npz").symlink_to(tmp_path / "two" / "motion.npz")

    def images(root, **options):
        return {str(person.image) for person in RenderedMocap(root, "all", **options).persons}

    first, second = (images(tmp_path / folder / "motion.npz") for folder in ("one", "two"))
    assert first.isdisjoint(second)
    assert (len(first), len({image.rpartition("/")[0] for image in first})) == (8, 2)
    assert images(tmp_path / "link.npz") == second
    assert images(tmp_path) == first | second  # labels of the second are "walk~2" and the like
    assert images(tmp_path / "one", fps=5.0, seed=3) < first
    monkeypatch.chdir(tmp_path / "one")
    assert images("motion.npz") == first
    assert {str(Path(image).resolve()) for image in first} == first


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
    place = {everyone.picture_name(index): index for index in range(len(everyone))}
    for index in (0, 30):
        picture = val.photo(index)
        assert picture.shape == (256, 256, 3)
        assert picture.dtype == np.uint8
        assert np.array_equal(picture, val.photo(index))
        assert np.array_equal(picture, everyone.photo(place[val.picture_name(index)]))
    assert (val.photo(0) != SampleMocap("val", seed=1).photo(0)).mean() > 0.5
    assert (val.photo(0) != val.photo(1)).mean() > 0.5


def test_some_joints_are_hidden_by_the_body(everyone):
    marks = np.stack([everyone.visibility(index) for index in range(0, len(everyone), 20)])
    assert set(np.unique(marks)) == {1, 2}
    assert 0.05 < (marks == 1).mean() < 0.5
    assert np.array_equal(everyone.render(0).visibility, everyone.visibility(0))
    assert (everyone.persons[0].visibility == 2).all()


def test_nothing_is_drawn_before_it_is_asked_for(tmp_path, monkeypatch):
    drawn = []
    for name in ("render", "visibility", "parts"):
        monkeypatch.setattr(bodies, name, lambda *arguments: drawn.append(arguments))
    root = write_clips(tmp_path / "motion.npz", [f"c{row}" for row in range(10)], frames=295)
    assert len(RenderedMocap(root, "all", views=5)) == 14750
    assert drawn == []


def test_pictures_are_those_of_version_1(everyone):
    """What a cache holds stays true: another picture for the same seed and name needs another ``bodies.VERSION``."""
    assert bodies.VERSION == 1
    picture = everyone.photo(100).astype(np.float64)
    assert everyone.picture_name(100) == "01_01/000200-v0"
    assert picture.mean((0, 1)) == pytest.approx([90.3, 114.7, 81.8], abs=0.5)


def test_workers_draw_what_this_process_draws():
    """(seed, clip, frame, view) alone tell a picture, whoever draws it."""
    batches = {}
    for workers in (0, 2):
        dataset = data.KeypointDataset(SampleMocap("val", size=(64, 64), fps=2), image_size=(32, 32), augment="newell")
        loader = data.create_loader(dataset, 5, shuffle=True, seed=3, workers=workers)
        batches[workers] = list(loader)
    assert len(batches[0]) == len(batches[2]) > 2
    for alone, shared in zip(batches[0], batches[2], strict=True):
        for key, values in alone.items():
            assert (values == shared[key]).all(), key


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
        ({"fps": "10"}, "fps: expected a positive number, got '10'"),
        ({"fps": float("nan")}, "fps: expected a positive number, got nan"),
        ({"views": 0}, "views: expected a whole number from 1, got 0"),
        ({"views": 1.5}, r"views: expected a whole number from 1, got 1\.5"),
        ({"seed": -1}, "seed: expected a whole number from 0, got -1"),
        ({"seed": 1.5}, r"seed: expected a whole number from 0, got 1\.5"),
        ({"size": (0, 5)}, r"size: expected \(H, W\), whole numbers of at least 1 and at most 4096, got \(0, 5\)"),
        ({"size": 256}, "size: expected .*, got 256"),
        ({"size": (64.5, 64)}, "size: expected .*, got"),
        ({"size": (100000, 100000)}, "size: expected .* at most 4096"),
        ({"validation_clips": "02_03"}, r"validation_clips: expected names such as \[02_03\], got '02_03'"),
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
    for every in (1, 2.5):
        with pytest.raises(ValueError, match=f"holdout_every: expected a whole number from 2, got {every}"):
            RenderedMocap(motion.library.SAMPLE, holdout_every=every)
    with pytest.raises(ValueError, match="unit: expected one of auto, mm, cm, inch, cmu, m, got 'feet'"):
        RenderedMocap(motion.library.SAMPLE, unit="feet")
    with pytest.raises(ValueError, match="recorded_fps: expected a positive number, got 0"):
        RenderedMocap(motion.library.SAMPLE, recorded_fps=0)
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


def test_the_largest_persons_stay_in_the_picture():
    source = SampleMocap("val", fps=5, cameras=Cameras(fill=(0.8, 0.8), shift=0.1, elevation=(-80, 80)))
    points = np.stack([person.keypoints for person in source.persons])
    assert (points > 0).all()
    assert (points < 255).all()


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    source = SampleMocap("val", size=(32, 32), cache=tmp_path / "file" / "cache")
    with pytest.raises(OSError, match=r"cache: .*file.cache could not be written \(.+\); name another folder, or none"):
        source.photo(0)


def test_units_and_rates_of_files_can_be_told(tmp_path, monkeypatch):
    root, asked = write_pair(tmp_path), {}
    (clip,) = motion.find(root)
    assert (clip.read().fps, clip.read(recorded_fps=60).fps) == (120, 60)
    assert motion.read(root, recorded_fps=60, fps=30).fps == 30

    person = motion.sample()[0]
    monkeypatch.setattr(motion.Clip, "read", lambda clip, **options: asked.update(options) or person)
    RenderedMocap(root, "all", unit="m", recorded_fps=60)
    assert asked == {"unit": "m", "recorded_fps": 60}
