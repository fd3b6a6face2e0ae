"""From a backend's fwd, bwd and bwd2 to an operation that is differentiable twice, eagerly and under torch.compile.

The routing is written once, here:

* under ``torch.compile`` (or for a tensor subclass): the registered operators ``fastpose::<name>_fwd``, ``_bwd`` and
  ``_bwd2``, each with the next as its gradient;
* without a gradient wanted: the kernel itself;
* otherwise an ``autograd.Function`` whose backward asks ``torch.is_grad_enabled()``. Grad mode is on inside backward
  exactly when a graph of the gradient is wanted (``create_graph=True``): then a second Function computes it, whose
  backward is bwd2. ``once_differentiable`` would not protect here: it stays silent when ``inputs=`` is given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._functorch.utils import unwrap_dead_wrappers

from fastpose.ops._dispatch import PLAIN, Backend, Inputs, Operation, Parameters

library = torch.library.Library("fastpose", "DEF")

Tensors = tuple[Any, ...]  # tensors; None for an absent one


@dataclass(frozen=True)
class Signature:
    """What autograd and the operator registry need to know of an operation.

    Attributes:
        inputs: names of the tensor inputs, in order; a trailing "?" marks an optional one.
        differentiable: names of the inputs that have a gradient; none for an operation without derivatives.
        parameters: (name, schema type) of the constants, for example ("scale", "float").
        outputs: how many of the forward's results are the operation's outputs; the rest are saved for backward.
        results: how many results the forward has.
        reads: places of the results that bwd and bwd2 read; the others are not kept, and may be changed in place. All
            by default.
        unread: names of the inputs that they do not read.
    """

    inputs: tuple[str, ...]
    differentiable: tuple[str, ...]
    parameters: tuple[tuple[str, str], ...]
    outputs: int
    results: int
    reads: tuple[int, ...] | None = None
    unread: tuple[str, ...] = ()

    def kept(self, results: Tensors) -> Tensors:
        """The forward's results as they are saved for backward."""
        if self.reads is None:
            return tuple(results)
        return tuple(result if place in self.reads else None for place, result in enumerate(results))

    def kept_inputs(self, inputs: Tensors) -> Tensors:
        """The inputs as they are saved for backward."""
        if not self.unread:
            return tuple(inputs)
        return tuple(None if name in self.unread else tensor for name, tensor in zip(self.inputs, inputs, strict=True))

    @property
    def positions(self) -> tuple[int, ...]:
        """Indices of the differentiable inputs."""
        names = [name.rstrip("?") for name in self.inputs]
        return tuple(names.index(name) for name in self.differentiable)


class Differentiable:
    """An operation's way through autograd: call it with a backend, the inputs and the parameters.

    ``allocate(inputs, parameters)`` returns the forward's results without computing them (the shapes and strides that
    torch.compile needs).
    """

    def __init__(
        self,
        operation: Operation,
        signature: Signature,
        allocate: Callable[[Inputs, Parameters], tuple[Tensor, ...]],
    ) -> None:
        self.operation = operation
        self.signature = signature
        self._function = _forward_function(signature)
        self._registered = _register(operation, signature, allocate)

    def __call__(self, backend: Backend, inputs: Inputs, parameters: Parameters) -> tuple[Tensor, ...]:
        outputs = self.signature.outputs
        if backend.bwd is None and self.signature.differentiable:
            return backend.fwd(inputs, parameters)[:outputs]
        if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() or not _plain(inputs):
            return _results(self._registered(*inputs, *parameters, backend.name))[:outputs]
        if torch.is_grad_enabled() and _requires_grad(inputs):
            return _apply(self._function, backend, parameters, *inputs)[:outputs]
        return (backend.inference or backend.fwd)(inputs, parameters)[:outputs]


def _apply(function: Any, *arguments: Any) -> Tensors:
    """``function.apply``: for transforms of torch.func as it is, else without what they need of it.

    It binds the arguments to the signature of the forward in every call, which takes longer than all the rest.
    """
    if torch._C._are_functorch_transforms_active():
        return function.apply(*arguments)
    return super(torch.autograd.Function, function).apply(*unwrap_dead_wrappers(arguments))


# Loops, not generators: these run in every call.
def _plain(tensors: Tensors) -> bool:
    for tensor in tensors:  # noqa: SIM110
        if tensor is not None and type(tensor) not in PLAIN:
            return False
    return True


