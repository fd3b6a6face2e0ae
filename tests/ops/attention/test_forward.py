"""Attention on the C++ kernels against the reference: values in every layout, dtype and instruction set."""

import pytest
import torch
from attention_cases import LAYOUTS, SHAPES, inputs
from comparing import assert_close

from fastpose import _native, ops


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_reference(shape, layout):
    tensors = inputs(shape, layout=layout)
    expected = ops.nonlocal_attention(*tensors, backend="reference")
    assert_close(ops.nonlocal_attention(*tensors, backend="cpu"), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_narrow_types_are_as_good_as_torch(dtype):
    """At most twice the rounding error of the reference in that type, both against float64."""
    tensors = inputs((2, 16, 32, 100, 150), dtype)
    exact = ops.nonlocal_attention(*(tensor.double() for tensor in tensors), backend="reference")
    found = ops.nonlocal_attention(*tensors, backend="cpu")
    assert found.dtype == dtype
    torch_error = (ops.nonlocal_attention(*tensors, backend="reference").double() - exact).abs().max()
    assert (found.double() - exact).abs().max() <= 2 * torch_error + torch.finfo(dtype).eps


@pytest.mark.parametrize("level", ["baseline", "avx2", "avx512"])
def test_every_instruction_set(level):
    widest = _native.build_info()["widest_simd"]
    if ["baseline", "avx2", "avx512"].index(level) > ["baseline", "avx2", "avx512"].index(str(widest)):
        pytest.skip(f"this machine's widest instruction set is {widest}")
    tensors = inputs((2, 9, 20, 131, 133))
    expected = ops.nonlocal_attention(*tensors, backend="reference")
    before = _native.build_info()["simd"]
    _native.module().set_simd(level)
    try:
        assert _native.build_info()["simd"] == level
        assert_close(ops.nonlocal_attention(*tensors, backend="cpu"), expected)
    finally:
        _native.module().set_simd(before)


def test_channels_last_maps_keep_their_layout():
    query, key, value = (
        torch.randn(2, channels, 6, 5).to(memory_format=torch.channels_last).requires_grad_() for channels in (4, 4, 8)
    )
    out = ops.nonlocal_attention(query, key, value, backend="cpu")
    assert out.shape == (2, 8, 6, 5)
    assert out.is_contiguous(memory_format=torch.channels_last)
    gradients = torch.autograd.grad(out.sum(), (query, key, value))
    assert all(gradient.is_contiguous(memory_format=torch.channels_last) for gradient in gradients)


def test_pooled_keys_and_three_spatial_dimensions():
    query, key, value = torch.randn(1, 4, 2, 3, 4), torch.randn(1, 4, 2, 1, 2), torch.randn(1, 3, 2, 1, 2)
    out = ops.nonlocal_attention(query, key, value)
    assert out.shape == (1, 3, 2, 3, 4)
    assert_close(out, ops.nonlocal_attention(query, key, value, backend="reference"))


def test_residual_adds_gamma_times_attention():
    query, key, value = torch.randn(2, 4, 9), torch.randn(2, 4, 9), torch.randn(2, 6, 9)
    residual, gamma = torch.randn(2, 6, 9), torch.tensor([0.3])
    out = ops.nonlocal_attention_residual(query, key, value, residual, gamma)
    assert_close(out, residual + 0.3 * ops.nonlocal_attention(query, key, value, backend="reference"))
    assert torch.equal(ops.nonlocal_attention_residual(query, key, value, residual, torch.zeros(1)), residual)


def test_rows_are_the_maps_behind_the_output():
    query, key, value = torch.randn(2, 4, 3, 5), torch.randn(2, 4, 2, 4), torch.randn(2, 6, 2, 4)
    rows = ops.attention_rows(query, key, [(4, 2), (0, 1)])  # (B, 2, 2, 4)
    assert_close(rows.sum((2, 3)), torch.ones(2, 2))
    out = ops.nonlocal_attention(query, key, value)
    assert_close(torch.einsum("bphw,bchw->bpc", rows, value), out[:, :, [2, 1], [4, 0]].transpose(1, 2))


def test_threads_do_not_change_the_answer():
    tensors = inputs((3, 8, 16, 300, 300), torch.float32)
    threads = torch.get_num_threads()
    outputs = []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            outputs.append(ops.nonlocal_attention(*tensors, backend="cpu"))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])
