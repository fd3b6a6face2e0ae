"""``fastpose bench``: every backend beside PyTorch's ways and the machine's limit, here."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastpose.cli import _print

if TYPE_CHECKING:
    import torch

    from fastpose.benchmark.orders import Job
    from fastpose.benchmark.run import Run

SIZE = "16,32,256,4096"  # of a batch behind an hourglass, tuned where no other is named
DEFAULT = Path("runs", "bench")


def bench(
    ops: Annotated[list[str] | None, typer.Argument(metavar="[OP]...", help="Operations; all by default.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="A new folder; else runs/bench/run, run-2, ...")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Every published size; minutes instead of one.")] = False,
    growth: Annotated[
        bool, typer.Option("--growth", help="Time and memory against positions, batch and joints instead (CPU).")
    ] = False,
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
    """Time the operations beside plain PyTorch and its best other way, and beside this machine's limits.

    Tables are printed as they come; results.json, table.md and pictures go to a new folder, after Ctrl-C or SIGTERM
    with what was measured so far. With --tune, the tiles of attention's Triton kernels are timed instead and the
    fastest kept in a table of the user's own.
    """
    names = list(dict.fromkeys(ops or ()))
    tuning = {"--size": size, "--dtype": dtype, "--atomics": atomics}
    measuring = {" ".join(names): names, "--full": full, "--growth": growth, "--out": out}
    if tune:
        _refuse(measuring, "of no use with --tune; leave it out")
        _tune(size, dtype, device, atomics)
        return
    _refuse(tuning, "of tuning alone; add --tune, or leave it out")
    if growth:
        _refuse({"--full": full}, "of no use with --growth, which has sizes of its own; leave it out")
    _measure(names, full, growth, device, out)


def _refuse(given: Mapping[str, object], why: str) -> None:
    """Raise where an option stands beside another that has no use for it."""
    for name, value in given.items():
        if value:
            raise ValueError(f"{name}: {why}")


def _measure(names: list[str], full: bool, growth: bool, device: str, out: Path | None) -> None:
    """Measure, and write the folder whatever ends it."""
    from fastpose.benchmark import report, summary
    from fastpose.benchmark.run import Run, command

    place = _device(device)
    _check(names, growth, place)
    _check_folder(out)
    options = ["--full"] * full + ["--growth"] * growth + (["--device", device] if device != "cpu" else [])
    run = Run(command(["fastpose", "bench", *names, *options]), turns=2 if growth else 4)
    typer.echo(summary.setting(run.content))
    for line in summary.busy(run.content):
        _print.line(line)
    try:
        with _chosen(place):
            if growth:
                _growth(run, names)
            else:
                _tables(run, _groups(names, full, place.type))
    finally:  # after Ctrl-C and SIGTERM as well
        _close(run, out, report.write)


def _chosen(place: torch.device) -> AbstractContextManager[object]:
    """Return what makes a GPU the current one: tensors, events and limits go by that, not by an index."""
    import torch

    return torch.cuda.device(place) if place.type == "cuda" else nullcontext()


def _tables(run: Run, groups: Sequence[Sequence[Job]]) -> None:
    """Measure, and print the table of an operation as soon as it is whole."""
    from fastpose.benchmark import summary

    for operation, members in groupby(groups, key=lambda group: group[0].case.operation):
        mine = list(members)
        with _print.bar(len(mine), operation) as advance:
            for group in mine:
                run.measure(group)
                advance(1)
        summary.complete(run.content)
        timings = [timing for timing in run.content["timings"] if timing["operation"] == operation]
        if timings:
            typer.echo(f"\n{operation}")
            typer.echo("\n".join(summary.table(timings)))


def _growth(run: Run, names: list[str]) -> None:
    """Measure the curves, and print the powers of an operation as soon as they are there."""
    from fastpose.benchmark import growth, summary

    every = [one for one in (*growth.attention(), *growth.others()) if not names or one.operation in names]
    for operation, members in groupby(every, key=lambda one: one.operation):
        mine, before = list(members), len(run.content["growth"])
        memory = operation == growth.attention()[0].operation
        with _print.bar(sum(len(one.values) for one in mine) + memory * len(growth.MEMORY_WAYS), operation) as advance:
            for one in mine:
                growth.time(run, one, advance)
            if memory:
                growth.attention_memory(run, advance)
        typer.echo("\n".join(summary.growth(run.content["growth"][before:])))


def _close(run: Run, out: Path | None, write: Callable[[dict[str, Any], Path], list[Path]]) -> None:
    """Write what was measured, if anything was, and say where; else make no folder."""
    from fastpose.benchmark import summary

    content = run.finish()
    if not content["timings"] and not content["growth"]:
        typer.echo("\n".join(summary.skipped(content["skipped"])))
        return
    typer.echo("\n".join((*summary.skipped(content["skipped"]), *summary.verdict(content["timings"]), "")))
    for path in write(content, _new_folder(out)):
        typer.echo(f"{ {'.json': 'results:', '.md': 'tables:'}.get(path.suffix, 'picture:'):<10}{path}")


def _groups(names: list[str], full: bool, kind: str) -> list[tuple[Job, ...]]:
    """Return what is to be measured; on a GPU one job at a time, since the device's time knows no neighbours."""
    from fastpose.benchmark import cases, orders

    if kind == "cuda":
        chosen = [case for case in cases.GPU if not names or case.operation in names]
        return [(job,) for job in orders.jobs(chosen, (kind,)) if full or not job.compiled]
    known = cases.published() if full else cases.quick()
    return orders.groups([case for case in known if not names or case.operation in names], (kind,))


def _check(names: list[str], growth: bool, place: torch.device) -> None:
    from fastpose._checks import unknown
    from fastpose.benchmark import cases
    from fastpose.benchmark.growth import attention, others

    known = {one.operation for one in (*attention(), *others())} if growth else set(cases.typical())
    on_gpu = sorted({case.operation for case in cases.GPU})
    for name in names:
        if name not in known:
            raise ValueError(unknown("operation", name, sorted(known)))
        if place.type == "cuda" and name not in on_gpu:
            raise ValueError(f"{name}: expected an operation with cases for a GPU, which are {', '.join(on_gpu)}")
    if growth and place.type != "cpu":
        raise ValueError(f"--growth: expected --device cpu, got {place}: growth is measured on the CPU only")


def _check_folder(out: Path | None) -> None:
    """Refuse a folder that is there or cannot be made now, not after the measurements."""
    if out is not None and os.path.lexists(out):
        raise FileExistsError(f"{out}: exists; name another folder with -o, or remove it")
    _new_folder(out).rmdir()  # a run that is killed leaves no empty one, which the next would have to refuse


def _new_folder(out: Path | None) -> Path:
    """Make the folder for the files; one that is there, if only by now, is never written into."""
    from fastpose._files import claim_folder

    parent, name = (DEFAULT, "run") if out is None else (out.parent, out.name)
    parent.mkdir(parents=True, exist_ok=True)
    return claim_folder(parent, name)


def _tune(sizes: list[str] | None, dtypes: list[str] | None, device: str, atomics: bool) -> None:
    from fastpose.cli import _tune

    place = _device("cuda" if device == "cpu" else device)  # the default, which is of the measurements
    _tune.tune(sizes or [SIZE], dtypes or ["bfloat16"], place, atomics=atomics)


def _device(name: str) -> torch.device:
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ValueError(f"--device: expected cpu, cuda or cuda:1, got {name!r}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device: cuda was asked for and no CUDA device is there (see fastpose doctor)")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"--device: expected one of the {torch.cuda.device_count()} GPUs from cuda:0, got {name}")
    return device
