"""The Triton kernels of attention under Triton's interpreter, in every order of derivative and every schedule."""

from dataclasses import replace

import pytest
import torch
from attention_cases import LAYOUTS, NAMES, ORDERS, inputs, three_orders
from comparing import assert_close
from interpreter import needs_interpreter, widen_bfloat16_products

from fastpose import ops
from fastpose.ops.attention import _tiles, _triton

pytestmark = needs_interpreter
SCALE = 0.75  # exact in float32, in which kernels take it

WIDE = _tiles.Tile(16, 32, 4, 1)
TALL = _tiles.Tile(32, 16, 4, 1)
NARROW = _tiles.Tile(16, 16, 4, 1, depth=16, chunk=16)
ONE_SWEEP = _tiles.Tiles(TALL, WIDE, TALL, WIDE, TALL, WIDE)
SCHEDULES = {
    "one-sweep": ONE_SWEEP,
    "two-sweeps": replace(ONE_SWEEP, one_sweep=False),
    "atomics": replace(ONE_SWEEP, atomics=True),
    "chunks": _tiles.Tiles(*[NARROW] * 6),
    "chunks-atomics": _tiles.Tiles(*[NARROW] * 6, atomics=True),
}
# (B, Ck, Cv, Nq, Nk): around the tiles of 16 and 32 and around 16 channels; more channels than a chunk; pooled keys
SHAPES = [(1, 1, 1, 1, 1), (2, 3, 5, 1, 9), (2, 8, 16, 31, 33), (1, 17, 20, 32, 16), (2, 4, 33, 35, 17)]


@pytest.fixture(params=SCHEDULES)
def schedule(request, monkeypatch):
    monkeypatch.setattr(_tiles, "lookup", lambda *arguments: SCHEDULES[request.param])
    return request.param


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_triton_three_orders_equal_the_reference(shape, schedule):
    tensors = inputs(shape)
    found, expected = (three_orders(tensors, backend, SCALE) for backend in ("triton", "reference"))
    for name, order, ours, theirs in zip(NAMES, ORDERS, found, expected, strict=True):
        assert_close(ours, theirs, name=name, order=order)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_triton_serves_layouts_in_place(layout, monkeypatch):
    monkeypatch.setattr(_tiles, "lookup", lambda *arguments: ONE_SWEEP)
    tensors = inputs((2, 8, 12, 35, 20), torch.float32, layout)
    found, expected = (three_orders(tensors, backend, SCALE) for backend in ("triton", "reference"))
    for name, order, ours, theirs in zip(NAMES, ORDERS, found, expected, strict=True):
        assert_close(ours, theirs, name=name, order=order)
    if layout == "channels":
        assert found[0].stride(1) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tiles", ["one-sweep", "chunks"])
def test_triton_error_in_narrow_types_is_that_of_torch(dtype, tiles, monkeypatch):
    widen_bfloat16_products(monkeypatch)
    monkeypatch.setattr(_tiles, "lookup", lambda *arguments: SCHEDULES[tiles])
    tensors = inputs((1, 8, 20, 18, 33), dtype)
    exact = three_orders([tensor.detach().double().requires_grad_() for tensor in tensors], "reference", SCALE)
    theirs, ours = three_orders(tensors, "reference", SCALE), three_orders(tensors, "triton", SCALE)
    for name, order, true, torch_s, found in zip(NAMES, ORDERS, exact, theirs, ours, strict=True):
        torch_error = (torch_s.detach().double() - true.detach()).abs().max()
        error = (found.detach().double() - true.detach()).abs().max()
        roundings = (1 + 4 * order) * torch.finfo(dtype).eps * true.detach().abs().max()
        assert error <= 2 * torch_error + roundings, f"{name}: {error:.3g}, torch {torch_error:.3g}"


