"""Curves: files are written, the same rows give the same bytes, columns meet the right panels."""

from __future__ import annotations

import csv
import subprocess
import sys

import numpy as np
import pytest

from fastpose.visual import curves

PNG = b"\x89PNG"


def rows(count=30, scale=1.0):
    made = []
    for step in range(count):
        row = {"kind": "train", "step": step, "epoch": step // 10, "pose": scale * 0.9**step, "k": 0.1 * step}
        if step % 10 == 9:
            row["PCK@0.2"] = 50 + step
        made.append(row)
    return made


def test_rows_and_csv_give_the_same_file(tmp_path):
    table = tmp_path / "metrics.csv"
    with table.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["kind", "step", "epoch", "pose", "k", "PCK@0.2"])
        writer.writeheader()
        writer.writerows(rows())
    first = curves.plot_curves(rows(), tmp_path / "new" / "a.png").read_bytes()
    assert first.startswith(PNG)
    assert curves.plot_curves(table, tmp_path / "b.png").read_bytes() == first
    assert curves.plot_curves(str(table), tmp_path / "c.png", title="run").read_bytes() != first


def test_several_runs_and_seeds(tmp_path):
    several = curves.plot_curves({"plain": rows(), "other": rows(scale=2)}, tmp_path / "a.png", columns=["PCK@0.2"])
    assert several.read_bytes().startswith(PNG)
    groups = {"plain": [rows(), rows(scale=2)], "one seed": [rows(40)]}
    assert curves.plot_comparison(groups, tmp_path / "b.png", column="PCK@0.2").read_bytes().startswith(PNG)


def test_long_noisy_series_and_values_that_are_not_finite(tmp_path):
    rng = np.random.default_rng(0)
    many = [{"step": step, "loss": float(value)} for step, value in enumerate(rng.random(500))]
    many[7]["loss"] = float("nan")
    assert curves.plot_curves(many, tmp_path / "a.png").read_bytes().startswith(PNG)
    assert len(curves.series(many, "step", "loss")[0]) == 499


def test_pck_curve(tmp_path):
    x = np.linspace(0, 0.5, 11)
    assert curves.plot_pck_curve({"a": (x, 100 * x)}, tmp_path / "a.png", mark=0.2).read_bytes().startswith(PNG)
    with pytest.raises(ValueError, match=r"curves\['a'\]: expected two \(T,\) arrays"):
        curves.plot_pck_curve({"a": (x, x[1:])}, tmp_path / "a.png")
    with pytest.raises(ValueError, match="at least one curve"):
        curves.plot_pck_curve({}, tmp_path / "a.png")


def test_columns_meet_their_panels():
    table = [{"pose": 0.1, "real": 0.2, "k": 0.0, "lr": 1e-4, "PCK@0.2": 60.0, "accuracy": 0.5, "d/x": 1.0, "d/y": 2.0}]
    assert list(curves._group(list(table[0]), table).items()) == [
        ("losses", ["pose", "real"]),
        ("PCK@0.2", ["PCK@0.2"]),
        ("accuracy", ["accuracy"]),
        ("k", ["k"]),
        ("d", ["d/x", "d/y"]),
        ("lr", ["lr"]),
    ]


def test_running_mean_is_the_mean_of_its_window():
    assert curves.running_mean(np.array([0.0, 3.0, 6.0, 0.0]), 1).tolist() == [1.5, 3.0, 3.0, 3.0]
    assert curves.running_mean(np.full(9, 2.0), 3).tolist() == [2.0] * 9


def test_errors(tmp_path):
    out = tmp_path / "a.png"
    with pytest.raises(ValueError, match="no column holds a finite number"):
        curves.plot_curves([{"step": 1, "note": "x"}], out)
    with pytest.raises(ValueError, match="no column holds a finite number"):
        curves.plot_curves([], out)
    with pytest.raises(ValueError, match="'pos' is not among"):
        curves.plot_curves(rows(), out, columns=["pos"])
    with pytest.raises(ValueError, match="x: expected one of"):
        curves.plot_curves(rows(), out, x="stp")
    with pytest.raises(FileNotFoundError, match=r"metrics\.csv with a header line"):
        curves.plot_curves(tmp_path / "none.csv", out)
    with pytest.raises(ValueError, match=r"groups\['a'\]: no step at which all 2 runs have 'PCK@0.2'"):
        curves.plot_comparison({"a": [rows(), rows(5)]}, out, column="PCK@0.2")
    assert not out.exists()


def test_no_global_matplotlib_state(tmp_path):
    code = (
        "import sys\nfrom fastpose.visual.curves import plot_curves\n"
        f"plot_curves([{{'step': 0, 'loss': 1.0}}], {str(tmp_path / 'a.png')!r})\n"
        "sys.exit('pyplot was imported' if 'matplotlib.pyplot' in sys.modules else 0)"
    )
    run = subprocess.run([sys.executable, "-P", "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
