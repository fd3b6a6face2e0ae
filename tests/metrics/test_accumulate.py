"""Streaming equals one pass exactly, over batches, merges, saved states and ranks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import fastpose
from fastpose.metrics import PCKAccumulator, keypoints_2d, protocols
from fastpose.skeletons import COCO


def data(number=23):
    rng = np.random.default_rng(9)
    target = rng.uniform(10, 200, (number, 14, 2))
    visibility = (rng.random((number, 14)) > 0.25).astype(np.uint8)
    return target + rng.normal(0, 15, target.shape), target, visibility


def batches(parts, size):
    return [tuple(part[start : start + size] for part in parts) for start in range(0, len(parts[0]), size)]


@pytest.mark.parametrize("size", [1, 4, 23, 100])
def test_batches_equal_one_pass(size):
    parts = data()
    protocol = protocols.lsp(every_joint=False)
    accumulator = PCKAccumulator(protocol, curve_maximum=0.5)
    for batch in batches(parts, size):
        accumulator.update(*batch)
    assert accumulator.result() == keypoints_2d.lsp_pck(*parts)
    whole = keypoints_2d.pck_curve(protocol, *parts, maximum=0.5)
    assert torch.equal(accumulator.curve().values, whole.values)
    assert keypoints_2d.auc(accumulator.curve()) == keypoints_2d.auc(whole)


def test_merge_and_state_equal_one_pass():
    parts = data()
    first, second = PCKAccumulator(protocols.lsp(every_joint=False)), PCKAccumulator(protocols.lsp(every_joint=False))
    for index, batch in enumerate(batches(parts, 5)):
        (first, second)[index % 2].update(*batch)
    copied = PCKAccumulator(protocols.lsp(every_joint=False))
    copied.load_state(second.state())
    first.merge(copied)
    assert first.result() == keypoints_2d.lsp_pck(*parts)
    assert all(value.dtype == torch.int64 for value in first.state().values())


def test_a_refused_batch_adds_nothing():
    prediction, target, _ = data(3)
    accumulator = PCKAccumulator(protocols.lsp())
    accumulator.update(prediction, target)
    before = accumulator.result()
    with pytest.raises(ValueError, match="expected"):
        accumulator.update(prediction[:2], target)
    assert accumulator.result() == before


def test_states_and_merges_of_other_protocols_are_refused():
    accumulator = PCKAccumulator(protocols.lsp())
    with pytest.raises(ValueError, match="merge: expected protocol"):
        accumulator.merge(PCKAccumulator(protocols.lsp(torso="rsho-lhip")))
    with pytest.raises(ValueError, match=r"state\['correct'\]: expected"):
        accumulator.load_state(PCKAccumulator(protocols.person(COCO)).state())
    with pytest.raises(ValueError, match="got nothing"):
        accumulator.load_state({})


def test_an_empty_accumulator_has_no_value_and_reset_empties():
    accumulator = PCKAccumulator(protocols.lsp())
    with pytest.raises(ValueError, match="no labelled joint among 0 persons"):
        accumulator.result()
    accumulator.update(*data(2)[:2])
    accumulator.reset()
    with pytest.raises(ValueError, match="no labelled joint"):
        accumulator.curve()


def test_all_reduce_alone_changes_nothing():
    accumulator = PCKAccumulator(protocols.lsp())
    accumulator.update(*data())
    before = accumulator.result()
    accumulator.all_reduce()
    assert accumulator.result() == before


RANK = """
import sys
import numpy, torch
from fastpose.metrics import PCKAccumulator, protocols
folder, rank = sys.argv[1], int(sys.argv[2])
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
parts = numpy.load(f"{folder}/data.npz")
accumulator = PCKAccumulator(protocols.lsp(every_joint=False))
for start in range(4 * rank, 23, 8):
    accumulator.update(*(parts[name][start : start + 4] for name in ("prediction", "target", "visibility")))
accumulator.all_reduce()
print(accumulator.result().as_json())
torch.distributed.destroy_process_group()
"""


def test_two_ranks_equal_one(tmp_path):
    prediction, target, visibility = data()
    np.savez(tmp_path / "data.npz", prediction=prediction, target=target, visibility=visibility)
    command = [sys.executable, "-P", "-c", RANK, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(fastpose.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, text=True, env=environment) for rank in range(2)
    ]
    lines = [process.communicate(timeout=120)[0].strip() for process in ranks]
    expected = keypoints_2d.lsp_pck(prediction, target, visibility).as_json()
    assert lines == [expected, expected]
