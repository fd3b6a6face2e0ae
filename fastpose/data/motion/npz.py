"""Joint positions in a NumPy archive: many clips of one skeleton in one file."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fastpose import _checks
from fastpose.data import npz_files
from fastpose.data.motion import actions
from fastpose.data.motion.clips import Motion, motion
from fastpose.data.person import existing

# Arrays of an archive that are no clips.
_SKELETON = ("joint_names", "parents")
_RESERVED = (*_SKELETON, "fps", "unit")
_ADVICE = "expected an .npz file of arrays"


def clips(path: Path) -> list[str]:
    """Return the names of an archive's clips in the file's order, without reading them."""
    return [name for name in _names(path) if name not in _RESERVED]


def holds_motion(path: Path) -> bool:
    """Whether an archive has the arrays that every archive of motions has; nothing but its directory is read."""
    return set(_SKELETON) <= set(_names(path))


def _names(path: Path) -> list[str]:
    existing("mocap", path, "archive of motions")
    with npz_files.opened(path, _ADVICE) as content:
        return list(content)


def read(path: Path, clip: str) -> Motion:
    """Read one clip: an array (T, J, 3), beside ``joint_names`` (J,) and ``parents`` (J,).

    Lengths are metres times the optional ``unit``; the rate is ``fps``, or what the file's name tells (``_30fps``).
    """
    known = clips(path)
    if clip not in known:
        raise ValueError(f"{path}: " + _checks.unknown("clip", clip, known))
    with npz_files.opened(path, _ADVICE) as content:
        for name in _SKELETON:
            if name not in content:
                raise ValueError(f"{path}: expected arrays joint_names and parents beside the clips, found no {name}")
        joints = tuple(str(name) for name in content["joint_names"].ravel())
        parents = _parents(path, content["parents"], len(joints))
        fps = _scalar(path, content, "fps", _told_by_name(path))
        unit = _scalar(path, content, "unit", 1.0)
        positions = content[clip]
    if positions.ndim != 3 or positions.shape[1:] != (len(joints), 3) or positions.dtype.kind not in "fiu":
        raise ValueError(
            f"{path}: clip {clip}: expected numbers (T, {len(joints)}, 3), found {positions.dtype} {positions.shape}"
        )
    metres, action = positions * np.float64(unit), actions.of(clip)
    return motion(path, metres, joints, parents, fps, name=clip, action=action, unit=unit)


def write(path: Path, motions: Sequence[Motion], *, joints: Sequence[str] | None = None) -> None:
    """Write clips of one skeleton and frame rate in whole millimetres, compressed; ``read`` reads them back.

    ``joints``: those to keep, each with its parent; default: all. Raises ``ValueError`` when the clips differ in
    skeleton or rate, when two have one name or one has that of another array of the file, when a kept joint lacks its
    parent, or when a joint is more than 32 m from the origin.
    """
    if not motions or len({(clip.joints, clip.parents, clip.fps) for clip in motions}) != 1:
        raise ValueError("motions: expected at least one, all of one skeleton and frame rate")
    _check_names([clip.name for clip in motions])
    first = motions[0]
    names = tuple(joints if joints is not None else first.joints)
    kept = [index for index, name in enumerate(first.joints) if name in names]
    place = {old: new for new, old in enumerate(kept)}
    if len(kept) != len(names) or any(first.parents[old] not in (-1, *kept) for old in kept):
        raise ValueError("joints: expected names of the motions' joints, each with its parent's")
    arrays = {clip.name: np.round(clip.positions[:, kept] * 1000.0) for clip in motions}
    if any(np.abs(values).max() > np.iinfo(np.int16).max for values in arrays.values()):
        raise ValueError("motions: expected joints within 32 m of the origin; move them there first")
    _save(
        path,
        {
            "joint_names": np.array([first.joints[old] for old in kept]),
            "parents": np.array([place.get(first.parents[old], -1) for old in kept]),
            "fps": np.array(first.fps),
            "unit": np.array(0.001),
            **{name: values.astype(np.int16) for name, values in arrays.items()},
        },
    )


def _check_names(names: Sequence[str]) -> None:
    """Raise ``ValueError`` unless each clip's name can be that of an array of its own."""
    for index, name in enumerate(names):
        if not name or name in _RESERVED or name in names[:index]:
            what = "names two of them" if name in names[:index] else "is no clip's name in such a file"
            raise ValueError(
                f"motions: expected clips of names unlike each other, found {name!r}, which {what}; rename it"
            )


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write what ``numpy.savez_compressed`` would, whose keyword arguments do not take every name."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, values, allow_pickle=False)


def _scalar(path: Path, content: Mapping[str, np.ndarray], name: str, default: float | None) -> float:
    if name not in content:
        if default is None:
            raise ValueError(f"{path}: its frame rate is not told; add an array fps, or name the file ..._30fps.npz")
        return default
    value = content[name]
    if value.size != 1 or value.dtype.kind not in "fiu" or not 0 < float(value.ravel()[0]) < np.inf:
        raise ValueError(f"{path}: array {name}: expected one positive number, found {value.dtype} {value.shape}")
    return float(value.ravel()[0])


def _told_by_name(path: Path) -> float | None:
    told = re.search(r"(\d{1,4})fps", path.stem)
    return float(told[1]) if told else None


def _parents(path: Path, parents: np.ndarray, joints: int) -> tuple[int, ...]:
    """Return the parents' indices; ``ValueError`` unless each comes before its child and only the first has none."""
    if parents.shape != (joints,) or parents.dtype.kind not in "iu" or not joints:
        raise ValueError(f"{path}: expected parents: {joints} whole numbers, found {parents.dtype} {parents.shape}")
    listed = tuple(int(parent) for parent in parents)
    if listed[0] != -1 or any(not 0 <= parent < joint for joint, parent in enumerate(listed) if joint):
        raise ValueError(f"{path}: parents: expected -1 for the first joint, and an earlier joint for every other one")
    return listed
