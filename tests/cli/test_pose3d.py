"""`predict` and `demo` of the system that knows depth."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from drawing_weights import save

from fastpose.cli import demo
from fastpose.training import load_recipe, pose3d_pictures


@pytest.fixture(autouse=True)
def few_frames(monkeypatch):
    """A turn of three pictures is one."""
    monkeypatch.setattr(pose3d_pictures, "FRAMES", 3)


@pytest.fixture(scope="module")
def deep(tmp_path_factory) -> Path:
    """Weights of the tiny recipe."""
    return save(tmp_path_factory.mktemp("weights"), "pose3d/tiny")


def test_predict_draws_a_picture_and_a_film(run, deep, photo, tmp_path):
    code, out, err = run("predict", "pose3d/tiny", photo, "--weights", deep, "-o", "out", "--save-keypoints", "k.json")
    assert (code, err) == (0, "")
    assert out.split() == [f"out/{photo.stem}.png", f"out/{photo.stem}.gif"]
    (row,) = json.loads((tmp_path / "k.json").read_text())
    assert row["skeleton"] == "mpii"
    assert row["joints_3d"]["scale"].startswith("assumed: ")
    assert len(row["persons"][0]["joints_3d"]) == 16
    again = run("predict", photo, "--weights", deep, "-o", "out", "test.flip=no", "test.bone_sum=4000")[1]
    assert again.split() == [f"out/{photo.stem}-2.png", f"out/{photo.stem}-2.gif"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--pose", "a.json"], "--pose: the weights {weights} draw no person; expected those of pose transfer"),
        (["test.bone_sum=-1"], "test.bone_sum: expected mm, or 0 for the training set's mean, got -1.0"),
        (["model.width=8"], "model.width: the weights {weights} fix the network; leave this override out"),
    ],
)
def test_what_the_weights_cannot_take_is_one_line(run, deep, photo, tmp_path, words, sentence):
    code, out, err = run("predict", photo, "--weights", deep, "-o", "out", *words)
    assert (code, out) == (2, "")
    assert err == f"fastpose: {sentence.format(weights=deep)}\n"
    assert not (tmp_path / "out").exists()


def test_weights_of_another_recipe_are_refused(run, deep, photo):
    code, _, err = run("predict", "sagan/tiny", photo, "--weights", deep, "-o", "out")
    assert code == 2
    assert "holds weights of recipe pose3d/tiny, expected sagan/tiny" in err


def test_demo_trains_draws_and_says_what_comes_next(run, monkeypatch, tmp_path):
    monkeypatch.setitem(demo.RECIPES, "pose3d", "pose3d/tiny")
    code, out, err = run("demo", "pose3d", "run.max_steps=1")
    assert code == 0, err
    for piece in ("MPJPE", "report:", "weights:", "fastpose predict pose3d/tiny", "fastpose recipes", "h36m"):
        assert piece in out
    lines = {line.partition(":")[0]: Path(line.split()[-1]) for line in out.splitlines() if line.startswith("runs", 10)}
    assert lines["turning"].suffix == ".gif"
    assert all((tmp_path / lines[name]).stat().st_size for name in ("pose", "turning"))
    assert {"poses.png", "wild.png", "descriptor.png"} <= {path.name for path in lines["turning"].parent.iterdir()}


def test_the_recipes_that_the_demo_names_are_there():
    lines = demo._REAL["pose3d"]
    words = [line.split() for line in lines if " train " in line]
    assert [load_recipe(line[line.index("train") + 1]).config.stage.name for line in words] == ["2d"]
    for name in ("stage-2-2s", "full-2s"):
        assert name in "\n".join(lines)
        assert "run.start=WEIGHTS" in load_recipe(f"pose3d/{name}").description
