"""One recorded motion: where every joint is in every frame."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

# Largest extent that the positions of a person, or of the place where one moves, can have in metres.
_FARTHEST = 1000.0


@dataclass(frozen=True, eq=False)
class Motion:
    """The joints of one person over time, in metres, in a world whose Y axis points up.

    Attributes:
        positions: float32 (T, J, 3), read-only.
        joints: the J names of the file's own skeleton.
        parents: index of each joint's parent, -1 for the root; a parent comes before its children.
        fps: frames per second.
        name: name of the clip, such as "02_01".
        action: short word for what is done, such as "walk"; empty where it is not known.
        unit: metres per unit of length of its file.
    """

    positions: np.ndarray
    joints: tuple[str, ...]
    parents: tuple[int, ...]
    fps: float
    name: str
    action: str = ""
    unit: float = 1.0

    def __len__(self) -> int:
        return len(self.positions)

    def at(self, fps: float | None) -> Motion:
        """Return the motion at a lower frame rate, by taking every n-th frame; ``None`` keeps it.

        Raises ``ValueError`` unless the motion's rate is a whole multiple of ``fps`` (within 1 %).
        """
        if fps is None:
            return self
        step = round(min(self.fps / fps, 1e9)) if fps > 0 else 0
        if step < 1 or abs(self.fps / step - fps) > 0.01 * fps:
            usual = ", ".join(f"{self.fps / divisor:g}" for divisor in (1, 2, 4, 8))
            raise ValueError(
                f"fps: expected {self.fps:g} (that of {self.name}) over a whole number, such as {usual}; got {fps:g}"
            )
        return self if step == 1 else replace(self, positions=self.positions[::step], fps=self.fps / step)


def check_positive(argument: str, value: object) -> None:
    """Raise ``ValueError`` unless ``value`` is a positive finite number."""
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not number or not 0 < float(value) < float("inf"):  # type: ignore[arg-type]
        raise ValueError(f"{argument}: expected a positive number, got {value!r}")


def motion(
    path: Path,
    positions: np.ndarray,
    joints: tuple[str, ...],
    parents: tuple[int, ...],
    fps: float,
    *,
    name: str,
    action: str = "",
    unit: float = 1.0,
) -> Motion:
    """Build a ``Motion``; ``ValueError`` naming the file when it has no frame, or positions that cannot be."""
    if not len(positions):
        raise ValueError(f"{path}: clip {name} holds no frame")
    if not (np.isfinite(fps) and 0 < fps <= 10000):
        raise ValueError(f"{path}: expected a frame rate of more than 0 and at most 10000, found {fps:g}")
    if not np.isfinite(positions).all() or np.abs(positions).max() > _FARTHEST:
        raise ValueError(
            f"{path}: clip {name} has joints that are not finite, or farther than {_FARTHEST:g} m from the origin"
        )
    frozen: np.ndarray = np.array(positions, dtype=np.float32)
    frozen.flags.writeable = False
    return Motion(frozen, joints, parents, float(fps), name, action, float(unit))
