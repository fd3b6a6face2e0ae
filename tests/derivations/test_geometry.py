"""The derivation against autograd, in float64."""

import torch
from comparing import assert_close
from derivations import geometry


def test_both_orders_equal_autograd():
    generator = torch.Generator().manual_seed(0)
    x, u = (torch.randn(5, 3, dtype=torch.float64, generator=generator) for _ in range(2))
    g, h = (torch.randn(5, 5, 3, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(2))
    x.requires_grad_()
    d = geometry.pairs(x)
    (first,) = torch.autograd.grad((g * d + h * d**2).sum(), x, create_graph=True)
    assert_close(geometry.gradient(x, g, h), first, order=1)
    expected = torch.autograd.grad((first * u).sum(), (x, g, h))
    for ours, theirs in zip(geometry.second_gradient(x, h, u), expected, strict=True):
        assert_close(ours, theirs, order=2)
