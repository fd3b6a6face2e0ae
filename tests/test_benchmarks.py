"""The benchmarks themselves: cases, other ways, ratios, result files, comparison. Nothing is timed here."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fastpose.benchmark import (
    baselines,
    cases,
    cuda_timing,
    host_cost,
    limits,
    machine,
    memory,
    orders,
    results_file,
    summary,
)

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
REASON = "the tests run without the benchmarks of the checkout"
compare = pytest.importorskip("compare", reason=REASON)
compile_ahead = pytest.importorskip("compile_ahead", reason=REASON)
data_path = pytest.importorskip("data_path", reason=REASON)
gpu_report = pytest.importorskip("gpu_report", reason=REASON)
readme_table = pytest.importorskip("readme_table", reason=REASON)
pose3d_systems = pytest.importorskip("pose3d_systems", reason=REASON)
systems = pytest.importorskip("systems", reason=REASON)
trained_systems = pytest.importorskip("trained_systems", reason=REASON)
two_sample = pytest.importorskip("two_sample", reason=REASON)
whole_systems = pytest.importorskip("whole_systems", reason=REASON)

SMALL = [
    cases.attention(2, 4, 8, (6, 5), orders=(*cases.ORDERS, cases.PENALTY), sdpa_twice=True, also=(cases.AVX2,)),
    cases.attention(1, 4, 8, (6, 4), (3, 2)),
    cases.attention_residual(1, 4, 8, (5, 5)),
    cases.attention_rows(1, 4, (8, 8)),
    cases.render((2, 3, 9, 7), 2.0),
    cases.render((2, 3, 9, 7), 2.0, out=True),
    cases.depth_maps((2, 3, 12, 9), 1.0),
    cases.mse_loss((2, 3, 9, 7), 1.0),
    cases.mse_loss((2, 4, 3, 9, 7), 1.0),
    *(cases.decode((2, 3, 24, 20), method) for method in ("argmax", "quarter", "dark", "softargmax")),
    *(cases.decode_on_one_core((2, 3, 24, 20), method) for method in ("quarter", "dark")),
    cases.flip_average((2, 17, 6, 4)),
    cases.descriptor(3, 5),
    cases.descriptor(3, 5, 2),
]
CPU_JOBS = [job for job in orders.jobs(SMALL) if job.device == "cpu"]
PUBLISHED = (*cases.ATTENTION, *cases.SIZES, *cases.HEATMAP, *cases.GEOMETRY, *cases.GPU)


def timing(provider: str, median: float, **labels) -> dict:
    names = {"operation": "op", "size": "s", "device": "cpu", "dtype": "float32", "order": "forward"} | labels
    spread = {"q1_s": 0.99 * median, "q3_s": 1.01 * median, "rounds": 3, "iterations": 1, "floor_s": 0.5}
    return {**names, "provider": provider, "median_s": median, **spread}


@pytest.fixture
def results() -> dict:
    found = results_file.empty(machine.describe(), [0.1, 0.1, 0.1], "pytest --benchmark-only")
    found["timings"] = [timing("reference", 4.0), timing("cpu", 1.0), timing("sdpa", 3.0), timing("blocked", 2.0)]
    found["limits"] = [{"device": "cpu", "name": "write 1 MiB", "unit": "GB/s", "value": 10.0}]
    labels = {name: found["timings"][0][name] for name in (*summary.NAMES, "provider")}
    found["memory"] = [{**labels, "extra_bytes": 3 * 2**20}]
    found["skipped"] = [{**labels, "reason": "it serves CUDA tensors, got cpu"}]
    summary.complete(found)
    return found


# --------------------------------------------------------------------------------------------------- cases and jobs


def forward_jobs() -> list:
    return [job for job in CPU_JOBS if job.order == cases.FORWARD and job.provider != results_file.REFERENCE]


@pytest.mark.parametrize("job", forward_jobs(), ids=str)
def test_every_way_computes_what_the_reference_does(job):
    tensors = job.case.make("cpu")
    expected = orders.Job(job.case, "cpu", job.order, results_file.REFERENCE).run(tensors).clone()
    try:
        with orders.reasons():
            found = torch.as_tensor(job.run(tensors))
    except orders.NotSupported as reason:
        pytest.skip(str(reason))
    torch.testing.assert_close(found.to(expected), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("job", [job for job in CPU_JOBS if job.order != cases.FORWARD], ids=str)
def test_derivatives_are_finite_wherever_they_are_timed(job):
    try:
        call = orders.prepare(job)
        with orders.reasons():
            gradients = call()
    except orders.NotSupported as reason:
        pytest.skip(str(reason))
    found = [gradient for gradient in gradients if gradient is not None]
    assert found
    assert all(bool(gradient.isfinite().all()) for gradient in found)


def test_a_case_has_a_name_of_its_own():
    names = [(case.operation, case.size, case.dtype, case.device) for case in PUBLISHED]
    assert len(names) == len(set(names))


def test_every_operation_is_benchmarked():
    from fastpose import ops

    timed = {case.operation for case in PUBLISHED}
    assert set(ops.operations()) <= timed


def test_every_backend_of_the_table_is_a_provider():
    case = cases.ATTENTION[0]
    providers = {job.provider for job in orders.jobs([case])}
    assert {"reference", "cpu", "sdpa", "blocked"} <= providers
    assert orders.backends(case)[0] == "reference"


def test_ways_for_a_gpu_compute_what_the_reference_does():
    """On the CPU, whose SDPA has two of the four kernels; the compiler changes nothing."""
    case = cases.attention_on_gpu(2, 16, 16, 5)
    tensors = case.make("cpu")
    expected = case.call(tensors, backend="reference")
    ways = {
        "naive": baselines.attention_naive,
        "flash": case.others["sdpa flash"],
        "math": case.others["sdpa math"],
        "compiled": baselines.Compiled(baselines.attention_naive, "eager"),
    }
    for name, way in ways.items():
        torch.testing.assert_close(way(tensors), expected, msg=lambda text, name=name: f"{name}: {text}")
    with pytest.raises(NotImplementedError):
        case.others["sdpa flash"]((*tensors[:2], torch.cat((tensors[2], tensors[2]), dim=1)))
    render = cases.render_on_gpu((2, 3, 9, 7), 2.0)
    points = render.make("cpu")
    drawn = render.others["numpy + copy"](points)
    torch.testing.assert_close(drawn, render.call(points, backend="reference"), rtol=1e-4, atol=1e-5)


def test_padded_flash_computes_what_the_reference_does():
    case = cases.attention_on_gpu(2, 16, 8, 5, dtype="bfloat16")
    tensors = tuple(tensor.float() for tensor in case.make("cpu"))
    found = case.others["sdpa flash padded"](tensors)
    torch.testing.assert_close(found, case.call(tensors, backend="reference"))


def test_padded_flash_is_a_rival_only_where_flash_can_take_it():
    having = {(case.dtype, case.size) for case in cases.GPU_ATTENTION if "sdpa flash padded" in case.others}
    halves = [case for case in cases.GPU_ATTENTION if case.dtype != "float32" and "Cv=512" not in case.size]
    assert having == {(case.dtype, case.size) for case in halves}


@pytest.mark.filterwarnings("ignore")
def test_flex_attention_computes_what_the_reference_does():
    case = cases.attention_on_gpu(1, 16, 16, 8)
    tensors = case.make("cpu")
    with torch.no_grad():
        found = baselines.attention_flex(tensors)
    torch.testing.assert_close(found, case.call(tensors, backend="reference"))


@pytest.mark.filterwarnings("ignore")
def test_an_sdpa_kernel_that_refuses_gives_its_reason():
    case = cases.attention_on_gpu(1, 16, 16, 4)
    job = orders.Job(case, "cpu", cases.FORWARD, "sdpa cudnn")
    with pytest.raises(orders.NotSupported, match="not supported"), orders.reasons(job):
        orders.prepare(job)()


def test_any_error_of_a_rival_on_a_gpu_is_a_refusal_and_of_ours_is_none():
    def fail(provider):
        with orders.reasons(orders.Job(SMALL[0], "cuda", cases.FORWARD, provider)):
            raise KeyError("backend compiler failed\nand more")

    with pytest.raises(orders.NotSupported, match="KeyError: 'backend compiler failed"):
        fail("flex")
    with pytest.raises(KeyError):
        fail("triton")


def test_precision_of_a_case_is_set_and_set_back():
    case = cases.attention_on_gpu(1, 16, 16, 4, precision="high")
    before = torch.get_float32_matmul_precision()
    with orders.conditions(case):
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before


def test_threads_of_a_case_are_set_and_set_back(monkeypatch):
    cv2 = pytest.importorskip("cv2")
    monkeypatch.setattr(limits, "bandwidth", lambda *_: 1e9)
    before = torch.get_num_threads(), cv2.getNumThreads()
    asked = limits.Limits()
    asked._threads = 5  # as if the process had more
    with orders.conditions(cases.decode_on_one_core((1, 1, 4, 4), "dark")):
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (1, 1)
        asked.memory("cpu", "read", 1e6)
    assert (torch.get_num_threads(), cv2.getNumThreads()) == before
    assert [record["name"] for record in asked.records] == ["read 1 MiB, threads: 1"]


def test_maps_that_do_not_fit_are_not_tried(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (4 * 2**30, 16 * 2**30))
    case = cases.GPU_ATTENTION[0]
    with pytest.raises(orders.NotSupported, match="N x N maps would take about 8 GiB, 4 are free"):
        orders.prepare(orders.Job(case, "cuda", cases.DOUBLE, "sdpa math"))


class FakeCuda:
    """A device on which every call takes 3 ms and whose queue is as the real one's: asynchronous, with events."""

    def __init__(self) -> None:
        self.now, self.slept, self.peak = 0.0, 0, 0

    def call(self) -> object:
        self.now += 0.003
        return object()

    def Event(self, enable_timing):
        cuda = self

        class Event:
            def record(self):
                self.at = cuda.now

            def elapsed_time(self, end):
                return 1e3 * (end.at - self.at)

        return Event()

    def _sleep(self, cycles):
        self.slept += cycles

    def synchronize(self): ...

    def reset_peak_memory_stats(self): ...

    def memory_allocated(self):
        return 100

    def max_memory_allocated(self):
        return 350


