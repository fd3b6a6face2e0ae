"""One network's optimizer as a section of a configuration (systems 002 and 004), and both kinds as all make them.

On a CPU each takes one pass over a parameter and its averages, where torch's defaults take about ten.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fastpose import _checks


@dataclass(frozen=True)
class NetworkOptimizerConfig:
    """One network's optimizer: "rmsprop" (alpha 0.99, eps 1e-8) or "adam" (``beta1``, ``beta2``, eps 1e-8)."""

    name: str = "rmsprop"
    lr: float = 2.5e-4
    beta1: float = 0.9
    beta2: float = 0.999

    def check(self, section: str) -> None:
        """Raise ``ValueError``, which names the section, unless all values can be used."""
        _checks.choice(f"{section}.name", self.name, ("rmsprop", "adam"))
        _checks.positive(f"{section}.lr", self.lr)
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{section}.{name}: expected a number from 0 up to 1, got {getattr(self, name)}")


def build(parameters: Sequence[nn.Parameter], config: NetworkOptimizerConfig) -> torch.optim.Optimizer:
    """Return the optimizer of one network's trained parameters."""
    if config.name == "adam":
        return adam(parameters, lr=config.lr, betas=(config.beta1, config.beta2))
    return RMSprop(parameters, lr=config.lr, alpha=0.99)


def adam(parameters: Iterable[Any], **options: Any) -> torch.optim.Adam:
    """Return Adam in one pass over each parameter and its averages."""
    return torch.optim.Adam(parameters, fused=True, **options)


def lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Give what an optimizer remembers of each parameter the memory order of that parameter.

    Files keep none, and torch's passes take the numbers as they lie: with others they go wrong without a word.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def lay_out_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Give gradients the memory order of their parameters, as passes over both take the numbers as they lie.

    autograd's own have it, and stay what they are.
    """
    for parameter in parameters:
        gradient = parameter.grad
        if gradient is not None and not _laid_alike(parameter, gradient):
            parameter.grad = torch.empty_like(parameter, dtype=gradient.dtype).copy_(gradient)


class RMSprop(torch.optim.RMSprop):
    """``torch.optim.RMSprop`` with its state and, but for rounding, its numbers, in one pass where that can be.

    That is Adam's, whose first average is then the gradient, after so many steps that it corrects nothing any more.
    With weight decay gradients hold it after a step.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step with the gradients that are there; see ``torch.optim.Optimizer.step``."""
        lists = [self._lists(group) for group in self.param_groups]
        if closure is not None or not all(map(_serves, self.param_groups, lists)):
            return super().step(closure)
        for group, (parameters, gradients, averages, steps) in zip(self.param_groups, lists, strict=True):
            if parameters:
                torch._foreach_add_(steps, 1)
                _one_pass(parameters, gradients, averages, group)
        return None

    def _lists(self, group: dict[str, Any]) -> tuple[list[torch.Tensor], ...]:
        """Return a group's parameters with gradient, their gradients, averages and steps, made where they are not."""
        lists: tuple[list[torch.Tensor], ...] = ([], [], [], [])
        parameters, gradients, averages, steps = lists
        self._init_group(group, parameters, gradients, averages, [], [], steps)
        return lists


_LATE = 1e9
"""Steps after which Adam corrects nothing: 0.999 to this power is 0."""


def _serves(group: dict[str, Any], lists: tuple[list[torch.Tensor], ...]) -> bool:
    """Whether a group is one that a pass of Adam can serve."""
    if any(group[name] for name in ("momentum", "centered", "maximize", "differentiable", "capturable")):
        return False
    parameters, gradients, averages, _ = lists
    alike = all(map(_alike, parameters, gradients, averages))
    return alike and 0 < group["alpha"] <= 0.999 and _adam_works()


def _alike(parameter: torch.Tensor, gradient: torch.Tensor, average: torch.Tensor) -> bool:
    """Whether a pass may take the numbers of all three as they lie in memory."""
    return (
        parameter.device.type == "cpu"
        and parameter.dtype == gradient.dtype == average.dtype == torch.float32
        and _laid_alike(parameter, gradient)
        and _laid_alike(parameter, average)
    )


def _laid_alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors of a shape lie alike in memory; how far apart the only entry of an axis is does not count."""
    strides = zip(one.shape, one.stride(), other.stride(), strict=True)
    return one.stride() == other.stride() or all(size == 1 or first == second for size, first, second in strides)


def _one_pass(
    parameters: list[torch.Tensor], gradients: list[torch.Tensor], averages: list[torch.Tensor], group: dict[str, Any]
) -> None:
    late = [torch.tensor(_LATE)] * len(parameters)
    given = {"lr": float(group["lr"]), "beta1": 0.0, "beta2": group["alpha"], "eps": group["eps"]}
    given |= {"weight_decay": group["weight_decay"], "amsgrad": False, "maximize": False}
    torch._fused_adam_(parameters, gradients, gradients, averages, [], late, **given)


@functools.cache
def _adam_works() -> bool:
    """Return whether Adam's pass, private to torch, is there and gives what RMSprop does."""
    generator = torch.Generator().manual_seed(0)
    weights, gradients = ([torch.randn(n, generator=generator) for n in (1, 37)] for _ in range(2))
    group: dict[str, Any] = {"lr": 0.1, "alpha": 0.9, "eps": 1e-8, "weight_decay": 0.1}
    plain = [nn.Parameter(weight.clone()) for weight in weights]
    for parameter, gradient in zip(plain, gradients, strict=True):
        parameter.grad = gradient.clone()
    torch.optim.RMSprop(plain, **group).step()
    averages = [torch.zeros_like(weight) for weight in weights]
    try:
        _one_pass(weights, gradients, averages, group)
    except (AttributeError, RuntimeError, TypeError):  # another torch: no such function, or other arguments
        return False
    return all(torch.allclose(found, wanted, atol=1e-5) for found, wanted in zip(weights, plain, strict=True))
