"""The published systems by name: which configuration, trainer and use belong to each; loaded on first use."""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastpose import _checks

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class System:
    """One published system.

    Attributes:
        name: as recipes write it.
        config: its frozen configuration.
        trainer: configuration -> trainer (networks, losses, data, the order of updates).
        network: configuration -> the network whose weights are published, freshly initialised.
        evaluate: (network, configuration) -> results on the configuration's validation data.
        estimator: (network, configuration, test options or None) -> what finds key points in photographs; None where
            the system finds none.
        transfer: (network, configuration) -> what draws a photograph's person in other poses; None where the system
            draws nobody.
        generator: (network, configuration, text encoder or None) -> what makes poses from captions or from noise alone;
            None where the system makes none.
    """

    name: str
    config: type
    trainer: Callable[[Any], Any]
    network: Callable[[Any], nn.Module]
    evaluate: Callable[[nn.Module, Any], list[Any]]
    estimator: Callable[[nn.Module, Any, Any], Any] | None = None
    transfer: Callable[[nn.Module, Any], Any] | None = None
    generator: Callable[[nn.Module, Any, Any], Any] | None = None


# system -> the module of this package that defines SYSTEM
_MODULES = {
    "caption": "caption",
    "multiscale": "multiscale",
    "pona": "pona",
    "pose3d": "pose3d",
    "reid": "reid",
    "sagan": "sagan",
}


def _is_positive(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < math.inf


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0


def _is_fingerprint(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]+", value) is not None


_MEASURED: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "test.bone_sum": ("a positive number", _is_positive),
    "text.size": ("a positive integer", _is_count),
    "text.fingerprint": ("hexadecimal digits", _is_fingerprint),
}
"""The keys whose 0 or empty text leaves a value to what was trained with: it lies in the manifest of the weights."""


def names() -> list[str]:
    """Return the names of all systems."""
    return sorted(_MODULES)


def get(name: str) -> System:
    """Return a system by name; ``ValueError`` offers the nearest name."""
    if name not in _MODULES:
        raise ValueError(_checks.unknown("system", name, _MODULES))
    return importlib.import_module(f"fastpose.training.{_MODULES[name]}").SYSTEM


def estimator(system: System, network: nn.Module, config: Any, test: Any = None) -> Any:
    """Return what finds key points in photographs with a system's network; ``ValueError`` where it finds none."""
    if system.estimator is None:
        raise ValueError(f"system {system.name}: finds no key points; expected weights of a pose network such as sagan")
    return system.estimator(network, config, test)


def transfer(system: System, network: nn.Module, config: Any) -> Any:
    """Return what draws persons in other poses with a system's network; ``ValueError`` where it draws nobody."""
    if system.transfer is None:
        raise ValueError(
            f"system {system.name}: draws nobody in other poses; expected weights of pose transfer such as pona"
        )
    return system.transfer(network, config)


def generator(system: System, network: nn.Module, config: Any, encoder: Any = None) -> Any:
    """Return what makes poses with a system's network; ``ValueError`` where it makes none."""
    if system.generator is None:
        raise ValueError(f"system {system.name}: makes no poses; expected weights of poses from captions (caption)")
    return system.generator(network, config, encoder)


def transfers(weights: str | Path) -> bool:
    """Whether a weights file is of a system that transfers poses, by its header; raises as ``load_network``."""
    return of(weights).transfer is not None


def of(weights: str | Path) -> System:
    """Return the system of a weights file, by its header; raises as ``load_network``."""
    from fastpose.training import checkpoint

    try:
        about = checkpoint.read_about(weights)
    except (OSError, ValueError):
        about = {}
    if not about:
        about = checkpoint.load_weights(weights)[1]  # knows best what is wrong with the file
    return _named(weights, about)


def load_network(path: str | Path, *, recipe: str | None = None) -> tuple[System, Any, nn.Module]:
    """Return system, configuration and network (evaluation mode) of weights that a training run wrote.

    What the configuration leaves to the training set or to the text encoder (0, an empty text) is in the manifest, and
    so in the configuration returned.
    ``recipe`` refuses the weights of another recipe.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged file, a manifest without recipe and configuration or with a measured value of another kind,
            or weights that do not fit it.
    """
    from fastpose.training import checkpoint
    from fastpose.training.config import from_dict, without_code

    state, manifest = checkpoint.load_weights(path, recipe=recipe)
    system = _named(path, manifest)
    values = without_code(manifest["config"])
    config: Any = from_dict(system.config, values, recipe=str(manifest.get("recipe", "")))
    config = _with_measured(path, config, manifest)
    network = system.network(config)
    checkpoint.load_into(network, state, source=path, manifest=manifest)
    return system, config, network.eval()


def _with_measured(path: str | Path, config: Any, manifest: Mapping[str, Any]) -> Any:
    """Return a configuration with what was measured in training, ``{dotted key: value}``, where it leaves it open."""
    from fastpose.training.config import apply_overrides, flatten, to_dict

    measured, own = manifest.get("measured"), flatten(to_dict(config))
    known = measured if isinstance(measured, dict) else {}
    told = {key: known[key] for key in _MEASURED if key in known and own.get(key) in (0, "")}
    for key, value in told.items():
        expected, fits = _MEASURED[key]
        if not fits(value):
            raise ValueError(
                f"checkpoint {path}: measured {key}: expected {expected}, got {value!r}; take other weights"
            )
    return apply_overrides(config, [f"{key}={value}" for key, value in told.items()])


def _named(path: str | Path, about: Mapping[str, Any]) -> System:
    """Return the system that a weights file names; ``ValueError`` where it names none, or no configuration."""
    name = about.get("system")
    if not isinstance(name, str) or name not in _MODULES or not isinstance(about.get("config"), dict):
        raise ValueError(
            f"checkpoint {path}: names no system and configuration (system {name!r}); "
            "expected weights that fastpose train wrote"
        )
    return get(name)
