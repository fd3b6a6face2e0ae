"""System 000: inference and a training step, time and memory, beside the same networks written the usual way."""

import functools

import pytest
import systems
import whole_systems

from fastpose.benchmark import orders

count = functools.cache(functools.partial(whole_systems.flop, systems))
each_way = pytest.mark.parametrize(
    ("order", "provider"), [(order, provider) for order, ways in whole_systems.WAYS.items() for provider in ways]
)
each_size = pytest.mark.parametrize("size", systems.SIZES, ids=lambda size: size.name)
each_device = pytest.mark.parametrize("device", orders.devices())


@each_way
@each_size
@each_device
def test_system_000(timed, limits, results, device, size, order, provider):
    job = (systems, size, device, order, provider)
    results["timings"].append(whole_systems.time(*job, timed=timed, limits=limits, work=count(size, order)))


@each_way
@each_size
@each_device
def test_memory_of_system_000(benchmark, results, device, size, order, provider):
    job = (systems, size, device, order, provider)
    record = benchmark.pedantic(whole_systems.in_subprocess, job, rounds=1)
    results["memory" if "extra_bytes" in record else "skipped"].append(record)
    if "reason" in record:
        pytest.skip(record["reason"])
