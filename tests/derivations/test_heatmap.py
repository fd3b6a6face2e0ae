"""The derivation against autograd, in float64."""

import pytest
import torch
from comparing import assert_close
from derivations import heatmap
from derivations.heatmap import Joint

SIZE = (7, 9)


def scalars(*values):
    return tuple(torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in values)


@pytest.mark.parametrize("a", [0.5, 1.0])
def test_both_orders_of_a_bell_equal_autograd(a):
    generator = torch.Generator().manual_seed(0)
    plane = torch.randn(SIZE, dtype=torch.float64, generator=generator)
    x, y, sigma, depth = scalars(3.3, 2.1, 1.7, -0.8)
    direction, extra = scalars(0.4, -1.1, 0.7), torch.tensor(0.3, dtype=torch.float64)
    joint = Joint(x, y, sigma, a)
    first = torch.autograd.grad(
        (plane * depth * heatmap.bell(joint, SIZE)).sum(), (x, y, sigma, depth), create_graph=True
    )
    product = sum(g * r for g, r in zip(first, (*direction, extra), strict=True))
    second = torch.autograd.grad(product, (x, y, sigma, depth))

    weighted = plane * heatmap.bell(joint, SIZE)
    for found, expected in zip(heatmap.first_gradient(weighted, joint), first[:3], strict=True):
        assert_close(depth * found, expected, order=1)
    change = heatmap.log_derivative(joint, SIZE, direction)
    response = weighted * (extra + depth * change)
    found = heatmap.second_gradient(response, weighted, joint, direction, depth)
    for ours, expected in zip(found, second[:3], strict=True):
        assert_close(ours, expected, order=2)
    assert_close((weighted * change).sum(), second[3], order=2)


def test_both_orders_of_the_soft_argmax_equal_autograd():
    generator = torch.Generator().manual_seed(1)
    plane, cotangent = (torch.randn(SIZE, dtype=torch.float64, generator=generator) for _ in range(2))
    plane.requires_grad_()
    grad, beta = scalars(0.6, -0.9), 2.5
    p, _, _ = heatmap._soft(plane, beta)
    columns, rows = torch.arange(SIZE[1], dtype=torch.float64), torch.arange(SIZE[0], dtype=torch.float64)
    point = (p * columns).sum() * grad[0] + (p * rows[:, None]).sum() * grad[1]
    (first,) = torch.autograd.grad(point, plane, create_graph=True)
    assert_close(heatmap.soft_gradient(plane, beta, grad), first, order=1)
    expected = torch.autograd.grad((first * cotangent).sum(), (plane, *grad))
    for ours, theirs in zip(heatmap.soft_second_gradient(plane, beta, grad, cotangent), expected, strict=True):
        assert_close(ours, theirs, order=2)
