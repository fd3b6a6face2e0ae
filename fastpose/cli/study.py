"""``fastpose study``: pages for user studies, and what their answers say."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastpose.cli import _errors, _print

if TYPE_CHECKING:
    from fastpose.visual.study import Key, Unread

POOL = 120  # pictures of each set from which a participant's are drawn, as published
KEY_SUFFIX = ".key.json"

app = _errors.group("User studies: make a page, score its answers.")

OutOption = Annotated[Path, typer.Option("--out", "-o", metavar="PAGE.html", help="The page to write.")]
SeedOption = Annotated[int, typer.Option(help="Chooses pictures, order and identifiers.")]


@app.command("make")
def make(
    real: Annotated[Path, typer.Option(metavar="DIR", help="Folder of real pictures.")],
    generated: Annotated[Path, typer.Option(metavar="DIR", help="Folder of generated pictures.")],
    out: OutOption,
    images: Annotated[int, typer.Option(help="Pictures in the test, half of them real.")] = 20,
    practice: Annotated[int, typer.Option(help="Practice pictures from each folder.")] = 10,
    exposure: Annotated[str, typer.Option(help="Seconds a picture is shown, or unlimited.")] = "5",
    pool: Annotated[int, typer.Option(help="Most pictures of each folder in the test's pool.")] = POOL,
    seed: SeedOption = 0,
    title: Annotated[str, typer.Option(help="The page's heading.")] = "Real or generated?",
) -> None:
    """Write one page that asks: real or generated? It works from disk."""
    from fastpose.visual.study import write_study

    limit = _exposure(exposure)
    if real.resolve() == generated.resolve():
        raise ValueError(f"--generated {generated}: is the folder of --real too; expected two folders")
    _check_new(out)
    files = {"real": _choose(real, practice, pool, seed), "generated": _choose(generated, practice, pool, seed)}
    pictures = {name: _unread(paths) for name, paths in files.items()}
    key = write_study(
        out,
        title=title,
        real=pictures["real"],
        generated=pictures["generated"],
        practice=practice,
        images=images,
        exposure=limit,
        seed=seed,
    )
    _report(out, key, [{**row, "file": str(files[row["truth"]][row["index"]])} for row in key.rows])
    heights = {name: sorted(picture.size[0] for picture in found)[len(found) // 2] for name, found in pictures.items()}
    if heights["real"] != heights["generated"]:
        typer.echo(
            f"note: real pictures are {heights['real']} pixels high, generated ones {heights['generated']}; all are "
            "shrunk to the smallest, which sharpens the larger ones: pictures of one size make a fairer page"
        )


@app.command("make-caption")
def make_caption(
    items: Annotated[
        Path, typer.Option(metavar="ITEMS.json", help='[{"caption": ..., "right": picture, "wrong": picture}].')
    ],
    out: OutOption,
    questions: Annotated[int, typer.Option(help="Questions a participant gets.")] = 20,
    seed: SeedOption = 0,
    title: Annotated[str, typer.Option(help="The page's heading.")] = "Which picture fits the caption?",
) -> None:
    """Write one page that asks which of two pictures fits a caption."""
    from fastpose.data.person import resolve_under
    from fastpose.visual.study import write_caption_study

    rows = _items(items)
    _check_new(out)
    pairs = [_unread([resolve_under(items.parent, row[side], items) for side in ("right", "wrong")]) for row in rows]
    loaded = [(row["caption"], right, wrong) for row, (right, wrong) in zip(rows, pairs, strict=True)]
    key = write_caption_study(out, title=title, items=loaded, questions=questions, seed=seed)
    _report(out, key, [{**row, **rows[row["index"]]} for row in key.rows])


@app.command("caption-items")
def caption_items(
    weights: Annotated[Path, typer.Option(metavar="W", help="A .safetensors file of poses from captions.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="A new folder.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Where the validation poses are, such as data.root=DIR."),
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(metavar="E", help="Of captions: minilm, sample, or a file .vec, .bin, .npz.")
    ] = None,
    count: Annotated[int, typer.Option(help="Captions, two pictures each.")] = 20,
    seed: Annotated[int, typer.Option(help="Chooses captions, noise and names.")] = 0,
    drawing: Annotated[str, typer.Option(metavar="heatmaps|skeletons", help="How poses are drawn.")] = "heatmaps",
) -> None:
    """Draw real poses of captions and generated ones for make-caption."""
    from fastpose.training import caption_study

    with _print.warnings_as_lines():
        items = caption_study.write_items(
            weights, encoder=encoder, count=count, seed=seed, drawing=drawing, out=out, overrides=overrides or []
        )
    typer.echo(f"{items}: {count} captions with two pictures each; the right one is the real pose")
    words = ["--items", str(items), "--questions", str(min(count, caption_study.COUNT)), "-o", "study.html"]
    typer.echo(f"next: fastpose study make-caption {shlex.join(words)}")


@app.command("score")
def score(
    answers: Annotated[list[Path], typer.Argument(metavar="ANSWERS...", help="Saved answers, or folders of them.")],
    key: Annotated[
        Path | None, typer.Option(metavar="PAGE.key.json", help="The study's key; every answer is compared with it.")
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out damaged, foreign and doubled files; say how many.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="DIR", help="Write results.jsonl there.")] = None,
) -> None:
    """Print R2G, G2R and accuracy, or the share of right captions."""
    from fastpose.metrics import study
    from fastpose.metrics.report import write_jsonl

    truths = study.read_key(key) if key is not None else None
    submissions, left_out = study.read_all(_files(answers), key=truths, skip=skip_bad)
    results = study.score(submissions)
    _print.results(results, study.PUBLISHED)
    typer.echo(f"submissions: {len(submissions)}")
    if left_out:
        typer.echo(f"left out: {len(left_out)}; first: {left_out[0]}")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_jsonl(out / "results.jsonl", results)


def _exposure(text: str) -> float | None:
    """Return seconds, or None for no limit."""
    if text == "unlimited":
        return None
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"--exposure {text!r}: expected a number of seconds, or unlimited") from None


def _choose(folder: Path, practice: int, pool: int, seed: int) -> list[Path]:
    """Return at most ``practice + pool`` pictures of a folder, at random; the first ones are for practice."""
    import numpy as np

    from fastpose.data.images import SUFFIXES

    if seed < 0:
        raise ValueError(f"--seed: expected 0 or more, got {seed}")
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of pictures")
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)
    if not files:
        raise FileNotFoundError(f"{folder}: no picture in it; expected {', '.join(SUFFIXES)} files")
    order = np.random.default_rng(seed).permutation(len(files))[: max(practice, 0) + max(pool, 0)]
    return [files[index] for index in order]


def _unread(paths: Sequence[Path]) -> list[Unread]:
    """Return pictures of which only the sizes are read."""
    from fastpose.data.images import read_image
    from fastpose.visual.study import Unread

    return [Unread(_upright_size(path), partial(read_image, path, exif="apply")) for path in paths]


def _upright_size(path: Path) -> tuple[int, int]:
    """Return the (H, W) of a picture as it is looked at; one that may be turned is decoded to see it."""
    from fastpose.data.images import image_size, read_image

    stored = image_size(path)
    if b"exif" not in path.read_bytes().lower():
        return stored
    height, width = read_image(path, exif="apply").shape[:2]
    return height, width


def _items(path: Path) -> list[dict[str, str]]:
    """Return the rows of an items file; ``ValueError`` names the row that lacks something."""
    if not path.is_file():
        raise FileNotFoundError(f"items {path}: no such file")
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise ValueError(f"items {path}: expected JSON, found something else") from None
    if not isinstance(rows, list) or not rows:
        found = "an empty one" if rows == [] else type(rows).__name__
        raise ValueError(f"items {path}: expected a list of captions with two pictures each, got {found}")
    keys = ("caption", "right", "wrong")
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or not all(isinstance(row.get(key), str) and row[key] for key in keys):
            raise ValueError(f"items {path}: row {number} needs the texts 'caption', 'right' and 'wrong', got {row!r}")
    return [{key: row[key] for key in keys} for row in rows]


def _key_path(page: Path) -> Path:
    return page.with_name(f"{page.stem}{KEY_SUFFIX}")


def _check_new(page: Path) -> None:
    """Raise where a page or its key would be overwritten; answers could no longer be told apart."""
    for path in (page, _key_path(page)):
        if path.exists():
            raise FileExistsError(f"{path}: exists; name another page with -o, or remove it")


def _report(page: Path, key: Key, rows: list[dict[str, Any]]) -> None:
    """Write what the identifiers stand for beside the page and say where both are."""
    from fastpose._files import publish

    path = _key_path(page)
    try:
        publish(path, json.dumps({"study": key.study, "rows": rows}, indent=1) + "\n")
    except BaseException:
        page.unlink()  # without its key it is of no use
        raise
    typer.echo(
        f"{page}: {page.stat().st_size / 1e6:.1f} MB, {len(rows)} entries, study {key.study}; open it in a browser"
    )
    typer.echo(f"{path}: what its identifiers stand for; keep it from participants")
    typer.echo(f"next: fastpose study score answers-*.json --key {path}")


def _files(paths: Sequence[Path]) -> list[Path]:
    """Return files as they are, and folders as the .json files in them; keys are no answers."""
    found: list[Path] = []
    for path in paths:
        inside = [path]
        if path.is_dir():
            inside = sorted(file for file in path.glob("*.json") if not file.name.endswith(KEY_SUFFIX))
        if not inside:
            raise FileNotFoundError(f"answers {path}: no .json file of answers in this folder")
        found += inside
    return found
