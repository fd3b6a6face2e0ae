"""The loop: what it writes, when it evaluates and saves, what it refuses."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import runs
import torch
import toy_system

from fastpose import training
from fastpose.training import checkpoint, engine, loop, randomness, resume_point, systems
from fastpose.training.phases import NonFiniteError

SHORT = ("run.epochs=1", "data.length=16")


def rows(run: Path, kind: str) -> list[dict[str, Any]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


def test_a_run_leaves_the_promised_folder(tmp_path: Path) -> None:
    result = toy_system.train(tmp_path)
    assert result.folder == tmp_path / "toy" / "points" / "run"
    for name in ("config.yaml", "environment.json", "metrics.csv", "curves.png", "report.html", "samples/grey.png"):
        assert (result.folder / name).stat().st_size > 0, name
    for name in ("best", "last"):
        state, manifest = checkpoint.load_weights(result.folder / "weights" / f"{name}.safetensors")
        toy_system.ToyTrainer(toy_system.ToyConfig()).networks["generator"].load_state_dict(state)
        assert (manifest["recipe"], manifest["network"], manifest["config"]["lr"]) == ("toy/points", "generator", 0.01)
    assert (result.stopped, result.code, result.step, result.epoch) == ("finished", 0, 24, 2)
    assert [row["step"] for row in rows(result.folder, "train")] == list(range(3, 25, 3))
    assert [row["step"] for row in rows(result.folder, "evaluation")] == [12, 24]
    assert rows(result.folder, "train")[-1]["lr.generator"] == 0.005
    assert "minus the mean square error" in (result.folder / "report.html").read_text()


def test_promise_9_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    first, second = (toy_system.train(tmp_path / name).folder for name in "ab")
    names = ["metrics.csv", "metrics.jsonl", "config.yaml", "environment.json"]
    names += [f"weights/{which}.{suffix}" for which in ("best", "last") for suffix in ("safetensors", "json")]
    names += [f"state/{path.name}" for path in (first / "state").iterdir()]
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    assert runs.state_hash(first) != runs.state_hash(toy_system.train(tmp_path / "c", "run.seed=1").folder)


def test_promise_8_how_often_a_run_is_evaluated_does_not_change_it(tmp_path: Path) -> None:
    often = toy_system.train(tmp_path / "a", "run.evaluate_every=1", "run.log_every=1").folder
    once = toy_system.train(tmp_path / "b", "run.evaluate_every=0", "run.log_every=24").folder
    states = [checkpoint.load_weights(run / "weights" / "last.safetensors")[0] for run in (often, once)]
    assert checkpoint.hash_tensors(states[0]) == checkpoint.hash_tensors(states[1])
    assert len(rows(once, "evaluation")) == 1  # the last epoch always is


def test_promise_8_the_batches_do_not_depend_on_workers(tmp_path: Path) -> None:
    pair = [toy_system.train(tmp_path / str(n), *SHORT, f"run.workers={n}").folder for n in (0, 2)]
    assert runs.state_hash(pair[0]) == runs.state_hash(pair[1])


def test_accumulation_groups_batches(tmp_path: Path) -> None:
    result = toy_system.train(tmp_path, "run.accumulate=5", "run.epochs=1", "run.log_every=1")
    assert result.step == 2  # 12 batches; the two that are left over make no step
    with pytest.raises(ValueError, match=r"run\.accumulate: 13 batches of 4 make one step, the epoch has 12"):
        toy_system.train(tmp_path, "run.accumulate=13")


# ---- weights to begin with ---------------------------------------------------------------------------------------


BEGINNERS = {"pona/tiny": (), "sagan/tiny": (), "caption/tiny": ("model.conditional=no",)}


def published(recipe: str, path: Path) -> dict[str, torch.Tensor]:
    """Write weights as an import does, of another recipe and seed; return them."""
    loaded = training.load_recipe(recipe, ["run.seed=7", *BEGINNERS[recipe]])
    network = systems.get(loaded.system).network(loaded.config)
    checkpoint.save_weights(path, network, {"recipe": "another/recipe", "system": loaded.system, "step": 0})
    return network.state_dict()


@pytest.mark.parametrize("name", BEGINNERS)
def test_a_run_begins_with_given_weights(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = published(name, tmp_path / "given.safetensors")
    jobs: list[loop.Job] = []
    monkeypatch.setattr(loop.Job, "run", lambda job, progress: jobs.append(job) or loop.Ending("finished", 0))
    for start in (f"run.start={tmp_path}/given.safetensors", "run.start="):
        training.train(name, [start, "run.ema=0.9", *BEGINNERS[name]], out=tmp_path / "runs", progress=False)
    begun, fresh = jobs
    wanted = checkpoint.hash_tensors(given)
    assert checkpoint.hash_tensors(begun.main.state_dict()) == wanted
    assert checkpoint.hash_tensors(begun.published.state_dict()) == wanted  # the averaged weights begin there too
    assert checkpoint.hash_tensors(fresh.main.state_dict()) != wanted
    others = [{k: n.state_dict() for k, n in job.trainer.networks.items() if k != "generator"} for job in jobs]
    assert others[0].keys() == others[1].keys()
    for key, state in others[0].items():
        assert checkpoint.hash_tensors(state) == checkpoint.hash_tensors(others[1][key])


@pytest.mark.parametrize("name", ["pona/tiny", "sagan/tiny"])
def test_weights_that_do_not_fit_leave_no_folder(name: str, tmp_path: Path) -> None:
    other = "sagan/tiny" if name == "pona/tiny" else "pona/tiny"
    published(other, tmp_path / "given.safetensors")
    out = tmp_path / "runs"
    with pytest.raises(ValueError, match=r"given\.safetensors: does not fit the network: .* is missing"):
        training.train(name, [f"run.start={tmp_path}/given.safetensors"], out=out, progress=False)
    with pytest.raises(FileNotFoundError, match=r"absent\.safetensors: no such file"):
        training.train(name, [f"run.start={tmp_path}/absent.safetensors"], out=out, progress=False)
    assert not out.exists()


def test_a_trainer_begins_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own beginning comes before the average is made and files are written, and not again with a resume."""
    begun: list[bool] = []

    def begin(trainer: toy_system.ToyTrainer) -> None:
        begun.append((tmp_path / "toy").exists())
        torch.nn.init.zeros_(trainer.networks["generator"][0].weight)

    monkeypatch.setattr(toy_system.ToyTrainer, "begin", begin, raising=False)
    run = toy_system.train(tmp_path, "run.max_steps=1", "run.ema=0.999").folder
    state, _ = resume_point.load(run / "state")
    assert float(state["ema"]["average"]["0.weight"].abs().max()) < 0.1
    toy_system.train(tmp_path, "run.max_steps=2", "run.ema=0.999", resume=run)
    assert begun == [False]


