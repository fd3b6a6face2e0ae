"""Compare two result files: a table of ratios, and exit code 1 with the first regression.

    python benchmarks/compare.py OLD.json NEW.json [--tolerance 0.1] [--relative]

A regression is a number of ours (not the reference's, not PyTorch's) whose median grew by more than the tolerance and
whose quartiles no longer overlap. Seconds of different machines are not compared; ``--relative`` compares how many
times faster than the reference of its own run each number is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastpose.benchmark import results_file, summary
from fastpose.benchmark.results_file import OURS

Timing = dict[str, Any]
Pair = tuple[Timing, Timing]


def pairs(old: dict[str, Any], new: dict[str, Any]) -> Iterator[Pair]:
    """Yield the timings that both files have, in the order of the new one."""
    known = {(*summary.group(timing), timing["provider"]): timing for timing in old["timings"]}
    for timing in new["timings"]:
        before = known.get((*summary.group(timing), timing["provider"]))
        if before is not None:
            yield before, timing


def growth(before: Timing, after: Timing, *, relative: bool) -> float | None:
    """Return new cost / old cost: of seconds, or of the ratio to the reference; None where there is no such ratio."""
    if not relative:
        return after["median_s"] / before["median_s"]
    if before["times_reference"] is None or after["times_reference"] is None:
        return None
    return before["times_reference"] / after["times_reference"]


def regressed(before: Timing, after: Timing, *, tolerance: float, relative: bool) -> bool:
    """Return whether a number of ours became slower beyond tolerance and noise."""
    grown = growth(before, after, relative=relative)
    if after["provider"] not in OURS or grown is None or grown <= 1 + tolerance:
        return False
    return relative or after["q1_s"] > before["q3_s"]


def table(found: list[Pair], *, relative: bool) -> Iterator[str]:
    """Yield a line per timing that both files have; the last column is new / old."""
    rows = [("operation", "size", "device", "order", "provider", "old ms", "new ms", "ratio")]
    for before, after in found:
        cells = [after[name] for name in ("operation", "size", "device", "order", "provider")]
        grown = summary.times(growth(before, after, relative=relative))
        rows.append((*cells, summary.milliseconds(before), summary.milliseconds(after), grown))
    return summary.align(rows, left=5)


def same_machine(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Return whether seconds of the two files can be compared."""
    facts = ("processor", "cores", "threads", "gpus")
    return all(old["machine"][fact] == new["machine"][fact] for fact in facts)


def compare(old: dict[str, Any], new: dict[str, Any], *, tolerance: float, relative: bool) -> tuple[list[str], str]:
    """Return the table and a sentence on the first regression, empty where there is none."""
    if not relative and not same_machine(old, new):
        raise ValueError("the files come from different machines: compare ratios to the reference with --relative")
    found = list(pairs(old, new))
    if not found:
        raise ValueError("the files have no number in common: expected results of the same cases")
    for before, after in found:
        if regressed(before, after, tolerance=tolerance, relative=relative):
            grown = growth(before, after, relative=relative)
            name = " ".join((*summary.group(after), after["provider"]))
            return list(table(found, relative=relative)), f"regression: {name} takes {grown:.2f} times as long"
    return list(table(found, relative=relative)), ""


def main(arguments: list[str] | None = None) -> int:
    """Print the comparison; return 0, 1 for a regression, 2 for files that cannot be compared."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--tolerance", type=float, default=0.1)
    parser.add_argument("--relative", action="store_true")
    given = parser.parse_args(arguments)
    try:
        old, new = results_file.read(given.old), results_file.read(given.new)
        lines, regression = compare(old, new, tolerance=given.tolerance, relative=given.relative)
    except (ValueError, OSError) as error:
        print(f"compare.py: {error}", file=sys.stderr)
        return 2
    print("\n".join(lines))
    if regression:
        print(regression, file=sys.stderr)
    return 1 if regression else 0


if __name__ == "__main__":
    raise SystemExit(main())
