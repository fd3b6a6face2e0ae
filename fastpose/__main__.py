"""The process ``fastpose`` or ``python -m fastpose``: what ``torchrun -m fastpose train ...`` starts on every rank."""

from __future__ import annotations

import signal
import sys


def main() -> int:
    """Run the command line of this process and return its exit code."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Before the verbs are loaded and after they are done Ctrl-C just ends the process, as SIGTERM does.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from fastpose import cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