def test_a_resume_has_weights_of_its_own(tmp_path: Path) -> None:
    first = toy_system.train(tmp_path / "first", *SHORT).folder / "weights" / "last.safetensors"
    start = f"run.start={first}"
    whole = toy_system.train(tmp_path / "whole", start).folder
    part = toy_system.train(tmp_path / "part", start, "run.max_steps=5").folder
    first.unlink()
    toy_system.train(tmp_path / "part", start, resume=part)
    assert runs.state_hash(part) == runs.state_hash(whole)
    assert runs.state_hash(whole) != runs.state_hash(toy_system.train(tmp_path / "plain").folder)


def test_a_resume_point_of_before_a_key_existed_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = toy_system.train(tmp_path, "run.max_steps=5").folder
    load = resume_point.load

    def older(path: Path) -> Any:
        state, manifest = load(path)
        del manifest["config"]["run"]["clip_norm"]
        return state, manifest

    monkeypatch.setattr(resume_point, "load", older)
    assert toy_system.train(tmp_path, resume=run).step == 24
    with pytest.raises(ValueError, match=r"cannot go on: run\.clip_norm was 0.0 and is 2.0"):
        toy_system.train(tmp_path, "run.clip_norm=2", "run.epochs=9", resume=run)


def test_what_the_training_set_told_goes_with_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = toy_system.train(tmp_path, *SHORT).folder
    monkeypatch.setattr(toy_system.ToyTrainer, "measured", lambda trainer: {"data.size": 1.5}, raising=False)
    told = toy_system.train(tmp_path, *SHORT).folder
    for name in ("best", "last"):
        assert checkpoint.load_weights(told / "weights" / f"{name}.safetensors")[1]["measured"] == {"data.size": 1.5}
        assert "measured" not in checkpoint.load_weights(plain / "weights" / f"{name}.safetensors")[1]


