"""``fastpose bench``: every backend beside the PyTorch reference on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from fastpose.benchmark.cases import Case

REPEATS = 7
SECONDS = 0.5  # of measuring for each number
SIZE = "16,32,256,4096"  # of a batch behind an hourglass, tuned where no other is named


def bench(
    ops: Annotated[list[str] | None, typer.Argument(metavar="[OP]...", help="Operations; all by default.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:1.")] = "cpu",
    tune: Annotated[bool, typer.Option("--tune", help="Find the fastest tiles of attention on this GPU.")] = False,
    size: Annotated[list[str] | None, typer.Option(help="With --tune: B,Ck,Cv,N; may be repeated.")] = None,
    dtype: Annotated[list[str] | None, typer.Option(help="With --tune: bfloat16, float16 or float32.")] = None,
    atomics: Annotated[
        bool,
        typer.Option(
            "--atomics", help="With --tune: allow atomic sums, whose order (and last bits) change from run to run."
        ),
    ] = False,
) -> None:
    """Time the operations' backends at one published size each.

    The whole table, with second derivatives, SDPA and the share of the measured hardware limit, is
    `pytest --benchmark-only` in a checkout. With --tune, the tiles of attention's Triton kernels are timed instead and
    the fastest kept in a table of the user's own.
    """
    if tune:
        _tune(size, dtype, device, atomics)
        return
    import torch

    from fastpose.benchmark.cases import typical
    from fastpose.metrics import report

    place = _device(device)
    chosen = _chosen(typical(), ops or [])
    typer.echo(f"torch {torch.__version__}, {place}, {torch.get_num_threads()} CPU threads; medians of {REPEATS}")
    rows = [["operation", "size", "backend", "forward ms", "x", "forward+backward ms", "x"]]
    notes = []
    for name, case in chosen.items():
        more, why = _measure(name, case, place)
        rows += more
        notes += why
    typer.echo(report.align(rows, right=(3, 4, 5, 6)))
    typer.echo("x: how many times faster than the reference backend")
    for note in dict.fromkeys(notes):
        typer.echo(note)


def _tune(sizes: list[str] | None, dtypes: list[str] | None, device: str, atomics: bool) -> None:
    from fastpose.cli import _tune

    place = _device(device if device.startswith("cuda") else "cuda")
    _tune.tune(sizes or [SIZE], dtypes or ["bfloat16"], place, atomics=atomics)


def _chosen(known: dict[str, Case], names: list[str]) -> dict[str, Case]:
    from fastpose._checks import unknown

    for name in names:
        if name not in known:
            raise ValueError(unknown("operation", name, known))
    return {name: known[name] for name in names} if names else known


def _device(name: str) -> torch.device:
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"--device: expected cpu, cuda or cuda:1, got {name!r}") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device: cuda was asked for and no CUDA device is there (see fastpose doctor)")
    return device


def _measure(name: str, case: Case, device: torch.device) -> tuple[list[list[str]], list[str]]:
    """Return one table row per backend that serves the case, the reference first, and why the others do not."""
    tensors = case.make(device.type)
    rows, notes, base = [], [], None
    for backend in ("reference", "cpu", "triton", "cuda"):
        try:
            _run(case, tensors, backend)
        except ValueError as error:
            # A backend that the operation does not have is no news; one that cannot serve says why.
            notes += [str(error)] if "cannot serve" in str(error) else []
            continue
        times = list(_times(case, tensors, backend, device))
        base = base or times
        cells = [cell for mine, reference in zip(times, base, strict=True) for cell in _cells(mine, reference)]
        rows.append([name, case.size, backend, *cells, *(["-"] * (4 - len(cells)))])
    return rows, notes


def _run(case: Case, tensors: tuple[Tensor, ...], backend: str) -> Tensor:
    if case.table is None and backend != "reference":
        raise ValueError(f"{case.operation} has no backends")
    return case.call(tensors, **({} if case.table is None else {"backend": backend}))


def _cells(seconds: float, reference: float) -> list[str]:
    return [f"{seconds * 1e3:.3f}", f"{reference / seconds:.2f}"]


def _times(case: Case, tensors: tuple[Tensor, ...], backend: str, device: torch.device) -> Iterator[float]:
    """Yield the seconds of a forward, then of a forward and backward where the operation has a gradient."""
    import torch

    with torch.no_grad():
        yield _median(lambda: _run(case, tensors, backend), device)
    if case.wanting:
        inputs = tuple(tensor.clone().requires_grad_(i in case.wanting) for i, tensor in enumerate(tensors))
        leaves = [inputs[index] for index in case.wanting]

        def both() -> None:
            torch.autograd.grad(_run(case, inputs, backend).sum(), leaves)

        yield _median(both, device)


def _median(call: Callable[[], object], device: torch.device) -> float:
    """Return the median seconds of a call; short calls are repeated within each measurement."""
    call()  # loads the backend and its memory
    once = _seconds(call, 1, device)
    calls = max(1, int(SECONDS / REPEATS / max(once, 1e-7)))
    return statistics.median(_seconds(call, calls, device) / calls for _ in range(REPEATS))


def _seconds(call: Callable[[], object], calls: int, device: torch.device) -> float:
    import torch

    start = time.perf_counter()
    for _ in range(calls):
        call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
