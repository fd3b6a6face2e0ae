"""First and second derivatives of attention, eagerly, compiled, through torch.func and in a gradient penalty."""

import pytest
import torch
import torch._dynamo
from attention_cases import LAYOUTS, NAMES, ORDERS, SHAPES, inputs, three_orders
from comparing import assert_close, assert_no_missing_gradient

from fastpose import ops
from fastpose.ops.attention.functional import OPERATION


@pytest.mark.parametrize("backend", OPERATION.backend_names)
@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 1, 2)], ids=["query", "key", "value", "all"])
def test_promise_15_gradcheck_and_gradgradcheck(backend, wanted):
    tensors = inputs((1, 2, 3, 4, 3))

    def function(*chosen):
        arguments = [tensor.detach() for tensor in tensors]
        for position, tensor in zip(wanted, chosen, strict=True):
            arguments[position] = tensor
        return ops.nonlocal_attention(*arguments, scale=0.7, backend=backend)

    chosen = [tensors[position] for position in wanted]
    assert torch.autograd.gradcheck(function, chosen)
    assert torch.autograd.gradgradcheck(function, chosen)


def test_promise_15_gradgradcheck_of_the_residual():
    query, key, value = inputs((1, 2, 3, 4, 5))
    residual = torch.randn(1, 3, 4, dtype=torch.float64, requires_grad=True)
    for start in (0.0, 0.4):
        gamma = torch.full((1,), start, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(ops.nonlocal_attention_residual, (query, key, value, residual, gamma))
        assert torch.autograd.gradgradcheck(ops.nonlocal_attention_residual, (query, key, value, residual, gamma))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_promise_26_three_orders_equal_the_reference(shape, layout):
    expected = three_orders(inputs(shape, layout=layout), "reference")
    found = three_orders(inputs(shape, layout=layout), "cpu")
    for name, order, ours, theirs in zip(NAMES, ORDERS, found, expected, strict=True):
        assert_close(ours, theirs, name=name, order=order)
        if shape != SHAPES[0]:  # with one key the map is constant
            assert_no_missing_gradient(ours, theirs, name=name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_promise_26_three_orders_in_narrow_types(dtype):
    """Error against float64 at most twice torch's own in the same type, plus a few roundings of the largest number:
    the linear-memory formula recomputes P from the saved logarithm and subtracts row sums at the end."""
    shape = (2, 8, 16, 60, 130)
    tensors = inputs(shape, dtype)
    exact = three_orders([tensor.detach().double().requires_grad_() for tensor in tensors], "reference")
    theirs, ours = three_orders(tensors, "reference"), three_orders(tensors, "cpu")
    for name, order, true, torch_s, found in zip(NAMES, ORDERS, exact, theirs, ours, strict=True):
        torch_error = (torch_s.detach().double() - true.detach()).abs().max()
        error = (found.detach().double() - true.detach()).abs().max()
        roundings = (1 + 4 * order) * torch.finfo(dtype).eps * true.detach().abs().max()
        assert error <= 2 * torch_error + roundings, name


def test_unused_first_gradients_count_as_zero():
    """Only one of the three first gradients enters the second derivative."""
    for position in range(3):
        results = []
        for backend in ("reference", "cpu"):
            tensors = inputs((1, 4, 5, 20, 30))
            out = ops.nonlocal_attention(*tensors, backend=backend)
            (gradient,) = torch.autograd.grad(out.square().sum(), tensors[position], create_graph=True)
            results.append(torch.autograd.grad(gradient.square().sum(), tensors))
        for ours, theirs in zip(results[1], results[0], strict=True):
            assert_close(ours, theirs, order=2)


def gradient_penalty(query, key, value):
    out = ops.nonlocal_attention(query, key, value, scale=0.5)
    gradients = torch.autograd.grad(out.square().sum(), (query, key, value), create_graph=True)
    return sum(gradient.square().sum() for gradient in gradients)


def test_gradient_penalty_reaches_weights_before_and_after():
    """A penalty whose second derivative is dropped would be off by the attention's whole share."""

    def penalty(backend):
        torch.manual_seed(0)
        before, after = (torch.randn(6, 6, dtype=torch.float64, requires_grad=True) for _ in range(2))
        image = torch.randn(2, 6, 10, dtype=torch.float64, requires_grad=True)
        features = before @ image
        score = (after @ ops.nonlocal_attention(features, features, features, backend=backend)).square().sum()
        (gradient,) = torch.autograd.grad(score, image, create_graph=True)
        (gradient.square().sum((1, 2)).sqrt() - 1).square().sum().backward()
        return before.grad, after.grad

    for ours, theirs in zip(penalty("cpu"), penalty("reference"), strict=True):
        assert_close(ours, theirs, order=2)


def test_third_order_is_refused_by_the_kernels_and_served_by_the_reference():
    query, key, value = inputs((1, 2, 2, 3, 3))
    (first,) = torch.autograd.grad(
        ops.nonlocal_attention(query, key, value, backend="cpu").sum(), query, create_graph=True
    )
    with pytest.raises(RuntimeError, match="third derivatives are served by backend='reference' only"):
        torch.autograd.grad(first.square().sum(), query, create_graph=True)
    (first,) = torch.autograd.grad(
        ops.nonlocal_attention(query, key, value, backend="reference").square().sum(), query, create_graph=True
    )
    (second,) = torch.autograd.grad(first.square().sum(), query, create_graph=True)
    (third,) = torch.autograd.grad(second.square().sum(), query)
    assert torch.isfinite(third).all()


@pytest.mark.parametrize("backend", ["auto", "reference", "cpu"])
def test_compiled_forward_and_backward(backend):
    tensors = inputs((2, 8, 16, 16, 12), torch.float32)

    def function(*arguments):
        return ops.nonlocal_attention(*arguments, scale=0.5, backend=backend).square().sum()

    compiled = torch.compile(function, fullgraph=True)
    expected = torch.autograd.grad(function(*tensors), tensors)
    for ours, eager in zip(torch.autograd.grad(compiled(*tensors), tensors), expected, strict=True):
        assert_close(ours, eager, order=1)


def test_compiled_channels_last_keeps_strides():
    tensors = [torch.randn(2, 4, 3, 5).to(memory_format=torch.channels_last) for _ in range(3)]
    compiled = torch.compile(lambda *arguments: ops.nonlocal_attention(*arguments), fullgraph=True)(*tensors)
    eager = ops.nonlocal_attention(*tensors)
    assert compiled.stride() == eager.stride()
    assert torch.equal(compiled, eager)


@torch._dynamo.config.patch(trace_autograd_ops=True)
def test_whole_gradient_penalty_compiled():
    tensors = inputs((2, 4, 8, 16, 12), torch.float32)
    expected = torch.autograd.grad(gradient_penalty(*tensors), tensors)
    found = torch.autograd.grad(torch.compile(gradient_penalty, fullgraph=True)(*tensors), tensors)
    for ours, eager in zip(found, expected, strict=True):
        assert_close(ours, eager, order=2)


def test_registered_operators_pass_opcheck():
    query, key, value = inputs((2, 3, 2, 5, 4))
    forward = torch.ops.fastpose.nonlocal_attention_fwd.default
    backward = torch.ops.fastpose.nonlocal_attention_bwd.default
    second = torch.ops.fastpose.nonlocal_attention_bwd2.default
    torch.library.opcheck(forward, (query, key, value, 0.7, "cpu"))
    out, lse = (tensor.detach() for tensor in forward(query, key, value, 0.7, "cpu"))
    grad = torch.randn_like(out).requires_grad_()
    torch.library.opcheck(backward, (query, key, value, out, lse, grad, 0b111, 0.7, "cpu"))
    plain = [tensor.detach() for tensor in (query, key, value)]
    arguments = (*plain, out, lse, grad.detach(), *plain, 0b1111, 0.7, "cpu")
    torch.library.opcheck(second, arguments, test_utils=("test_schema", "test_faketensor"))


def test_torch_func_grad():
    query, key, value = (tensor.detach() for tensor in inputs((1, 3, 2, 5, 4)))
    found = torch.func.grad(lambda q: ops.nonlocal_attention(q, key, value, backend="cpu").square().sum())(query)
    expected = torch.func.grad(lambda q: ops.nonlocal_attention(q, key, value, backend="reference").square().sum())(
        query
    )
    assert_close(found, expected)


def test_autocast_runs_in_its_dtype_and_keeps_gradients_in_the_parameters():
    query, key, value = inputs((1, 4, 6, 20, 20), torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        out = ops.nonlocal_attention(query, key, value)
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert query.grad.dtype == torch.float32
