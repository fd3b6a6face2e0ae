"""From a case to the calls that are timed: forward, forward with backward, and the double backward alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from fastpose.benchmark.baselines import ON_HOST, STORING, Compiled
from fastpose.benchmark.cases import BACKWARD, DOUBLE, FORWARD, Case, Tensors
from fastpose.benchmark.results_file import OURS, REFERENCE
from fastpose.ops._explain import _OPERATIONS

_UNSUPPORTED = ("cannot serve this call", "unknown backend", "not implemented", "not supported")
_STORED = {FORWARD: 3, BACKWARD: 6, DOUBLE: 16}  # N x N maps that the usual way has alive at its peak, about


class NotSupported(Exception):
    """A provider cannot do a case; the message says why."""


@dataclass(frozen=True)
class Job:
    """One number to be measured: a case on a device, in one order, by one provider."""

    case: Case
    device: str
    order: str
    provider: str

    def __str__(self) -> str:
        parts = (self.case.operation, self.case.size, self.device, self.order, self.provider)
        return "|".join(parts).replace("[", "(").replace("]", ")")

    @property
    def labels(self) -> dict[str, str]:
        """What names it in a result file."""
        case = self.case
        return {
            "operation": case.operation,
            "size": case.size,
            "device": self.device,
            "dtype": case.dtype,
            "order": self.order,
            "provider": self.provider,
        }

    @property
    def compiled(self) -> bool:
        """Whether torch.compile has its time before the first call."""
        return isinstance(self.case.others.get(self.provider), Compiled)

    @property
    def by_events(self) -> bool:
        """Whether the device alone is timed."""
        return self.device == "cuda" and self.provider not in ON_HOST

    def run(self, tensors: Tensors) -> Tensor:
        """Return the result of one forward call."""
        case = self.case
        if self.provider in case.others:
            return case.others[self.provider](tensors)
        return case.call(tensors) if case.table is None else case.call(tensors, backend=self.provider)


def backends(case: Case) -> tuple[str, ...]:
    """Return the backends of the case's operation, the reference first."""
    if case.table is None:
        return (REFERENCE,)
    names = _OPERATIONS[case.table].backend_names
    return (REFERENCE, *(name for name in names if name != REFERENCE))


def devices() -> tuple[str, ...]:
    """Return the kinds of device on this machine."""
    return ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)


def jobs(cases: Iterable[Case]) -> list[Job]:
    """Return what is to be measured; those that are compared follow one another."""
    return [
        Job(case, device, order, provider)
        for case in cases
        for device in devices()
        if case.device in ("any", device)
        for order in case.work
        for provider in (*backends(case), *case.others)
        if (provider, order) not in case.left_out
    ]


def prepare(job: Job) -> Callable[[], object]:
    """Return the call to be timed; raise `NotSupported` with the reason where the provider cannot do it."""
    with reasons(job):
        _check_room(job)
        return _prepare(job)


@contextmanager
def reasons(job: Job | None = None) -> Iterator[None]:
    """Turn the errors by which backends and torch say that they cannot serve a call into `NotSupported`.

    On a GPU any error of what is not ours is such a refusal: compilers and libraries have many kinds.
    """
    rival = job is not None and job.device == "cuda" and job.provider not in OURS
    try:
        yield
    except NotSupported:
        raise
    except Exception as error:
        sentence = str(error).strip().partition("\n")[0]
        known = isinstance(error, (ValueError, RuntimeError)) and any(words in sentence for words in _UNSUPPORTED)
        if rival and not known:
            sentence = f"{type(error).__name__}: {sentence}"[:300]
        if not (rival or known):
            raise
    else:
        return
    raise NotSupported(sentence)


@contextmanager
def precision(case: Case) -> Iterator[None]:
    """Multiply float32 matrices as the case says."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(case.precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _check_room(job: Job) -> None:
    """Refuse a way that stores the N x N map where the maps would not fit; running into it costs minutes."""
    if job.device != "cuda" or job.provider not in STORING or not job.case.map_bytes:
        return
    free = torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    wanted = _STORED[job.order] * job.case.map_bytes
    if wanted > 0.9 * free:
        raise NotSupported(f"its N x N maps would take about {wanted / 2**30:.0f} GiB, {free / 2**30:.0f} are free")


def _prepare(job: Job) -> Callable[[], object]:
    tensors = job.case.make(job.device)
    if job.order == FORWARD:
        return torch.no_grad()(lambda: job.run(tensors))
    leaves = [tensors[index].requires_grad_() for index in job.case.wanting]
    out = job.run(tensors)
    if not (isinstance(out, Tensor) and out.requires_grad):
        raise NotSupported(f"{job.provider} gives no gradient")
    grad = fixed(out)
    if job.order == BACKWARD:
        del out
        return lambda: torch.autograd.grad(job.run(tensors), leaves, grad)
    return _double_backward(out, leaves, grad.requires_grad_())


def _double_backward(out: Tensor, leaves: list[Tensor], grad: Tensor) -> Callable[[], object]:
    """The gradient of a linear function of the first gradients, in the inputs and in the incoming gradient."""
    first = torch.autograd.grad(out, leaves, grad, create_graph=True)
    first = [gradient for gradient in first if gradient.requires_grad]
    cotangents = [fixed(gradient) for gradient in first]
    return lambda: torch.autograd.grad(first, (*leaves, grad), cotangents, retain_graph=True, allow_unused=True)


def fixed(like: Tensor) -> Tensor:
    """Return seeded numbers in the shape, dtype and layout of ``like``."""
    generator = torch.Generator(like.device).manual_seed(1)
    return torch.empty_like(like).detach().uniform_(generator=generator)
