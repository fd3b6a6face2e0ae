"""The derivation against autograd, in float64."""

import pytest
import torch
from comparing import assert_close
from derivations import attention


@pytest.mark.parametrize(("n", "m", "k", "v"), [(5, 7, 3, 4), (9, 2, 4, 1), (1, 1, 1, 1), (16, 16, 8, 32)])
def test_both_orders_equal_autograd(n, m, k, v):
    generator = torch.Generator().manual_seed(n * 100 + m)
    q, a = (torch.randn(n, k, dtype=torch.float64, generator=generator) for _ in range(2))
    key, b = (torch.randn(m, k, dtype=torch.float64, generator=generator) for _ in range(2))
    value, c = (torch.randn(m, v, dtype=torch.float64, generator=generator) for _ in range(2))
    do = torch.randn(n, v, dtype=torch.float64, generator=generator)
    leaves = [tensor.requires_grad_() for tensor in (q, key, value, do)]
    out = torch.softmax(q @ key.T, dim=1) @ value
    first = torch.autograd.grad(out, leaves[:3], do, create_graph=True)
    second = torch.autograd.grad(sum((x * y).sum() for x, y in zip(first, (a, b, c), strict=True)), leaves)

    with torch.no_grad():
        o, lse = attention.forward(q, key, value)
        assert_close(o, out)
        for found, expected in zip(attention.backward(q, key, value, o, lse, do), first, strict=True):
            assert_close(found, expected, order=1)
        for found, expected in zip(attention.double_backward(q, key, value, o, lse, do, a, b, c), second, strict=True):
            assert_close(found, expected, order=2)
