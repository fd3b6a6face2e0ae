"""NumPy archives (.npz) that may be anything: numbers and letters alone, in proportion to the file, without pickle."""

from __future__ import annotations

import math
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from fastpose.data import unpacking
from fastpose.data.array_pickles import line

_KINDS = "biufUS"
_MEMBERS = 100_000
"""Arrays of an archive; a day's clips of motion are a few hundred."""


class Arrays(Mapping[str, np.ndarray]):
    """The arrays of an open archive by name; each is read when it is asked for."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, advice: str) -> None:
        self.path, self.archive, self.advice = path, archive, advice
        members = archive.infolist()
        if len(members) > _MEMBERS:
            raise ValueError(f"{path}: expected at most {_MEMBERS:,} arrays, found {len(members):,}; {advice}")
        self.members = {
            entry.filename.removesuffix(".npy"): entry for entry in members if entry.filename[-4:] == ".npy"
        }

    def __iter__(self) -> Iterator[str]:
        return iter(self.members)

    def __len__(self) -> int:
        return len(self.members)

    def __contains__(self, key: object) -> bool:
        return key in self.members

    def __getitem__(self, key: str) -> np.ndarray:
        """Return an array; ``KeyError`` for one that is not there, ``ValueError`` for one that cannot be read."""
        member = self.members[key]
        try:
            with self.archive.open(member) as stream, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a damaged header, which is refused in any case
                self._check(member, stream)
            with self.archive.open(member) as stream, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return np.lib.format.read_array(stream, allow_pickle=False)  # type: ignore[arg-type]
        except Exception as error:  # zipfile, zlib and NumPy raise many kinds for a damaged file
            raise ValueError(
                f"{self.path}: array {line(key)} cannot be read ({line(error) or type(error).__name__}); {self.advice}"
            ) from None

    def _check(self, member: zipfile.ZipInfo, stream: IO[bytes]) -> None:
        """Raise ``ValueError`` unless an array's header tells what the archive has, which is then in proportion."""
        form = np.lib.format
        version = form.read_magic(stream)  # type: ignore[arg-type]
        read = form.read_array_header_1_0 if version == (1, 0) else form.read_array_header_2_0
        shape, _, dtype = read(stream)  # type: ignore[arg-type]
        size = math.prod(shape) * dtype.itemsize
        if dtype.kind not in _KINDS or dtype.hasobject:
            raise ValueError(f"it holds {dtype}, expected numbers or texts")
        if stream.tell() + size != member.file_size or min(shape, default=0) < 0:
            raise ValueError(f"its header tells of {size:,} bytes, its place in the archive of another number")
        if member.file_size > unpacking.most(self.path.stat().st_size):
            raise ValueError(f"it takes {size:,} bytes, which is out of proportion to the file")


@contextmanager
def opened(path: Path, advice: str = "restore it") -> Iterator[Arrays]:
    """Open an archive and give its arrays; ``ValueError`` with ``advice`` for a damaged one and for another file."""
    with path.open("rb") as file:
        try:
            archive = zipfile.ZipFile(file)
        except Exception as error:  # zipfile raises many kinds for a damaged file
            reason = line(error) or type(error).__name__
            raise ValueError(f"{path}: not a readable .npz file ({reason}); {advice}") from None
        with archive:
            yield Arrays(path, archive, advice)
