"""How the kernels behave in a program: memory, repetition, graphs, streams, devices, compilation, synchronisation."""

import pytest
import torch
from gpu import bodies

from fastpose import ops

pytestmark = pytest.mark.gpu
CASES = [(name, backend) for name in bodies.EVERY for backend in bodies.backends_of(name)]
OPERATIONS = {"attention": "nonlocal_attention", "residual": "nonlocal_attention", "descriptor": "pairwise_descriptor"}
OPERATIONS |= {"render": "render_gaussian_heatmaps", "depth": "render_depth_maps", "loss": "heatmap_mse_loss"}
OPERATIONS |= {"softargmax": "decode_heatmaps", "flip": "flip_average"}
every = pytest.mark.parametrize(("name", "backend"), CASES)


@pytest.fixture(autouse=True)
def _there(request, need):
    if "backend" in request.fixturenames:
        values = request.node.callspec.params
        need(OPERATIONS[values["name"].partition("-")[0]], values["backend"])


def assert_same(found, expected):
    for index, (one, other) in enumerate(zip(found, expected, strict=True)):
        torch.testing.assert_close(one, other, msg=lambda text, index=index: f"result {index}: {text}")


@every
def test_gpu_results_do_not_depend_on_what_memory_held(name, backend):
    bodies.check_poisoned("cuda", backend, name)


@every
def test_gpu_repeated_runs_are_bit_equal(name, backend):
    bodies.check_bit_equal("cuda", backend, name)


@every
def test_gpu_calls_do_not_synchronise(name, backend):
    orders = bodies.EVERY[name]("cuda")
    orders.run(backend)  # loads modules and compiles
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        orders.run(backend)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@every
def test_gpu_graph_replays_with_new_numbers(name, backend):
    """All three orders in one CUDA graph; the inputs change between capture and replay."""
    orders = bodies.EVERY[name]("cuda")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            orders.run(backend)
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = orders.run(backend)
    with torch.no_grad():
        for leaf in orders.leaves:
            leaf.mul_(0.75)
    expected = orders.run(backend)
    for _ in range(2):
        graph.replay()
    torch.cuda.synchronize()
    assert_same(results, expected)


@every
def test_gpu_current_stream_is_respected(name, backend):
    """On another stream the numbers come late: a kernel on the default stream would read what was there before."""
    orders = bodies.EVERY[name]("cuda")
    expected = orders.run(backend)
    saved = [leaf.detach().clone() for leaf in orders.leaves]
    with torch.no_grad():
        for leaf in orders.leaves:
            leaf.zero_()
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.cuda._sleep(20_000_000)  # some 10 ms
        with torch.no_grad():
            for leaf, numbers in zip(orders.leaves, saved, strict=True):
                leaf.copy_(numbers)
        found = orders.run(backend)
    side.synchronize()
    assert_same(found, expected)


@every
def test_gpu_two_streams_at_once(name, backend):
    pair = [bodies.EVERY[name]("cuda") for _ in range(2)]
    with torch.no_grad():
        for leaf in pair[1].leaves:
            leaf.mul_(0.5)
    expected = [orders.run(backend) for orders in pair]
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in pair]
    found = [[], []]
    for _ in range(5):
        for index, stream in enumerate(streams):
            with torch.cuda.stream(stream):
                found[index].append(pair[index].run(backend))
    torch.cuda.synchronize()
    for results, right in zip(found, expected, strict=True):
        for result in results:
            assert_same(result, right)


@every
def test_gpu_second_device(name, backend):
    """Tensors of another device than the current one are computed there."""
    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU only")
    expected = bodies.EVERY[name]("cuda:0").run(backend)
    found = bodies.EVERY[name]("cuda:1").run(backend)
    assert all(tensor.device.index == 1 for tensor in found)
    assert_same([tensor.cpu() for tensor in found], [tensor.cpu() for tensor in expected])


@every
@pytest.mark.filterwarnings("ignore")  # of torch.compile's own parts
def test_gpu_compiled_in_one_graph(name, backend):
    bodies.check_compiled("cuda", backend, name)


@pytest.mark.filterwarnings("ignore")
def test_gpu_compiled_by_inductor(need):
    need("nonlocal_attention", "triton")
    bodies.check_compiled("cuda", "triton", "residual", "inductor")


def test_gpu_training_with_gradient_penalty_follows_the_reference(need):
    need("nonlocal_attention", "triton")
    bodies.check_training("cuda", "triton")


def test_gpu_spectral_norm_keeps_its_digits_in_a_step_of_sixteen_bits():
    bodies.check_spectral_norm("cuda")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_gpu_memory_of_attention_is_linear(need, dtype):
    """Four times the positions take about four times the memory in each order, far less than one N x N map."""
    need("nonlocal_attention", "triton")
    peaks = {positions: peak_of_orders(positions, dtype) for positions in (4096, 16384)}
    for order, (small, large) in enumerate(zip(*peaks.values(), strict=True)):
        assert large <= 5 * small, f"order {order}: {small} bytes at 4096 positions, {large} at 16384"
        assert large < 16384**2 * dtype.itemsize / 2, f"order {order}: {large} bytes, half an N x N map"


def peak_of_orders(positions: int, dtype: torch.dtype) -> list[int]:
    """Bytes at the peak of forward, forward + backward, and all three orders, beyond the inputs."""
    inputs = [torch.randn(1, c, positions, device="cuda", dtype=dtype, requires_grad=True) for c in (32, 32, 128)]
    peaks = []
    for order in range(3):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        out = ops.nonlocal_attention(*inputs, backend="triton")
        if order:
            first = torch.autograd.grad(out.square().sum(), inputs, create_graph=order == 2)
            if order == 2:
                torch.autograd.grad(sum(gradient.square().sum() for gradient in first), inputs)
            del first
        del out
        torch.cuda.synchronize()
        peaks.append(torch.cuda.max_memory_allocated() - before)
    return peaks
