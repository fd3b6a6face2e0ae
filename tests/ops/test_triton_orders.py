"""Three orders of derivative through the public operations with backend="triton", in Triton's interpreter."""

import pytest
import torch
from comparing import assert_close, assert_no_missing_gradient
from heatmap_cases import CASES, tensors_of, three_orders
from interpreter import needs_interpreter

from fastpose import ops
from fastpose.ops import _triton_launch
from fastpose.ops.geometry import functional as geometry
from fastpose.ops.heatmap import functional as heatmap

pytestmark = needs_interpreter
SHAPES = [(1, 2, 17, 65), (2, 3, 7, 12)]  # beyond a tile of 16 x 64 and within one
METHODS = ("argmax", "quarter", "dark", "dark_udp", "softargmax")


def order_of(key):
    return 2 if key.startswith("second") else 0


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_triton_three_orders_of_heatmaps_equal_the_reference(name, shape):
    case = CASES[name]
    tensors = tensors_of(case, shape, torch.float32)
    found, expected = (three_orders(case, tensors, backend) for backend in ("triton", "reference"))
    assert set(expected) <= set(found)  # the reference leaves out second derivatives that do not exist
    for key, gradient in expected.items():
        assert_close(found[key], gradient, name=key, order=order_of(key))
        assert_no_missing_gradient(found[key], gradient, name=key)


@pytest.mark.parametrize("layout", ["channels_last", "sliced", "strided"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", CASES)
def test_triton_three_orders_of_heatmaps_in_narrow_types(name, dtype, layout):
    """Against float64 at the same rounded inputs: at most twice the CPU kernels' error, plus a few roundings."""
    case = CASES[name]
    tensors = tensors_of(case, (1, 3, 6, 9), dtype, layout)
    wide = {key: t.detach().double().requires_grad_() if t.requires_grad else t for key, t in tensors.items()}
    exact = three_orders(case, wide, "reference")
    theirs, found = three_orders(case, tensors, "cpu"), three_orders(case, tensors, "triton")
    for key, true in exact.items():
        assert found[key].dtype == theirs[key].dtype, key
        assert found[key].stride() == theirs[key].stride(), key
        allowed = 2 * (theirs[key].double() - true).abs().max() + 20 * torch.finfo(dtype).eps * true.abs().max()
        assert (found[key].double() - true).abs().max() <= allowed, key


@pytest.mark.parametrize("method", METHODS)
def test_triton_decodes_as_the_reference(method):
    heatmaps = torch.rand(2, 3, 12, 20, generator=torch.Generator().manual_seed(4))
    found, expected = (ops.decode_heatmaps(heatmaps, method, backend=backend) for backend in ("triton", "reference"))
    for ours, theirs in zip(found, expected, strict=True):
        assert_close(ours, theirs)


def descriptor_orders(joints, backend):
    generator = torch.Generator().manual_seed(1)
    out = ops.pairwise_descriptor(joints, backend=backend)
    grad = torch.randn(out.shape, generator=generator).to(joints.dtype).requires_grad_()
    cotangent = torch.randn(joints.shape, generator=generator).to(joints.dtype)
    (first,) = torch.autograd.grad(out, joints, grad, create_graph=True)
    second = torch.autograd.grad((first * cotangent).sum(), (joints, grad))
    return dict(zip(("out", "joints", "second joints", "second grad"), (out, first, *second), strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(2, 17, 3), (3, 5, 2), (1, 40, 3)], ids=str)
def test_triton_three_orders_of_the_descriptor_equal_the_reference(shape, dtype):
    joints = torch.randn(shape, generator=torch.Generator().manual_seed(2)).to(dtype).requires_grad_()
    found = descriptor_orders(joints, "triton")
    for key, expected in descriptor_orders(joints, "reference").items():
        assert found[key].dtype == dtype
        assert_close(found[key], expected, name=key, order=order_of(key))


@pytest.mark.parametrize("operation", [*heatmap.OPERATIONS, heatmap.SOFTARGMAX, geometry.OPERATION], ids=str)
def test_triton_comes_after_cuda_and_before_the_reference(operation):
    assert operation.backend_names == ("cpu", "cuda", "triton", "reference")


def test_triton_is_not_chosen_for_cpu_tensors():
    assert ops.explain("pairwise_descriptor", torch.zeros(1, 2, 2)).chosen == "cpu"
    assert ops.explain("decode_heatmaps", torch.zeros(1, 2, 4, 5)).chosen == "cpu"


def test_triton_kernels_start_in_one_place_with_all_their_options(monkeypatch):
    starts = []
    monkeypatch.setattr(_triton_launch, "start", lambda *arguments: starts.append(arguments))
    near = torch.zeros(1)
    _triton_launch.launch("kernel", (0, 3), (), {}, near=near)
    _triton_launch.launch("kernel", (2,), [near, 5], {"BLOCK": 16}, warps=8, near=near, maxnreg=128)
    assert starts == [("kernel", (2,), (near, 5), {"BLOCK": 16}, 8, 2, {"maxnreg": 128})]


def test_triton_refuses_float64():
    with pytest.raises(ValueError, match="it computes in float32, got float64"):
        ops.pairwise_descriptor(torch.zeros(1, 2, 2, dtype=torch.float64), backend="triton")
