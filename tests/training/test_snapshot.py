"""What the processes of a job put into a resume point: nothing twice."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fastpose.training import distributed, snapshot
from fastpose.training.distributed import World

POOL = {"pool": {"images": torch.arange(12.0).view(3, 4), "count": 3}}


def private(rank: int, state: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a process of two has of its own, where the leader's trainer holds POOL."""
    leaders = snapshot._hash(POOL)
    monkeypatch.setattr(distributed, "share", lambda value, place: value if place.leader else leaders)
    trainer, window = SimpleNamespace(state=lambda: state), SimpleNamespace(state_dict=dict)
    job: Any = SimpleNamespace(trainer=trainer, window=window, place=World(rank, 2, torch.device("cpu")))
    return snapshot.take_private(job)


def test_promise_10_a_pool_of_all_processes_is_saved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    copy = {"pool": {"images": POOL["pool"]["images"].clone(), "count": 3}}
    for rank in (0, 1):
        assert set(private(rank, copy, monkeypatch)) == {"random", "window"}


@pytest.mark.parametrize("change", ["value", "count", "shape"])
def test_promise_10_what_a_process_alone_has_is_saved_for_it(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images = POOL["pool"]["images"].clone()
    if change == "value":
        images[2, 3] += 1.0
    images = images.view(4, 3) if change == "shape" else images
    own = {"pool": {"images": images, "count": 4 if change == "count" else 3}}
    assert private(1, own, monkeypatch)["trainer"] is own
