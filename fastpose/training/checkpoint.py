"""Weights: one safetensors file that says what it is, beside a JSON manifest with its sha256; no pickle anywhere.

The file's header carries the recipe, configuration, step and a hash of the tensors, so that a file that travels without
its manifest is still recognised and verified. The manifest names the file it is about to describe and the one before,
so that a kill between the two moves into place leaves a pair that matches.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastpose import _files, _torch_files
from fastpose.training.config import differences

FORMAT_VERSION = 1
"""Of weights and of resume points; every older version keeps loading."""

_OWN = ("format_version", "tensors_sha256", "files", "before")  # of a file; metadata may be another file's manifest
_LONGEST_HEADER = 100_000_000  # bytes that safetensors reads
_KEY = "fastpose"  # one header entry: several would stand in an order that changes from run to run


def save_weights(path: str | Path, module: nn.Module | Mapping[str, Tensor], metadata: Mapping[str, Any]) -> Path:
    """Publish the weights of ``module`` at ``path`` (.safetensors) and its manifest beside it (.json).

    Args:
        path: of the weights; an older file is replaced only when the new one is complete.
        module: a network, or its state dict.
        metadata: JSON values; "recipe", "config" (nested dict) and "step" are compared and printed on loading. The
            manifest of other weights will do: what it says of their file is left out.

    Returns:
        the path of the manifest.

    Raises:
        OSError: the disk refused; what was there before still loads.
    """
    path = Path(path)
    state = module.state_dict() if isinstance(module, nn.Module) else dict(module)
    tensors = portable(state)
    told = {key: value for key, value in metadata.items() if key not in _OWN}
    about = {"format_version": FORMAT_VERSION, **told, "tensors_sha256": hash_tensors(tensors)}
    data = serialise(tensors, about)
    manifest = {**about, "files": {path.name: {"sha256": _files.sha256(data), "bytes": len(data)}}}
    manifest_path = path.with_suffix(".json")
    before = _manifest_of_file(path, manifest_path)
    if before is not None:
        manifest["before"] = before
    _files.publish_json(manifest_path, manifest)
    _files.publish(path, data)
    return manifest_path


def load_weights(path: str | Path, *, recipe: str | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the state dict (on the CPU) and the manifest of a weights file, verified.

    Args:
        path: a file that ``save_weights`` wrote, with or without its manifest.
        recipe: refuse the weights of another recipe.

    Raises:
        FileNotFoundError: no such file.
        ValueError: cut, changed, of another kind, of a newer format or of another recipe; one sentence each.
    """
    path = Path(path)
    data = read_bytes(path)
    manifest = _manifest_or_none(path.with_suffix(".json"), broken_is_error=True)
    if manifest is not None and path.name in manifest["files"]:
        manifest = _verify_file(path, data, manifest)
    else:
        manifest = None
    tensors, about = deserialise(path, data)
    manifest = about if manifest is None else manifest
    if "tensors_sha256" not in about:
        raise ValueError(
            f"checkpoint {path}: is safetensors but not of fastpose; 'fastpose import' converts published files"
        )
    if hash_tensors(tensors) != about["tensors_sha256"]:
        raise ValueError(
            f"checkpoint {path}: the tensors differ from the sha256 in the file's header (file changed); restore it"
        )
    check_version(path, manifest)
    changed = [key for key, value in about.items() if _sorted(manifest.get(key)) != _sorted(value)]
    if changed:
        raise ValueError(
            f"checkpoint {path}: its manifest {path.with_suffix('.json').name} differs from the file's own header in "
            f"{', '.join(changed[:5])} (manifest changed); restore it, or remove it: the header says the same"
        )
    if recipe is not None and manifest.get("recipe") != recipe:
        raise ValueError(
            f"checkpoint {path}: holds weights of recipe {manifest.get('recipe')}, expected {recipe}; "
            f"name the recipe {manifest.get('recipe')} or other weights"
        )
    return tensors, manifest


def _sorted(value: Any) -> str:
    """Return JSON that two equal values share, NaN included, in whatever order a tool wrote their keys."""
    return json.dumps(value, sort_keys=True)


