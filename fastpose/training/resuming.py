"""What a resume point says of its run, and whether a run may go on from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastpose.training import config as configuration
from fastpose.training.config import Recipe
from fastpose.training.distributed import World
from fastpose.training.run_folder import code

# How long, how often and where: what a resume may change without changing what the next step computes. A folder may
# have moved; the data set in it is compared by itself. A schedule that falls ends at the new ``run.epochs``.
_FREE = frozenset(
    f"run.{name}"
    for name in (
        "epochs",
        "max_steps",
        "max_minutes",
        "log_every",
        "print_seconds",
        "checkpoint_every",
        "checkpoint_steps",
        "evaluate_every",
        "start",
        "workers",
        "device",
        "timeout_minutes",
        "tensorboard",
    )
) | {"data.on_error", "data.skip_limit"}  # where an unreadable photograph ended the run, it goes on without that one
# What the processes of one job may each have of their own: where and how quickly they compute and show it.
_OWN = frozenset(
    f"run.{name}"
    for name in ("max_minutes", "print_seconds", "start", "workers", "device", "timeout_minutes", "tensorboard")
)


def describe(recipe: Recipe, datasets: Mapping[str, Any], place: World) -> dict[str, Any]:
    """Return what a resume point records of its run: recipe, configuration, data sets, number of processes."""
    return {
        "recipe": recipe.name,
        "system": recipe.system,
        "config": configuration.to_dict(recipe.config),
        "data": {name: fingerprint(dataset) for name, dataset in datasets.items()},
        "world_size": place.size,
    }


def common(described: Mapping[str, Any], place: World) -> dict[str, Any]:
    """Return what all processes of a job must have in common of what ``describe`` returned, and code and device."""
    config = configuration.flatten(described["config"])
    config = {key: value for key, value in config.items() if key not in _OWN and not key.endswith(configuration.PLACES)}
    return {**described, "config": config, "code": code(), "device": place.device.type}


def completed(manifest: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
    """Return a manifest whose configuration also has the keys of a newer fastpose, each with its default."""
    try:
        known = configuration.from_dict(type(recipe.config), manifest["config"], recipe=recipe.name)
    except (ValueError, TypeError, AttributeError, KeyError):
        return manifest  # one that is no longer understood is compared as it is
    return {**manifest, "config": configuration.to_dict(known)}


def fingerprint(dataset: Any) -> dict[str, Any] | None:
    """Return what tells a data set from another: kind, source, length, and its own ``fingerprint`` if any."""
    if dataset is None:
        return None
    source = getattr(getattr(dataset, "source", None), "name", None)
    own = getattr(dataset, "fingerprint", None)
    found = {"kind": type(dataset).__name__, "source": source, "length": len(dataset)}
    return found | ({"fingerprint": own() if callable(own) else own} if own is not None else {})


def check(path: object, found: Mapping[str, Any], expected: Mapping[str, Any], *, allow_changes: bool = False) -> None:
    """Refuse to go on from a resume point of another recipe, configuration, data set or number of processes.

    Args:
        path: of the resume point, for the message.
        found, expected: what ``describe`` returned when it was saved, and now.
        allow_changes: go on with another configuration or data set all the same (never with another recipe).

    Raises:
        ValueError: with what differs.
    """
    if found.get("recipe") != expected["recipe"]:
        raise ValueError(
            f"checkpoint {path}: is of recipe {found.get('recipe')}, cannot go on as {expected['recipe']}; "
            f"resume it as {found.get('recipe')}"
        )
    if allow_changes:
        return
    changed = {key: pair for key, pair in _differences(found, expected).items() if not _is_free(key)}
    if changed:
        named = [f"{key} was {theirs!r} and is {ours!r}" for key, (theirs, ours) in list(changed.items())[:5]]
        raise ValueError(
            f"checkpoint {path}: cannot go on: {', '.join(named)}; undo the change, or allow it (allow_changes=True)"
        )


def _differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    changed = configuration.differences(found.get("config") or {}, expected["config"])
    data = configuration.differences({"data set": _as_old(found, expected)}, {"data set": expected["data"]})
    processes = configuration.differences(
        {"number of processes": found.get("world_size")}, {"number of processes": expected["world_size"]}
    )
    return changed | data | processes


def _as_old(found: Mapping[str, Any], expected: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data sets of a resume point; one of a version that took no fingerprint of them is given ours."""
    data = {name: dict(entry) if entry else entry for name, entry in (found.get("data") or {}).items()}
    for name, entry in expected["data"].items():
        if entry and data.get(name) and "fingerprint" in entry:
            data[name].setdefault("fingerprint", entry["fingerprint"])
    return data


def _is_free(key: str) -> bool:
    return key in _FREE or key.endswith(configuration.PLACES)
