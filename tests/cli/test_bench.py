"""fastpose bench: what it prints and writes, what it refuses, and what stays after Ctrl-C."""

from __future__ import annotations

import os
import signal
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from fastpose import ops
from fastpose.benchmark import cases, growth, limits, orders, report, results_file, timing
from fastpose.benchmark.cases import quick
from fastpose.benchmark.run import Run


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Tiny cases on a machine with known limits, each call timed a few times."""
    small = (cases.descriptor(2, 3), cases.attention(1, 4, 4, (3, 3)))
    monkeypatch.setattr(cases, "quick", lambda: small)
    monkeypatch.setattr(orders, "backends", lambda case: ("reference", "cpu"))
    monkeypatch.setattr(timing, "ROUND_SECONDS", 0.0)
    monkeypatch.setitem(Run.__init__.__kwdefaults__, "seconds", 0.0)
    monkeypatch.setattr(limits.Limits, "floor", lambda *_, **__: 1e-6)


def test_bench_prints_tables_and_writes_a_new_folder(run):
    code, out, err = run("bench")
    assert code == 0
    assert err.replace("fastpose: the machine was busy when this began: do not publish these numbers\n", "") == ""
    assert out.index("pairwise_descriptor") < out.index("nonlocal_attention") < out.index("beside the reference")
    folder = Path("runs/bench/run")
    assert {path.name for path in folder.iterdir()} == {"results.json", "table.md", "speed.png"}
    content = results_file.read(folder / "results.json")
    assert content["command"].endswith("fastpose bench")
    assert "| (2, 3, 3) | forward |" in (folder / "table.md").read_text()


@pytest.mark.usefixtures("no_pictures")
def test_bench_takes_names_and_never_writes_into_a_folder_that_is_there(run):
    assert run("bench", "pairwise_descriptor", "pairwise_descriptor", "-o", "out")[0] == 0
    content = results_file.read(Path("out/results.json"))
    assert {timing["operation"] for timing in content["timings"]} == {"pairwise_descriptor"}
    ways = [(timing["order"], timing["provider"]) for timing in content["timings"]]
    assert len(ways) == len(set(ways))  # a name that is given twice is measured once
    assert content["command"].endswith("fastpose bench pairwise_descriptor")
    code, _, err = run("bench", "pairwise_descriptor", "-o", "out")
    assert (code, err) == (2, "fastpose: out: exists; name another folder with -o, or remove it\n")


def test_bench_measures_the_growth(run, monkeypatch):
    of_batch = ("pairwise_descriptor", "batch", "3 joints", (1, 2), lambda b: cases.descriptor(b, 3))
    monkeypatch.setattr(growth, "others", lambda: [growth.Growth(*of_batch, cases.FORWARD)])
    code, out, _ = run("bench", "--growth", "pairwise_descriptor")
    assert code == 0
    assert "growth: the power of N, batch or joints" in out
    names = {path.name for path in Path("runs/bench/run").iterdir()}
    assert names == {"results.json", "table.md", "growth-pairwise_descriptor.png"}
    assert "## Growth" in Path("runs/bench/run/table.md").read_text()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("pairwise_descriptr",), "did you mean 'pairwise_descriptor'"),
        (("--growth", "flip_average"), "unknown operation 'flip_average'"),
        (("--device", "tpu9"), "--device: expected cpu, cuda or cuda:1"),
        (("--device", "meta"), "--device: expected cpu, cuda or cuda:1"),
        (("--tune", "--device", "meta"), "--device: expected cpu, cuda or cuda:1"),
        (("--dtype", "float32", "flip_average"), "--dtype: of tuning alone"),
        (("--size", "1,2,3,4"), "--size: of tuning alone"),
        (("--atomics",), "--atomics: of tuning alone"),
        (("--tune", "flip_average"), "flip_average: of no use with --tune"),
        (("--tune", "--full"), "--full: of no use with --tune"),
        (("--tune", "-o", "out"), "--out: of no use with --tune"),
        (("--growth", "--full"), "--full: of no use with --growth"),
    ],
)
def test_bench_refuses_in_a_sentence_and_leaves_no_folder(run, words, sentence):
    code, out, err = run("bench", *words)
    assert (code, out) == (2, "")
    assert sentence in err
    assert err.count("\n") == 1
    assert list(Path().iterdir()) == []


@pytest.fixture
def two_gpus(monkeypatch) -> list[object]:
    """A machine that says it has two GPUs, and the devices on which something was measured."""
    current: list[object] = [None]
    measured: list[object] = []

    def chosen(place):
        current[0] = place
        return nullcontext()

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", str)
    monkeypatch.setattr(torch.cuda, "device", chosen)
    monkeypatch.setattr(Run, "measure", lambda self, jobs: measured.append(current[0]))
    return measured


def test_the_gpu_that_is_named_is_the_current_one(run, two_gpus):
    assert run("bench", "--device", "cuda:1", "pairwise_descriptor")[0] == 0
    assert set(two_gpus) == {torch.device("cuda:1")}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--device", "cuda:2"), "--device: expected one of the 2 GPUs from cuda:0, got cuda:2"),
        (("--device", "cuda", "attention_rows"), "attention_rows: expected an operation with cases for a GPU"),
    ],
)
def test_what_no_gpu_can_do_is_refused(run, two_gpus, words, sentence):
    code, _, err = run("bench", *words)
    assert (code, two_gpus) == (2, [])
    assert sentence in err


@pytest.fixture
def no_pictures(monkeypatch):
    """Drawing takes longer than all else here."""
    monkeypatch.setattr(report, "_pictures", lambda content, folder: ())


def _at_attention(monkeypatch, happen):
    """Let something happen as attention's turn comes."""
    measure = Run.measure

    def until_attention(self, jobs):
        if jobs[0].case.operation == "nonlocal_attention":
            happen()
        return measure(self, jobs)

    monkeypatch.setattr(Run, "measure", until_attention)


