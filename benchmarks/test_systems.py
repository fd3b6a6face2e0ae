"""System 000: inference and a training step, beside the same network written the usual way."""

import functools

import pytest
import systems

from fastpose.benchmark import orders
from fastpose.benchmark.cases import Work
from fastpose.benchmark.results_file import REFERENCE

count = functools.cache(systems.flop)


@pytest.mark.parametrize("provider", [REFERENCE, "fastpose"])
@pytest.mark.parametrize("order", ["forward", "training step"])
@pytest.mark.parametrize("size", systems.SIZES, ids=lambda size: size.name)
@pytest.mark.parametrize("device", orders.devices())
def test_system_000(timed, limits, results, device, size, order, provider):
    labels = {"operation": "system 000", "size": size.name, "device": device, "dtype": "float32", "order": order}
    floor = limits.floor(device, "float32", Work(count(size, order)))
    call = systems.build(size, device, provider).call(order)
    results["timings"].append({**labels, "provider": provider, **timed(call), "floor_s": floor})
