"""Spectral norm against PyTorch's parametrization and the singular value, in full precision under autocast."""

import pytest
import torch
from cuda_autocast import LowerPrecision
from torch import nn
from torch.nn.utils import parametrizations

from fastpose.nn.spectral_norm import SpectralNorm, normalise_spectra


def convolution(normalise):
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 5, 4)
    normalise(layer)
    return layer


def test_it_is_pytorchs_step_by_step_to_the_bit():
    ours, theirs = convolution(normalise_spectra), convolution(parametrizations.spectral_norm)
    for training in (True, True, False, True):
        assert torch.equal(ours.train(training).weight, theirs.train(training).weight)
        state, expected = ours.state_dict(), theirs.state_dict()
        assert list(state) == list(expected)
        assert all(torch.equal(state[key], expected[key]) for key in state)


def test_the_largest_singular_value_becomes_one():
    layer = convolution(normalise_spectra)
    for _ in range(50):
        weight = layer.weight
    torch.testing.assert_close(torch.linalg.matrix_norm(weight.flatten(1), 2), torch.tensor(1.0))


def under_autocast(layer):
    with torch.autocast("cpu", torch.bfloat16), LowerPrecision():
        return layer.weight.detach()


def test_autocast_changes_no_bit():
    plain, autocast = convolution(normalise_spectra), convolution(normalise_spectra)
    for _ in range(3):
        assert torch.equal(under_autocast(autocast), plain.weight)
    assert all(torch.equal(*pair) for pair in zip(plain.buffers(), autocast.buffers(), strict=True))


def test_pytorchs_own_loses_its_digits_under_cudas_autocast():
    theirs = convolution(parametrizations.spectral_norm).eval()
    difference = (under_autocast(theirs) / theirs.weight - 1).abs().max()
    assert 1e-4 < difference < 2e-2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_weights_of_other_types_keep_theirs(dtype):
    layer = convolution(normalise_spectra).to(dtype)
    found, exact = layer.eval().weight, convolution(normalise_spectra).eval().weight
    assert found.dtype == dtype
    digits = 4 * max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps)
    torch.testing.assert_close(found.double(), exact.double(), rtol=digits, atol=digits)


def test_sixteen_bit_weights_are_divided_by_a_value_of_all_digits():
    layer = convolution(normalise_spectra).bfloat16().eval()
    norm, weight = layer.parametrizations.weight[0], layer.parametrizations.weight.original.detach().double()
    exact = norm._u.double() @ weight.flatten(1) @ norm._v.double()
    found = weight.norm() / layer.weight.detach().double().norm()  # each element's rounding is averaged out
    torch.testing.assert_close(found, exact, rtol=3e-4, atol=0)


def test_two_uses_before_one_derivative():
    layer = convolution(normalise_spectra)
    first = layer.weight
    (first - layer.weight.square()).sum().backward()
    assert layer.parametrizations.weight.original.grad.isfinite().all()


def test_evaluation_iterates_no_further():
    layer = convolution(normalise_spectra).eval()
    before = {key: tensor.clone() for key, tensor in layer.state_dict().items()}
    assert torch.equal(layer.weight, layer.weight)
    assert all(torch.equal(before[key], tensor) for key, tensor in layer.state_dict().items())
    layer.train().weight  # noqa: B018
    assert not torch.equal(before["parametrizations.weight.0._u"], layer.state_dict()["parametrizations.weight.0._u"])


def test_first_and_second_derivatives_are_right():
    torch.manual_seed(0)
    weight = torch.randn(3, 2, 2, 1, dtype=torch.float64, requires_grad=True)
    norm = SpectralNorm(weight).eval()
    assert torch.autograd.gradcheck(norm, weight)
    assert torch.autograd.gradgradcheck(norm, weight)


def test_it_compiles_in_one_graph():
    layer, same = convolution(normalise_spectra), convolution(normalise_spectra)
    x = torch.randn(1, 3, 6, 6)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for _ in range(2):
        torch.testing.assert_close(compiled(x), same(x))


def test_only_convolutions_are_normalised():
    network = nn.Sequential(nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4), nn.Linear(4, 1))
    normalise_spectra(network)
    assert [hasattr(layer, "parametrizations") for layer in network] == [True, False, False]
    with torch.device("meta"):
        normalise_spectra(nn.Conv2d(2, 4, 1))
