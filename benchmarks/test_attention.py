"""Attention: every backend and torch's own ways, at the published sizes; and the memory it takes."""

import pytest

from fastpose.benchmark import memory, orders
from fastpose.benchmark.cases import ATTENTION, MAIN, SIZES


@pytest.mark.parametrize("group", orders.groups((*ATTENTION, *SIZES)), ids=orders.named)
def test_attention(measure, group):
    measure(group)


@pytest.mark.parametrize("provider", [*orders.backends(ATTENTION[0]), "sdpa"])
@pytest.mark.parametrize("device", orders.devices())
def test_memory_of_attention(benchmark, results, device, provider):
    records = benchmark.pedantic(memory.in_subprocess, (device, provider, MAIN), rounds=1)
    results["memory"] += [record for record in records if "extra_bytes" in record]
    results["skipped"] += [record for record in records if "reason" in record]
    if not any("extra_bytes" in record for record in records):
        pytest.skip(records[0]["reason"])
