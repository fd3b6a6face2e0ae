"""First weights: drawn as published, biases as asked, everything else left alone."""

import pytest
import torch
from torch import nn

from fastpose.nn.init import normal_


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(8, 64, 3),
        nn.BatchNorm2d(64),
        nn.ConvTranspose2d(64, 32, 4),
        nn.Conv2d(32, 4, 1, bias=False),
        nn.Linear(4, 4),
    )


@pytest.mark.parametrize("zero_bias", [False, True])
def test_convolutions_and_norms_are_drawn_and_biases_as_asked(zero_bias):
    before, after = network(), network()
    normal_(after, zero_bias=zero_bias)
    for layer in (after[0], after[2]):
        assert abs(layer.weight.mean().item()) < 0.002
        assert abs(layer.weight.std().item() / 0.02 - 1) < 0.1
    assert (not after[0].bias.any()) == zero_bias
    assert torch.equal(before[2].bias, after[2].bias) == (not zero_bias)
    assert abs(after[1].weight.mean().item() - 1) < 0.02
    assert abs(after[1].weight.std().item() / 0.02 - 1) < 0.4
    assert not after[1].bias.any()


def test_other_layers_are_left_alone():
    before, after = network(), network()
    normal_(after, zero_bias=True)
    assert torch.equal(before[4].weight, after[4].weight)
