"""Dropout over processes: the rows of one mask, whatever the shape and the order in memory."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastpose.nn import split_dropout
from fastpose.nn.split_dropout import SplitDropout

SIZE, ROWS = 3, 2
SHAPES = [(8,), (5, 8), (8, 5, 5), (1, 5, 5), (8, 1, 1), (8, 1, 5), (2, 3, 4, 5)]


@pytest.fixture
def as_rank(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """This process as one of several; ``get_rank`` is set by the test."""
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: SIZE)
    return monkeypatch


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_promise_10_every_process_drops_its_rows_of_one_mask(
    shape: tuple[int, ...], channels_last: bool, share: float, as_rank: pytest.MonkeyPatch
) -> None:
    batch = torch.ones(SIZE * ROWS, *shape)
    if channels_last and batch.dim() == 4:
        batch = batch.contiguous(memory_format=torch.channels_last)
    torch.manual_seed(5)
    whole = nn.functional.dropout(batch, share, training=True)
    after = torch.rand(1)
    for rank in range(SIZE):
        as_rank.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        own = slice(rank * ROWS, (rank + 1) * ROWS)
        torch.manual_seed(5)
        mine = SplitDropout(share)(batch[own])
        assert torch.equal(mine, whole[own]), (rank, shape, share)
        if 0 < share < 1:  # and the stream goes on at the same place
            assert torch.equal(torch.rand(1), after), (rank, shape)


def test_promise_10_dropout_alone_or_in_evaluation_is_that_of_torch(as_rank: pytest.MonkeyPatch) -> None:
    batch = torch.ones(4, 50)
    assert torch.equal(SplitDropout(0.5).eval()(batch), batch)
    as_rank.setattr(torch.distributed, "is_initialized", lambda: False)
    torch.manual_seed(5)
    mine = SplitDropout(0.5)(batch)
    torch.manual_seed(5)
    assert torch.equal(mine, nn.Dropout(0.5)(batch))


def test_split_takes_plain_dropout_alone() -> None:
    network = nn.Sequential(nn.Dropout(0.3), nn.Dropout2d(0.4), nn.Sequential(nn.Dropout(0.5)))
    split_dropout.split(network)
    assert [type(module) for module in network.modules() if hasattr(module, "p")] == [
        SplitDropout,
        nn.Dropout2d,
        SplitDropout,
    ]
