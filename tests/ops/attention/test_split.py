"""Attention of float32 by bf16 products of its parts, beside the kernel that multiplies the numbers as they are."""

import math
from contextlib import contextmanager

import pytest
import torch
from attention_cases import LAYOUTS, arrange, inputs

from fastpose import _native, ops

pytestmark = pytest.mark.skipif(
    not _native.build_info()["amx"], reason="AMX is not there, not granted, not compiled, or FASTPOSE_SIMD left it out"
)
SHAPES = [(1, 32, 128, 512, 512), (2, 15, 161, 543, 577), (1, 33, 130, 700, 515), (1, 1, 170, 513, 800)]
SMALL = (1, 16, 50, 130, 161)  # served in two parts only


@contextmanager
def precision(name):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def without_amx():
    before = _native.build_info()["simd"]
    _native.module().set_simd("avx2")
    try:
        yield
    finally:
        _native.module().set_simd(before)


@pytest.fixture
def parts(monkeypatch):
    """The parts of each forward from here on, 0 where none was made."""
    kernels, found = _native.module().cpu, []
    kernel = kernels.attention_fwd
    monkeypatch.setattr(kernels, "attention_fwd", lambda *arguments: found.append(kernel(*arguments)))
    return found


def maps(shape, layout="positions"):
    return [tensor.detach() for tensor in inputs(shape, torch.float32, layout)]


def attend(tensors, backend="cpu", scale=0.4):
    return ops.nonlocal_attention(*tensors, scale=scale, backend=backend)


def errors(found, exact):
    error = (found.double() - exact).abs()
    return float(error.max()), float(error.square().mean().sqrt())


def gradients(tensors):
    tensors = [tensor.clone().requires_grad_() for tensor in tensors]
    out = attend(tensors, "reference" if tensors[0].dtype == torch.float64 else "cpu")
    weights = torch.linspace(-1, 1, out[0].numel(), dtype=torch.float64).cos().view_as(out[0]).to(out.dtype)
    return torch.autograd.grad((out * weights).sum(), tensors)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_three_parts_are_as_exact_as_float32(shape, parts):
    tensors = maps(shape)
    exact = attend([tensor.double() for tensor in tensors], "reference")
    found = attend(tensors)
    with without_amx():
        plain = attend(tensors)
    assert parts == [3, 0]
    for ours, theirs in zip(errors(found, exact), errors(plain, exact), strict=True):
        assert ours <= 1.5 * theirs


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_do_not_change_the_answer(layout, parts):
    tensors = maps(SHAPES[1])
    assert torch.equal(attend([arrange(tensor, layout) for tensor in tensors]), attend(tensors))
    assert parts == [3, 3]


def test_gradients_are_as_exact_as_float32(parts):
    tensors = maps(SHAPES[0])
    exact, found = gradients([tensor.double() for tensor in tensors]), gradients(tensors)
    with without_amx():
        plain = gradients(tensors)
    assert parts == [3, 0]
    for ours, theirs, truth in zip(found, plain, exact, strict=True):
        assert errors(ours, truth)[1] <= 1.5 * errors(theirs, truth)[1]


@pytest.mark.parametrize("name", ["high", "medium"])
def test_two_parts_where_torch_asks_for_less(name, parts):
    for shape in (SHAPES[2], SMALL):
        tensors = maps(shape)
        exact = attend([tensor.double() for tensor in tensors], "reference")
        with precision(name):
            error = errors(attend(tensors), exact)[0]
        assert errors(attend(tensors), exact)[0] < error <= 1e-4 * float(exact.abs().max())
    assert parts == [2, 3, 2, 0]


def test_both_routes_give_the_same_bits():
    for shape, name in ((SHAPES[1], "highest"), (SHAPES[1], "high"), (SMALL, "high")):
        tensors = maps(shape)
        with precision(name):
            long = attend([tensors[0].clone().requires_grad_(), *tensors[1:]], scale=1.0)
            assert torch.equal(attend(tensors, "auto", 1.0), long)


def test_precision_that_torch_does_not_tell(parts):
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        attend(maps(SHAPES[0]))
    finally:
        torch.backends.cuda.matmul.fp32_precision = before
    assert parts == [3]


def test_threads_do_not_change_the_answer():
    tensors, threads = maps(SHAPES[1]), torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(attend(tensors))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(other, results[0]) for other in results[1:])


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 3e38, -1e25, 1e-30, 1e-42])
def test_numbers_without_parts_go_to_the_other_kernel(number, which, parts):
    tensors = maps(SHAPES[0])
    tensors[which][0, -1, 500] = number
    for name in ("highest", "high"):
        with precision(name):
            attend(tensors)
    assert parts == [0, 0]


def test_the_widest_range_that_has_parts(parts):
    """Values from 2^-64 to 2^60, each channel as exact as its own largest number asks."""
    query, key, value = maps(SHAPES[0])
    value = value.sign() * (1 + value.abs()).log2().clamp(0, 1).add(1) * torch.logspace(-63, 58, 128, 2)[:, None]
    found, exact = attend((query, key, value)), attend([t.double() for t in (query, key, value)], "reference")
    error = ((found - exact).abs().amax(2) / exact.abs().amax(2)).max()
    assert parts == [3]
    assert error < 1e-5


def test_zeros_have_parts(parts):
    query, key, value = maps(SHAPES[0])
    assert torch.equal(attend((query, key, torch.zeros_like(value))), torch.zeros_like(value))
    assert parts == [3]
