"""Training curves, PCK curves and comparisons of runs as PNG files (matplotlib's figures, no global state)."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from fastpose.visual import _plots
from fastpose.visual._canvas import as_array

Rows: TypeAlias = Sequence[Mapping[str, Any]]
Run: TypeAlias = "Rows | str | Path"

COLOURS = ("#2f6fde", "#e2603b", "#2a9d6e", "#8e5bd0", "#c98a12", "#d1467f", "#4b9fb8", "#6b7280")
_AXES = ("step", "epoch", "iteration")
_CLOCK = ("time", "seconds", "elapsed", "images_per_second", "rate", "eta", "wall")
_LOSSES = ("pose", "real", "fake", "adversarial", "measure", "generator", "discriminator", "critic", "perceptual")
# The single letters are those of l1, d_a, d_real, p4: digits do not count as part of a word.
_LOSS_WORDS = {"loss", "mse", "error", "penalty", "gan", "cgan", "percep", "l", "d", "p", *_LOSSES}
_SCORE_WORDS = {"pck", "pckh", "accuracy", "auc", "oks", "ap", "ssim", "psnr", "lpips"}


def plot_curves(
    run: Run | Mapping[str, Run],
    out_path: str | Path,
    *,
    columns: Iterable[str] | None = None,
    x: str | None = None,
    title: str = "",
) -> Path:
    """Plot the numeric columns of one run, or of several runs over each other.

    One run: related columns share a panel (the part of the name before a slash, else losses, scores, learning rates).
    Several runs: one panel per column, one colour per run. A loss panel turns logarithmic where positive values span
    more than a factor of 20. Long noisy series are shown faint with their running mean.

    Args:
        run: rows as dicts, the path of a ``metrics.csv``, or a mapping from run names to either.
        out_path: PNG to write; its folder is made.
        columns: columns to show; default all numeric ones except counters and clocks.
        x: column of the horizontal axis; default the first of step, epoch, iteration, else the row number.
        title: text above the panels.

    Returns:
        ``out_path``.

    Raises:
        ValueError: no column with a finite number, or an unknown name in ``columns`` or ``x``.
    """
    runs = {name: read_rows(rows) for name, rows in run.items()} if isinstance(run, Mapping) else {"": read_rows(run)}
    every = [row for rows in runs.values() for row in rows]
    x = _axis(every, x)
    names = _columns(every, columns, x)
    panels = {name: [name] for name in names} if len(runs) > 1 else _group(names, every)
    figure, axes = _plots.panels(len(panels), title)
    for axis, (panel, members) in zip(axes, panels.items(), strict=True):
        lines = [
            (label if len(runs) > 1 else _short(name, panel), *series(rows, x, name))
            for label, rows in runs.items()
            for name in members
        ]
        _draw_lines(axis, lines, logarithmic=_is_loss(panel) or any(map(_is_loss, members)))
        _plots.dress(axis, panel, x, legend=len(lines) > 1)
    return _plots.save(figure, out_path)


def plot_pck_curve(
    curves: Mapping[str, tuple[Any, Any]],
    out_path: str | Path,
    *,
    title: str = "PCK",
    xlabel: str = "threshold / reference length",
    mark: float | None = None,
) -> Path:
    """Plot the share of correct joints against the threshold.

    Args:
        curves: (thresholds (T,), percent (T,)) by label.
        out_path: PNG to write.
        title, xlabel: texts.
        mark: threshold at which a vertical line stands and the values are read into the legend.

    Returns:
        ``out_path``.
    """
    if not curves:
        raise ValueError("curves: expected at least one curve, got none")
    figure, (axis,) = _plots.panels(1, "")
    for index, (label, pair) in enumerate(curves.items()):
        thresholds, values = (as_array(part).astype(np.float64) for part in pair)
        if thresholds.shape != values.shape or thresholds.ndim != 1 or not len(values):
            raise ValueError(f"curves[{label!r}]: expected two (T,) arrays, got {thresholds.shape} and {values.shape}")
        read = "" if mark is None else f"  {np.interp(mark, thresholds, values):.1f} at {mark:g}"
        axis.plot(thresholds, values, color=COLOURS[index % len(COLOURS)], lw=2, label=label + read)
        axis.set_xlim(float(thresholds[0]), float(thresholds[-1]))
    if mark is not None:
        axis.axvline(mark, color="#6b7280", lw=1, ls=(0, (4, 3)))
    axis.set_ylim(0, 100)
    axis.set_ylabel("correct joints, %")
    _plots.dress(axis, title, xlabel, legend=True)
    return _plots.save(figure, out_path)


def plot_comparison(
    groups: Mapping[str, Sequence[Run]], out_path: str | Path, *, column: str, x: str | None = None, title: str = ""
) -> Path:
    """Compare methods that were each run with several seeds: the mean over seeds, and a band from least to greatest.

    Args:
        groups: runs (rows or ``metrics.csv`` paths), one per seed, by method name.
        out_path: PNG to write.
        column: the value to compare; seeds are joined at the x values that all of them have.
        x: column of the horizontal axis; default as :func:`plot_curves`.
        title: text above the panel.

    Returns:
        ``out_path``.
    """
    figure, (axis,) = _plots.panels(1, "")
    for index, (label, runs) in enumerate(groups.items()):
        loaded = [read_rows(run) for run in runs]
        x = _axis([row for rows in loaded for row in rows], x)
        at, values = _joined([series(rows, x, column) for rows in loaded])
        if not len(at):
            raise ValueError(f"groups[{label!r}]: no {x} at which all {len(loaded)} runs have {column!r}")
        colour = COLOURS[index % len(COLOURS)]
        seeds = f"{len(loaded)} seeds" if len(loaded) > 1 else "1 seed"
        mean = values.mean(0)
        name = f"{label}: {mean[-1]:.1f} ({seeds})"
        axis.plot(at, mean, color=colour, lw=2, marker="o" if len(at) < 30 else "", ms=4, label=name)
        axis.fill_between(at, values.min(0), values.max(0), color=colour, alpha=0.18, lw=0)
    axis.set_ylabel(column)
    _plots.dress(axis, title or f"{column}: mean and range over seeds", x or "", legend=True)
    return _plots.save(figure, out_path)


def read_rows(run: Run) -> list[dict[str, Any]]:
    """Return rows as dicts, from rows or from a CSV file with a header line."""
    if not isinstance(run, str | Path):
        return [dict(row) for row in run]
    path = Path(run)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a metrics.csv with a header line")
    with path.open(newline="", encoding="utf-8") as stream:
        return [dict(row) for row in csv.DictReader(stream)]


def series(rows: Rows, x: str, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the finite values of a column and where they lie; x "" is the row number."""
    pairs = [(index if not x else _number(row.get(x)), _number(row.get(column))) for index, row in enumerate(rows)]
    kept = [(at, value) for at, value in pairs if math.isfinite(at) and math.isfinite(value)]
    return np.array([at for at, _ in kept], dtype=float), np.array([value for _, value in kept], dtype=float)


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _joined(lines: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the x values that all series share, (T,), and their values, (series, T)."""
    tables = [dict(zip(at.tolist(), values.tolist(), strict=True)) for at, values in lines]
    shared = sorted(set.intersection(*(set(table) for table in tables))) if tables else []
    return np.array(shared), np.array([[table[at] for at in shared] for table in tables])


def _axis(rows: Rows, x: str | None) -> str:
    """Return the column of the horizontal axis, "" for the row number."""
    known = {name for row in rows for name in row}
    if x is not None and x != "" and x not in known:
        raise ValueError(f"x: expected one of {', '.join(sorted(known))}, got {x!r}")
    return x if x is not None else next((name for name in _AXES if name in known), "")


def _columns(rows: Rows, chosen: Iterable[str] | None, x: str) -> list[str]:
    """Return the columns to show, in the order of their first appearance."""
    known = {name: None for row in rows for name in row}
    if chosen is not None:
        names = list(chosen)
        wrong = [name for name in names if name not in known]
        if wrong:
            raise ValueError(f"columns: {wrong[0]!r} is not among {', '.join(known)}")
        return names
    skipped = {x, *_AXES}
    names = [name for name in known if name not in skipped and not any(word in name.lower() for word in _CLOCK)]
    names = [name for name in names if any(math.isfinite(_number(row.get(name))) for row in rows)]
    if not names:
        raise ValueError("plot_curves: no column holds a finite number; nothing to plot")
    return names


def _words(name: str) -> set[str]:
    return set(re.split(r"[^a-z]+", name.lower()))


def _is_loss(name: str) -> bool:
    return name == "losses" or bool(_words(name) & _LOSS_WORDS)


def _group(names: Sequence[str], rows: Rows) -> dict[str, list[str]]:
    """Return the columns by panel; scores in percent and shares up to 1 do not meet on one axis."""
    panels: dict[str, list[str]] = {}
    for name in names:
        panel = _panel(name)
        if panel == "scores" and max(series(rows, "", name)[1]) <= 1:
            panel = "scores, share"
        panels.setdefault(panel, []).append(name)
    ranks = {"losses": 0, "scores": 1, "scores, share": 2, "learning rate": 4}
    order = sorted(panels, key=lambda panel: ranks.get(panel, 3))
    return {panels[panel][0] if len(panels[panel]) == 1 else panel: panels[panel] for panel in order}


def _panel(name: str) -> str:
    if "/" in name:
        return name.split("/", 1)[0]
    if "lr" in _words(name):
        return "learning rate"  # of a network that may be called as a loss is
    if _words(name) & _SCORE_WORDS:
        return "scores"
    return "losses" if _is_loss(name) else name


def _short(name: str, panel: str) -> str:
    return name.removeprefix(panel + "/")


def _draw_lines(axis: Any, lines: Sequence[tuple[str, np.ndarray, np.ndarray]], *, logarithmic: bool) -> None:
    """Draw the series of a panel; long noisy ones faint, with their running mean on top."""
    for index, (label, at, values) in enumerate(lines):
        colour = COLOURS[index % len(COLOURS)]
        if len(values) > 200 and _is_noisy(values):
            axis.plot(at, values, color=colour, lw=0.8, alpha=0.25)
            axis.plot(at, running_mean(values, len(values) // 50), color=colour, lw=1.8, label=label)
        else:
            axis.plot(at, values, color=colour, lw=1.8, marker="o" if len(values) < 25 else "", ms=3.5, label=label)
    joined = np.concatenate([values for _, _, values in lines])
    if logarithmic and len(joined) and joined.min() > 0 and joined.max() / joined.min() > 20:
        axis.set_yscale("log")
    elif len(joined) and 0 < np.abs(joined).max() < 1e-2:
        axis.ticklabel_format(axis="y", style="sci", scilimits=(0, 0), useMathText=True)


def _is_noisy(values: np.ndarray) -> bool:
    """Whether a series changes its direction at more than every fourth value."""
    steps = np.sign(np.diff(values))
    return bool((steps[1:] * steps[:-1] < 0).mean() > 0.25)


def running_mean(values: np.ndarray, width: int) -> np.ndarray:
    """Return the mean over a window of ``2 * width + 1`` values centred on each, shorter at the ends."""
    total = np.concatenate(([0.0], np.cumsum(values)))
    index = np.arange(len(values))
    low, high = np.maximum(index - width, 0), np.minimum(index + width + 1, len(values))
    return (total[high] - total[low]) / (high - low)
