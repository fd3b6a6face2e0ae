"""System 004: updates of critic and generator, their memory, and the two-sample test, beside plain PyTorch."""

import functools

import caption_systems
import pytest

from fastpose.benchmark import orders
from fastpose.benchmark.cases import FORWARD, Work
from fastpose.benchmark.limits import clock

count = functools.cache(caption_systems.flop)


@pytest.mark.parametrize("provider", caption_systems.PROVIDERS)
@pytest.mark.parametrize("update", caption_systems.UPDATES)
@pytest.mark.parametrize("size", caption_systems.SIZES, ids=lambda size: size.name)
@pytest.mark.parametrize("device", orders.devices())
def test_system_004(timed, limits, results, device, size, update, provider):
    labels = {"operation": caption_systems.OPERATION, "size": size.label(update), "device": device}
    labels |= {"dtype": "float32", "order": caption_systems.STEP, "provider": provider}
    difference = caption_systems.difference(size, device, provider, update)
    assert difference <= caption_systems.LIMIT
    trained = caption_systems.build(size, device, provider)
    floor = limits.floor(device, "float32", Work(count(size, update)))
    measured = {**timed(lambda: trained.update(update)), "floor_s": floor, "difference": difference}
    results["timings"].append({**labels, **measured})


@pytest.mark.parametrize("provider", caption_systems.PROVIDERS)
@pytest.mark.parametrize("update", caption_systems.UPDATES)
@pytest.mark.parametrize("size", caption_systems.SIZES, ids=lambda size: size.name)
@pytest.mark.parametrize("device", orders.devices())
def test_memory_of_system_004(benchmark, results, device, size, update, provider):
    record = benchmark.pedantic(caption_systems.in_subprocess, (device, provider, size, update), rounds=1)
    results["memory" if "extra_bytes" in record else "skipped"].append(record)
    if "reason" in record:
        pytest.skip(record["reason"])


@pytest.mark.parametrize("provider", caption_systems.PROVIDERS)
@pytest.mark.parametrize("device", orders.devices())
def test_two_sample(timed, limits, results, device, provider):
    size = next(iter(caption_systems.POSES))
    sets, labels = labelled(size, device, provider)
    floor = limits.floor(device, "float32", caption_systems.work(len(sets[0])))
    difference = abs(caption_systems.TESTS[provider](*sets) - usual(size, device))
    assert difference <= caption_systems.TOLERANCE
    measured = {**timed(lambda: caption_systems.TESTS[provider](*sets)), "floor_s": floor, "difference": difference}
    results["timings"].append({**labels, **measured})


@pytest.mark.parametrize("device", orders.devices())
def test_two_sample_of_the_published_size(benchmark, limits, results, device):
    sets, labels = labelled(caption_systems.ONCE, device, "fastpose")
    floor = limits.floor(device, "float32", caption_systems.work(len(sets[0])))
    start = clock()
    benchmark.pedantic(caption_systems.TESTS["fastpose"], sets, rounds=1)
    seconds = clock() - start
    once = {"median_s": seconds, "q1_s": seconds, "q3_s": seconds, "rounds": 1, "iterations": 1}
    results["timings"].append({**labels, **once, "floor_s": floor})


def labelled(size: str, device: str, provider: str) -> tuple:
    """Return the poses of a size, and what names the test in a result file."""
    labels = {"operation": caption_systems.TEST, "size": size, "device": device, "dtype": "float32"}
    labels |= {"order": FORWARD, "provider": provider}
    return caption_systems.poses(caption_systems.POSES[size], device), labels


@functools.cache
def usual(size: str, device: str) -> float:
    """Return the accuracy that the usual way finds."""
    return caption_systems.usual_accuracy(*caption_systems.poses(caption_systems.POSES[size], device))
