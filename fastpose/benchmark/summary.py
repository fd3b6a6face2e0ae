"""Ratios of the measured numbers, and the summary that the terminal shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from fastpose.benchmark.cases import AVX2, FLOAT32
from fastpose.benchmark.results_file import BF16, FIRST, LAST, OURS, REFERENCE

Timing = dict[str, Any]
# Ways of ours that stand there to compare with ours, or whose rivals in PyTorch are more exact or use more of the
# processor.
ASIDE = (AVX2, FLOAT32, FIRST, LAST, BF16)
BUSY = 0.3  # of the cores; numbers measured beside such a load are not to be published
NAMES = ("operation", "size", "device", "dtype", "order")
HEAD = ("size", "order", "backend", "ms", "IQR", "reference ms", "x", "best other ms", "x", "% of limit", "")


def group(timing: Timing) -> tuple[str, ...]:
    """Return what the timings to be compared have in common: everything but the provider."""
    return tuple(timing[name] for name in NAMES)


def complete(results: dict[str, Any]) -> None:
    """Add to each timing its share of the limit and how many times faster it is than the others of its group."""
    timings = results["timings"]
    _gather(timings)
    for timing in timings:
        rivals = {rival["provider"]: rival["median_s"] for rival in timings if group(rival) == group(timing)}
        others = [seconds for name, seconds in rivals.items() if name not in (*OURS, REFERENCE)]
        timing["share_of_limit"] = timing["floor_s"] / timing["median_s"]
        timing["times_reference"] = ratio(rivals.get(REFERENCE), timing["median_s"])
        timing["times_best_other"] = ratio(min(others, default=None), timing["median_s"])


def _gather(timings: list[Timing]) -> None:
    """Bring timings that are compared side by side, in the order in which each group began."""
    operations: dict[str, int] = {}
    groups: dict[tuple[str, ...], int] = {}
    for timing in timings:
        operations.setdefault(timing["operation"], len(operations))
        groups.setdefault(group(timing), len(groups))
    timings.sort(key=lambda timing: (operations[timing["operation"]], groups[group(timing)]))


def ratio(theirs: float | None, mine: float) -> float | None:
    """Return how many times faster ``mine`` is; None where there is nothing to compare with."""
    return None if theirs is None else theirs / mine


def lines(results: dict[str, Any]) -> Iterator[str]:
    """Yield the summary: limits, a table per operation, memory, skips, and how often we are faster and slower."""
    yield from conditions(results)
    for device_limits in results["limits"]:
        yield "limit on {device}: {name} {value:.4g} {unit}".format(**device_limits)
    for operation, timings in groupby(results["timings"], key=lambda timing: timing["operation"]):
        yield ""
        yield operation
        yield from table(list(timings))
    yield from _memory(results["memory"])
    yield from host_costs(results.get("host_costs", []))
    yield from growth(results.get("growth", []))
    yield from loading(results.get("loading", []))
    yield from skipped(results["skipped"])
    yield from verdict(results["timings"])


def conditions(results: dict[str, Any]) -> Iterator[str]:
    """Yield what was measured on, and the load before and after."""
    yield setting(results)
    yield f"load before {results['load']['before']}, after {results['load']['after']}"
    yield from busy(results)


def setting(results: dict[str, Any]) -> str:
    """Return processor, threads and GPUs in words."""
    found = results["machine"]
    return f"{found['processor']}, {found['threads']} threads; {', '.join(found['gpus']) or 'no GPU'}"


def busy(results: dict[str, Any]) -> Iterator[str]:
    """Yield a warning where others were computing as the run began."""
    if results["load"]["before"][0] > BUSY * results["machine"]["cores"]:
        yield "the machine was busy when this began: do not publish these numbers"


def rows(timings: Sequence[Timing]) -> Iterator[tuple[str, ...]]:
    """Yield a row per timing of ours, and one per group that has none; rivals stand beside."""
    for _, found in groupby(timings, key=group):
        members = list(found)
        reference = next((timing for timing in members if timing["provider"] == REFERENCE), None)
        others = [timing for timing in members if timing["provider"] not in (*OURS, REFERENCE)]
        best = min(others, key=lambda timing: timing["median_s"], default=None)
        ours = [timing for timing in members if timing["provider"] in OURS]
        for timing in ours or [reference or members[0]]:
            yield _row(timing, reference, best)


def _row(timing: Timing, reference: Timing | None, best: Timing | None) -> tuple[str, ...]:
    ratios = [timing["times_reference"], timing["times_best_other"]]
    return (
        f"{timing['size']}{' [GPU]' if timing['device'] == 'cuda' else ''}",
        timing["order"],
        timing["provider"],
        milliseconds(timing),
        f"{(timing['q3_s'] - timing['q1_s']) / timing['median_s']:.0%}",
        milliseconds(reference),
        times(ratios[0]),
        f"{milliseconds(best)} ({best['provider']})" if best else "-",
        times(ratios[1]),
        f"{100 * timing['share_of_limit']:.0f}" if timing["floor_s"] else "-",
        "slower" if lost([timing]) else "",
    )


def table(timings: Sequence[Timing]) -> Iterator[str]:
    """Yield the table of an operation's timings."""
    return align([HEAD, *rows(timings)])


