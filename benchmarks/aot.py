"""Compile Triton kernels for GPUs that are not here, exactly as calls start them, and read what the code needs.

Calls of a backend's own functions on CPU tensors are recorded instead of started; each recorded start is then compiled
ahead of time. Works only in a process without TRITON_INTERPRET. ``python benchmarks/aot.py --help`` tells how to print
what the kernels need, one line of JSON for each.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastpose.ops._devices import Gpu

GPUS = {
    80: Gpu("sm_80", (8, 0), 166912, 108),
    90: Gpu("sm_90", (9, 0), 232448, 132),
    100: Gpu("sm_100", (10, 0), 232448, 148),
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
LAYOUTS = ("positions", "channels")
PLANES = (2, 17, 64, 64)  # (B, K, H, W)
ODD_PLANES = (1, 3, 31, 47)  # nothing is a multiple of 16, and one stride is 1 that elsewhere is none
DESCRIPTORS = ((17, 3), (16, 2), (133, 3))  # points and dimensions


class Start(NamedTuple):
    """What ``_triton_launch.start`` was given."""

    kernel: Any
    arguments: tuple[Any, ...]
    constants: dict[str, Any]
    warps: int
    stages: int
    options: dict[str, int]

    @property
    def resident(self) -> int:
        """Positions of an attention tile whose sums stay in registers; 0 of another kernel."""
        return self.constants.get("KEYS" if self.kernel.__name__.endswith("columns") else "QUERIES", 0)


@dataclass(frozen=True)
class Resources:
    """What a compiled kernel takes, per thread (registers, spilled bytes) and per block (shared memory)."""

    name: str
    architecture: int
    registers: int
    spilled: int
    shared: int
    matrix: tuple[str, ...]  # kinds of matrix instructions


def record(call: Callable[[], Any]) -> list[Start]:
    """The kernels that a call would start."""
    from fastpose.ops import _triton_launch

    starts: list[Start] = []
    before = _triton_launch.start

    def note(kernel, grid, arguments, constants, warps, stages, options):
        starts.append(Start(kernel, arguments, constants, warps, stages, options))

    _triton_launch.start = note
    try:
        call()
    finally:
        _triton_launch.start = before
    return starts


def attention_calls(
    gpu: Gpu,
    dtype: torch.dtype,
    key_channels: int,
    value_channels: int,
    layout: str,
    *,
    positions: int = 4096,
    fused: bool = False,
) -> list[Start]:
    """All starts of attention's three orders of derivative on a GPU of that kind, at that size and in that layout.

    ``fused``: of attention with its residual instead.
    """
    from fastpose.ops import _devices
    from fastpose.ops.attention import _triton

    def tensor(channels: int) -> Tensor:
        if layout == "channels":
            return torch.empty(2, positions, channels, dtype=dtype).transpose(1, 2)
        return torch.empty(2, channels, positions, dtype=dtype)

    inputs = (tensor(key_channels), tensor(key_channels), tensor(value_channels))
    results = (tensor(value_channels), torch.empty(2, positions))
    grads = (tensor(value_channels),)

    def orders() -> None:
        if not fused:
            _triton.forward(inputs, (1.0,))
            _triton.backward(inputs, results, grads, (True,) * 3, (1.0,))
            _triton.double_backward(inputs, results, grads, inputs, (True,) * 4, (1.0,))
            return
        residual = (*inputs, tensor(value_channels), torch.empty(1, dtype=dtype))
        _triton.residual_inference(residual, (1.0,))
        _triton.residual_forward(residual, (1.0,))
        _triton.residual_backward(residual, (grads[0], *results), grads, (True,) * 5, (1.0,))
        _triton.residual_double_backward(residual, (grads[0], *results), grads, residual, (True,) * 6, (1.0,))

    before = _devices.of
    _devices.of = lambda tensor: gpu
    try:
        return record(orders)
    finally:
        _devices.of = before


def _footprints() -> list[str]:
    """A profile for each kind of code: centres exact or rounded, planes whole or windows."""
    from fastpose.ops.heatmap._profiles import HEATMAPS

    kinds = {(profile.rounded, profile.window is None): name for name, profile in reversed(HEATMAPS.items())}
    return list(kinds.values())


def rendering_calls(dtype: torch.dtype, size: tuple[int, ...], profile: str, *, complete: bool) -> list[Start]:
    """All starts of drawing and of its derivatives; ``complete``: with every tensor that a call may leave out."""
    from fastpose.ops.heatmap import _triton_kernels as kernels

    planes, points, widths = torch.empty(size, dtype=dtype), torch.empty(*size[:2], 2), torch.empty(size[:2])
    depth, visible = (widths, torch.empty(size[:2], dtype=torch.bool)) if complete else (None, None)
    joints = (points, widths, depth, visible, profile)

    def orders() -> None:
        kernels.heatmap_render(*joints, planes, 0)
        kernels.heatmap_render_bwd(*joints, planes, points, widths, depth, 0)
        kernels.heatmap_render_bwd2(*joints, planes, points, widths, depth, points, widths, depth, planes, 0)
        kernels.heatmap_render_bwd(*joints, planes, points, None, None, 0)
        kernels.heatmap_render_bwd2(*joints, planes, points, None, None, points, widths, depth, planes, 0)

    return record(orders)


def loss_calls(dtype: torch.dtype, size: tuple[int, ...], profile: str, *, complete: bool) -> list[Start]:
    """All starts of the fused error and of its derivatives; ``complete``: with mask, weights and all gradients."""
    from fastpose.ops.heatmap import _triton_kernels as kernels

    batch, joints, height, width = size
    stacks = 2 if complete else 1
    planes, points = torch.empty(batch, stacks, joints, height, width, dtype=dtype), torch.empty(batch, joints, 2)
    widths, total, partials = torch.empty(size[:2]), torch.empty(()), torch.empty(size[:2], dtype=torch.float64)
    visible = torch.empty(size[:2], dtype=torch.bool) if complete else None
    weight = torch.empty(batch, stacks, joints) if complete else None
    given = (planes, points, widths, visible, weight, profile, 0.5)
    gradients = (planes, points, widths) if complete else (planes, None, None)

    def orders() -> None:
        kernels.heatmap_mse_loss(*given, partials, total, 0)
        kernels.heatmap_mse_loss_bwd(*given, total, *gradients, 0)
        kernels.heatmap_mse_loss_bwd2(*given, total, *gradients, *gradients, partials, total, 0)

    return record(orders)


def decoding_calls(dtype: torch.dtype, size: tuple[int, ...]) -> list[Start]:
    """All starts of decoding, of soft-argmax with its derivatives and of the flip average."""
    from fastpose.ops.heatmap import _triton_kernels as kernels
    from fastpose.ops.heatmap._profiles import blur_weights

    planes, points, scores = torch.empty(size, dtype=dtype), torch.empty(*size[:2], 2), torch.empty(size[:2])
    partner = list(range(size[1]))

    def calls() -> None:
        for method, taps in (("argmax", 0), ("quarter", 0), ("dark", 11), ("dark", 17), ("dark_udp", 11)):
            kernels.heatmap_decode(planes, method, blur_weights(taps) if taps else [], 3.0, points, scores, 0)
        soft = (planes, 10.0, points, scores, scores)
        kernels.softargmax(*soft, 0)
        kernels.softargmax_bwd(*soft, points, planes, 0)
        kernels.softargmax_bwd2(*soft, points, planes, planes, points, 0)
        for pair in ((planes, planes), (planes, None), (None, planes)):
            kernels.flip_average(*pair, partner, planes, 0)

    return record(calls)


def heatmap_calls(dtype: torch.dtype) -> list[Start]:
    """All starts of the functions of heatmaps: every kind of code at the published size, some at an odd one."""
    starts = decoding_calls(dtype, PLANES) + decoding_calls(dtype, ODD_PLANES) + decoding_calls(dtype, (1, 3, 160, 128))
    for calls in (rendering_calls, loss_calls):
        for profile in _footprints():
            starts += calls(dtype, PLANES, profile, complete=True)
        starts += calls(dtype, PLANES, "gaussian", complete=False) + calls(dtype, ODD_PLANES, "msra", complete=True)
    return starts


def descriptor_calls(dtype: torch.dtype, points: int, dimensions: int) -> list[Start]:
    """All starts of the descriptor's three orders of derivative."""
    from fastpose.ops.geometry import _triton_kernels as kernels

    joints = torch.empty(2, points, dimensions, dtype=dtype)
    pairs = torch.empty(2, 2 * dimensions, points, points, dtype=dtype)

    def orders() -> None:
        kernels.descriptor_fwd(joints, pairs, 0)
        kernels.descriptor_bwd(joints, pairs, joints, 0)
        kernels.descriptor_bwd2(joints, pairs, joints, joints, pairs, 0)

    return record(orders)


