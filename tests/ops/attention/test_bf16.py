"""Attention of bfloat16 by the processor's own products, against float64 on the same rounded numbers."""

import math

import pytest
import torch
from attention_cases import LAYOUTS, arrange, inputs
from comparing import assert_close
from tolerances import RELATIVE

from fastpose import _native, ops

pytestmark = pytest.mark.skipif(
    not _native.build_info()["amx"],
    reason="bfloat16 is widened: AMX is not there, not granted, not compiled, or FASTPOSE_SIMD chose without it",
)

# (B, Ck, Cv, Nq, Nk), around strips of 32 positions, blocks of 256 and tiles of 16 channels
SHAPES = [
    (1, 1, 1, 1, 1),
    (2, 15, 17, 16, 15),
    (1, 31, 16, 31, 33),
    (2, 33, 31, 32, 32),
    (1, 32, 33, 67, 256),
    (3, 8, 64, 257, 35),
    (1, 64, 48, 48, 515),
]


def orders(tensors, dtype=torch.bfloat16, backend="cpu", scale=0.4):
    """Output and gradients in float64, computed in ``dtype``."""
    tensors = [tensor.detach().to(dtype).requires_grad_() for tensor in tensors]
    out = ops.nonlocal_attention(*tensors, scale=scale, backend=backend)
    generator = torch.Generator().manual_seed(5)
    grad = torch.randn(out.shape, generator=generator).bfloat16().to(dtype)
    found = (out, *torch.autograd.grad(out, tensors, arrange(grad, "channels" if out.stride(1) == 1 else "positions")))
    return [tensor.detach().double() for tensor in found]


def assert_as_good(found, expected):
    """Half of what the table allows bfloat16: only P, dS and the results are rounded."""
    for name, ours, exact in zip(("out", "dq", "dk", "dv"), found, expected, strict=True):
        assert ours.shape == exact.shape
        error, largest = (float(tensor.abs().max()) if exact.numel() else 0.0 for tensor in (ours - exact, exact))
        assert error <= RELATIVE[torch.bfloat16] / 2 * largest + 1e-6, f"{name}: {error:.2e} of {largest:.2e}"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward_and_gradients(shape, layout):
    tensors = inputs(shape, torch.bfloat16, layout)
    assert_as_good(orders(tensors), orders(tensors, torch.float64, "reference"))


@pytest.mark.parametrize("scale", [-0.7, 0.0])
def test_scales(scale):
    tensors = inputs((1, 16, 16, 40, 300), torch.bfloat16)
    assert_as_good(orders(tensors, scale=scale), orders(tensors, torch.float64, "reference", scale))


@pytest.mark.parametrize("shape", [(0, 4, 4, 8, 8), (2, 4, 0, 8, 8), (2, 0, 4, 8, 8), (2, 4, 4, 0, 8), (1, 4, 6, 5, 0)])
def test_nothing_to_add_up(shape):
    tensors = inputs(shape, torch.bfloat16)
    assert_as_good(orders(tensors), orders(tensors, torch.float64))


def calls(monkeypatch):
    """The names of the attention kernels that run from here on."""
    kernels, names = _native.module().cpu, []

    def counted(name, kernel):
        return lambda *arguments: (names.append(name), kernel(*arguments))[1]

    for name in ("attention_fwd", "attention_bwd", "attention_bwd2", "attention_fwd_bf16", "attention_bwd_bf16"):
        monkeypatch.setattr(kernels, name, counted(name, getattr(kernels, name)))
    return names


def test_bfloat16_is_multiplied_as_it_is_and_float16_is_widened(monkeypatch):
    names = calls(monkeypatch)
    for dtype, ending in ((torch.bfloat16, "_bf16"), (torch.float16, ""), (torch.float32, "")):
        names.clear()
        orders(inputs((1, 8, 8, 40, 40)), dtype)
        assert names == [f"attention_fwd{ending}", f"attention_bwd{ending}"]


