"""The sizes of large batches on a GPU, beside everything that PyTorch has for it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from fastpose.benchmark import baselines
from fastpose.benchmark.cases._attention import attention
from fastpose.benchmark.cases._case import BACKWARD, DOUBLE, Case
from fastpose.benchmark.cases._geometry import descriptor
from fastpose.benchmark.cases._heatmap import decode, depth_maps, flip_average, mse_loss, render


def attention_on_gpu(
    batch: int, channels: int, keys: int, side: int, *, dtype: str = "float32", precision: str = "highest"
) -> Case:
    """Return a case of nonlocal_attention beside everything that PyTorch has for a GPU, in three orders."""
    note = "tf32 allowed" if precision == "high" else dtype
    case = attention(
        batch, keys, channels, (side, side), note=note, sdpa_twice=True, dtype=dtype, precision=precision, device="cuda"
    )
    size = 2 if dtype in ("bfloat16", "float16") else 4
    return replace(
        case,
        others=baselines.attention_on_gpu(padded=size == 2 and channels <= baselines.FLASH_CHANNELS),
        left_out=frozenset({("compiled", DOUBLE), ("flex", DOUBLE)}),
        map_bytes=float(size * batch * side**4),
    )


def render_on_gpu(shape: tuple[int, int, int, int], sigma: float) -> Case:
    """Return a case of render_gaussian_heatmaps beside eager and compiled torch, and NumPy with a copy."""
    case = render(shape, sigma)
    others: dict[str, Any] = {
        **case.others,
        "compiled": baselines.Compiled(partial(baselines.render_separable, size=shape[2:], sigma=sigma)),
        "numpy + copy": partial(baselines.render_numpy, size=shape[2:], sigma=sigma),
    }
    left_out = frozenset({("numpy + copy", BACKWARD), ("numpy + copy", DOUBLE), ("compiled", DOUBLE)})
    return replace(case, others=others, left_out=left_out, device="cuda")


def mse_loss_on_gpu(shape: tuple[int, ...], sigma: float) -> Case:
    """Return a case of heatmap_mse_loss beside eager and compiled torch."""
    case = mse_loss(shape, sigma)
    compiled = baselines.Compiled(partial(baselines.render_then_mse, sigma=sigma))
    return replace(
        case, others={**case.others, "compiled": compiled}, left_out=frozenset({("compiled", DOUBLE)}), device="cuda"
    )


def on_gpu(case: Case) -> Case:
    """Return the same case beside its first other way compiled as well."""
    others: dict[str, Any] = {**case.others, "compiled": baselines.Compiled(next(iter(case.others.values())))}
    return replace(case, others=others, left_out=case.left_out | {("compiled", DOUBLE)}, device="cuda")


NUMBERS = (("bfloat16", "highest"), ("float32", "highest"), ("float32", "high"), ("float16", "highest"))
GPU_ATTENTION = tuple(
    attention_on_gpu(*size, dtype=dtype, precision=precision)
    for dtype, precision in NUMBERS
    for size in ((16, 256, 32, 64), (32, 256, 32, 32), (8, 512, 64, 64), (16, 64, 8, 64))  # B, Cv, Ck, side
)
GPU_SHAPES = (((128, 17, 64, 64), 2.0), ((32, 18, 256, 256), 6.0), ((256, 17, 96, 72), 2.0))  # and sigma
GPU_HEATMAP = (
    *(render_on_gpu(*shape) for shape in GPU_SHAPES),
    *(mse_loss_on_gpu(*shape) for shape in GPU_SHAPES),
    mse_loss_on_gpu((32, 4, 16, 64, 64), 1.0),
    *(on_gpu(decode(shape, "argmax")) for shape, _ in GPU_SHAPES),
    *(on_gpu(decode((128, 17, 64, 64), method)) for method in ("quarter", "softargmax")),
    *(replace(decode(shape, "dark"), device="cuda") for shape, _ in GPU_SHAPES[::2]),
    *(on_gpu(flip_average(shape)) for shape, _ in GPU_SHAPES[::2]),
    on_gpu(depth_maps((32, 16, 64, 64), 1.0)),
)
GPU_GEOMETRY = (on_gpu(descriptor(4096, 16)), on_gpu(descriptor(65536, 17)))
GPU = (*GPU_HEATMAP, *GPU_GEOMETRY, *GPU_ATTENTION)
