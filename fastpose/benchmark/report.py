"""A folder of results for people: tables in Markdown and pictures beside the result file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from fastpose._files import publish
from fastpose.benchmark import results_file, summary

Timing = dict[str, Any]
HEAD = ("size", "order", "ours, ms", "plain PyTorch, ms", "x", "best other way, ms", "x", "% of limit", "")
FIRST = 2  # columns to the left


def write(content: dict[str, Any], folder: Path) -> list[Path]:
    """Write results.json, table.md and the pictures of what was measured; return their paths."""
    paths = [results_file.write(content, folder / "results.json"), folder / "table.md"]
    publish(paths[1], "\n".join(markdown(content)) + "\n")
    return [*paths, *_pictures(content, folder)]


def _pictures(content: dict[str, Any], folder: Path) -> Iterator[Path]:
    from fastpose.visual import measurements

    title = f"{content['machine']['processor']}, {content['machine']['threads']} threads"
    groups = [group for group in summary.by_whose(content["timings"]) if group["ours"]["floor_s"] > 0]
    if groups:
        yield measurements.plot_speed(groups, folder / "speed.png", title=title)
    for operation, members in groupby(content["growth"], key=lambda curve: curve["operation"]):
        yield measurements.plot_growth(list(members), folder / f"growth-{operation}.png", title=title)


def markdown(content: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of table.md: command, machine, limits, a table per operation, growth, and what is missing."""
    machine, timings = content["machine"], content["timings"]
    yield from ("# fastpose bench", "", f"`{content.get('command', '')}`, {machine['date']}", "")
    yield from (f"{line}  " for line in summary.conditions(content))
    yield ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    yield from ("", "Limits of this machine, measured in the same run:", "")
    yield from ("- {device}: {name} {value:.4g} {unit}".format(**limit) for limit in content["limits"])
    for operation, members in groupby(timings, key=lambda timing: timing["operation"]):
        yield from ("", f"## {operation}", "", *grid([HEAD, *_rows(list(members))], FIRST))
    growth = summary.growth_rows(content.get("growth", []))
    if len(growth) > 1:
        yield from ("", "## Growth", "", *grid(growth, 4))
    yield ""
    yield from (f"- {line}" for line in (*summary.verdict(timings), *summary.skipped(content["skipped"])) if line)


def grid(rows: Sequence[tuple[str, ...]], left: int) -> Iterator[str]:
    """Yield rows as a Markdown table, the first as its head; the first ``left`` columns to the left."""
    yield f"| {' | '.join(rows[0])} |"
    yield f"|{'|'.join('---' if column < left else '---:' for column in range(len(rows[0])))}|"
    yield from (f"| {' | '.join(cells)} |" for cells in rows[1:])


def _rows(timings: list[Timing]) -> Iterator[tuple[str, ...]]:
    for size, order, provider, ours, _, reference, times, other, more, share, mark in summary.rows(timings):
        mine = ours if provider == "cpu" else f"{ours} ({provider})"
        yield (size, order, mine, reference, times, other, more, share, f"**{mark}**" if mark else "")