@pytest.mark.parametrize("given", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)], ids=str)
def test_triton_absent_cotangents_count_as_zero(given, schedule):
    tensors = inputs((1, 3, 17, 17, 18))

    def second(backend):
        out = ops.nonlocal_attention(*tensors, scale=SCALE, backend=backend)
        grad = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out).requires_grad_()
        first = torch.autograd.grad(out, [tensors[i] for i in given], grad, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), (*tensors, grad), allow_unused=True)

    for name, like, ours, theirs in zip(
        NAMES[4:], (*tensors, tensors[2][:, :, :17]), second("triton"), second("reference"), strict=True
    ):
        ours, theirs = (torch.zeros_like(like) if gradient is None else gradient for gradient in (ours, theirs))
        assert_close(ours, theirs, name=name, order=2)


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (3,), (0, 1), (0, 2)], ids=str)
def test_triton_computes_what_is_needed(wanted, schedule):
    tensors = inputs((1, 3, 17, 17, 18))

    def results(backend):
        grad = torch.ones(1, 17, 17, dtype=torch.float64, requires_grad=True)
        leaves = (*tensors, grad)
        out = ops.nonlocal_attention(*tensors, scale=SCALE, backend=backend)
        first = torch.autograd.grad(out.square(), tensors, grad, create_graph=True)
        chosen = [leaves[i] for i in wanted]
        return torch.autograd.grad(sum(g.square().sum() for g in first), chosen)

    for ours, theirs in zip(results("triton"), results("reference"), strict=True):
        assert_close(ours, theirs, order=2)


# -------------------------------------------------------------------------------------------------- the fused residual


def residual_orders(gamma, dtype, backend):
    """Output, five gradients and six second ones of the fused residual, as a plain list."""
    query, key, value = inputs((2, 3, 17, 17, 18), dtype)
    generator = torch.Generator().manual_seed(2)
    residual = torch.randn(2, 17, 17, dtype=torch.float64, generator=generator).to(dtype).requires_grad_()
    factor = torch.full((1,), gamma, dtype=dtype, requires_grad=True)
    leaves = (query, key, value, residual, factor)
    out = ops.nonlocal_attention_residual(*leaves, scale=SCALE, backend=backend)
    grad = torch.randn(out.shape, dtype=torch.float64, generator=generator).to(dtype).requires_grad_()
    first = torch.autograd.grad(out, leaves, grad, create_graph=True)
    score = sum((g * (g + 1)).sum() for g in first)
    second = torch.autograd.grad(score, (*leaves, grad), allow_unused=True)
    pairs = zip(second, (*leaves, grad), strict=True)
    return [out, *first, *(torch.zeros_like(leaf) if gradient is None else gradient for gradient, leaf in pairs)]


@pytest.mark.parametrize("gamma", [0.0, 0.5, -2.0])
def test_triton_residual_equals_two_steps(gamma, schedule):
    found, expected = (residual_orders(gamma, torch.float64, backend) for backend in ("triton", "reference"))
    for index, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        assert_close(ours, theirs, name=f"result {index}", order=min(index, 2))


def test_triton_residual_without_a_gradient_keeps_nothing(monkeypatch):
    monkeypatch.setattr(_tiles, "lookup", lambda *arguments: ONE_SWEEP)
    query, key, value = (tensor.detach() for tensor in inputs((2, 3, 17, 17, 18), torch.float32))
    residual, gamma = torch.randn(2, 17, 17), torch.full((1,), 0.5)
    monkeypatch.setattr(_triton, "empty_results", None)  # neither O nor L may be made
    out = ops.nonlocal_attention_residual(query, key, value, residual, gamma, backend="triton")
    assert_close(out, ops.nonlocal_attention_residual(query, key, value, residual, gamma, backend="reference"))


def test_triton_residual_keeps_neither_residual_nor_result(monkeypatch):
    monkeypatch.setattr(_tiles, "lookup", lambda *arguments: ONE_SWEEP)
    query, key, value = inputs((1, 3, 5, 17, 18), torch.float32)
    residual, gamma = torch.randn(1, 5, 17), torch.ones(1, requires_grad=True)
    out = ops.nonlocal_attention_residual(query, key, value, residual, gamma, backend="triton")
    residual.zero_()
    out.relu_().sum().backward()
    assert torch.isfinite(query.grad).all()