def test_device_time_is_that_between_the_events():
    cuda = FakeCuda()
    found = cuda_timing.measure([cuda.call, cuda.call], cuda)
    assert found["median_s"] == pytest.approx(0.003)
    assert found["q1_s"] <= found["median_s"] <= found["q3_s"]
    assert cuda.slept > 0
    assert cuda_timing.peak_bytes(cuda.call, cuda) == 250


def test_memory_bound_calls_rotate_and_others_do_not():
    assert cuda_timing.sets(cases.Work(flop=1e9, read=1e6)) == 1
    assert cuda_timing.sets(cases.Work(written=35.7e6)) == 7
    assert cuda_timing.sets(cases.Work(written=1e3)) == cuda_timing.SETS[1]
    assert cuda_timing.sets(cases.Work(read=1e9)) == cuda_timing.SETS[0]


def test_compiling_ahead_says_what_failed_and_goes_on(monkeypatch):
    monkeypatch.setattr(compile_ahead, "GPU", (cases.on_gpu(cases.descriptor(3, 5)), cases.GPU_ATTENTION[0]))
    monkeypatch.setattr(compile_ahead, "COMPILED_BY_US", "cudda")
    monkeypatch.setattr(compile_ahead.GPU[0].others["compiled"], "_compiler", "eager")
    assert compile_ahead.case_numbers() == [1, 0]
    said = compile_ahead.run(0, "cpu")
    assert said.startswith("pairwise_descriptor (3, 5, 3)")
    assert said.count("unknown backend 'cudda'") == 3
    assert "compiled," not in said


