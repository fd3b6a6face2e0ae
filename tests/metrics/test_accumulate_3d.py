"""Streaming MPJPE and 3DPCK equal one pass exactly, over batches, merges, saved states and ranks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bodies_3d import standing

import fastpose
from fastpose.metrics import MPJPEAccumulator, PCK3DAccumulator, accumulate_3d, keypoints_3d

ACTIONS = ("Eating", "Sitting", "Walking")


def data(number=23):
    rng = np.random.default_rng(9)
    target = standing(number, 50, 9)
    visibility = (rng.random((number, 16)) > 0.2).astype(np.uint8)
    actions = [ACTIONS[index] for index in rng.integers(0, 3, number)]
    return target + rng.normal(0, 60, target.shape), target, visibility, actions


def batches(parts, size):
    return [tuple(part[start : start + size] for part in parts) for start in range(0, len(parts[0]), size)]


def of(align):
    return MPJPEAccumulator(align, actions=ACTIONS)


@pytest.mark.parametrize("align", ["root_depth", "root", "rigid", "similarity"])
@pytest.mark.parametrize("size", [1, 4, 100])
def test_batches_equal_one_pass(align, size):
    prediction, target, visibility, actions = data()
    accumulator = of(align)
    for batch in batches(data(), size):
        accumulator.update(*batch)
    assert accumulator.result() == keypoints_3d.mpjpe(prediction, target, visibility, align=align, actions=actions)


@pytest.mark.parametrize("size", [1, 4, 100])
def test_counts_in_batches_equal_one_pass(size):
    prediction, target, visibility, actions = data()
    accumulator = PCK3DAccumulator(actions=ACTIONS)
    for batch in batches(data(), size):
        accumulator.update(*batch)
    assert accumulator.result() == keypoints_3d.pck_3d(prediction, target, visibility, actions=actions)
    assert accumulator.auc() == keypoints_3d.auc_3d(prediction, target, visibility, actions=actions)
    assert 0 < accumulator.auc().value < accumulator.result().value < 100


@pytest.mark.parametrize("build", [lambda: of("root"), lambda: PCK3DAccumulator(actions=ACTIONS)])
def test_merge_and_state_equal_one_pass(build):
    first, second, whole, copied = (build() for _ in range(4))
    for index, batch in enumerate(batches(data(), 5)):
        (first, second)[index % 2].update(*batch)
    whole.update(*data())
    copied.load_state(second.state())
    first.merge(copied)
    first.all_reduce()  # alone, nothing happens
    assert first.result() == whole.result()
    with pytest.raises(ValueError, match="got nothing"):
        copied.load_state({})
    copied.reset()
    with pytest.raises(ValueError, match="no labelled joint among 0 persons"):
        copied.result()


def test_more_persons_than_are_held_at_a_time(monkeypatch):
    plain = [of("root"), PCK3DAccumulator(actions=ACTIONS)]
    for accumulator in plain:
        accumulator.update(*data())
    monkeypatch.setattr(accumulate_3d, "_CHUNK", 5)
    for accumulator, expected in zip([of("root"), PCK3DAccumulator(actions=ACTIONS)], plain, strict=True):
        accumulator.update(*data())
        assert accumulator.result() == expected.result()


def test_other_protocols_and_actions_are_refused():
    with pytest.raises(ValueError, match="merge: expected protocol"):
        of("root").merge(of("rigid"))
    with pytest.raises(ValueError, match="merge: expected protocol"):
        of("root").merge(MPJPEAccumulator("root"))
    with pytest.raises(ValueError, match="merge: expected thresholds"):
        PCK3DAccumulator().merge(PCK3DAccumulator(100))
    with pytest.raises(ValueError, match=r"state\['sums'\]: expected"):
        of("root").load_state(MPJPEAccumulator("root").state())
    with pytest.raises(ValueError, match="actions: expected a list of names"):
        MPJPEAccumulator(actions="Walking")
    with pytest.raises(ValueError, match="unknown joint"):
        PCK3DAccumulator(joints=["l_wirst"])


def test_a_refused_batch_adds_nothing():
    prediction, target, visibility, actions = data(3)
    for accumulator in (of("root"), PCK3DAccumulator(actions=ACTIONS)):
        accumulator.update(prediction, target, visibility, actions)
        before = accumulator.result()
        with pytest.raises(ValueError, match="unknown action 'Walkin'; did you mean 'Walking'"):
            accumulator.update(prediction, target, visibility, [*actions[:2], "Walkin"])
        with pytest.raises(ValueError, match="expected"):
            accumulator.update(prediction[:2], target, visibility, actions)
        assert accumulator.result() == before


@pytest.mark.parametrize("far", [1e9, 3e9, 1e12])
def test_an_error_beyond_any_body_is_itself(far):
    target = standing(4, 50, 2)
    prediction = target.copy()
    prediction[1, 10] += (far, 0, 0)
    result = keypoints_3d.mpjpe(prediction, target)
    assert result.per_joint["r_wrist"] == pytest.approx(far / 4, rel=1e-9)
    assert result.value == pytest.approx(far / 64, rel=1e-9)
    halves = [MPJPEAccumulator("root") for _ in range(2)]
    for half, rows in zip(halves, (slice(0, 2), slice(2, 4)), strict=True):
        half.update(prediction[rows], target[rows])
    halves[0].merge(halves[1])
    assert halves[0].result() == result


def test_errors_too_great_to_add_are_refused_and_add_nothing(monkeypatch):
    target = standing(6, 50, 2)
    accumulator = MPJPEAccumulator("root")
    accumulator.update(target, target)
    before = accumulator.result()
    monkeypatch.setattr(accumulate_3d, "_CHUNK", 2)  # the first four are fine
    for far in (5e12, 1e18, 1e100):
        prediction = target + 0
        prediction[5, 10] += (far, 0, 0)
        with pytest.raises(ValueError, match=r"metric: values of .* are more than the 4.4e\+12 that can be added up"):
            accumulator.update(prediction, target)
        assert accumulator.result() == before
    near = [MPJPEAccumulator("root") for _ in range(2)]
    prediction = target + 0
    prediction[5, 10] += (3e12, 0, 0)
    for each in near:
        each.update(prediction, target)
    kept = near[0].result()
    with pytest.raises(ValueError, match="are more than"):
        near[0].merge(near[1])
    with pytest.raises(ValueError, match="are more than"):
        near[0].update(prediction, target)
    assert near[0].result() == kept


RANK = """
import sys
import numpy, torch
from fastpose.metrics import MPJPEAccumulator, PCK3DAccumulator
folder, rank = sys.argv[1], int(sys.argv[2])
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
parts = numpy.load(f"{folder}/data.npz")
actions = ("Eating", "Sitting", "Walking")
mean, counts = MPJPEAccumulator("similarity", actions=actions), PCK3DAccumulator(actions=actions)
for start in range(4 * rank, 23, 8):
    rows = [parts[name][start : start + 4] for name in ("prediction", "target", "visibility", "actions")]
    mean.update(*rows)
    counts.update(*rows)
mean.all_reduce()
counts.all_reduce()
print(mean.result().as_json() + counts.auc().as_json())
torch.distributed.destroy_process_group()
"""


def test_two_ranks_equal_one(tmp_path):
    prediction, target, visibility, actions = data()
    np.savez(
        tmp_path / "data.npz", prediction=prediction, target=target, visibility=visibility, actions=np.array(actions)
    )
    command = [sys.executable, "-P", "-c", RANK, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(fastpose.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, text=True, env=environment) for rank in range(2)
    ]
    lines = [process.communicate(timeout=120)[0].strip() for process in ranks]
    mean = keypoints_3d.mpjpe(prediction, target, visibility, align="similarity", actions=actions)
    counts = keypoints_3d.auc_3d(prediction, target, visibility, actions=actions)
    assert lines == [mean.as_json() + counts.as_json()] * 2
