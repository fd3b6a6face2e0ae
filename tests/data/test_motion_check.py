"""fastpose data check for recorded motion: what is left out, how large the persons are, what the splits hold."""

from __future__ import annotations

import numpy as np
from motion_files import BVH, write

from fastpose.data import motion_check
from fastpose.data.motion import SAMPLE


def line(report, words):
    """The one line of a report with these words."""
    (found,) = [line for line in report.lines if words in line]
    return found


def test_promise_19_archives_of_other_things_are_told_and_left_out(tmp_path):
    (tmp_path / "motion.npz").write_bytes(SAMPLE.read_bytes())
    np.savez(tmp_path / "h36m_train.npz", imgname=np.array(["a"]), S=np.zeros((1, 17, 4)))
    report = motion_check.check("mocap", tmp_path)
    assert report.ok
    assert line(report, "left out") == "  ! 1 .npz files left out, which lack joint_names or parents: h36m_train.npz"
    assert line(report, "files: ") == "✓ files: 1 .npz"
    assert "10 readable" in line(report, "clips: ")


def test_promise_19_sizes_and_units_are_told():
    told = line(motion_check.check("sample-mocap", SAMPLE), "persons: ")
    assert told == "✓ persons: 1.73 m (02_05) to 1.79 m (03_01) from ankle to crown; lengths in mm (10 clips)"


def test_promise_19_the_bundled_clips_are_split_as_they_are_used():
    report = motion_check.check("sample-mocap", SAMPLE)
    assert line(report, "train: ") == "✓ train: 7 clips, 01_01, 01_14, 02_01, ..."
    assert line(report, "val: ") == "✓ val: 3 clips, 02_03, 02_04, 03_01"


def test_promise_19_nothing_that_can_be_posed(tmp_path):
    write(tmp_path, "a.bvh", BVH)
    report = motion_check.check("mocap", tmp_path)
    assert not report.ok
    assert not any("persons: " in line for line in report.lines)
    assert "a (motion a: its joints" in line(report, "unreadable")
