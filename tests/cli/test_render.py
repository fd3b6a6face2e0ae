"""fastpose data render: a folder in the layout of Human3.6M that reads back as what was drawn."""

from __future__ import annotations

import numpy as np
import pytest
from motion_files import write

from fastpose import data, skeletons
from fastpose.data import render_files
from fastpose.data.rendered_mocap import SampleMocap


def stick_figure(height):
    """The text of a BVH file of someone so many units high, who stands."""
    legs = {f"{side}UpLeg": {f"{side}Leg": {f"{side}Foot": {}}} for side in ("Left", "Right")}
    arms = {f"{side}Arm": {f"{side}ForeArm": {f"{side}Hand": {}}} for side in ("Left", "Right")}
    joints = {"Hips": {**legs, "Spine1": {**arms, "Head": {"End Site": {}}}}}

    def lines(name, below):
        across = {"L": 1, "R": -1}.get(name[0], 0) * (name.endswith(("UpLeg", "Arm")) and not name.endswith("ForeArm"))
        down = 0 if across or name == "Hips" else -1 if name[0] in "LR" else 1
        word = "ROOT Hips" if name == "Hips" else name if name == "End Site" else f"JOINT {name}"
        yield f"{word} {{ OFFSET {across * height / 12} {down * height / 5} 0"
        if name != "End Site":
            yield "CHANNELS 0" if name != "Hips" else "CHANNELS 3 Xposition Yposition Zposition"
        for child, others in (below or ({"End Site": {}} if name != "End Site" else {})).items():
            yield from lines(child, others)
        yield "}"

    return "\n".join(["HIERARCHY", *lines("Hips", joints["Hips"]), "MOTION", "Frames: 1", "Frame Time: .1", "0 0 0"])


