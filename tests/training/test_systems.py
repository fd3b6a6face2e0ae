"""Weights of a system: what their manifest may fill into the configuration."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from drawing_weights import save

from fastpose.training import systems


def test_a_manifest_fills_in_the_keys_that_are_left_to_the_training_set_alone(tmp_path: Path) -> None:
    measured = {"test.bone_sum": 4000, "run.seed": 5, "run.deterministic": 1, "no.such": "x"}
    _, config, _ = systems.load_network(save(tmp_path, "pose3d/tiny", measured=measured))
    assert (config.test.bone_sum, config.run.seed, config.run.deterministic) == (4000.0, 0, False)


@pytest.mark.parametrize("value", ["inf", True, -1.0, 0, None, [4000.0]])
def test_a_measured_value_that_is_no_positive_number_is_refused_with_its_file(tmp_path: Path, value: object) -> None:
    path = save(tmp_path, "pose3d/tiny", measured={"test.bone_sum": value})
    expected = f"checkpoint {path}: measured test.bone_sum: expected a positive number, got {value!r}"
    with pytest.raises(ValueError, match=re.escape(expected)):
        systems.load_network(path)