def test_host_cost_is_measured_for_every_call(monkeypatch):
    monkeypatch.setattr(host_cost, "CALLS", 2)
    for name, call in host_cost.calls("cpu", "auto").items():
        found = host_cost.measure(call, "cpu")
        assert found["host_us"] > 0, name
        assert found["kernel_us"] is None


def test_attention_counts_multiply_adds_per_pair():
    work = cases.attention_work(2, 3, 5, 10, 7, cases.ORDERS)
    pairs = 2 * 2 * 10 * 7
    assert work[cases.FORWARD].flop == pairs * 8
    assert work[cases.BACKWARD].flop == pairs * (8 + 19)
    assert work[cases.DOUBLE].flop == pairs * (21 + 25)


def test_a_backend_that_cannot_serve_gives_its_reason():
    job = orders.Job(SMALL[0], "cpu", cases.FORWARD, "cudda")
    with pytest.raises(orders.NotSupported, match="unknown backend 'cudda'"), orders.reasons():
        orders.prepare(job)()


def test_memory_of_linear_attention_is_less_than_the_map_that_the_reference_stores():
    size = (1, 4, 8, (40, 40))
    found = {}
    for provider in ("reference", "cpu"):
        records = memory.in_subprocess("cpu", provider, size)
        if "reason" in records[0]:
            pytest.skip(records[0]["reason"])
        found[provider] = {record["order"]: record["extra_bytes"] for record in records}
    whole_map = 4 * 1600**2
    assert found["reference"]["forward"] >= 0.9 * whole_map
    assert max(found["cpu"].values()) < 0.5 * whole_map


