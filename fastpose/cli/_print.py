"""What several verbs print: results with their protocols, and where a run's files lie."""

from __future__ import annotations

import codecs
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import typer

PACKAGE = Path(__file__).resolve().parents[1]


def speaks() -> bool:
    """Whether this process prints: the only one, or rank 0 under torchrun."""
    return os.environ.get("RANK", "0") == "0"


def line(text: str) -> None:
    """Say something on stderr; where nobody hears it any more, the work counts all the same."""
    with suppress(OSError):
        typer.echo(f"fastpose: {text}", err=True)


@contextmanager
def spelling() -> Iterator[None]:
    """Let stdout and stderr show every file's name: one that is no text as its bytes, what they cannot spell escaped.

    A name must never make a verb fail whose work is done. And what Matplotlib tells programmers of its caches is not
    shown, as where no home can be written to. After the body all is as it was: the caller may be a program of its own.
    """
    codecs.register_error("fastpose", _spelled)
    matplotlib = logging.getLogger("matplotlib")
    level = matplotlib.level
    streams = {s: s.errors for s in (sys.stdout, sys.stderr) if isinstance(s, io.TextIOWrapper)}
    matplotlib.setLevel(logging.ERROR)
    for stream in streams:
        stream.reconfigure(errors="fastpose")
    try:
        yield
    finally:
        matplotlib.setLevel(level)
        for stream, errors in streams.items():
            with suppress(OSError, ValueError):  # a reader that has gone, a stream that is closed
                stream.reconfigure(errors=errors)


def _spelled(error: UnicodeError) -> tuple[str | bytes, int]:
    if isinstance(error, UnicodeEncodeError):
        with suppress(UnicodeError):
            return codecs.lookup_error("surrogateescape")(error)
    return codecs.lookup_error("backslashreplace")(error)


def results(rows: Sequence[Any], paper: Mapping[str, float] | None = None) -> None:
    """Print results with their protocols, the paper's value of the same protocol beside each where there is one."""
    from fastpose.metrics import report

    typer.echo(report.table(rows, paper))


def run_folder(folder: Path) -> None:
    """Say where the run's report, curves, pictures and weights are; only what exists is named."""
    for label, name in (
        ("report", "report.html"),
        ("curves", "curves.png"),
        ("pictures", "samples"),
        ("weights", "weights/best.safetensors"),
    ):
        if (folder / name).exists():
            typer.echo(f"{label + ':':<10}{folder / name}")


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Let what fastpose warns of be a line on stderr, at once and once each, without the line of code it comes from.

    Under torchrun rank 0 speaks. Warnings of other packages, for programmers, and whatever -W says stay as they are.
    """
    told: set[str] = set()
    usual = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if not issubclass(category, UserWarning) or not Path(str(place[0])).is_relative_to(PACKAGE):
            usual(message, category, *place, **more)
        elif speaks() and str(message) not in told:
            told.add(str(message))
            line(str(message))

    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.filterwarnings("always", category=UserWarning, module=r"fastpose\.")
        warnings.showwarning = show
        yield


@contextmanager
def bar(count: int, label: str = "images") -> Iterator[Callable[[int], None]]:
    """Give what counts images, or what ``label`` says: a bar on a terminal, and silence where nobody watches."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda done: None
        return
    with typer.progressbar(length=count, label=label, file=sys.stderr) as bar:
        yield bar.update