def read_about(path: str | Path) -> dict[str, Any]:
    """Return what the header of a weights file says (recipe, system, configuration...), the tensors not read.

    Nothing is verified: `load_weights` does that. Empty where the header says nothing of fastpose's.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a safetensors file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {path}: no such file")
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = file.read(size) if size <= path.stat().st_size else b""
    try:
        about = json.loads(json.loads(header)["__metadata__"].get(_KEY, "{}"))
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        raise ValueError(f"checkpoint {path}: expected a safetensors file of fastpose") from None
    return about if isinstance(about, dict) else {}


def load_into(
    module: nn.Module,
    state: Mapping[str, Tensor],
    *,
    source: str | Path,
    manifest: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
) -> None:
    """Load a state dict strictly; a mismatch names the first five keys and what differs in the configuration.

    Args:
        module: the network.
        state: keys and shapes must be its own.
        source: file name for the message.
        manifest, config: the file's manifest and the configuration (nested dict) in use, to be compared.

    Raises:
        ValueError: keys or shapes differ.
    """
    own = module.state_dict()
    problems = [f"{key} is missing" for key in own if key not in state]
    problems += [f"{key} is not of this network" for key in state if key not in own]
    problems += [
        f"{key} is {tuple(state[key].shape)}, expected {tuple(value.shape)}"
        for key, value in own.items()
        if key in state and state[key].shape != value.shape
    ]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ValueError(
            f"checkpoint {source}: does not fit the network: {'; '.join(problems[:5])}{more}"
            f"{_config_difference(manifest, config)}"
        )
    module.load_state_dict(dict(state))


def load_foreign(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors of somebody else's checkpoint (.safetensors, .pt, .pth, .tar), read without running code.

    A surrounding ``{"state_dict": ...}`` (or "model", "generator") is unwrapped.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file, a file that needs pickled classes, or one without tensors.
    """
    path = Path(path)
    data = read_bytes(path)
    if path.suffix == ".safetensors":
        return deserialise(path, data)[0]
    try:
        content = _torch_files.load(path)
    except Exception as error:
        raise ValueError(
            f"checkpoint {path}: is no PyTorch file of tensors alone ({type(error).__name__}); "
            "expected a state dict, readable with weights_only=True"
        ) from None
    for key in ("state_dict", "model", "generator"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, dict) else {}
    if not tensors:
        raise ValueError(f"checkpoint {path}: holds no tensors; expected a state dict")
    return tensors


# -------------------------------------------------------------------------------------- shared with the resume points


def portable(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return CPU tensors that each own their memory, as safetensors wants them."""
    tensors, seen = {}, set()
    for key, value in state.items():
        tensor = value.detach().cpu().contiguous()
        storage = tensor.untyped_storage()
        shared = storage.data_ptr() in seen or storage.nbytes() != tensor.nbytes
        tensors[key] = tensor.clone() if shared else tensor
        seen.add(tensors[key].untyped_storage().data_ptr())
    return tensors


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 over names, types, shapes and values, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()


def serialise(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> bytes:
    """Return the safetensors file with ``about`` as JSON in its header."""
    from safetensors.torch import save

    return save(dict(tensors), {_KEY: json.dumps(about, ensure_ascii=False)})


def deserialise(path: Path, data: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return tensors and header of a safetensors file's bytes; one sentence when they are something else."""
    from safetensors.torch import load

    try:
        tensors = load(data)
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size]).get("__metadata__", {})
        about = json.loads(header.get(_KEY, "{}"))
    except Exception as error:
        raise ValueError(
            f"checkpoint {path}: expected a safetensors file, found {len(data):,} bytes {_kind(data)}; restore it"
        ) from error
    return tensors, about if isinstance(about, dict) else {}


def read_bytes(path: Path) -> bytes:
    """Return the content of a checkpoint file."""
    if path.is_dir():
        raise ValueError(f"checkpoint {path}: is a folder, expected a .safetensors file")
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {path}: no such file")
    data = path.read_bytes()
    if not data:
        raise ValueError(f"checkpoint {path}: is empty (0 bytes), expected a safetensors file; restore it")
    return data


