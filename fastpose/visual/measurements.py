"""What was measured, as pictures: how far each way is from the machine's limit, and how times and memory grow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastpose.visual import _plots

Record = Mapping[str, Any]

OURS, REFERENCE, OTHERS, LIMIT = "#2f6fde", "#6b7280", ("#e2603b", "#c98a12", "#8e5bd0"), "#22262c"
_DOTS = {  # colour, name and area; the larger is drawn over the smaller
    "reference": (REFERENCE, "plain PyTorch", 26),
    "other": (OTHERS[0], "best other way", 28),
    "ours": (OURS, "fastpose", 44),
}
_UNITS = {"seconds": ("ms", 1e3), "bytes": ("extra memory, MB", 2.0**-20)}
_AGAINST = {"N": "positions N", "batch": "batch", "joints": "joints"}


def plot_growth(curves: Sequence[Record], out_path: str | Path, *, title: str = "") -> Path:
    """Draw curves of seconds or bytes against one number of the size, log-log, with their powers in the legend.

    Args:
        curves: records of growth as in a result file: operation, order, variable, size, provider, quantity, points,
            slope; those that differ in the provider alone share a panel. The provider "limit" is the machine's.
        out_path: PNG to write; its folder is made.
        title: text above the panels.

    Returns:
        ``out_path``.

    Raises:
        ValueError: no curve.
    """
    if not curves:
        raise ValueError("curves: expected at least one, got none")
    names = ("quantity", "operation", "order", "variable", "size")
    panels: dict[tuple[Any, ...], list[Record]] = {}
    for curve in curves:
        panels.setdefault(tuple(map(curve.get, names)), []).append(curve)
    figure, axes = _plots.panels(len(panels), title)
    for axis, members in zip(axes, panels.values(), strict=True):
        _growth(axis, members)
    return _plots.save(figure, out_path)


def _growth(axis: Any, curves: list[Record]) -> None:
    colours = iter(OTHERS * len(curves))
    label, scale = _UNITS[curves[0]["quantity"]]
    for curve in sorted(curves, key=lambda curve: curve["provider"] == "cpu"):  # ours is drawn over the others
        x, y = zip(*curve["points"], strict=True)
        name, style = _look(curve["provider"], colours)
        power = "" if curve["slope"] is None else f"  ~{curve['variable']}$^{{{curve['slope']:.2f}}}$"
        axis.plot(x, [value * scale for value in y], label=f"{name}{power}", **style)
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    _plain(axis.yaxis)
    low, high = axis.get_ylim()
    axis.set_ylim(low, high * (high / low) ** (0.1 * len(curves)))  # room for the legend above the curves
    every = sorted({point[0] for curve in curves for point in curve["points"]})
    axis.set_xticks(every, [f"{value:,}" for value in every], rotation=35 if len(every) > 6 else 0)
    axis.set_ylabel(label)
    first = curves[0]
    what = "time" if first["quantity"] == "seconds" else "memory"
    words = f"{_spoken(first['operation'])}, {first['order'].replace('+', ' + ')}: {what}"
    _plots.dress(axis, words, f"{_AGAINST[first['variable']]}   ({first['size']})", legend=True)


def _look(provider: str, colours: Any) -> tuple[str, dict[str, Any]]:
    """Return what a way is called in a legend, and how it is drawn."""
    if provider == "limit":
        return "limit of this machine", {"color": LIMIT, "lw": 1.2, "ls": (0, (4, 3))}
    marked = {"marker": "o", "ms": 4, "lw": 1.5}
    if provider == "cpu":
        return "fastpose", {**marked, "color": OURS, "lw": 2.4, "ms": 5}
    if provider == "reference":
        return "plain PyTorch", {**marked, "color": REFERENCE}
    return {"sdpa": "SDPA"}.get(provider, provider), {**marked, "color": next(colours)}


def _plain(axis: Any) -> None:
    """Write 0.1, 1, 10, 1,000 in place of powers of ten."""
    axis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")


def _spoken(operation: str) -> str:
    return operation.replace("nonlocal_attention", "attention").replace("_", " ")


def plot_speed(groups: Sequence[Mapping[str, Record]], out_path: str | Path, *, title: str = "") -> Path:
    """Draw a row for each group: the times of its ways as multiples of the least that the machine could need.

    Args:
        groups: timings of a result file by whose they are: "ours", "reference", "other" (the best other way); those
            without a limit are left out.
        out_path: PNG to write; its folder is made.
        title: text above the rows.

    Returns:
        ``out_path``.

    Raises:
        ValueError: no group with a limit.
    """
    rows = [group for group in groups if group["ours"]["floor_s"] > 0]
    if not rows:
        raise ValueError("groups: expected at least one with a limit, got none")
    figure, axis = _plots.tall(len(rows), title)
    for row, group in enumerate(rows):
        times = {name: group[name]["median_s"] / group["ours"]["floor_s"] for name in _DOTS if name in group}
        axis.plot((min(times.values()), max(times.values())), (row, row), color="#d1d5db", lw=1.5, zorder=1)
        for name, value in times.items():
            axis.scatter(value, row, color=_DOTS[name][0], s=_DOTS[name][2], zorder=_DOTS[name][2])
    for colour, name, _ in _DOTS.values():
        axis.scatter([], [], color=colour, label=name)
    axis.axvline(1.0, color=LIMIT, lw=1.2, ls=(0, (4, 3)), label="limit of this machine")
    axis.set_xscale("log")
    _plain(axis.xaxis)
    axis.set_yticks(range(len(rows)), [_row_name(group["ours"]) for group in rows])
    axis.set_ylim(len(rows) - 0.4, -0.6)
    _plots.dress(axis, "", "time, in multiples of the least that the machine could need", legend=False)
    axis.legend(fontsize=8.5, frameon=False, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=4, borderaxespad=0.2)
    return _plots.save(figure, out_path)


def _row_name(timing: Record) -> str:
    return f"{_spoken(timing['operation'])}, {timing['order'].replace('+', ' + ')}\n{timing['size']}"
