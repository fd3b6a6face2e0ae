"""What is timed: every operation at the sizes of the published systems, defined once.

System 000 is the self-attention GAN hourglass, 001 PoNA, 002 the adversarial 3-D pose network, 003 the multi-scale
attention pose transfer, 004 the caption-to-pose GAN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import baselines
import torch
from torch import Tensor

from fastpose import ops, skeletons

Tensors = tuple[Tensor, ...]
FORWARD, BACKWARD, DOUBLE = ORDERS = ("forward", "forward+backward", "double backward")


@dataclass(frozen=True)
class Work:
    """The least a call has to do: floating-point operations, bytes read and bytes written once each."""

    flop: float = 0
    read: float = 0
    written: float = 0


@dataclass(frozen=True)
class Case:
    """One operation at one size.

    Attributes:
        operation: name in ``fastpose.ops``.
        size: the size in words; with the operation it names the case.
        make: device -> the tensors of the call, the same numbers every time.
        call: the operation on those tensors, with ``backend=`` where ``table`` is given.
        table: whose list of backends holds for it; None for an operation without backends.
        others: other ways to compute the same in PyTorch, by name.
        work: what each order has to do; the orders timed are its keys.
        wanting: indices of the tensors whose gradient is taken.
        left_out: (other way, order) pairs that are not timed.
        dtype: of the tensors.
        device: "any", or the only kind of device for which the case is meant.
        precision: of float32 matrix products, as in ``torch.set_float32_matmul_precision``.
        map_bytes: of one N x N map of attention; 0 elsewhere.
    """

    operation: str
    size: str
    make: Callable[[str], Tensors]
    call: Callable[..., Any]
    table: str | None
    others: Mapping[str, Callable[..., Any]]
    work: Mapping[str, Work]
    wanting: tuple[int, ...] = ()
    left_out: frozenset[tuple[str, str]] = frozenset()
    dtype: str = "float32"
    device: str = "any"
    precision: str = "highest"
    map_bytes: float = 0.0


def random(*shapes: tuple[int, ...], scale: float = 1.0, dtype: str = "float32") -> Callable[[str], Tensors]:
    """Return a maker of seeded uniform tensors in [0, scale), drawn on the device."""

    def make(device: str) -> Tensors:
        generator = torch.Generator(device).manual_seed(0)
        numbers = (torch.rand(shape, generator=generator, device=device) * scale for shape in shapes)
        return tuple(tensor.to(device, getattr(torch, dtype)) for tensor in numbers)

    return make


def channels_last(make: Callable[[str], Tensors]) -> Callable[[str], Tensors]:
    """Return the same maker with (B, C, H, W) tensors stored with channels contiguous."""
    return lambda device: tuple(tensor.contiguous(memory_format=torch.channels_last) for tensor in make(device))


# -------------------------------------------------------------------------------------------------------- attention


def attention_work(batch: int, ck: int, cv: int, queries: int, keys: int, orders: tuple[str, ...]) -> dict[str, Work]:
    """Return the operations of each order: Ck + Cv, 3 Ck + 2 Cv and 7 Ck + 5 Cv multiply-adds per pair of positions.

    Each product counts once, however often a kernel computes it again. The double backward is counted alone: the graph
    of the first is there when its clock starts.
    """
    pairs = 2.0 * batch * queries * keys
    forward = pairs * (ck + cv)
    every = {
        FORWARD: Work(forward),
        BACKWARD: Work(forward + pairs * (3 * ck + 2 * cv)),
        DOUBLE: Work(pairs * (7 * ck + 5 * cv)),
    }
    return {order: every[order] for order in orders}


def attention(
    batch: int,
    ck: int,
    cv: int,
    query_size: tuple[int, int],
    key_size: tuple[int, int] | None = None,
    *,
    note: str = "",
    orders: tuple[str, ...] = ORDERS,
    sdpa_twice: bool = False,
    layout: Callable = lambda make: make,
    **options: Any,
) -> Case:
    """Return a case of nonlocal_attention; ``sdpa_twice`` times SDPA's double backward as well.

    A loop over blocks of queries saves nothing once a gradient is wanted: it is timed forward only.
    """
    key_size = key_size or query_size
    queries, keys = query_size[0] * query_size[1], key_size[0] * key_size[1]
    shapes = ((batch, ck, *query_size), (batch, ck, *key_size), (batch, cv, *key_size))
    pooled = "" if keys == queries else f"x{keys}"
    return Case(
        "nonlocal_attention",
        f"B={batch} Ck={ck} Cv={cv} N={queries}{pooled}{' ' if note else ''}{note}",
        layout(random(*shapes, scale=0.3, dtype=options.get("dtype", "float32"))),
        lambda tensors, **backend: ops.nonlocal_attention(*tensors, **backend),
        "nonlocal_attention",
        {"sdpa": baselines.attention_sdpa, "blocked": baselines.attention_blocked},
        attention_work(batch, ck, cv, queries, keys, orders),
        (0, 1, 2),
        frozenset({("blocked", BACKWARD), ("blocked", DOUBLE), *([] if sdpa_twice else [("sdpa", DOUBLE)])}),
        **options,
    )


def attention_residual(batch: int, ck: int, cv: int, size: tuple[int, int]) -> Case:
    """Return a case of nonlocal_attention_residual: query, key, value, residual, gamma."""
    maps = ((batch, ck, *size), (batch, ck, *size), (batch, cv, *size), (batch, cv, *size))
    positions = size[0] * size[1]
    return Case(
        "nonlocal_attention_residual",
        f"B={batch} Ck={ck} Cv={cv} N={positions}",
        random(*maps, (1,), scale=0.3),
        lambda tensors, **backend: ops.nonlocal_attention_residual(*tensors, **backend),
        "nonlocal_attention",
        {"sdpa": baselines.attention_residual_sdpa},
        attention_work(batch, ck, cv, positions, positions, ORDERS),
        (0, 1, 2, 3, 4),
        frozenset({("sdpa", DOUBLE)}),
    )


def attention_rows(batch: int, ck: int, size: tuple[int, int]) -> Case:
    """Return a case of attention_rows at nine positions."""
    positions = [[x * size[1] // 4, y * size[0] // 4] for x in (1, 2, 3) for y in (1, 2, 3)]
    count = size[0] * size[1]
    return Case(
        "attention_rows",
        f"B={batch} Ck={ck} N={count}, 9 positions",
        random((batch, ck, *size), (batch, ck, *size), scale=0.3),
        lambda tensors: ops.attention_rows(*tensors, positions),
        None,
        {"whole map": partial(baselines.rows_of_whole_map, positions=positions)},
        {FORWARD: Work(2.0 * batch * len(positions) * count * ck)},
    )


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


# The map that stands for all where one size has to do (memory, residual, layouts): SARM-B behind an hourglass.
MAIN = (1, 32, 256, (64, 64))

ATTENTION = (
    attention(*MAIN, note="(000)", sdpa_twice=True),  # SARM-B behind an hourglass; top skip branch of the discriminator
    attention(*MAIN, note="(000) channels last", orders=(FORWARD, BACKWARD), layout=channels_last),
    attention(*MAIN, note="(000) bfloat16", orders=(FORWARD, BACKWARD), dtype="bfloat16"),
    attention(2, 32, 256, (32, 32), note="(000)"),  # skip branches of the discriminator
    attention(6, 32, 256, (16, 16), note="(000)"),
    attention(6, 32, 256, (8, 8), note="(000)"),
    attention(1, 32, 256, (64, 44), note="(001)"),  # PoNA on 256 x 176 images
    attention(2, 32, 256, (32, 16), note="(001)"),  # PoNA on 128 x 64 images
    attention(1, 64, 512, (64, 64), note="(003)"),
    attention(1, 32, 128, (64, 64), (32, 32), note="pooled keys"),  # as SAGAN and BigGAN pool them
    attention_residual(*MAIN),
    attention_rows(1, 32, (64, 64)),
)
NUMBERS = (("bfloat16", "highest"), ("float32", "highest"), ("float32", "high"), ("float16", "highest"))
GPU_ATTENTION = tuple(
    attention_on_gpu(*size, dtype=dtype, precision=precision)
    for dtype, precision in NUMBERS
    for size in ((16, 256, 32, 64), (32, 256, 32, 32), (8, 512, 64, 64), (16, 64, 8, 64))  # B, Cv, Ck, side
)


# --------------------------------------------------------------------------------------------------------- heatmaps


def keypoints(shape: tuple[int, int, int, int]) -> tuple[tuple[int, int, int], float]:
    """Return the shape (B, K, 2) and the scale of key points for heatmaps (B, K, H, W)."""
    return (*shape[:2], 2), float(min(shape[2:]))


def planes_bytes(*shape: int) -> float:
    """Return the bytes of float32 planes."""
    return 4.0 * torch.Size(shape).numel()


def render(shape: tuple[int, int, int, int], sigma: float, *, profile: str = "gaussian", out: bool = False) -> Case:
    """Return a case of render_gaussian_heatmaps, into fresh memory or into ``out``."""
    points, scale = keypoints(shape)
    size, full = shape[2:], planes_bytes(*shape)
    into = random(points, *([shape] * out), scale=scale)

    def call(tensors: Tensors, **backend: str) -> Tensor:
        target = tensors[1] if out else None
        return ops.render_gaussian_heatmaps(tensors[0], size, sigma, profile=profile, out=target, **backend)

    work = {FORWARD: Work(written=full)}
    if not out and profile == "gaussian":
        work |= {BACKWARD: Work(read=full, written=full), DOUBLE: Work(read=full, written=full)}
    others = {}
    if profile == "gaussian":
        others["broadcast"] = partial(baselines.render_broadcast, size=size, sigma=sigma)
        others["separable"] = partial(baselines.render_separable, size=size, sigma=sigma)
    words = f"{shape} sigma {sigma:g} {profile}{', out=' if out else ''}"
    return Case("render_gaussian_heatmaps", words, into, call, "render_gaussian_heatmaps", others, work, (0,))


def depth_maps(shape: tuple[int, int, int, int], sigma: float) -> Case:
    """Return a case of render_depth_maps: key points (B, K, 2) and depths (B, K)."""
    points, scale = keypoints(shape)
    return Case(
        "render_depth_maps",
        f"{shape} sigma {sigma:g}",
        random(points, shape[:2], scale=scale),
        lambda tensors, **backend: ops.render_depth_maps(*tensors, size=shape[2:], sigma=sigma, **backend),
        "render_depth_maps",
        {"broadcast": partial(baselines.depth_maps_broadcast, size=shape[2:], sigma=sigma)},
        {FORWARD: Work(written=planes_bytes(*shape))},
    )


def mse_loss(shape: tuple[int, ...], sigma: float) -> Case:
    """Return a case of heatmap_mse_loss; ``shape`` is (B, K, H, W) or, with S stacks, (B, S, K, H, W)."""
    points, scale = keypoints((shape[0], *shape[-3:]))
    full = planes_bytes(*shape)
    return Case(
        "heatmap_mse_loss",
        f"{shape} sigma {sigma:g}",
        random(shape, points, scale=scale),
        lambda tensors, **backend: ops.heatmap_mse_loss(*tensors, sigma, **backend),
        "heatmap_mse_loss",
        {"render + mse_loss": partial(baselines.render_then_mse, sigma=sigma)},
        {
            FORWARD: Work(read=full),
            BACKWARD: Work(read=full, written=full),
            DOUBLE: Work(read=2 * full, written=full),  # prediction and cotangent in, second gradient out
        },
        (0,),
    )


def decode(shape: tuple[int, int, int, int], method: str) -> Case:
    """Return a case of decode_heatmaps on joints rendered in the middle half of the planes, with noise."""
    points, scale = keypoints(shape)
    full = planes_bytes(*shape)

    def make(device: str) -> Tensors:
        centres, noise = random(points, shape, scale=scale)(device)
        planes = baselines.render_separable((scale / 4 + centres / 2,), size=shape[2:], sigma=2.0)
        return (planes + 1e-3 / scale * noise,)

    orders = {FORWARD: Work(read=full)}
    if method == "softargmax":
        orders |= {BACKWARD: Work(read=2 * full, written=full), DOUBLE: Work(read=2 * full, written=full)}
    return Case(
        "decode_heatmaps",
        f"{shape} {method}",
        make,
        lambda tensors, **backend: ops.decode_heatmaps(*tensors, method, **backend)[0],
        "decode_heatmaps",
        baselines.DECODERS[method],
        orders,
        (0,) if method == "softargmax" else (),
    )


def flip_average(shape: tuple[int, int, int, int]) -> Case:
    """Return a case of flip_average."""
    full = planes_bytes(*shape)
    pairs = skeletons.COCO.flip_pairs
    return Case(
        "flip_average",
        f"{shape}",
        random(shape, shape),
        lambda tensors, **backend: ops.flip_average(*tensors, pairs, **backend),
        "flip_average",
        {"flip + index": partial(baselines.flip_and_index, permutation=skeletons.COCO.flip_permutation)},
        {
            FORWARD: Work(read=2 * full, written=full),
            BACKWARD: Work(read=3 * full, written=3 * full),
            DOUBLE: Work(read=2 * full, written=full),
        },
        (0, 1),
    )


HEATMAP = (
    render((128, 17, 64, 64), 2.0),
    render((128, 17, 64, 64), 2.0, out=True),
    render((128, 17, 64, 64), 2.0, profile="msra", out=True),
    render((6, 16, 64, 64), 1.0),  # a batch of system 000
    render((8, 18, 256, 256), 6.0, out=True),  # pose maps of systems 001 and 003
    depth_maps((32, 16, 64, 64), 1.0),  # system 002
    mse_loss((32, 4, 16, 64, 64), 1.0),  # four stacks of system 000
    mse_loss((128, 17, 64, 64), 2.0),
    *(decode((128, 17, 64, 64), method) for method in ("argmax", "quarter", "dark", "softargmax")),
    flip_average((128, 17, 64, 64)),
)


def render_on_gpu(shape: tuple[int, int, int, int], sigma: float) -> Case:
    """Return a case of render_gaussian_heatmaps beside eager and compiled torch, and NumPy with a copy."""
    case, options = render(shape, sigma), {"size": shape[2:], "sigma": sigma}
    others = {
        **case.others,
        "compiled": baselines.Compiled(partial(baselines.render_separable, **options)),
        "numpy + copy": partial(baselines.render_numpy, **options),
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
    others = {**case.others, "compiled": baselines.Compiled(next(iter(case.others.values())))}
    return replace(case, others=others, left_out=case.left_out | {("compiled", DOUBLE)}, device="cuda")


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


# --------------------------------------------------------------------------------------------------------- geometry


def descriptor(batch: int, joints: int, dimensions: int = 3, orders: tuple[str, ...] = ORDERS) -> Case:
    """Return a case of pairwise_descriptor."""
    half = 4.0 * batch * dimensions * joints**2
    every = {
        FORWARD: Work(written=2 * half),
        BACKWARD: Work(read=2 * half, written=2 * half),
        DOUBLE: Work(read=half, written=2 * half),
    }
    return Case(
        "pairwise_descriptor",
        f"({batch}, {joints}, {dimensions})",
        random((batch, joints, dimensions)),
        lambda tensors, **backend: ops.pairwise_descriptor(*tensors, **backend),
        "pairwise_descriptor",
        {"broadcast": baselines.descriptor_broadcast},
        {order: every[order] for order in orders},
        (0,),
    )


GEOMETRY = (
    descriptor(6, 16),  # a batch of system 002
    descriptor(4096, 16),
    descriptor(4096, 17, 2),
    descriptor(65536, 17, orders=(FORWARD, BACKWARD)),
)
GPU_GEOMETRY = (on_gpu(descriptor(4096, 16)), on_gpu(descriptor(65536, 17)))
GPU = (*GPU_HEATMAP, *GPU_GEOMETRY, *GPU_ATTENTION)
