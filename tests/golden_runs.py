"""Runs that an earlier version wrote, kept small in ``tests/training/golden``: later versions go on with them.

``python tests/golden_runs.py VERSION`` writes those of the present format, once, when a format is new.
"""

from __future__ import annotations

import json
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import runs
import torch
from torch import Tensor

from fastpose.training import checkpoint, resume_point

FOLDER = Path(__file__).parent / "training" / "golden"


def unpack(system: str, version: int, folder: Path) -> tuple[Path, dict[str, Any]]:
    """Return a copy of a system's run that a version wrote, and what was expected of it."""
    with zipfile.ZipFile(FOLDER / f"runs-{version}.zip") as archive:
        names = [name for name in archive.namelist() if name.startswith(f"{system}/")]
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(archive.read(name))
        return folder / system, json.loads(archive.read("expected.json"))[system]


def _plain(value: Any) -> Any:
    """Return state whose numbers repeat, which packs well: of the size and signs of those that were there."""
    if type(value) is dict:
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(inner) for inner in value)
    if not isinstance(value, Tensor) or not value.is_floating_point() or not value.numel():
        return value
    size = torch.exp2(value.abs().mean().clamp(min=1e-9).log2().round())
    turns = (torch.arange(value.numel()) * 7 % 17 - 8).view(value.shape) / 4
    return (size * (turns if value.min() < 0 else torch.ones_like(turns))).to(value.dtype)


def _write(system: str, folder: Path) -> dict[str, Any]:
    """Train for a step, put plain numbers into what was saved, and return what is expected of it."""
    run = runs.train(system, folder / "made", "run.max_steps=1").folder
    state, manifest = resume_point.load(run / "state")
    for path in (run / "state").iterdir():
        path.unlink()
    about = {key: manifest[key] for key in ("recipe", "system", "config", "data", "world_size")}
    resume_point.save(run / "state", _plain(state), about, manifest["step"])
    weights = run / "weights" / "last.safetensors"
    tensors, own = checkpoint.load_weights(weights)
    weights.with_suffix(".json").unlink()
    known = {key: value for key, value in own.items() if key not in ("files", "before", "tensors_sha256")}
    checkpoint.save_weights(weights, _plain(tensors), known)
    expected = checkpoint.hash_tensors(checkpoint.load_weights(weights)[0])
    run.rename(folder / system)
    return {"state": runs.state_hash(folder / system), "weights": expected}


def main(version: str) -> None:
    """Write ``runs-<version>.zip``."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        expected = {system: _write(system, folder) for system in runs.SYSTEMS}
        target = FOLDER / f"runs-{version}.zip"
        with zipfile.ZipFile(target, "w", zipfile.ZIP_LZMA) as archive:
            archive.writestr("expected.json", json.dumps(expected))
            for system in expected:
                kept = ("config.yaml", "state/*", "weights/last.*")
                for path in sorted(path for pattern in kept for path in (folder / system).glob(pattern)):
                    archive.write(path, f"{system}/{path.relative_to(folder / system)}")
        print(target, target.stat().st_size)


if __name__ == "__main__":
    main(sys.argv[1])
