"""First and second derivatives of the pairwise descriptor, eagerly, compiled and in a gradient penalty."""

import pytest
import torch
import torch._dynamo
from comparing import assert_close, assert_no_missing_gradient

from fastpose import ops

SHAPES = [(2, 3, 2), (2, 16, 3), (2, 17, 3), (70, 9, 3), (1, 1, 3), (0, 4, 3), (2, 0, 2)]
NAMES = ("out", "dx", "second x", "second grad")


def three_orders(joints, backend):
    descriptor = ops.pairwise_descriptor(joints, backend=backend)
    generator = torch.Generator().manual_seed(1)
    grad, cotangent = (
        torch.randn(shape, dtype=torch.float64, generator=generator).to(joints.dtype)
        for shape in (descriptor.shape, joints.shape)
    )
    grad.requires_grad_()
    (first,) = torch.autograd.grad(descriptor, joints, grad, create_graph=True)
    return descriptor, first, *torch.autograd.grad((first * cotangent).sum(), (joints, grad))


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("shape", [(2, 3, 3), (1, 5, 2), (1, 1, 3)], ids=str)
def test_promise_15_gradcheck_and_gradgradcheck(shape, backend):
    joints = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: ops.pairwise_descriptor(x, backend=backend), joints)
    assert torch.autograd.gradgradcheck(lambda x: ops.pairwise_descriptor(x, backend=backend), joints)


@pytest.mark.parametrize("layout", ["contiguous", "sliced", "transposed"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_promise_26_three_orders_equal_the_reference(shape, layout):
    joints = torch.randn(shape, dtype=torch.float64)
    if layout == "sliced":
        joints = torch.cat((joints, joints), 2)[..., : shape[2]]
    if layout == "transposed":
        joints = joints.transpose(1, 2).contiguous().transpose(1, 2)
    joints.requires_grad_()
    found, expected = three_orders(joints, "cpu"), three_orders(joints, "reference")
    for name, order, ours, theirs in zip(NAMES, (0, 1, 2, 2), found, expected, strict=True):
        assert_close(ours, theirs, name=name, order=order)
        if joints.numel() and shape[1] > 1:
            assert_no_missing_gradient(ours, theirs, name=name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_promise_26_three_orders_in_narrow_types(dtype):
    joints = torch.randn(4, 17, 3).to(dtype).requires_grad_()
    exact = three_orders(joints.detach().double().requires_grad_(), "reference")
    for true, torch_s, ours in zip(exact, three_orders(joints, "reference"), three_orders(joints, "cpu"), strict=True):
        assert ours.dtype == dtype
        torch_error = (torch_s.double() - true).abs().max()
        assert (ours.double() - true).abs().max() <= 2 * torch_error + 4 * torch.finfo(dtype).eps * true.abs().max()


def test_expanded_gradient_of_a_sum():
    joints = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    gradients = [
        torch.autograd.grad(ops.pairwise_descriptor(joints, backend=backend).sum(), joints)[0]
        for backend in ("cpu", "reference")
    ]
    assert_close(*gradients)


def penalty(joints):
    score = ops.pairwise_descriptor(joints).pow(3).sum()
    (gradient,) = torch.autograd.grad(score, joints, create_graph=True)
    return gradient.square().sum()


@torch._dynamo.config.patch(trace_autograd_ops=True)
def test_compiled_forward_backward_and_gradient_penalty():
    torch._dynamo.reset()
    joints = torch.randn(2, 5, 3, requires_grad=True)
    weight = torch.randn(2, 6, 5, 5)

    def function(x):
        return (ops.pairwise_descriptor(x) * weight).sum()

    (expected,) = torch.autograd.grad(function(joints), joints)
    assert_close(torch.autograd.grad(torch.compile(function, fullgraph=True)(joints), joints)[0], expected)
    (expected,) = torch.autograd.grad(penalty(joints), joints)
    (found,) = torch.autograd.grad(torch.compile(penalty, fullgraph=True)(joints), joints)
    assert_close(found, expected, order=2)


def test_registered_operators_pass_opcheck():
    joints = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    operators = torch.ops.fastpose
    torch.library.opcheck(operators.pairwise_descriptor_fwd.default, (joints, "cpu"))
    out = operators.pairwise_descriptor_fwd.default(joints.detach(), "cpu")
    grad = torch.randn_like(out).requires_grad_()
    torch.library.opcheck(operators.pairwise_descriptor_bwd.default, (joints, out, grad, 1, "cpu"))
    last = (joints.detach(), out, grad.detach(), torch.randn_like(joints), 0b11, "cpu")
    torch.library.opcheck(
        operators.pairwise_descriptor_bwd2.default, last, test_utils=("test_schema", "test_faketensor")
    )
