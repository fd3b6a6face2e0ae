"""Configurations: frozen nested dataclasses, recipes in YAML over their defaults, and ``key=value`` overrides.

A recipe is the name of a published row (``sagan/ours-c``): a YAML file of the package with the keys ``system``,
``description``, ``paper`` (protocol: value) and ``config`` (what differs from the defaults of the system's dataclass).
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar

from fastpose import _checks, _files
from fastpose.training import conversion
from fastpose.training.conversion import plain

Config = TypeVar("Config")

_LONGEST = 1 << 20  # bytes of a YAML file
_CODE = ("detector",)
"""Fields that name a function to import."""
_RECIPE_KEYS = ("system", "description", "paper", "config")


@dataclass(frozen=True)
class RunConfig:
    """How long and how a network is trained: everything the engine decides, nothing a system decides.

    Steps are optimiser steps: one step takes ``accumulate`` batches of ``batch_size`` items on each process.
    ``0`` is off for ``ema``, ``clip_norm``, ``max_steps``, ``max_minutes``, ``checkpoint_steps``, ``evaluate_every``.
    """

    seed: int = 0
    epochs: int = 1
    batch_size: int = 6  # per process; two processes with 6 equal one with 12
    accumulate: int = 1
    workers: int = 2
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool | None = None  # memory order of the networks; none: where it proved quicker for the system
    ema: float = 0.0  # decay of the averaged weights
    clip_norm: float = 0.0  # largest gradient norm of one update
    skip_nonfinite: int = 10  # updates that are not finite are skipped; so many in a row end the run
    log_every: int = 20  # steps
    print_seconds: float = 30.0  # between lines when the output is no terminal
    checkpoint_every: int = 1  # epochs
    checkpoint_steps: int = 0  # additionally every so many steps
    evaluate_every: int = 1  # epochs
    device: str = "auto"  # auto, cpu, cuda, cuda:1
    deterministic: bool = False
    max_steps: int = 0
    max_minutes: float = 0.0  # of this launch
    sync_batch_norm: bool = False  # statistics over the batches of all processes
    timeout_minutes: float = 30.0  # a collective that waits longer ends the job
    tensorboard: bool = False
    start: str = ""  # weights that the main network begins with, of any recipe whose network it fits; not on a resume

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate", "log_every", "checkpoint_every", "skip_nonfinite"):
            _require(getattr(self, name) >= 1, name, "1 or more", getattr(self, name))
        for name in ("workers", "evaluate_every", "max_steps", "max_minutes", "checkpoint_steps"):
            _require(getattr(self, name) >= 0, name, "0 or more", getattr(self, name))
        _require(0.0 <= self.ema < 1.0, "ema", "a decay in [0, 1)", self.ema)
        _require(self.clip_norm >= 0.0, "clip_norm", "0 (off) or a positive norm", self.clip_norm)
        _require(0 <= self.seed < 2**63, "seed", "0 or more and below 2**63", self.seed)
        _require(self.timeout_minutes > 0, "timeout_minutes", "a positive number", self.timeout_minutes)
        _checks.choice("run.precision", self.precision, ("fp32", "bf16", "fp16"))


def _require(holds: bool, name: str, expected: str, found: object) -> None:
    if not holds:
        raise ValueError(f"run.{name}: expected {expected}, got {found!r}")


@dataclass(frozen=True)
class Recipe:
    """A named configuration: ``paper`` maps a protocol to the published value, ``config`` is the system's dataclass."""

    name: str
    system: str
    description: str
    config: Any
    paper: Mapping[str, float] = field(default_factory=dict)


# ---------------------------------------------------------------------------------------------- dicts and dataclasses


def to_dict(config: Any) -> dict[str, Any]:
    """Return a configuration as nested dicts of YAML values (tuples as lists, paths as text), in declared order."""
    return plain(config)


