"""A fused convolution against the layers it stands for, by each of its ways."""

import copy
import functools
import itertools
import pickle

import pytest
import torch
from torch import nn

from fastpose.nn import fused_convolution
from fastpose.nn.fused_convolution import FusedConvolution, _Packed, _Plain, _Winograd
from fastpose.nn.norm import InstanceNorm
from fastpose.nn.sync_norm import SyncBatchNorm2d

CONVOLUTIONS = {
    "3x3": lambda: nn.Conv2d(6, 5, 3, padding=1),
    "3x3 without bias": lambda: nn.Conv2d(6, 5, 3, padding=1, bias=False),
    "3x3, no margin": lambda: nn.Conv2d(6, 5, 3),
    "7x7": lambda: nn.Conv2d(6, 5, 7, padding=(3, 2)),
    "1x1": lambda: nn.Conv2d(6, 1, 1),
    "4x4, stride 2": lambda: nn.Conv2d(6, 5, 4, stride=2, padding=1, bias=False),
    "dilated, in groups": lambda: nn.Conv2d(6, 4, 3, padding=2, dilation=2, groups=2),
    "transposed 4x4": lambda: nn.ConvTranspose2d(6, 5, 4, stride=2, padding=1, bias=False),
    "transposed 3x3": lambda: nn.ConvTranspose2d(6, 5, 3, stride=2, padding=1, output_padding=1),
}
BEHIND = {
    "nothing": [],
    "batch norm": [nn.BatchNorm2d],
    "batch norm, rectifier": [nn.BatchNorm2d, nn.ReLU],
    "instance norm, rectifier": [InstanceNorm, nn.ReLU],
    "instance norm": [InstanceNorm],
    "rectifier": [nn.ReLU],
}


def seeded(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


def layers(convolution, behind):
    """The convolution and what follows it, with running statistics that show."""
    torch.manual_seed(0)
    first = CONVOLUTIONS[convolution]()
    rest = [nn.ReLU() if kind is nn.ReLU else kind(first.out_channels) for kind in BEHIND[behind]]
    for norm in rest:
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.normal_(norm.bias)
    return nn.Sequential(first, *rest).eval().requires_grad_(False)


def fused(sequence):
    """All of the sequence in its first layer."""
    layer = FusedConvolution(sequence[0])
    assert all(layer.append(behind) for behind in sequence[1:])
    return layer


def forced(monkeypatch, way):
    """Take this way wherever it can be taken, however small the maps."""
    monkeypatch.setattr(_Winograd, "CHANNELS", 0 if way is _Winograd else 10**9)
    monkeypatch.setattr(_Winograd, "TILES", 0)
    if way is _Plain:
        monkeypatch.setattr(fused_convolution, "packing_works", lambda dtype: False)


WAYS = [_Winograd, _Packed, _Plain]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("convolution", CONVOLUTIONS)
def test_it_equals_the_layers(monkeypatch, convolution, behind, way):
    forced(monkeypatch, way)
    sequence = layers(convolution, behind)
    layer = fused(sequence)
    for size in ((2, 9, 13), (1, 16, 8), (3, 7, 7)):  # one set of weights serves them all
        x = seeded(size[0], 6, *size[1:])
        wanted = sequence(x)
        residual = seeded(*wanted.shape)
        before = x.clone(), residual.clone()
        for like in (x, x.contiguous(memory_format=torch.channels_last)):
            torch.testing.assert_close(layer(like), wanted, rtol=1e-4, atol=2e-5)
            torch.testing.assert_close(layer(like, residual), wanted + residual, rtol=1e-4, atol=2e-5)
        assert torch.equal(x, before[0])
        assert torch.equal(residual, before[1])


def test_every_way_is_taken(monkeypatch):
    taken = []
    for way in WAYS:
        with monkeypatch.context() as patch:
            forced(patch, way)
            layer = fused(layers("3x3", "rectifier"))
            layer(seeded(1, 6, 8, 8))
            taken += [kind for kind, *_ in layer._ways]
    assert taken == [_Winograd, _Packed, _Plain] or not fused_convolution.packing_works(torch.float32)


@pytest.mark.parametrize("size", [(1, 8, 8), (5, 4, 4), (2, 31, 17), (1, 3, 50)])
def test_tiles_in_chunks(monkeypatch, size):
    """Of rows and of images, with ends that are no full tile."""
    forced(monkeypatch, _Winograd)
    monkeypatch.setattr(_Winograd, "CHUNK", 5)
    sequence = layers("3x3", "rectifier")
    x = seeded(size[0], 6, *size[1:])
    torch.testing.assert_close(fused(sequence)(x), sequence(x), rtol=1e-4, atol=1e-5)


def test_tiles_keep_six_digits(monkeypatch):
    """Against float64 at the width of the published networks; the usual points keep fewer."""
    torch.manual_seed(0)
    convolution = nn.Conv2d(256, 128, 3, padding=1, bias=False).requires_grad_(False)
    x = seeded(1, 256, 32, 28).relu_()
    exact = nn.functional.conv2d(x.double(), convolution.weight.double(), padding=1)

    def error():
        layer = FusedConvolution(convolution)
        found = layer(x)
        assert [kind for kind, *_ in layer._ways] == [_Winograd]
        return ((found - exact).square().mean().sqrt() / exact.std()).item()

    ours = error()
    assert ours < 2e-6
    monkeypatch.setattr(_Winograd, "POINTS", (0.0, 1.0, -1.0, 2.0, -2.0))
    assert ours < error() < 1e-5


def test_a_mean_far_from_zero_is_taken_away_exactly():
    """E[x^2] - E[x]^2 would lose all digits."""
    sequence = nn.Sequential(nn.Conv2d(2, 2, 1, bias=False), InstanceNorm(2)).requires_grad_(False)
    x = seeded(1, 2, 16, 16) + 1000
    torch.testing.assert_close(fused(sequence)(x), sequence.double()(x.double()).float(), rtol=0, atol=2e-3)


@pytest.mark.parametrize("convolution", CONVOLUTIONS)
def test_bfloat16(convolution):
    sequence = layers(convolution, "batch norm, rectifier")
    x = seeded(2, 6, 9, 13)
    found = fused(sequence).bfloat16()(x.bfloat16())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), sequence(x), rtol=0.05, atol=0.05)


