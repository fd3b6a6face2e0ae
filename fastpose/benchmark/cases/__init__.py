"""What is timed: every operation at the sizes of the published systems, defined once.

System 000 is the self-attention GAN hourglass, 001 PoNA, 002 the adversarial 3-D pose network, 003 the multi-scale
attention pose transfer, 004 the caption-to-pose GAN.
"""

from fastpose.benchmark.cases._attention import (
    ATTENTION,
    MAIN,
    SIZES,
    attention,
    attention_residual,
    attention_rows,
    attention_work,
)
from fastpose.benchmark.cases._case import (
    ALSO,
    AVX2,
    BACKWARD,
    DOUBLE,
    FLOAT32,
    FORWARD,
    ORDERS,
    PENALTY,
    Case,
    Tensors,
    Work,
    channels_last,
    random,
)
from fastpose.benchmark.cases._geometry import GEOMETRY, descriptor
from fastpose.benchmark.cases._gpu import GPU, GPU_ATTENTION, attention_on_gpu, mse_loss_on_gpu, on_gpu, render_on_gpu
from fastpose.benchmark.cases._heatmap import (
    HEATMAP,
    decode,
    decode_on_one_core,
    depth_maps,
    flip_average,
    mse_loss,
    render,
)

__all__ = [
    "ALSO",
    "ATTENTION",
    "AVX2",
    "BACKWARD",
    "DOUBLE",
    "FLOAT32",
    "FORWARD",
    "GEOMETRY",
    "GPU",
    "GPU_ATTENTION",
    "HEATMAP",
    "MAIN",
    "ORDERS",
    "PENALTY",
    "SIZES",
    "Case",
    "Tensors",
    "Work",
    "attention",
    "attention_on_gpu",
    "attention_residual",
    "attention_rows",
    "attention_work",
    "channels_last",
    "decode",
    "decode_on_one_core",
    "depth_maps",
    "descriptor",
    "flip_average",
    "mse_loss",
    "mse_loss_on_gpu",
    "on_gpu",
    "published",
    "quick",
    "random",
    "render",
    "render_on_gpu",
    "typical",
]


def published() -> tuple[Case, ...]:
    """Return every case that any device can do."""
    return (*ATTENTION, *SIZES, *HEATMAP, *GEOMETRY)


def typical() -> dict[str, Case]:
    """Return a published case of each operation, by the operation's name: the first of its list."""
    found: dict[str, Case] = {}
    for case in published():
        found.setdefault(case.operation, case)
    return found


def quick() -> tuple[Case, ...]:
    """Return the cases of a first look: every operation, most at one size."""
    return (
        attention(*MAIN, note="(000)", orders=(*ORDERS, PENALTY), sdpa_twice=True),
        attention_residual(2, 32, 256, (32, 32)),
        attention_rows(1, 32, (64, 64)),
        render((128, 17, 64, 64), 2.0, out=True),
        depth_maps((32, 16, 64, 64), 1.0),
        mse_loss((32, 4, 16, 64, 64), 1.0),
        *(decode((128, 17, 64, 64), method) for method in ("quarter", "dark")),
        flip_average((128, 17, 64, 64)),
        descriptor(4096, 16),
    )
