"""Heatmaps as people write them in PyTorch, NumPy and OpenCV today."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fastpose.benchmark.baselines._compiled import Tensors

SHARPNESS = 25.0  # beta of the soft argmax


def _offsets(centres: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return pixel minus centre along x (B, K, W) and y (B, K, H)."""
    height, width = size
    x = torch.arange(width, dtype=centres.dtype, device=centres.device) - centres[..., 0, None]
    y = torch.arange(height, dtype=centres.dtype, device=centres.device) - centres[..., 1, None]
    return x, y


def render_broadcast(tensors: Tensors, *, size: Sequence[int], sigma: float) -> Tensor:
    """Return Gaussians (B, K, H, W) from one exponential per pixel."""
    x, y = _offsets(tensors[0], size)
    squares = x[:, :, None].square() + y[..., None].square()  # (B, K, H, W)
    return torch.exp(-squares / (2 * sigma**2))


def render_separable(tensors: Tensors, *, size: Sequence[int], sigma: float) -> Tensor:
    """Return Gaussians (B, K, H, W) from W + H exponentials per plane; into the second tensor where there is one."""
    x, y = (torch.exp(-offset.square() / (2 * sigma**2)) for offset in _offsets(tensors[0], size))
    out = tensors[1] if len(tensors) > 1 else None
    return torch.mul(y[..., None], x[:, :, None], out=out)


def render_numpy(tensors: Tensors, *, size: Sequence[int], sigma: float) -> Tensor:
    """Return Gaussians drawn joint by joint in NumPy, as data loaders do, and copied to the key points' device."""
    import numpy as np

    centres = tensors[0].detach().cpu().numpy()
    height, width = size
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    planes = np.zeros((*centres.shape[:2], height, width), dtype=np.float32)
    for sample, points in zip(planes, centres, strict=True):
        for plane, (column, row) in zip(sample, points, strict=True):
            plane[:] = np.exp(-((x - column) ** 2 + (y - row) ** 2) / (2 * sigma**2))
    return torch.from_numpy(planes).to(tensors[0].device)


def depth_maps_broadcast(tensors: Tensors, *, size: Sequence[int], sigma: float) -> Tensor:
    """Return each joint's depth inside the square of 3 sigma around it, (B, K, H, W)."""
    centres, depth = tensors
    x, y = (offset.abs() <= 3 * sigma for offset in _offsets((centres + 0.5).floor(), size))
    return torch.where(y[..., None] & x[:, :, None], depth[..., None, None], 0.0)


def render_then_mse(tensors: Tensors, *, sigma: float) -> Tensor:
    """Return mse_loss against targets that were written to memory first; stacks share them."""
    prediction, centres = tensors
    target = render_separable((centres,), size=prediction.shape[-2:], sigma=sigma)  # (B, K, H, W)
    if prediction.dim() == 5:
        target = target[:, None].expand_as(prediction)  # (B, S, K, H, W)
    return functional.mse_loss(prediction, target)


