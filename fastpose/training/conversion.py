"""Values for annotated fields: what a YAML file or the command line gives, converted to what a dataclass declares.

The two sources differ: YAML has numbers, lists and null; the command line has text only. One converter serves both, and
every refusal is one sentence that names the key, the value found and the type expected.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from fastpose import _checks

_TRUE = ("true", "yes", "on", "1")
_FALSE = ("false", "no", "off", "0")
_SHOWN = 200  # characters of a wrong value
_NOTHING = ("none", "null", "~", "")


def field_types(cls: type) -> dict[str, Any]:
    """Return ``{field name: resolved annotation}`` of a dataclass, in the order of declaration."""
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def convert(value: Any, annotation: Any, key: str) -> Any:
    """Return ``value`` as the annotated type; ``key`` (dotted) stands in the message of the ``ValueError``."""
    origin = get_origin(annotation)
    if annotation is Any:
        return value
    if origin in (Union, types.UnionType):
        return _optional(value, get_args(annotation), key)
    if origin is Literal:
        return _literal(value, get_args(annotation), key)
    if origin is tuple or annotation is tuple:
        return _tuple(value, get_args(annotation), key)
    if origin is dict or annotation is dict:
        return _mapping(value, get_args(annotation), key)
    if annotation in _SCALARS:
        return _SCALARS[annotation](value, key)
    raise TypeError(f"{key}: a configuration field may not be of type {describe(annotation)}")


def describe(annotation: Any) -> str:
    """Return the words for an annotation: "a number", "none or an integer", "one of a, b"."""
    words = {int: "an integer", float: "a number", bool: "true or false", str: "text", Path: "a path"}
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join("none" if a is type(None) else describe(a) for a in arguments)
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return f"a list, each entry {describe(arguments[0])}"
        return f"{len(arguments)} values ({', '.join(describe(a) for a in arguments)})"
    return words.get(annotation, getattr(annotation, "__name__", str(annotation)))


def plain(value: Any) -> Any:
    """Return a value as YAML and JSON know it: dataclasses as dicts, tuples as lists, paths as text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, Path):
        return str(value)
    return value


def _refuse(key: str, annotation: Any, value: Any) -> ValueError:
    found = repr(value)
    found = found if len(found) <= _SHOWN else f"{found[:_SHOWN]}... of {len(found):,} characters"
    return ValueError(f"{key}: expected {describe(annotation)}, got {found}")


def _integer(value: Any, key: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        try:
            return int(value.strip().replace("_", ""))
        except ValueError:
            pass
    raise _refuse(key, int, value)


def _number(value: Any, key: str) -> float:
    # YAML 1.1 reads 1e-4 (no point) as text, so text is accepted from files too.
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            raise _refuse(key, float, value) from None
        if math.isfinite(number):
            return number
        raise ValueError(f"{key}: expected a finite number, got {value!r}")
    raise _refuse(key, float, value)


def _boolean(value: Any, key: str) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in _TRUE + _FALSE:
        return value.strip().lower() in _TRUE
    raise _refuse(key, bool, value)


def _text(value: Any, key: str) -> str:
    if isinstance(value, str):
        return value
    raise _refuse(key, str, value)


def _path(value: Any, key: str) -> Path:
    if isinstance(value, (str, Path)) and str(value):
        return Path(value).expanduser()
    raise _refuse(key, Path, value)


_SCALARS = {int: _integer, float: _number, bool: _boolean, str: _text, Path: _path}


def _optional(value: Any, members: tuple[Any, ...], key: str) -> Any:
    if type(None) in members and (value is None or (isinstance(value, str) and value.strip().lower() in _NOTHING)):
        return None
    for member in members:
        if member is type(None):
            continue
        try:
            return convert(value, member, key)
        except ValueError:
            continue
    raise _refuse(key, Union[members], value)  # noqa: UP007 - a run-time value


def _literal(value: Any, choices: tuple[Any, ...], key: str) -> Any:
    for choice in choices:
        if value == choice and isinstance(value, bool) == isinstance(choice, bool):
            return choice
        if isinstance(value, str) and not isinstance(choice, str) and value.strip().lower() == str(choice).lower():
            return choice
    hint = _checks.nearest(str(value), map(str, choices))
    raise ValueError(f"{key}: expected {describe(Literal[choices])}, got {value!r}{hint}")


_BRACKETS = {"(": ")", "[": "]"}
_QUOTES = "\"'"


def _entries(value: Any, key: str) -> list[Any]:
    """Return the entries of a list: YAML's own, or the text "1,2,3", "[1, 2, 3]", "(1, 2), (3, 4)".

    Brackets and quotes belong to the list where an entry begins with them; elsewhere they are letters of it, as in
    "MPJPE (root),3DPCK AUC".
    """
    if isinstance(value, (list, tuple)):
        return list(value)
    entries: list[Any] | None = None
    if isinstance(value, str):
        with contextlib.suppress(ValueError, RecursionError):
            entries = _written_list(value.strip())
    if entries is None:
        raise ValueError(f"{key}: expected a list such as 1,2,3, got {value!r}")
    return entries


def _written_list(text: str) -> list[Any]:
    """Return the entries of a text, each a text or a list; ``ValueError`` where brackets or quotes stay open."""
    entries, _ = _until("", text)
    if len(entries) == 1 and isinstance(entries[0], list) and not text.endswith(","):
        return entries[0]
    return entries


def _until(end: str, rest: str) -> tuple[list[Any], str]:
    """Return the entries up to the bracket ``end``, or with "" up to the end of the text, and what follows."""
    entries: list[Any] = []
    while True:
        rest = rest.lstrip()
        if not rest or rest[0] == end:  # after the last comma, or nothing at all
            break
        entry, rest = _first(rest, end)
        entries.append(entry)
        rest = rest.lstrip()
        if not rest.startswith(","):
            break
        rest = rest[1:]
    if rest[:1] != end:
        raise ValueError
    return entries, rest[1:]


def _first(text: str, end: str) -> tuple[Any, str]:
    """Return the entry that a text begins with, a text or a list, and what follows it."""
    if text[0] in _BRACKETS:
        return _until(_BRACKETS[text[0]], text[1:])
    if text[0] in _QUOTES:
        entry, quote, rest = text[1:].partition(text[0])
        if not quote:
            raise ValueError
        return entry, rest
    own = ""  # the brackets that are open inside the entry
    for place, letter in enumerate(text):
        if not own and letter in (",", end):
            return _word(text[:place]), text[place:]
        if letter in _BRACKETS:
            own += _BRACKETS[letter]
        elif letter == own[-1:]:
            own = own[:-1]
    return _word(text), ""


def _word(text: str) -> str:
    if not text.strip():
        raise ValueError
    return text.strip()


def _tuple(value: Any, members: tuple[Any, ...], key: str) -> tuple[Any, ...]:
    entries = _entries(value, key)
    if not members:
        return tuple(entries)
    if len(members) == 2 and members[1] is Ellipsis:
        return tuple(convert(entry, members[0], f"{key}[{i}]") for i, entry in enumerate(entries))
    if len(entries) != len(members):
        raise _refuse(key, tuple[members], value)  # type: ignore[valid-type]
    pairs = zip(entries, members, strict=True)
    return tuple(convert(entry, member, f"{key}[{i}]") for i, (entry, member) in enumerate(pairs))


def _mapping(value: Any, members: tuple[Any, ...], key: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"{key}: expected a mapping of names to values, got {value!r}")
    kind = members[1] if members else Any
    return {name: convert(entry, kind, f"{key}.{name}") for name, entry in value.items()}
