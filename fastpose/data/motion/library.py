"""Finding and reading clips: one file, a folder of them, or the bundled piece."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from fastpose.data.motion import asf_amc, bvh, npz
from fastpose.data.motion.clips import Motion

SAMPLE = Path(__file__).resolve().parents[1] / "sample" / "mocap.npz"
SUFFIXES = (".amc", ".bvh", ".npz")


@dataclass(frozen=True)
class Clip:
    """A clip that is not read yet: its file, and its name in that file (the file's own name unless an archive)."""

    path: Path
    name: str

    def read(self, *, fps: float | None = None, unit: str = "auto") -> Motion:
        """Read it, as ``motion.read`` does."""
        return read(self.path, clip=self.name, fps=fps, unit=unit)


def read(path: str | Path, *, clip: str | None = None, fps: float | None = None, unit: str = "auto") -> Motion:
    """Read one clip of a motion file: .amc (with the .asf of its subject), .bvh, or .npz.

    Args:
        path: the file.
        clip: name of the clip in an archive of several; other files hold one, named like the file.
        fps: frame rate to take every n-th frame for; default: the file's own (120 for .amc, which do not tell it).
        unit: unit of length of an .amc or .bvh, one of ``UNITS``; "auto" tells it by the size of the skeleton.

    Raises ``ValueError`` or ``FileNotFoundError``, one sentence, for whatever the file lacks.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path}: expected a motion file, found a folder; motion.find lists the clips in it")
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return npz.read(path, clip if clip is not None else _only(path)).at(fps)
    if suffix not in SUFFIXES:
        hint = "; name its .amc instead" if suffix == ".asf" else ""
        raise ValueError(f"{path}: expected a motion file {', '.join(SUFFIXES)}, found {suffix or 'no suffix'!r}{hint}")
    if clip not in (None, path.stem):
        raise ValueError(f"{path}: expected clip {path.stem!r}, the only one in it, got {clip!r}")
    whole = asf_amc.read(path, unit=unit) if suffix == ".amc" else bvh.read(path, unit=unit)
    return whole.at(fps)


def _only(path: Path) -> str:
    """Return the name of an archive's clip when there is but one."""
    names = npz.clips(path)
    if len(names) != 1:
        listed = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        raise ValueError(f"{path}: holds {len(names)} clips ({listed}); name one by clip=, or list them by motion.find")
    return names[0]


def find(root: str | Path) -> list[Clip]:
    """List the clips of a file, or of every motion file under a folder, by path and name, without reading motions.

    Raises ``FileNotFoundError`` when nothing is there.
    """
    root = Path(root)
    if root.is_dir():
        files = sorted(Path(folder, name) for folder, _, names in os.walk(root) for name in names)
        found = [clip for path in files if path.suffix.lower() in SUFFIXES for clip in _clips(path)]
    else:
        found = _clips(root) if root.is_file() else []
    if not found:
        raise FileNotFoundError(
            f"{root}: no motion found; expected {', '.join(SUFFIXES)} files, such as subjects/SS/SS_NN.amc"
        )
    return found


def _clips(path: Path) -> list[Clip]:
    names = npz.clips(path) if path.suffix.lower() == ".npz" else [path.stem]
    return [Clip(path, name) for name in names]


def sample() -> list[Motion]:
    """Return the bundled clips of the CMU Graphics Lab's database (see data/sample/MOCAP.md)."""
    return [clip.read() for clip in find(SAMPLE)]