def test_two_splits_are_written_and_read_back(run, tmp_path):
    code, out, err = run("data", "render", "sample", "-o", "drawn", "--count", 5, "--size", 64, "--seed", 3)
    assert (code, err) == (0, "")
    assert "drawn: 5 images of 64 x 64, split train" in out
    assert "drawn: 5 images of 64 x 64, split val" in out
    assert out.endswith("read it as data.name=h36m data.root=drawn\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["drawn"]
    for split in ("train", "val"):
        drawn = SampleMocap(split, size=(64, 64), seed=3, skeleton="h36m")
        place = {drawn.picture_name(index): index for index in range(len(drawn))}
        for person in data.create("h36m", tmp_path / "drawn", split, skeleton="h36m").persons:
            index = place[f"{person.image.parent.name}/{person.image.stem}"]
            expected = drawn.persons[index]
            assert np.abs(person.pose3d.joints - expected.pose3d.joints).max() < 1e-3
            assert np.array_equal(person.keypoints, expected.keypoints)
            assert np.array_equal(person.pose3d.intrinsics, expected.pose3d.intrinsics)
            assert (person.scale, person.pose3d.clip) == (pytest.approx(expected.scale), expected.pose3d.clip)
            assert np.array_equal(person.center, expected.center)
            assert np.array_equal(data.images.read_image(person.image), drawn.photo(index))
            hidden = drawn.visibility(index)[skeletons.MPII.index("l_wrist")]
            assert person.visibility[skeletons.H36M.index("l_wrist")] == hidden


def test_both_doors_show_the_same_persons_to_training(run, tmp_path):
    """`mocap` and its pictures as files agree joint by joint, and in who does what."""
    assert run("data", "render", "sample", "-o", "drawn", "--split", "val", "--size", 64, "--fps", 1)[0] == 0
    drawn = SampleMocap("val", size=(64, 64), fps=1)
    files = data.create("h36m", tmp_path / "drawn", "val")
    assert len(files) == len(drawn) > 5
    assert files.skeleton == drawn.skeleton == skeletons.MPII
    for index, (here, there) in enumerate(zip(drawn.persons, files.persons, strict=True)):
        apart = np.linalg.norm(here.pose3d.joints - there.pose3d.joints, axis=1)
        assert apart.max() < 1e-3, dict(zip(skeletons.MPII.joints, apart.round(1), strict=True))
        assert np.abs(here.keypoints - there.keypoints).max() < 1e-4
        assert np.array_equal(there.visibility, drawn.visibility(index))
        for name in ("subject", "action", "camera", "clip"):
            assert getattr(here.pose3d, name) == getattr(there.pose3d, name) != ""
        assert (here.identity, here.camera, here.scale) == (there.identity, there.camera, there.scale)
        assert np.array_equal(here.center, there.center)


def test_files_name_who_does_what(run, tmp_path):
    assert (
        run("data", "render", "sample", "-o", "a", "--split", "all", "--fps", 0.5, "--views", 2, "--size", 16)[0] == 0
    )
    with np.load(tmp_path / "a" / "h36m_train.npz", allow_pickle=False) as content:
        rows = list(zip(*(content[name].tolist() for name in ("clip", "subject", "action", "camera")), strict=True))
        names = content["imgname"].tolist()
    assert rows[0] == ("01_01", "01", "jump", "v0")
    assert {("02_03", "02", "run", "v1"), ("03_01", "03", "walk", "v0")} < set(rows)
    assert all(
        name.startswith(f"{row[0]}/") and name.endswith(f"-{row[3]}.png") for name, row in zip(names, rows, strict=True)
    )


@pytest.mark.parametrize(
    ("split", "advice"),
    [
        ("val", "read it as data.validation=h36m:a"),
        ("train", "read it as data.name=h36m data.root=a data.validation=none, or name there what to validate on"),
        ("all", "what to validate on; it holds the clips for validation too"),
    ],
)
def test_the_advice_is_one_that_works(run, split, advice):
    code, out, _ = run("data", "render", "sample", "-o", "a", "--split", split, "--count", 2, "--size", 16)
    assert code == 0
    assert out.endswith(f"{advice}\n")


def test_units_and_rates_of_ones_own_files(run, tmp_path):
    write(tmp_path / "in", "walk.bvh", stick_figure(90))
    options = ("-o", "drawn", "--split", "all", "--size", 16)
    code, _, err = run("data", "render", "in", *options)
    assert code == 2
    assert "90 units, 0.90 m in cm or 2.29 m in inches; name the unit by unit=" in err
    assert run("data", "render", "in", *options, "--unit", "cm", "--recorded-fps", 30)[0] == 0
    code, _, err = run("data", "render", "sample", "-o", "other", "--unit", "cm")
    assert (code, err) == (2, "fastpose: unknown option 'unit' for data set 'sample-mocap'\n")


def test_arrays_are_those_of_mmpose(run, tmp_path):
    assert run("data", "render", "sample", "--out", "a", "--split", "val", "--count", 2, "--size", 32)[0] == 0
    with np.load(tmp_path / "a" / "h36m_test.npz", allow_pickle=False) as content:
        shapes = {name: content[name].shape for name in content.files}
        assert (content["S"][..., 3] == 1).all()
        assert 1 < content["S"][:, 0, 2].min() < 9  # metres
    assert shapes == {
        "imgname": (2,), "center": (2, 2), "scale": (2,), "part": (2, 17, 3), "S": (2, 17, 4),
        "intrinsics": (2, 3, 3), "visibility": (2, 17), "subject": (2,), "action": (2,), "camera": (2,),
        "clip": (2,),
    }  # fmt: skip


def test_the_same_seed_writes_the_same_files(run, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run("data", "render", "sample", "-o", name, "--split", "val", "--count", 3, "--size", 32, "--seed", seed)
    first, second, other = (
        {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.png")}
        for name in "abc"
    )
    assert len(first) == 3
    assert first == second
    assert first != other


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("sample", "--split", "test"), "--split: expected one of both, train, val, all, got 'test'"),
        (("sample", "--count", -1), "count: expected 0 (all) or more, got -1"),
        (("sample", "--size", 0), "size: expected (H, W), whole numbers of at least 1"),
        (("sample", "--seed", -1), "seed: expected a whole number from 0, got -1"),
        (("sample", "--views", 0), "views: expected a whole number from 1, got 0"),
        (("nowhere", "--unit", "feet"), "unit: expected one of auto, mm, cm, inch, cmu, m, got 'feet'"),
        (("nowhere",), "nowhere: no motion found"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(run, tmp_path, words, sentence):
    code, out, err = run("data", "render", *words, "-o", "drawn")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert sentence in err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_exists_is_left_alone(run, tmp_path):
    (tmp_path / "drawn").mkdir()
    code, _, err = run("data", "render", "sample", "-o", "drawn")
    assert (code, err) == (2, "fastpose: drawn: exists already; name another folder\n")
    assert list((tmp_path / "drawn").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(run, tmp_path):
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    code, _, err = run("data", "render", "sample", "-o", "file/drawn", "--count", 1, "--size", 16)
    assert (code, err) == (2, "fastpose: file/drawn: could not be written (Not a directory); name another folder\n")


def test_an_interruption_leaves_no_half_a_folder(tmp_path):
    def stop(images):
        raise KeyboardInterrupt

    source = SampleMocap("val", size=(32, 32), skeleton="h36m")
    with pytest.raises(KeyboardInterrupt):
        render_files.write(tmp_path / "drawn", {"val": source}, count=3, report=stop)
    assert list(tmp_path.iterdir()) == []


def test_the_files_need_human36ms_joints(tmp_path):
    with pytest.raises(ValueError, match="sources: expected persons with skeleton 'h36m', got 'mpii'"):
        render_files.write(tmp_path / "drawn", {"val": SampleMocap("val")})
