"""Nothing that is evaluated was trained on: no photograph, and no recording of a motion."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fastpose.data.person import Person, Source


class _Recording(NamedTuple):
    """A clip by its name, and by where it lies; "" where a source does not tell."""

    clip: str
    place: str


def check_disjoint(sources: Sequence[Source], validation: Sequence[Source], options: str) -> None:
    """Raise ``ValueError`` where photographs or recordings of the validation sets are trained on.

    Recordings are those of 3D poses: one in the same file, or one of the same name where a source does not tell its
    file, as one does not that was rendered into a folder; the message says so.

    Args:
        sources: what is trained on.
        validation: what is evaluated.
        options: the keys of the configuration that choose them, for the message.
    """
    photographs, recordings = _seen(sources)
    held_photographs, held_recordings = _seen(validation)
    way_out = f"in the training set too, first {{}}; expected none, choose another {options}"
    shared = sorted(held_photographs & photographs)
    if shared:
        raise ValueError(
            f"data: {len(shared):,} of the {len(held_photographs):,} validation photographs are "
            + way_out.format(shared[0])
        )
    same = sorted(each for each in held_recordings if _is_among(each, recordings))
    if same:
        raise ValueError(
            f"data: {len(same):,} of the {len(held_recordings):,} recordings of the validation set are "
            + way_out.format(_told(same[0], recordings))
        )


def _seen(sources: Sequence[Source]) -> tuple[set[str], set[_Recording]]:
    """Return the photographs' paths without links, and the recordings."""
    photographs: set[Path] = set()
    recordings: set[_Recording] = set()
    for source in sources:
        drawn = hasattr(source, "photo")  # no file holds the photographs
        # The bundled clips are of a data base that lies elsewhere too, under the same names.
        told = drawn and source.name != "sample-mocap"
        for entry in source.persons:
            recordings.add(_recording(entry, told))
            if not drawn:
                photographs.add(entry.image)
    return _without_links(photographs), recordings - {_Recording("", "")}


def _without_links(photographs: set[Path]) -> set[str]:
    """Return the paths that photographs really have; a folder is asked for its links once."""
    folders = {folder: os.path.realpath(folder) for folder in {photo.parent for photo in photographs}}
    paths = [os.path.join(folders[photo.parent], photo.name) for photo in photographs]
    return {os.path.realpath(path) if os.path.islink(path) else path for path in paths}


def _recording(entry: Person, told: bool) -> _Recording:
    """Return the recording of a person; a rendered one's name begins with its place."""
    clip = "" if entry.pose3d is None else entry.pose3d.clip
    return _Recording(clip, str(entry.image.parent) if clip and told else "")


def _told(recording: _Recording, others: set[_Recording]) -> str:
    """Return the name of a recording that is among others, and whether nothing but the name says so."""
    if any(recording.place and recording.place == other.place for other in others):
        return recording.clip
    return f"{recording.clip} (by its name, since a set does not tell its file; give other recordings other names)"


def _is_among(recording: _Recording, others: set[_Recording]) -> bool:
    if not recording.place:
        return any(recording.clip == other.clip for other in others)
    return _Recording(recording.clip, "") in others or any(recording.place == other.place for other in others)