def from_dict(cls: type[Config], values: Mapping[str, Any], *, recipe: str = "") -> Config:
    """Return ``cls`` with ``values`` over its defaults.

    Args:
        cls: a frozen dataclass; nested dataclasses are sections, and one given in part keeps the rest of its default.
        values: nested mapping; ``{"data": "lspet"}`` is short for ``{"data": {"name": "lspet"}}``.
        recipe: name for the messages.

    Raises:
        ValueError: unknown key (with the nearest), value of another type, value a section refuses.
    """
    known = list(flatten_types(cls))
    return _build(cls, values, "", known, recipe)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested dicts as one level with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def flatten_types(cls: type, prefix: str = "") -> dict[str, Any]:
    """Return ``{dotted key: annotation}`` of every field, sections included before their own fields."""
    keys: dict[str, Any] = {}
    for name, annotation in conversion.field_types(cls).items():
        keys[prefix + name] = annotation
        if dataclasses.is_dataclass(annotation):
            keys.update(flatten_types(annotation, f"{prefix}{name}."))  # type: ignore[arg-type]
    return keys


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return ``{dotted key: (first value, second value)}`` where two nested dicts differ; absent counts as None."""
    left, right = flatten(first), flatten(second)
    keys = list(dict.fromkeys([*left, *right]))
    return {key: (left.get(key), right.get(key)) for key in keys if left.get(key) != right.get(key)}


def _build(cls: type, values: Any, prefix: str, known: Sequence[str], recipe: str, default: Any = None) -> Any:
    """Return ``cls`` with ``values`` over ``default``, or over the defaults of its fields where that is None."""
    section = prefix.rstrip(".")
    annotations = conversion.field_types(cls)
    if not isinstance(values, Mapping):
        if "name" not in annotations:
            raise ValueError(f"{section or 'config'}: expected a section of keys, got {values!r}")
        values = {"name": values}
    arguments = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        if name not in annotations:
            raise ValueError(_unknown_key(key, known, recipe))
        annotation: Any = annotations[name]
        if dataclasses.is_dataclass(annotation):
            own = _default(cls, name) if default is None else getattr(default, name)
            arguments[name] = _build(annotation, value, key + ".", known, recipe, own)  # type: ignore[arg-type]
        else:
            arguments[name] = conversion.convert(value, annotation, key)
    if default is not None:
        return dataclasses.replace(default, **arguments)
    missing = [f.name for f in dataclasses.fields(cls) if f.name not in arguments and not _has_default(f)]
    if missing:
        raise ValueError(f"{prefix}{missing[0]}: no value given and there is no default")
    return cls(**arguments)


def _default(cls: type, name: str) -> Any:
    """Return the default of a field, or None where it has none."""
    (item,) = (f for f in dataclasses.fields(cls) if f.name == name)
    if item.default_factory is not dataclasses.MISSING:
        return item.default_factory()
    return None if item.default is dataclasses.MISSING else item.default


def _has_default(item: dataclasses.Field[Any]) -> bool:
    return item.default is not dataclasses.MISSING or item.default_factory is not dataclasses.MISSING


def _unknown_key(key: str, known: Iterable[str], recipe: str) -> str:
    known = list(known)
    owner = f" for recipe {recipe}" if recipe else ""
    near = _checks.nearest(key, known)
    if not near:
        siblings = [k for k in known if k.startswith(key.rpartition(".")[0] + ".") and "." in key]
        near = "; known: " + ", ".join(siblings or [k for k in known if "." not in k])
    return f"unknown key {key!r}{owner}{near}"


# --------------------------------------------------------------------------------------------------------- overrides


def apply_overrides(config: Config, overrides: Sequence[str], recipe: str = "") -> Config:
    """Return ``config`` with ``key=value`` texts applied in order (dotted keys; a bare section sets its ``name``).

    Types come from the annotations: ``optimizer.lr=1e-4``, ``model.sarm_stacks=2,3,4``, ``run.deterministic=yes``,
    ``data.root=none``, ``data=lspet``.

    Raises:
        ValueError: no ``=``, unknown key (with the nearest), or a value of another type, in one sentence.
    """
    cls = type(config)
    annotations = flatten_types(cls)
    values = to_dict(config)
    for override in overrides:
        key, value = _split(override)
        if key not in annotations:
            raise ValueError(_unknown_key(key, annotations, recipe))
        if dataclasses.is_dataclass(annotations[key]):
            if f"{key}.name" not in annotations:
                inside = ", ".join(k for k in annotations if k.startswith(key + "."))
                raise ValueError(f"{key}: a section takes no value itself; set one of {inside}")
            key = f"{key}.name"
        _place(values, key, conversion.plain(conversion.convert(value, annotations[key], key)))
    return from_dict(cls, values, recipe=recipe)


PLACES = (
    *(".root", ".test_root", ".cache", ".encoder", ".vgg", ".lpips_vgg", ".lpips_squeeze", ".lpips_alex", ".inception"),
    *(".pose_weights", "model.weights", "run.start", "start.run"),
)
"""What the keys end with that say where files lie: data, vectors of captions, weights, runs to begin with."""

_NAMED_PLACES = ("data.wild", "data.validation", "data.extra")
"""Those whose values are data sets with their folders, such as ``mpii:ROOT``."""


def anchored(config: Config, before: Any = None) -> Config:
    """Return a configuration in which what lies in the working folder has its full path.

    So a run that goes on, or weights that are evaluated, find their files from any folder. ``before``: values that this
    configuration has already stay as they are, as an earlier launch left them.
    """
    old = flatten(to_dict(before)) if before is not None else {}
    values = to_dict(config)
    for key, value in flatten(values).items():
        if key.endswith(PLACES + _NAMED_PLACES) and old.get(key) != value:
            _place(values, key, _anchored(key, value))
    return from_dict(type(config), values)


def _anchored(key: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_anchored(key, entry) for entry in value]
    if not isinstance(value, str):
        return value
    name, colon, path = value.rpartition(":") if key in _NAMED_PLACES else ("", "", value)
    path = os.path.expanduser(path)
    known = key.endswith(".encoder") and not Path(path).suffix  # one by its name
    there = path and not known and os.path.exists(path)
    return f"{name}{colon}{os.path.abspath(path)}" if there else value


def _split(override: str) -> tuple[str, str]:
    key, equals, value = override.partition("=")
    if not equals or not key.strip():
        raise ValueError(f"override {override!r}: expected key=value, such as run.epochs=10")
    return key.strip(), value.strip()


def _place(values: dict[str, Any], key: str, value: Any) -> None:
    *sections, name = key.split(".")
    for section in sections:
        values = values[section]
    values[name] = value


# -------------------------------------------------------------------------------------------------------------- YAML


def read_yaml(text: str, source: str) -> Any:
    """Return the parsed YAML; anchors, aliases, tags, duplicate keys and numbers such as 010 are refused."""
    import yaml

    from fastpose.training._yaml import StrictLoader

    try:
        return yaml.load(text, Loader=StrictLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "not YAML"
        raise ValueError(f"{source}{place}: {problem}; expected plain YAML") from None
    except RecursionError:
        raise ValueError(f"{source}: nested too deeply; expected plain YAML") from None


def read_text(path: Path, source: str) -> str:
    """Return the text of a YAML file; one sentence where it is too long or no UTF-8."""
    size = path.stat().st_size
    if size > _LONGEST:
        raise ValueError(f"{source}: has {size:,} bytes; expected {_LONGEST:,} at most")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{source}: byte {error.start:,} is no UTF-8; save the file as UTF-8") from None


def without_code(values: Any) -> Any:
    """Return a configuration that a file holds without the names of code in it: they count on the command line alone.

    Whoever hands over weights or a run would otherwise choose what is imported and called where they are evaluated.
    """
    if not isinstance(values, dict):
        return values
    kept = {key: without_code(value) for key, value in values.items() if key not in _CODE}
    return kept | {key: "" for key in _CODE if key in values}


def code_left_out(values: Mapping[str, Any], overrides: Sequence[str]) -> str:
    """Return ``key=value`` of the code that a file's configuration names and no override decides on; empty for none."""
    decided = {_split(override)[0] for override in overrides}
    named = {key: value for key, value in flatten(values).items() if key.rpartition(".")[2] in _CODE and value}
    return ", ".join(f"{key}={value!r}" for key, value in named.items() if key not in decided)


