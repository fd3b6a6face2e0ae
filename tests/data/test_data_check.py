"""``data.check``: the tree with ticks and crosses, counts, first offenders, and what makes a data set ready."""

from __future__ import annotations

import numpy as np
import pytest

from fastpose import data
from fastpose.data.check import check


@pytest.fixture
def folder(tmp_path, photo):
    """An extended LSP set of eight photographs without fault."""
    for index in range(8):
        photo(f"images/im{index + 1:05d}.jpg")
    _save(tmp_path, _joints())
    return tmp_path


def _joints():
    joints = np.ones((8, 14, 3))
    joints[:, :, :2] = np.random.default_rng(1).uniform([5, 5], [75, 55], (8, 14, 2))
    return joints


def _save(folder, joints):
    from scipy.io import savemat

    savemat(folder / "joints.mat", {"joints": joints.transpose(1, 2, 0)})


def _line(report, words):
    (line,) = [line for line in report.lines if words in line]
    return line


def test_a_whole_data_set_is_ready(folder):
    report = check("lspet", folder)
    assert report.ok
    assert "✗" not in "".join(report.lines)
    assert _line(report, "persons") == "✓ all: 8 persons, 8 photographs, 112 joints"


def test_missing_files_are_crossed(tmp_path):
    report = check("lspet", tmp_path)
    assert not report.ok
    assert _line(report, "array joints").startswith("  ✗ joints.mat")
    assert _line(report, "one per column").startswith("  ✗ images")


def test_an_absent_folder_is_crossed(tmp_path):
    report = check("coco", tmp_path / "none")
    assert not report.ok
    assert report.lines[0].startswith("✗")


def test_missing_photographs_are_counted_and_the_first_named(folder):
    for index in (2, 3, 4, 5, 6, 7):
        (folder / "images" / f"im{index:05d}.jpg").unlink()
    report = check("lspet", folder)
    assert not report.ok
    assert _line(report, "missing:").startswith("  ✗ 6 photographs missing: im00002.jpg, im00003.jpg,")
    assert _line(report, "missing:").endswith(", ...")


def test_unreadable_photographs_are_found(folder):
    (folder / "images" / "im00002.jpg").write_bytes(b"")
    report = check("lspet", folder)
    assert not report.ok
    assert "1 photographs unreadable" in _line(report, "im00002.jpg: the file is empty")


def test_truncated_photographs_are_found(folder):
    path = folder / "images" / "im00002.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    report = check("lspet", folder)
    assert not report.ok
    assert "im00002.jpg: truncated" in _line(report, "unreadable")


def test_coordinates_that_are_not_numbers_are_found(folder):
    joints = _joints()
    joints[4, 2, 0] = np.nan
    _save(folder, joints)
    report = check("lspet", folder)
    assert not report.ok
    assert "im00005.jpg (person 5)" in _line(report, "NaN or infinite")


def test_joints_out_of_frame_are_a_remark(folder):
    joints = _joints()
    joints[4, 2, :2] = [200.0, 3.0]
    _save(folder, joints)
    report = check("lspet", folder)
    assert report.ok
    assert _line(report, "out of frame").startswith("  ! 1 persons with joints out of frame: im00005.jpg (person 5)")


def test_persons_without_joints_are_a_remark(folder):
    joints = _joints()
    joints[4] = 0
    _save(folder, joints)
    report = check("lspet", folder)
    assert report.ok
    assert "im00005.jpg (person 5)" in _line(report, "without any labelled joint")


def test_a_damaged_annotation_file_is_reported(folder):
    (folder / "joints.mat").write_bytes(b"junk")
    report = check("lspet", folder)
    assert not report.ok
    assert "not a readable MATLAB file" in _line(report, "✗ all:")


def test_one_of_several_annotation_formats_is_enough(shared):
    report = check("mpii", shared / "data" / "mpii")
    assert "  ✓ annot/valid.h5" in "\n".join(report.lines)
    assert "  - annot/valid.json" in "\n".join(report.lines)
    assert "val: 2,958 persons, 2,729 photographs" in "\n".join(report.lines)
    assert not report.ok  # only seven photographs are there


def test_the_bundled_sample_is_ready():
    assert check("sample").ok


def test_every_data_set_can_be_checked(tmp_path):
    for name in data.list():
        assert check(name, tmp_path).lines[-1] == f"{name}: not ready, see the crosses above"


def test_an_unknown_name_offers_the_nearest(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'lspet'"):
        check("lspt", tmp_path)


def test_a_data_set_on_disk_needs_a_folder():
    with pytest.raises(ValueError, match="needs the folder"):
        check("mpii")
