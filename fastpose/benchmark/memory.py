"""Extra memory of attention in three orders of derivative: what a call takes beyond its inputs and results.

On the CPU it is the peak of the resident memory in a process of its own, as Linux counts it; on a GPU, that of torch's
allocator. ``python -m fastpose.benchmark.memory DEVICE PROVIDER ORDER,... B,Ck,Cv,H,W ...`` prints it as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import fastpose
from fastpose.benchmark import machine
from fastpose.benchmark.cases import BACKWARD, FORWARD, ORDERS, Case, attention
from fastpose.benchmark.orders import Job, NotSupported, fixed, prepare, reasons

Size = tuple[int, int, int, tuple[int, int]]
SMALL: Size = (1, 8, 8, (4, 4))


def in_subprocess(device: str, provider: str, *sizes: Size, orders: Sequence[str] = ORDERS) -> list[dict[str, Any]]:
    """Return a record per size and order: with ``extra_bytes``, or with the ``reason`` for which there is none."""
    words = [",".join(str(number) for number in (*size[:3], *size[3])) for size in sizes]
    # -P: the working folder may be a checkout whose extension is not built.
    command = [sys.executable, "-P", "-m", __spec__.name, device, provider, ",".join(orders), *words]
    environment = os.environ | {
        "MALLOC_MMAP_THRESHOLD_": "65536",  # freed blocks go back at once, so that the peak is of what is alive
        "PYTHONPATH": str(Path(fastpose.__file__).parents[1]),  # the package under test, installed or a checkout
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"memory of {provider} on {device}: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def measure(device: str, provider: str, size: Size, orders: Sequence[str] = ORDERS) -> list[dict[str, Any]]:
    """Return the records of these orders, measured in this process."""
    torch.set_num_threads(machine.threads())
    case, records = attention(*size), []
    for order in orders:
        job = Job(case, device, order, provider)
        try:
            with reasons():
                prepare(Job(attention(*SMALL), device, order, provider))()  # libraries and threads take their memory
                records.append({**job.labels, "extra_bytes": _extra(job, case)})
        except NotSupported as reason:
            records.append({**job.labels, "reason": str(reason)})
    return records


def _extra(job: Job, case: Case) -> int:
    tensors = case.make(job.device)
    if job.order != FORWARD:
        for tensor in tensors:
            tensor.requires_grad_()
    before = restart(job.device)
    kept = _results(job, tensors)
    return max(peak(job.device) - before - sum(tensor.nbytes for tensor in kept), 0)


def _results(job: Job, tensors: tuple[Tensor, ...]) -> list[Tensor]:
    """Do the order's whole computation and return every tensor that a user holds afterwards."""
    if job.order == FORWARD:
        with torch.no_grad():
            return [job.run(tensors)]
    out = job.run(tensors)
    grad = fixed(out)
    if job.order == BACKWARD:
        return [out.detach(), grad, *torch.autograd.grad(out, tensors, grad)]
    first = torch.autograd.grad(out, tensors, grad.requires_grad_(), create_graph=True)
    cotangents = [fixed(gradient) for gradient in first]
    second = torch.autograd.grad(first, (*tensors, grad), cotangents)
    return [tensor.detach() for tensor in (out, grad, *first, *cotangents, *second)]


def restart(device: str) -> int:
    """Forget the peak so far and return the bytes in use."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError as error:
        raise NotSupported(f"the peak of resident memory is not supported here ({error})") from None
    return _status("VmRSS")


def peak(device: str) -> int:
    """Return the most bytes that were in use since `restart`."""
    if device == "cuda":
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated()
    return _status("VmHWM")


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def main(arguments: list[str], show: Callable[[str], object] = print) -> None:
    """Print the records as JSON."""
    device, provider, orders, *sizes = arguments
    records = []
    for numbers in sizes:
        batch, ck, cv, height, width = map(int, numbers.split(","))
        records += measure(device, provider, (batch, ck, cv, (height, width)), orders.split(","))
    show(json.dumps(records))


if __name__ == "__main__":
    main(sys.argv[1:])
