"""fastpose data render: a folder in the layout of Human3.6M that reads back as what was drawn."""

from __future__ import annotations

import numpy as np
import pytest

from fastpose import data, skeletons
from fastpose.data import render_files
from fastpose.data.rendered_mocap import SampleMocap


def test_two_splits_are_written_and_read_back(run, tmp_path):
    code, out, err = run("data", "render", "sample", "-o", "drawn", "--count", 5, "--size", 64, "--seed", 3)
    assert (code, err) == (0, "")
    assert "drawn: 5 images of 64 x 64, split train" in out
    assert "drawn: 5 images of 64 x 64, split val" in out
    assert "data.name=h36m data.root=drawn" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["drawn"]
    for split in ("train", "val"):
        drawn = SampleMocap(split, size=(64, 64), seed=3, skeleton="h36m")
        place = {person.image.as_posix(): index for index, person in enumerate(drawn.persons)}
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


def test_arrays_are_those_of_mmpose(run, tmp_path):
    assert run("data", "render", "sample", "--out", "a", "--split", "val", "--count", 2, "--size", 32)[0] == 0
    with np.load(tmp_path / "a" / "h36m_test.npz", allow_pickle=False) as content:
        shapes = {name: content[name].shape for name in content.files}
        assert (content["S"][..., 3] == 1).all()
        assert 1 < content["S"][:, 0, 2].min() < 9  # metres
    assert shapes == {
        "imgname": (2,), "center": (2, 2), "scale": (2,), "part": (2, 17, 3), "S": (2, 17, 4),
        "intrinsics": (2, 3, 3), "visibility": (2, 17),
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
        (("sample", "--size", 0), "size: expected (H, W) of at least 1"),
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
