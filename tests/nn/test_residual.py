"""Residual layers: shapes, the two skips, widths, the plain sum."""

import pytest
import torch
from torch import nn

from fastpose.nn.residual import Residual, ResidualSum, bottleneck, skip_connection


def test_residual_changes_only_the_channels():
    assert Residual(8, 12)(torch.randn(2, 8, 6, 5)).shape == (2, 12, 6, 5)


def test_residual_is_body_plus_skip():
    module, x = Residual(8, 12).eval(), torch.randn(2, 8, 4, 4)
    torch.testing.assert_close(module(x), module.body(x) + module.skip(x))


def test_input_is_left_alone_by_the_rectifiers_in_place():
    x = torch.randn(2, 8, 4, 4)
    before = x.clone()
    Residual(8, 8)(x)
    assert torch.equal(x, before)


def test_bottleneck_is_half_of_the_output_unless_given():
    assert bottleneck(8, 12)[2].out_channels == 6
    assert bottleneck(8, 12, 3)[2].out_channels == 3


@pytest.mark.parametrize(
    ("kind", "layers"), [("conv", ["Conv2d"]), ("bn_relu_conv", ["BatchNorm2d", "ReLU", "Conv2d"])]
)
def test_skip_kinds(kind, layers):
    modules = [m for m in skip_connection(4, 6, kind).modules() if not isinstance(m, nn.Sequential)]
    assert [type(m).__name__ for m in modules] == layers


@pytest.mark.parametrize("kind", ["conv", "bn_relu_conv"])
def test_skip_is_the_identity_where_channels_agree(kind):
    assert isinstance(skip_connection(4, 4, kind), nn.Identity)


def test_the_plain_sum_leaves_its_input_and_what_is_negative():
    layer, x = ResidualSum(nn.ReLU(inplace=False), nn.Conv2d(3, 3, 1)), torch.randn(2, 3, 4, 5)
    before = x.clone()
    torch.testing.assert_close(layer(x), x + layer.body[1](x.clamp(min=0)))
    assert layer(x).min() < 0
    assert torch.equal(x, before)
    assert list(layer.state_dict()) == ["body.1.weight", "body.1.bias"]


def test_unknown_skip_offers_the_nearest():
    with pytest.raises(ValueError, match="skip: expected one of conv, bn_relu_conv, got 'con'; did you mean 'conv'"):
        Residual(4, 6, skip="con")
