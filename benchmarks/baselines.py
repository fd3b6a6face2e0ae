"""The same results by the ways people write them in PyTorch today, beside which the operations are timed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

Tensors = tuple[Tensor, ...]
BLOCK = 512  # queries at a time
SHARPNESS = 25.0  # beta of the soft argmax
FLASH_CHANNELS = 256  # the most that flash attention takes
ON_HOST = ("numpy + copy", "opencv")  # ways whose work is the host's: they are timed by its clock


class Compiled:
    """``torch.compile`` of a way for one size, compiled at the first call.

    torch is made to forget what it compiled before: past eight sizes of a function it would run eagerly in silence.
    """

    def __init__(self, way: Callable[..., Tensor], compiler: str = "inductor") -> None:
        self._way, self._compiler = way, compiler
        self._call: Callable[..., Tensor] | None = None

    def __call__(self, tensors: Tensors) -> Tensor:
        if self._call is None:
            torch._dynamo.reset()
            self._call = torch.compile(self._way, dynamic=False, backend=self._compiler)
        return self._call(tensors)


def attention_naive(tensors: Tensors) -> Tensor:
    """Return attention of maps (B, C, H, W) by two matrix products and a softmax; the map is stored."""
    query, key, value = (tensor.flatten(2) for tensor in tensors)  # (B, C, N)
    out = value @ torch.softmax(query.mT @ key, dim=-1).mT
    return out.unflatten(2, tensors[0].shape[2:])


def _rows(tensors: Tensors, *, channels: int = 0) -> list[Tensor]:
    """Return maps (B, C, H, W) as (B, 1, N, C) with channels contiguous: the copies that fused kernels ask for.

    Where there are fewer than ``channels``, the same copy has zeros behind them: they add nothing to a product.
    """
    rows = [tensor.flatten(2).transpose(1, 2) for tensor in tensors]  # (B, N, C)
    missing = [max(channels - row.shape[2], 0) for row in rows]
    copies = [
        functional.pad(row, (0, more)) if more else row.contiguous() for row, more in zip(rows, missing, strict=True)
    ]
    return [copy[:, None] for copy in copies]


def _maps(out: Tensor, like: Tensor) -> Tensor:
    """Return (B, 1, N, C) as maps (B, C, H, W) like the others, without a copy: nobody asks for another layout."""
    return out[:, 0].transpose(1, 2).unflatten(2, like.shape[2:])


def attention_sdpa_by(tensors: Tensors, *, kernel: SDPBackend, padded: bool = False) -> Tensor:
    """Return scaled_dot_product_attention by one of its kernels; ``NotImplementedError`` says why it refuses.

    With ``padded``, query and key get as many channels as the value has, for a kernel that takes no others.
    """
    query, key, value = _rows(tensors, channels=tensors[2].shape[1] if padded else 0)
    try:
        with sdpa_kernel(kernel):
            out = functional.scaled_dot_product_attention(query, key, value, scale=1.0)
    except (RuntimeError, UserWarning) as error:
        raise NotImplementedError(f"not supported: {_refusal(kernel, query, key, value) or error}") from None
    return _maps(out, tensors[0])


def _refusal(kernel: SDPBackend, query: Tensor, key: Tensor, value: Tensor) -> str:
    """Return what torch says against a kernel: it warns, then raises an error that names no reason."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            with sdpa_kernel(kernel):
                functional.scaled_dot_product_attention(query, key, value, scale=1.0)
        except RuntimeError as error:
            said_last = str(error)
        else:
            said_last = ""
    sentences = [str(warning.message).partition(" (Triggered")[0] for warning in said]
    about_it = [text for text in sentences if "kernel not used because" not in text and "has been runtime" not in text]
    return "; ".join(dict.fromkeys(about_it[:2])) or said_last.partition("\n")[0]


def attention_flex(tensors: Tensors) -> Tensor:
    """Return FlexAttention; to be compiled, else it stores the map."""
    from torch.nn.attention.flex_attention import flex_attention

    query, key, value = _rows(tensors)
    return _maps(flex_attention(query, key, value, scale=1.0), tensors[0])


SDPA = {
    "sdpa flash": SDPBackend.FLASH_ATTENTION,
    "sdpa cudnn": SDPBackend.CUDNN_ATTENTION,
    "sdpa efficient": SDPBackend.EFFICIENT_ATTENTION,
    "sdpa math": SDPBackend.MATH,
}
STORING = ("reference", "sdpa math", "compiled")  # ways that store the N x N map


def attention_on_gpu(*, padded: bool = False) -> dict[str, Callable[..., Tensor]]:
    """Return everything that computes attention in PyTorch on a GPU, by name; ``padded`` adds padded flash."""
    kernels = {name: partial(attention_sdpa_by, kernel=kernel) for name, kernel in SDPA.items()}
    if padded:
        kernels["sdpa flash padded"] = partial(kernels["sdpa flash"], padded=True)
    return {**kernels, "compiled": Compiled(attention_naive), "flex": Compiled(attention_flex)}


def attention_sdpa(tensors: Tensors) -> Tensor:
    """Return scaled_dot_product_attention of maps (B, C, H, W), whatever kernel torch picks."""
    query, key, value = (tensor.flatten(2).transpose(1, 2)[:, None] for tensor in tensors)  # (B, 1, N, C)
    out = functional.scaled_dot_product_attention(query, key, value, scale=1.0)
    return out[:, 0].transpose(1, 2).unflatten(2, tensors[0].shape[2:])  # (B, Cv, H, W)


def attention_blocked(tensors: Tensors) -> Tensor:
    """Return attention computed for a block of queries at a time."""
    query, key, value = (tensor.flatten(2) for tensor in tensors)  # (B, C, N)
    rows = (torch.softmax(block.mT @ key, dim=-1) for block in query.split(BLOCK, dim=2))  # (B, block, Nk)
    out = torch.cat([value @ row.mT for row in rows], dim=2)  # (B, Cv, Nq)
    return out.unflatten(2, tensors[0].shape[2:])


def attention_residual_sdpa(tensors: Tensors) -> Tensor:
    """Return residual + gamma * scaled_dot_product_attention."""
    return tensors[3] + tensors[4] * attention_sdpa(tensors[:3])


def rows_of_whole_map(tensors: Tensors, *, positions: Sequence[Sequence[int]]) -> Tensor:
    """Return chosen rows of the map, after computing all of it."""
    query, key = tensors
    width = query.shape[-1]
    whole = torch.softmax(query.flatten(2).mT @ key.flatten(2), dim=-1)  # (B, N, N)
    return whole[:, [y * width + x for x, y in positions]].unflatten(2, key.shape[2:])  # (B, P, H, W)


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


def descriptor_broadcast(tensors: Tensors) -> Tensor:
    """Return differences and squared differences of all pairs, (B, 2D, P, P)."""
    (joints,) = tensors
    columns = joints.mT  # (B, D, P)
    differences = columns[..., None] - columns[:, :, None]  # (B, D, P, P)
    return torch.cat((differences, differences.square()), dim=1)