DONE = SimpleNamespace(returncode=0, stdout="{}")
SAGAN = ({"width": 16, "depth": 2, "modules": 1, "stacks": 2}, {"width": 16, "depth": 2, "modules": 1, "sarm": "B"})
POSE3D = ({"width": 16, "depth": 2}, {"width": 8, "hidden": 16})
TINY_SYSTEMS = [
    (systems, systems.Size("tiny", 2, 32, *SAGAN)),
    (pose3d_systems, pose3d_systems.Size("tiny", 4, 64, *POSE3D)),
]


def check_that_ways_agree(system, size, order):
    made = whole_systems.build(system, size, "cpu", order)
    for provider, apart in whole_systems.differences(made, order).items():
        assert apart <= whole_systems.limit(order, made[provider].way), provider


@pytest.mark.parametrize(("system", "size"), TINY_SYSTEMS)
@pytest.mark.parametrize("order", ["forward", "training step"])
def test_the_ways_of_a_system_give_the_same(system, size, order):
    check_that_ways_agree(system, size, order)


@pytest.mark.parametrize(("system", "size"), TINY_SYSTEMS)
def test_the_work_of_a_system(system, size):
    assert whole_systems.flop(system, size, "training step") > 2 * whole_systems.flop(system, size, "forward") > 0


def test_the_ways_of_a_system_take_turns():
    calls = []

    def both_orders(named, known, turns):
        calls.append([call() is not None and known[name] > 0 and turns % 2 == 0 for name, call in named.items()])
        return {name: {"median_s": 1.0} for name in named}

    limits = SimpleNamespace(floor=lambda *_: 0.5)
    job = (*TINY_SYSTEMS[0], "cpu", "forward")
    records = whole_systems.time(*job, both_orders=both_orders, limits=limits, work=1.0)
    assert calls == [[True] * len(records)]
    assert (
        {"reference", "fastpose", "fastpose bf16"}
        < {record["provider"] for record in records}
        < {"reference folded", *results_file.OURS, "reference"}
    )
    assert all(record["difference"] <= 0.1 for record in records)


def test_folding_leaves_no_batch_norm_after_a_convolution():
    counts = []
    for folded in (False, True):
        way = whole_systems.Way(usual=True, folded=folded)
        network = pose3d_systems.build(TINY_SYSTEMS[1][1], "cpu", way).prepared
        counts.append(sum(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules()))
    assert counts[1] < counts[0] / 2


def test_the_memory_of_a_system_is_measured_in_a_process_of_its_own(monkeypatch):
    commands = []
    monkeypatch.setattr(whole_systems.subprocess, "run", lambda command, **_: commands.append(command) or DONE)
    job = (*TINY_SYSTEMS[0], "cpu", "training step")
    assert whole_systems.in_subprocess(*job) == {}
    assert commands[0][2:] == ["systems", "cpu", "tiny", "training step"]
    for record in whole_systems.measure_memory(*job):
        assert record.get("extra_bytes", 0) >= 0
        assert record["operation"] == "system 000"


