"""Empty, huge and broken inputs, and the memory that attention may take."""

import math
import subprocess
import sys

import pytest
import torch
from attention_cases import inputs, three_orders
from comparing import assert_close

from fastpose import ops


@pytest.mark.parametrize("shape", [(0, 4, 4, 8, 8), (2, 4, 4, 0, 8), (2, 4, 0, 8, 8)], ids=str)
def test_empty_inputs_give_empty_results(shape):
    for tensor, expected in zip(
        three_orders(inputs(shape), "cpu"), three_orders(inputs(shape), "reference"), strict=True
    ):
        assert tensor.shape == expected.shape
        assert_close(tensor, expected)


def test_no_keys_give_zeros():
    out = ops.nonlocal_attention(torch.randn(1, 4, 6), torch.randn(1, 4, 0), torch.randn(1, 3, 0), backend="cpu")
    assert torch.equal(out, torch.zeros(1, 3, 6))


def test_large_logits_do_not_overflow():
    query = torch.tensor([[[1e4, -1e4]]])
    key = torch.tensor([[[1.0, 2.0, -1.0]]])
    value = torch.tensor([[[10.0, 20.0, 30.0]]])
    assert_close(ops.nonlocal_attention(query, key, value, backend="cpu"), torch.tensor([[[20.0, 30.0]]]))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_non_finite_numbers_are_not_hidden(bad):
    query, key, value = (tensor.detach() for tensor in inputs((1, 4, 4, 60, 150), torch.float32))
    query[0, 1, 3] = bad
    out = ops.nonlocal_attention(query, key, value, backend="cpu")
    expected = ops.nonlocal_attention(query, key, value, backend="reference")
    assert torch.equal(torch.isfinite(out), torch.isfinite(expected))
    assert not torch.isfinite(out[0, :, 3]).any()


def test_inputs_are_never_changed():
    tensors = inputs((2, 4, 6, 50, 60), torch.float32)
    before = [tensor.detach().clone() for tensor in tensors]
    three_orders(tensors, "cpu")
    assert all(torch.equal(tensor, kept) for tensor, kept in zip(tensors, before, strict=True))


def test_same_inputs_give_the_same_bits():
    first, second = (three_orders(inputs((2, 8, 16, 200, 300), torch.float32), "cpu") for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_concurrent_calls_from_threads():
    from concurrent.futures import ThreadPoolExecutor

    tensors = [tensor.detach() for tensor in inputs((2, 8, 16, 200, 200), torch.float32)]
    expected = ops.nonlocal_attention(*tensors, backend="cpu")
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: ops.nonlocal_attention(*tensors, backend="cpu"), range(16)))
    assert all(torch.equal(result, expected) for result in results)


MEMORY = """
import resource, torch
from fastpose import ops
torch.set_num_threads(2)
q, k, v = (torch.randn(1, c, 4096, requires_grad=True) for c in (32, 32, 256))
go = torch.randn(1, 256, 4096)
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
def run(order, q, k, v, go):
    out = ops.nonlocal_attention(q, k, v, backend="cpu")
    if order == 0: return out
    first = torch.autograd.grad(out, (q, k, v), go, create_graph=order == 2)
    if order == 1: return first
    return first, torch.autograd.grad(sum(g.square().sum() for g in first), (q, k, v))
warm = [t.detach()[..., :64].clone().requires_grad_() for t in (q, k, v)]
run(2, *warm, go[..., :64])
for order, kept in ((0, 4.0), (1, 9.0), (2, 9.0 + 9.0 + 4.0 + 9.0)):  # MB of results and saved tensors
    before = peak(); keep = run(order, q, k, v, go); print(order, peak() - before - kept); del keep
"""


def test_extra_memory_is_far_below_one_map():
    """Beyond inputs, outputs and saved tensors at most 8 MB in each order; one 4096 x 4096 map would be 64 MB."""
    output = subprocess.run([sys.executable, "-P", "-c", MEMORY], capture_output=True, text=True, check=True).stdout
    extra = {int(line.split()[0]): float(line.split()[1]) for line in output.splitlines()}
    assert set(extra) == {0, 1, 2}
    assert max(extra.values()) <= 8.0, f"MB beyond inputs, results and saved tensors, by order: {extra}"
