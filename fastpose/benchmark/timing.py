"""Time by the host's clock: the ways of a case take turns, from first to last and then from last to first.

Whoever comes after another finds other caches, clocks and pages than whoever comes first; with both orders in one
number they favour nobody.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from fastpose.benchmark.limits import clock

Call = Callable[[], object]
ROUND_SECONDS = 0.004  # a round lasts at least so long: short calls are repeated within it
SECONDS = 0.35  # of rounds for each number
TURNS = 4  # first to last, last to first, and again
ROUNDS = 6  # of a turn at most; at least one
WARM_SECONDS = 0.02  # a shorter call is made once before the rounds of its turn: it finds its own data in the caches


@dataclass
class _Way:
    """A call, how often it is to be repeated, and the seconds per call found so far in each direction."""

    call: Call
    iterations: int
    rounds: int
    warm: bool
    found: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))

    def turn(self, direction: int) -> None:
        if self.warm:
            self.call()
        self.found[direction].extend(_round(self.call, self.iterations) for _ in range(self.rounds))

    def summed_up(self) -> dict[str, Any]:
        forwards, backwards = self.found
        first, middle, third = statistics.quantiles([*forwards, *backwards], n=4, method="inclusive")
        return {
            "median_s": middle,
            "q1_s": first,
            "q3_s": third,
            "rounds": len(forwards) + len(backwards),
            "iterations": self.iterations,
            "directions_s": [statistics.median(forwards), statistics.median(backwards)],
        }


def first(call: Call) -> float:
    """Return the seconds of a first call, which also pays for memory and plans."""
    return _round(call, 1)


def in_both_orders(
    calls: Mapping[str, Call],
    *,
    seconds: float = SECONDS,
    turns: int = TURNS,
    known: Mapping[str, float] | None = None,
) -> dict[str, dict[str, Any]]:
    """Time calls that are to be compared, after one of warm-up each, as they stand and in reverse order.

    Args:
        calls: what is timed, by name; all of it is alive at once.
        seconds: of rounds for each call; a slow one has a round per turn in any case.
        turns: an even number; every second one is in reverse order.
        known: what `first` gave for each call; they are then warm.

    Returns:
        For each name ``median_s`` and the quartiles ``q1_s`` and ``q3_s`` of the seconds of a call, ``rounds``, calls
        per round (``iterations``), and ``directions_s``: the median of the turns from first to last, and of those back.
    """
    with _no_collection():
        ways = [
            _way(call, seconds / turns, first(call) if known is None else known[name]) for name, call in calls.items()
        ]
        for turn in range(turns):
            for way in reversed(ways) if turn % 2 else ways:
                way.turn(turn % 2)
    return {name: way.summed_up() for name, way in zip(calls, ways, strict=True)}


def _way(call: Call, seconds: float, once: float) -> _Way:
    """Plan the turns of a call, each of which may take so many seconds."""
    if once < seconds:
        once = _round(call, 1)
    iterations = max(1, round(ROUND_SECONDS / once))
    rounds = min(max(int(seconds / (once * iterations)), 1), ROUNDS)
    return _Way(call, iterations, rounds, once < WARM_SECONDS)


def _round(call: Call, iterations: int) -> float:
    start = clock()
    for _ in range(iterations):
        call()
    return max((clock() - start) / iterations, 1e-9)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the garbage collector out of the rounds."""
    was = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