def test_the_training_set_is_asked_once_and_not_before_weights_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    step = toy_system.ToyTrainer.step

    def stepped(*arguments: Any) -> Any:
        happened.append("step")
        return step(*arguments)

    def measured(trainer: toy_system.ToyTrainer) -> dict[str, float]:
        happened.append("measured")
        return {"data.size": 1.5}

    monkeypatch.setattr(toy_system.ToyTrainer, "step", stepped)
    monkeypatch.setattr(toy_system.ToyTrainer, "measured", measured, raising=False)
    toy_system.train(tmp_path, *SHORT)
    assert happened == ["step"] * 4 + ["measured"]


def test_a_monitor_that_is_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy_system.ToyTrainer, "monitor", "scores")
    with pytest.raises(ValueError, match="unknown monitor 'scores'; did you mean 'score'"):
        toy_system.train(tmp_path, *SHORT)


def test_a_run_shorter_than_its_log_interval_has_a_row(tmp_path: Path) -> None:
    run = toy_system.train(tmp_path, *SHORT, "run.log_every=100").folder
    assert [(row["step"], row["epoch"]) for row in rows(run, "train")] == [(4, 1)]
    assert (run / "curves.png").is_file()


def test_limits_stop_and_evaluate(tmp_path: Path) -> None:
    result = toy_system.train(tmp_path, "run.max_steps=5")
    assert (result.stopped, result.step, result.code) == ("max_steps", 5, 0)
    assert [row["step"] for row in rows(result.folder, "evaluation")] == [5]
    late = toy_system.train(tmp_path, "run.max_minutes=0.000001")
    assert (late.stopped, late.step) == ("max_minutes", 1)


def test_checkpoints_by_steps_and_epochs(tmp_path: Path) -> None:
    run = toy_system.train(tmp_path, "run.epochs=3", "run.checkpoint_every=2", "run.checkpoint_steps=5").folder
    assert [path.stem[-2:] for path in resume_point.saves(run / "state")] == ["35", "36"]


def test_promise_13_weights_that_overflow_are_not_saved(tmp_path: Path) -> None:
    recipe = toy_system.recipe("run.skip_nonfinite=3", "run.checkpoint_steps=1")

    def make() -> toy_system.ToyTrainer:
        trainer = toy_system.ToyTrainer(recipe.config)
        trainer.optimizers["generator"].param_groups[0]["lr"] = math.inf
        return trainer

    with pytest.raises(NonFiniteError, match="step 1: weights of 'generator' are not finite and were not saved"):
        engine.launch(recipe, make, out=tmp_path, progress=False)
    (run,) = (tmp_path / "toy" / "points").iterdir()
    assert list((run / "weights").iterdir()) == list((run / "state").iterdir()) == []


def test_promise_13_a_start_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    run = toy_system.train(tmp_path / "first", *SHORT).folder
    weights, manifest = checkpoint.load_weights(run / "weights" / "last.safetensors")
    network = toy_system.ToyTrainer(toy_system.recipe().config).networks["generator"]
    network.load_state_dict(weights)
    torch.nn.init.constant_(network[0].bias, math.nan)
    checkpoint.save_weights(tmp_path / "nan.safetensors", network, manifest)
    with pytest.raises(ValueError, match=r"run\.start .*nan\.safetensors: holds NaN or infinite values; take other"):
        toy_system.train(tmp_path / "second", f"run.start={tmp_path / 'nan.safetensors'}")
    assert not (tmp_path / "second").exists()


