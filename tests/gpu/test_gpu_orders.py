"""The operations' test grid on the GPU: results and both orders of derivative beside the reference."""

import attention_cases
import heatmap_cases
import pytest
import torch
from gpu import bodies

from fastpose import ops

pytestmark = pytest.mark.gpu
SINGLE, NARROW = torch.float32, (torch.bfloat16, torch.float16)
BACKENDS = ("cuda", "triton")
# (B, Ck, Cv, Nq, Nk): published channels, ragged sizes, more keys than a tile.
PUBLISHED = [(2, 32, 256, 200, 200), (1, 64, 512, 130, 130), (2, 8, 64, 300, 75), (1, 128, 16, 70, 65)]


@pytest.mark.parametrize("shape", [*attention_cases.SHAPES, *PUBLISHED], ids=str)
def test_gpu_attention_at_every_shape(need, shape):
    need("nonlocal_attention", "triton")
    bodies.check_attention("cuda", "triton", shape, "positions", SINGLE)


@pytest.mark.parametrize("layout", attention_cases.LAYOUTS)
@pytest.mark.parametrize("dtype", [SINGLE, *NARROW], ids=str)
@pytest.mark.parametrize("shape", [(1, 16, 33, 48, 128), (2, 32, 256, 130, 100)], ids=str)
def test_gpu_attention_in_every_dtype_and_layout(need, shape, dtype, layout):
    need("nonlocal_attention", "triton")
    bodies.check_attention("cuda", "triton", shape, layout, dtype)


@pytest.mark.parametrize("dtype", [SINGLE, torch.bfloat16], ids=str)
def test_gpu_attention_with_residual(need, dtype):
    need("nonlocal_attention", "triton")
    shape = (2, 8, 64, 90, 90)
    bodies.check_orders(
        lambda dtype, device: bodies.attention(shape, "positions", dtype, device, residual=True),
        dtype,
        "cuda",
        "triton",
    )


def test_gpu_attention_where_tf32_is_allowed(need):
    need("nonlocal_attention", "triton")
    torch.set_float32_matmul_precision("high")  # the fixture sets it back
    bodies.check_orders(
        lambda dtype, device: bodies.attention((2, 32, 64, 130, 100), "positions", dtype, device),
        SINGLE, "cuda", "triton", high=True,
    )  # fmt: skip


def test_gpu_attention_of_an_empty_batch(need):
    need("nonlocal_attention", "triton")
    empty = [torch.zeros(0, channels, 9, device="cuda", requires_grad=True) for channels in (4, 4, 8)]
    out = ops.nonlocal_attention(*empty, backend="triton")
    assert out.shape == (0, 8, 9)
    first = torch.autograd.grad(out.sum(), empty, create_graph=True)
    torch.autograd.grad(sum(gradient.sum() for gradient in first), empty, allow_unused=True)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", heatmap_cases.SHAPES, ids=str)
@pytest.mark.parametrize("name", list(heatmap_cases.CASES))
def test_gpu_heatmaps_at_every_shape(need, name, shape, backend):
    need(operation_of(name), backend)
    bodies.check_heatmap("cuda", backend, name, shape, "contiguous", SINGLE)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", heatmap_cases.LAYOUTS)
@pytest.mark.parametrize("dtype", [SINGLE, *NARROW], ids=str)
@pytest.mark.parametrize("name", list(heatmap_cases.CASES))
def test_gpu_heatmaps_in_every_dtype_and_layout(need, name, dtype, layout, backend):
    need(operation_of(name), backend)
    bodies.check_heatmap("cuda", backend, name, (2, 3, 21, 35), layout, dtype)


@pytest.mark.parametrize("name", list(heatmap_cases.CASES))
def test_gpu_heatmaps_in_float64(need, name):
    need(operation_of(name), "cuda")
    bodies.check_heatmap("cuda", "cuda", name, (2, 3, 21, 35), "contiguous", torch.float64)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [SINGLE, *NARROW], ids=str)
@pytest.mark.parametrize("profile", ["gaussian", "gaussian_rounded", "msra", "udp", "wide", "binary"])
def test_gpu_render_of_every_profile(need, profile, dtype, backend):
    need("render_gaussian_heatmaps", backend)
    bodies.check_render("cuda", backend, profile, dtype)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", heatmap_cases.LAYOUTS)
@pytest.mark.parametrize("dtype", [SINGLE, *NARROW], ids=str)
@pytest.mark.parametrize("method", ["argmax", "quarter", "dark", "dark_udp"])
def test_gpu_decode(need, method, dtype, layout, backend):
    need("decode_heatmaps", backend)
    bodies.check_decode("cuda", backend, method, layout, dtype)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [SINGLE, *NARROW], ids=str)
@pytest.mark.parametrize("shape", [(1, 1, 2), (3, 16, 3), (5, 17, 3), (2, 17, 2), (1, 40, 3), (70, 16, 2)], ids=str)
def test_gpu_descriptor(need, shape, dtype, backend):
    need("pairwise_descriptor", backend)
    bodies.check_descriptor("cuda", backend, shape, dtype)


@pytest.mark.parametrize("name", list(bodies.EVERY))
def test_gpu_auto_takes_a_kernel_of_ours(name):
    """Automatic choice gives the same bits as one of the GPU backends."""
    orders = bodies.EVERY[name]("cuda")
    found = orders.run("auto")
    for backend in bodies.backends_of(name):
        try:
            ours = orders.run(backend)
        except ValueError:
            continue
        if all(torch.equal(one, other) for one, other in zip(found, ours, strict=True)):
            return
    pytest.fail("backend 'auto' does not take the kernels on the GPU")


def operation_of(name: str) -> str:
    """The public operation of a heatmap case."""
    start = name.partition("-")[0]
    return {
        "render": "render_gaussian_heatmaps",
        "depth": "render_depth_maps",
        "loss": "heatmap_mse_loss",
        "softargmax": "decode_heatmaps",
        "flip": "flip_average",
    }[start]
