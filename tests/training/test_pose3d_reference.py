"""What the training poses say about bodies: read once, fitted where it is asked, and what an absent set leaves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastpose.metrics.plausibility import JointLimits
from fastpose.training.pose3d_data import Pose3dDataConfig
from fastpose.training.pose3d_reference import Reference, reference


def data(**options: object) -> Pose3dDataConfig:
    return Pose3dDataConfig(wild=("sample",), validation="sample-mocap", **options)


def test_a_damaged_training_set_stops_an_evaluation_that_knows_the_bone_sum(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "h36m_train.npz").write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"h36m_train\.npz: not a readable \.npz file"):
        reference(data(name="h36m", root=str(tmp_path)), 4276.0)


def test_a_misnamed_clip_stops_an_evaluation_that_knows_the_bone_sum() -> None:
    with pytest.raises(ValueError, match=r"unknown clip 'nosuch'"):
        reference(data(name="sample-mocap", validation_clips=("nosuch",)), 4276.0)


@pytest.mark.parametrize("name", ["h36m", "mocap"])
@pytest.mark.parametrize("root", ["", "empty"])
def test_of_an_absent_training_set_the_bone_sum_alone_is_known(tmp_path: Path, name: str, root: str, caplog) -> None:
    config = data(name=name, root=root and str(tmp_path))
    found = reference(config, 4276.0)
    assert (found.bone_sum, found.proportions, found.limits) == (4276.0, None, None)
    assert len(caplog.messages) == 1
    with pytest.raises(ValueError, match=r"^test\.bone_sum: expected the length in mm of the 14 bones together, since"):
        reference(config)


def test_the_bone_sum_is_read_without_a_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(poses: np.ndarray) -> None:
        raise AssertionError("fitted")

    with monkeypatch.context() as patch:
        patch.setattr(JointLimits, "from_poses", refuse)
        found = reference(data(name="sample-mocap"))
    assert found.bone_sum > 1000
    assert found.limits is found.limits is not None
    assert found.proportions is not None


def test_poses_without_extent_tell_a_length_and_no_proportions() -> None:
    point = Reference(1.0, np.zeros((1, 16, 3)))
    assert point.bone_sum == 1.0
    with pytest.raises(ValueError, match="expected bodies to take proportions from"):
        _ = point.proportions