def _measured(folder):
    return {timing["operation"] for timing in results_file.read(Path(folder, "results.json"))["timings"]}


@pytest.mark.usefixtures("no_pictures")
def test_ctrl_c_leaves_what_was_measured(run, monkeypatch):
    def interrupt():  # what Python makes of Ctrl-C, unless it was started to ignore that
        raise KeyboardInterrupt

    _at_attention(monkeypatch, interrupt)
    code, _, err = run("bench")
    assert code == 130
    assert "interrupted" in err
    assert _measured("runs/bench/run") == {"pairwise_descriptor"}


@pytest.mark.usefixtures("no_pictures")
def test_sigterm_leaves_what_was_measured(run, monkeypatch):
    _at_attention(monkeypatch, lambda: signal.raise_signal(signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    assert run("bench", "-o", "out")[0] == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert _measured("out") == {"pairwise_descriptor"}


@pytest.mark.usefixtures("no_pictures")
def test_a_folder_is_made_at_the_end_and_a_name_taken_meanwhile_is_passed_over(run, monkeypatch):
    measure = Run.measure

    def beside_another(self, jobs):
        Path("out").mkdir(exist_ok=True)
        return measure(self, jobs)

    monkeypatch.setattr(Run, "measure", beside_another)
    assert run("bench", "pairwise_descriptor", "-o", "out")[0] == 0
    assert os.listdir("out") == []
    assert _measured("out-2") == {"pairwise_descriptor"}


def test_ctrl_c_before_the_first_number_leaves_no_folder(run, monkeypatch):
    def interrupt(self, jobs):
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "measure", interrupt)
    assert run("bench")[0] == 130
    assert list(Path("runs/bench").iterdir()) == []


def test_bench_knows_every_operation_that_has_backends():
    assert set(ops.operations()) <= set(cases.typical())


def test_a_first_look_has_every_operation():
    assert {case.operation for case in quick()} == set(cases.typical())
