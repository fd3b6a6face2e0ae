"""Runs of system 004 through the engine: stopped between two turns of the generator, begun with other weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import caption_files
import numpy as np
import pytest
import torch
from runs import state_hash

from fastpose import training
from fastpose.data import captions, text
from fastpose.training import caption, checkpoint, outcome, resume_point, systems

FEW = ("data.minimum_joints=17", "test.r_precision=0")  # 39 poses to train on
QUICK = (*FEW, "run.evaluate_every=0")
LONG = ("run.batch_size=13", "run.ema=0.9", "run.evaluate_every=1")  # three steps an epoch
PLAIN = ("model.conditional=no", "text.encoder=")


def run(out: Path, *overrides: str, **options: Any) -> Any:
    """Train without the pictures and the report, which take longer than all else."""
    with mock.patch.object(outcome, "write_pictures", return_value=[]), mock.patch.object(outcome, "write_report"):
        return training.train("caption/tiny", [*QUICK, *overrides], out=out, progress=False, **options)


def networks_of(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    return resume_point.load(folder / "state")[0]["networks"]


def equal(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A conditional run of five updates of the critic, two of the generator; an epoch ends after the third."""
    overrides = [*QUICK, *LONG, "run.max_steps=5"]
    return training.train("caption/tiny", overrides, out=tmp_path_factory.mktemp("whole"), progress=False)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An unconditional run."""
    return run(tmp_path_factory.mktemp("plain"), *PLAIN, "run.max_steps=2")


def test_a_run_leaves_scores_losses_and_pictures(whole: Any) -> None:
    names = {result.name for result in whole.results}
    assert {"1-NN accuracy", "1-NN off 50 %", "NN distance gap", "critic loss", "generator loss"} <= names
    rows = [json.loads(line) for line in (whole.folder / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if row["kind"] == "train"]
    assert all({"real", "fake", "mismatched", "critic", "penalty"} <= row.keys() for row in steps)
    assert ["generator" in row for row in steps] == [False, True, False, True, False]
    assert {path.stem for path in (whole.folder / "samples").glob("*.png")} >= {"captions", "nearest_distances"}


def test_weights_say_which_encoder_they_know(whole: Any, tmp_path: Path) -> None:
    weights = whole.folder / "weights/last.safetensors"
    encoder = text.create("sample")
    assert checkpoint.read_about(weights)["measured"] == {
        "text.size": encoder.size,
        "text.fingerprint": encoder.fingerprint,
    }
    _, config, network = systems.load_network(weights)
    assert (config.text.size, config.text.fingerprint) == (encoder.size, encoder.fingerprint)
    assert network.text_size == encoder.size
    text.save_vectors(tmp_path / "other.npz", Other(encoder.size), ["a man", "a woman"])
    with pytest.raises(ValueError, match=f"fingerprint {encoder.fingerprint}, got .*other.*fingerprint"):
        training.evaluate("caption/tiny", weights, [f"text.encoder={tmp_path / 'other.npz'}"])
    results = training.evaluate("caption/tiny", weights, list(FEW))
    known = {result.name: result.value for result in whole.results}
    assert results[0].value == known[results[0].name]


def test_poses_that_are_trained_on_judge_nothing(whole: Any) -> None:
    with pytest.raises(ValueError, match=r"39 of the 39 photographs of the validation poses are in the training set"):
        training.evaluate(
            "caption/tiny", whole.folder / "weights/last.safetensors", [*FEW, "data.validation_split=train"]
        )


class Other:
    """Another encoder of as many numbers."""

    name, fingerprint = "other", "0123456789abcdef"

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, texts: Any) -> np.ndarray:
        return np.ones((len(texts), self.size), np.float32)


def test_a_resume_with_another_encoder_is_refused(whole: Any) -> None:
    trainer = caption.CaptionTrainer(training.load_recipe("caption/tiny").config)
    with pytest.raises(ValueError, match="expected the one that the run was trained with, fingerprint ff"):
        trainer.load_state({"critic_updates": 1, "encoder": "ff"})


@pytest.mark.parametrize("value", ["XYZ", 3, ["a"]])
def test_a_measured_fingerprint_that_is_none_is_refused(value: object, whole: Any, tmp_path: Path) -> None:
    state, manifest = checkpoint.load_weights(whole.folder / "weights/last.safetensors")
    about = {key: manifest[key] for key in ("system", "recipe", "config", "step")}
    path = tmp_path / "weights.safetensors"
    checkpoint.save_weights(path, state, {**about, "measured": {"text.fingerprint": value}})
    with pytest.raises(ValueError, match=r"measured text\.fingerprint: expected hexadecimal digits, got"):
        systems.load_network(path)


# ---- the start -------------------------------------------------------------------------------------------------


def test_a_conditional_model_begins_with_an_unconditional_run(plain: Any) -> None:
    config = training.load_recipe("caption/tiny", [f"start.run={plain.folder}"]).config
    trainer = caption.CaptionTrainer(config)
    assert trainer.fresh == {}
    trainer.begin()
    known = networks_of(plain.folder)
    for name, inside, dimension in (("generator", 8, 0), ("discriminator", 16, 1)):
        own = trainer.networks[name].state_dict()
        widened = trainer.networks[name].widened[0]
        for key, value in known[name].items():
            found = own[key].narrow(dimension, 0, inside) if key == widened else own[key]
            assert torch.equal(found, value)
        assert any(key.startswith("compress.") for key in trainer.fresh[name])
    random = caption.CaptionTrainer(training.load_recipe("caption/tiny").config)
    random.begin()
    assert random.fresh == {}
    assert not equal(random.networks["generator"].state_dict(), trainer.networks["generator"].state_dict())


def test_a_resume_needs_no_run_to_begin_with(plain: Any, tmp_path: Path) -> None:
    lent = shutil.copytree(plain.folder, tmp_path / "lent")
    start = (f"start.run={lent}", "start.needed=yes")
    straight = run(tmp_path / "a", *start, "run.max_steps=3")
    first = run(tmp_path / "b", *start, "run.max_steps=1")
    shutil.rmtree(lent)
    again = run(tmp_path / "b", "start.needed=yes", "run.max_steps=3", resume=first.folder)
    assert state_hash(again.folder) == state_hash(straight.folder)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        run(tmp_path / "c", *start)


def test_a_start_that_has_seen_the_validation_poses_is_refused(plain: Any, tmp_path: Path) -> None:
    """Whatever the names of the data sets are: the sample's photographs are COCO's."""
    seen, unseen = (int(captions.sample(split, minimum_joints=17).image_ids[0]) for split in ("train", "val"))
    for image in (seen, unseen):
        for split, number in (("train", 1), ("val", image)):
            poses, sentences = [caption_files.person(number, number)], [caption_files.caption(number, "a man")]
            caption_files.write(tmp_path, poses, sentences, split=split)
        settings = (f"start.run={plain.folder}", "data.name=coco", f"data.root={tmp_path}", "test.r_precision=0")
        trainer = caption.CaptionTrainer(training.load_recipe("caption/tiny", settings).config)
        if image == unseen:
            trainer.begin()
            continue
        with pytest.raises(ValueError, match=rf"start\.run .*1 of the 1 photographs .*first {seen}; .*data section of"):
            trainer.begin()


def test_a_start_of_unknown_poses_is_refused(plain: Any) -> None:
    trainer = caption.CaptionTrainer(training.load_recipe("caption/tiny", [f"start.run={plain.folder}"]).config)
    state, manifest = resume_point.load(plain.folder / "state")
    cases: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        r"start\.run .*cannot tell whether .*did you mean 'sample'": (state, {"config": {"data": {"name": "sampl"}}}),
        "start.run .*expected a resume point with generator and discriminator": ({"networks": {}}, {}),
        "start.run .*expected a run of system caption, got one of 'pona'": (state, {"system": "pona"}),
    }
    for message, (known, about) in cases.items():
        told = mock.patch.object(resume_point, "load", return_value=(known, manifest | about))
        with told, pytest.raises(ValueError, match=message):
            trainer.begin()


def test_equal_networks_may_begin_with_weights(whole: Any, tmp_path: Path) -> None:
    weights = whole.folder / "weights/last.safetensors"
    result = run(tmp_path, f"run.start={weights}", "run.max_steps=1")  # the generator's turn does not come
    found = checkpoint.load_weights(result.folder / "weights/last.safetensors")[0]
    expected = checkpoint.load_weights(weights)[0]
    parameters = [key for key in expected if "running" not in key and "tracked" not in key]
    assert all(torch.equal(found[key], expected[key]) for key in parameters)


def test_a_start_that_does_not_fit_is_one_sentence(plain: Any, whole: Any, tmp_path: Path) -> None:
    cases = {
        "start.needed=yes": r"start\.run: expected the folder of an unconditional run .*start\.needed=no",
        f"start.run={whole.folder}": r"expected an unconditional run, got a conditional one \(caption/tiny\)",
        f"start.run={tmp_path / 'none'}": "no such folder",
    }
    for override, sentence in cases.items():
        with pytest.raises((ValueError, FileNotFoundError), match=sentence):
            run(tmp_path / "runs", override)
    with pytest.raises(ValueError, match=r"start\.run .*generator: weights: expected those of an"):
        run(tmp_path / "runs", f"start.run={plain.folder}", "model.widths=8,8,8,4")
    assert not (tmp_path / "runs").exists()


def test_what_cannot_be_encoded_or_judged_is_said_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"text\.encoder: captions need a text encoder; pass minilm"):
        run(tmp_path / "runs", "text.encoder=")
    with pytest.raises(ValueError, match="expected vectors of 12 numbers, as the model knows"):
        run(tmp_path / "runs", "text.size=12")
    with pytest.raises(ValueError, match=r"test\.r_precision: expected at most \d+.* got 200"):
        run(tmp_path / "runs", "test.r_precision=200")
    assert not (tmp_path / "runs").exists()
