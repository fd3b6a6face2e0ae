"""From an exception to one line on stderr and an exit code."""

from __future__ import annotations

import os
import re
import signal
from typing import Any

import typer
from typer.core import TyperGroup

from fastpose.cli import _print

USER_ERROR = 2
INTERRUPTED = 130
# A wrong value, name or file: what the user can mend. Anything else is a defect and keeps its traceback.
MENDABLE = (ValueError, OSError)
# Python raises these two for defects of ours as well: only the sentences that we write ourselves are the user's.
_OWN_TYPE_ERROR = re.compile(r"[\w.]+: expected |unknown option of ")
_OWN_IMPORT_ERROR = re.compile(r"fastpose: |.*\bfastpose\[", re.DOTALL)
# The parser's own errors; typer carries its click inside since 0.16, so the class is found, not imported.
USAGE = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")


class Verbs(TyperGroup):
    """A group whose unknown verb offers the nearest one."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the verb that ``args`` begins with; ``ValueError`` names the nearest verb."""
        name = args[0]
        if name.startswith("-") or self.get_command(ctx, name) is not None:
            return super().resolve_command(ctx, args)
        from fastpose._checks import unknown

        raise ValueError(unknown(f"verb of {ctx.command_path}:", name, self.list_commands(ctx)))


def group(help_text: str) -> typer.Typer:
    """Return an empty group of verbs, which shows its help when none is named."""
    app = typer.Typer(help=help_text, cls=Verbs, invoke_without_command=True, rich_markup_mode=None)

    @app.callback()
    def _help(context: typer.Context) -> None:
        if context.invoked_subcommand is None:
            typer.echo(context.get_help())

    return app


def report(error: Exception) -> int:
    """Print the one line for ``error`` and return the exit code; a defect of ours is raised again.

    ``FASTPOSE_TRACEBACK=1`` shows the traceback of every error.
    """
    if os.environ.get("FASTPOSE_TRACEBACK") == "1":
        raise error
    if not isinstance(error, (*MENDABLE, USAGE)) and not is_own(error) and not _out_of_memory(error):
        raise error
    _print.line(sentence(error))
    return USER_ERROR


def is_own(error: Exception) -> bool:
    """Whether a ``TypeError`` or ``ImportError`` is one of our argument checks or names an extra to install."""
    if isinstance(error, TypeError):
        return _OWN_TYPE_ERROR.match(str(error)) is not None
    return isinstance(error, ImportError) and _OWN_IMPORT_ERROR.match(str(error)) is not None


def sentence(error: Exception) -> str:
    """Return the error as one line: file names first, usage errors with the nearest option."""
    if isinstance(error, USAGE):
        text = _usage(error)
    elif isinstance(error, OSError) and error.strerror and error.filename is not None:
        text = f"{os.fspath(error.filename)}: {error.strerror}"
    else:
        text = str(error) or type(error).__name__
    return " ".join(text.split())


def stopped(number: int) -> int:
    """Say that a signal stopped the work and return the exit code of that."""
    _print.line("interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}")
    return 128 + number


def _usage(error: Any) -> str:
    option = getattr(error, "option_name", None)
    if option is None or error.ctx is None or "such option" not in error.format_message():
        return error.format_message()
    from fastpose._checks import unknown

    known = [name for parameter in error.ctx.command.params for name in parameter.opts if name.startswith("-")]
    return unknown(f"option of {error.ctx.command_path}:", option, [*known, "--help"])


def _out_of_memory(error: Exception) -> bool:
    # By name: torch may not even be imported when an error arrives here.
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
