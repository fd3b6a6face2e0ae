"""Which backend serves a GPU's tensors, and why the others do not, with a made-up device: no GPU is needed."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from fastpose import _native, ops
from fastpose.ops import _devices, _dispatch
from fastpose.ops.attention import functional as attention

HOPPER = _devices.Gpu("a Hopper", (9, 0), 232448, 132)
TURING = _devices.Gpu("a Turing", (7, 5), 65536, 40)


@pytest.fixture
def gpu(monkeypatch):
    """Fake CUDA tensors on a device to be chosen: ``gpu(HOPPER)``, extension built with or without CUDA kernels."""

    def appear(described, *, kernels=False, triton=True, problem=""):
        monkeypatch.setattr(_devices, "gpu", lambda index: described)
        monkeypatch.setattr(_dispatch, "INTERPRETED", False)
        monkeypatch.setattr(_dispatch, "TRITON", triton)
        monkeypatch.setattr(_native, "cuda_kernels", lambda: kernels)
        monkeypatch.setattr(_native, "build_info", lambda: {"cuda_reason": "nvcc was not found"})
        monkeypatch.setattr(_native, "cuda_problem", lambda: problem)

    with FakeTensorMode():
        yield appear


def maps(dtype=torch.float32):
    return [torch.empty(2, channels, 16, device="cuda", dtype=dtype) for channels in (8, 8, 16)]


def test_gpu_tensors_of_attention_go_to_triton(gpu):
    gpu(HOPPER)
    explanation = ops.explain("nonlocal_attention", *maps(), scale=1.0)
    assert explanation.chosen == "triton"
    assert explanation.reasons == {"cpu": ["it serves CPU tensors, got cuda:0"]}


@pytest.mark.parametrize(
    ("described", "dtype", "triton", "reason"),
    [
        (TURING, torch.float32, True, "it serves compute capability 8.0 or newer, got 7.5"),
        (HOPPER, torch.float64, True, "it computes in float32, got float64"),
        (HOPPER, torch.float32, False, "Triton is not installed; pip install triton"),
    ],
)
def test_gpu_that_triton_cannot_serve_gets_the_reference(gpu, described, dtype, triton, reason):
    gpu(described, triton=triton)
    explanation = ops.explain("nonlocal_attention", *maps(dtype), scale=1.0)
    assert explanation.chosen == "reference"
    assert explanation.reasons["triton"] == [reason]
    with pytest.raises(ValueError, match=f"backend 'triton' cannot serve this call: {reason}"):
        ops.nonlocal_attention(*maps(dtype), backend="triton")


@pytest.mark.parametrize(
    ("choices", "chosen", "reason"),
    [
        ({"kernels": True}, "cuda", None),
        ({}, "triton", "the extension was built without CUDA kernels (nvcc was not found)"),
        ({"kernels": True, "problem": "the driver is too old"}, "triton", "the driver is too old"),
        ({"triton": False}, "reference", "the extension was built without CUDA kernels (nvcc was not found)"),
    ],
)
def test_gpu_tensors_of_heatmaps_and_descriptors_go_where_they_can(gpu, choices, chosen, reason):
    gpu(HOPPER, **choices)
    for operation, shape in (("flip_average", (2, 3, 8, 8)), ("pairwise_descriptor", (2, 5, 3))):
        explanation = ops.explain(operation, torch.empty(shape, device="cuda"))
        assert explanation.chosen == chosen
        assert reason is None or explanation.reasons["cuda"] == [reason]


def test_gpu_decoding_with_more_taps_than_cuda_takes_goes_to_triton(gpu):
    gpu(HOPPER, kernels=True)
    planes = torch.empty(2, 3, 8, 8, device="cuda")
    assert ops.explain("decode_heatmaps", planes, method="dark", kernel=981, max_step=1.0).chosen == "cuda"
    explanation = ops.explain("decode_heatmaps", planes, method="dark", kernel=983, max_step=1.0)
    assert explanation.chosen == "triton"
    assert explanation.reasons["cuda"] == ["it serves a kernel of at most 981 taps, got 983"]


def test_gpu_results_have_the_shapes_and_layouts_that_kernels_write(gpu):
    gpu(HOPPER)
    query, key, value = maps(torch.bfloat16)
    channels_last = torch.empty(2, 16, 16, device="cuda", dtype=torch.bfloat16).transpose(1, 2)
    assert ops.nonlocal_attention(query, key, value).shape == (2, 16, 16)
    assert ops.nonlocal_attention(query, key, channels_last).stride() == channels_last.stride()


def test_gpu_residual_is_fused_where_dtypes_agree(gpu):
    gpu(HOPPER)
    query, key, value = maps(torch.bfloat16)
    gamma = torch.empty(1, device="cuda", dtype=torch.bfloat16)
    assert attention.RESIDUAL.serves("triton", (query, key, value, value, gamma), (1.0,))
    assert not attention.RESIDUAL.serves("triton", (query, key, value, value.float(), gamma), (1.0,))


def test_gpu_capability_is_a_constant_to_a_compiled_program(monkeypatch):
    monkeypatch.setattr(_devices, "gpu", lambda index: TURING)

    @torch.compile(fullgraph=True, backend="eager")
    def asks(x):
        return x if _dispatch._reason_of_capability(0) is None else x + 1

    assert asks(torch.zeros(())) == 1
