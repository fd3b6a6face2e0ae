"""Systems 000 to 004: inference and a training step, time and memory, beside the same networks in plain PyTorch."""

import functools

import pose3d_systems
import pytest
import systems
import trained_systems
import whole_systems

from fastpose.benchmark import orders

MODULES = (systems, pose3d_systems, trained_systems)
PARTS = [
    (module, size, order) for module in MODULES for size in module.SIZES for order in whole_systems.orders_of(size)
]
each_part = pytest.mark.parametrize(
    ("system", "size", "order"), PARTS, ids=lambda value: getattr(value, "name", getattr(value, "__name__", str(value)))
)
each_device = pytest.mark.parametrize("device", orders.devices())


@functools.cache
def count(system, size, order):
    return getattr(system, "flop", functools.partial(whole_systems.flop, system))(size, order)


@each_part
@each_device
def test_system(both_orders, limits, results, device, system, size, order):
    work = count(system, size, order)
    measured = whole_systems.time(system, size, device, order, both_orders=both_orders, limits=limits, work=work)
    results["timings"] += measured


@each_part
@each_device
def test_memory_of_system(benchmark, results, device, system, size, order):
    for record in benchmark.pedantic(whole_systems.in_subprocess, (system, size, device, order), rounds=1):
        results["memory" if "extra_bytes" in record else "skipped"].append(record)
