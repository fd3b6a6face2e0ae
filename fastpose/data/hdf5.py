"""Arrays of HDF5 files that may be anything: what lies in the file itself, of numbers or letters of one size.

Links to elsewhere are not followed, and what has no fixed size is not read: in a damaged file HDF5 looks for that
for ever.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fastpose.data import unpacking
from fastpose.data.array_pickles import line

_KINDS = "biufS"


class Arrays(Mapping[str, np.ndarray]):
    """The arrays of an open file by name; each is read when it is asked for."""

    def __init__(self, path: Path, file: Any) -> None:
        self.path, self.file = path, file
        self.most = unpacking.most(path.stat().st_size)

    def __iter__(self) -> Iterator[str]:
        return iter(self.file)

    def __len__(self) -> int:
        return len(self.file)

    def __contains__(self, key: object) -> bool:
        return key in self.file

    def __getitem__(self, key: str) -> np.ndarray:
        """Return an array; ``ValueError`` for what is none, ``KeyError`` for what is not there."""
        import h5py

        link = self.file.get(key, getlink=True)
        if link is None:
            raise KeyError(key)
        found = self.file[key] if isinstance(link, h5py.HardLink) else None
        if not isinstance(found, h5py.Dataset) or found.is_virtual or found.external:
            raise ValueError(f"{self.path}: {key}: expected an array in the file itself, found a link or a group")
        long = found.dtype.kind != "S" and found.dtype.itemsize > 8
        if found.shape is None or found.dtype.kind not in _KINDS or long:
            expected = "numbers of up to 8 bytes, or texts of one length"
            raise ValueError(f"{self.path}: {key}: expected {expected}, found {found.dtype}")
        entries = max(math.prod(found.shape), math.prod(found.chunks or ()))
        if entries * found.dtype.itemsize > self.most:
            raise ValueError(
                f"{self.path}: {key}: announces {entries:,} numbers, out of proportion to the file; restore it"
            )
        return np.asarray(found[()])


@contextmanager
def opened(path: Path) -> Iterator[Arrays]:
    """Open a file and give its arrays; whatever a damaged one raises becomes one ``ValueError`` that names it."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            yield Arrays(path, file)
    except FileNotFoundError:
        raise
    except (OSError, RuntimeError, KeyError, TypeError, MemoryError) as error:
        raise ValueError(f"{path}: not a readable HDF5 file ({line(error)}); restore it") from None


def is_hdf5(path: Path) -> bool:
    """Whether a file is of HDF5; False for what is no file."""
    import h5py

    return bool(h5py.is_hdf5(path))
