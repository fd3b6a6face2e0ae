"""First and second derivatives of every heatmap operation: by finite differences, against the reference, compiled."""

import pytest
import torch
import torch._dynamo
from comparing import assert_close, assert_no_missing_gradient
from heatmap_cases import CASES, LAYOUTS, SHAPES, tensors_of, three_orders

from fastpose import ops
from fastpose.ops.heatmap import functional

CHECKS = [
    pytest.param(case, backend, wanted, id=f"{name}-{backend}-{'+'.join(wanted)}")
    for name, case in CASES.items()
    for backend in case.backends
    for wanted in {(one,) for one in case.differentiable} | {case.differentiable}
]


@pytest.mark.parametrize(("case", "backend", "wanted"), CHECKS)
def test_promise_15_gradcheck_and_gradgradcheck(case, backend, wanted):
    tensors = tensors_of(case, (1, 3, 3, 4))

    def function(*chosen):
        fixed = {name: tensor.detach() for name, tensor in tensors.items()}
        return case.call(fixed | dict(zip(wanted, chosen, strict=True)), backend)

    chosen = [tensors[name] for name in wanted]
    assert torch.autograd.gradcheck(function, chosen)
    assert torch.autograd.gradgradcheck(function, chosen)


def test_promise_15_every_differentiable_operation_has_a_case():
    differentiable = {
        value.operation.name
        for value in vars(functional).values()
        if isinstance(value, functional.Differentiable) and value.signature.differentiable
    }
    assert {case.operation.operation.name for case in CASES.values()} == differentiable


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_promise_26_three_orders_equal_the_reference(name, shape, layout):
    case = CASES[name]
    tensors = tensors_of(case, shape, layout=layout)
    expected = three_orders(case, tensors, "reference")
    found = three_orders(case, tensors, "cpu")
    assert set(expected) <= set(found)  # the reference leaves out second derivatives that do not exist
    for key, theirs in expected.items():
        assert_close(found[key], theirs, name=key, order=2 if key.startswith("second") else 0)
        if shape != SHAPES[0]:
            assert_no_missing_gradient(found[key], theirs, name=key)
    for key in set(found) - set(expected):
        assert not found[key].any(), f"{key}: expected zeros"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", CASES)
def test_promise_26_three_orders_in_narrow_types(name, dtype):
    """Against float64 at the same rounded inputs: at most twice the reference's error, plus a few roundings; offsets
    from a rounded centre cancel, which counts as often as there are pixels along an axis."""
    case = CASES[name]
    tensors = tensors_of(case, (2, 3, 12, 20), dtype)
    wide = {key: t.detach().double().requires_grad_() if t.requires_grad else t for key, t in tensors.items()}
    exact = three_orders(case, wide, "reference")
    theirs, ours = three_orders(case, tensors, "reference"), three_orders(case, tensors, "cpu")
    for key, true in exact.items():
        assert ours[key].dtype == theirs[key].dtype, key
        torch_error = (theirs[key].double() - true).abs().max()
        error = (ours[key].double() - true).abs().max()
        assert error <= 2 * torch_error + 20 * torch.finfo(dtype).eps * true.abs().max(), key


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("profile", ["gaussian_rounded", "msra", "udp", "binary"])
def test_profiles_without_derivative_are_constants(profile, backend):
    keypoints = torch.rand(1, 2, 2, requires_grad=True)
    sigma = torch.ones(2, requires_grad=True)
    heatmaps = ops.render_gaussian_heatmaps(keypoints, (4, 5), sigma, profile=profile, backend=backend)
    assert not heatmaps.requires_grad
    prediction = torch.rand(1, 2, 4, 5, requires_grad=True)
    ops.heatmap_mse_loss(prediction, keypoints, sigma, profile=profile, backend=backend).backward()
    assert keypoints.grad is None
    assert sigma.grad is None
    assert_close(prediction.grad, 2 * (prediction - heatmaps).detach() / 40)


@pytest.mark.parametrize("profile", ["patch", "constant", "msra"])
def test_promise_15_gradcheck_of_depth_in_flat_profiles(profile):
    depth = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    keypoints = torch.rand(2, 2, 2, dtype=torch.float64) * 5

    def function(z):
        return ops.render_depth_maps(keypoints, z, (4, 6), 1.0, profile=profile, backend="cpu")

    assert torch.autograd.gradcheck(function, depth)
    assert torch.autograd.gradgradcheck(function, depth)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_promise_15_gradient_of_an_all_zero_plane_is_zero(bad, backend):
    keypoints = torch.tensor([[[bad, 2.0], [2.0, 2.0]]], requires_grad=True)
    sigma = torch.ones(1, 2, requires_grad=True)
    out = ops.render_gaussian_heatmaps(keypoints, (5, 5), sigma, backend=backend)
    assert not out[0, 0].any()
    assert out[0, 1].max() == 1
    gradients = torch.autograd.grad((out * torch.rand(5, 5)).sum(), (keypoints, sigma), create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in gradients), (keypoints, sigma))
    for gradient in (*gradients, *second):
        assert not gradient[0, 0].any()
        assert gradient.isfinite().all()


