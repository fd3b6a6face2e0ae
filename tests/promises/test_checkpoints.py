"""Weights and resume points of every system: whole, verified, without pickle, and one sentence for all that is none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import golden_runs
import mutations
import pytest
import runs
import torch
from torch import Tensor
from trained import Trained, new_job

from fastpose import cli
from fastpose.training import checkpoint, resume_point, systems
from fastpose.training import config as configuration

JSON_CASES, JSON_CASES_SLOW = 5, 100
"""Resume points of every system with values of another kind."""


def equal(first: dict[str, list[Tensor]], second: dict[str, list[Tensor]]) -> bool:
    pairs = [(a, b) for name in first for a, b in zip(first[name], second[name], strict=True)]
    return bool(pairs) and first.keys() == second.keys() and all(torch.equal(a, b) for a, b in pairs)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Trained]:
    """Return what trains a system for two steps, once, with a resume point after each."""
    known: dict[str, Trained] = {}

    def get(system: str) -> Trained:
        if system not in known:
            known[system] = Trained(system, tmp_path_factory.mktemp(system))
        return known[system]

    return get


@pytest.fixture
def run(made: Callable[[str], Trained], system: str, tmp_path: Path) -> Path:
    """A copy of a system's run that may be spoilt."""
    return Path(shutil.copytree(made(system).folder, tmp_path / "run"))


# ------------------------------------------------------------------------------------- what is saved is what is loaded


@runs.every_system
def test_promise_5_weights_and_resume_point_compute_the_same_bits(
    made: Callable[[str], Trained], system: str, run: Path
) -> None:
    one = made(system)
    assert one.given.keys() == one.networks.keys()
    expected = one.seen(one.networks)
    job = new_job(system, run)
    assert not equal(one.seen(job.trainer.networks), expected)
    job.resume(run, allow_changes=True)
    assert equal(one.seen(job.trainer.networks), expected)
    assert job.ema is not None
    main = one.trainer.main_network
    average = one.seen({main: job.ema.average})
    for which in ("last", "best"):
        found, _, network = systems.load_network(run / "weights" / f"{which}.safetensors")
        assert found.name == system
        if job.channels_last:  # in another order in memory, sums are taken in another order
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        assert equal(one.seen({main: network}), average)


@runs.every_system
@pytest.mark.parametrize("version", range(1, checkpoint.FORMAT_VERSION + 1))
def test_promise_5_runs_of_older_formats_go_on(tmp_path: Path, system: str, version: int) -> None:
    run, expected = golden_runs.unpack(system, version, tmp_path)
    weights = run / "weights" / "last.safetensors"
    assert runs.state_hash(run) == expected["state"]
    assert checkpoint.hash_tensors(checkpoint.load_weights(weights)[0]) == expected["weights"]
    assert checkpoint.load_weights(weights)[1]["format_version"] == version
    assert systems.load_network(weights)[0].name == system
    # Another version may have other data in its package.
    result = runs.train(system, tmp_path, "run.max_steps=2", resume=run, allow_changes=True)
    assert (result.folder, result.step) == (run, 2)


# ----------------------------------------------------------------------------------------------- eight malformed files


def flipped(data: bytes) -> bytes:
    return data[:-5] + bytes([data[-5] ^ 4]) + data[-4:]


def header(data: bytes) -> bytes:
    return data[: 8 + int.from_bytes(data[:8], "little")]