def test_what_we_take_by_default_is_named_fastpose():
    """Channels last on a CPU, but in the training of pose transfer and the inference of poses from captions."""
    for size in trained_systems.SIZES:
        for order in whole_systems.orders_of(size):
            ways = whole_systems.ways(trained_systems, size, "cpu", order)
            assert ways["fastpose"].channels_last == ((order == "forward") != (size.operation == "system 004"))
            assert not whole_systems.ways(trained_systems, size, "cuda", order)["fastpose"].channels_last
    assert whole_systems.ways(systems, systems.SIZES[0], "cpu", "training step")["fastpose"].channels_last


def test_the_ways_of_a_trainer_give_the_same():
    tiny = ("loss.algorithm=wgan-gp", "loss.critic_steps=1", "model.init=scaled", "discriminator.self_attention=yes")
    size = trained_systems.Size("tiny", "system 004", "caption/tiny", 2, tiny)
    for order in whole_systems.orders_of(size):
        check_that_ways_agree(trained_systems, size, order)
    assert trained_systems.flop(size, "training step") > 5 * trained_systems.flop(size, "forward") > 0
    assert whole_systems.labels(trained_systems, size, "cpu", "forward", "fastpose")["operation"] == "system 004"


@pytest.mark.parametrize(
    ("recipe", "overrides"), [("pona/tiny", trained_systems.WITHOUT_DROPOUT), ("multiscale/tiny", ())]
)
def test_the_ways_of_pose_transfer_give_the_same(recipe, overrides):
    size = trained_systems.Size("tiny", "system", recipe, 2, overrides)
    for order in whole_systems.orders_of(size):
        check_that_ways_agree(trained_systems, size, order)


def test_two_sample_tests_find_the_same():
    real, fake = two_sample.poses(60, "cpu")
    usual, ours = two_sample.usual_accuracy(real, fake), two_sample.our_accuracy(real, fake)
    assert usual == pytest.approx(ours, abs=two_sample.TOLERANCE)


# ------------------------------------------------------------------------------------------------ limits and ratios


def test_the_ways_to_load_give_the_same(tmp_path):
    persons = data_path.source()
    first = [next(iter(data_path.build(persons, way, 0, tmp_path).loader)) for way in data_path.WAYS[:-1]]
    images, targets = zip(*map(data_path.ready, first), strict=True)
    for image, target in zip(images[1:], targets[1:], strict=True):
        assert torch.equal(image, images[0])
        assert (target - targets[0]).abs().max() < 0.012  # patches end at three deviations


def test_ways_to_load_are_recorded_by_the_schema(monkeypatch, tmp_path):
    monkeypatch.setattr(data_path, "BATCHES", 1)
    monkeypatch.setattr(data_path, "WAYS", data_path.WAYS[1:3])
    content = results_file.empty(machine.describe(), [0.0], "pytest")
    once = {"median_s": 0.25, "q1_s": 0.25, "q3_s": 0.25}
    for workers in (0, 1):
        found = data_path.records(
            data_path.source(), workers, tmp_path, lambda calls: {way: [call(), once][1] for way, call in calls.items()}
        )
        content["loading"] += found
    results_file.check(content)
    assert (content["loading"][0]["images_per_s"], content["loading"][0]["worker_pss_bytes"]) == (64, None)
    assert any("fastpose" in line and "64" in line for line in summary.lines(content))


def test_floor_is_the_longer_of_arithmetic_and_traffic(monkeypatch):
    measured = limits.Limits()
    monkeypatch.setattr(limits, "matrix_product", lambda *_, **__: 1e9)
    monkeypatch.setattr(limits, "multiply_add", lambda: 2e9)
    monkeypatch.setattr(limits, "bandwidth", lambda device, kind, size: 1e6 if kind == "read" else 2e6)
    assert measured.floor("cpu", "float32", cases.Work(flop=4e9)) == 2.0
    assert measured.floor("cpu", "float32", cases.Work(read=3e6, written=2e6)) == 4.0
    assert measured.floor("cpu", "float32", cases.Work(flop=1e9, read=3e6, written=2e6)) == 4.0
    names = [record["name"] for record in measured.records]
    assert names == ["torch.mm float32", "multiply-add in registers", "read 4 MiB", "write 2 MiB"]
    assert measured.records[1]["value"] == 2.0


