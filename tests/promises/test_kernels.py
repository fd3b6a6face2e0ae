"""Promise 28: the extension does not crash, whatever it is called with, from where and in which process."""

from __future__ import annotations

import pytest
import torch
from entry_points import (
    ALONE,
    DIRECT,
    KERNELS,
    MODULE,
    REFUSALS,
    SCALARS,
    other_layouts,
    wrong_sizes,
    wrong_tensors,
)
from torch import Tensor

from fastpose import _native, ops
from fastpose.metrics.two_sample import neighbours

if _native.missing():
    pytest.skip(_native.missing(), allow_module_level=True)

extension = _native.module()
PLACES = [getattr(extension, name) for name in ("cpu", "cuda") if hasattr(extension, name)]


# ------------------------------------------------------------------------------------------------------ entry points


def functions(module) -> set[str]:
    return {name for name in dir(module) if callable(getattr(module, name)) and not name.startswith("__")}


def test_promise_28_every_entry_point_is_tried():
    for place in PLACES:
        assert functions(place) <= set(KERNELS)
    assert functions(extension.cpu) == set(KERNELS)
    assert functions(extension.direct) == set(DIRECT)
    assert functions(extension) <= set(MODULE)


def serves(name: str) -> bool:
    return not name.endswith("_bf16") or extension.cpu.attention_serves_bf16()


@pytest.mark.parametrize("name", KERNELS)
def test_promise_28_every_entry_point_serves_a_right_call(name):
    if not serves(name):
        pytest.skip("this processor has no AMX")
    arguments = KERNELS[name]()
    before = KERNELS[name]()
    getattr(extension.cpu, name)(*arguments)
    changed = [not torch.equal(arguments[index], before[index]) for index in tensors(before)]
    assert any(changed) or not changed


def call(function, arguments):
    """The result, or the refusal."""
    try:
        return function(*arguments)
    except REFUSALS as refusal:
        return refusal


def refuse(function, arguments, case: str) -> None:
    """The call raises, and has written nothing."""
    before = [given.clone() if is_plain(given) else None for given in arguments]
    assert isinstance(call(function, arguments), REFUSALS), f"{case}: was taken"
    for index, (now, then) in enumerate(zip(arguments, before, strict=True)):
        assert then is None or now.equal(then), f"{case}: argument {index} was written to"


def is_plain(given) -> bool:
    """Whether there is memory to compare."""
    return (
        isinstance(given, Tensor)
        and given.device.type == "cpu"
        and given.layout == torch.strided
        and (given.numel() < 2**20 and given.untyped_storage().nbytes() > 0)
    )


def tensors(arguments):
    return [index for index, given in enumerate(arguments) if isinstance(given, Tensor)]


@pytest.mark.parametrize("name", KERNELS)
def test_promise_28_entry_points_refuse_wrong_tensors_before_they_write(name):
    function = getattr(extension.cpu, name)
    for index in tensors(KERNELS[name]()):
        for kind, wrong in wrong_tensors(KERNELS[name]()[index]):
            if kind == "torch.float16" and (name, index) in ALONE:
                continue
            arguments = KERNELS[name]()
            arguments[index] = wrong
            refuse(function, arguments, f"{name}, argument {index}: {kind}")


@pytest.mark.parametrize("name", KERNELS)
def test_promise_28_entry_points_refuse_sizes_that_do_not_fit(name):
    function = getattr(extension.cpu, name)
    for index in tensors(KERNELS[name]()):
        for axis, wrong in wrong_sizes(KERNELS[name]()[index]):
            arguments = KERNELS[name]()
            arguments[index] = wrong
            if (name, index) in ALONE and axis >= wrong.dim() - 2 and wrong.shape[axis]:
                function(*arguments)
            else:
                refuse(function, arguments, f"{name}, argument {index}: {tuple(wrong.shape)}")


@pytest.mark.parametrize("name", KERNELS)
def test_promise_28_entry_points_take_or_refuse_any_layout_and_scalar(name):
    function = getattr(extension.cpu, name)
    for index, given in enumerate(KERNELS[name]()):
        others = [other for _, other in other_layouts(given)] if isinstance(given, Tensor) else SCALARS
        for other in others:
            arguments = KERNELS[name]()
            arguments[index] = other
            call(function, arguments)


@pytest.mark.parametrize("name", KERNELS)
def test_promise_28_entry_points_refuse_another_number_of_arguments(name):
    arguments = KERNELS[name]()
    for wrong in (arguments[:-1], [*arguments, 1], [*arguments, None]) if arguments else ([1], [None]):
        with pytest.raises(TypeError, match="incompatible function arguments"):
            getattr(extension.cpu, name)(*wrong)


@pytest.mark.parametrize("name", DIRECT)
def test_promise_28_calls_in_one_step_leave_what_is_wrong_to_the_long_way(name):
    function = getattr(extension.direct, name)
    assert function(*DIRECT[name]()) is not None
    for index, given in enumerate(DIRECT[name]()):
        if isinstance(given, Tensor):
            refused = [wrong for kind, wrong in wrong_tensors(given) if kind not in MAY_DIFFER]
            tried = [*(other for _, other in other_layouts(given)), *(wrong for _, wrong in wrong_sizes(given))]
        else:
            refused, tried = [], [*SCALARS]
        for wrong in refused:
            arguments = DIRECT[name]()
            arguments[index] = wrong
            found = call(function, arguments)
            assert found is None or isinstance(found, TypeError), f"{name}, argument {index}: {wrong}"
        for other in tried:
            arguments = DIRECT[name]()
            arguments[index] = other
            call(function, arguments)


# Other ranks and types that some calls serve: stacks, spatial axes, planes of 16 bits, a weight for each sample.
MAY_DIFFER = ("rank + 1", "rank - 1", "torch.float16", "torch.float64")


@pytest.mark.parametrize("name", sorted(functions(extension)))
def test_promise_28_functions_of_the_module_take_or_refuse_anything(name):
    function, arguments = getattr(extension, name), MODULE[name]()
    function(*arguments)
    for index in range(len(arguments)):
        for other in SCALARS:
            if name != "multiply_add" or not isinstance(other, int) or other < 2**31:  # it would run for years
                call(function, [*arguments[:index], other, *arguments[index + 1 :]])


# ---------------------------------------------------------------------------------------------------- lazily kept signs


def test_promise_28_memory_that_holds_the_other_sign_is_not_taken_for_the_numbers():
    points, rows = torch.tensor([[[2.0, 1.0]]]), torch.randn(5, 3, 2)
    out = torch._neg_view(torch.ones(1, 1, 3, 4))
    found = ops.render_gaussian_heatmaps(points, (3, 4), 1.0, out=out)
    assert torch.equal(found, ops.render_gaussian_heatmaps(points, (3, 4), 1.0))
    with pytest.raises(ValueError, match="the negative bit"):
        ops.render_gaussian_heatmaps(points, (3, 4), 1.0, out=out, backend="cpu")
    turned = neighbours(torch._neg_view(rows), rows.flip(0)).real_to_fake[0]
    assert torch.equal(turned, neighbours(-rows, rows.flip(0)).real_to_fake[0])
