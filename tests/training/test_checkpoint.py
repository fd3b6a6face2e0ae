"""Weights: verified, atomic, and one sentence for everything that is none."""

from __future__ import annotations

import json
import math
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fastpose import _files
from fastpose.training import checkpoint

GOLDEN = Path(__file__).parent / "golden"
ABOUT = {"recipe": "toy/points", "config": {"model": {"width": 3}}, "step": 7}


def network(seed: int = 0, width: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width), nn.Linear(width, 1))


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "best.safetensors"
    checkpoint.save_weights(path, network(), ABOUT)
    return path


def test_promise_5_what_is_saved_is_loaded(saved: Path) -> None:
    state, manifest = checkpoint.load_weights(saved, recipe="toy/points")
    assert equal(state, network().state_dict())
    assert (manifest["step"], manifest["config"], manifest["format_version"]) == (7, {"model": {"width": 3}}, 1)
    assert manifest["files"]["best.safetensors"]["bytes"] == saved.stat().st_size
    again = network(seed=1)
    checkpoint.load_into(again, state, source=saved)
    x = torch.randn(4, 2)
    assert torch.equal(again.eval()(x), network().eval()(x))


def test_the_same_weights_give_the_same_file(saved: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    checkpoint.save_weights(other, network(), ABOUT)
    assert other.read_bytes() == saved.read_bytes()


def test_shared_and_strided_tensors_are_saved(tmp_path: Path) -> None:
    base = torch.arange(12.0).view(3, 4)
    state = {"a": base, "b": base, "c": base.t(), "d": base[1], "e": torch.zeros(0, 3), "f": torch.tensor(2)}
    checkpoint.save_weights(tmp_path / "w.safetensors", state, ABOUT)
    assert equal(checkpoint.load_weights(tmp_path / "w.safetensors")[0], state)


def test_promise_4_a_file_that_travels_alone_is_still_verified(saved: Path) -> None:
    saved.with_suffix(".json").unlink()
    assert checkpoint.load_weights(saved)[1]["recipe"] == "toy/points"
    flip(saved)
    with pytest.raises(ValueError, match=r"best.safetensors: the tensors differ from the sha256"):
        checkpoint.load_weights(saved)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def header_only(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: 8 + int.from_bytes(data[:8], "little")])


def other_brace(path: Path) -> None:
    """Spoil the JSON of the header, all of whose tensors are there."""
    data = bytearray(path.read_bytes())
    data[7 + int.from_bytes(data[:8], "little")] = ord("{")
    path.write_bytes(data)


def other_length(path: Path) -> None:
    """Let the header begin with another length."""
    data = path.read_bytes()
    path.write_bytes((int.from_bytes(data[:8], "little") - 40).to_bytes(8, "little") + data[8:])


def cut_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


def jpeg(path: Path) -> None:
    path.write_bytes(b"\xff\xd8\xff\xe0" + os.urandom(500))


def pickled(path: Path) -> None:
    torch.save({"a": torch.ones(3)}, path)


BAD: list[tuple[Callable[[Path], Any], str, str]] = [
    (flip, "sha256 differs from its manifest .file changed", "the tensors differ from the sha256"),
    (half, r"sha256 differs from its manifest \(file truncated at [\d,]+ of [\d,]+ bytes\)", "expected a safetensors"),
    (header_only, "file truncated at", r"bytes that end before its tensors do \(file truncated\); restore it"),
    (cut_header, "file truncated at", r"bytes that end before its tensors do \(file truncated\); restore it"),
    (other_brace, "sha256 differs", r"bytes with a damaged header \(file changed\); restore it"),
    (other_length, "sha256 differs", r"bytes with a damaged header \(file changed\); restore it"),
    (lambda path: path.write_bytes(b""), r"is empty \(0 bytes\)", r"is empty \(0 bytes\)"),
    (lambda path: path.write_bytes(bytes(range(256)) * 9), "sha256 differs", "expected a safetensors file"),
    (lambda path: path.write_text("weights"), "sha256 differs", "found 7 bytes of something else"),
    (jpeg, "sha256 differs", "of a JPEG image"),
    (pickled, "sha256 differs", "'fastpose import' converts published files"),
    (lambda path: path.unlink(), "no such file", "no such file"),
]


@pytest.mark.parametrize("with_manifest", [True, False])
@pytest.mark.parametrize("case", range(len(BAD)))
def test_promise_4_a_malformed_file_is_one_sentence_with_its_name(saved: Path, case: int, with_manifest: bool) -> None:
    spoil, sentence, sentence_alone = BAD[case]
    spoil(saved)
    if not with_manifest:
        saved.with_suffix(".json").unlink()
    with pytest.raises((ValueError, FileNotFoundError), match=sentence if with_manifest else sentence_alone) as caught:
        checkpoint.load_weights(saved)
    assert str(saved) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_promise_4_the_sentence_offers_the_other_weights(saved: Path) -> None:
    checkpoint.save_weights(saved.with_name("last.safetensors"), network(), ABOUT)
    half(saved)
    with pytest.raises(ValueError, match=r"restore it or pass --weights .*last\.safetensors"):
        checkpoint.load_weights(saved)