class Driver:
    """As much of a driver as Triton asks before it compiles: it binds and specialises calls as for that GPU."""

    def __init__(self, architecture: int) -> None:
        self.architecture = architecture

    def get_current_device(self) -> int:
        return self.architecture  # Triton keeps what it compiled by device

    def get_current_stream(self, device: int = 0) -> int:
        return 0

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.architecture, 32)

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def map_python_to_cpp_type(self, kind: str) -> str:
        return kind


def compile_ahead(start: Start, architecture: int) -> Resources:
    """Compile one start for sm_<architecture> and read what it takes."""
    return resources(start, architecture, compiled_kernel(start, architecture))


def compiled_kernel(start: Start, architecture: int) -> Any:
    """The kernel of a start, by Triton's own way from a call: the same one for calls that need no other."""
    from triton.runtime import driver

    driver.set_active(Driver(architecture))
    options = {"num_warps": start.warps, "num_stages": start.stages, **start.options}
    return start.kernel.warmup(*start.arguments, grid=(1,), **start.constants, **options)


def resources(start: Start, architecture: int, compiled: Any) -> Resources:
    """Read what a compiled kernel takes."""
    registers, spilled = _usage(compiled.asm["cubin"])
    matrix = {
        found.rstrip(".") for found in re.findall(r"\b(wgmma\.mma_async|mma\.sync|tcgen05\.mma)", compiled.asm["ptx"])
    }
    return Resources(
        start.kernel.__name__, architecture, registers, spilled, compiled.metadata.shared, tuple(sorted(matrix))
    )