def test_triton_residual_of_another_dtype_is_added_in_two_steps():
    query, key, value = (tensor.detach() for tensor in inputs((1, 4, 8, 18, 20), torch.float16))
    inputs_ = (query, key, value, torch.randn(1, 8, 18), torch.ones(1))
    sentence = "it serves a residual of value's dtype torch.float16, got torch.float32"
    assert sentence in _triton.residual_reasons(inputs_, (1.0,))


# ------------------------------------------------------------------------------------------------------------- edges


@pytest.mark.parametrize("shape", [(0, 4, 4, 8, 8), (2, 4, 4, 0, 8), (2, 4, 0, 8, 8), (2, 4, 4, 8, 0)], ids=str)
def test_triton_empty_inputs_give_empty_results(shape):
    for ours, theirs in zip(three_orders(inputs(shape), "triton"), three_orders(inputs(shape), "cpu"), strict=True):
        assert_close(ours, theirs)


def test_triton_a_block_of_impossible_keys_does_not_spoil_the_rest(schedule):
    query = torch.full((1, 1, 2), 1e20)
    key = torch.cat((torch.full((1, 1, 70), -1e20), torch.zeros(1, 1, 10)), dim=2)
    out = ops.nonlocal_attention(query, key, torch.ones(1, 1, 80), backend="triton")
    assert_close(out, torch.ones(1, 1, 2))


def test_triton_large_logits_do_not_overflow(schedule):
    query, key = torch.tensor([[[1e4, -1e4]]]), torch.tensor([[[1.0, 2.0, -1.0]]])
    out = ops.nonlocal_attention(query, key, torch.tensor([[[10.0, 20.0, 30.0]]]), backend="triton")
    assert_close(out, torch.tensor([[[20.0, 30.0]]]))


def test_triton_writes_every_element_and_changes_no_input(schedule):
    tensors = inputs((2, 3, 17, 17, 18), torch.float32)
    before = [tensor.detach().clone() for tensor in tensors]
    torch.use_deterministic_algorithms(True)  # fills fresh memory with NaN
    try:
        found = three_orders(tensors, "triton", SCALE)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(tensor.isfinite().all() for tensor in found)
    assert all(torch.equal(tensor, kept) for tensor, kept in zip(tensors, before, strict=True))


# --------------------------------------------------------------------------------------------------------- the choices


@pytest.mark.parametrize(("asked", "precision"), [("highest", "tf32x3"), ("high", "tf32"), ("medium", "tf32")])
def test_triton_products_follow_the_precision_that_torch_is_set_to(asked, precision):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(asked)
    try:
        assert _triton.precision_of(torch.float32) == precision
    finally:
        torch.set_float32_matmul_precision(before)


def test_triton_products_follow_the_newer_switch_as_well():
    switch = torch.backends.cuda.matmul
    before = switch.fp32_precision
    try:
        switch.fp32_precision = "tf32"
        assert _triton.precision_of(torch.float32) == "tf32"
        switch.fp32_precision = "ieee"
        assert _triton.precision_of(torch.float32) == "tf32x3"
    finally:
        switch.fp32_precision = before


def test_triton_atomic_sums_are_left_out_where_results_must_be_deterministic(monkeypatch):
    monkeypatch.setattr(_tiles, "lookup", lambda *arguments: SCHEDULES["atomics"])
    call = _triton.Call(*inputs((1, 4, 4, 8, 8)), 1.0)
    assert call.atomics
    torch.use_deterministic_algorithms(True)
    try:
        assert not call.atomics
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [
        ((1, 129, 4, 2, 2), "it serves at most 128 key channels, got 129"),
        ((1, 4, 513, 2, 2), "it serves at most 512 value channels, got 513"),
        ((65536, 1, 1, 1, 1), "it serves batches of at most 65535, got 65536"),
    ],
    ids=str,
)
def test_triton_says_what_it_does_not_serve(shape, sentence):
    with pytest.raises(ValueError, match=sentence):
        ops.nonlocal_attention(*inputs(shape), backend="triton")
