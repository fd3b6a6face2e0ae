"""What every plot is made of: a figure with axes, how they look, and its file (matplotlib, no global state)."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

from fastpose._files import publish

_DPI = 130


def panels(count: int, title: str) -> tuple[Any, list[Any]]:
    """Return a figure and ``count`` axes, at most three in a row."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = 1 if count == 1 else 2 if count in (2, 4) else 3
    rows = math.ceil(count / columns)
    width = 6.4 if count == 1 else 4.6 * columns
    figure = Figure(figsize=(width, (4.0 if count == 1 else 3.2) * rows), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title, fontsize=12, fontweight="bold", x=0.01, ha="left")
    return figure, [figure.add_subplot(rows, columns, index + 1) for index in range(count)]


def tall(rows: int, title: str) -> tuple[Any, Any]:
    """Return a figure and one axes that has room for so many named rows."""
    figure, (axis,) = panels(1, title)
    figure.set_size_inches(9.2, 1.3 + 0.36 * rows)
    return figure, axis


def dress(axis: Any, title: str, xlabel: str, *, legend: bool) -> None:
    """Give a panel its texts, a light grid and no box."""
    axis.set_title(title, fontsize=10.5, fontweight="bold", loc="left", color="#22262c")
    axis.set_xlabel(xlabel, fontsize=9, color="#4b5563")
    axis.yaxis.label.set(fontsize=9, color="#4b5563")
    axis.tick_params(labelsize=8.5, colors="#4b5563", length=3)
    axis.grid(True, color="#e5e7eb", lw=0.8)
    axis.set_axisbelow(True)
    for name, spine in axis.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color("#9ca3af")
    if legend:
        axis.legend(fontsize=8.5, frameon=True, framealpha=0.85, edgecolor="none", loc="best")


def save(figure: Any, path: str | Path) -> Path:
    """Write a figure as PNG, whole or not at all; return the path."""
    data = io.BytesIO()
    figure.savefig(data, format="png", metadata={"Software": None})
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    publish(path, data.getvalue())
    return path