def test_floor_of_a_gpu_follows_precision_and_copy_rate(monkeypatch):
    rates = {"float32": 1e9, "bfloat16": 9e9, "tf32": 6e9}
    monkeypatch.setattr(limits, "matrix_product", lambda _, dtype, *, tf32=False: rates["tf32" if tf32 else dtype])
    monkeypatch.setattr(limits, "bandwidth", lambda device, kind, size: 1e6 if kind == "copy" else 1e99)
    measured = limits.Limits()
    assert measured.floor("cuda", "float32", cases.Work(flop=3e9)) == 1.0  # three products of bfloat16 parts
    assert measured.floor("cuda", "float32", cases.Work(flop=3e9), "high") == 0.5
    assert measured.floor("cuda", "bfloat16", cases.Work(flop=9e9)) == 1.0
    assert measured.floor("cuda", "float32", cases.Work(read=1e6, written=1e6)) == 2.0
    assert {record["name"] for record in measured.records} >= {"torch.mm tf32", "copy 1024 MiB"}


def test_a_limit_is_measured_once(monkeypatch):
    calls = []
    monkeypatch.setattr(limits, "bandwidth", lambda *given: calls.append(given) or 1e9)
    measured = limits.Limits()
    for size in (30e6, 34e6, 35e6):
        measured.memory("cpu", "write", size)
    assert calls == [("cpu", "write", 32 * 2**20)]


def test_multiply_add_measures_a_rate():
    rate = limits.multiply_add()
    assert 1e8 < rate < 1e14


def test_ratios_are_to_the_reference_and_to_the_fastest_other_way(results):
    mine = results["timings"][1]
    assert mine["times_reference"] == 4.0
    assert mine["times_best_other"] == 2.0
    assert mine["share_of_limit"] == 0.5


def test_a_group_without_rivals_has_no_ratio():
    found = {"timings": [timing("cpu", 1.0)]}
    summary.complete(found)
    assert found["timings"][0]["times_reference"] is None
    assert found["timings"][0]["times_best_other"] is None


def test_summary_shows_wins_and_losses(results):
    lost = [timing("reference", 1.0, size="t"), timing("cpu", 2.0, size="t")]
    results["timings"] += lost
    summary.complete(results)
    text = "\n".join(summary.lines(results))
    assert "2000 (blocked)  2.00" in text
    assert "faster in 1 of 2 cases, slower in 1" in text
    marked = [line for line in text.splitlines() if line.endswith("slower")]
    assert len(marked) == 1
    assert marked[0].split()[0] == "t"
    assert "not measured (1x): reference: it serves CUDA tensors" in text


def test_a_busy_machine_is_named(results):
    assert "busy" not in "\n".join(summary.lines(results))
    results["load"]["before"] = [1000.0, 1.0, 1.0]
    assert "do not publish" in "\n".join(summary.lines(results))


# ----------------------------------------------------------------------------------------------------- result files


def test_a_written_file_reads_back(results, tmp_path):
    path = results_file.write(results, tmp_path / "new" / "a.json")
    assert results_file.read(path) == results


RESULTS = [*FOLDER.glob("results/*.json"), *FOLDER.glob("results/nvidia*/*.json")]


@pytest.mark.parametrize("path", sorted(RESULTS), ids=lambda path: path.stem)
def test_files_in_the_results_folder_follow_the_schema(path):
    results_file.read(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda found: found.pop("load"), "expected a field 'load'"),
        (lambda found: found.update(format=3), "expected one of"),
        (lambda found: found.pop("command"), "expected a field 'command'"),
        (lambda found: found.update(note="x"), "unknown field 'note'"),
        (lambda found: found["timings"][0].update(median_s=0.0), r"timings\[0\].median_s: expected more than 0"),
        (lambda found: found["timings"][0].update(median_s=float("nan")), "expected a finite number"),
        (lambda found: found["timings"][1].update(rounds="3"), r"timings\[1\].rounds: expected integer, got str"),
        (lambda found: found["timings"][1].update(rounds=True), "expected integer, got bool"),
        (lambda found: found["timings"][0].update(order="sideways"), "expected one of"),
        (lambda found: found["memory"][0].update(extra_bytes=-1), "expected at least 0"),
        (lambda found: found["machine"]["versions"].pop("torch"), "expected a field 'torch'"),
        (lambda found: found["machine"]["versions"].update(numpy=2), "versions.numpy: expected string"),
    ],
)
def test_a_file_off_the_schema_is_refused_by_name(results, change, words):
    change(results)
    with pytest.raises(ValueError, match=words):
        results_file.check(results)


