"""Finding and reading clips: one file, a folder of them, or the bundled piece."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from fastpose.data.motion import asf_amc, bvh, npz
from fastpose.data.motion.asf_amc import FPS
from fastpose.data.motion.clips import Motion, check_positive

SAMPLE = Path(__file__).resolve().parents[1] / "sample" / "mocap.npz"
SUFFIXES = (".amc", ".bvh", ".npz")


@dataclass(frozen=True)
class Clip:
    """A clip that is not read yet: its file, and its name in that file (the file's own name unless an archive)."""

    path: Path
    name: str

    def read(self, *, fps: float | None = None, unit: str = "auto", recorded_fps: float = FPS) -> Motion:
        """Read it, as ``motion.read`` does."""
        return read(self.path, clip=self.name, fps=fps, unit=unit, recorded_fps=recorded_fps)


def read(
    path: str | Path,
    *,
    clip: str | None = None,
    fps: float | None = None,
    unit: str = "auto",
    recorded_fps: float = FPS,
) -> Motion:
    """Read one clip of a motion file: .amc (with the .asf of its subject), .bvh, or .npz.

    Args:
        path: the file; ``~`` is the home folder.
        clip: name of the clip in an archive of several; other files hold one, named like the file.
        fps: frame rate to take every n-th frame for; default: the rate of recording.
        unit: unit of length of an .amc or .bvh, one of ``UNITS``; "auto" tells it by the size of the skeleton.
        recorded_fps: rate of recording of an .amc, which does not tell it; the other files do.

    Raises ``ValueError`` or ``FileNotFoundError``, one sentence, for whatever the file lacks.
    """
    path = Path(path).expanduser()
    check_positive("recorded_fps", recorded_fps)
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
    if suffix == ".amc":
        return asf_amc.read(path, unit=unit, recorded_fps=recorded_fps).at(fps)
    return bvh.read(path, unit=unit).at(fps)


def _only(path: Path) -> str:
    """Return the name of an archive's clip when there is but one."""
    names = npz.clips(path)
    if len(names) != 1:
        listed = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        raise ValueError(f"{path}: holds {len(names)} clips ({listed}); name one by clip=, or list them by motion.find")
    return names[0]


def find(root: str | Path) -> list[Clip]:
    """List the clips of a file, or of every motion file under a folder, by path and name, without reading motions.

    ``~`` is the home folder. An .npz under a folder counts when it has joint names and parents. Raises
    ``FileNotFoundError`` when nothing is there.
    """
    root = Path(root).expanduser()
    if root.is_dir():
        found = [clip for path in _files(root) if _holds_motion(path) for clip in _clips(path)]
    else:
        found = _clips(root) if root.is_file() else []
    if not found:
        raise FileNotFoundError(
            f"{root}: no motion found; expected {', '.join(SUFFIXES)} files, such as subjects/SS/SS_NN.amc (an .npz: "
            "with joint_names and parents)"
        )
    return found


def others(root: str | Path) -> list[Path]:
    """List the .npz files under a folder that hold no motion, which ``find`` leaves out."""
    root = Path(root).expanduser()
    return [path for path in _files(root) if not _holds_motion(path)] if root.is_dir() else []


def _files(root: Path) -> list[Path]:
    found = sorted(Path(folder, name) for folder, _, names in os.walk(root) for name in names)
    return [path for path in found if path.suffix.lower() in SUFFIXES]


def _holds_motion(path: Path) -> bool:
    return path.suffix.lower() != ".npz" or npz.holds_motion(path)


def _clips(path: Path) -> list[Clip]:
    names = npz.clips(path) if path.suffix.lower() == ".npz" else [path.stem]
    return [Clip(path, name) for name in names]


def sample() -> list[Motion]:
    """Return the bundled clips of the CMU Graphics Lab's database (see data/sample/MOCAP.md)."""
    return [clip.read() for clip in find(SAMPLE)]
