"""What a generating network computes, as pictures: feature maps, codes before and after attention, gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastpose import _checks
from fastpose.visual._canvas import Image, as_array, as_image, fit, resize
from fastpose.visual.grids import grid
from fastpose.visual.transfer import panels

MODES = ("components", "energy")
SIDE = 224  # longer side of a picture of features

_LEAST_CHANGE = 1e-2  # of the features before: what is smaller stays dark


def feature_pictures(features: Sequence[Any], *, mode: str = "components", side: int = SIDE) -> list[Image]:
    """Return feature maps as pictures that can be compared: one basis and one scale serve all of them.

    Args:
        features: maps (C, h, w) with the same C, tensors or arrays; values that are not finite count as 0.
        mode: "components": the first three principal components over all positions of all maps as red, green and blue.
            "energy": the root of the mean square over channels, dark to bright.
        side: longer side of a picture in pixels.

    Returns:
        one RGB uint8 picture per map.
    """
    _checks.choice("mode", mode, MODES)
    maps = [_map(f"features[{index}]", value) for index, value in enumerate(features)]
    if not maps or len({len(one) for one in maps}) != 1:
        raise ValueError(f"features: expected maps of as many channels each, got {[one.shape for one in maps]}")
    planes = _components(maps) if mode == "components" else [_energy(one) for one in maps]
    low, high = _range(planes, 2.0 if mode == "components" else 0.0)
    return [_enlarged(_colours((plane - low) / np.maximum(high - low, 1e-12)), side) for plane in planes]


def before_after(
    stages: Mapping[str, tuple[Any, Any]], *, mode: str = "components", image: Any | None = None, side: int = SIDE
) -> Image:
    """Show what a step changes in its features: before, after, and the size of the change; a row per stage.

    Args:
        stages: name -> features (C, h, w) before and after, such as those of a block's cross-modal attention.
        mode: as ``feature_pictures``; both maps of a stage share basis and scale.
        image: RGB uint8 (H, W, 3) that the features cover, shown first in every row.
        side: longer side of a panel in pixels.

    Returns:
        RGB uint8. The change is shown as the root of its mean square over channels, scaled to the row's own greatest,
        or to a hundredth of the greatest before where nothing changes; the number below a row is its norm in shares of
        that before.
    """
    rows, captions = [], []
    for name, (before, after) in stages.items():
        first, second = _map(f"{name} before", before), _map(f"{name} after", after)
        if first.shape != second.shape:
            raise ValueError(f"{name}: expected two maps of one shape, got {first.shape} and {second.shape}")
        change = second - first
        top = max(float(_energy(change).max()), _LEAST_CHANGE * float(_energy(first).max()), 1e-12)
        shown = _enlarged(_colours(_energy(change) / top), side)
        row = [*feature_pictures([first, second], mode=mode, side=side), shown]
        rows.append(row if image is None else [fit(as_image("image", image), row[0].shape[:2]), *row])
        share = float(np.linalg.norm(change) / max(float(np.linalg.norm(first)), 1e-12))
        captions.append(f"{name}: changed by {share:.1%}")
    if not rows:
        raise ValueError("stages: expected at least one, got none")
    titles = ("before", "after", "change") if image is None else ("image", "before", "after", "change")
    return panels(rows, titles, captions=captions)


def gate_picture(gates: Mapping[str, Any], *, image: Any | None = None, side: int = SIDE) -> Image:
    """Show gates as their mean over channels, on one scale from 0 (dark, closed) to 1 (bright, open).

    Args:
        gates: level -> sigmoid values (C, h, w).
        image: RGB uint8 (H, W, 3) shown first.
        side: longer side of a picture in pixels.

    Returns:
        RGB uint8; mean and deviation over channels and positions below each, the scale at the end.
    """
    tiles = [] if image is None else [_enlarged(as_image("image", image), side)]
    captions = [] if image is None else ["image"]
    for name, value in gates.items():
        plane = _map(name, value)
        tiles.append(_enlarged(_colours(plane.mean(0, keepdims=True)), side))
        captions.append(f"{name}  {plane.mean():.2f} ± {plane.std():.2f}")
    height, width = tiles[-1].shape[:2] if tiles else (side, side)
    tiles.append(_colours(np.repeat(np.linspace(1, 0, height)[None, :, None], max(1, width // 4), axis=2)))
    return grid(tiles, 6, [*captions, "0 to 1"])


def _map(argument: str, value: Any) -> np.ndarray:
    """Return a finite float64 map (C, h, w)."""
    array = as_array(value).astype(np.float64)
    if array.ndim != 3 or 0 in array.shape:
        raise ValueError(f"{argument}: expected features (C, h, w), got {array.shape}")
    return np.nan_to_num(array, nan=0.0, posinf=0.0, neginf=0.0)


def _energy(features: np.ndarray) -> np.ndarray:
    """Return the root of the mean square over channels, (1, h, w)."""
    return np.asarray(np.sqrt(np.square(features).mean(0, keepdims=True)))


def _components(maps: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return each map's first three principal components (3, h, w), in the basis of all positions of all maps."""
    values = np.concatenate([one.reshape(len(one), -1) for one in maps], axis=1)  # (C, N)
    centre = values.mean(1, keepdims=True)
    _, basis = np.linalg.eigh((values - centre) @ (values - centre).T)  # rising eigenvalues
    first = basis[:, ::-1][:, :3]
    first = first * np.where(np.take_along_axis(first, np.abs(first).argmax(0)[None], 0) < 0, -1.0, 1.0)  # one sign
    first = np.pad(first, ((0, 0), (0, 3 - first.shape[1])))  # fewer than three channels
    return [(first.T @ (one.reshape(len(one), -1) - centre)).reshape(3, *one.shape[1:]) for one in maps]


def _range(planes: Sequence[np.ndarray], percent: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and highest value of each channel over all planes (n, 1, 1), a few per cent cut off."""
    values = np.concatenate([plane.reshape(len(plane), -1) for plane in planes], axis=1)
    if percent == 0:  # an energy: its scale begins at 0
        return np.zeros((len(values), 1, 1)), values.max(1)[:, None, None]
    low, high = np.percentile(values, [percent, 100 - percent], axis=1)
    return low[:, None, None], high[:, None, None]


def _colours(planes: np.ndarray) -> Image:
    """Return planes in 0..1, three of them or one, as RGB (h, w, 3)."""
    import cv2

    levels = np.rint(255 * np.clip(planes, 0, 1)).astype(np.uint8)
    if len(levels) == 3:
        return np.ascontiguousarray(levels.transpose(1, 2, 0))
    return np.ascontiguousarray(cv2.applyColorMap(levels[0], cv2.COLORMAP_INFERNO)[..., ::-1])


def _enlarged(picture: Image, side: int) -> Image:
    """Return a picture with its longer side as asked; cells stay sharp where they are few."""
    import cv2

    height, width = picture.shape[:2]
    factor = side / max(height, width)
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    if factor < 4:
        return np.asarray(resize(picture, size), np.uint8)
    return np.asarray(cv2.resize(picture, size[::-1], interpolation=cv2.INTER_NEAREST), np.uint8)
