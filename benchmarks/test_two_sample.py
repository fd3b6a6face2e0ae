"""The two-sample test of system 004, beside plain PyTorch."""

from functools import partial

import pytest
import two_sample

from fastpose.benchmark import orders
from fastpose.benchmark.cases import FORWARD
from fastpose.benchmark.limits import clock
from fastpose.benchmark.results_file import REFERENCE


@pytest.mark.parametrize("device", orders.devices())
def test_two_sample(both_orders, limits, results, device):
    size = next(iter(two_sample.POSES))
    sets = two_sample.poses(two_sample.POSES[size], device)
    floor = limits.floor(device, "float32", two_sample.work(len(sets[0])))
    found = {name: test(*sets) for name, test in two_sample.TESTS.items()}
    measured = both_orders({name: partial(test, *sets) for name, test in two_sample.TESTS.items()})
    for name, numbers in measured.items():
        difference = abs(found[name] - found[REFERENCE])
        assert difference <= two_sample.TOLERANCE
        record = labels(size, device, name) | numbers | {"floor_s": floor, "difference": difference}
        results["timings"].append(record)


@pytest.mark.parametrize("device", orders.devices())
def test_two_sample_of_the_published_size(benchmark, limits, results, device):
    sets = two_sample.poses(two_sample.POSES[two_sample.ONCE], device)
    floor = limits.floor(device, "float32", two_sample.work(len(sets[0])))
    start = clock()
    benchmark.pedantic(two_sample.TESTS["fastpose"], sets, rounds=1)
    seconds = clock() - start
    once = {"median_s": seconds, "q1_s": seconds, "q3_s": seconds, "rounds": 1, "iterations": 1}
    results["timings"].append({**labels(two_sample.ONCE, device, "fastpose"), **once, "floor_s": floor})


def labels(size: str, device: str, provider: str) -> dict:
    """Return what names the test in a result file."""
    names = {"operation": two_sample.TEST, "size": size, "device": device, "dtype": "float32"}
    return names | {"order": FORWARD, "provider": provider}