def decode_argmax(tensors: Tensors) -> Tensor:
    """Return the places (B, K, 2) of the maxima."""
    (heatmaps,) = tensors
    _, place = heatmaps.flatten(2).max(dim=-1)
    width = heatmaps.shape[-1]
    return torch.stack((place % width, place // width), dim=-1).to(heatmaps.dtype)


def decode_quarter(tensors: Tensors) -> Tensor:
    """Return the places of the maxima, moved a quarter of a pixel toward the higher neighbour on each axis."""
    (heatmaps,) = tensors
    height, width = heatmaps.shape[-2:]
    flat = heatmaps.flatten(2)  # (B, K, N)
    _, place = flat.max(dim=-1, keepdim=True)
    x, y = place % width, place // width
    right, left = (flat.gather(2, y * width + (x + step).clamp(0, width - 1)) for step in (1, -1))
    below, above = (flat.gather(2, (y + step).clamp(0, height - 1) * width + x) for step in (1, -1))
    inside = (x > 0) & (x < width - 1) & (y > 0) & (y < height - 1)  # (B, K, 1)
    moves = torch.cat(((right - left).sign(), (below - above).sign()), dim=-1)  # (B, K, 2)
    return torch.cat((x, y), dim=-1) + 0.25 * moves * inside


def decode_softargmax(tensors: Tensors) -> Tensor:
    """Return the centre of mass (B, K, 2) of the softmax of each plane, sharpened as the operation's default is."""
    (heatmaps,) = tensors
    height, width = heatmaps.shape[-2:]
    weights = torch.softmax(SHARPNESS * heatmaps.flatten(2), dim=-1).unflatten(2, (height, width))
    x = (weights.sum(2) * torch.arange(width, device=heatmaps.device)).sum(-1)
    y = (weights.sum(3) * torch.arange(height, device=heatmaps.device)).sum(-1)
    return torch.stack((x, y), dim=-1)


def decode_dark_opencv(tensors: Tensors, kernel: int = 11) -> Any:
    """Return DARK coordinates (B, K, 2) as an array: a blur of every plane by OpenCV, then a Taylor step in NumPy."""
    import cv2
    import numpy as np

    planes = tensors[0].flatten(0, 1).cpu().numpy()  # (B * K, H, W)
    height, width = planes.shape[1:]
    place = planes.reshape(len(planes), -1).argmax(axis=1)
    x, y = (place % width).clip(2, width - 3), (place // width).clip(2, height - 3)
    blurred = np.stack([cv2.GaussianBlur(plane, (kernel, kernel), 0) for plane in planes])
    logs = np.log(np.maximum(blurred, 1e-10))

    def at(dx: int, dy: int) -> Any:
        return logs[np.arange(len(logs)), y + dy, x + dx]

    gx, gy = 0.5 * (at(1, 0) - at(-1, 0)), 0.5 * (at(0, 1) - at(0, -1))
    xx = 0.25 * (at(2, 0) - 2 * at(0, 0) + at(-2, 0))
    yy = 0.25 * (at(0, 2) - 2 * at(0, 0) + at(0, -2))
    xy = 0.25 * (at(1, 1) - at(-1, 1) - at(1, -1) + at(-1, -1))
    determinant = xx * yy - xy**2
    determinant[determinant == 0] = np.inf  # no step there
    step = np.stack((yy * gx - xy * gy, xx * gy - xy * gx), axis=-1) / determinant[:, None]
    return (np.stack((x, y), axis=-1) - step).reshape(*tensors[0].shape[:2], 2)


def _codec_maxima(sample: Any) -> Any:
    """Return the places (K, 2) of the maxima of an array (K, H, W); -1 where there is nothing above zero."""
    import numpy as np

    flat = sample.reshape(len(sample), -1)
    rows, columns = np.unravel_index(flat.argmax(axis=1), sample.shape[1:])
    places = np.stack((columns, rows), axis=-1).astype(np.float32)
    places[flat.max(axis=1) <= 0] = -1
    return places


def _codec_blur(sample: Any, kernel: int) -> None:
    """Blur each plane of an array (K, H, W) in place within zeros, and bring its maximum back."""
    import cv2
    import numpy as np

    edge = kernel // 2
    height, width = sample.shape[1:]
    for plane in sample:
        most = plane.max()
        padded = np.zeros((height + 2 * edge, width + 2 * edge), dtype=np.float32)
        padded[edge:-edge, edge:-edge] = plane
        plane[:] = cv2.GaussianBlur(padded, (kernel, kernel), 0)[edge:-edge, edge:-edge]
        plane *= most / plane.max()


def _codec_quarter(plane: Any, x: int, y: int) -> Any:
    import numpy as np

    height, width = plane.shape
    across = plane[y, x + 1] - plane[y, x - 1] if 1 < x < width - 1 and 0 < y < height else 0.0
    down = plane[y + 1, x] - plane[y - 1, x] if 1 < y < height - 1 and 0 < x < width else 0.0
    return 0.25 * np.sign([across, down], dtype=np.float32)


def _codec_taylor(logs: Any, x: int, y: int) -> Any:
    import numpy as np

    height, width = logs.shape
    if not (1 < x < width - 2 and 1 < y < height - 2):
        return 0.0
    slope = 0.5 * np.array([[logs[y, x + 1] - logs[y, x - 1]], [logs[y + 1, x] - logs[y - 1, x]]])
    xx = 0.25 * (logs[y, x + 2] - 2 * logs[y, x] + logs[y, x - 2])
    yy = 0.25 * (logs[y + 2, x] - 2 * logs[y, x] + logs[y - 2, x])
    xy = 0.25 * (logs[y + 1, x + 1] - logs[y - 1, x + 1] - logs[y + 1, x - 1] + logs[y - 1, x - 1])
    if xx * yy - xy**2 == 0:
        return 0.0
    return -(np.linalg.inv(np.array([[xx, xy], [xy, yy]])) @ slope)[:, 0]


def decode_as_codecs(tensors: Tensors, *, kernel: int = 0) -> Any:
    """Return coordinates (B, K, 2) as an array, by the steps of MMPose 1.x: sample by sample, joint by joint.

    ``kernel`` is that of DARK's blur; 0 moves a quarter of a pixel.
    """
    import numpy as np

    found = []
    for heatmaps in tensors[0].cpu().numpy():
        sample = heatmaps.copy()  # the blur is in place
        places = _codec_maxima(sample)
        if kernel:
            _codec_blur(sample, kernel)
            np.log(np.maximum(sample, 1e-10, out=sample), out=sample)
        move = _codec_taylor if kernel else _codec_quarter
        for place, plane in zip(places, sample, strict=True):
            place += move(plane, *place.astype(int))
        found.append(places)
    return np.stack(found)


# Of MMPose, which go over samples and joints on one thread: ours stand beside them on one.
CODECS: dict[str, Callable[..., Any]] = {
    "quarter": decode_as_codecs,
    "dark": partial(decode_as_codecs, kernel=11),
}
DECODERS: dict[str, dict[str, Callable[..., Any]]] = {
    "argmax": {"max": decode_argmax},
    "quarter": {"max + gather": decode_quarter},
    "dark": {"opencv": decode_dark_opencv},
    "softargmax": {"softmax": decode_softargmax},
}


def flip_and_index(tensors: Tensors, *, permutation: Sequence[int]) -> Tensor:
    """Return the mean of heatmaps and of mirrored ones, turned back with left and right joints exchanged."""
    heatmaps, flipped = tensors
    return (heatmaps + flipped.flip(-1)[:, list(permutation)]) / 2
