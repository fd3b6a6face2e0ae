"""Any optimizer's and schedule's state as JSON and tensors, and back."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fastpose.training import state_tree


def there_and_back(value: Any) -> Any:
    tensors: dict[str, torch.Tensor] = {}
    tree = json.loads(json.dumps(state_tree.encode(value, tensors)))
    return state_tree.decode(tree, {key: tensor.clone() for key, tensor in tensors.items()})


def same(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return list(first) == list(second) and all(same(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return type(first) is type(second) and all(same(a, b) for a, b in zip(first, second, strict=True))
    return type(first) is type(second) and first == second


def test_promise_5_values_keep_type_order_and_every_bit() -> None:
    value = {
        "b": [1, 2.0, 0.1 + 0.2, None, True, "text"],
        3: (1, (2,)),
        "a": {"tensor": torch.arange(3, dtype=torch.int16), "empty": {}},
        "half": torch.ones(2, dtype=torch.bfloat16),
    }
    assert same(there_and_back(value), value)
    assert there_and_back(Counter({5: 2})) == Counter({5: 2})
    assert isinstance(there_and_back(Counter()), Counter)
    assert np.array_equal(there_and_back(np.arange(4)), np.arange(4))
    assert there_and_back(np.float64(0.5)) == 0.5


OPTIMIZERS = [
    lambda p: torch.optim.RMSprop(p, lr=0.1, momentum=0.5, centered=True),
    lambda p: torch.optim.Adam(p, lr=0.1, amsgrad=True),
    lambda p: torch.optim.AdamW([{"params": p, "lr": 0.2}]),
    lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=2),
    lambda p: torch.optim.Adagrad(p, lr=0.1),
]


def train(network: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = network(torch.ones(2, 3)).square().sum()
        value.backward()
        return value

    for _ in range(steps):
        optimizer.step(loss)


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_an_optimizer_goes_on_bit_for_bit(make: Any) -> None:
    torch.manual_seed(0)
    first = nn.Linear(3, 2)
    optimizer = make(list(first.parameters()))
    train(first, optimizer, 3)
    second = nn.Linear(3, 2)
    second.load_state_dict(first.state_dict())
    other = make(list(second.parameters()))
    other.load_state_dict(there_and_back(optimizer.state_dict()))
    train(first, optimizer, 3)
    train(second, other, 3)
    assert torch.equal(first.weight, second.weight)


SCHEDULES = [
    lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [2, 4], 0.2),
    lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 7),
    lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.5, total_steps=20),
    lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda epoch: 1 / (1 + epoch)),
    lambda o: torch.optim.lr_scheduler.SequentialLR(
        o, [torch.optim.lr_scheduler.ConstantLR(o, 0.5, 2), torch.optim.lr_scheduler.ExponentialLR(o, 0.9)], [2]
    ),
]


@pytest.mark.parametrize("make", SCHEDULES)
def test_a_schedule_goes_on(make: Any) -> None:
    def start() -> tuple[torch.optim.Optimizer, Any]:
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
        return optimizer, make(optimizer)

    def rates(optimizer: torch.optim.Optimizer, schedule: Any, epochs: int) -> list[float]:
        found = []
        for _ in range(epochs):
            optimizer.step()
            schedule.step()
            found.append(optimizer.param_groups[0]["lr"])
        return found

    first, schedule = start()
    rates(first, schedule, 3)
    second, other = start()
    second.load_state_dict(there_and_back(first.state_dict()))
    other.load_state_dict(there_and_back(schedule.state_dict()))
    assert rates(second, other, 4) == rates(first, schedule, 4)


def test_promise_6_what_needs_pickle_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"training state a\.0: a object cannot be saved"):
        state_tree.encode({"a": [object()]}, {})
    with pytest.raises(TypeError, match="a key of type tuple cannot be saved"):
        state_tree.encode({(1, 2): 3}, {})
    for tree in ({"tensor": "gone"}, {"a": 1, "b": 2}, {"odd": 3}):
        with pytest.raises(ValueError, match="training state"):
            state_tree.decode(tree, {})
