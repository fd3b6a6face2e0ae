"""Optimizers in one pass against those of torch."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from fastpose.training import distributed, optimizers, phases


def networks():
    torch.manual_seed(0)
    first = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Conv2d(8, 5, 1))
    return first, copy.deepcopy(first)


def train(network, optimizer, steps):
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        optimizer.zero_grad()
        network(torch.randn(4, 3, 9, 9, generator=generator)).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.1}, {"momentum": 0.5}, {"centered": True}], ids=str)
def test_rmsprop_is_that_of_torch(options, layout):
    own, plain = (network.to(memory_format=layout) for network in networks())
    mine = optimizers.RMSprop(own.parameters(), lr=1e-2, alpha=0.99, **options)
    theirs = torch.optim.RMSprop(plain.parameters(), lr=1e-2, alpha=0.99, **options)
    for network, optimizer in ((own, mine), (plain, theirs)):
        train(network, optimizer, 4)
    for one, other in zip(own.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    first, second = mine.state_dict(), theirs.state_dict()
    assert first["param_groups"] == second["param_groups"]
    for index, state in second["state"].items():
        assert state.keys() == first["state"][index].keys()
        assert state["step"] == first["state"][index]["step"] == 4


def test_either_goes_on_with_the_others_state():
    own, plain = networks()
    mine, theirs = optimizers.RMSprop(own.parameters()), torch.optim.RMSprop(plain.parameters())
    train(own, mine, 2)
    train(plain, theirs, 2)
    state = mine.state_dict()
    mine.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(state)
    train(own, mine, 1)
    train(plain, theirs, 1)
    for one, other in zip(own.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", [optimizers.RMSprop, optimizers.adam])
def test_a_state_from_a_file_lies_as_its_parameters(kind):
    """A file keeps no memory order, and passes over parameters take numbers as they lie."""
    pairs = [(network, kind(network.parameters(), lr=1e-2)) for network in networks()]
    for network, optimizer in pairs:
        network.to(memory_format=torch.channels_last)
        train(network, optimizer, 2)
    (own, resumed), (whole, _) = pairs
    state = copy.deepcopy(resumed.state_dict())
    for values in state["state"].values():
        values.update({name: value.contiguous() for name, value in values.items()})
    resumed.load_state_dict(state)
    optimizers.lay_out(resumed)
    for network, optimizer in pairs:
        train(network, optimizer, 2)
    assert all(torch.equal(one, other) for one, other in zip(own.parameters(), whole.parameters(), strict=True))


@pytest.mark.parametrize("kind", [optimizers.RMSprop, optimizers.adam])
def test_an_update_takes_gradients_that_lie_otherwise(kind):
    own, plain = networks()
    mine, theirs = kind(own.parameters(), lr=0.1), kind(plain.parameters(), lr=0.1)
    update = phases.Update({"own": own}, {"own": mine}, main="own")
    for network, add in ((own, partial(update.backward, "own")), (plain, torch.Tensor.backward)):
        add(network(torch.ones(2, 3, 9, 9)).square().mean())
    own[0].weight.grad = own[0].weight.grad.to(memory_format=torch.channels_last)
    assert own[0].weight.grad.stride() != own[0].weight.stride()
    assert update.step("own")
    theirs.step()
    assert all(torch.equal(one, other) for one, other in zip(own.parameters(), plain.parameters(), strict=True))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_of_autograd_stay_what_they_are(layout):
    network = networks()[0].to(memory_format=layout)
    network(torch.ones(2, 3, 9, 9)).mean().backward()
    before = [parameter.grad for parameter in network.parameters()]
    optimizers.lay_out_gradients(network.parameters())
    assert all(parameter.grad is same for parameter, same in zip(network.parameters(), before, strict=True))


def test_means_over_processes_lie_as_their_parameters(monkeypatch):
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda values: values.mul_(2))
    parameter = nn.Parameter(torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last))
    given = torch.randn(4, 3, 5, 5)
    parameter.grad = given.clone()
    distributed.mean_gradients([parameter], torch.zeros(()), distributed.World(0, 2, torch.device("cpu")))
    assert torch.equal(parameter.grad, given)
    assert parameter.grad.stride() == parameter.stride()


def test_the_pass_serves_networks_of_either_memory_order(monkeypatch):
    calls = []
    monkeypatch.setattr(optimizers, "_one_pass", lambda *arguments: calls.append(len(arguments[0])))
    for layout in (torch.contiguous_format, torch.channels_last):
        network = networks()[0].to(memory_format=layout)
        train(network, optimizers.RMSprop(network.parameters()), 1)
    assert calls == [5, 5]


def test_the_pass_of_adam_serves():
    assert optimizers._adam_works()


def test_without_it_torch_does_the_step(monkeypatch):
    monkeypatch.setattr(optimizers, "_adam_works", lambda: False)
    own, plain = networks()
    train(own, optimizers.RMSprop(own.parameters()), 2)
    train(plain, torch.optim.RMSprop(plain.parameters()), 2)
    assert all(torch.equal(one, other) for one, other in zip(own.parameters(), plain.parameters(), strict=True))


def test_gradients_that_are_absent_or_lie_otherwise():
    own, plain = networks()
    for network, kind in ((own, optimizers.RMSprop), (plain, torch.optim.RMSprop)):
        parameters = list(network.parameters())
        parameters[0].grad = torch.ones(8, 3, 3, 3).to(memory_format=torch.channels_last)
        kind(parameters).step()
    assert all(torch.equal(one, other) for one, other in zip(own.parameters(), plain.parameters(), strict=True))
    assert optimizers.RMSprop(own.parameters()).step() is None
