"""From a case to the calls that are timed: forward, with backward, the double backward alone, a gradient penalty."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from fastpose import _native
from fastpose.benchmark import machine
from fastpose.benchmark.baselines import ON_HOST, STORING, Compiled
from fastpose.benchmark.cases import ALSO, AVX2, BACKWARD, DOUBLE, FLOAT32, FORWARD, PENALTY, Case, Tensors, Work
from fastpose.benchmark.results_file import OURS, REFERENCE
from fastpose.ops._explain import _OPERATIONS

_UNSUPPORTED = ("cannot serve this call", "unknown backend", "not implemented", "not supported")
_STORED = {FORWARD: 3, BACKWARD: 6, DOUBLE: 16, PENALTY: 16}  # N x N maps alive at the peak of the usual way, about


_FIT = {"cpu": 0.5, "cuda": 0.9}  # of the free memory, which those maps may take


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
    def work(self) -> Work:
        """What the call has to do."""
        return self.case.work[self.order]

    @property
    def dtype(self) -> str:
        """What is computed with."""
        return "float32" if self.provider == FLOAT32 else self.case.dtype

    @property
    def level(self) -> str:
        """The instruction set that the CPU kernels are held to; empty where it is the process' own."""
        return "avx2" if self.provider == AVX2 else ""

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
        if case.table is None:
            return case.call(tensors)
        return case.call(tensors, backend="cpu" if self.provider in ALSO else self.provider)


def backends(case: Case) -> tuple[str, ...]:
    """Return the backends of the case's operation, the reference first."""
    if case.table is None:
        return (REFERENCE,)
    names = _OPERATIONS[case.table].backend_names
    return (REFERENCE, *(name for name in names if name != REFERENCE))


def ours(case: Case, device: str) -> tuple[str, ...]:
    """Return the backends, and the further ways of ours that make a difference on this machine."""
    also = case.also if device == "cpu" and _native.missing() is None else ()
    return (*backends(case), *(name for name in also if name != AVX2 or machine.has_narrower("avx2")))


def devices() -> tuple[str, ...]:
    """Return the kinds of device on this machine."""
    return ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)


def jobs(cases: Iterable[Case], kinds: Sequence[str] | None = None) -> list[Job]:
    """Return what is to be measured on these kinds of device; those that are compared follow one another."""
    return [
        Job(case, device, order, provider)
        for case in cases
        for device in (devices() if kinds is None else kinds)
        if case.device in ("any", device)
        for order in case.work
        for provider in (*ours(case, device), *case.others)
        if (provider, order) not in case.left_out
    ]


def groups(cases: Iterable[Case], kinds: Sequence[str] | None = None) -> list[tuple[Job, ...]]:
    """Return the jobs whose numbers are compared together: the ways of a case on a device in one order."""
    found = groupby(jobs(cases, kinds), key=lambda job: (id(job.case), job.device, job.order))
    return [tuple(members) for _, members in found]


def named(group: Sequence[Job]) -> str:
    """Return what names a group."""
    return str(group[0]).rpartition("|")[0]


def prepare(job: Job) -> Callable[[], object]:
    """Return the call to be timed; raise `NotSupported` with the reason where the provider cannot do it."""
    with reasons(job):
        _check_room(job)
        if not job.level:
            return _prepare(job)
        with machine.at_level(job.level):
            return _held_to(job.level, _prepare(job))


def _held_to(level: str, call: Callable[[], object]) -> Callable[[], object]:
    def held() -> object:
        with machine.at_level(level):
            return call()

    return held


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
def conditions(case: Case) -> Iterator[None]:
    """Multiply float32 matrices as the case says, on as many threads as it says."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(case.precision)
    try:
        with _threads(case.threads) if case.threads else nullcontext():
            yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let PyTorch, and OpenCV where it is installed, have so many threads."""
    try:
        import cv2
    except ImportError:
        libraries = [(torch.get_num_threads, torch.set_num_threads)]
    else:
        libraries = [(torch.get_num_threads, torch.set_num_threads), (cv2.getNumThreads, cv2.setNumThreads)]
    before = [(write, read()) for read, write in libraries]
    for write, _ in before:
        write(count)
    try:
        yield
    finally:
        for write, old in before:
            write(old)


def _check_room(job: Job) -> None:
    """Refuse a way that stores the N x N map where the maps would not fit; running into it costs minutes."""
    # On the CPU every call of SDPA with keys and values of different widths falls to the kernel that stores it.
    storing = (*STORING, "sdpa") if job.device == "cpu" else STORING
    if job.provider not in storing or not job.case.map_bytes:
        return
    free, wanted = machine.free_bytes(job.device), _STORED[job.order] * job.case.map_bytes
    if wanted > _FIT[job.device] * free:
        share = f", of which {_FIT['cpu']:.0%} may be taken" if job.device == "cpu" else ""
        raise NotSupported(
            f"its N x N maps would take about {wanted / 2**30:.0f} GiB, {free / 2**30:.0f} are free{share}"
        )


def _prepare(job: Job) -> Callable[[], object]:
    tensors: Tensors = job.case.make(job.device)
    if job.dtype != job.case.dtype:
        tensors = tuple(tensor.to(getattr(torch, job.dtype)) for tensor in tensors)
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
    if job.order == PENALTY:
        del out
        return _gradient_penalty(lambda: job.run(tensors), leaves, grad.requires_grad_())
    return _double_backward(out, leaves, grad.requires_grad_())


def _gradient_penalty(run: Callable[[], Tensor], leaves: list[Tensor], grad: Tensor) -> Callable[[], object]:
    """Forward, the first gradients with their graph, and the gradient of a linear function of them, every time."""
    cotangents = [fixed(leaf) for leaf in leaves]

    def step() -> object:
        first = torch.autograd.grad(run(), leaves, grad, create_graph=True)
        return torch.autograd.grad(first, (*leaves, grad), cotangents)

    return step


def _double_backward(out: Tensor, leaves: list[Tensor], grad: Tensor) -> Callable[[], object]:
    """The gradient of a linear function of the first gradients, in the inputs and in the incoming gradient."""
    gradients = torch.autograd.grad(out, leaves, grad, create_graph=True)
    first = [gradient for gradient in gradients if gradient.requires_grad]
    cotangents = [fixed(gradient) for gradient in first]
    return lambda: torch.autograd.grad(first, (*leaves, grad), cotangents, retain_graph=True, allow_unused=True)


def fixed(like: Tensor) -> Tensor:
    """Return seeded numbers in the shape, dtype and layout of ``like``."""
    generator = torch.Generator(like.device).manual_seed(1)
    return torch.empty_like(like).detach().uniform_(generator=generator)
