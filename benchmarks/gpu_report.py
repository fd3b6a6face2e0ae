"""The last page of a run on a GPU: a short table and a picture of how near each operation comes to the machine's limit.

python benchmarks/gpu_report.py RESULTS.json PICTURE.png
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastpose.benchmark import results_file, summary
from fastpose.benchmark.results_file import OURS, REFERENCE

Timing = dict[str, Any]
COLOURS = {"ours": "#1b6ca8", "best other": "#e08e0b", "reference": "#9a9a9a"}
HEAD = ("operation", "size", "order", "backend", "ms", "% of limit", "x reference", "x best other", "peak MB")


def groups(timings: list[Timing]) -> Iterator[dict[str, Timing]]:
    """Yield the fastest of ours, the fastest other way and the reference of each group that has one of ours."""
    found: dict[tuple[str, ...], list[Timing]] = {}
    for timing in timings:
        if timing["device"] == "cuda":
            found.setdefault(summary.group(timing), []).append(timing)
    for members in found.values():
        fastest: dict[str, Timing] = {}
        for timing in sorted(members, key=lambda member: member["median_s"]):
            fastest.setdefault(kind(timing["provider"]), timing)
        if "ours" in fastest:
            yield fastest


def kind(provider: str) -> str:
    """Return whose number a provider's is."""
    return "ours" if provider in OURS else REFERENCE if provider == REFERENCE else "best other"


def table(timings: list[Timing]) -> Iterator[str]:
    """Yield a line per group."""
    rows = [HEAD]
    for members in groups(timings):
        ours = members["ours"]
        cells = [ours[name] for name in ("operation", "size", "order", "provider")]
        ratios = (summary.times(ours["times_reference"]), summary.times(ours["times_best_other"]))
        share = f"{100 * ours['share_of_limit']:.0f}" if ours["floor_s"] else "-"
        peak = f"{ours['peak_bytes'] / 2**20:.0f}" if "peak_bytes" in ours else "-"
        rows.append((*cells, summary.milliseconds(ours), share, *ratios, peak))
    return summary.align(rows, left=4)


def draw(timings: list[Timing], title: str, path: Path) -> None:
    """Draw the share of the limit that each way reaches, as bars, with the limit as a line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = [members for members in groups(timings) if members["ours"]["floor_s"]]
    figure, axes = pyplot.subplots(figsize=(11, 1.5 + 0.42 * max(len(found), 1)), layout="constrained")
    for offset, (name, colour) in enumerate(COLOURS.items()):
        bars = [(row, 100 * members[name]["share_of_limit"]) for row, members in enumerate(found) if name in members]
        places = [row + 0.27 * (offset - 1) for row, _ in bars]
        axes.barh(places, [share for _, share in bars], height=0.25, color=colour, label=name)
    axes.axvline(100, color="black", linewidth=1.2, label="limit of this GPU, measured in the same run")
    axes.set_yticks(range(len(found)), [label(members["ours"]) for members in found], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("% of the measured limit (copy and matrix rates)")
    axes.set_title(title)
    axes.legend(loc="lower right", fontsize=8)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def label(timing: Timing) -> str:
    """Return what names a row of the picture."""
    return f"{timing['operation']} {timing['size']}\n{timing['order']} ({timing['provider']})"


def main(arguments: list[str]) -> int:
    """Print the table and draw the picture; return 1 where there is nothing to show."""
    source, picture = Path(arguments[0]), Path(arguments[1])
    if not source.exists():
        print(f"gpu_report.py: {source}: no result file; the benchmarks' log says why", file=sys.stderr)
        return 1
    results = results_file.read(source)
    gpus = ", ".join(results["machine"]["gpus"]) or "no GPU"
    print(f"{gpus}, torch {results['machine']['versions']['torch']}")
    for limit in results["limits"]:
        print("limit on {device}: {name} {value:.4g} {unit}".format(**limit))
    print("\n".join([*table(results["timings"]), *summary.host_costs(results.get("host_costs", []))]))
    draw(results["timings"], gpus, picture)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