MALFORMED: dict[str, Callable[[bytes], bytes]] = {
    "half": lambda data: data[: len(data) // 2],
    "header only": header,
    "empty": lambda data: b"",
    "random bytes": lambda data: bytes(range(256)) * 9,
    "text": lambda data: b"these are no weights\n",
    "JPEG": lambda data: b"\xff\xd8\xff\xe0" + data[4:700],
    "one flipped bit": flipped,
}
"""Seven; the eighth is a good file of another recipe."""
ALONE = {
    "half": "file truncated",
    "header only": "file truncated",
    "empty": r"is empty \(0 bytes\)",
    "random bytes": "of something else",
    "text": "of something else",
    "JPEG": "of a JPEG image",
    "one flipped bit": "the tensors differ from the sha256",
}


@runs.every_system
@pytest.mark.parametrize("fault", MALFORMED)
def test_promise_4_malformed_weights_are_one_sentence(
    run: Path, system: str, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / "weights" / "last.safetensors"
    path.write_bytes(MALFORMED[fault](path.read_bytes()))
    for manifest in (True, False):
        if not manifest:
            path.with_suffix(".json").unlink()
        sentence = ALONE[fault] if not manifest or fault == "empty" else "sha256 differs from its manifest"
        with pytest.raises(ValueError, match=rf"last\.safetensors: .*{sentence}") as error:
            systems.load_network(path)
        assert "\n" not in str(error.value)
    verbs = {
        "eval": ["eval", f"{system}/tiny", "--weights", path],
        "predict": ["predict", "missing.jpg", "--weights", path, "-o", run / "drawn"],
        "export": ["export", f"{system}/tiny", "--weights", path, "-o", run / "model.pt2"],
        "train": ["train", f"{system}/tiny", f"run.start={path}", "--out", run / "new", *runs.overrides(system)],
    }
    for verb in verbs if fault == "half" else [list(verbs)[len(fault) % len(verbs)]]:
        assert cli.main([str(word) for word in verbs[verb]]) == 2, verb
        printed = capsys.readouterr().err
        assert printed.count("\n") == 1, printed
        assert verb == "predict" or "last.safetensors" in printed
    assert not {"drawn", "model.pt2", "new"} & {entry.name for entry in run.iterdir()}


@runs.every_system
@pytest.mark.parametrize("half", [".safetensors", ".json"])
@pytest.mark.parametrize("fault", MALFORMED)
def test_promise_4_a_malformed_resume_point_is_one_sentence(run: Path, system: str, fault: str, half: str) -> None:
    earlier, newest = resume_point.saves(run / "state")
    path = newest.with_suffix(half)
    data = path.read_bytes()
    in_json = {"header only": data[:200], "one flipped bit": data.replace(b'"step": 2', b'"step": 3')}
    path.write_bytes(in_json[fault] if half == ".json" and fault in in_json else MALFORMED[fault](data))
    with pytest.raises(ValueError, match=path.name) as error:
        resume_point.load(run / "state")
    assert "\n" not in str(error.value)
    assert str(earlier) in str(error.value) or fault == "empty"
    assert resume_point.load(earlier)[0]["position"]["step"] == 1  # what is offered instead loads


@runs.every_system
def test_promise_4_files_of_another_recipe_are_refused(made: Callable[[str], Trained], run: Path, system: str) -> None:
    other = next(name for name in runs.SYSTEMS if name != system)
    path = run / "weights" / "last.safetensors"
    with pytest.raises(ValueError, match=f"holds weights of recipe {system}/tiny, expected {other}/tiny"):
        systems.load_network(path, recipe=f"{other}/tiny")
    job = new_job(other, run)
    with pytest.raises(ValueError, match=rf"is of recipe {system}/tiny, cannot go on as {other}/tiny"):
        job.resume(run / "state", allow_changes=True)


MANIFESTS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no sha256": (lambda m: m | {"files": {"last.safetensors": {"bytes": 3}}}, "sha256 differs"),
    "an entry of text": (lambda m: m | {"files": {"last.safetensors": "x"}}, "which holds none of this file"),
    "bytes of text": (lambda m: m | {"files": {"last.safetensors": {"sha256": "x", "bytes": "y"}}}, "sha256 differs"),
    "of another file": (lambda m: m | {"files": {"other.safetensors": {"sha256": "x"}}}, ""),
    "a version of text": (lambda m: m | {"format_version": "1"}, "format_version '1'"),
    "a version that is true": (lambda m: m | {"format_version": True}, "format_version True"),
    "before is a list": (lambda m: m | {"before": [1]}, ""),
    "no recipe": (
        lambda m: {k: v for k, v in m.items() if k != "recipe"},
        "differs from the file's own header in recipe",
    ),
    "another step": (lambda m: m | {"step": 3}, "differs from the file's own header in step"),
    "a list": (lambda m: [m], ""),
}


@pytest.mark.parametrize("fault", MANIFESTS)
@pytest.mark.parametrize("system", ["caption"])
def test_promise_4_a_manifest_that_is_none_is_one_sentence(run: Path, fault: str, system: str) -> None:
    path = run / "weights" / "last.safetensors"
    spoil, sentence = MANIFESTS[fault]
    manifest = path.with_suffix(".json")
    manifest.write_text(json.dumps(spoil(json.loads(manifest.read_text()))))
    if not sentence:  # the header of the file itself says all that is needed
        assert systems.load_network(path)[0].name == system
        return
    with pytest.raises(ValueError, match=sentence) as error:
        systems.load_network(path)
    assert str(path) in str(error.value) or str(manifest) in str(error.value)


# -------------------------------------------------------------------------------------------- values of another kind


def try_values(system: str, run: Path, cases: int) -> None:
    """Resume from manifests with values of another kind, without the hash that would tell of it."""
    job = new_job(system, run)
    path = resume_point.saves(run / "state")[-1]
    good = json.loads(path.read_text())
    good.pop("manifest_sha256")
    for seed in range(cases):
        inner = {"state": mutations.mutated_tree(good["state"], seed)}
        path.write_text(json.dumps(good | inner if seed % 5 else mutations.mutated_tree(good, seed)))
        mutations.sentences(
            lambda: job.resume(path, allow_changes=True), path, f"{system} {seed}", named=(path.with_suffix(""),)
        )
        assert all(type(value) is int and value >= 0 for value in vars(job.position).values()), seed


@runs.every_system
def test_promise_4_a_resume_point_of_other_values_is_one_sentence(run: Path, system: str) -> None:
    try_values(system, run, JSON_CASES)


@pytest.mark.slow
@runs.every_system
def test_promise_4_many_resume_points_of_other_values_are_one_sentence(run: Path, system: str) -> None:
    try_values(system, run, JSON_CASES_SLOW)


@pytest.mark.parametrize("system", ["caption"])
def test_promise_4_weights_with_a_manifest_of_other_values_are_one_sentence(run: Path, system: str) -> None:
    path = run / "weights" / "last.safetensors"
    good = json.loads(path.with_suffix(".json").read_text())
    for seed in range(20 * JSON_CASES):
        path.with_suffix(".json").write_text(json.dumps(mutations.mutated_tree(good, seed)))
        mutations.sentences(lambda: systems.load_network(path), path, seed, named=(path.with_suffix(".json"),))


# ------------------------------------------------------------------------------------------------ bombs in the header


def safetensors(content: dict[str, Any] | bytes, data: bytes = b"") -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}


