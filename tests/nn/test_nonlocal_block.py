"""The non-local block against its equation, with and without a guide and the second scalar."""

import pytest
import torch
from torch import nn

from fastpose import ops
from fastpose.nn.nonlocal_block import NonLocalBlock

C, G, H, W = 6, 16, 4, 3


def maps(*channels):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, c, H, W, dtype=torch.float64, generator=generator) for c in channels]


def settled(block, gamma=0.7, beta=0.3):
    nn.init.constant_(block.gamma, gamma)
    if block.beta is not None:
        nn.init.constant_(block.beta, beta)
    return block.double()


def by_hand(block, x, guide):
    """o_j = sum_i softmax_i(<q_j, k_i>) v_i with the sums written out."""
    query, key, value = block.query(guide).flatten(2), block.key(guide).flatten(2), block.value(x).flatten(2)
    scores = torch.einsum("bcj,bci->bji", query, key).exp()
    weights = scores / scores.sum(2, keepdim=True)
    return torch.einsum("bji,bci->bcj", weights, value).view_as(x)


@pytest.mark.parametrize("beta", [False, True])
def test_block_follows_its_equation(beta):
    block = settled(NonLocalBlock(G, beta=beta))
    (x,) = maps(G)
    torch.testing.assert_close(block(x), 0.7 * by_hand(block, x, x) + (0.3 * x if beta else 0) + x)


def test_a_guide_says_where_the_values_come_from():
    block = settled(NonLocalBlock(C, G))
    x, guide = maps(C, G)
    torch.testing.assert_close(block(x, guide), 0.7 * by_hand(block, x, guide) + x)


@pytest.mark.parametrize(("channels", "embedding"), [(4, 1), (16, 2), (24, 3)])
def test_query_and_key_have_an_eighth_of_the_guide(channels, embedding):
    block = NonLocalBlock(C, channels)
    assert (block.query.out_channels, block.key.out_channels, block.value.out_channels) == (embedding, embedding, C)


def test_block_starts_as_the_identity_and_learns():
    block = NonLocalBlock(G, beta=True).double()
    (x,) = maps(G)
    torch.testing.assert_close(block(x), x, rtol=0, atol=0)
    block(x).square().sum().backward()
    assert block.gamma.grad.abs() > 0
    assert block.beta.grad.abs() > 0


def test_block_has_right_first_and_second_derivatives():
    block = settled(NonLocalBlock(2, 8, beta=True))
    x, guide = (tensor[:1, :, :2, :2].clone().requires_grad_() for tensor in maps(2, 8))

    def call(x, guide, gamma, beta):
        state = {"gamma": gamma, "beta": beta}
        return torch.func.functional_call(block, state, (x, guide))

    inputs = (x, guide, block.gamma, block.beta)
    assert torch.autograd.gradcheck(call, inputs)
    assert torch.autograd.gradgradcheck(call, inputs)


def test_rows_are_the_weights_that_made_the_output():
    block = settled(NonLocalBlock(C, G))
    x, guide = maps(C, G)
    rows = block.rows(guide, [(2, 1), (0, 3)])  # (B, P, H, W)
    torch.testing.assert_close(rows.sum((2, 3)), torch.ones(2, 2, dtype=torch.float64))
    attended = torch.einsum("bpn,bcn->bcp", rows.flatten(2), block.value(x).flatten(2))
    found = (block(x, guide) - x) / 0.7
    torch.testing.assert_close(attended, torch.stack((found[:, :, 1, 2], found[:, :, 3, 0]), dim=2))


@pytest.mark.parametrize("beta", [False, True])
def test_channels_last_reaches_the_operation_as_it_is(beta, monkeypatch):
    seen = []
    op = ops.nonlocal_attention_residual
    monkeypatch.setattr(ops, "nonlocal_attention_residual", lambda *args: seen.extend(args[:4]) or op(*args))
    (x,) = maps(G)
    out = NonLocalBlock(G, beta=beta).double()(x.contiguous(memory_format=torch.channels_last))
    assert len(seen) == 4
    assert all(t.is_contiguous(memory_format=torch.channels_last) for t in (*seen, out))


def test_second_scalar_keeps_sixteen_bits():
    block = NonLocalBlock(G, beta=True).bfloat16()
    assert block(torch.zeros(1, G, H, W, dtype=torch.bfloat16)).dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x = torch.zeros(1, G, H, W, dtype=torch.bfloat16)
        assert NonLocalBlock(G, beta=True)(x).dtype == torch.bfloat16


def test_guide_of_another_size_gets_one_sentence():
    x, guide = maps(C, G)
    with pytest.raises(ValueError, match=r"value: expected \(B, Cv, \*Sk\) with B and Sk of key"):
        NonLocalBlock(C, G).double()(x, guide[:, :, :2])
