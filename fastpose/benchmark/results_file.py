"""Result files: one JSON per run of the benchmarks, checked against schema.json whenever written or read."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from fastpose._files import publish

SCHEMA = Path(__file__).with_name("schema.json")
FORMAT = 2
REFERENCE = "reference"  # the provider beside which the others stand
FIRST, LAST, COPY = "fastpose channels first", "fastpose channels last", "fastpose for_inference"  # of whole systems
BF16 = "fastpose bf16"
# What must not become slower; the rest is there to compare with.
OURS = ("cpu", "cpu avx2", "cpu float32", "triton", "cuda", "fastpose", BF16, FIRST, LAST, COPY)
_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "null": type(None),
}


def empty(machine: dict[str, Any], load: list[float], command: str) -> dict[str, Any]:
    """Return the content of a result file before anything was measured by that command."""
    return {
        "format": FORMAT,
        "command": command,
        "machine": machine,
        "load": {"before": load, "after": load},
        "limits": [],
        "timings": [],
        "memory": [],
        "host_costs": [],
        "growth": [],
        "loading": [],
        "skipped": [],
    }


def path_of(name: str, folder: Path) -> Path:
    """Return NAME.json in ``folder``, or NAME as a path where it has a slash; ``ValueError`` for a strange name."""
    if "/" in name:
        return Path(name)
    stem = name.removesuffix(".json")
    if not re.fullmatch(r"[\w.-]+", stem):
        raise ValueError(f"--save-results: expected letters, digits, '.', '_' and '-', got {name!r}")
    return folder / f"{stem}.json"


def write(content: dict[str, Any], path: Path) -> Path:
    """Check and write a result file; return its path."""
    check(content)
    path.parent.mkdir(parents=True, exist_ok=True)
    publish(path, json.dumps(content, indent=1) + "\n")
    return path


def read(path: Path) -> dict[str, Any]:
    """Return the content of a result file; raise ``ValueError`` when it is none."""
    try:
        content = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: expected a result file in JSON, got text that ends it at {error}") from None
    check(content)
    return content


def check(content: Any) -> None:
    """Raise ``ValueError`` naming the first place where ``content`` is not as the schema says.

    Format 1 knew no command; files that have it are read all the same.
    """
    problem = first_problem(content, json.loads(SCHEMA.read_text()), "result file")
    if problem is None and content["format"] > 1 and "command" not in content:
        problem = "result file: expected a field 'command', as format 2 has"
    if problem:
        raise ValueError(problem)


def first_problem(value: Any, schema: dict[str, Any], place: str) -> str | None:
    """Return where and how ``value`` departs from the part of JSON Schema that schema.json uses, or None."""
    if "const" in schema and value != schema["const"]:
        return f"{place}: expected {schema['const']!r}, got {value!r}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{place}: expected one of {schema['enum']}, got {value!r}"
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(isinstance(value, _TYPES[kind]) and not isinstance(value, bool) for kind in kinds):
        return f"{place}: expected {' or '.join(kinds)}, got {type(value).__name__}"
    if isinstance(value, int | float):
        return _number_problem(value, schema, place)
    if isinstance(value, list):
        return _list_problem(value, schema, place)
    return _object_problem(value, schema, place) if isinstance(value, dict) else None


def _number_problem(value: float, schema: dict[str, Any], place: str) -> str | None:
    if value != value or value in (float("inf"), -float("inf")):
        return f"{place}: expected a finite number, got {value}"
    if "minimum" in schema and value < schema["minimum"]:
        return f"{place}: expected at least {schema['minimum']}, got {value}"
    if "exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"]:
        return f"{place}: expected more than {schema['exclusiveMinimum']}, got {value}"
    return None


def _list_problem(value: list[Any], schema: dict[str, Any], place: str) -> str | None:
    items = schema.get("items", {})
    problems = (first_problem(item, items, f"{place}[{index}]") for index, item in enumerate(value))
    return next((problem for problem in problems if problem), None)


def _object_problem(value: dict[str, Any], schema: dict[str, Any], place: str) -> str | None:
    known = schema.get("properties", {})
    for name in schema.get("required", []):
        if name not in value:
            return f"{place}: expected a field {name!r}, got {sorted(value)}"
    other = schema.get("additionalProperties", {})
    for name, item in value.items():
        if name not in known and other is False:
            return f"{place}: unknown field {name!r}"
        problem = first_problem(item, known.get(name, other), f"{place}.{name}")
        if problem:
            return problem
    return None
