"""The host's part of a call: every operation and backend on tiny tensors."""

import pytest

from fastpose.benchmark import host_cost, orders

BACKENDS = ("auto", "reference", "cpu", "triton", "cuda")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", list(host_cost.calls("cpu", "auto")))
@pytest.mark.parametrize("device", orders.devices())
def test_host_cost(benchmark, results, device, name, backend):
    call = host_cost.calls(device, backend)[name]
    try:
        with orders.reasons():
            call()
    except orders.NotSupported as reason:
        pytest.skip(str(reason))
    found = benchmark.pedantic(host_cost.measure, (call, device), rounds=1, iterations=1)
    results["host_costs"].append({"operation": name, "device": device, "provider": backend, **found})
