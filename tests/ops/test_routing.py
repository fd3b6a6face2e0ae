"""What every operation owes to the rest of torch: version counters, odd kinds of tensors, tracing, threads."""

import math

import pytest
import torch
from attention_cases import inputs, three_orders
from comparing import assert_close

from fastpose import ops


def keypoints() -> torch.Tensor:
    return torch.tensor([[[3.0, 4.0], [6.2, 2.7]]])


def test_drawing_into_out_is_seen_by_a_graph_that_saved_it():
    out = torch.empty(1, 2, 8, 8)
    weight = torch.ones(1, 2, 8, 8, requires_grad=True)
    loss = (weight * ops.render_gaussian_heatmaps(keypoints(), (8, 8), 1.0, out=out)).sum()
    ops.render_gaussian_heatmaps(keypoints() + 1, (8, 8), 1.0, out=out)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_results_that_backward_does_not_read_may_be_changed(backend):
    points = keypoints().requires_grad_()
    heatmaps = ops.render_gaussian_heatmaps(points, (8, 8), 1.0, backend=backend)
    heatmaps.mul_(2).square().sum().backward()
    descriptor = ops.pairwise_descriptor(points, backend=backend)
    descriptor.add_(1).square().sum().backward()
    assert torch.isfinite(points.grad).all()


def test_negative_views_are_not_read_with_the_wrong_sign():
    query = torch.randn(1, 4, 20, dtype=torch.cfloat).conj().imag
    assert query.is_neg()
    key, value = torch.randn(1, 4, 20), torch.randn(1, 4, 20)
    assert_close(ops.nonlocal_attention(query, key, value), ops.nonlocal_attention(query.clone(), key, value))
    with pytest.raises(ValueError, match="negative bit"):
        ops.nonlocal_attention(query, key, value, backend="cpu")


def test_forward_mode_and_vmap_take_the_reference():
    query, key, value = (tensor.detach() for tensor in inputs((2, 3, 4, 5, 6)))
    _, found = torch.func.jvp(lambda q: ops.nonlocal_attention(q, key, value), (query,), (torch.ones_like(query),))
    step = 1e-6
    moved = ops.nonlocal_attention(query + step, key, value) - ops.nonlocal_attention(query - step, key, value)
    assert (found - moved / (2 * step)).abs().max() < 1e-6
    one = torch.vmap(lambda q, k, v: ops.nonlocal_attention(q[None], k[None], v[None])[0])(query, key, value)
    assert_close(one, ops.nonlocal_attention(query, key, value))


@pytest.mark.filterwarnings("ignore")  # torch.jit is deprecated as a whole
def test_tracing_records_plain_tensor_code():
    query, key, value = (tensor.detach().float() for tensor in inputs((1, 3, 4, 5, 6)))
    traced = torch.jit.trace(lambda *tensors: ops.nonlocal_attention(*tensors), (query, key, value))
    assert_close(traced(query + 1, key, value), ops.nonlocal_attention(query + 1, key, value))


@pytest.mark.parametrize("shape", [(1, 4, 8, 300, 300), (3, 8, 16, 130, 200), (9, 2, 4, 50, 100)], ids=str)
def test_threads_do_not_change_any_order(shape):
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            results.append(three_orders(inputs(shape, torch.float32), "cpu"))
    finally:
        torch.set_num_threads(threads)
    for one, two, five in zip(*results, strict=True):
        assert torch.equal(one, two)
        assert torch.equal(one, five)


def test_a_block_of_impossible_keys_does_not_spoil_the_rest():
    query = torch.full((1, 1, 2), 1e20)
    key = torch.cat((torch.full((1, 1, 150), -1e20), torch.zeros(1, 1, 10)), dim=2)
    out = ops.nonlocal_attention(query, key, torch.ones(1, 1, 160), backend="cpu")
    assert_close(out, torch.ones(1, 1, 2))


@pytest.mark.parametrize("sigma", [1.3333333, 1.6666666, 2.3333333])
@pytest.mark.parametrize("profile", ["msra", "udp"])
def test_windows_end_at_the_same_pixel_on_both_backends(sigma, profile):
    points = torch.tensor([[[30.0, 30.0], [31.4, 29.7]]])
    found, expected = (
        ops.render_gaussian_heatmaps(points, (64, 64), sigma, profile=profile, backend=backend)
        for backend in ("cpu", "reference")
    )
    assert torch.equal(found > 0, expected > 0)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_softargmax_of_huge_heatmaps_is_a_number(backend):
    points, _ = ops.decode_heatmaps(torch.full((1, 1, 4, 4), 1e38), "softargmax", backend=backend)
    assert_close(points, torch.full((1, 1, 2), 1.5))


def test_second_derivative_of_an_absent_joint_is_zero_whatever_arrives():
    points = torch.tensor([[[math.nan, 2.0]]], dtype=torch.float64, requires_grad=True)
    heatmaps = ops.render_gaussian_heatmaps(points, (4, 4), 1.0, backend="cpu")
    arriving = torch.full_like(heatmaps, math.nan).requires_grad_()
    (first,) = torch.autograd.grad(heatmaps, points, arriving, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), points)
    assert torch.equal(first, torch.zeros_like(first))
    assert torch.equal(second, torch.zeros_like(second))


def test_gradients_with_the_negative_bit_are_not_read_with_the_wrong_sign():
    def gradient(backend):
        points = keypoints().requires_grad_()
        heatmaps = ops.render_gaussian_heatmaps(points, (8, 8), 1.0, backend=backend)
        wave = torch.complex(torch.zeros_like(heatmaps), heatmaps).conj()
        weight = torch.linspace(0, 1, heatmaps.numel()).view_as(heatmaps) * (1 + 2j)
        return torch.autograd.grad((wave * weight).real.square().sum(), points)[0]

    assert_close(gradient("cpu"), gradient("reference"))


def test_transforms_leave_nothing_behind_in_what_is_remembered():
    def loss(points):
        return ops.heatmap_mse_loss(torch.ones(1, 2, 9, 7), points, 1.7)

    torch.func.grad(loss)(keypoints())
    assert torch.isfinite(loss(keypoints()))


def test_remembered_sigmas_of_inference_serve_training():
    with torch.inference_mode():
        ops.render_gaussian_heatmaps(keypoints(), (8, 8), 1.9)
    points = keypoints().requires_grad_()
    ops.render_gaussian_heatmaps(points, (8, 8), 1.9).sum().backward()
    assert torch.isfinite(points.grad).all()


def test_a_compiled_loss_serves_every_batch_size_with_one_graph():
    torch._dynamo.reset()
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(lambda p, k: ops.heatmap_mse_loss(p, k, 1.0), dynamic=True, fullgraph=True, backend=count)
    for batch in range(2, 9):
        planes, points = torch.rand(batch, 2, 8, 8), torch.rand(batch, 2, 2) * 8
        assert_close(compiled(planes, points), ops.heatmap_mse_loss(planes, points, 1.0))
    assert len(graphs) <= 2


def test_a_graph_that_is_recorded_by_running_holds_the_operations():
    from torch.fx.experimental.proxy_tensor import make_fx

    points = keypoints()
    graph = make_fx(lambda p: ops.render_gaussian_heatmaps(p, (8, 8), 1.0))(points)
    assert_close(graph(points), ops.render_gaussian_heatmaps(points, (8, 8), 1.0))
