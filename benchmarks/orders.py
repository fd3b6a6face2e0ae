"""From a case to the calls that are timed: forward, forward with backward, and the double backward alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from cases import BACKWARD, FORWARD, Case, Tensors
from results_file import REFERENCE
from torch import Tensor

from fastpose.ops._explain import _OPERATIONS

_UNSUPPORTED = ("cannot serve this call", "unknown backend", "not implemented", "not supported")


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
    with reasons():
        return _prepare(job)


@contextmanager
def reasons() -> Iterator[None]:
    """Turn the errors by which backends and torch say that they cannot serve a call into `NotSupported`."""
    try:
        yield
    except (ValueError, RuntimeError, NotImplementedError) as error:
        sentence = str(error).partition("\n")[0]
        if any(words in sentence for words in _UNSUPPORTED):
            raise NotSupported(sentence) from None
        raise


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
