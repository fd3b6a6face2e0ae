"""Constants of the published conventions: footprints of a joint, taps of the blur.

csrc/heatmap/heatmap_math.h holds the same table of footprints.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True)
class Profile:
    """Value ``exp(-exponent * d^2 / sigma^2)`` at distance d from the centre, inside a square window.

    Attributes:
        exponent: 1/2 for the usual Gaussian, 1 without the factor 2, 0 for a flat footprint.
        rounded: the centre is the nearest pixel, ``int(x + 0.5)``, instead of the exact point.
        window: half side of the window around the nearest pixel in units of sigma; None for the whole plane.
    """

    exponent: float
    rounded: bool
    window: float | None

    @property
    def smooth(self) -> bool:
        """Whether the footprint is differentiable in the key points and in sigma."""
        return not self.rounded and self.window is None and self.exponent > 0


HEATMAPS = {
    "gaussian": Profile(0.5, rounded=False, window=None),
    "gaussian_rounded": Profile(0.5, rounded=True, window=None),
    "msra": Profile(0.5, rounded=True, window=3.0),
    "udp": Profile(0.5, rounded=False, window=3.0),
    "wide": Profile(1.0, rounded=False, window=None),
    "binary": Profile(0.0, rounded=True, window=0.0),
}
DEPTH_MAPS = {
    "patch": Profile(0.0, rounded=True, window=3.0),
    "constant": Profile(0.0, rounded=False, window=None),
    **HEATMAPS,
}
REACH = 3.0  # a joint farther outside the plane than this many sigma (and a pixel) leaves it all zero


@lru_cache(maxsize=64)
def blur_weights(kernel: int) -> tuple[float, ...]:
    """One axis of OpenCV's ``GaussianBlur(kernel, sigma=0)``: fixed tables up to 9 taps, a Gaussian beyond."""
    tables: dict[int, list[float]] = {
        1: [1],
        3: [1, 2, 1],
        5: [1, 4, 6, 4, 1],
        7: [2, 7, 14, 18, 14, 7, 2],
        9: [4, 13, 30, 51, 60, 51, 30, 13, 4],
    }
    sigma = 0.3 * ((kernel - 1) * 0.5 - 1) + 0.8
    taps = tables.get(kernel) or [math.exp(-0.5 * ((i - kernel // 2) / sigma) ** 2) for i in range(kernel)]
    return tuple(tap / sum(taps) for tap in taps)
