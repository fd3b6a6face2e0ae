"""The register of networks: each system's file registers its builders, `create` finds them by name."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

from fastpose import _checks

Builder = Callable[..., nn.Module]
Own = TypeVar("Own", bound=Builder)

_SYSTEMS = ("sagan", "pona", "pose3d", "multiscale", "caption", "reid")
"""Files of this package that register networks when imported; they are imported at the first look into the register."""

_builders: dict[str, Builder] = {}
_presets: dict[str, tuple[str, dict[str, Any]]] = {}


def register(name: str, **presets: dict[str, Any]) -> Callable[[Own], Own]:
    """Register a builder of flat keyword options; ``tiny={...}`` also registers ``<name>.tiny`` with those options."""

    def decorate(builder: Own) -> Own:
        _builders[name] = builder
        _presets.update({f"{name}.{preset}": (name, options) for preset, options in presets.items()})
        return builder

    return decorate


def _load() -> None:
    for system in _SYSTEMS:
        importlib.import_module(f"fastpose.models.{system}")


def names() -> list[str]:
    """Return the names of all networks that `create` knows, tiny test configurations included, sorted."""
    _load()
    return sorted([*_builders, *_presets])


def resolve(name: str) -> tuple[str, dict[str, Any]]:
    """Return the network behind a name and the options that the name implies: a preset is a network with options."""
    if name not in names():
        raise ValueError(_checks.unknown("model", name, names()))
    return _presets.get(name, (name, {}))


def create(name: str, **options: Any) -> nn.Module:
    """Return the network ``name`` in training mode with its published initialisation.

    `list` gives the names; the options of each and their defaults are those of its builder (``fastpose.models.sagan``
    ...). Raises ``ValueError`` for an unknown name or a bad value and ``TypeError`` for an unknown option, each
    offering the nearest.
    """
    network, implied = resolve(name)
    known = defaults(network)
    for option in options:
        if option not in known:
            raise TypeError(_checks.unknown(f"option of {name}:", option, known))
    return _builders[network](**{**implied, **options})


def defaults(network: str) -> dict[str, Any]:
    """Return the options of a network with their defaults."""
    return {name: option.default for name, option in inspect.signature(_builders[network]).parameters.items()}


def count_parameters(module: nn.Module) -> int:
    """Return the number of parameters of a module; running statistics and other buffers are not counted."""
    return sum(parameter.numel() for parameter in module.parameters())
