"""Where attention looks, and what attention and gates do to features, in networks that are left as they were."""

import pytest
import torch
from torch import nn

from fastpose import models
from fastpose.models import attention_maps, features
from fastpose.nn.nonlocal_block import NonLocalBlock
from fastpose.nn.self_attention import SarmA, SarmB

C = 16
SIDES = ("before", "after")


class Pyramid(nn.Module):
    """Attention at full size and, behind pooling, at half."""

    def __init__(self):
        super().__init__()
        self.fine, self.coarse = SarmB(C), SarmA(C)

    def forward(self, x):
        return self.coarse(nn.functional.max_pool2d(self.fine(x), 2))


def test_attention_maps_names_every_module_and_follows_a_position_to_the_coarser_map():
    network, x = Pyramid(), torch.randn(1, C, 4, 4)
    maps = attention_maps(network, [x], [(3, 2)])
    assert {name: tuple(rows.shape) for name, rows in maps.items()} == {"fine": (1, 1, 4, 4), "coarse": (1, 1, 2, 2)}
    with torch.no_grad():
        pooled = nn.functional.max_pool2d(network.eval().fine(x), 2)
        torch.testing.assert_close(maps["coarse"], network.coarse.attention.rows(pooled, [(1, 1)]))


def test_attention_maps_leaves_no_trace():
    network = Pyramid()
    network.fine.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    attention_maps(network, [torch.randn(2, C, 4, 4)], [(0, 0)])
    assert [network.training, network.fine.training, network.coarse.training] == [True, False, True]
    assert not any(module._forward_hooks for module in network.modules())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_attention_maps_of_a_network_without_attention_are_none():
    assert attention_maps(nn.Identity(), [torch.zeros(1)], [(0, 0)]) == {}


def settled(name, **options):
    """The network with attention that shows."""
    network = models.create(name, **options)
    for module in network.modules():
        if isinstance(module, NonLocalBlock):
            nn.init.constant_(module.gamma, 0.7)
    return network


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, channels, 16, 24, generator=generator) for channels in (3, 36)]


def test_attention_maps_of_pona_cover_both_attentions_of_every_block(pair):
    network = settled("pona.generator.tiny")
    maps = attention_maps(network, pair, [(5, 0), (2, 3)])
    assert list(maps) == ["blocks.0.self", "blocks.0.cross", "blocks.1.self", "blocks.1.cross"]
    for rows in maps.values():
        assert rows.shape == (2, 2, 4, 6)
        torch.testing.assert_close(rows.sum((2, 3)), torch.ones(2, 2))


def test_cross_maps_are_those_of_the_updated_pose_code(pair):
    network = settled("pona.generator.tiny", blocks=1).eval()
    seen = features(network, pair)
    attention = network.blocks[0].cross_attention
    with torch.no_grad():
        expected = attention.rows(seen["blocks.0.pose.after"], [(5, 0)])
    torch.testing.assert_close(attention_maps(network, pair, [(5, 0)])["blocks.0.cross"], expected)


def test_features_of_pona_stand_on_both_sides_of_its_two_updates(pair):
    network = settled("pona.generator.tiny").eval()
    seen = features(network, pair)
    assert set(seen) == {f"blocks.{b}.{code}.{side}" for b in (0, 1) for code in ("image", "pose") for side in SIDES}
    assert {tuple(codes.shape) for codes in seen.values()} == {(2, 32, 4, 6)}
    with torch.no_grad():
        torch.testing.assert_close(seen["blocks.0.pose.before"], network.pose_encoder(pair[1]))
        torch.testing.assert_close(
            seen["blocks.0.image.before"], network.blocks[0].image(network.image_encoder(pair[0]))
        )
        torch.testing.assert_close(network.decoder(seen["blocks.1.image.after"]), network(*pair))
    torch.testing.assert_close(seen["blocks.1.pose.before"], seen["blocks.0.pose.after"])


def test_without_cross_attention_there_is_no_pose_code_to_show(pair):
    network = settled("pona.generator.tiny", blocks=1, cross_attention=False)
    assert features(network, pair) == {}
    assert attention_maps(network, pair, [(0, 0)]) == {}


def test_features_of_the_gates_are_factor_and_both_sides(pair):
    seen = features(models.create("multiscale.generator.tiny"), pair)
    assert list(seen) == [f"gates.{level}.{what}" for level in (2, 1) for what in ("gate", *SIDES)]
    assert [tuple(seen[f"gates.{level}.gate"].shape) for level in (1, 2)] == [(2, 16, 8, 12), (2, 32, 4, 6)]
    for level in (1, 2):
        gate, before, after = (seen[f"gates.{level}.{what}"] for what in ("gate", *SIDES))
        assert 0 < gate.min() < gate.max() < 1
        torch.testing.assert_close(after, before * gate)


@pytest.mark.parametrize("name", ["pona.generator.tiny", "multiscale.generator.tiny"])
def test_features_leave_no_trace(name, pair):
    network = settled(name)
    network.image_encoder.eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    assert not any(tensor.requires_grad for tensor in features(network, pair).values())
    assert (network.training, network.image_encoder.training, network.pose_encoder.training) == (True, False, True)
    assert not any(module._forward_hooks for module in network.modules())
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_a_network_that_fails_keeps_its_modes_and_no_hooks(pair):
    network = settled("pona.generator.tiny")
    with pytest.raises(ValueError, match="poses: expected"):
        features(network, [pair[0], pair[1][:, :35]])
    assert network.training
    assert not any(module._forward_hooks for module in network.modules())


def test_features_of_another_network_are_none():
    assert features(nn.Identity(), [torch.zeros(1)]) == {}
