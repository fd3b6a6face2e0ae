"""``fastpose bench --tune``: time the tiles of attention's Triton kernels on this GPU and keep the fastest.

One kernel at a time: each candidate takes its kernel's place while the others stay, and the order of derivative that
the kernel works in is timed through the public function. Candidates that do not compile or do not fit are passed over.
Atomic sums give other last bits in every run: they are tried only where the user allows them.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import typer

from fastpose import ops
from fastpose._checks import choice
from fastpose.metrics import report
from fastpose.ops.attention import _tiles
from fastpose.ops.attention._tiles import KERNELS

ORDERS = ("forward", "backward", "double backward")
# The order whose time tells the candidates of a kernel apart.
ORDER_OF = dict(zip(KERNELS, ("forward", "backward", "backward", *("double backward",) * 3), strict=True))
DTYPES = ("bfloat16", "float16", "float32")
BETTER = 0.98  # of the time so far: less of a gain is noise
REPEATS = 5
STAGES = (1, 2, 3, 4)  # of the software pipeline, tried on the tile that won

Calls = dict[str, Callable[[], object]]
Timer = Callable[[Callable[[], object]], float]


@dataclass(frozen=True)
class Size:
    """Batch, key channels, value channels and positions of a call."""

    batch: int
    key_channels: int
    value_channels: int
    positions: int

    def __str__(self) -> str:
        return f"B={self.batch} Ck={self.key_channels} Cv={self.value_channels} N={self.positions}"


def size_of(text: str) -> Size:
    """Return the size that ``--size`` names; ``ValueError`` says how it is written."""
    words = text.split(",")
    if len(words) != 4 or not all(word.strip().isdecimal() and int(word) > 0 for word in words):
        raise ValueError(
            f"--size: expected batch, key channels, value channels and positions as B,Ck,Cv,N, got {text!r}"
        )
    return Size(*map(int, words))


def tune(sizes: list[str], dtypes: list[str], device: torch.device, *, atomics: bool = False) -> None:
    """Tune each size in each dtype, write the entries and print what was gained; ``atomics`` allows atomic sums."""
    wanted = [size_of(text) for text in sizes]
    for dtype in dtypes:
        choice("--dtype", dtype, DTYPES)
    _need_gpu(device)
    if _tiles.user_table() is None:
        raise ValueError("--tune: expected a folder for the table, found no home; set FASTPOSE_TILES to a file's path")
    rows = [["size", "numbers", *(f"{order} ms" for order in ORDERS), "tiles"]]
    with torch.cuda.device(device):
        for size in wanted:
            for dtype in dtypes:
                for precision in ("highest", "high") if dtype == "float32" else ("highest",):
                    rows += _tune_one(_tiles, size, dtype, precision, device, atomics=atomics)
    typer.echo(report.align(rows, right=(2, 3, 4)))
    typer.echo(f"written to {_tiles.user_table()}; delete an entry there to have the package's again")


def _need_gpu(device: torch.device) -> None:
    if device.type != "cuda" or not torch.cuda.is_available():
        raise ValueError("--tune: expected an NVIDIA GPU to time kernels on, got none (see fastpose doctor)")


def _tune_one(
    tiles: Any, size: Size, dtype: str, precision: str, device: torch.device, *, atomics: bool
) -> list[list[str]]:
    """Tune one size, write its entry and return the table's rows before and after."""
    numbers = f"{dtype} {precision}" if dtype == "float32" else dtype
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        calls = calls_of(size, getattr(torch, dtype), device)
        asked = _asked(tiles, calls["forward"])
        typer.echo(f"{size} {numbers}: {len(list(tiles.candidates(*asked[:4])))} candidates")
        first, best = search(tiles, asked, calls, seconds, atomics=atomics)
        times = [_times(tiles, chosen, calls, seconds) for chosen in (first, best)]
    finally:
        torch.set_float32_matmul_precision(before)
    name = tiles.key(*asked)
    tiles.write_entry(tiles.user_table(), name, best)
    cells = ([f"{1e3 * one:.3f}" for one in found] for found in times)
    words = (f"before{_note(first)}", f"after: {name}{_note(best)}")
    return [[str(size), numbers, *found, last] for found, last in zip(cells, words, strict=True)]


def _note(chosen: Any) -> str:
    return ", atomic sums: not the same bits from run to run" if chosen.atomics else ""


# ---------------------------------------------------------------------------------------------------------- the search


