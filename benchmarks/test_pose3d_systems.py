"""System 002: inference and a step of adversarial losses, beside the same networks written the usual way."""

import functools

import pose3d_systems
import pytest

from fastpose.benchmark import orders
from fastpose.benchmark.cases import Work

count = functools.cache(pose3d_systems.flop)


@pytest.mark.parametrize(
    ("order", "provider"), [(order, provider) for order, each in pose3d_systems.PROVIDERS.items() for provider in each]
)
@pytest.mark.parametrize("size", pose3d_systems.SIZES, ids=lambda size: size.name)
@pytest.mark.parametrize("device", orders.devices())
def test_system_002(timed, limits, results, device, size, order, provider):
    labels = {"operation": "system 002", "size": size.name, "device": device, "dtype": "float32", "order": order}
    floor = limits.floor(device, "float32", Work(count(size, order)))
    difference = pose3d_systems.difference(size, device, provider, order)
    assert difference <= pose3d_systems.LIMIT
    measured = {"floor_s": floor, "difference": difference}
    call = pose3d_systems.build(size, device, provider).call(order)
    results["timings"].append({**labels, "provider": provider, **timed(call), **measured})
