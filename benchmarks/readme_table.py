"""Write README's table and plot of speed from the committed results.

    python benchmarks/readme_table.py            after results/xeon-2cores-2026-11.json or -growth.json was replaced

The table stands between two marks in README.md; tests/test_benchmarks.py holds it to the file.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fastpose.benchmark import report, results_file, summary
from fastpose.benchmark.cases import BACKWARD, DOUBLE, FORWARD, PENALTY
from fastpose.benchmark.results_file import REFERENCE
from fastpose.visual import measurements

PROJECT = Path(__file__).resolve().parents[1]
README = PROJECT / "README.md"
RESULTS = PROJECT / "benchmarks" / "results" / "xeon-2cores-2026-11.json"
GROWTH = RESULTS.with_name(f"{RESULTS.stem}-growth.json")
PICTURE = PROJECT / "docs" / "images" / "growth.png"
BEGIN, END = "<!-- speed: written by benchmarks/readme_table.py -->", "<!-- end of speed -->"
HEAD = ("operation", "size", "ours", "plain PyTorch", "best other way", "of the limit")
_PLOT = (
    "",
    "How time and memory of attention grow with the number of positions, and with what power, from",
    f"[one run]({GROWTH.relative_to(PROJECT).as_posix()}) of `fastpose bench --growth`:",
    "",
    f"![time and memory of attention against its positions]({PICTURE.relative_to(PROJECT).as_posix()})",
)
MAIN = "B=1 Ck=32 Cv=256 N=4096 (000)"
SPOKEN = "1 image, 32 / 256 channels, 4096 positions"


class Row(NamedTuple):
    """A line of the table: what it is called, and the timing it comes from."""

    name: str
    words: str
    operation: str
    size: str
    order: str


ROWS = (
    Row("attention forward", SPOKEN, "nonlocal_attention", MAIN, FORWARD),
    Row("attention forward + backward", "same", "nonlocal_attention", MAIN, BACKWARD),
    Row("attention double backward", "same", "nonlocal_attention", MAIN, DOUBLE),
    Row("attention in a gradient penalty, whole step", "same", "nonlocal_attention", MAIN, PENALTY),
    Row(
        "render into `out=`",
        "128 x 17 heatmaps of 64 x 64",
        "render_gaussian_heatmaps",
        "(128, 17, 64, 64) sigma 2 gaussian, out=",
        FORWARD,
    ),
    Row(
        "heatmap loss forward + backward",
        "32 x 4 stacks x 16 joints, 64 x 64",
        "heatmap_mse_loss",
        "(32, 4, 16, 64, 64) sigma 1",
        BACKWARD,
    ),
    Row("DARK decoding", "128 x 17 heatmaps of 64 x 64", "decode_heatmaps", "(128, 17, 64, 64) dark", FORWARD),
    Row(
        "pairwise descriptor forward + backward",
        "4096 persons, 16 joints",
        "pairwise_descriptor",
        "(4096, 16, 3)",
        BACKWARD,
    ),
)


def block(content: dict[str, Any], source: str, picture: bool) -> str:
    """Return README's paragraph and table from the content of a result file, and the plot where there is one."""
    cells = [HEAD, *(cells for row in ROWS if (cells := _cells(content, row)))]
    lines = (*_sentences(content, source), "", *report.grid(cells, 2), *_memory(content), *(_PLOT if picture else ()))
    return "\n".join((BEGIN, *lines, END))


def current() -> str:
    """Return the block that the committed results give."""
    return block(results_file.read(RESULTS), RESULTS.relative_to(PROJECT).as_posix(), GROWTH.exists())


def _cells(content: dict[str, Any], row: Row) -> tuple[str, ...] | None:
    """Return a line of the table; None where the file has no such number."""
    wanted = (row.operation, row.size, "cpu", "float32", row.order)
    groups = summary.by_whose([timing for timing in content["timings"] if summary.group(timing) == wanted])
    if not groups:
        return None
    found = groups[0]
    other = f"{_ms(found['other'])} ({found['other']['provider']})" if "other" in found else "-"
    return (row.name, row.words, _ms(found["ours"]), _ms(found["reference"]), other, _share(found["ours"]))


def _ms(timing: dict[str, Any]) -> str:
    milliseconds = 1e3 * timing["median_s"]
    return f"{milliseconds:.0f}" if milliseconds >= 999.5 else f"{milliseconds:.1f}"


def _share(timing: dict[str, Any]) -> str:
    return f"{100 * timing['share_of_limit']:.0f} %"


def _sentences(content: dict[str, Any], source: str) -> Iterator[str]:
    cores = {1: "One CPU core", 2: "Two CPU cores"}.get(content["machine"]["threads"], "CPU cores")
    simd = {"avx512": " with AVX-512", "avx2": " with AVX2"}.get(content["machine"]["extension"].get("simd", ""), "")
    lost = len(summary.lost(content["timings"]))
    losses = f"the {lost if lost > 1 else 'one'} that we lose included" if lost else "none of which we lose"
    yield f"{cores}{simd}, float32, milliseconds (medians), beside plain PyTorch and the best other way to get the same"
    yield f"result, and as a share of this machine's limit, from [one run]({source})"
    yield f"of `pytest --benchmark-only`, which lists every case, {losses}:"


def _memory(content: dict[str, Any]) -> Iterator[str]:
    """Yield what a second derivative takes beyond inputs and results."""
    found = {
        record["provider"]: record["extra_bytes"] / 2**20
        for record in content["memory"]
        if record["operation"] == "nonlocal_attention" and record["order"] == DOUBLE
    }
    if {"cpu", REFERENCE} <= set(found):
        yield ""
        yield f"The three orders of that attention take {found['cpu']:.1f} MB beyond inputs and results, those of plain"
        yield f"PyTorch {found[REFERENCE]:.0f} MB."


def main() -> int:
    """Rewrite the block and, where the growth was measured, the picture."""
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    README.write_text(before + current() + rest.partition(END)[2], encoding="utf-8")
    if GROWTH.exists():
        curves = results_file.read(GROWTH)["growth"]
        measurements.plot_growth([curve for curve in curves if curve["variable"] == "N"], PICTURE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
