"""Systems 001 and 003: inference by `models.for_inference`, beside the same network written the usual way."""

import functools

import pytest
import transfer_systems

from fastpose.benchmark import orders
from fastpose.benchmark.cases import Work

count = functools.cache(transfer_systems.flop)
build = functools.lru_cache(maxsize=1)(transfer_systems.build)  # the providers of a size follow one another


@pytest.mark.parametrize("provider", transfer_systems.PROVIDERS)
@pytest.mark.parametrize("size", transfer_systems.SIZES, ids=lambda size: size.name)
@pytest.mark.parametrize("device", orders.devices())
def test_transfer(timed, limits, results, device, size, provider):
    labels = {"operation": size.operation, "size": size.name, "device": device, "dtype": "float32", "order": "forward"}
    computed_in = "bfloat16" if provider in transfer_systems.BFLOAT16 else "float32"
    floor = limits.floor(device, computed_in, Work(count(size)))
    built = build(size, device)
    call = built.call(provider)
    difference, share = built.difference(call())
    assert share <= transfer_systems.SHARES.get(provider, 0)
    assert difference <= transfer_systems.LIMIT or computed_in == "bfloat16"
    measured = {**timed(call), "floor_s": floor, "difference": difference}
    results["timings"].append({**labels, "provider": provider, **measured})