def _usage(cubin: bytes) -> tuple[int, int]:
    """Registers and bytes of stack (spills, arrays in local memory) of a compiled kernel."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(tool("cuobjdump")), "--dump-resource-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    line = re.search(r"REG:(\d+) STACK:(\d+)", text)
    assert line, text
    return int(line[1]), int(line[2])


def tool(name: str) -> Path:
    """One of the CUDA tools that Triton carries."""
    import triton

    return Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name


# ------------------------------------------------------------------------------------------------------ command line


def _starts(options: argparse.Namespace) -> Iterator[Start]:
    """What the command line asks for."""
    if options.what == "attention":
        for entry in options.entry:
            key, value, arithmetic = re.fullmatch(r"ck(\d+) cv(\d+) (\w+)", entry).groups()
            torch.set_float32_matmul_precision("high" if arithmetic == "tf32" else "highest")
            for name in options.dtype if arithmetic == "half" else ("float32",):
                for layout in options.layout:
                    call = (GPUS[options.architecture], DTYPES[name], int(key), int(value), layout)
                    yield from attention_calls(*call)
                    yield from attention_calls(*call, fused=True)
        return
    for name in options.dtype:
        if options.what == "heatmaps":
            yield from heatmap_calls(DTYPES[name])
        else:
            for points, dimensions in DESCRIPTORS:
                yield from descriptor_calls(DTYPES[name], points, dimensions)


def _arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compile Triton kernels ahead of time; print what each takes.")
    parser.add_argument("what", choices=("attention", "heatmaps", "descriptors"))
    parser.add_argument("architecture", type=int, choices=tuple(GPUS))
    parser.add_argument("--dtype", nargs="+", choices=tuple(DTYPES), default=tuple(DTYPES))
    parser.add_argument("--layout", nargs="+", choices=LAYOUTS, default=LAYOUTS, help="of attention's tensors")
    parser.add_argument("--entry", nargs="+", default=("ck32 cv256 half",), help="of attention: channels, arithmetic")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    """Compile every different start once and print it as a line of JSON."""
    options = _arguments(arguments)
    seen = set()
    for start in _starts(options):
        compiled = compiled_kernel(start, options.architecture)
        if compiled.hash not in seen:
            seen.add(compiled.hash)
            found = asdict(resources(start, options.architecture, compiled)) | {"resident": start.resident}
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