def _requires_grad(tensors: Tensors) -> bool:
    for tensor in tensors:  # noqa: SIM110
        if tensor is not None and tensor.requires_grad:
            return True
    return False


def _resolved(tensors: Tensors) -> Tensors:
    """Gradients as memory holds them: a kernel does not see the bit by which torch changes a sign lazily."""
    return tuple(None if tensor is None else tensor.resolve_neg() for tensor in tensors)


def _detached(tensors: Tensors) -> Tensors:
    return tuple(None if tensor is None else tensor.detach() for tensor in tensors)


# ------------------------------------------------------------------------------------------------- eager: Functions


def _forward_function(signature: Signature) -> Any:
    """The Function of the forward; its backward is the kernel, or the second Function when a graph is wanted."""
    count, results, positions = len(signature.inputs), signature.results, signature.positions
    places = [2 + position for position in positions]  # among the arguments
    second = _backward_function(signature)

    class Forward(torch.autograd.Function):
        @staticmethod
        def forward(backend, parameters, *inputs):
            return backend.fwd(inputs, parameters)

        @staticmethod
        def setup_context(ctx, arguments, outputs):
            ctx.backend, ctx.parameters = arguments[:2]
            ctx.save_for_backward(*signature.kept_inputs(arguments[2:]), *signature.kept(outputs))
            if results > signature.outputs:
                ctx.mark_non_differentiable(*outputs[signature.outputs :])

        @staticmethod
        def backward(ctx, *grads):
            saved = ctx.saved_tensors
            inputs, outputs, grads = saved[:count], saved[count:], _resolved(grads[: signature.outputs])
            wanted = ctx.needs_input_grad
            needs = tuple([wanted[place] for place in places])
            if torch.is_grad_enabled():
                gradients = _apply(second, ctx.backend, ctx.parameters, needs, *inputs, *_detached(outputs), *grads)
            else:
                gradients = ctx.backend.bwd(inputs, outputs, grads, needs, ctx.parameters)
            return (None, None, *_placed(gradients, positions, count))

    return Forward


def _backward_function(signature: Signature) -> Any:
    """The Function of the gradient; its backward is bwd2, and there is no further order."""
    count, results, positions = len(signature.inputs), signature.results, signature.positions

    class Backward(torch.autograd.Function):
        @staticmethod
        def forward(backend, parameters, needs, *tensors):
            inputs, outputs, grads = tensors[:count], tensors[count : count + results], tensors[count + results :]
            gradients = backend.bwd(inputs, outputs, grads, needs, parameters)
            return tuple(g.view_as(g) if _is_one_of(g, grads) else g for g in gradients)  # a Function saves no output

        @staticmethod
        def setup_context(ctx, arguments, outputs):
            ctx.backend, ctx.parameters = arguments[:2]
            ctx.save_for_backward(*arguments[3:])
            ctx.set_materialize_grads(False)

        @staticmethod
        def backward(ctx, *cotangents):
            if torch.is_grad_enabled():
                raise RuntimeError(
                    "third derivatives are served by backend='reference' only; pass it, or leave out create_graph=True "
                    "in the outermost torch.autograd.grad"
                )
            saved, cotangents = ctx.saved_tensors, _resolved(cotangents)
            inputs, outputs, grads = saved[:count], saved[count : count + results], saved[count + results :]
            wanted = ctx.needs_input_grad[3:]
            needs = tuple(wanted[position] for position in positions) + tuple(wanted[count + results :])
            gradients = ctx.backend.bwd2(inputs, outputs, grads, cotangents, needs, ctx.parameters)
            of_inputs = _placed(gradients[: len(positions)], positions, count)
            return (None, None, None, *of_inputs, *(None,) * results, *gradients[len(positions) :])

    return Backward


def _placed(gradients: Tensors, positions: tuple[int, ...], count: int) -> list[Tensor | None]:
    """Gradients of the differentiable inputs at their places among all ``count`` inputs."""
    placed: list[Tensor | None] = [None] * count
    for position, gradient in zip(positions, gradients, strict=True):
        placed[position] = gradient
    return placed


# ------------------------------------------------------------------------------------- compiled: registered operators