def by_whose(timings: Sequence[Timing]) -> list[dict[str, Timing]]:
    """Return for each group that has one of ours the fastest of "ours", the "reference" and the best "other" way."""
    found = []
    for _, members in groupby(timings, key=group):
        fastest: dict[str, Timing] = {}
        for timing in sorted(members, key=lambda member: member["median_s"]):
            if timing["provider"] not in ASIDE:
                fastest.setdefault(_whose(timing["provider"]), timing)
        found += [fastest] if "ours" in fastest else []
    return found


def _whose(provider: str) -> str:
    return "ours" if provider in OURS else "reference" if provider == REFERENCE else "other"


def milliseconds(timing: Timing | None) -> str:
    """Return the median in milliseconds, in words."""
    return "-" if timing is None else f"{1e3 * timing['median_s']:.4g}"


def times(number: float | None) -> str:
    """Return a ratio in words."""
    return "-" if number is None else f"{number:.2f}"


def align(rows: Sequence[tuple[str, ...]], left: int = 3) -> Iterator[str]:
    """Yield the rows as lines with aligned columns; the first ``left`` columns to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  " + "  ".join(cells).rstrip()


def _memory(records: list[dict[str, Any]]) -> Iterator[str]:
    if not records:
        return
    yield ""
    yield "extra memory beyond inputs and results, MB"
    rows = [("operation", "size", "device", "order", "provider", "MB")]
    for record in sorted(records, key=lambda record: (record["device"], record["order"])):
        cells = [record[name] for name in ("operation", "size", "device", "order", "provider")]
        rows.append((*cells, f"{record['extra_bytes'] / 2**20:.1f}"))
    yield from align(rows, left=5)


def host_costs(records: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the table of host costs; nothing where none was measured."""
    if not records:
        return
    yield ""
    yield "host cost of a public call on tiny tensors without gradient, microseconds"
    rows = [("operation", "device", "backend", "call", "kernel")]
    for record in records:
        kernel = record["kernel_us"]
        cells = (record["operation"], record["device"], record["provider"], f"{record['host_us']:.2f}")
        rows.append((*cells, "-" if kernel is None else f"{kernel:.2f}"))
    yield from align(rows)


def growth(curves: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield the table of powers with which times and memory grow; nothing where none was measured."""
    if curves:
        yield ""
        yield "growth: the power of N, batch or joints, by least squares over the larger half of the sizes"
        yield from align(growth_rows(curves), left=4)


def growth_rows(curves: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Return a head, and a row per curve: its first and its last value, and the power with which it grows."""
    found: list[tuple[str, ...]] = [("operation", "order", "way", "against", "from", "to", "power")]
    for curve in curves:
        (first, least), (last, most) = curve["points"][0], curve["points"][-1]
        unit, scale = ("ms", 1e3) if curve["quantity"] == "seconds" else ("MB", 2**-20)
        power = "-" if curve["slope"] is None else f"{curve['slope']:.2f}"
        ends = (f"{first}: {least * scale:.3g} {unit}", f"{last}: {most * scale:.3g} {unit}")
        found.append((curve["operation"], curve["order"], curve["provider"], curve["variable"], *ends, power))
    return found


def loading(records: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the table of ways to load photographs; nothing where none was measured."""
    if not records:
        return
    yield ""
    yield f"loading: {records[0]['photographs']}, {records[0]['size']}"
    rows = [("from workers", "workers", "images/s", "main ms", "first batch s", "PSS MB")]
    for record in records:
        shared = record["worker_pss_bytes"]
        cells = (f"{record['images_per_s']:.0f}", f"{1e3 * record['main_s']:.2f}", f"{record['first_batch_s']:.2f}")
        place = (record["provider"], str(record["workers"]))
        rows.append((*place, *cells, "-" if shared is None else f"{shared / 2**20:.0f}"))
    yield from align(rows, left=1)


def skipped(records: list[dict[str, Any]]) -> Iterator[str]:
    """Yield why numbers are missing, a line per reason; nothing where none is."""
    if not records:
        return
    yield ""
    counts: dict[str, int] = {}
    for record in records:
        sentence = f"{record['provider']}: {record['reason'].rpartition('cannot serve this call: ')[2]}"
        counts[sentence] = counts.get(sentence, 0) + 1
    for sentence, count in counts.items():
        yield f"not measured ({count}x): {sentence}"


def counted(timings: Sequence[Timing]) -> list[Timing]:
    """Return the timings of ours that are won or lost."""
    return [timing for timing in timings if timing["provider"] in OURS and timing["provider"] not in ASIDE]


def lost(timings: Sequence[Timing]) -> list[Timing]:
    """Return those of ours that are slower than the reference or than the best other way."""
    fields = ("times_reference", "times_best_other")
    return [timing for timing in counted(timings) if any((timing[field] or 1) < 1 for field in fields)]


def verdict(timings: list[Timing]) -> Iterator[str]:
    """Yield how often we are faster and slower than the reference and than the best other way, if anything is timed."""
    if not timings:
        return
    yield ""
    for field, rival in (("times_reference", "the reference"), ("times_best_other", "the best other way in PyTorch")):
        ratios = [timing[field] for timing in counted(timings) if timing[field] is not None]
        faster = sum(number >= 1 for number in ratios)
        yield f"beside {rival}: faster in {faster} of {len(ratios)} cases, slower in {len(ratios) - faster}"