def to_yaml(values: Any) -> str:
    """Return a configuration (dataclass or nested dict) as YAML in declared order."""
    import yaml

    return yaml.safe_dump(plain(values), sort_keys=False, allow_unicode=True, default_flow_style=False)


# ----------------------------------------------------------------------------------------------------------- recipes


def list_recipes() -> list[str]:
    """Return the names ``<system>/<recipe>`` of the package's recipes folder, sorted."""
    root = resources.files("fastpose").joinpath("recipes")
    if not root.is_dir():
        return []
    folders = [folder for folder in root.iterdir() if folder.is_dir()]
    return sorted(
        f"{folder.name}/{entry.name.removesuffix('.yaml')}"
        for folder in folders
        for entry in folder.iterdir()
        if entry.name.endswith(".yaml")
    )


def load_recipe(name: str | Path, overrides: Sequence[str] = (), *, config_class: type | None = None) -> Recipe:
    """Return a recipe with its configuration built and overridden.

    Args:
        name: ``<system>/<recipe>`` of the package, or the path of a YAML file of the same form (``.yaml``/``.yml``).
        overrides: ``key=value`` texts, see :func:`apply_overrides`.
        config_class: the system's dataclass; by default looked up from the recipe's ``system``.

    Raises:
        ValueError: unknown recipe, malformed file, unknown key or bad value.
        FileNotFoundError: the path of a YAML file that does not exist.
    """
    content = _read_recipe(name)
    label = _label(name)
    if config_class is None:
        from fastpose.training import systems

        config_class = systems.get(content["system"]).config
    values = content.get("config") or {}
    if _is_path(name) and without_code(values) != values:
        raise ValueError(
            f"recipe {label}: names code to import, which a file may not; give it on the command line: "
            f"test.{'=..., test.'.join(_CODE)}=..."
        )
    config: Any = from_dict(config_class, values, recipe=label)
    config = apply_overrides(config, overrides, label)
    return Recipe(label, content["system"], str(content.get("description", "")), config, _paper(label, content))


