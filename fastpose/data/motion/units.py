"""What one unit of length of a motion file is in metres, told by the size of the person in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastpose import _checks

# "cmu": the CMU Graphics Lab's scaled inches, length unit 0.45 of its ASF files, which its BVH conversions keep.
UNITS = {"mm": 0.001, "cm": 0.01, "inch": 0.0254, "cmu": 0.0254 / 0.45, "m": 1.0}
# A person's largest extent at rest along an axis (height, or span of the arms) in metres: typical, and admitted. The
# limits leave it open between centimetres and inches only for infants and for giants.
_PERSON, _ADMITTED = 1.7, (0.8, 2.3)


def metres(path: Path, unit: str, rest: np.ndarray, told: float | None = None) -> float:
    """Return metres per unit of a file from its resting joints (J, 3).

    ``unit`` is one of ``UNITS``, or "auto": what the file tells, ``told``, if that makes a person of the skeleton, else
    the one that brings it nearest to a person's size; ``ValueError`` when none brings it near, or when nothing that was
    told decides between an infant in centimetres and a giant in inches.
    """
    _checks.choice("unit", unit, ("auto", *UNITS))
    if unit != "auto":
        return UNITS[unit]
    extent = float(np.ptp(rest, axis=0).max())
    if told is not None and _is_person(extent * told):
        return told
    fits = [name for name, scale in UNITS.items() if _is_person(extent * scale)]
    if {"cm", "inch"} <= set(fits):
        raise ValueError(
            f"{path}: its skeleton at rest measures {extent:g} units, {extent * UNITS['cm']:.2f} m in cm or "
            f"{extent * UNITS['inch']:.2f} m in inches; name the unit by unit="
        )
    if fits:
        return min((UNITS[name] for name in fits), key=lambda scale: abs(np.log(extent * scale / _PERSON)))
    raise ValueError(
        f"{path}: its skeleton at rest measures {extent:g} units, a person's size in none of "
        f"{', '.join(UNITS)}; name the unit by unit="
    )


def _is_person(extent: float) -> bool:
    return _ADMITTED[0] <= extent <= _ADMITTED[1]


def name(scale: float) -> str:
    """Return what a unit of so many metres is called."""
    known = [name for name, metres in UNITS.items() if np.isclose(metres, scale, rtol=1e-6)]
    return known[0] if known else f"{scale:g} m"