def _register(operation: Operation, signature: Signature, allocate: Callable) -> Any:
    """Define fastpose::<name>_fwd, _bwd and _bwd2 with shapes and gradients; return the forward operator."""
    _define(operation, signature)
    _register_shapes(operation.name, signature, allocate)
    if signature.differentiable:
        _register_gradients(operation.name, signature)
    return getattr(torch.ops.fastpose, f"{operation.name}_fwd").default


def _schemas(signature: Signature) -> dict[str, str]:
    """Operator schemas of the three orders; ``needs`` is a bit per wanted gradient, unwanted ones come back empty."""
    inputs = [f"Tensor{'?' if name.endswith('?') else ''} {name.rstrip('?')}" for name in signature.inputs]
    results = [f"Tensor? result{index}" for index in range(signature.results)]
    grads = [f"Tensor grad{index}" for index in range(signature.outputs)]
    cotangents = [f"Tensor? cot_{name}" for name in signature.differentiable]
    constants = [f"{kind} {name}" for name, kind in signature.parameters] + ["str backend"]
    gradients = len(signature.differentiable)

    def schema(arguments: list[str], count: int) -> str:
        return f"({', '.join(arguments)}) -> ({', '.join(['Tensor'] * count)})"

    return {
        "fwd": schema([*inputs, *constants], signature.results),
        "bwd": schema([*inputs, *results, *grads, "int needs", *constants], gradients),
        "bwd2": schema(
            [*inputs, *results, *grads, *cotangents, "int needs", *constants], gradients + signature.outputs
        ),
    }


def _bits(flags: tuple[bool, ...]) -> int:
    return sum(1 << index for index, flag in enumerate(flags) if flag)


def _flags(bits: int, count: int) -> tuple[bool, ...]:
    return tuple(bool(bits >> index & 1) for index in range(count))


def _filled(gradients: Tensors, like: Tensor) -> tuple[Tensor, ...]:
    """Operators return tensors: an absent gradient travels as an empty one."""
    return tuple(like.new_empty(0) if gradient is None else gradient for gradient in gradients)


def _is_one_of(tensor: Tensor | None, others: Tensors) -> bool:
    return tensor is not None and any(tensor is other for other in others)


def _owned(gradients: Tensors, like: Tensors, given: Tensors) -> Tensors:
    """Operators return memory of their own: a gradient that is one of the given tensors is copied."""
    return tuple(
        torch.empty_like(tensor).copy_(gradient) if _is_one_of(gradient, given) else gradient
        for gradient, tensor in zip(gradients, like, strict=True)
    )


def _returned(tensors: Tensors) -> Any:
    """What an operator returns: a schema with one result means that tensor itself, no tuple."""
    return tensors[0] if len(tensors) == 1 else tensors


def _results(returned: Any) -> Tensors:
    """The reverse of ``_returned``."""
    return (returned,) if isinstance(returned, Tensor) else tuple(returned)


def _split(signature: Signature, arguments: tuple[Any, ...], *, second: bool = False) -> tuple[Any, ...]:
    """(inputs, results, grads, cotangents, needs, parameters, backend) of a bwd or bwd2 operator's arguments."""
    sizes = [len(signature.inputs), signature.results, signature.outputs]
    sizes.append(len(signature.differentiable) if second else 0)
    groups, start = [], 0
    for size in sizes:
        groups.append(tuple(arguments[start : start + size]))
        start += size
    return (*groups, arguments[start], tuple(arguments[start + 1 : -1]), arguments[-1])


def _order(operation: Operation, backend: str, order: str) -> Callable[..., Tensors]:
    return getattr(operation.backend(backend), order)


def _define(operation: Operation, signature: Signature) -> None:
    count, gradients = len(signature.inputs), len(signature.differentiable)

    def fwd(*arguments: Any) -> Any:
        results = operation.backend(arguments[-1]).fwd(arguments[:count], arguments[count:-1])
        return _returned(results[: signature.results])

    def bwd(*arguments: Any) -> Any:
        inputs, results, grads, _, needs, parameters, name = _split(signature, arguments)
        grads = _resolved(grads)
        computed = _order(operation, name, "bwd")(inputs, results, grads, _flags(needs, gradients), parameters)
        like = tuple(inputs[position] for position in signature.positions)
        return _returned(_filled(_owned(computed, like, grads), grads[0]))

    def bwd2(*arguments: Any) -> tuple[Tensor, ...]:
        inputs, results, grads, cotangents, needs, parameters, name = _split(signature, arguments, second=True)
        grads, cotangents = _resolved(grads), _resolved(cotangents)
        flags = _flags(needs, gradients + signature.outputs)
        computed = _order(operation, name, "bwd2")(inputs, results, grads, cotangents, flags, parameters)
        return _filled(computed, grads[0])

    orders = (("fwd", fwd), ("bwd", bwd), ("bwd2", bwd2)) if gradients else (("fwd", fwd),)
    for order, implementation in orders:
        name = f"{operation.name}_{order}"
        library.define(name + _schemas(signature)[order], tags=[torch.Tag.pt2_compliant_tag])
        library.impl(name, implementation, "CompositeExplicitAutograd")


