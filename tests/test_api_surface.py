"""The public names, written down: a change of the surface shows in the diff of ``api_surface.json``.

``python tests/test_api_surface.py`` rewrites the file.
"""

from __future__ import annotations

import importlib
import inspect
import json
from pathlib import Path
from types import ModuleType

import pytest

STORED = Path(__file__).with_name("api_surface.json")
MODULES = (
    "fastpose",
    "fastpose.ops",
    "fastpose.models",
    "fastpose.data",
    "fastpose.losses",
    "fastpose.metrics",
    "fastpose.visual",
    "fastpose.training",
    "fastpose.skeletons",
)


def public_names(module: ModuleType) -> list[str]:
    """Return ``__all__``, or the names that a module without one defines itself."""
    if hasattr(module, "__all__"):
        return sorted(module.__all__)
    own = [
        name for name, value in vars(module).items() if getattr(value, "__module__", module.__name__) == module.__name__
    ]
    return sorted(name for name in own if not name.startswith("_") and not inspect.ismodule(getattr(module, name)))


def signatures(module: ModuleType) -> dict[str, list[str]]:
    """Return each public name with its parameters, when it is a function of ours."""
    found = {}
    for name in public_names(module):
        value = getattr(module, name)
        found[name] = list(inspect.signature(value).parameters) if inspect.isfunction(value) else []
    return found


def verbs() -> dict[str, list[str]]:
    """Return the verbs of the command line with their parameters."""
    from typer.main import get_command

    from fastpose.cli import app

    def walk(group: object, path: str) -> dict[str, list[str]]:
        found = {}
        for name, command in group.commands.items():  # type: ignore[attr-defined]
            found[f"{path}{name}"] = sorted(parameter.name for parameter in command.params)
            if hasattr(command, "commands"):
                found |= walk(command, f"{path}{name} ")
        return found

    return walk(get_command(app), "")


def surface() -> dict[str, dict[str, list[str]]]:
    """Return the whole public surface."""
    found = {name: signatures(importlib.import_module(name)) for name in MODULES}
    return {**found, "command line": verbs()}


@pytest.mark.parametrize("part", [*MODULES, "command line"])
def test_surface_is_the_one_written_down(part):
    stored = json.loads(STORED.read_text(encoding="utf-8"))
    current = surface()
    assert current[part] == stored[part], "run `python tests/test_api_surface.py` if the change is meant"


@pytest.mark.parametrize("name", MODULES)
def test_every_public_function_says_what_it_does(name):
    module = importlib.import_module(name)
    public = [getattr(module, attribute) for attribute in public_names(module)]
    silent = [
        value.__name__
        for value in public
        if (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__.startswith("fastpose")
        and not inspect.getdoc(value)
    ]
    assert silent == []


if __name__ == "__main__":
    STORED.write_text(json.dumps(surface(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
