"""System 002: inference and an adversarial training step, beside the same networks written the usual way."""

import functools

import orders
import pose3d_systems
import pytest
from cases import Work
from results_file import REFERENCE

count = functools.cache(pose3d_systems.flop)


@pytest.mark.parametrize("provider", [REFERENCE, "fastpose"])
@pytest.mark.parametrize("order", ["forward", "training step"])
@pytest.mark.parametrize("size", pose3d_systems.SIZES, ids=lambda size: size.name)
@pytest.mark.parametrize("device", orders.devices())
def test_system_002(timed, limits, results, device, size, order, provider):
    labels = {"operation": "system 002", "size": size.name, "device": device, "dtype": "float32", "order": order}
    floor = limits.floor(device, "float32", Work(count(size, order)))
    call = pose3d_systems.build(size, device, provider).call(order)
    results["timings"].append({**labels, "provider": provider, **timed(call), "floor_s": floor})