def test_float64_stays():
    sequence = layers("3x3", "batch norm").double()
    x = seeded(1, 6, 8, 8).double()
    torch.testing.assert_close(fused(sequence)(x), sequence(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("way", WAYS)
def test_arranged_weights_follow_the_weights(monkeypatch, way):
    """After a call: loaded, converted there and back, moved, and given a layer to take over."""
    forced(monkeypatch, way)
    x = seeded(2, 6, 9, 13)
    sequence, other = layers("3x3", "batch norm, rectifier"), layers("3x3", "batch norm, rectifier")
    other[0].weight.mul_(2)
    layer = FusedConvolution(sequence[0])
    layer(x)
    for behind in sequence[1:]:
        layer.append(behind)
        layer(x)
    torch.testing.assert_close(layer(x), sequence(x), rtol=1e-4, atol=2e-5)
    layer.load_state_dict(fused(other).state_dict())
    torch.testing.assert_close(layer(x), other(x), rtol=1e-4, atol=2e-5)
    layer.load_state_dict(fused(sequence).state_dict(), assign=True)
    torch.testing.assert_close(layer(x), sequence(x), rtol=1e-4, atol=2e-5)
    layer.bfloat16().float()
    assert not torch.equal(layer(x), fused(sequence)(x))  # the weights have fewer digits now
    assert layer.to("meta")(x.to("meta")).device.type == "meta"


@pytest.mark.parametrize("again", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
@pytest.mark.parametrize("way", WAYS)
def test_a_layer_that_has_run_can_be_copied_and_pickled(monkeypatch, way, again):
    forced(monkeypatch, way)
    x = seeded(2, 6, 9, 13)
    layer = fused(layers("3x3", "batch norm"))
    first = layer(x)
    other = again(layer)
    assert not other._ways
    torch.testing.assert_close(other(x), first, rtol=0, atol=1e-6)
    assert layer._ways


class Shifted(nn.BatchNorm2d):
    """A norm that computes something of its own."""

    def forward(self, x):
        return super().forward(x) + 1


def test_what_cannot_be_taken_over_is_left():
    layer = FusedConvolution(nn.Conv2d(6, 5, 3))
    assert not layer.append(nn.Tanh())
    assert not layer.append(nn.BatchNorm2d(5, track_running_stats=False))
    assert not layer.append(Shifted(5))
    assert FusedConvolution(nn.Conv2d(6, 5, 3)).append(SyncBatchNorm2d(5))
    assert layer.append(InstanceNorm(5))
    assert not layer.append(nn.BatchNorm2d(5))
    assert layer.append(nn.ReLU())
    assert not layer.append(nn.ReLU())


def test_what_is_no_plain_convolution_is_not_taken():
    assert FusedConvolution.takes(nn.Conv2d(1, 1, 3, padding=1))
    assert not FusedConvolution.takes(nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"))
    assert not FusedConvolution.takes(nn.Conv2d(1, 1, 3, padding="same"))
    assert not FusedConvolution.takes(nn.ConvTranspose2d(2, 2, 3, groups=2))
    assert not FusedConvolution.takes(nn.utils.parametrizations.spectral_norm(nn.Conv2d(1, 1, 3)))
    assert not FusedConvolution.takes(nn.Linear(1, 1))


@pytest.mark.parametrize("error", [AttributeError, RuntimeError, None])
def test_packing_must_prove_right(monkeypatch, error):
    """Operators that are missing, fail or give something else are not used."""

    def strange(self, x, *_):
        if error:
            raise error("no such operator")
        return x + 1

    monkeypatch.setattr(_Packed, "__call__", strange)
    check = functools.cache(fused_convolution.packing_works.__wrapped__)
    assert not check(torch.float32)


def test_packing_is_for_two_types():
    assert not any(fused_convolution.packing_works(dtype) for dtype in (torch.float64, torch.float16))


def test_the_transforms_are_those_of_polynomials():
    """Values at the points of a product are products of values; infinity reads the highest coefficient."""
    short, long = seeded(3).double(), seeded(4).double()
    product = torch.zeros(6, dtype=torch.float64)
    for i, j in itertools.product(range(3), range(4)):
        product[i + j] += short[i] * long[j]
    values = (_Winograd._evaluation(3) @ short) * (_Winograd._evaluation(4) @ long)
    torch.testing.assert_close(_Winograd._evaluation(6) @ product, values)