def test_names_of_result_files():
    folder = FOLDER / "results"
    assert results_file.path_of("xeon-2026", folder) == results_file.path_of("xeon-2026.json", folder)
    assert results_file.path_of("xeon.json", folder) == folder / "xeon.json"
    assert results_file.path_of("/tmp/x.json", folder) == Path("/tmp/x.json")
    for bad in ("a b", ""):
        with pytest.raises(ValueError, match="--save-results"):
            results_file.path_of(bad, folder)


def test_a_file_without_the_newer_fields_is_still_one(results):
    del results["host_costs"], results["command"]
    results["format"] = 1
    results_file.check(results)
    results["timings"][0]["peak_bytes"] = 5
    results["host_costs"] = [{"operation": "op", "device": "cpu", "provider": "cpu", "host_us": 5.5, "kernel_us": None}]
    results_file.check(results)
    assert "5.50" in "\n".join(summary.lines(results))


def test_gpu_report_draws_and_prints(results, tmp_path, capsys):
    for entry in results["timings"]:
        entry["device"] = "cuda"
        entry["provider"] = {"cpu": "triton"}.get(entry["provider"], entry["provider"])
    summary.complete(results)
    path = results_file.write(results, tmp_path / "a.json")
    picture = tmp_path / "a.png"
    assert gpu_report.main([str(path), str(picture)]) == 0
    assert picture.stat().st_size > 1000
    assert "triton" in capsys.readouterr().out


def test_gpu_report_of_nothing_says_so(tmp_path, capsys):
    assert gpu_report.main([str(tmp_path / "none.json"), str(tmp_path / "a.png")]) == 1
    assert "no result file" in capsys.readouterr().err


def test_readme_shows_what_the_committed_results_give():
    text = readme_table.README.read_text(encoding="utf-8")
    assert text.count(readme_table.BEGIN) == text.count(readme_table.END) == 1
    assert readme_table.current() in text, "run `python benchmarks/readme_table.py`"


def test_readme_names_rows_that_are_measured():
    measured = {(case.operation, case.size, order) for case in PUBLISHED for order in case.work}
    assert {(row.operation, row.size, row.order) for row in readme_table.ROWS} <= measured


def test_readme_counts_losses_and_draws_the_plot_only_where_it_was_measured(results):
    results["timings"] = [timing("reference", 2.0), timing("cpu", 3.0)]
    summary.complete(results)
    without = readme_table.block(results, "results/a.json", False)
    assert "the one that we lose included" in without
    assert "![" not in without
    assert "growth.png" in readme_table.block(results, "results/a.json", True)


# ------------------------------------------------------------------------------------------------------- comparison


def saved(results: dict, path: Path, *, factor: float = 1.0, provider: str = "cpu") -> str:
    changed = copy.deepcopy(results)
    for entry in changed["timings"]:
        if entry["provider"] == provider:
            for field in ("median_s", "q1_s", "q3_s"):
                entry[field] *= factor
    summary.complete(changed)
    return str(results_file.write(changed, path))


def test_compare_accepts_what_did_not_grow(results, tmp_path, capsys):
    old, new = saved(results, tmp_path / "old.json"), saved(results, tmp_path / "new.json", factor=1.05)
    assert compare.main([old, new]) == 0
    assert "1.05" in capsys.readouterr().out


def test_compare_fails_on_a_regression_and_names_it(results, tmp_path, capsys):
    old, new = saved(results, tmp_path / "old.json"), saved(results, tmp_path / "new.json", factor=1.5)
    assert compare.main([old, new]) == 1
    assert "regression: op s cpu float32 forward cpu takes 1.50 times as long" in capsys.readouterr().err
    assert compare.main([old, new, "--tolerance", "0.6"]) == 0


def test_compare_ignores_what_is_not_ours(results, tmp_path):
    old = saved(results, tmp_path / "old.json")
    assert compare.main([old, saved(results, tmp_path / "new.json", factor=3.0, provider="sdpa")]) == 0


