"""Compile Triton kernels for GPUs that are not here, exactly as calls start them, and read what the code needs.

Calls of a backend's own functions on CPU tensors are recorded instead of started; each recorded start is then compiled
ahead of time. Works only in a process without TRITON_INTERPRET.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
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


class Start(NamedTuple):
    """What ``_triton_launch.start`` was given."""

    kernel: Any
    arguments: tuple[Any, ...]
    constants: dict[str, Any]
    warps: int
    stages: int


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

    def note(kernel, grid, arguments, constants, warps, stages):
        starts.append(Start(kernel, arguments, constants, warps, stages))

    _triton_launch.start = note
    try:
        call()
    finally:
        _triton_launch.start = before
    return starts


def _leaf(value: Any) -> tuple[Any, Any, bool]:
    """(type, constant, divisible by 16) of one argument, as Triton specialises it."""
    if value is None:
        return "constexpr", None, False
    if isinstance(value, Tensor):
        names = {torch.float32: "fp32", torch.float64: "fp64", torch.bfloat16: "bf16", torch.float16: "fp16"}
        names |= {torch.int32: "i32", torch.int64: "i64", torch.bool: "i1"}
        return f"*{names[value.dtype]}", None, True
    if isinstance(value, bool):
        return "i1", None, False
    if isinstance(value, int):
        return ("constexpr", 1, False) if value == 1 else ("i64" if value >= 2**31 else "i32", None, value % 16 == 0)
    return "fp32", None, False


def specialise(start: Start) -> tuple[dict[str, Any], dict[Any, Any], dict[tuple[int, ...], Any]]:
    """Signature, constants and alignments of a start, in the form of ``triton.compiler.ASTSource``."""
    signature, constants, aligned = {}, {}, {}

    def visit(value: Any, path: tuple[int, ...]) -> Any:
        if isinstance(value, tuple):
            members = [visit(member, (*path, index)) for index, member in enumerate(value)]
            return type(value)(*members) if hasattr(value, "_fields") else tuple(members)
        kind, constant, divisible = _leaf(value)
        if kind == "constexpr":
            constants[path] = constant
        if divisible:
            aligned[path] = [["tt.divisibility", 16]]
        return kind

    for index, (name, value) in enumerate(zip(start.kernel.arg_names, start.arguments, strict=False)):
        signature[name] = visit(value, (index,))
    for name, value in start.constants.items():
        signature[name] = "constexpr"
        constants[(start.kernel.arg_names.index(name),)] = value
    return signature, constants, aligned


def attention_calls(
    gpu: Gpu, dtype: torch.dtype, key_channels: int, value_channels: int, layout: str, *, positions: int = 4096
) -> list[Start]:
    """All starts of attention's three orders of derivative on a GPU of that kind, at that size and in that layout."""
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
        _triton.forward(inputs, (1.0,))
        _triton.backward(inputs, results, grads, (True,) * 3, (1.0,))
        _triton.double_backward(inputs, results, grads, inputs, (True,) * 4, (1.0,))

    before = _devices.of
    _devices.of = lambda tensor: gpu
    try:
        return record(orders)
    finally:
        _devices.of = before


def compile_ahead(start: Start, architecture: int) -> Resources:
    """Compile one start for sm_<architecture>."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature, constants, aligned = specialise(start)
    source = ASTSource(start.kernel, signature, constants, aligned)
    options = {"num_warps": start.warps, "num_stages": start.stages}
    compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
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
