"""Damaged files, made from good ones by seeded chance: what a broken disk, a cut download or a hostile hand leaves."""

from __future__ import annotations

import random
import re
import signal
import struct
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SECONDS = 20
"""That a reader may take for a small file, on a machine ten times slower than usual."""
_WHOLE = (0, 1, -1, 255, 2**15, 2**31 - 1, -(2**31), 2**32 - 1, 2**40, 10**12, 2**62)
_WORDS = (b"nan", b"-inf", b"1e999", b"-1", b"0", b"99999999999999999999", b"", b"x", b"1e-320", b"\xff", b'"', b"null")
_NUMBER = re.compile(rb"-?\d+(\.\d+)?(e-?\d+)?")


def mutated(data: bytes, seed: int) -> bytes:
    """Return a damaged copy of ``data``, the same one for the same seed; most have one fault, some a few."""
    chance = random.Random(seed)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        data = chance.choice(_FAULTS)(data, chance)
    return data


def _flip(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 8))):
        changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _cut(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data))] or b"\0"


def _insert(data: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(data))
    return data[:place] + chance.randbytes(chance.choice((1, 4, 8, 100))) + data[place:]


def _drop(data: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(data))
    return data[:place] + data[place + chance.choice((1, 4, 8, 100)) :] or data


def _repeat(data: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(data))
    end = min(len(data), start + chance.choice((8, 64, 1000)))
    return data[:end] + data[start:end] * chance.choice((1, 2, 50)) + data[end:]


def _swap(data: bytes, chance: random.Random) -> bytes:
    """Let two blocks change places."""
    size = chance.choice((1, 4, 8, 32))
    if len(data) < 4 * size:
        return _flip(data, chance)
    first, second = sorted(chance.sample(range(len(data) // size - 1), 2))
    first, second = first * size, second * size
    parts = (data[:first], data[second : second + size], data[first + size : second], data[first : first + size])
    return b"".join(parts) + data[second + size :]


def _whole_number(data: bytes, chance: random.Random) -> bytes:
    """Overwrite four or eight bytes with a number that is too large, negative or nothing."""
    size = chance.choice((4, 8))
    number = (chance.choice(_WHOLE) % 2 ** (8 * size)).to_bytes(size, chance.choice(("little", "little", "big")))
    place = chance.randrange(max(len(data) - size, 1)) // 4 * 4
    return data[:place] + number + data[place + size :]


def _float(data: bytes, chance: random.Random) -> bytes:
    number = struct.pack("<d", chance.choice((float("nan"), float("inf"), 1e300, -0.0, 5e-324)))
    place = chance.randrange(max(len(data) - 8, 1)) // 8 * 8
    return data[:place] + number + data[place + 8 :]


def _written_number(data: bytes, chance: random.Random) -> bytes:
    """Put another word where the text has a number."""
    found = list(_NUMBER.finditer(data))
    if not found:
        return _flip(data, chance)
    match = chance.choice(found)
    return data[: match.start()] + chance.choice(_WORDS) + data[match.end() :]


_FAULTS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    *(_flip, _cut, _insert, _drop, _repeat, _swap),
    *(_whole_number, _whole_number, _float, _written_number, _written_number),
)


def mutated_tree(tree: Any, seed: int) -> Any:
    """Return a copy of a JSON tree in which one or two values have another type or are gone."""
    chance = random.Random(seed)
    for _ in range(chance.choice((1, 1, 2))):
        tree = _mutated_node(tree, chance)
    return tree


def _mutated_node(node: Any, chance: random.Random) -> Any:
    inner = list(node.items()) if isinstance(node, dict) else list(enumerate(node)) if isinstance(node, list) else []
    if not inner or chance.random() < 0.12:
        return chance.choice(_VALUES)
    key, value = chance.choice(inner)
    kind = chance.randrange(12)
    if isinstance(node, dict):
        rest = {k: v for k, v in node.items() if k != key}
        return (
            rest
            if kind == 0
            else rest | {f"{key}x": value}
            if kind == 1
            else node | {key: _mutated_node(value, chance)}
        )
    if kind < 2:
        return node[:key] + [value] * (2 * kind) + node[key + 1 :]
    return [*node[:key], _mutated_node(value, chance), *node[key + 1 :]]


_VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 10**30, 1.5, float("nan"), "", "x", "../x", [], [[]], [1], {}, {"tensor": 1}),
    *(
        {"tensor": []},
        {"dict": [[1]]},
        {"dict": [[[], 1]]},
        {"dict": 3},
        {"tuple": 3},
        {"counter": [["a", {}]]},
        "\ud800",
    ),
)


def sentences(read: Callable[[], Any], path: Path, case: object, named: tuple[Path, ...] = ()) -> Any:
    """Return what ``read`` returns, or the one sentence it raises; anything else fails and says the ``case``."""
    try:
        with timely(case), warnings.catch_warnings():
            warnings.simplefilter("error")
            return read()
    except (ValueError, OSError) as error:
        text = str(error)
        assert any(one.name in text for one in (path, *named)), f"case {case}: no file name in {text!r}"
        assert "\n" not in text, f"case {case}: {text!r}"
        assert len(text) < 1000, f"case {case}: {text!r}"
        return text
    except AssertionError:
        raise
    except BaseException as error:
        raise AssertionError(f"case {case}: {type(error).__name__}: {error}") from error


class _Slow(BaseException):
    pass


@contextmanager
def timely(case: object) -> Iterator[None]:
    """Fail where the block takes longer than ``SECONDS``."""

    def ring(number: int, frame: types.FrameType | None) -> None:
        raise _Slow(f"longer than {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
