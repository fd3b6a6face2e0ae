"""Self-attention residual modules against their equations, and the maps of chosen positions."""

import pytest
import torch
from torch import nn

from fastpose import ops
from fastpose.nn.self_attention import (
    SarmA,
    SarmB,
    SelfAttention,
    sarm_module,
    sigmoid_attention,
)

C, H, W = 16, 4, 3


@pytest.fixture
def x():
    return torch.randn(2, C, H, W, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def settled(module):
    """The module in float64 and evaluation mode, with a gamma that shows."""
    module = module.double().eval()
    if getattr(module, "gamma", None) is not None:
        nn.init.constant_(module.gamma, 0.7)
    return module


def contract(module, x, value, squash):
    """a_j = sum_i squash(<f_i, g_j>) h_i with the sums written out (eq. 1 and 2)."""
    g, f = module.attention.query_and_key(x)
    scores = torch.einsum("bci,bcj->bij", f.flatten(2), g.flatten(2))
    return torch.einsum("bij,bci->bcj", squash(scores), value.flatten(2)).view(*value.shape)


def softmax_over_source(scores):
    return scores.exp() / scores.exp().sum(1, keepdim=True)


def test_sarm_a_follows_equation_2(x):
    module = settled(sarm_module("A", C))
    torch.testing.assert_close(module(x), contract(module, x, module.residual(x), softmax_over_source))


def test_sarm_b_follows_equation_3(x):
    module = settled(sarm_module("B", C))
    attended = contract(module, x, module.value(x), softmax_over_source)
    torch.testing.assert_close(module(x), module.residual(x) + 0.7 * attended)


def test_released_sarm_a_uses_one_embedding_and_the_sigmoid(x):
    module = settled(sarm_module("A", C, flavour="released"))
    query, key = module.attention.query_and_key(x)
    assert query is key
    torch.testing.assert_close(module(x), contract(module, x, module.residual(x), torch.sigmoid))


def test_released_sarm_b_has_no_gamma_and_compares_the_output_channels(x):
    module = settled(sarm_module("B", C, 6, flavour="released"))
    assert module.gamma is None
    assert module.attention.query_and_key(x)[0].shape == (2, 6, H, W)
    attended = contract(module, x, module.value(x), torch.sigmoid)
    torch.testing.assert_close(module(x), module.residual(x) + attended)


@pytest.mark.parametrize("affinity", ["softmax", "sigmoid"])
@pytest.mark.parametrize("qk", ["c8", "out", "shared"])
@pytest.mark.parametrize("gamma", [True, False])
def test_every_combination_of_options_follows_its_equation(x, affinity, qk, gamma):
    module = settled(SarmB(C, affinity=affinity, qk=qk, gamma=gamma))
    squash = softmax_over_source if affinity == "softmax" else torch.sigmoid
    attended = contract(module, x, module.value(x), squash)
    torch.testing.assert_close(module(x), module.residual(x) + (0.7 if gamma else 1.0) * attended)


@pytest.mark.parametrize("affinity", ["softmax", "sigmoid"])
def test_gamma_starts_at_zero_and_learns(x, affinity):
    module = SarmB(C, affinity=affinity).double().eval()
    torch.testing.assert_close(module(x), module.residual(x))
    module(x).square().sum().backward()
    assert module.gamma.grad.abs() > 0


def test_gamma_clamp_holds_gamma_in_the_unit_interval(x):
    module = settled(SarmB(C, gamma_clamp=True))
    nn.init.constant_(module.gamma, 1.5)
    clamped = module(x)
    nn.init.constant_(module.gamma, 1.0)
    torch.testing.assert_close(clamped, module(x))


def test_sigmoid_attention_has_right_first_and_second_derivatives():
    inputs = tuple(torch.randn(1, c, 2, 2, dtype=torch.float64, requires_grad=True) for c in (2, 2, 3))
    assert torch.autograd.gradcheck(sigmoid_attention, inputs)
    assert torch.autograd.gradgradcheck(sigmoid_attention, inputs)


@pytest.mark.parametrize("module", [SarmA(C), SarmB(C)], ids=["A", "B"])
def test_channels_last_reaches_the_operation_as_it_is(module, monkeypatch):
    seen = []
    for name in ("nonlocal_attention", "nonlocal_attention_residual"):
        op = getattr(ops, name)
        monkeypatch.setattr(ops, name, lambda *args, op=op: seen.extend(args[:3]) or op(*args))
    module(torch.randn(2, C, H, W).contiguous(memory_format=torch.channels_last))
    assert len(seen) == 3
    assert all(t.is_contiguous(memory_format=torch.channels_last) for t in seen)


@pytest.mark.parametrize("affinity", ["softmax", "sigmoid"])
def test_rows_are_the_weights_that_made_the_output(x, affinity):
    module = SelfAttention(C, C, affinity=affinity).double()
    rows = module.rows(x, [(2, 1), (0, 3)])  # (B, P, H, W)
    assert rows.shape == (2, 2, H, W)
    attended = torch.einsum("bpn,bcn->bcp", rows.flatten(2), x.flatten(2))
    torch.testing.assert_close(attended, torch.stack((module(x, x)[:, :, 1, 2], module(x, x)[:, :, 3, 0]), dim=2))


def test_softmax_rows_sum_to_one(x):
    rows = SelfAttention(C, C).double().rows(x, torch.tensor([[0, 0], [2, 3]]))
    torch.testing.assert_close(rows.sum((2, 3)), torch.ones(2, 2, dtype=torch.float64))


@pytest.mark.parametrize("affinity", ["softmax", "sigmoid"])
@pytest.mark.parametrize(
    ("positions", "sentence"),
    [
        ([1, 2, 3], r"positions: expected \(P, 2\) integers \(x, y\), got torch.int64 \(3,\)"),
        ([(0.5, 1.0)], r"positions: expected \(P, 2\) integers \(x, y\), got torch.float32"),
        ([(3, 0)], "positions: expected 0 <= x < 3 and 0 <= y < 4, got"),
        ([(0, -1)], "positions: expected 0 <= x < 3 and 0 <= y < 4, got"),
    ],
)
def test_bad_positions_get_one_sentence(x, affinity, positions, sentence):
    with pytest.raises(ValueError, match=sentence):
        SelfAttention(C, C, affinity=affinity).double().rows(x, positions)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: sarm_module("C", C), "sarm: expected one of A, B, got 'C'"),
        (lambda: sarm_module("A", C, flavour="papr"), "flavour: .* got 'papr'; did you mean 'paper'"),
        (lambda: SarmA(C, affinity="softmx"), "affinity: .* did you mean 'softmax'"),
        (lambda: SarmB(C, qk="c9"), "qk: .* did you mean 'c8'"),
    ],
)
def test_unknown_names_get_one_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
