"""Looks into a network while it runs once: where its attention looks, and what attention and gates do to features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fastpose.models.multiscale import Gate
from fastpose.models.pona import Block
from fastpose.nn.nonlocal_block import NonLocalBlock, Positions
from fastpose.nn.self_attention import SarmA, SarmB, SelfAttention

Look = Callable[[str, nn.Module, tuple[Tensor, ...], Any], None]
"""What is done with a module's name, the module, its inputs and its output."""


def attention_maps(network: nn.Module, inputs: Sequence[Tensor], positions: Positions) -> dict[str, Tensor]:
    """Run ``network(*inputs)`` once and return where chosen positions look in each of its attention modules.

    ``positions`` (P, 2) are integers (x, y), pixels of the largest attended map: the heatmap's in the published
    networks of system 000, a quarter of the image's in system 001, 32 x 32 in system 004; on coarser maps the cell that
    holds the pixel is asked. The result gives the rows (B, P, h, w) of each module by its name, in the order of the
    network: such as ``stacks.1.attention`` (000), ``blocks.0.self`` and ``blocks.0.cross`` (001), ``attention`` (004).
    It is empty for a network that runs no attention. Runs in evaluation mode without gradient; the modes of all modules
    are as before afterwards.
    """
    points = torch.as_tensor(positions)
    seen: dict[str, tuple[SelfAttention | NonLocalBlock, Tensor]] = {}

    def keep(name: str, module: Any, args: tuple[Tensor, ...], _: Any) -> None:
        attention = module if isinstance(module, NonLocalBlock) else module.attention
        seen[name.removesuffix("_attention")] = attention, args[-1]  # the last input is what is compared

    with evaluating(network):
        _run(network, inputs, (SarmA, SarmB, NonLocalBlock), keep)
        widest = max((compared.shape[-1] for _, compared in seen.values()), default=1)
        return {
            name: attention.rows(compared, points * compared.shape[-1] // widest)
            for name, (attention, compared) in seen.items()
        }


def features(network: nn.Module, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
    """Run ``network(*inputs)`` once and return the features on both sides of what the poses do to them.

    System 001, each block: ``blocks.0.pose.before`` and ``.after`` its update, ``blocks.0.image.before`` and
    ``.after`` the cross-modal attention, (B, C, H/4, W/4); nothing of a generator without cross-modal attention, which
    computes no pose code. System 003, each gate by its level: ``gates.4.gate`` (the sigmoid, 0..1), ``gates.4.before``
    and ``.after`` (the image features), (B, C, h, w). It is empty for a network without either. Runs in evaluation
    mode without gradient; the modes of all modules are as before afterwards.
    """
    seen: dict[str, Tensor] = {}

    def keep(name: str, module: nn.Module, args: tuple[Tensor, ...], output: Any) -> None:
        for what, tensor in _sides(module, args, output).items():
            seen[f"{name.removesuffix('.cross_attention')}.{what}"] = tensor

    with evaluating(network):
        _run(network, inputs, (Block, Gate, NonLocalBlock), keep)
    return seen


def _sides(module: nn.Module, args: tuple[Tensor, ...], output: Any) -> dict[str, Tensor]:
    """What is shown of one module."""
    if isinstance(module, Gate):
        return {"gate": torch.sigmoid(args[1]), "before": args[0], "after": output}
    if isinstance(module, Block):
        return {"pose.before": args[1], "pose.after": output[1]}
    guided = len(args) == 2  # self-attention has no guide
    return {"image.before": args[0], "image.after": output} if guided else {}


def _run(network: nn.Module, inputs: Sequence[Tensor], kinds: tuple[type[nn.Module], ...], look: Look) -> None:
    """Run the network once, showing ``look`` each module of ``kinds`` as it finishes."""
    modules = [(name, module) for name, module in network.named_modules() if isinstance(module, kinds)]
    hooks = [
        module.register_forward_hook(lambda module, args, output, name=name: look(name, module, args, output))
        for name, module in modules
    ]
    try:
        network(*inputs)
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put the network into evaluation mode without gradient; each module's own mode comes back at the end."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
