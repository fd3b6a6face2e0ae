"""What one unit of length of a motion file is in metres, told by the size of the person in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastpose import _checks

# "cmu": the CMU Graphics Lab's scaled inches, length unit 0.45 of its ASF files, which its BVH conversions keep.
UNITS = {"mm": 0.001, "cm": 0.01, "inch": 0.0254, "cmu": 0.0254 / 0.45, "m": 1.0}
# A person's largest extent at rest along an axis (height, or span of the arms) in metres: typical, and admitted.
_PERSON, _ADMITTED = 1.7, (0.7, 3.0)


def metres(path: Path, unit: str, rest: np.ndarray, told: float | None = None) -> float:
    """Return metres per unit of a file from its resting joints (J, 3).

    ``unit`` is one of ``UNITS``, or "auto": what the file tells, ``told``, if that makes a person of the skeleton, else
    the one that brings it nearest to a person's size; ``ValueError`` when none brings it near.
    """
    _checks.choice("unit", unit, ("auto", *UNITS))
    if unit != "auto":
        return UNITS[unit]
    extent = float(np.ptp(rest, axis=0).max())
    if np.isfinite(extent) and extent > 0:
        if told is not None and _ADMITTED[0] <= extent * told <= _ADMITTED[1]:
            return told
        nearest = min(UNITS.values(), key=lambda scale: abs(np.log(extent * scale / _PERSON)))
        if _ADMITTED[0] <= extent * nearest <= _ADMITTED[1]:
            return nearest
    raise ValueError(
        f"{path}: its skeleton at rest measures {extent:g} units, a person's size in none of "
        f"{', '.join(UNITS)}; name the unit by unit="
    )
