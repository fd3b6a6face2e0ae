"""What a public call costs the host: tensors so small that the kernel hardly counts, no gradient wanted."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch

from fastpose import ops
from fastpose.benchmark import cuda_timing

CALLS, ROUNDS = 500, 9


def calls(device: str, backend: str) -> dict[str, Callable[[], object]]:
    """Return a call of each operation on tiny tensors, by name."""

    def numbers(*shape: int) -> torch.Tensor:
        return torch.ones(shape, device=device)

    maps, points, planes, joints, gamma = (
        numbers(1, 8, 4, 4),
        numbers(1, 2, 2),
        numbers(1, 2, 8, 8),
        numbers(1, 4, 3),
        numbers(1),
    )
    depth, size, pairs = numbers(1, 2), (8, 8), ((0, 1),)
    return {
        "nonlocal_attention": lambda: ops.nonlocal_attention(maps, maps, maps, backend=backend),
        "nonlocal_attention_residual": lambda: ops.nonlocal_attention_residual(
            maps, maps, maps, maps, gamma, backend=backend
        ),
        "render_gaussian_heatmaps": lambda: ops.render_gaussian_heatmaps(points, size, 1.0, backend=backend),
        "render_depth_maps": lambda: ops.render_depth_maps(points, depth, size, 1.0, backend=backend),
        "heatmap_mse_loss": lambda: ops.heatmap_mse_loss(planes, points, 1.0, backend=backend),
        **{
            f"decode_heatmaps {method}": partial(ops.decode_heatmaps, planes, method, backend=backend)
            for method in ("argmax", "quarter", "dark", "softargmax")
        },
        "flip_average": lambda: ops.flip_average(planes, planes, pairs, backend=backend),
        "pairwise_descriptor": lambda: ops.pairwise_descriptor(joints, backend=backend),
    }


def measure(call: Callable[[], object], device: str) -> dict[str, float | None]:
    """Return the microseconds of a call on the host, and of its kernels on a GPU."""
    with torch.no_grad():
        for _ in range(20):
            call()
        host = statistics.median(_seconds(call, device) for _ in range(ROUNDS))
        kernel = cuda_timing.measure([call])["median_s"] if device == "cuda" else None
    return {"host_us": 1e6 * host, "kernel_us": None if kernel is None else 1e6 * kernel}


def _seconds(call: Callable[[], object], device: str) -> float:
    """Return the host's seconds per call; the GPU keeps up, or the queue would stop the host."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(CALLS):
        call()
    return (time.perf_counter() - start) / CALLS
