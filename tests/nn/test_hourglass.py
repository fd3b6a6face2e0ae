"""The hourglass, its stem and its stack."""

import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate, max_pool2d

from fastpose.nn.hourglass import Hourglass, HourglassStack, StackedHourglass, Stem, chain
from fastpose.nn.residual import Residual


def stack(width=8, keypoints=3, depth=2):
    return HourglassStack(Hourglass(depth, 1, lambda: Residual(width, width)), width, keypoints, 1)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("modules", [1, 2])
def test_hourglass_keeps_the_shape(depth, modules):
    x = torch.randn(2, 4, 8, 16)
    assert Hourglass(depth, modules, lambda: Residual(4, 4))(x).shape == x.shape


def test_hourglass_of_identities_sums_its_pooled_levels():
    x = torch.randn(1, 3, 8, 8)
    inner = max_pool2d(x, 2) + interpolate(max_pool2d(x, 4), scale_factor=2.0)
    torch.testing.assert_close(Hourglass(2, 1, nn.Identity)(x), x + interpolate(inner, scale_factor=2.0))


def test_branch_modules_stand_on_every_level_and_nowhere_else():
    hourglass = Hourglass(3, 2, nn.Identity, nn.ReLU)
    assert sum(isinstance(m, nn.ReLU) for m in hourglass.modules()) == 3 * 2
    assert all(isinstance(m, nn.ReLU) for branch in hourglass.skips for m in branch)


def test_chain_makes_new_modules():
    first, second = chain(lambda: nn.Linear(2, 2), 2)
    assert first is not second


@pytest.mark.parametrize(
    ("kind", "widths"), [("newell", [(4, 8), (8, 8), (8, 12)]), ("pytorch_pose", [(4, 8), (8, 16), (16, 12)])]
)
def test_stem_widths(kind, widths):
    stem = Stem(3, 4, 12, kind=kind, skip="conv")
    assert [(r.body[0].num_features, r.body[8].out_channels) for r in stem.residuals] == widths
    assert stem(torch.randn(1, 3, 32, 16)).shape == (1, 12, 8, 4)


def test_stem_without_pooling_keeps_the_size():
    assert Stem(5, 4, 12, skip="conv", pooled=False)(torch.randn(1, 5, 8, 12)).shape == (1, 12, 8, 12)


def test_stacked_hourglass_gives_one_list_entry_per_stack_and_trains_every_parameter():
    network = StackedHourglass(Stem(3, 4, 8, skip="conv"), [stack(), stack(), stack()], 8, 3)
    outputs = network(torch.randn(2, 3, 32, 32))
    assert [tuple(heatmaps.shape) for heatmaps in outputs] == [(2, 3, 8, 8)] * 3
    sum(heatmaps.square().mean() for heatmaps in outputs).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [
        ((3, 32, 32), r"image: expected \(B, 3, H, W\) = \(any, 3, any, any\), got \(3, 32, 32\)"),
        ((1, 1, 32, 32), r"image: expected .* got \(1, 1, 32, 32\)"),
        ((1, 3, 32, 40), "image: expected height and width divisible by 16, got 32 x 40"),
    ],
)
def test_wrong_images_get_one_sentence(shape, sentence):
    network = StackedHourglass(Stem(3, 4, 8, skip="conv"), [stack()], 8, 3)
    with pytest.raises(ValueError, match=sentence):
        network(torch.zeros(shape))


def test_unknown_stem_offers_the_nearest():
    with pytest.raises(ValueError, match=r"stem: .*got 'newel'; did you mean 'newell'"):
        Stem(3, 4, 8, kind="newel", skip="conv")
