"""The comparison of recipes by training: what is tabled, drawn and written. Nothing is trained here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fastpose.data.images import read_image
from fastpose.visual.grids import save_image

training_comparison = pytest.importorskip(
    "training_comparison", reason="the tests run without the benchmarks of the checkout"
)


def write_run(folder: Path, values: dict[str, list[float]]) -> None:
    """Write the evaluations of a run: a value of each metric after each epoch."""
    folder.mkdir(parents=True)
    rows = [
        {"kind": "evaluation", "step": 10 * epoch, "epoch": epoch, "name": name, "protocol": "p", "value": value}
        for name, each in values.items()
        for epoch, value in enumerate(each, 1)
    ]
    lines = [json.dumps({**row, "count": 3, "per_joint": {}, "details": {}}) for row in rows]
    (folder / "metrics.jsonl").write_text("\n".join(lines))


@pytest.fixture
def compare(tmp_path, monkeypatch):
    """Run the script on runs that stand already; return what it wrote and what it would have trained."""
    monkeypatch.setattr(training_comparison, "RESULTS", tmp_path / "results")
    runs, trained = tmp_path / "runs", []
    monkeypatch.setattr(training_comparison, "train", lambda *given: trained.append(given[1:]))
    for seed in (0, 1):
        write_run(runs / "sys/first" / f"seed-{seed}", {"PCK": [10.0, 20.0]})
        write_run(runs / "sys/a" / f"seed-{seed}", {"PCK": [30.0, 40.0 + seed], "MPJPE": [90.0, 80.0]})
        write_run(runs / "sys/b" / f"seed-{seed}", {"bones": [1.0, 2.0], "MPJPE": [95.0, 85.0 + 2 * seed]})
        write_run(runs / "sys/c" / f"seed-{seed}", {"colour": [1.0]})

    def run(*words: str) -> tuple[dict, list]:
        training_comparison.main(["trial", *words, "--runs", str(runs)])
        return json.loads((tmp_path / "results/trial.json").read_text()), trained

    return run


def test_the_first_stage_is_trained_first_and_not_compared(compare, capsys, tmp_path):
    words = ["--recipes", "sys/a", "sys/b", "--set", "run.epochs=2", "--start", "sys/first", "--start-set", "lr=1"]
    content, trained = compare(*words)
    assert list(content["runs"]) == ["sys/a", "sys/b"]
    assert list(content["start"]) == ["sys/first"]
    assert [row["value"] for row in content["start"]["sys/first"]["1"]] == [10.0, 20.0]
    assert trained[0] == ("sys/first", 0, ["run.epochs=2", "lr=1"])
    weights = tmp_path / "runs/sys/first/seed-1/weights/best.safetensors"
    assert trained[-1] == ("sys/b", 1, ["run.epochs=2", f"run.start={weights}"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["MPJPE", "sys/a", "80", "(80,", "80)"],
        ["MPJPE", "sys/b", "86", "(85,", "87)"],
        ["PCK", "sys/a", "40.5", "(40,", "41)"],
        ["bones", "sys/b", "2", "(2,", "2)"],
    ]
    assert "--start sys/first --start-set lr=1" in content["command"]


def test_the_metric_that_all_have_is_drawn(compare, capsys, monkeypatch, tmp_path):
    from fastpose.visual import curves

    drawn, whole = [], curves.plot_comparison
    monkeypatch.setattr(
        curves, "plot_comparison", lambda *given, **more: drawn.append((given[0], more)) or whole(*given, **more)
    )
    compare("--recipes", "sys/a", "sys/b")
    ((groups, more),) = drawn
    assert (set(groups), more["column"]) == ({"a", "b"}, "MPJPE")
    assert groups["b"][1] == [{"step": 10, "MPJPE": 95.0}, {"step": 20, "MPJPE": 87.0}]
    assert read_image(tmp_path / "results/trial.png").shape[2] == 3
    content, _ = compare("--recipes", "sys/a", "sys/c")
    assert len(drawn) == 1
    assert "trial.png: not drawn, the recipes have no metric in common" in capsys.readouterr().err
    assert "start" not in content


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--start-set", "lr=1"], "--start-set: changes the recipe of --start, which is not given"),
        (["--start", "sys/a"], "--start: sys/a is one of --recipes too; it would have two budgets"),
    ],
)
def test_words_that_contradict_each_other_are_refused_before_any_training(compare, capsys, words, sentence):
    with pytest.raises(SystemExit) as caught:
        compare("--recipes", "sys/a", *words)
    assert caught.value.code == 2
    assert sentence in capsys.readouterr().err


def test_a_seed_stands_in_overrides(compare):
    _, trained = compare("--recipes", "sys/a", "--set", "start.run=runs/first/seed-{seed}")
    assert [words for _, _, words in trained] == [["start.run=runs/first/seed-0"], ["start.run=runs/first/seed-1"]]


def test_values_of_real_data_stand_beside(tmp_path):
    write_run(tmp_path / "run", {"R-precision": [20.0]})
    path = tmp_path / "run/metrics.jsonl"
    path.write_text(path.read_text().replace('"details": {}', '"details": {"real": 36.0, "other": 1}'))
    (row,) = training_comparison.evaluations(tmp_path / "run")
    assert row["real"] == 36.0
    assert "other" not in row


def test_pictures_of_the_first_run_are_kept(compare, tmp_path):
    save_image(tmp_path / "runs/sys/a/seed-0/samples/poses.png", np.full((30, 2000, 3), 200, np.uint8))
    compare("--recipes", "sys/a", "sys/b", "--pictures", "samples/poses.png", "curves.png")
    pictures = [path.name for path in (tmp_path / "results").glob("*.jpg")]
    assert pictures == ["trial-a-poses.jpg"]
    assert read_image(tmp_path / "results/trial-a-poses.jpg").shape == (15, 1000, 3)