def test_folder_foreign_newer_and_other_recipe(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a folder"):
        checkpoint.load_weights(tmp_path)
    with pytest.raises(ValueError, match="holds weights of recipe toy/points, expected toy/other"):
        checkpoint.load_weights(saved, recipe="toy/other")
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(ValueError, match="is safetensors but not of fastpose"):
        checkpoint.load_weights(tmp_path / "foreign.safetensors")
    manifest = json.loads(saved.with_suffix(".json").read_text())
    saved.with_suffix(".json").write_text(json.dumps(manifest | {"format_version": 99}))
    with pytest.raises(ValueError, match="format_version 99, expected 1 to 1"):
        checkpoint.load_weights(saved)
    saved.with_suffix(".json").write_text("{")
    with pytest.raises(ValueError, match=r"manifest .*best\.json: expected JSON"):
        checkpoint.load_weights(saved)


@pytest.mark.parametrize("other", [[{"image": "a.jpg"}], {"people": []}, {"files": None}, {"files": {}}, "text"])
def test_json_of_another_kind_beside_the_weights_is_no_manifest(saved: Path, other: object) -> None:
    """Key points may well have the name of the weights that found them."""
    saved.with_suffix(".json").write_text(json.dumps(other))
    assert checkpoint.load_weights(saved)[1]["step"] == 7


def test_promise_4_a_manifest_in_another_order_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    checkpoint.save_weights(path, network(), ABOUT | {"results": {"PCKh": 0.5, "AUC": math.nan}})
    manifest = path.with_suffix(".json")
    manifest.write_text(json.dumps(json.loads(manifest.read_text()), sort_keys=True))
    checkpoint.load_weights(path)


def test_promise_7_a_mismatch_lists_five_keys_and_the_difference(saved: Path) -> None:
    state, manifest = checkpoint.load_weights(saved)
    with pytest.raises(ValueError, match="does not fit the network") as caught:
        checkpoint.load_into(network(width=5), state, source=saved, manifest=manifest, config={"model": {"width": 5}})
    text = str(caught.value)
    assert "0.weight is (3, 2), expected (5, 2)" in text
    assert "and 2 more" in text
    assert "configuration: model.width is 3 there and 5 here" in text
    with pytest.raises(ValueError, match=r"2\.bias is missing; extra is not of this network"):
        checkpoint.load_into(
            network(), {"extra": state["0.bias"]} | {k: v for k, v in state.items() if k != "2.bias"}, source="x"
        )


def test_promise_5_files_of_version_1_keep_loading() -> None:
    state, manifest = checkpoint.load_weights(GOLDEN / "version-1.safetensors")
    assert manifest["format_version"] == 1
    assert torch.equal(state["weight"], torch.tensor([[0.5, -1.0], [2.0, 0.25]]))


class Poison(Exception):
    pass


@pytest.mark.parametrize("name", ["fsync", "replace", "open"])
@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_promise_1_a_failure_at_any_point_keeps_loadable_weights(
    saved: Path, monkeypatch: pytest.MonkeyPatch, name: str, call: int
) -> None:
    before = network().state_dict()
    calls = []
    original = getattr(os, name)

    def failing(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        if len(calls) == call:
            raise Poison
        return original(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(_files.os, name, failing)
        try:
            checkpoint.save_weights(saved, network(seed=1), ABOUT)
            failed = False
        except Poison:
            failed = True
    state, _ = checkpoint.load_weights(saved)
    assert equal(state, before) or equal(state, network(seed=1).state_dict())
    assert failed == (len(calls) >= call)
    assert [path for path in saved.parent.iterdir() if path.name.startswith(".")] == []


def test_promise_1_kills_in_a_row_between_manifest_and_file(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish = _files.publish
    for seed in (1, 2, 3):
        with monkeypatch.context() as patch:
            patch.setattr(_files, "publish", lambda path, data: None if path == saved else publish(path, data))
            checkpoint.save_weights(saved, network(seed), {**ABOUT, "step": seed})
        state, manifest = checkpoint.load_weights(saved)
        assert equal(state, network().state_dict())
        assert manifest["step"] == 7


@pytest.mark.parametrize("missing", [1, 200, 1000])
def test_promise_2_a_full_disk_is_an_error_and_loses_nothing(saved: Path, missing: int) -> None:
    limit = max(saved.stat().st_size, saved.with_suffix(".json").stat().st_size) - missing
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max(limit, 1), hard))
    try:
        with pytest.raises(
            OSError, match=r"could not be written \(File too large\); what was there before is unchanged"
        ):
            checkpoint.save_weights(saved, network(seed=1), ABOUT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert equal(checkpoint.load_weights(saved)[0], network().state_dict())


def test_promise_6_foreign_files_are_read_without_running_code(tmp_path: Path) -> None:
    torch.save({"state_dict": {"module.a": torch.ones(2)}, "epoch": 3}, tmp_path / "a.pth.tar")
    assert list(checkpoint.load_foreign(tmp_path / "a.pth.tar")) == ["module.a"]
    torch.save(nn.Linear(2, 2), tmp_path / "b.pt")
    (tmp_path / "c.pth").write_bytes(b"no checkpoint")
    torch.save({"epoch": 3}, tmp_path / "d.pt")
    for name, sentence in {
        "b.pt": "no PyTorch file of tensors",
        "c.pth": "no PyTorch file",
        "d.pt": "no tensors",
    }.items():
        with pytest.raises(ValueError, match=sentence) as caught:
            checkpoint.load_foreign(tmp_path / name)
        assert "\n" not in str(caught.value)