def test_scores_carry_no_gradient():
    heatmaps = torch.rand(1, 2, 4, 4, requires_grad=True)
    coordinates, scores = ops.decode_heatmaps(heatmaps, "softargmax")
    assert coordinates.requires_grad
    assert not scores.requires_grad
    for method in ("argmax", "quarter", "dark"):
        assert not any(result.requires_grad for result in ops.decode_heatmaps(heatmaps, method))


def test_third_order_is_refused_by_the_kernels():
    heatmaps = torch.rand(1, 1, 3, 3, requires_grad=True)
    (first,) = torch.autograd.grad(
        ops.decode_heatmaps(heatmaps, "softargmax", backend="cpu")[0].sum(), heatmaps, create_graph=True
    )
    with pytest.raises(RuntimeError, match="third derivatives are served by backend='reference' only"):
        torch.autograd.grad(first.square().sum(), heatmaps, create_graph=True)


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("name", CASES)
def test_compiled_forward_and_backward(name, backend):
    case = CASES[name]
    tensors = tensors_of(case, (2, 3, 5, 9), torch.float32)
    leaves = [tensors[key] for key in case.differentiable]

    def function():
        out = case.call(tensors, backend)
        return out, (out * torch.arange(out.numel()).view_as(out)).sum()

    eager, total = function()
    expected = torch.autograd.grad(total, leaves)
    torch._dynamo.reset()
    compiled, total = torch.compile(function, fullgraph=True, backend="aot_eager")()
    assert_close(compiled, eager)
    for key, ours, theirs in zip(case.differentiable, torch.autograd.grad(total, leaves), expected, strict=True):
        assert_close(ours, theirs, name=key, order=1)


@torch._dynamo.config.patch(trace_autograd_ops=True)
def test_whole_gradient_penalty_compiled():
    """A critic that sees rendered heatmaps: the gradient in the key points is itself trained through."""
    torch._dynamo.reset()
    keypoints = (torch.rand(2, 3, 2) * 8).requires_grad_()

    def penalty(points):
        score = ops.render_gaussian_heatmaps(points, (8, 9), 1.5).square().sum()
        (gradient,) = torch.autograd.grad(score, points, create_graph=True)
        return gradient.square().sum()

    (expected,) = torch.autograd.grad(penalty(keypoints), keypoints)
    (found,) = torch.autograd.grad(torch.compile(penalty, fullgraph=True)(keypoints), keypoints)
    assert_close(found, expected, order=2)


def test_compiled_decoding_and_out():
    torch._dynamo.reset()
    heatmaps, out = torch.rand(2, 3, 9, 11), torch.full((2, 3, 9, 11), 5.0)
    keypoints = torch.rand(2, 3, 2) * 9
    for method in ("argmax", "quarter", "dark"):
        found = torch.compile(lambda h, method=method: ops.decode_heatmaps(h, method), fullgraph=True)(heatmaps)
        for ours, theirs in zip(found, ops.decode_heatmaps(heatmaps, method), strict=True):
            assert torch.equal(ours, theirs)
    torch.compile(lambda k, o: ops.render_gaussian_heatmaps(k, (9, 11), 2.0, out=o), fullgraph=True)(keypoints, out)
    assert_close(out, ops.render_gaussian_heatmaps(keypoints, (9, 11), 2.0))


def test_registered_operators_pass_opcheck():
    check, operators = torch.library.opcheck, torch.ops.fastpose
    case = CASES["loss-gaussian-mean"]
    loss = tensors_of(case, (1, 2, 4, 5))
    points, sigma, visible = loss["keypoints"], loss["sigma"], loss["visibility"]
    constants = (4, 5, "gaussian", torch.float64, "cpu")
    check(operators.render_gaussian_heatmaps_fwd.default, (points, sigma, visible, *constants))
    check(operators.render_depth_maps_fwd.default, (points, sigma, sigma, None, *constants))
    arguments = (loss["prediction"], points, sigma, visible, loss["weight"])
    check(operators.heatmap_mse_loss_fwd.default, (*arguments, "gaussian", 2, "cpu"))
    plain = [tensor.detach() for tensor in arguments]
    total = operators.heatmap_mse_loss_fwd.default(*plain, "gaussian", 2, "cpu")
    grad = torch.ones((), dtype=torch.float64, requires_grad=True)
    check(operators.heatmap_mse_loss_bwd.default, (*arguments, total, grad, 0b111, "gaussian", 2, "cpu"))
    last = (*plain, total, grad.detach(), *plain[:3], 0b1111, "gaussian", 2, "cpu")
    check(operators.heatmap_mse_loss_bwd2.default, last, test_utils=("test_schema", "test_faketensor"))
    heatmaps = loss["prediction"].detach()[0].clone().requires_grad_()
    check(operators.decode_heatmaps_fwd.default, (heatmaps.detach(), "dark", 5, 1.0, "cpu"))
    check(operators.softargmax_fwd.default, (heatmaps, 2.0, "cpu"))
    check(operators.flip_average_fwd.default, (heatmaps, heatmaps.detach(), [1, 0], "cpu"))