def test_a_bad_start_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="batch_size"):
        toy_system.train(tmp_path / "runs", "run.batch_size=100")
    with pytest.raises(ValueError, match=r"run\.device: expected auto, cpu"):
        toy_system.train(tmp_path / "runs", "run.device=abacus")
    assert not (tmp_path / "runs").exists()


def test_the_average_is_what_is_published(tmp_path: Path) -> None:
    run = toy_system.train(tmp_path, "run.ema=0.99").folder
    weights, manifest = checkpoint.load_weights(run / "weights" / "last.safetensors")
    state, _ = resume_point.load(run / "state")
    assert manifest["averaged"] is True
    assert checkpoint.hash_tensors(weights) == checkpoint.hash_tensors(state["ema"]["average"])
    assert checkpoint.hash_tensors(weights) != checkpoint.hash_tensors(state["networks"]["generator"])


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_sixteen_bits_train(tmp_path: Path, precision: str) -> None:
    result = toy_system.train(tmp_path, f"run.precision={precision}", *SHORT)
    assert math.isfinite(result.results[0].value)


@pytest.mark.parametrize(
    ("wanted", "gaining", "expected"),
    [("none", ("cpu",), True), ("none", ("cuda",), False), ("no", ("cpu",), False), ("yes", (), True)],
)
def test_the_memory_order_is_the_systems_unless_the_run_names_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: str, gaining: tuple[str, ...], expected: bool
) -> None:
    seen = []
    monkeypatch.setattr(toy_system.ToyTrainer, "channels_last_on", gaining, raising=False)
    monkeypatch.setattr(torch.nn.Module, "to", lambda *_, **given: seen.append(given["memory_format"]))
    result = toy_system.train(tmp_path, "run.max_steps=1", f"run.channels_last={wanted}")
    assert set(seen) == {torch.channels_last if expected else torch.preserve_format}
    assert json.loads((result.folder / "environment.json").read_text())["channels_last"] is expected


def test_deterministic_is_switched_back(tmp_path: Path) -> None:
    toy_system.train(tmp_path, *SHORT, "run.deterministic=yes")
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_callers_random_state_can_be_kept() -> None:
    with randomness.preserved():
        first = torch.rand(2)
    assert torch.equal(torch.rand(2), first)


def test_promise_27_the_loop_itself_holds_no_more_and_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, resident = toy_system.ToyTrainer.step, {}

    def measured(self: Any, batch: Any, update: Any) -> Any:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        resident[self.count] = pages
        return original(self, batch, update)

    if not Path("/proc/self/statm").exists():
        pytest.skip("the resident memory of a process is read from /proc")
    monkeypatch.setattr(toy_system.ToyTrainer, "step", measured)
    toy_system.train(tmp_path, "run.epochs=40", "run.evaluate_every=0", "run.checkpoint_every=40")
    assert resident[450] / resident[250] < 1.02


def test_tensorboard_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match=r"run\.tensorboard: tensorboard is not installed; pip install"):
        toy_system.train(tmp_path / "runs", *SHORT, "run.tensorboard=yes")
    assert not (tmp_path / "runs").exists()


def test_lines_instead_of_a_bar(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy_system.train(tmp_path, *SHORT, "run.print_seconds=0", "run.log_every=1", progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert lines[1].startswith("step 2/4  epoch 1/1  ")
    assert "pose " in lines[1]
    assert lines[-1].startswith("epoch 1  step 4  score ")


def test_a_protocol_is_explained_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = toy_system.train(tmp_path, "run.epochs=3", "data.length=4", progress=True).folder
    lines = [line for line in capsys.readouterr().err.splitlines() if "score " in line]
    assert len(lines) == 3
    assert [line.endswith("[minus the mean square error]") for line in lines] == [True, False, False]
    assert {row["protocol"] for row in rows(folder, "evaluation")} == {"minus the mean square error"}
