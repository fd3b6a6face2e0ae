"""One training at a time in a run folder."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAME = ".lock"
_HELD = (errno.EACCES, errno.EAGAIN)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Within the body no other process can hold ``folder``.

    The lock is the system's, on an empty file that stays: it ends with the process, however that ends, and no child
    inherits it. Where the file system knows no locks, nothing is held.

    Raises:
        ValueError: another process holds it.
        OSError: nothing can be written into the folder.
    """
    path = folder / NAME
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
    except OSError as error:
        raise OSError(
            f"run {folder}: cannot be written to ({error.strerror}); make it writable, or copy it and resume the copy"
        ) from error
    try:
        _lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        import fcntl
    except ImportError:  # not on every system
        return
    locks: Any = fcntl
    try:
        locks.lockf(descriptor, locks.LOCK_EX | locks.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            raise ValueError(
                f"run {folder}: another process is training in this folder; wait until it has ended, or stop it"
            ) from None