def check_version(path: Path, manifest: Mapping[str, Any]) -> None:
    """Refuse a format that only a newer fastpose knows."""
    version = manifest.get("format_version")
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        raise ValueError(
            f"checkpoint {path}: format_version {version!r}, expected 1 to {FORMAT_VERSION}; a newer fastpose reads it"
        )


def check_bytes(path: Path, data: bytes, manifest: object, advice: str) -> None:
    """Raise the sentence for a file that differs from its entry in a manifest (sha256, bytes)."""
    entry = _entry(manifest, path.name)
    if _files.sha256(data) == entry.get("sha256"):
        return
    size = entry.get("bytes")
    how = "file changed after it was written" if "sha256" in entry else "which holds none of this file"
    if type(size) is int and len(data) < size:
        how = f"file truncated at {len(data):,} of {size:,} bytes"
    raise ValueError(f"checkpoint {path}: sha256 differs from its manifest ({how}); {advice}")


def _verify_file(path: Path, data: bytes, manifest: dict[str, Any]) -> dict[str, Any]:
    before = manifest.get("before")
    if _files.sha256(data) == _entry(before, path.name).get("sha256"):
        return dict(
            before or {}
        )  # a kill came after the manifest and before the file: the file is still the one before
    others = [p.name for p in sorted(path.parent.glob("*.safetensors")) if p != path]
    advice = "restore it" + (f" or pass --weights {path.parent / others[0]}" if others else "")
    check_bytes(path, data, manifest, advice)
    return manifest


def _manifest_of_file(path: Path, manifest_path: Path) -> dict[str, Any] | None:
    """Return the manifest of the file that is there now, which after a kill is not the newest one."""
    newest = _manifest_or_none(manifest_path)
    if newest is None or not path.is_file():
        return None
    digest = _files.sha256(path.read_bytes())
    for manifest in (newest, newest.get("before")):
        if isinstance(manifest, dict) and _entry(manifest, path.name).get("sha256") == digest:
            return {key: value for key, value in manifest.items() if key != "before"}
    return None


def _entry(manifest: object, name: str) -> dict[str, Any]:
    """Return what a manifest says of a file; empty where it is none, or says nothing."""
    files = manifest.get("files") if isinstance(manifest, dict) else None
    entry = files.get(name) if isinstance(files, dict) else None
    return entry if isinstance(entry, dict) else {}


def _manifest_or_none(path: Path, broken_is_error: bool = False) -> dict[str, Any] | None:
    """Return the manifest at ``path``; None where there is none, or JSON of another kind such as key points."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        if broken_is_error:
            _files.read_json(path, "manifest")  # says what is wrong with it
        return None
    known = isinstance(content, dict) and "format_version" in content and isinstance(content.get("files"), dict)
    return content if known else None


def _kind(data: bytes) -> str:
    if data[:2] == b"\xff\xd8":
        return "of a JPEG image"
    if data[:4] == b"PK\x03\x04" or data[:1] == b"\x80":
        return "of a PyTorch pickle ('fastpose import' converts published files)"
    size = int.from_bytes(data[:8], "little")
    if len(data) > 9 and data[8:9] == b"{" and size > 0:
        short = size <= _LONGEST_HEADER and len(data) < 8 + size + _told(data[8 : 8 + size])
        return "that end before its tensors do (file truncated)" if short else "with a damaged header (file changed)"
    return "of something else"


def _told(header: bytes) -> int:
    """Return how many bytes of tensors a safetensors header tells of; 0 where it does not hold together."""
    try:
        entries = json.loads(header)
        return max((int(entries[key]["data_offsets"][1]) for key in entries if key != "__metadata__"), default=0)
    except (ValueError, ArithmeticError, RecursionError, TypeError, LookupError):
        return 0


def _config_difference(manifest: Mapping[str, Any] | None, config: Mapping[str, Any] | None) -> str:
    if not manifest or not config or not isinstance(manifest.get("config"), dict):
        return ""
    changed = differences(manifest["config"], config)
    if not changed:
        return "; the configurations are the same"
    named = [f"{key} is {theirs!r} there and {ours!r} here" for key, (theirs, ours) in list(changed.items())[:5]]
    return "; configuration: " + ", ".join(named)
