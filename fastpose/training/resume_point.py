"""Resume points: the whole state of a training run in ``state/``, the newest and the one before it.

A save is a pair ``save-<number>-step-<step>`` of .safetensors and .json. The tensors are put in place first and the
manifest, which holds their sha256 and its own, last: a save exists when its manifest does. Names are never reused, so
that nothing is overwritten; the third oldest pair goes only when the newest is complete.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from fastpose import _files
from fastpose.training import checkpoint, state_tree

_NAME = re.compile(r"save-(\d+)-step-(\d+)\.json")
_KEPT = 2
_OWN_HASH = "manifest_sha256"  # over the rest of the manifest; files of earlier versions have none


def save(folder: Path, state: dict[str, Any], about: dict[str, Any], step: int) -> Path:
    """Publish a resume point and drop all but the two newest.

    Args:
        folder: the run's ``state`` folder.
        state: any nest of dicts, lists, numbers, text and tensors.
        about: JSON values that say what run this is of (recipe, config, data set).
        step: for the name.

    Returns:
        the path of its manifest.

    Raises:
        OSError: the disk refused; the earlier resume points are untouched.
        TypeError: something in ``state`` cannot be written without pickle.
    """
    tensors: dict[str, Tensor] = {}
    tree = state_tree.encode(state, tensors)
    number = max((_numbers(path)[0] for path in saves(folder)), default=0) + 1
    path = folder / f"save-{number:06d}-step-{step:08d}.json"
    data = checkpoint.serialise(checkpoint.portable(tensors), {"format_version": checkpoint.FORMAT_VERSION})
    entry = {"sha256": _files.sha256(data), "bytes": len(data)}
    _files.publish(path.with_suffix(".safetensors"), data)
    manifest = {"format_version": checkpoint.FORMAT_VERSION, **about, "step": step, "state": tree}
    manifest["files"] = {path.with_suffix(".safetensors").name: entry}
    _files.publish_json(path, manifest | {_OWN_HASH: _hash(manifest)})
    _prune(folder)
    return path


def saves(folder: Path) -> list[Path]:
    """Return the manifests of the resume points, oldest first."""
    return sorted((path for path in folder.glob("save-*.json") if _NAME.fullmatch(path.name)), key=_numbers)


def load(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (state, manifest) of a resume point, verified.

    Args:
        path: a manifest; or the run's ``state`` folder for the newest. Never falls back to another by itself.

    Raises:
        FileNotFoundError: none there.
        ValueError: cut, changed or of a newer format; the sentence names the earlier resume point, if any.
    """
    path = _choose(Path(path))
    earlier = [other for other in saves(path.parent) if _numbers(other) < _numbers(path)]
    advice = f"resume from {earlier[-1]} instead" if earlier else "there is no earlier one; restore it"
    try:
        manifest = _files.read_json(path, "checkpoint")
    except ValueError as error:
        raise ValueError(f"{error}; {advice}") from None
    checkpoint.check_version(path, manifest)
    own_hash = manifest.pop(_OWN_HASH, None)
    if own_hash is not None and own_hash != _hash(manifest):
        raise ValueError(
            f"checkpoint {path}: sha256 differs from its own (file changed after it was written); {advice}"
        )
    try:
        return _verified(path, manifest, advice)
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"checkpoint {path}: expected the manifest of a resume point, found one that does not hold together "
            f"({type(error).__name__}: {error}); {advice}"
        ) from None


def _verified(path: Path, manifest: dict[str, Any], advice: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (state, manifest), the tensors checked against the manifest."""
    tensor_path = path.with_suffix(".safetensors")
    data = checkpoint.read_bytes(tensor_path)
    checkpoint.check_bytes(tensor_path, data, manifest, advice)
    tensors, _ = checkpoint.deserialise(tensor_path, data)
    # Clones own aligned memory; what is read in place from a file does not.
    own = {key: value.clone() for key, value in tensors.items()}
    try:
        state = state_tree.decode(manifest.pop("state"), own)
    except ValueError as error:
        raise ValueError(f"checkpoint {path}: {error}; {advice}") from None
    if not isinstance(state, dict):
        raise TypeError(f"the state is a {type(state).__name__}")
    return state, manifest


def _hash(manifest: dict[str, Any]) -> str:
    """Return the sha256 of the canonical JSON of a manifest, the same before it is written and after it is read."""
    read = json.loads(json.dumps(manifest))
    return _files.sha256(json.dumps(read, sort_keys=True, separators=(",", ":")).encode())


def _choose(path: Path) -> Path:
    if path.is_dir():
        known = saves(path)
        if not known:
            raise FileNotFoundError(f"checkpoint {path}: no resume point in this folder; start the run anew")
        return known[-1]
    path = path.with_suffix(".json")
    if not _NAME.fullmatch(path.name):
        raise ValueError(f"checkpoint {path}: expected a resume point such as state/save-000001-step-00001000.json")
    return path


def _numbers(path: Path) -> tuple[int, int]:
    match = _NAME.fullmatch(path.name)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _prune(folder: Path) -> None:
    """Remove older pairs (manifest first) and tensors that a killed save left without a manifest."""
    kept = {path.stem for path in saves(folder)[-_KEPT:]}
    leftovers = [p for p in folder.glob("save-*.json") if p.stem not in kept]
    leftovers += [p for p in folder.glob("save-*.safetensors") if p.stem not in kept]
    leftovers += list(folder.glob(".save-*.tmp"))
    for path in leftovers:
        with suppress(OSError):
            path.unlink()
