"""How a measured number is written: percents and decibels with two decimals, shares and small scores with three."""

from __future__ import annotations

import math
from typing import Any


def is_finite(value: Any) -> bool:
    """Return whether ``value`` is a number that is neither NaN nor infinite."""
    return isinstance(value, int | float) and math.isfinite(value)


def text(value: Any, *, sign: bool = False, otherwise: str = "-") -> str:
    """Return a number as it is printed beside a metric's name; ``otherwise`` for None, NaN and infinity."""
    if not is_finite(value):
        return otherwise
    return f"{value:{'+' if sign else ''}.{2 if abs(value) >= 10 else 3}f}"