def test_a_narrower_instruction_set_widens(monkeypatch):
    names = calls(monkeypatch)
    tensors, before = inputs((1, 8, 8, 40, 40), torch.bfloat16), _native.build_info()["simd"]
    direct = orders(tensors)
    _native.module().set_simd("avx2")
    try:
        assert not _native.build_info()["amx"]
        assert_as_good(orders(tensors), direct)
        with pytest.raises(ValueError, match="without AMX; widen"):
            _native.module().cpu.attention_fwd_bf16(*[None] * 5, 1.0, 1)
    finally:
        _native.module().set_simd(before)
    assert names[2:4] == ["attention_fwd", "attention_bwd"]


def test_threads_do_not_change_the_answer():
    tensors, threads = inputs((2, 16, 33, 300, 290), torch.bfloat16), torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(orders(tensors))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(one, two) for one, two in zip(results[0], other, strict=True))


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_gradients_that_nobody_wants(missing):
    tensors = [
        tensor.detach().requires_grad_(at != missing) for at, tensor in enumerate(inputs(SHAPES[3], torch.bfloat16))
    ]
    every = inputs(SHAPES[3], torch.bfloat16)
    for arguments in (tensors, every):
        ops.nonlocal_attention(*arguments, backend="cpu").sum().backward()  # its gradient has strides of 0
    for at, (some, full) in enumerate(zip(tensors, every, strict=True)):
        assert some.grad is None if at == missing else torch.equal(some.grad, full.grad)


def test_large_logits():
    """Maxima far apart: between blocks of keys the shift of the exponent rises, or falls behind by thousands."""
    query, key = torch.full((1, 1, 3), 64.0), torch.linspace(-64, 64, 600).bfloat16().float()[None, None]
    key = torch.cat([key, -key], 2)
    value = torch.linspace(-1, 1, 1200).bfloat16().float().repeat(1, 2, 1)
    tensors = [tensor.bfloat16() for tensor in (query, key, value)]
    assert_as_good(orders(tensors, scale=1.0)[:1] * 4, orders(tensors, torch.float64, "reference", 1.0)[:1] * 4)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("tensor", [0, 1, 2])
def test_non_finite_numbers_come_out_where_float32_has_them(tensor, bad):
    tensors = [each.detach() for each in inputs((1, 4, 4, 60, 300), torch.bfloat16)]
    tensors[tensor][0, 1, 3] = bad
    found, expected = orders(tensors), orders(tensors, torch.float32)
    for ours, theirs in zip(found[:1], expected[:1], strict=True):
        assert torch.equal(torch.isfinite(ours), torch.isfinite(theirs))


def test_keys_that_nothing_attends_to():
    """Logits of -inf in the first block leave it out; where every logit is -inf the answer is that of float32."""
    query, key, value = (each.detach() for each in inputs((1, 1, 4, 40, 600), torch.bfloat16))
    query.abs_()
    key[:, :, :300] = -math.inf
    found = ops.nonlocal_attention(query, key, value, backend="cpu")
    expected = ops.nonlocal_attention(query.double(), key.double(), value.double(), backend="reference")
    assert_close(found, expected.bfloat16())
    key[:] = -math.inf
    found, expected = (
        ops.nonlocal_attention(query.to(t), key.to(t), value.to(t), backend="cpu") for t in (query.dtype, torch.float32)
    )
    assert torch.equal(found.isnan(), expected.isnan())


def test_second_derivatives_are_widened():
    tensors = inputs((1, 8, 8, 40, 40), torch.bfloat16)
    first = torch.autograd.grad(ops.nonlocal_attention(*tensors).square().sum(), tensors, create_graph=True)
    second = torch.autograd.grad(sum(gradient.square().sum() for gradient in first), tensors)
    assert all(tensor.dtype == torch.bfloat16 and tensor.isfinite().all() for tensor in second)
