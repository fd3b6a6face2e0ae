"""The run folder: its layout, that nothing is overwritten, and the log inside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import toy_system

from fastpose.training.logbook import Logbook
from fastpose.training.run_folder import RunFolder, environment


def test_a_name_that_is_taken_gets_a_number(tmp_path: Path) -> None:
    names = [RunFolder.create("toy/points", tmp_path, "mine").path.name for _ in range(3)]
    assert names == ["mine", "mine-2", "mine-3"]
    assert (tmp_path / "toy" / "points" / "mine" / "weights").is_dir()


def test_spaces_and_unicode_are_fine(tmp_path: Path) -> None:
    run = RunFolder.create("toy/points", tmp_path / "ä folder", "läuft 1")
    assert run.state.is_dir()


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", "", " x"])
def test_a_name_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    if not name:
        assert RunFolder.create("r", tmp_path, name).path.name == "run"
        return
    with pytest.raises(ValueError, match="run name"):
        RunFolder.create("r", tmp_path, name)


def test_opening(tmp_path: Path) -> None:
    run = RunFolder.create("toy/points", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"holds no config\.yaml"):
        RunFolder.open(run.path)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        RunFolder.open(tmp_path / "absent")
    run.write_config(toy_system.recipe())
    (run.state / "save.json").touch()
    assert RunFolder.open(run.path) == RunFolder.open(run.state) == RunFolder.open(run.state / "save.json") == run


def test_the_configuration_is_written_in_full(tmp_path: Path) -> None:
    run = RunFolder.create("toy/points", tmp_path)
    recipe = toy_system.recipe("lr=0.5")
    run.write_config(recipe)
    name, values = run.read_config()
    assert name == "toy/points"
    assert toy_system.configuration.from_dict(toy_system.ToyConfig, values) == recipe.config


def test_a_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    with pytest.raises(OSError, match="could not be made"):
        RunFolder.create("toy", tmp_path / "runs")


def test_environment_names_versions() -> None:
    found = environment()
    assert found["packages"]["torch"].startswith("2.")
    assert found["cpu_threads"] >= 1
    assert json.dumps(found)


ROW = {"kind": "train", "step": 1, "epoch": 1, "pose": 0.5}
EVALUATION = {"kind": "evaluation", "step": 1, "epoch": 1, "name": "PCK@0.2", "value": 50.0, "protocol": "p"}


def test_the_table_grows_columns(tmp_path: Path) -> None:
    book = Logbook(tmp_path)
    book.append(ROW)
    book.append(EVALUATION)
    book.append(ROW | {"step": 2, "pose": float("nan")})
    book.flush()
    assert (tmp_path / "metrics.csv").read_text().splitlines() == [
        "kind,step,epoch,pose,PCK@0.2",
        "train,1,1,0.5,",
        "evaluation,1,1,,50.0",
        "train,2,1,,",
    ]
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[2])["pose"] is None


def test_a_resume_cuts_the_log(tmp_path: Path) -> None:
    book = Logbook(tmp_path)
    for step in (1, 2, 3):
        book.append(ROW | {"step": step})
    book.append(EVALUATION)
    with open(tmp_path / "metrics.jsonl", "a") as stream:
        stream.write('{"kind": "tr')  # a kill in the middle of a line
    again = Logbook(tmp_path)
    again.resume(2)
    again.append(ROW | {"step": 3})
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3]
    assert (
        tmp_path / "metrics.csv"
    ).read_text() == "kind,step,epoch,pose\ntrain,1,1,0.5\ntrain,2,1,0.5\ntrain,3,1,0.5\n"