def test_compare_does_not_take_noise_for_a_regression(results, tmp_path):
    results["timings"][1]["q3_s"] = 2.0
    old, new = saved(results, tmp_path / "old.json"), saved(results, tmp_path / "new.json", factor=1.5)
    assert compare.main([old, new]) == 0


def test_compare_across_machines_takes_ratios(results, tmp_path, capsys):
    old = saved(results, tmp_path / "old.json")
    results["machine"]["processor"] = "another"
    same = saved(results, tmp_path / "same.json", factor=1.0)
    assert compare.main([old, same]) == 2
    assert "--relative" in capsys.readouterr().err
    assert compare.main([old, same, "--relative"]) == 0
    assert compare.main([old, saved(results, tmp_path / "slow.json", factor=2.0), "--relative"]) == 1


def test_compare_refuses_files_without_a_common_case(results, tmp_path, capsys):
    old = saved(results, tmp_path / "old.json")
    for entry in results["timings"]:
        entry["size"] = "other"
    assert compare.main([old, saved(results, tmp_path / "new.json")]) == 2
    assert "no number in common" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["{", "{}"])
def test_compare_refuses_what_is_no_result_file(content, tmp_path, capsys):
    path = tmp_path / "bad.json"
    path.write_text(content)
    assert compare.main([str(path), str(path)]) == 2
    assert "compare.py: " in capsys.readouterr().err


def test_compare_runs_as_a_script(results, tmp_path):
    old = saved(results, tmp_path / "old.json")
    done = subprocess.run(
        [sys.executable, FOLDER / "compare.py", old, old], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "ratio" in done.stdout


# --------------------------------------------------------------------------------------------------- how they start


def collected(*options: str) -> str:
    """What pytest would run, by name."""
    command = [sys.executable, "-P", "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *options]
    done = subprocess.run(command, cwd=FOLDER.parent, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_benchmark_only_collects_the_benchmarks_alone():
    found = collected("--benchmark-only", "--save-results=x")
    assert "benchmarks/test_attention.py" in found
    assert "tests/test_" not in found.replace("benchmarks/test_", "")


def test_plain_pytest_leaves_the_benchmarks_out():
    assert "benchmarks/test_" not in collected("benchmarks", "tests/test_benchmarks.py").replace("tests/", "")


def test_gpu_script_is_polite_without_a_gpu():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    done = subprocess.run([FOLDER / "gpu.sh"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "nothing was done" in done.stdout


def gpu_script(tmp_path: Path, answers: str, **settings: str) -> tuple[subprocess.CompletedProcess, Path]:
    """Run it with a python that prints its arguments and gives these answers, else agrees; return where results are."""
    fake = tmp_path / "python"
    fake.write_text(f'#!/bin/sh\necho "$@"\ncase "$*" in {answers} esac\n')
    fake.chmod(0o755)
    out = tmp_path / "out"
    done = subprocess.run(
        [FOLDER / "gpu.sh", "trial"],
        env=os.environ | {"PYTHON": str(fake), "OUT": str(out), **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    return done, out


@pytest.mark.parametrize(("total", "benchmarks", "most"), [("570", "200", 160), ("90", "300", 50), ("30", "300", 10)])
def test_gpu_script_budgets_the_time_that_is_left(tmp_path, total, benchmarks, most):
    done, out = gpu_script(tmp_path, "", TOTAL=total, BENCHMARKS=benchmarks)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed: report" in done.stdout
    budget = int((out / "benchmarks.log").read_text().partition("--budget=")[2].split()[0])
    assert 0 < budget <= most


def test_gpu_script_goes_on_after_a_failed_step_and_says_so_at_the_end(tmp_path):
    """With a python whose tests and report fail, whose benchmarks outlast their time, and that agrees to the rest."""
    fails = '*"-m gpu"*) exit 1 ;; *gpu_report*) exit 3 ;; *benchmark-only*) exec sleep 60 ;;'
    done, out = gpu_script(tmp_path, fails, TOTAL="40", BENCHMARKS="3")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "failed: report (exit code 3)" in done.stdout
    assert "passed: install" in done.stdout
    assert "failed: tests" in done.stdout
    assert "out of time: benchmarks" in done.stdout
    assert len(list(out.iterdir())) <= 8
    assert "--benchmark-only" in (out / "benchmarks.log").read_text()
