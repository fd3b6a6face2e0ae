"""The log of a run: ``metrics.jsonl`` (rows in full), ``metrics.csv`` (the same as a table), ``timing.jsonl``.

The first two hold only what a seed fixes, so that two runs of one seed write the same bytes; rates go to the third.
``metrics.csv`` follows from ``metrics.jsonl``: after a resume the latter is cut to the rows that the resume point
counted and the former is written anew.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastpose import _files
from fastpose.training import distributed
from fastpose.training.distributed import World

Row = dict[str, Any]


class Logbook:
    """Appends rows; every append leaves whole lines on the disk."""

    def __init__(self, folder: Path, *, tensorboard: bool = False) -> None:
        self.jsonl, self.csv = folder / "metrics.jsonl", folder / "metrics.csv"
        self.timing = folder / "timing.jsonl"
        self.rows = 0
        self.evaluated = -1  # step of the last evaluation
        self._columns: list[str] = []
        self._board = require_tensorboard()(str(folder / "tensorboard")) if tensorboard else None

    def resume(self, rows: int) -> None:
        """Keep the first ``rows`` rows of an earlier launch, drop what came after, write the table anew."""
        kept = _read_rows(self.jsonl)[:rows]
        _files.publish(self.jsonl, "".join(json.dumps(row) + "\n" for row in kept))
        self.rows, self._columns = len(kept), _columns(kept)
        self.evaluated = max((row["step"] for row in kept if row.get("kind") == "evaluation"), default=-1)
        _files.publish(self.csv, _table(kept, self._columns))

    def append(self, row: Row) -> None:
        """Write one row to both files; a column that is new to the table makes it be written anew."""
        row = {key: _finite_or_none(value) for key, value in row.items()}
        _append(self.jsonl, json.dumps(row) + "\n")
        self.rows += 1
        fresh = [column for column in _columns([row]) if column not in self._columns]
        if fresh:
            rows = _read_rows(self.jsonl)
            self._columns = _columns(rows)
            _files.publish(self.csv, _table(rows, self._columns))
        else:
            _append(self.csv, _lines([_flat(row)], self._columns))
        self._show(row)

    def append_timing(self, row: Row) -> None:
        """Write one row of rates."""
        _append(self.timing, json.dumps(row) + "\n")

    def flush(self) -> None:
        """Make the rows durable, so that a resume point never counts rows that a power cut takes away."""
        for path in (self.jsonl, self.csv):
            if path.is_file():
                with open(path, "rb+") as stream:
                    os.fsync(stream.fileno())

    def close(self) -> None:
        """Close the TensorBoard writer, if any."""
        if self._board is not None:
            self._board.close()

    def _show(self, row: Row) -> None:
        if self._board is None:
            return
        for name, value in _flat(row).items():
            if name not in ("step", "epoch") and isinstance(value, (int, float)):
                self._board.add_scalar(name, value, row["step"])


class Window:
    """Means of the logged scalars since the last row, summed on the device so that no step waits for it."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add one batch's scalars ()."""
        for name, value in values.items():
            value = torch.as_tensor(value).detach().double()
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1

    def means(self, place: World) -> dict[str, float]:
        """Return the means over batches and processes, and begin anew."""
        if not self.sums:
            return {}
        stacked = torch.stack([total.to(place.device) / self.counts[name] for name, total in self.sums.items()])
        names = list(self.sums)
        self.sums, self.counts = {}, {}
        return dict(zip(names, distributed.mean(stacked, place).tolist(), strict=True))

    def state_dict(self) -> dict[str, Any]:
        """Return sums and counts."""
        return {"sums": {name: value.cpu() for name, value in self.sums.items()}, "counts": dict(self.counts)}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Take back what ``state_dict`` returned."""
        self.sums = {name: value.to(device) for name, value in state["sums"].items()}
        self.counts = dict(state["counts"])


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _append(path: Path, text: str) -> None:
    with open(path, "a", encoding="utf-8", newline="") as stream:
        stream.write(text)


def _read_rows(path: Path) -> list[Row]:
    """Return the whole rows; a last line that a kill cut short is no row."""
    rows: list[Row] = []
    if not path.is_file():
        return rows
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def _flat(row: Row) -> Row:
    """Return a row of the table: an evaluation shows its value under its name, everything else as it is."""
    if row.get("kind") != "evaluation":
        return row
    return {key: row[key] for key in ("kind", "step", "epoch")} | {row["name"]: row["value"]}


def _columns(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(column for row in rows for column in _flat(row)))


def _table(rows: Iterable[Row], columns: list[str]) -> str:
    return ",".join(columns) + "\n" + _lines(map(_flat, rows), columns) if columns else ""


def _lines(rows: Iterable[Row], columns: list[str]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writerows(rows)
    return text.getvalue()


def require_tensorboard() -> Any:
    """Return TensorBoard's writer class; ``ValueError`` says how to install it."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ValueError('run.tensorboard: tensorboard is not installed; pip install "fastpose[tensorboard]"') from None
    return SummaryWriter
