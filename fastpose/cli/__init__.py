"""The command line: one module per verb, each thin over the Python function of the same name.

Everything heavy (torch first of all) is imported inside the verbs, so that ``fastpose --help`` answers at once.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.main import get_command

from fastpose._version import __version__
from fastpose.cli import (
    _errors,
    _print,
    _signals,
    augment,
    bench,
    compose,
    data,
    demo,
    doctor,
    eval_,
    export,
    import_,
    predict,
    recipes,
    study,
    train,
    try_on,
)

__all__ = ["app", "main"]

app = typer.Typer(
    name="fastpose",
    cls=_errors.Verbs,
    help="Human pose on PyTorch: published systems by name, on fused kernels.",
    epilog="Start with: fastpose doctor, then fastpose demo.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

app.command("doctor")(doctor.doctor)
app.command("demo")(demo.demo)
app.command("train")(train.train)
app.command("eval")(eval_.evaluate)
app.command("predict")(predict.predict)
app.command("try-on")(try_on.try_on)
app.command("compose")(compose.compose)
app.add_typer(augment.app, name="augment")
app.add_typer(study.app, name="study")
app.add_typer(data.app, name="data")
app.command("import")(import_.import_checkpoint)
app.command("export")(export.export)
app.command("bench")(bench.bench)
app.add_typer(recipes.app, name="recipes")


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    if version:
        typer.echo(f"fastpose {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code.

    Args:
        arguments: the words after ``fastpose``; those of the process by default.

    Returns:
        0 when the work is done, 1 where nobody reads what is printed, 2 after a user's error (one line on stderr), 130
        after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP.
    """
    with _print.spelling():
        return _run(list(sys.argv[1:] if arguments is None else arguments))


def _run(words: list[str]) -> int:
    with _signals.Unwinding() as stop:
        try:
            code = get_command(app).main(words, prog_name="fastpose", standalone_mode=False)
        except BaseException as error:
            if stop.signal:
                return _errors.stopped(stop.signal)
            if isinstance(error, (KeyboardInterrupt, typer.Abort)):
                return _errors.stopped(signal.SIGINT)
            if isinstance(error, Exception):
                return _errors.report(error)
            raise
    if stop.signal or code == _errors.INTERRUPTED:  # newer parsers turn Ctrl-C into its exit code
        return _errors.stopped(stop.signal or signal.SIGINT)
    return code if isinstance(code, int) else 0