def copy_recipe(name: str, destination: str | Path) -> Path:
    """Write the package's recipe to ``destination`` (a file, or a folder) for editing; an existing file is refused."""
    target = Path(destination)
    if target.is_dir():
        target = target / (name.rpartition("/")[2] + ".yaml")
    text = _recipe_text(name)
    if target.exists():
        raise ValueError(f"{target}: exists already; name another file")
    _files.publish(target, text)
    return target


def _is_path(name: str | Path) -> bool:
    return isinstance(name, Path) or name.endswith((".yaml", ".yml"))


def _label(name: str | Path) -> str:
    """Return the recipe's name; that of a file becomes a folder of runs, so it is checked as a run's name is."""
    if not _is_path(name):
        return str(name)
    label = Path(name).stem
    if not re.fullmatch(r"\w[\w.+=, -]*", label):
        raise ValueError(
            f"recipe file {str(name)!r}: expected a name of letters, digits, '.', '_' or '-' that begins with a letter "
            "or digit; rename it"
        )
    return label


def _recipe_text(name: str | Path) -> str:
    if _is_path(name):
        path = Path(name)
        if not path.is_file():
            raise FileNotFoundError(f"recipe {path}: no such file")
        return read_text(path, f"recipe {path}")
    known = list_recipes()
    if name not in known:
        raise ValueError(f"{_checks.unknown('recipe', str(name), known)}; 'fastpose recipes' lists them")
    system, _, row = str(name).partition("/")
    return resources.files("fastpose").joinpath("recipes", system, row + ".yaml").read_text(encoding="utf-8")


def _read_recipe(name: str | Path) -> dict[str, Any]:
    label = f"recipe {name}"
    content = read_yaml(_recipe_text(name), label)
    if not isinstance(content, dict):
        raise ValueError(f"{label}: expected the keys {', '.join(_RECIPE_KEYS)}, got {type(content).__name__}")
    for key in content:
        if key not in _RECIPE_KEYS:
            raise ValueError(f"{label}: {_checks.unknown('key', str(key), _RECIPE_KEYS)}")
    if not isinstance(content.get("system"), str):
        raise ValueError(f"{label}: 'system' must name a system, such as sagan, got {content.get('system')!r}")
    if not isinstance(content.get("config") or {}, dict):
        raise ValueError(f"{label}: 'config' must be a section of keys, got {content['config']!r}")
    return content


def _paper(label: str, content: Mapping[str, Any]) -> dict[str, float]:
    paper = content.get("paper") or {}
    if not isinstance(paper, dict) or not all(isinstance(value, (int, float)) for value in paper.values()):
        raise ValueError(f"recipe {label}: 'paper' must map protocols to numbers, got {paper!r}")
    return {str(protocol): float(value) for protocol, value in paper.items()}
