"""Which backend serves a call, and why the others do not.

A backend states its limits as a list of sentences: empty when it can serve the call. The same list feeds the automatic
choice, the error of an explicit choice, ``ops.explain`` and ``fastpose doctor``.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from fastpose import _native
from fastpose._checks import unknown
from fastpose.ops import _devices

Inputs = tuple[Any, ...]  # tensors; None for an optional one that was not given
Parameters = tuple[Any, ...]

PLAIN = (Tensor, torch.nn.Parameter)
OLDEST = (8, 0)  # compute capability that the GPU kernels are made for
TRITON = importlib.util.find_spec("triton") is not None
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # Triton's kernels then run on the CPU, slowly, for tests


@dataclass(frozen=True)
class Backend:
    """One implementation of one operation.

    Attributes:
        name: "reference", "cpu", "triton" or "cuda".
        not_supported_reasons: (inputs, parameters) -> sentences, empty when the call can be served.
        fwd: (inputs, parameters) -> (outputs..., residuals...).
        bwd: (inputs, results, grads, needs, parameters) -> one gradient per differentiable input, None where
            ``needs`` is false. None for a backend in plain tensor code, which autograd differentiates by itself.
        bwd2: (inputs, results, grads, cotangents, needs, parameters) -> gradients of <cotangents, bwd(...)> with
            respect to each differentiable input, then each of ``grads``.
        inference: fwd where nothing is to be kept for a derivative, (inputs, parameters) -> (outputs...); fwd serves
            where it is None.
        any_size: whether its reasons depend on devices, dtypes and kinds of tensors alone, not on sizes or parameters.
    """

    name: str
    not_supported_reasons: Callable[[Inputs, Parameters], list[str]]
    fwd: Callable[[Inputs, Parameters], tuple[Tensor, ...]]
    bwd: Callable[..., tuple[Tensor | None, ...]] | None = None
    bwd2: Callable[..., tuple[Tensor | None, ...]] | None = None
    inference: Callable[[Inputs, Parameters], tuple[Tensor, ...]] | None = None
    any_size: bool = True


@dataclass(frozen=True)
class Explanation:
    """Which backend serves a call (``chosen``) and, for every backend passed over, the reasons."""

    operation: str
    chosen: str
    reasons: dict[str, list[str]]

    def __str__(self) -> str:
        lines = [f"{self.operation}: {self.chosen}"]
        for name, sentences in self.reasons.items():
            lines += [f"  not {name}: {sentence}" for sentence in sentences]
        return "\n".join(lines)


class Operation:
    """A public operation and the backends that implement it, in order of preference."""

    def __init__(self, name: str, folder: str, *backends: str) -> None:
        self.name = name
        self._folder = folder
        self.backend_names = backends
        self._loaded: dict[str, Backend] = {}
        self._usual: dict[tuple[Any, ...], Backend] = {}
        self._direct = _native.direct(name)
        for backend in backends:
            self.backend(backend)  # cheap (kernels themselves load on first use), and torch.compile traces no import

    def backend(self, name: str) -> Backend:
        """Return a backend by name, importing its file on first use."""
        if name not in self._loaded:
            if name not in self.backend_names:
                raise ValueError(f"{self.name}: {unknown('backend', name, ('auto', *self.backend_names))}")
            module = importlib.import_module(f"fastpose.ops.{self._folder}._{name}")
            self._loaded[name] = getattr(module, self.name)
        return self._loaded[name]

    def direct(self, backend: str, *arguments: Any) -> Any:
        """The result of a whole call on ordinary CPU tensors of which no gradient is wanted; None for any other.

        The kernels are those of the backend "cpu". A compiler sees nothing of it.
        """
        if torch.compiler.is_compiling() or (backend != "auto" and backend != "cpu"):
            return None
        return self._direct(*arguments)

    def choose(self, name: str, inputs: Inputs, parameters: Parameters) -> Backend:
        """Return the backend for a call: the first that can serve it, or the named one; ``ValueError`` says why not.

        An exported program takes the reference, whose plain tensor code every runtime knows.
        """
        if name == "auto":
            return self._choose(inputs, parameters)
        backend = self.backend(name)
        reasons = backend.not_supported_reasons(inputs, parameters)
        if reasons:
            raise ValueError(f"{self.name}: backend {name!r} cannot serve this call: {'; '.join(reasons)}")
        return backend

    def _choose(self, inputs: Inputs, parameters: Parameters) -> Backend:
        """The automatic choice; between ordinary tensors it is remembered by device and dtype."""
        known = (inputs[0].device, inputs[0].dtype, _native.missing()) if ordinary(inputs) else None
        if known in self._usual:
            return self._usual[known]
        if torch.compiler.is_exporting():
            return self.backend(self.backend_names[-1])
        any_size = True
        for candidate in self.backend_names:
            backend = self.backend(candidate)
            any_size = any_size and backend.any_size
            if not backend.not_supported_reasons(inputs, parameters):
                break
        if known is not None and any_size:
            self._usual[known] = backend
        return backend

    def serves(self, name: str, inputs: Inputs, parameters: Parameters) -> bool:
        """Whether the named backend can serve a call; none but plain tensor code goes into an exported program."""
        return not torch.compiler.is_exporting() and not self.backend(name).not_supported_reasons(inputs, parameters)

    def explain(self, inputs: Inputs, parameters: Parameters) -> Explanation:
        """Return the automatic choice and the reasons against every backend before it."""
        chosen = self.choose("auto", inputs, parameters).name
        passed = self.backend_names[: self.backend_names.index(chosen)]
        reasons = {name: self.backend(name).not_supported_reasons(inputs, parameters) for name in passed}
        return Explanation(self.name, chosen, reasons)


def cpu_reasons(inputs: Inputs) -> list[str]:
    """Reasons against the C++ kernels that hold for every operation: the extension, the device, kinds of tensors."""
    reasons = []
    if (missing := _native.missing()) is not None:
        reasons.append(missing)
    device = _device(inputs)
    if device is not None and device.type != "cpu":
        reasons.append(f"it serves CPU tensors, got {device}")
    return reasons + _reasons_of_kind(inputs)


def cuda_reasons(inputs: Inputs) -> list[str]:
    """Reasons against the CUDA kernels that hold for every operation."""
    if (missing := _native.missing()) is not None:
        return [missing]
    built = _native.cuda_kernels()
    if not built:
        return [f"the extension was built without CUDA kernels ({_native.build_info()['cuda_reason']})"]
    reasons = _reasons_of_gpu(inputs, anywhere=built == "emulated") + _reasons_of_kind(inputs)
    if not reasons and built != "emulated" and (problem := _native.cuda_problem()):
        reasons.append(problem)
    return reasons


def triton_reasons(inputs: Inputs, *, double: bool = False) -> list[str]:
    """Reasons against the Triton kernels that hold for every operation.

    ``double``: the interpreter can run these in float64, for tests.
    """
    if not TRITON:
        return ["Triton is not installed; pip install triton"]
    reasons = _reasons_of_gpu(inputs, anywhere=INTERPRETED)
    if not reasons and (problem := triton_problem()):
        return [problem]
    exact = double and INTERPRETED
    if not exact and any(tensor is not None and tensor.dtype == torch.float64 for tensor in inputs):
        reasons.append("it computes in float32, got float64")
    return reasons + _reasons_of_kind(inputs)


def _device(inputs: Inputs) -> torch.device | None:
    return inputs[0].device if inputs[0] is not None else None


def _reasons_of_gpu(inputs: Inputs, *, anywhere: bool) -> list[str]:
    """``anywhere``: the kernels are emulated, and take CPU tensors."""
    device = _device(inputs)
    if device is None or (anywhere and device.type == "cpu"):
        return []
    if device.type != "cuda":
        return [f"it serves CUDA tensors, got {device}"]
    reason = _reason_of_capability(device.index or 0)
    return [] if reason is None else [reason]


def _reason_of_capability(index: int) -> str | None:
    major, minor = _devices.gpu(index).capability
    if (major, minor) >= OLDEST:
        return None
    return f"it serves compute capability {OLDEST[0]}.{OLDEST[1]} or newer, got {major}.{minor}"


# What torch.compiler.assume_constant_result does, which would import the compiler, and that takes seconds.
_reason_of_capability._dynamo_marked_constant = True  # type: ignore[attr-defined]


def triton_problem() -> str:
    """Why an installed Triton cannot be used; empty where it can. Warns, the first time, where it cannot."""
    return _triton_problem()


triton_problem._dynamo_marked_constant = True  # type: ignore[attr-defined]


@lru_cache(maxsize=1)
def _triton_problem() -> str:
    try:
        importlib.import_module("fastpose.ops._triton_device")
    except Exception as error:  # whatever it is, another backend serves
        problem = f"Triton cannot be loaded ({type(error).__name__}: {error}); reinstall it: pip install triton"
        warnings.warn(f"fastpose: {problem}; another backend serves instead", RuntimeWarning, stacklevel=2)
        return problem
    return ""


def ordinary(inputs: Inputs) -> bool:
    """Whether these are tensors of no special kind and nothing in torch looks on: no compiler, mode or transform."""
    return not torch.compiler.is_compiling() and inputs[0] is not None and _native.ordinary(*inputs)


def _reasons_of_kind(inputs: Inputs) -> list[str]:
    """Reasons against tensors that plain tensor code understands but a kernel, which reads memory, does not."""
    if torch.compiler.is_compiling():
        return []
    if torch.jit.is_tracing():
        return ["torch.jit.trace cannot see into it"]
    if forward_ad._current_level >= 0:
        return ["it has no forward-mode derivative"]
    tensors = [tensor for tensor in inputs if tensor is not None]
    if any(torch._C._functorch.is_batchedtensor(tensor) for tensor in tensors):
        return ["it has no vmap rule"]
    if any(tensor.is_neg() for tensor in tensors):
        return ["it reads memory, which a tensor with the negative bit stores with the other sign"]
    return []