def search(tiles: Any, asked: tuple[Any, ...], calls: Calls, timer: Timer, *, atomics: bool = False) -> tuple[Any, Any]:
    """Return the tiles used so far, and the fastest that were found.

    Args:
        tiles: the module of tables (``fastpose.ops.attention._tiles``).
        asked: what the calls look their tiles up by.
        calls: a call of each order of derivative.
        timer: call -> seconds.
        atomics: whether atomic sums may be chosen; where not, an entry that has them loses them, at whatever price.
    """
    first = tiles.lookup(*asked)
    best = first if atomics else replace(first, atomics=False)
    for kernel in KERNELS:
        found = [tile for name, tile in tiles.candidates(*asked[:4]) if name == kernel]
        best = _fastest(tiles, best, [{kernel: tile} for tile in found], calls[ORDER_OF[kernel]], timer)
        staged = [{kernel: getattr(best, kernel)._replace(stages=stages)} for stages in STAGES]
        best = _fastest(tiles, best, staged, calls[ORDER_OF[kernel]], timer)
    for schedule in ("one_sweep", "atomics") if atomics else ("one_sweep",):
        other = {schedule: not getattr(best, schedule)}
        best = _fastest(tiles, best, [other], calls["double backward"], timer)
    return first, best


def _fastest(tiles: Any, start: Any, changes: list[dict[str, Any]], call: Callable[[], object], timer: Timer) -> Any:
    """Return ``start`` with the change that makes the call fastest; ``start`` itself where none does."""
    best, record = start, _seconds(tiles, start, call, timer)
    for change in changes:
        chosen = replace(start, **change)
        found = None if chosen == start else _seconds(tiles, chosen, call, timer)
        if found is not None and (record is None or found < BETTER * record):
            best, record = chosen, found
    return best


def _seconds(tiles: Any, chosen: Any, call: Callable[[], object], timer: Timer) -> float | None:
    """Return the seconds of a call with these tiles; None where they do not compile or do not fit."""
    try:
        with _using(tiles, chosen):
            return timer(call)
    except Exception as error:  # Triton, its compiler and the driver raise many kinds
        if _lost(error):
            raise
        return None


def _lost(error: Exception) -> bool:
    """Whether the GPU itself has stopped answering: nothing after that can be timed."""
    return any(words in str(error) for words in ("illegal memory access", "misaligned address", "unspecified launch"))


def _times(tiles: Any, chosen: Any, calls: Calls, timer: Timer) -> list[float]:
    return [_seconds(tiles, chosen, calls[order], timer) or float("nan") for order in ORDERS]


@contextmanager
def _using(tiles: Any, chosen: Any) -> Iterator[None]:
    """Let every call find these tiles."""
    with _looking_up(tiles, lambda *_: chosen):
        yield


def _asked(tiles: Any, call: Callable[[], object]) -> tuple[Any, ...]:
    """Return what a call looks its tiles up by."""
    asked: list[tuple[Any, ...]] = []
    usual = tiles.lookup

    def note(*arguments: Any) -> Any:
        asked.append(arguments)
        return usual(*arguments)

    with _looking_up(tiles, note):
        call()
    return asked[0]


@contextmanager
def _looking_up(tiles: Any, lookup: Callable[..., Any]) -> Iterator[None]:
    usual = tiles.lookup
    tiles.lookup = lookup
    try:
        yield
    finally:
        tiles.lookup = usual


# ----------------------------------------------------------------------------------------------------------- the calls


def calls_of(size: Size, dtype: torch.dtype, device: torch.device, backend: str = "triton") -> Calls:
    """Return a call of attention in each order of derivative, on the same numbers every time."""
    generator = torch.Generator(device).manual_seed(0)
    channels = (size.key_channels, size.key_channels, size.value_channels)
    shapes = [(size.batch, count, size.positions) for count in channels]
    leaves = [torch.randn(shape, generator=generator, device=device).mul_(0.3).to(dtype) for shape in shapes]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    out = ops.nonlocal_attention(*leaves, backend=backend)
    grad = torch.ones_like(out).requires_grad_()
    first = torch.autograd.grad(out, leaves, grad, create_graph=True)
    ones = [torch.ones_like(gradient) for gradient in first]

    def forward() -> object:
        with torch.no_grad():
            return ops.nonlocal_attention(*leaves, backend=backend)

    return {
        "forward": forward,
        "backward": lambda: torch.autograd.grad(out, leaves, grad.detach(), retain_graph=True),
        "double backward": lambda: torch.autograd.grad(first, (*leaves, grad), ones, retain_graph=True),
    }


def seconds(call: Callable[[], object]) -> float:
    """Return the median seconds of a call on the GPU, by events; the first call compiles."""
    for _ in range(2):
        call()
    found = []
    for _ in range(REPEATS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(1_000_000)  # some 0.5 ms, in which the host gets ahead
        start.record()
        call()
        end.record()
        end.synchronize()
        found.append(start.elapsed_time(end) * 1e-3)
    return statistics.median(found)
