"""Compare recipes by training: the same budget, the same seeds, the same held-out persons or pairs.

    python benchmarks/training_comparison.py NAME --recipes sagan/lspet-small-hg sagan/lspet-small-sarm ... \
        --seeds 0 1 --runs runs --set data.root=LSPET run.epochs=10 ...

Trains every recipe with every seed through ``fastpose train`` (a run that stands already is read, not repeated) and
with ``--start RECIPE`` trains that one first and lets the others begin with its weights of the same seed; it is not
compared, as its budget is its own. Writes ``benchmarks/results/training/NAME.json`` (the command, the machine, every
evaluation of every run and joint) and ``NAME.png`` (mean and range over the seeds of the first metric that all recipes
have against the step). ``--pictures curves.png samples/poses.png`` keeps these pictures of each recipe's first run,
where it has them, as ``NAME-RECIPE-PICTURE.jpg``.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from fastpose import training
from fastpose.benchmark import machine
from fastpose.training import config as configuration
from fastpose.training.run_folder import RunFolder

Runs = dict[str, dict[str, list[dict[str, Any]]]]
"""The evaluations of each recipe and seed."""

RESULTS = Path(__file__).parent / "results" / "training"
WIDEST = 1000
"""Pixels of a picture that is kept."""


def run_folder(runs: Path, recipe: str, seed: int) -> Path:
    """Return where ``fastpose train`` puts the run of a recipe and a seed."""
    return runs / recipe / f"seed-{seed}"


def train(runs: Path, recipe: str, seed: int, overrides: list[str]) -> None:
    """Train one recipe with one seed, unless that run stands already, finished and with this configuration."""
    folder = run_folder(runs, recipe, seed)
    if folder.is_dir():
        check_finished(folder, recipe, [f"run.seed={seed}", *overrides])
        return
    command = [sys.executable, "-m", "fastpose", "train", recipe, f"run.seed={seed}", *overrides]
    subprocess.run([*command, "--name", f"seed-{seed}", "--out", str(runs)], check=True)


def check_finished(folder: Path, recipe: str, overrides: list[str]) -> None:
    """Exit with one sentence unless the folder holds a finished run of this configuration."""
    _, found = RunFolder.open(folder).read_config()
    wanted = configuration.to_dict(training.load_recipe(recipe, overrides).config)
    changed = configuration.differences(found, wanted)
    if changed or not (folder / "report.html").is_file():
        reason = f"of another configuration ({', '.join(changed)})" if changed else "not finished"
        raise SystemExit(f"{folder}: this run is {reason}; move it away")


def recorded(script: str, name: str, *words: str) -> str:
    """Return a command as it is written into a result file: paths of this machine by their key in capitals."""
    shown = []
    for word in words:
        key, equals, value = word.partition("=")
        is_path = bool(equals) and "/" in value
        shown.append(f"{key}={key.rpartition('.')[2].upper()}" if is_path else word)
    return shlex.join(["python", f"benchmarks/{script}", name, *shown])


def evaluations(folder: Path) -> list[dict[str, Any]]:
    """Return the evaluations of a run in order: step, epoch, name, protocol, value, count, rows and per_joint.

    The value of real data and that of chance stand beside where the metric has them.
    """
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    kept = ("step", "epoch", "name", "protocol", "value", "count", "per_joint")
    chosen = [row for row in rows if row["kind"] == "evaluation"]
    beside = [{key: row["details"][key] for key in ("real", "chance") if key in row["details"]} for row in chosen]
    return [
        {key: row[key] for key in kept} | {"rows": row["details"].get("rows", {})} | own
        for row, own in zip(chosen, beside, strict=True)
    ]


def of_metric(name: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the evaluations of one metric."""
    return [row for row in rows if row["name"] == name]


def metrics(runs: Runs) -> list[str]:
    """Return the names of all metrics in the order in which they come, those first that every run has."""
    names = dict.fromkeys(row["name"] for seeds in runs.values() for rows in seeds.values() for row in rows)
    return sorted(names, key=lambda name: not in_all(name, runs))


def in_all(name: str, runs: Runs) -> bool:
    """Whether every run has a metric."""
    return all(of_metric(name, rows) for seeds in runs.values() for rows in seeds.values())


