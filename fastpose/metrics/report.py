"""A measured number and the protocol that defines it; JSON lines, and the table that the command line prints."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastpose import _numbers
from fastpose._files import publish


@dataclass(frozen=True)
class Result:
    """One number under a named protocol.

    Attributes:
        name: short name, e.g. ``"PCK@0.2"``.
        protocol: one sentence that defines the number.
        value: the number; percent for PCK, PCKh, OKS-AP and AUC.
        count: how many items the value stands on (joints for PCK, persons for OKS-AP).
        per_joint: value of each joint by name; a joint that nobody has labelled is absent.
        details: further values; ``details["rows"]`` holds the grouped rows of the published table.
    """

    name: str
    protocol: str
    value: float
    count: int
    per_joint: dict[str, float] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> dict[str, float]:
        """Rows of the published table (head, shoulder, ...), or the joints where the protocol groups none."""
        return dict(self.details.get("rows") or self.per_joint)

    def as_dict(self) -> dict[str, Any]:
        """Return plain Python values, ready for ``json.dumps``; a value that is not finite becomes None."""
        plain = {
            "name": self.name,
            "protocol": self.protocol,
            "value": self.value,
            "count": self.count,
            "per_joint": self.per_joint,
            "details": self.details,
        }
        return _plain(plain)

    def as_json(self) -> str:
        """Return one JSON line without its line end."""
        return json.dumps(self.as_dict(), allow_nan=False, ensure_ascii=False)

    def line(self, *, protocol: bool = True) -> str:
        """Return one printable line: name, value, count, rows and protocol, which may be left out."""
        rows = " ".join(f"{name} {value}" for name, value in zip(self.rows, _row_values(self.rows), strict=True))
        return (
            f"{self.name} {_numbers.text(self.value)} (n={self.count})"
            + (f"  {rows}" if rows else "")
            + (f"  [{self.protocol}]" if protocol else "")
        )


def _plain(value: Any) -> Any:
    """Return nested values as JSON knows them: numpy and torch scalars and arrays become numbers and lists."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def from_json(line: str) -> Result:
    """Return the result of one JSON line; ``ValueError`` names what is missing."""
    row = json.loads(line)
    missing = [key for key in ("name", "protocol", "value", "count") if key not in row]
    if missing:
        raise ValueError(f"result line: expected name, protocol, value and count, {', '.join(missing)} missing")
    value = math.nan if row["value"] is None else row["value"]
    return Result(row["name"], row["protocol"], value, row["count"], row.get("per_joint", {}), row.get("details", {}))


def write_jsonl(path: str | Path, results: Iterable[Result]) -> None:
    """Write one line per result, replacing the file."""
    publish(Path(path), "".join(result.as_json() + "\n" for result in results))


def append_jsonl(path: str | Path, results: Iterable[Result], **fields: Any) -> None:
    """Append one line per result; ``fields`` (epoch, step, time) stand beside the result's own keys."""
    with Path(path).open("a", encoding="utf-8") as stream:
        for result in results:
            row = {**_plain(fields), **result.as_dict()}
            stream.write(json.dumps(row, allow_nan=False, ensure_ascii=False) + "\n")


def read_jsonl(path: str | Path) -> list[Result]:
    """Return the results of a file written by :func:`write_jsonl` or :func:`append_jsonl`."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    return [from_json(line) for line in lines if line.strip()]


def with_paper(results: Sequence[Result], paper: Mapping[str, float] | None = None) -> list[dict[str, Any]]:
    """Return each result as a dict with ``paper_value`` (None where the paper has none), found by name or protocol."""
    known = paper or {}
    return [
        {**result.as_dict(), "paper_value": known.get(result.protocol, known.get(result.name))} for result in results
    ]


def table(results: Sequence[Result], paper: Mapping[str, float] | None = None, *, rows: bool = True) -> str:
    """Return a plain-text table: metric, value, the paper's value, count and protocol.

    Args:
        results: results in the order to print.
        paper: the paper's values by metric name or protocol sentence.
        rows: whether a second table lists the grouped rows (head, shoulder, ...) of each result that has them.
    """
    if not results:
        return "no results"
    lines = [["metric", "value", "paper", "count", "protocol"]]
    for result, row in zip(results, with_paper(results, paper), strict=True):
        lines.append(
            [
                result.name,
                _numbers.text(row["value"]),
                _numbers.text(row["paper_value"]),
                str(result.count),
                result.protocol,
            ]
        )
    text = align(lines, right=(1, 2, 3))
    grouped = [result for result in results if result.rows] if rows else []
    return "\n\n".join([text, *(align(_rows(result), right=range(1, 99)) for result in grouped)])


def _row_values(rows: Mapping[str, float]) -> list[str]:
    """Return the values of grouped rows as text: one decimal for percents, three for shares of one."""
    digits = 1 if max(map(abs, rows.values()), default=0) > 1 else 3
    return [f"{value:.{digits}f}" for value in rows.values()]


def _rows(result: Result) -> list[list[str]]:
    """Return two lines: the names of the rows and their values, the overall value last."""
    return [
        [result.name, *result.rows, "total"],
        ["", *_row_values(result.rows), _numbers.text(result.value)],
    ]


def align(lines: Sequence[Sequence[str]], right: Iterable[int] = ()) -> str:
    """Return rows of cells as text in columns, a rule under the first row; columns in ``right`` are right-aligned."""
    right = set(right)
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    text = [
        "  ".join(
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([text[0], "-" * min(len(max(text, key=len)), 100), *text[1:]])
