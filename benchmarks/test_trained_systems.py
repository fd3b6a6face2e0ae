"""Systems 001, 003 and 004: inference and a whole step of their trainers, time and memory, beside the usual way."""

import functools

import pytest
import trained_systems
import whole_systems

from fastpose.benchmark import orders

count = functools.cache(trained_systems.flop)
each_way = pytest.mark.parametrize(
    ("order", "provider"), [(order, provider) for order, ways in whole_systems.WAYS.items() for provider in ways]
)
each_size = pytest.mark.parametrize("size", trained_systems.SIZES, ids=lambda size: size.name)
each_device = pytest.mark.parametrize("device", orders.devices())


@each_way
@each_size
@each_device
def test_trained_systems(timed, limits, results, device, size, order, provider):
    job = (trained_systems, size, device, order, provider)
    results["timings"].append(whole_systems.time(*job, timed=timed, limits=limits, work=count(size, order)))


@each_way
@each_size
@each_device
def test_memory_of_trained_systems(benchmark, results, device, size, order, provider):
    job = (trained_systems, size, device, order, provider)
    record = benchmark.pedantic(whole_systems.in_subprocess, job, rounds=1)
    results["memory" if "extra_bytes" in record else "skipped"].append(record)
    if "reason" in record:
        pytest.skip(record["reason"])