BOMBS: dict[str, bytes] = {
    "a header of 2^60 bytes": (2**60).to_bytes(8, "little") + b"{}",
    "a header of 2^64 - 1 bytes": b"\xff" * 8 + b"{}",
    "deep nesting": safetensors(b'{"__metadata__": {"fastpose": ' + b"[" * 100_000),
    "deep nesting in the text": safetensors({"__metadata__": {"fastpose": "[" * 100_000}}),
    "one key twice": safetensors(b'{"a": %s, "a": %s}' % ((json.dumps(entry([1], 0, 4)).encode(),) * 2), bytes(4)),
    "overlapping tensors": safetensors({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, bytes(12)),
    "a tensor of 10^12 numbers": safetensors({"a": entry([10**12], 0, 4)}, bytes(4)),
    "sizes that wrap round": safetensors({"a": entry([2**32, 2**32], 0, 0)}),
    "sizes below zero": safetensors({"a": entry([-1], 0, 4)}, bytes(4)),
    "offsets beyond the file": safetensors({"a": entry([2**40], 0, 2**42)}, bytes(4)),
    "metadata that is a number": safetensors({"__metadata__": 3, "a": entry([1], 0, 4)}, bytes(4)),
    "a hash of another kind": safetensors(
        {"__metadata__": {"fastpose": '{"tensors_sha256": 3}'}, "a": entry([1], 0, 4)}, bytes(4)
    ),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_promise_4_a_header_that_lies_is_one_sentence(tmp_path: Path, bomb: str) -> None:
    path = tmp_path / "bomb.safetensors"
    path.write_bytes(BOMBS[bomb])
    for load in (checkpoint.load_weights, systems.load_network, systems.of):
        assert isinstance(mutations.sentences(lambda load=load: load(path), path, bomb), str)
    for load in (checkpoint.read_about, checkpoint.load_foreign):
        mutations.sentences(lambda load=load: load(path), path, bomb)


def test_promise_4_damaged_weights_are_never_loaded(tmp_path: Path) -> None:
    """Whatever changes is noticed by the hash in the header alone, without a manifest."""
    path = tmp_path / "w.safetensors"
    tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(3, dtype=torch.int64)}
    checkpoint.save_weights(path, tensors, {"recipe": "r"})
    path.with_suffix(".json").unlink()
    good = path.read_bytes()
    for seed in range(400):
        path.write_bytes(mutations.mutated(good, seed))
        found = mutations.sentences(lambda: checkpoint.load_weights(path), path, seed)
        assert isinstance(found, str) or checkpoint.hash_tensors(found[0]) == checkpoint.hash_tensors(tensors), seed


# ------------------------------------------------------------------------------------------------ weights do not fit


@runs.every_system
def test_promise_7_weights_that_do_not_fit_say_why(made: Callable[[str], Trained], system: str) -> None:
    recipe = made(system).recipe
    theirs = configuration.to_dict(recipe.config)
    ours = theirs | {"run": theirs["run"] | {"batch_size": 99}}
    for name, network in made(system).networks.items():
        state = dict(network.state_dict())
        for key in list(state)[:3]:
            state[f"other.{key}"] = state.pop(key)
        state |= {key: value.new_zeros(2, *value.shape) for key, value in list(state.items())[:1]}
        with pytest.raises(ValueError, match="does not fit the network") as error:
            checkpoint.load_into(network, state, source="w.safetensors", manifest={"config": theirs}, config=ours)
        text = str(error.value)
        assert text.count(" is missing") == 3, name
        assert text.count(" is not of this network") == 2, name
        assert "and 2 more; configuration: run.batch_size is" in text, name
        assert "there and 99 here" in text
    assert f"checkpoint w.safetensors: does not fit the network: {next(iter(network.state_dict()))} is missing" in text
