"""The report of a run: one self-contained HTML page, pictures inside, readable without network, light or dark."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from fastpose import _numbers
from fastpose._files import publish

_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp", ".gif": "image/gif"}

_CSS = """
:root { color-scheme: light dark; --ink: #1d2127; --soft: #5b6470; --line: #dfe3e8; --page: #f6f7f9; --card: #fff; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --soft: #9aa4b2; --line: #2d333c; --page: #14171b;
  --card: #1c2026; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 0 0 12px; }
p.lead { color: var(--soft); margin: 0 0 24px; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 20px;
  margin: 0 0 20px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 7px 14px 7px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 600; font-size: .85rem; white-space: nowrap; }
tr:last-child td { border-bottom: 0; }
td.number, th.number { text-align: right; white-space: nowrap; }
td.value { font-weight: 700; }
td.protocol { color: var(--soft); min-width: 16em; }
h3 { font-size: .95rem; margin: 20px 0 6px; }
img { max-width: 100%; height: auto; border-radius: 6px; background: #fff; display: block; }
figure { margin: 0; } figcaption { color: var(--soft); font-size: .87rem; margin-top: 6px; overflow-wrap: anywhere; }
.pictures { display: grid; gap: 18px; grid-template-columns: repeat(auto-fill, minmax(min(100%, 300px), 1fr)); }
.pictures .wide { grid-column: 1 / -1; }
.curves { display: grid; gap: 18px; } .curves img, .wide img { margin: 0 auto; }
.tree td:first-child { color: var(--soft); white-space: nowrap; width: 1%; padding-right: 24px; }
.tree td { font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
summary { cursor: pointer; font-weight: 600; font-size: 1.1rem; } summary + * { margin-top: 12px; }
footer { color: var(--soft); font-size: .85rem; }
"""


def write_report(
    out_path: str | Path,
    *,
    title: str,
    config: Mapping[str, Any],
    environment: Mapping[str, Any],
    results: Sequence[Any],
    curves: Sequence[str | Path] = (),
    pictures: Sequence[tuple[str, str | Path]] = (),
    summary: str = "",
) -> Path:
    """Write the page of a run.

    Args:
        out_path: HTML file to write; its folder is made.
        title: heading, e.g. recipe and run name.
        config: the resolved configuration, nested.
        environment: versions and machine, nested.
        results: mappings (or objects with ``as_dict()``) with ``name``, ``protocol``, ``value`` and, where known,
            ``paper_value``, ``count``, ``per_joint`` and ``details["rows"]``.
        curves: PNG files, shown at full width.
        pictures: (caption, image file) pairs, shown in a grid.
        summary: a line below the title.

    Returns:
        ``out_path``.

    Raises:
        FileNotFoundError: an image is missing.
        ValueError: an image has a suffix that browsers do not show, or a result has no name, protocol or value.
    """
    rows = [_result(result) for result in results]
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="lead">{escape(summary)}</p>' if summary else "",
        _section("Results", _results(rows)),
        _section("Curves", _curves(curves)) if curves else "",
        _section("Pictures", _pictures(pictures)) if pictures else "",
        _folded("Configuration", _tree(config)),
        _folded("Environment", _tree(environment)),
    ]
    path = Path(out_path)
    path.parent.mkdir(parents=True, exist_ok=True)
    publish(path, _page(title, "\n".join(part for part in body if part)))
    return path


def _page(title: str, body: str) -> str:
    # the policy lets the page load nothing from anywhere, so that it stays whole when it is mailed or archived
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<title>{escape(title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _section(heading: str, content: str) -> str:
    return f"<section>\n<h2>{escape(heading)}</h2>\n{content}\n</section>"


def _folded(heading: str, content: str) -> str:
    return f"<section>\n<details>\n<summary>{escape(heading)}</summary>\n{content}\n</details>\n</section>"


def _result(result: Any) -> dict[str, Any]:
    """Return a result as a dict that has at least name, protocol and value."""
    row = dict(result) if isinstance(result, Mapping) else dict(result.as_dict())
    missing = [key for key in ("name", "protocol", "value") if key not in row]
    if missing:
        raise ValueError(f"results: expected name, protocol and value, {', '.join(missing)} missing in {row!r}")
    return row


def _results(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the headline table, then one table of joint groups per result that has them."""
    if not rows:
        return "<p>No evaluation yet.</p>"
    heads = (
        '<th>metric</th><th class="number">value</th><th class="number">paper</th><th class="number">difference</th>'
    )
    lines = "\n".join(_headline(row) for row in rows)
    table = f"<table><thead><tr>{heads}<th>protocol</th></tr></thead><tbody>\n{lines}\n</tbody></table>"
    return "\n".join([f'<div class="scroll">{table}</div>', *(_groups(row) for row in rows)])


def _headline(row: Mapping[str, Any]) -> str:
    value, paper = row["value"], row.get("paper_value")
    cells = [
        f"<td>{escape(str(row['name']))}</td>",
        f'<td class="number value">{_number(value)}</td>',
        f'<td class="number">{_number(paper)}</td>',
        _difference(value, paper),
        f'<td class="protocol">{escape(str(row["protocol"]))}{_count(row)}</td>',
    ]
    return f"<tr>{''.join(cells)}</tr>"


def _count(row: Mapping[str, Any]) -> str:
    return f" &middot; n = {row['count']:,}" if isinstance(row.get("count"), int) else ""


def _difference(value: Any, paper: Any) -> str:
    if not (_numbers.is_finite(value) and _numbers.is_finite(paper)):
        return '<td class="number">&ndash;</td>'
    return f'<td class="number">{_numbers.text(value - paper, sign=True)}</td>'


def _groups(row: Mapping[str, Any]) -> str:
    """Return the grouped rows of one result (head, shoulder, ...) as a table with one column each."""
    groups = (row.get("details") or {}).get("rows") or row.get("per_joint") or {}
    if not groups:
        return ""
    heads = "".join(f'<th class="number">{escape(str(name))}</th>' for name in groups)
    cells = "".join(f'<td class="number">{_number(value)}</td>' for value in groups.values())
    table = f"<table><thead><tr>{heads}</tr></thead><tbody><tr>{cells}</tr></tbody></table>"
    return f'<h3>{escape(str(row["name"]))} by joint</h3>\n<div class="scroll">{table}</div>'


def _number(value: Any) -> str:
    return _numbers.text(value, otherwise="&ndash;")


def _curves(curves: Sequence[str | Path]) -> str:
    figures = "\n".join(f"<figure>{_image(path, Path(path).stem)}</figure>" for path in curves)
    return f'<div class="curves">\n{figures}\n</div>'


def _pictures(pictures: Sequence[tuple[str, str | Path]]) -> str:
    figures = "\n".join(_figure(caption, Path(path)) for caption, path in pictures)
    return f'<div class="pictures">\n{figures}\n</div>'


def _figure(caption: str, path: Path) -> str:
    """Return a picture with its caption; a picture wider than 700 pixels takes the whole row."""
    image = _image(path, caption)
    kind = ' class="wide"' if _png_width(path) > 700 else ""
    return f"<figure{kind}>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def _png_width(path: Path) -> int:
    """Return the width that a PNG's header states, 0 for other files."""
    with path.open("rb") as stream:
        head = stream.read(20)
    return int.from_bytes(head[16:20], "big") if head.startswith(b"\x89PNG") else 0


def _image(path: str | Path, alt: str) -> str:
    """Return an image tag that holds the file's bytes."""
    path = Path(path)
    if path.suffix.lower() not in _TYPES:
        raise ValueError(f"{path}: expected an image that browsers show ({', '.join(_TYPES)})")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such image for the report")
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return f'<img alt="{escape(alt)}" src="data:{_TYPES[path.suffix.lower()]};base64,{data}">'


def _tree(values: Mapping[str, Any]) -> str:
    """Return nested values as one table of dotted keys."""
    lines = "\n".join(f"<tr><td>{escape(key)}</td><td>{escape(value)}</td></tr>" for key, value in _flat(values, ""))
    return f'<div class="scroll"><table class="tree"><tbody>\n{lines}\n</tbody></table></div>'


def _flat(values: Mapping[str, Any], prefix: str) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            rows += _flat(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value, default=str)))
    return rows
