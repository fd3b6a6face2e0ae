"""fastpose bench: what it prints and writes, what it refuses, and what stays after Ctrl-C."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastpose import ops
from fastpose.benchmark import cases, growth, limits, orders, results_file, timing
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


def test_bench_takes_names_and_never_writes_into_a_folder_that_is_there(run):
    assert run("bench", "pairwise_descriptor", "-o", "out")[0] == 0
    operations = {timing["operation"] for timing in results_file.read(Path("out/results.json"))["timings"]}
    assert operations == {"pairwise_descriptor"}
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
    ],
)
def test_bench_refuses_in_a_sentence_and_leaves_no_folder(run, words, sentence):
    code, out, err = run("bench", *words)
    assert (code, out) == (2, "")
    assert sentence in err
    assert err.count("\n") == 1
    assert not Path("runs").exists()


def test_ctrl_c_leaves_what_was_measured(run, monkeypatch):
    measure = Run.measure

    def until_attention(self, jobs):
        if jobs[0].case.operation == "nonlocal_attention":
            raise KeyboardInterrupt
        return measure(self, jobs)

    monkeypatch.setattr(Run, "measure", until_attention)
    code, _, err = run("bench")
    assert code == 130
    assert "interrupted" in err
    assert {timing["operation"] for timing in results_file.read(Path("runs/bench/run/results.json"))["timings"]} == {
        "pairwise_descriptor"
    }


def test_ctrl_c_before_the_first_number_leaves_no_folder(run, monkeypatch):
    def interrupt(self, jobs):
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "measure", interrupt)
    assert run("bench")[0] == 130
    assert list(Path("runs/bench").iterdir()) == []


def test_bench_knows_every_operation_that_has_backends():
    assert set(ops.operations()) <= set(cases.typical())
