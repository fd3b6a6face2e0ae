"""One run: both orders, instruction sets and number types, refusals, and the content of the result file."""

from __future__ import annotations

import pytest
import torch

from fastpose import _native
from fastpose.benchmark import cases, limits, machine, orders, results_file, summary, timing
from fastpose.benchmark.run import Run, command

SMALL = cases.attention(1, 4, 8, (4, 4), orders=(cases.FORWARD, cases.PENALTY), also=(cases.AVX2,))


@pytest.fixture
def run(monkeypatch) -> Run:
    """A run whose machine has round limits."""
    monkeypatch.setattr(orders, "backends", lambda case: ("reference", "cpu", "cudda"))
    monkeypatch.setattr(limits, "matrix_product", lambda device, dtype, **_: 1e9)
    monkeypatch.setattr(limits, "multiply_add", lambda: 4e9 if _native.build_info()["simd"] != "avx2" else 2e9)
    return Run("fastpose bench", seconds=0.0)


def test_ways_run_first_to_last_and_last_to_first(monkeypatch):
    monkeypatch.setattr(timing, "WARM_SECONDS", 0.0)
    monkeypatch.setattr(timing, "ROUND_SECONDS", 0.0)
    said = []
    timing.in_both_orders({name: lambda name=name: said.append(name) for name in "abc"}, seconds=0.0)
    assert "".join(said) == "abc" + "abc" + "cba" + "abc" + "cba"  # after one of warm-up each


def test_both_directions_are_recorded(monkeypatch):
    ticks = iter(range(1000))
    monkeypatch.setattr(timing, "clock", lambda: float(next(ticks)))
    found = timing.in_both_orders({"a": lambda: None, "b": lambda: None})
    assert set(found) == {"a", "b"}
    assert found["a"] == {
        "median_s": 1.0,
        "q1_s": 1.0,
        "q3_s": 1.0,
        "rounds": timing.TURNS,
        "iterations": 1,
        "directions_s": [1.0, 1.0],
    }


def test_a_short_call_is_repeated_within_a_round():
    found = timing.in_both_orders({"a": lambda: None}, seconds=0.02)["a"]
    assert found["iterations"] > 100
    assert timing.TURNS <= found["rounds"] <= timing.TURNS * timing.ROUNDS


def test_a_run_records_every_way_of_a_group_and_why_others_are_missing(run):
    for group in orders.groups([SMALL]):
        assert run.measure(group)
    content = run.finish()
    results_file.check(content)
    assert content["format"] == 2
    assert content["command"] == "fastpose bench"
    providers = {timing["provider"] for timing in content["timings"]}
    assert {"reference", "cpu", "sdpa", "sdpa math"} <= providers
    assert {skip["provider"] for skip in content["skipped"]} == {"cudda"}
    assert all(len(timing["directions_s"]) == 2 for timing in content["timings"])
    penalty = next(timing for timing in content["timings"] if timing["order"] == cases.PENALTY)
    assert penalty["floor_s"] == pytest.approx(2 * 16 * 16 * (11 * 4 + 8 * 8) / 4e9)


@pytest.mark.skipif(not machine.has_narrower("avx2"), reason="the kernels do not run at AVX-512 here")
def test_a_narrower_instruction_set_has_its_own_limit_and_is_left_again(run):
    before = _native.build_info()["simd"]
    run.measure(orders.groups([SMALL])[0])
    assert _native.build_info()["simd"] == before
    floors = {timing["provider"]: timing["floor_s"] for timing in run.content["timings"]}
    assert floors[cases.AVX2] == 2 * floors["cpu"]
    assert "multiply-add in avx2 registers" in {limit["name"] for limit in run.content["limits"]}


def test_a_gradient_penalty_is_the_three_orders_together():
    tensors = tuple(tensor.double().requires_grad_() for tensor in SMALL.make("cpu"))
    job = orders.Job(SMALL, "cpu", cases.PENALTY, "reference")
    grad = orders.fixed(SMALL.call(tensors, backend="reference")).requires_grad_()
    found = orders._gradient_penalty(lambda: job.run(tensors), list(tensors), grad)()
    first = torch.autograd.grad(job.run(tensors), tensors, grad, create_graph=True)
    penalty = sum((gradient * orders.fixed(leaf)).sum() for gradient, leaf in zip(first, tensors, strict=True))
    for gradient, expected in zip(found, torch.autograd.grad(penalty, (*tensors, grad)), strict=True):
        torch.testing.assert_close(gradient, expected)


def test_bfloat16_stands_beside_our_float32_on_the_same_numbers():
    case = cases.attention(1, 4, 8, (4, 4), orders=(cases.FORWARD,), dtype="bfloat16", also=(cases.FLOAT32,))
    (group,) = orders.groups([case])
    types = {job.provider: orders.prepare(job)().dtype for job in group if job.provider in ("cpu", cases.FLOAT32)}
    assert types == {"cpu": torch.bfloat16, cases.FLOAT32: torch.float32}


def test_maps_that_do_not_fit_into_the_memory_are_not_tried(run, monkeypatch):
    monkeypatch.setattr(machine, "free_bytes", lambda device: 1000.0)
    run.measure(orders.groups([SMALL])[0])
    assert {timing["provider"] for timing in run.content["timings"]} >= {"cpu", "blocked"}
    reasons = {skip["provider"]: skip["reason"] for skip in run.content["skipped"]}
    assert "of which 50% may be taken" in reasons["reference"]
    assert "N x N maps" in reasons["sdpa"]


def test_nothing_is_begun_once_the_time_is_spent(run):
    run._budget = -1.0
    assert run.measure(orders.groups([SMALL])[0]) == []
    assert all("were spent" in skip["reason"] for skip in run.content["skipped"])


def test_ways_that_stand_aside_are_no_loss():
    labels = {"operation": "op", "size": "s", "device": "cpu", "dtype": "float32", "order": "forward"}
    spread = {"q1_s": 1.0, "q3_s": 1.0, "rounds": 4, "iterations": 1, "floor_s": 0.5}
    seconds = {"reference": 1.0, "cpu": 0.5, cases.AVX2: 2.0, cases.FLOAT32: 3.0}
    found = {"timings": [{**labels, **spread, "provider": name, "median_s": s} for name, s in seconds.items()]}
    summary.complete(found)
    assert "faster in 1 of 1 cases, slower in 0" in "\n".join(summary.verdict(found["timings"]))
    assert not [row for row in summary.rows(found["timings"]) if row[-1] == "slower"]


def test_the_recorded_command_can_be_typed_again(monkeypatch):
    monkeypatch.setenv("FASTPOSE_SIMD", "avx2")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert command(["fastpose", "bench", "a b"]) == "FASTPOSE_SIMD=avx2 fastpose bench 'a b'"
