"""Reading a weights file of torchvision's format, strictly and without running any code it may hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fastpose import _torch_files

_LISTED = 5


def read(name: str, path: str | Path) -> dict[str, Tensor]:
    """Return the state dict of a .safetensors or torch file of the backbone ``name``.

    Raises ``FileNotFoundError`` or ``ValueError`` in one sentence.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(
            f"weights of {name}: expected a file in torchvision's format (.pth or .safetensors), {file} is no file"
        )
    try:
        weights = _parsed(file)
    except Exception as error:  # a damaged pickle may raise anything
        raise ValueError(
            f"weights of {name}: {file} ({file.stat().st_size:,} bytes) cannot be read as a .pth or .safetensors file; "
            "it is cut short, damaged or of another kind: fetch it again"
        ) from error
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError(
            f"weights of {name}: expected a state dict (key to tensor) in {file}, got {type(weights).__name__}"
            f"{' with other values' if isinstance(weights, Mapping) else ''}; save network.state_dict()"
        )
    return dict(weights)


def _parsed(file: Path) -> Any:
    if file.suffix != ".safetensors":
        return _torch_files.load(file)
    from safetensors.torch import load_file

    return load_file(file)


def fill(name: str, module: nn.Module, weights: Mapping[str, Tensor], unused: Sequence[str], path: object) -> None:
    """Load ``weights`` into ``module``; keys that begin with one of ``unused`` are dropped, any other must fit.

    Old files lack the batch counters of batch norms; everything else must be there. Raises ``ValueError`` that lists
    missing and unexpected keys and differing shapes.
    """
    ours = module.state_dict()
    given = {key: value for key, value in weights.items() if key in ours or not key.startswith(tuple(unused))}
    missing = [key for key in ours if key not in given and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in given if key not in ours]
    shapes = [
        f"{key} {tuple(value.shape)} instead of {tuple(ours[key].shape)}"
        for key, value in given.items()
        if key in ours and value.shape != ours[key].shape
    ]
    found = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    faults = [f"{len(keys)} {what} ({_first(keys)})" for what, keys in found.items() if keys]
    if faults:
        raise ValueError(f"weights of {name}: {path} holds another network, keys: {'; '.join(faults)}")
    module.load_state_dict(given, strict=False)


def _first(keys: Sequence[str]) -> str:
    return ", ".join(keys[:_LISTED]) + (", ..." if len(keys) > _LISTED else "")
