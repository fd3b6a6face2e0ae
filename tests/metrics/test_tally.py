"""Sums of whole multiples: exact in any order, over ranks, and refused before they overflow."""

from __future__ import annotations

import pytest
import torch

from fastpose.metrics import _ranks
from fastpose.metrics._tally import Tally


def filled(*values, unit=2.0**-32):
    tally = Tally(1, unit)
    for value in values:
        tally.add(torch.tensor([[value]], dtype=torch.float64))
    return tally


def test_means_leave_out_nan_and_do_not_depend_on_order():
    values = [0.1, -0.7, float("nan"), 3e5, 1e-9, -2e5]
    assert (
        filled(*values).mean(0) == filled(*reversed(values)).mean(0) == pytest.approx(sum(values[:2] + values[3:]) / 5)
    )
    tally = Tally(2)
    tally.add(torch.tensor([[1.0, float("nan")]]))
    assert tally.counts.tolist() == [1, 0]
    assert tally.totals().tolist() == [1, 0]
    assert str(tally.mean(1)) == "nan"


@pytest.mark.parametrize("value", [1e-9, 12.5, -0.3, -7e8, 5e8])
def test_ranks_add_up_in_two_words(value, monkeypatch):
    monkeypatch.setattr(_ranks, "summed", lambda tensors, device: [3 * tensor for tensor in tensors])
    tally = filled(value / 3)
    whole = 3 * int(tally.sums)
    tally.all_reduce()
    assert int(tally.sums) == whole
    assert int(tally.counts) == 3


def test_sums_that_have_no_place_are_refused(monkeypatch):
    tally = filled(2.0**29)
    for values in ([[2.0**30]], [[2.0**31]], [[1e300]], [[-1e12]], [[2.0**29], [2.0**29]]):
        with pytest.raises(ValueError, match=r"are more than the 1.07e\+09 that can be added up exactly"):
            tally.add(torch.tensor(values, dtype=torch.float64))
        assert tally.totals().tolist() == [2.0**29]
        assert tally.counts.tolist() == [1]
    with pytest.raises(ValueError, match="can be added up exactly"):
        filled(2.0**29).merge(filled(2.0**29))
    monkeypatch.setattr(_ranks, "summed", lambda tensors, device: [8 * tensor for tensor in tensors])
    for start in (2.0**29, -(2.0**29)):
        with pytest.raises(ValueError, match="can be added up exactly"):
            filled(start).all_reduce()  # 2^64 would be 0
    with pytest.raises(ValueError, match="expected finite values, got an infinite one"):
        tally.add(torch.tensor([[float("inf")]]))


def test_a_larger_unit_has_more_room():
    tally = filled(1e12, 2e12, unit=2.0**-20)
    assert tally.mean(0) == 1.5e12
