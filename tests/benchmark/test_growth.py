"""Growth: fitted powers, curves of tiny sizes, and their pictures."""

from __future__ import annotations

import pytest

from fastpose.benchmark import cases, growth, machine, orders, results_file, summary
from fastpose.benchmark.run import Run
from fastpose.visual import measurements


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_slope_of_a_power_law_is_its_power(power):
    assert growth.slope([(n, 3.0 * n**power) for n in (2, 4, 8, 16)]) == pytest.approx(power)


def test_slope_looks_at_the_larger_half_only():
    points = [(1, 5.0), (2, 5.0), (4, 5.0), (8, 10.0), (16, 40.0), (32, 160.0)]  # flat, then quadratic
    assert growth.slope(points) == pytest.approx(2.0)
    assert growth.slope(list(reversed(points))) == pytest.approx(2.0)


def test_a_slope_needs_two_points():
    assert growth.slope([(1, 1.0)]) is None
    assert growth.slope([(1, 1.0), (2, 2.0)]) is None


def test_positions_are_maps_as_square_as_they_can_be():
    assert [growth.side(n) for n in (256, 512, 8192, 16384)] == [(16, 16), (16, 32), (64, 128), (128, 128)]
    assert all(growth.side(n)[0] * growth.side(n)[1] == n for n in growth.POSITIONS)


def test_every_growth_has_cases_with_its_order():
    for one in (*growth.attention(), *growth.others()):
        assert one.order in one.case(one.values[0]).work
        assert list(one.values) == sorted(one.values)


SMALL = growth.Growth(
    "pairwise_descriptor", "batch", "4 joints", (1, 2, 4), lambda b: cases.descriptor(b, 4), cases.FORWARD
)


@pytest.fixture
def empty(monkeypatch) -> Run:
    """A run with nothing in it."""
    monkeypatch.setattr(orders, "backends", lambda case: ("reference", "cpu"))
    run = Run("fastpose bench --growth", seconds=0.0, turns=2)
    monkeypatch.setattr(run.limits, "floor", lambda *_, **__: 1e-9)
    return run


@pytest.fixture
def run(empty) -> Run:
    """A run with the growth of three tiny descriptors in it."""
    growth.time(empty, SMALL)
    return empty


def test_curves_of_each_way_and_of_the_limit_are_recorded(run):
    content = run.finish()
    results_file.check(content)
    curves = {curve["provider"]: curve for curve in content["growth"]}
    assert {"reference", "cpu", "broadcast", "limit"} <= set(curves)
    assert [x for x, _ in curves["cpu"]["points"]] == [1, 2, 4]
    assert curves["limit"]["slope"] == pytest.approx(0.0)
    assert "pairwise_descriptor" in "\n".join(summary.growth(content["growth"]))


@pytest.mark.parametrize("points", [1, 2])
def test_a_curve_that_is_interrupted_keeps_its_points(empty, points):
    left = iter(range(points - 1))

    def interrupt(done):
        if next(left, None) is None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        growth.time(empty, SMALL, interrupt)
    content = empty.finish()
    results_file.check(content)
    assert {len(curve["points"]) for curve in content["growth"]} == {points}


def test_growth_is_drawn(run, tmp_path, monkeypatch):
    draw, drawn = measurements._growth, []
    monkeypatch.setattr(measurements, "_growth", lambda axis, mine: (drawn.append(len(mine)), draw(axis, mine)))
    curves = run.content["growth"]
    interrupted = {**curves[0], "size": "5 joints", "points": [[1, 2.0]], "slope": None}
    path = measurements.plot_growth([curves[0], interrupted, *curves[1:]], tmp_path / "new" / "a.png", title="machine")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert drawn == [len(curves), 1]
    with pytest.raises(ValueError, match="curves: expected at least one"):
        measurements.plot_growth([], tmp_path / "b.png")


def test_memory_is_a_curve_per_way_without_the_sizes_that_do_not_fit(run, monkeypatch):
    def records(device, provider, *sizes, orders):
        labels = {"operation": "nonlocal_attention", "device": device, "dtype": "float32", "provider": provider}
        found = [{**labels, "size": str(size), "order": order} for size in sizes for order in orders]
        fits = [provider == "cpu" or size[3][0] < 64 for size in sizes for _ in orders]
        results = [{"extra_bytes": 5} if fit else {"reason": "too large"} for fit in fits]
        return [{**labels, **result} for labels, result in zip(found, results, strict=True)]

    monkeypatch.setattr(growth.memory, "in_subprocess", records)
    curves = growth.attention_memory(run)
    assert len(curves) == len(growth.MEMORY_WAYS) * len(growth.FIRST)
    last = {curve["provider"]: curve["points"][-1] for curve in curves}
    assert last["cpu"] == [16384, 5]
    assert last["reference"] == [2048, 5]
    assert {skip["reason"] for skip in run.content["skipped"]} >= {"too large"}
    results_file.check(run.finish())


def test_a_way_whose_maps_do_not_fit_is_left_out_of_its_curve(run, monkeypatch):
    monkeypatch.setattr(machine, "free_bytes", lambda device: 2 * 3 * 4 * 20.0**2)
    words = growth.Growth(
        "nonlocal_attention", "N", "", (16, 64), lambda n: cases.attention(1, 2, 2, growth.side(n)), cases.FORWARD
    )
    curves = {curve["provider"]: curve["points"] for curve in growth.time(run, words)}
    assert [x for x, _ in curves["reference"]] == [16]
    assert [x for x, _ in curves["cpu"]] == [16, 64]
