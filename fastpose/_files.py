"""Files that are either whole or not there: written beside, flushed to the disk, then moved into place."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

_CHUNK = 1 << 22
_LEFT = re.compile(r"\..{1,20}-[0-9a-f]{8}\.\d+\.tmp", re.DOTALL)  # a name that ``_beside`` gives


def publish(path: Path, content: bytes | str) -> None:
    """Write ``content`` to ``path`` so that at any moment the old or the new content is there, never a part.

    Where ``path`` is a link, what it points to is replaced, and the link stays. Of a name in a text that is no text
    itself, the bytes are written as JSON's escapes.

    Raises:
        OSError: the disk refused (full, read-only, too large); the old file is untouched, the message names ``path``.
    """
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content

    def write(stream: BinaryIO) -> None:
        for start in range(0, len(data), _CHUNK):
            stream.write(data[start : start + _CHUNK])

    publish_by(path, write)


def publish_by(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """As ``publish``, of what ``write`` puts into the stream it is given."""
    target = Path(os.path.realpath(path))  # Path.resolve raises RuntimeError for a link to itself
    temporary = _beside(target)
    try:
        with open(temporary, "wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
        flush_folder(target.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        reason = error.strerror or str(error)
        raise OSError(f"{path}: could not be written ({reason}); what was there before is unchanged") from error
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _beside(path: Path) -> Path:
    """Return the hidden name under which a file is written: as it begins, and short, so that it is legal as well."""
    return path.with_name(f"{_hidden(path)}.{os.getpid()}.tmp")


def _hidden(path: Path) -> str:
    return f".{path.name[:20]}-{sha256(os.fsencode(path.name))[:8]}"


def remove_leftovers(path: Path) -> None:
    """Remove what processes have left that were killed while they wrote ``path``; none may be writing it now."""
    for found in path.parent.iterdir():
        if found.name.startswith(f"{_hidden(path)}.") and found.name.endswith(".tmp"):
            with suppress(OSError):
                found.unlink()


def sweep(folder: Path) -> None:
    """Remove what processes have left in ``folder`` that were killed while they wrote; none may be writing now."""
    for found in folder.glob(".*.tmp"):
        if _LEFT.fullmatch(found.name):
            with suppress(OSError):
                found.unlink()


def publish_json(path: Path, content: Mapping[str, Any]) -> None:
    """Publish a mapping as indented JSON."""
    publish(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def claim_folder(parent: Path, name: str) -> Path:
    """Make ``parent / name`` and return it; a name that is taken gets -2, -3, ..."""
    number = 1
    while True:
        path = parent / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir()  # the one step that tells two starts at the same moment apart
            return path
        except FileExistsError:
            number += 1


def flush_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the disk can: some do not open or flush a folder (SMB, FUSE)."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sha256(data: bytes) -> str:
    """Return the hexadecimal sha256 of ``data``."""
    return hashlib.sha256(data).hexdigest()


def read_json(path: Path, what: str) -> dict[str, Any]:
    """Return a JSON object; one sentence when the file is absent, cut or of another kind."""
    if not path.is_file():
        raise FileNotFoundError(f"{what} {path}: no such file")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise ValueError(
            f"{what} {path}: expected JSON, found {path.stat().st_size:,} bytes of something else"
        ) from None
    if not isinstance(content, dict):
        raise ValueError(f"{what} {path}: expected a JSON object, found {type(content).__name__}")
    return content
