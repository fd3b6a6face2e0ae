"""Networks by name: creation, names, options, presets."""

import pytest
import torch
from torch import nn

from fastpose import models
from fastpose.models import _registry


def test_list_names_the_networks_of_every_system_and_their_tiny_configurations():
    published = {"hourglass", "sagan.generator", "sagan.discriminator"}
    assert published | {f"{name}.tiny" for name in published} <= set(models.list())
    assert models.list() == sorted(models.list())


@pytest.mark.parametrize("name", [name for name in models.list() if name.endswith(".tiny")])
def test_networks_come_in_training_mode(name):
    assert models.create(name).training


def test_a_preset_is_its_network_with_options_that_the_caller_may_override():
    assert len(models.create("hourglass.tiny").stacks) == 2
    assert len(models.create("hourglass.tiny", stacks=1).stacks) == 1


def test_unknown_name_offers_the_nearest():
    with pytest.raises(ValueError, match=r"unknown model 'sagan.generater'; did you mean 'sagan.generator'"):
        models.create("sagan.generater")


def test_a_name_like_no_other_lists_all():
    with pytest.raises(ValueError, match=r"unknown model 'zzz'; known: .*hourglass, .*sagan.generator"):
        models.create("zzz")


def test_unknown_option_offers_the_nearest():
    with pytest.raises(TypeError, match="unknown option of hourglass: 'stack'; did you mean 'stacks'"):
        models.create("hourglass", stack=2)


def test_a_new_system_registers_itself(monkeypatch):
    monkeypatch.setattr(_registry, "_builders", dict(_registry._builders))
    monkeypatch.setattr(_registry, "_presets", dict(_registry._presets))

    @_registry.register("line", tiny={"width": 2})
    def line(*, width: int = 4) -> nn.Module:
        return nn.Linear(width, 1)

    assert {"line", "line.tiny"} <= set(models.list())
    assert models.create("line.tiny").in_features == 2


def test_count_parameters_leaves_out_running_statistics():
    assert models.count_parameters(nn.BatchNorm2d(3)) == 6


def test_same_seed_same_network():
    states = []
    for _ in range(2):
        torch.manual_seed(0)
        states.append(models.create("sagan.generator.tiny").state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
