"""`export` of the five systems: one file computes what the network does, for any number of inputs."""

from __future__ import annotations

import errno
import sys
from pathlib import Path

import pytest
import runs
import torch
from torch import nn

from fastpose import models
from fastpose.cli import export
from fastpose.training import systems

BATCHES = (1, 2, 3, 4, 5)

# What differs from the smallest recipe, so that every kind of attention is in the file; what the command says of it.
SYSTEMS: dict[str, tuple[tuple[str, ...], str]] = {
    "sagan": (("model.sarm=B",), "image (batch, 3, 32, 32), batch free"),
    "pona": (("model.self_attention=yes",), "image (batch, 3, 32, 16), guides (batch, 36, 32, 16), batch free"),
    "pose3d": ((), "image (batch, 3, 64, 64), batch free"),
    "multiscale": ((), "image (batch, 3, 32, 16), guides (batch, 36, 32, 16), batch free"),
    "caption": (("model.self_attention=yes",), "noise (batch, 8), text (batch, 384), batch free"),
}


def trained(system: str, folder: Path) -> Path:
    """Return weights of a system that took three steps."""
    options = (*SYSTEMS[system][0], "run.max_steps=3", "run.workers=0")
    return runs.train(system, folder / "runs", *options).folder / "weights" / "last.safetensors"


def drawn(shapes: dict[str, tuple[int, ...]], batch: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(batch)
    return [torch.rand(batch, *shape, generator=generator) for shape in shapes.values()]


@pytest.mark.slow
@runs.every_system
@pytest.mark.parametrize("suffix", ["pt2", "onnx"])
def test_promise_25_an_exported_network_is_the_network(run, tmp_path, system, suffix):
    if suffix == "onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(package, reason="the export extra is not installed")
    weights, out = trained(system, tmp_path), tmp_path / f"model.{suffix}"
    code, told, err = run("export", f"{system}/tiny", "--weights", weights, "-o", out)
    assert (code, err) == (0, "")
    assert SYSTEMS[system][1] in told
    noise = "noise: drawn from N(0, 1); text: the encoder's vectors times 30; heatmaps come out in [-1, 1]\n"
    assert told.endswith(noise) == (system == "caption")
    found, config, network = systems.load_network(weights)
    program = load(out)
    for batch in BATCHES:
        inputs = drawn(export.input_shapes(found, config), batch)
        with torch.no_grad():
            outputs, expected = program(*inputs), export._listed(network.eval()(*inputs))
        for ours, theirs in zip(outputs, expected, strict=True):
            assert ours.shape == theirs.shape
            difference = float((ours - theirs).abs().max())
            assert difference <= export.TOLERANCE, f"batch {batch}: {difference}"
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"model.{suffix}", "runs"]


def load(path: Path):
    """Return what runs an exported file: inputs -> list of outputs."""
    if path.suffix == ".pt2":
        module = torch.export.load(path).module()
        return lambda *inputs: export._listed(module(*inputs))
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    return lambda *inputs: [
        torch.from_numpy(array)
        for array in session.run(None, {name: value.numpy() for name, value in zip(names, inputs, strict=True)})
    ]


class Drifting(nn.Module):
    """Gives another answer where it is exported, so that no program can agree with it."""

    def __init__(self, drift: float) -> None:
        super().__init__()
        self.drift = drift

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        return [image, image + (self.drift if torch.compiler.is_exporting() else 0.0)]


@pytest.mark.parametrize("drift", [1.0, 2e-4, -1e30, float("nan"), float("inf")])
def test_promise_25_a_larger_difference_is_refused_and_leaves_no_file(tmp_path, drift):
    with pytest.raises(ValueError, match=r"model\.pt2: differs from eager by \S+, at most 1e-04 wanted"):
        export.export_network(Drifting(drift), {"image": (3, 8, 8)}, tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []


def test_promise_25_a_smaller_difference_is_told(tmp_path):
    found = export.export_network(Drifting(5e-5), {"image": (3, 8, 8)}, tmp_path / "model.pt2")
    assert found == pytest.approx(5e-5, rel=1e-2)


def test_promise_25_a_full_disk_is_an_error_and_leaves_no_file(tmp_path, monkeypatch):
    def full(path: Path, data: bytes) -> int:
        with open(path, "wb") as stream:
            stream.write(data[:100])
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left on device"):
        export.export_network(Drifting(0.0), {"image": (3, 8, 8)}, tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []


def test_promise_25_the_extra_is_named_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"to ONNX needs onnx\w*; install it: pip install 'fastpose\[export\]'"):
        export.export_network(models.create("hourglass.tiny"), {"image": (3, 64, 64)}, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
