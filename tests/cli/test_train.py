"""`fastpose train`, `eval`, `predict` and `demo` on the tiny recipe."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import fastpose
from fastpose.cli import demo
from fastpose.cli.predict import split_overrides, split_recipe


def test_a_run_folder_holds_what_the_guide_says(trained):
    names = {path.relative_to(trained).as_posix() for path in trained.rglob("*") if path.is_file()}
    expected = {"config.yaml", "environment.json", "metrics.csv", "metrics.jsonl", "curves.png", "report.html"}
    assert expected <= names
    assert {"weights/last.safetensors", "weights/last.json", "weights/best.safetensors"} <= names
    assert [name for name in names if name.startswith("samples/") and name.endswith(".png")]
    assert [name for name in names if name.startswith("state/")]


def test_train_prints_results_and_where_they_are(run, tmp_path):
    code, out, err = run("train", "sagan/tiny", "run.max_steps=1", "--out", "my runs", "--name", "größe 1")
    assert code == 0, err
    folder = Path("my runs/sagan/tiny/größe 1")
    assert (tmp_path / folder / "report.html").is_file()
    assert f"report:   {folder / 'report.html'}" in out
    assert "PCK@0.2" in out
    assert "mean over joint x person" in out


def test_a_second_run_does_not_overwrite_the_first(run, tmp_path):
    for _ in range(2):
        assert run("train", "sagan/tiny", "run.max_steps=1", "--out", "runs", "--name", "same")[0] == 0
    assert sorted(path.name for path in (tmp_path / "runs/sagan/tiny").iterdir()) == ["same", "same-2"]


def test_resume_goes_on_in_the_same_folder(run, tmp_path):
    assert run("train", "sagan/tiny", "run.max_steps=1", "--out", "runs", "--name", "half")[0] == 0
    folder = tmp_path / "runs/sagan/tiny/half"
    code, _, err = run("train", "sagan/tiny", "run.max_steps=2", "--resume", folder)
    assert code == 0, err
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert max(steps) == 2
    assert len(list(folder.parent.iterdir())) == 1


def test_eval_prints_the_protocol_and_writes_the_results(run, weights, tmp_path):
    code, out, err = run("eval", "sagan/tiny", "--weights", weights, "-o", "results")
    assert (code, err) == (0, "")
    assert "protocol" in out
    rows = [json.loads(line) for line in (tmp_path / "results/results.jsonl").read_text().splitlines()]
    assert all(row["name"] in out and row["protocol"] in out for row in rows)


def test_eval_writes_no_folder_over_a_file(run, weights, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    code, out, err = run("eval", "sagan/tiny", "--weights", weights, "-o", "mine.txt")
    assert (code, out) == (2, "")
    assert err == "fastpose: out: expected a folder, mine.txt is a file or lies in one; name another\n"


def test_eval_refuses_weights_of_another_recipe(run, weights):
    code, _, err = run("eval", "sagan/demo", "--weights", weights)
    assert code == 2
    assert "holds weights of recipe sagan/tiny, expected sagan/demo" in err


@pytest.mark.parametrize("with_recipe", [True, False])
def test_predict_draws_each_photograph(run, weights, photo, tmp_path, with_recipe):
    words = ["sagan/tiny"] * with_recipe + [photo, "--weights", weights, "-o", "drawn", "--save-keypoints", "k.json"]
    code, out, err = run("predict", *words)
    assert (code, err) == (0, "")
    assert out.split() == [str(Path("drawn") / f"{photo.stem}.png")]
    assert (tmp_path / "drawn" / f"{photo.stem}.png").is_file()
    (row,) = json.loads((tmp_path / "k.json").read_text())
    assert len(row["persons"][0]["keypoints"]) == len(row["joints"])


def test_out_that_is_a_file_is_named(run, tmp_path):
    (tmp_path / "taken").write_text("a file")
    code, out, err = run("train", "sagan/tiny", "--out", "taken")
    assert (code, out) == (2, "")
    assert err.startswith("fastpose: run folder taken/sagan/tiny")
    assert err.count("\n") == 1


def test_predict_without_weights_names_the_command_that_trains_some(run, photo):
    code, _, err = run("predict", photo)
    assert code == 2
    assert "`fastpose train sagan/demo`" in err
    assert err.count("\n") == 1


def test_split_recipe_takes_the_first_word_only_when_it_names_one(photo):
    known = ["sagan/demo"]
    assert split_recipe(["sagan/demo", "a.jpg"], known) == ("sagan/demo", [Path("a.jpg")])
    assert split_recipe([str(photo), "sagan/demo"], known) == (None, [photo, Path("sagan/demo")])
    assert split_recipe(["my/own.yaml", "a.jpg"], known) == ("my/own.yaml", [Path("a.jpg")])


def test_split_overrides_leaves_files_and_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.b=c.jpg").touch()
    words = ["sagan/demo", "a.b=c.jpg", "test.flip=no", "set.v2/x=1.png", "a=b.jpg", "data.root=some/folder"]
    assert split_overrides(words) == (
        ["sagan/demo", "a.b=c.jpg", "set.v2/x=1.png", "a=b.jpg"],
        ["test.flip=no", "data.root=some/folder"],
    )


def test_predict_takes_overrides(run, weights, photo):
    assert run("predict", photo, "--weights", weights, "-o", "drawn", "test.flip=no")[0] == 0
    code, _, err = run("predict", photo, "--weights", weights, "-o", "other", "test.flop=no")
    assert code == 2
    assert "unknown key 'test.flop'; did you mean 'test.flip'" in err


def test_demo_prints_protocol_files_and_next_steps(run, monkeypatch):
    monkeypatch.setitem(demo.RECIPES, "sagan", "sagan/tiny")
    code, out, err = run("demo", "run.max_steps=1")
    assert code == 0, err
    for piece in ("PCK@0.2", "report:", "curves:", "pictures:", "weights:", "fastpose predict", "fastpose recipes"):
        assert piece in out


def test_demo_trains_its_recipe_on_the_bundled_sample():
    from fastpose.training import load_recipe

    config = load_recipe(demo.RECIPES["sagan"]).config
    assert config.data.name == "sample"
    assert config.discriminator.name != "none"


def environment() -> dict[str, str]:
    """Of a process that finds the package under test, installed or a checkout, from any folder."""
    return {**os.environ, "PYTHONPATH": str(Path(fastpose.__file__).parents[1]), "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_two_processes_under_torchrun_print_and_write_once(tmp_path):
    words = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "fastpose"]
    words += ["train", "sagan/tiny", "run.max_steps=2", "run.device=cpu", "--out", str(tmp_path), "--name", "two"]
    done = subprocess.run(
        [sys.executable, "-m", *words], capture_output=True, text=True, cwd=tmp_path, env=environment(), timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("report:") == 1
    assert [path.name for path in (tmp_path / "sagan/tiny").iterdir()] == ["two"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.slow
def test_a_signal_saves_and_exits_with_its_code(tmp_path, number, code):
    words = ["train", "sagan/tiny", "run.max_steps=0", "run.epochs=1000", "--out", str(tmp_path), "--name", "killed"]
    process = subprocess.Popen(
        [sys.executable, "-m", "fastpose", *words], stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment()
    )
    log = tmp_path / "sagan/tiny/killed/metrics.jsonl"
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if log.is_file() and log.read_text().count("\n") > 1:
            break
        time.sleep(0.1)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in err
    assert list((tmp_path / "sagan/tiny/killed/state").iterdir())
