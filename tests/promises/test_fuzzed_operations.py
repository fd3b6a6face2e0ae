"""Promise 28 by chance: every random call ends in the reference's answer or in a sentence, and in neither's crash."""

from __future__ import annotations

import os
from typing import Any

import op_fuzz
import pytest
import torch
from comparing import assert_close
from op_fuzz import Call, Draw
from torch import Tensor

from fastpose import _native, ops

if _native.missing():
    pytest.skip(_native.missing(), allow_module_level=True)

TERMS = 4.0  # the largest of the numbers whose sums cancel
FEW, MANY = 120, int(os.environ.get("FASTPOSE_TESTS_FUZZ", "10000"))
"""Random calls of each operation: in the fast suite, and in the slow one, where the variable says another number."""
REFUSED = (TypeError, ValueError)


def outcome(call: Call, backend: str) -> tuple[Tensor, ...] | Exception:
    """The results, or the exception; anything but a refusal is a failure here."""
    try:
        results = call.run(backend)
    except REFUSED as refusal:
        return refusal
    except (RuntimeError, MemoryError) as error:  # torch's own of sizes that no memory has
        if call.huge:
            return error
        raise
    return results if isinstance(results, tuple) else (results,)


def agree(found: Any, expected: Any, call: Call, *, unserved: bool) -> bool:
    """Whether both are results, which are then compared; else both are refusals, or the first one of an odd address."""
    if isinstance(found, Exception) or isinstance(expected, Exception):
        at_the_door = isinstance(found, ValueError) and str(found).startswith("tensor: expected")
        assert (at_the_door and unserved) or type(found) is type(expected), f"{found!r}, the reference: {expected!r}"
        return False
    for index, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert (one.dtype, one.shape) == (other.dtype, other.shape), f"result {index}"
        if call.exact and one.device.type == "cpu":
            assert_close(one, other, name=f"result {index}", scale=TERMS)
    return True


def derivatives(results: tuple[Tensor, ...], leaves: list[Tensor], twice: bool) -> list[Tensor]:
    """Gradients of a sum of squares, and now and then of the sum of their squares."""
    total = sum(result.square().sum() for result in results if result.requires_grad)
    first = torch.autograd.grad(total, leaves, create_graph=twice, allow_unused=True)
    found = [gradient for gradient in first if gradient is not None]
    reached = [gradient.square().sum() for gradient in found if twice and gradient.requires_grad]
    second = torch.autograd.grad(sum(reached), leaves, allow_unused=True) if reached else ()
    return found + [gradient for gradient in second if gradient is not None]


def check(name: str, number: int) -> str:
    """Make one call with both backends; how it ended."""
    draw = Draw(f"{name} {number}")
    call = op_fuzz.CALLS[name](draw)
    out = call.keywords.get("out")
    before = [(tensor, tensor.clone()) for tensor in call.tensors() if tensor is not out and op_fuzz.readable(tensor)]
    found = outcome(call, "auto")
    for tensor, kept in before:
        assert torch.allclose(tensor, kept, rtol=0, atol=0, equal_nan=True), "an argument was changed"
    if call.huge:
        return "huge"
    found = tuple(result.clone() for result in found) if isinstance(found, tuple) else found  # out= is written again
    expected = outcome(call, "reference")
    if not agree(found, expected, call, unserved=draw.unserved):
        return "refused"
    leaves = [tensor for tensor in call.tensors() if tensor.requires_grad and tensor.is_leaf]
    if not leaves or not any(result.requires_grad for result in found):
        return "served"
    twice = draw.chance(0.15)
    pairs = [derivatives(results, leaves, twice) for results in (found, expected)]
    for index, (one, other) in enumerate(zip(*pairs, strict=False)):
        assert (one.dtype, one.shape) == (other.dtype, other.shape), f"gradient {index}"
        if call.exact and not draw.wild and not draw.strange and call.wide():
            assert_close(one, other, name=f"gradient {index}", order=2, scale=1.0)
    return "derived"


def check_all(name: str, numbers) -> dict[str, int]:
    ends: dict[str, int] = {}
    for number in numbers:
        try:
            end = check(name, number)
        except Exception as error:
            raise AssertionError(f"{name} {number}: {error}") from error
        ends[end] = ends.get(end, 0) + 1
    assert min(ends.get(end, 0) for end in ("served", "refused")) > len(numbers) // 20, f"{name}: {ends}"
    return ends


def test_promise_28_every_operation_is_called_at_random():
    tried = {make(Draw("0")).function for make in op_fuzz.CALLS.values()}
    without_kernels = {"attention_rows", "explain", "operations"}
    assert {name for name in ops.__all__ if getattr(ops, name) not in tried} == without_kernels


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("name", op_fuzz.CALLS)
def test_promise_28_random_calls_end_in_the_right_answer_or_a_sentence(name):
    check_all(name, range(FEW))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("name", op_fuzz.CALLS)
def test_promise_28_ten_thousand_random_calls(name):
    check_all(name, range(MANY))