def _register_shapes(name: str, signature: Signature, allocate: Callable) -> None:
    count = len(signature.inputs)

    def like(tensors: Tensors, flags: tuple[bool, ...], any_tensor: Tensor) -> tuple[Tensor, ...]:
        return tuple(
            torch.empty_like(tensor) if flag and tensor is not None else any_tensor.new_empty(0)
            for tensor, flag in zip(tensors, flags, strict=True)
        )

    @torch.library.register_fake(f"fastpose::{name}_fwd", lib=library)
    def _(*arguments: Any) -> Any:
        return _returned(allocate(arguments[:count], arguments[count:-1]))

    if not signature.differentiable:
        return

    @torch.library.register_fake(f"fastpose::{name}_bwd", lib=library)
    def _(*arguments: Any) -> Any:
        inputs, _, grads, _, needs, _, _ = _split(signature, arguments)
        tensors = tuple(inputs[position] for position in signature.positions)
        return _returned(like(tensors, _flags(needs, len(tensors)), grads[0]))

    @torch.library.register_fake(f"fastpose::{name}_bwd2", lib=library)
    def _(*arguments: Any) -> tuple[Tensor, ...]:
        inputs, _, grads, _, needs, _, _ = _split(signature, arguments, second=True)
        tensors = tuple(inputs[position] for position in signature.positions) + grads
        return like(tensors, _flags(needs, len(tensors)), grads[0])


def _register_gradients(name: str, signature: Signature) -> None:
    count, results, positions = len(signature.inputs), signature.results, signature.positions
    bwd = getattr(torch.ops.fastpose, f"{name}_bwd").default
    bwd2 = getattr(torch.ops.fastpose, f"{name}_bwd2").default
    constants = len(signature.parameters) + 1

    def save_forward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.constants = inputs[count:]
        ctx.save_for_backward(*inputs[:count], *signature.kept(_results(output)))

    def forward_gradient(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        saved = ctx.saved_tensors
        needs = tuple(ctx.needs_input_grad[position] for position in positions)
        outputs = _detached(saved[count:])
        gradients = _results(bwd(*saved[:count], *outputs, *grads[: signature.outputs], _bits(needs), *ctx.constants))
        kept = tuple(gradient if need else None for gradient, need in zip(gradients, needs, strict=True))
        return (*_placed(kept, positions, count), *(None,) * constants)

    def save_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        tensors = count + results + signature.outputs
        ctx.needs, ctx.constants = inputs[tensors], inputs[tensors + 1 :]
        ctx.save_for_backward(*inputs[:tensors])

    def backward_gradient(ctx: Any, *cotangents: Tensor | None) -> tuple[Any, ...]:
        saved = ctx.saved_tensors
        computed = _flags(ctx.needs, len(positions))
        cotangents = tuple(cot if flag else None for cot, flag in zip(cotangents, computed, strict=True))
        wanted = ctx.needs_input_grad
        needs = tuple(wanted[position] for position in positions)
        needs += tuple(wanted[count + results : count + results + signature.outputs])
        gradients = bwd2(*saved, *cotangents, _bits(needs), *ctx.constants)
        kept = tuple(gradient if need else None for gradient, need in zip(gradients, needs, strict=True))
        of_inputs = _placed(kept[: len(positions)], positions, count)
        return (*of_inputs, *(None,) * results, *kept[len(positions) :], None, *(None,) * constants)

    register = torch.library.register_autograd
    register(f"fastpose::{name}_fwd", forward_gradient, setup_context=save_forward, lib=library)
    register(f"fastpose::{name}_bwd", backward_gradient, setup_context=save_backward, lib=library)