def table(runs: Runs) -> str:
    """Return the last evaluations as text: a line per metric and recipe with the mean over seeds and each value."""
    lines = []
    for name in metrics(runs):
        for recipe, seeds in runs.items():
            last = [of_metric(name, rows)[-1]["value"] for rows in seeds.values() if of_metric(name, rows)]
            if last:
                each = ", ".join(f"{value:.4g}" for value in last)
                lines.append(f"{name:20} {recipe:32} {sum(last) / len(last):8.4g}  ({each})")
    return "\n".join(lines)


def plot(runs: Runs, path: Path) -> None:
    """Draw the first metric that all runs have; nothing where there is none."""
    from fastpose.visual.curves import plot_comparison

    metric = next((name for name in metrics(runs) if in_all(name, runs)), None)
    if metric is None:
        print(f"{path.name}: not drawn, the recipes have no metric in common", file=sys.stderr)
        return
    groups = {}
    for recipe, seeds in runs.items():
        chosen = [of_metric(metric, rows) for rows in seeds.values()]
        curves = [[{"step": row["step"], metric: row["value"]} for row in rows] for rows in chosen]
        groups[recipe.rpartition("/")[2]] = curves
    plot_comparison(groups, path, column=metric, x="step")


def keep_pictures(runs: Path, recipes: list[str], seed: int, wanted: list[str], name: str) -> None:
    """Write pictures of each recipe's run beside the results, small enough for a page."""
    import cv2

    for recipe in recipes:
        for source in (run_folder(runs, recipe, seed) / picture for picture in wanted):
            if not source.is_file():
                continue
            image = cv2.imread(str(source))
            share = min(1.0, WIDEST / image.shape[1])
            small = cv2.resize(image, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
            target = RESULTS / f"{name}-{recipe.rpartition('/')[2]}-{source.stem}.jpg"
            cv2.imwrite(str(target), small, [cv2.IMWRITE_JPEG_QUALITY, 85])


def beginning(given: argparse.Namespace, recipe: str, seed: int) -> list[str]:
    """Return the overrides of one recipe and seed: the common ones, and those of the first stage or its weights."""
    common = [override.replace("{seed}", str(seed)) for override in given.overrides]
    if recipe == given.start:
        return common + given.start_overrides
    weights = run_folder(given.runs, given.start, seed) / "weights/best.safetensors"
    return common + ([f"run.start={weights}"] if given.start else [])


def parse(words: list[str] | None) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description="Compare recipes by training at equal budget.")
    parser.add_argument("name", help="of the result files")
    parser.add_argument("--recipes", nargs="+", required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument(
        "--set", nargs="*", default=[], dest="overrides", help="key=value for every run; {seed} is its seed"
    )
    parser.add_argument("--start", default="", help="recipe that is trained first; the others begin with its weights")
    parser.add_argument(
        "--start-set", nargs="*", default=[], dest="start_overrides", help="key=value for that one only"
    )
    parser.add_argument("--pictures", nargs="*", default=[], help="of each run folder, to be kept beside the results")
    given = parser.parse_args(words)
    if given.start_overrides and not given.start:
        parser.error("--start-set: changes the recipe of --start, which is not given")
    if given.start in given.recipes:
        parser.error(f"--start: {given.start} is one of --recipes too; it would have two budgets")
    return given


def found(given: argparse.Namespace, recipes: list[str]) -> Runs:
    """Return what the runs of recipes were evaluated to."""
    return {
        recipe: {str(seed): evaluations(run_folder(given.runs, recipe, seed)) for seed in given.seeds}
        for recipe in recipes
    }


def main(arguments: list[str] | None = None) -> None:
    given = parse(arguments)
    first = [given.start] if given.start else []
    for seed in given.seeds:
        for recipe in (*first, *given.recipes):
            train(given.runs, recipe, seed, beginning(given, recipe, seed))
    compared = found(given, given.recipes)
    words = ["--recipes", *given.recipes, "--seeds", *map(str, given.seeds), "--set", *given.overrides]
    words += ["--start", given.start, "--start-set", *given.start_overrides] if given.start else []
    RESULTS.mkdir(parents=True, exist_ok=True)
    content = {
        "command": recorded("training_comparison.py", given.name, *words),
        "machine": machine.describe(),
        "runs": compared,
        **({"start": found(given, first)} if first else {}),
    }
    (RESULTS / f"{given.name}.json").write_text(json.dumps(content, indent=1) + "\n")
    plot(compared, RESULTS / f"{given.name}.png")
    keep_pictures(given.runs, given.recipes, given.seeds[0], given.pictures, given.name)
    print(table(compared))


if __name__ == "__main__":
    main()
