"""What the benchmarks of whole systems share: the ways in which the same networks run, and the memory of each.

``python benchmarks/whole_systems.py MODULE DEVICE SIZE ORDER`` prints the extra memory of the ways of a system as JSON.
A system's module has ``OPERATION``, ``SIZES`` (each with a ``name``) and ``build(size, device, way)``, which
returns a `Trained`.
"""

from __future__ import annotations

import copy
import gc
import importlib
import json
import os
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.flop_counter import FlopCounterMode

import fastpose
from fastpose import models
from fastpose.benchmark import machine, memory
from fastpose.benchmark.cases import FORWARD, Work
from fastpose.benchmark.orders import NotSupported
from fastpose.benchmark.results_file import BF16, COPY, FIRST, LAST, REFERENCE
from fastpose.benchmark.timing import TURNS, first

STEP = "training step"
SLOW = 5.0  # seconds of a call, from which on all ways take two turns, one in each direction


@dataclass(frozen=True)
class Way:
    """How networks run.

    Attributes:
        usual: operations written by plain PyTorch, updates by a plain ``loss.backward()``.
        channels_last: the memory order of networks and images.
        bf16: networks and losses under autocast; a copy that only infers computes in that type.
        copied: ``models.for_inference`` makes the network that infers.
        folded: what PyTorch's own functions make of batch norm behind convolutions, for inference.
    """

    usual: bool = False
    channels_last: bool = False
    bf16: bool = False
    copied: bool = False
    folded: bool = False

    @property
    def dtype(self) -> str:
        """The number type of the convolutions."""
        return "bfloat16" if self.bf16 else "float32"


def ways(system: Any, size: Any, device: str, order: str) -> dict[str, Way]:
    """Return the providers of an order; "fastpose" is what training, eval and predict take where nothing else is asked.

    That is channels last on a CPU, where a system's ``channels_last(size, order)`` does not deny it. The usual way
    has channels first.
    """
    says = getattr(system, "channels_last", None)
    last = device == "cpu" and (says is None or says(size, order))
    own = {"fastpose": Way(channels_last=last), FIRST if last else LAST: Way(channels_last=not last)}
    if order == STEP:
        return {REFERENCE: Way(usual=True), **own, BF16: Way(channels_last=last, bf16=True)}
    copies = {COPY: Way(copied=True), BF16: Way(copied=True, bf16=True)}
    return {REFERENCE: Way(usual=True), "reference folded": Way(usual=True, folded=True), **own, **copies}


def orders_of(size: Any) -> tuple[str, ...]:
    """Return what is measured of a size: inference, a step, or both."""
    return getattr(size, "orders", (FORWARD, STEP))


def limit(order: str, way: Way) -> float:
    """Return how much what an inference or a step gives may differ from the usual way's, as a share of its largest.

    Of channels-last maps torch's batch norm sums in float32 in training, those of channels first in float64: an
    hourglass makes 1e-3 of that.
    """
    if way.bf16:
        return 0.1
    return 1e-2 if order == STEP and way.channels_last else 1e-4


@dataclass(frozen=True)
class Trained(ABC):
    """Networks with their optimizers, the first of which infers; a system adds a batch and its operations."""

    networks: tuple[nn.Module, ...]
    optimizers: tuple[torch.optim.Optimizer, ...]
    image: Tensor
    way: Way

    @abstractmethod
    def infer(self, network: nn.Module) -> Any:
        """Return what an inference is for."""

    @abstractmethod
    def maps(self, network: nn.Module) -> tuple[Tensor, ...]:
        """Return what the network gives for the batch."""

    @abstractmethod
    def step(self) -> tuple[Tensor, ...]:
        """Do one iteration; return its losses."""

    def call(self, order: str) -> Callable[[], Any]:
        """Return what is timed under the name of an order, "forward" or "training step"."""
        return torch.no_grad()(partial(self.infer, self.prepared)) if order == FORWARD else self._training()

    def numbers(self, order: str) -> tuple[Tensor, ...]:
        """Return what the ways must agree in: the maps of an inference, the losses of a step."""
        if order != FORWARD:
            return self._training()()
        with torch.no_grad():
            return self.maps(self.prepared)

    @cached_property
    def prepared(self) -> nn.Module:
        """The network that infers."""
        network = self.networks[0].eval()
        if self.way.copied:
            return models.for_inference(network, dtype=getattr(torch, self.way.dtype))
        return folded(network, self.inputs) if self.way.folded else network

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What the network that infers is given."""
        return (self.image,)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context of forward passes and losses of a step."""
        return torch.autocast(self.image.device.type, torch.bfloat16) if self.way.bf16 else nullcontext()

    def update(self, index: int, loss: Tensor) -> None:
        """Let a network's optimizer take a step; ours asks for no gradients but those of its network, as the engine."""
        self.optimizers[index].zero_grad()
        loss.backward(inputs=None if self.way.usual else list(self.networks[index].parameters()))
        self.optimizers[index].step()

    def _training(self) -> Callable[[], tuple[Tensor, ...]]:
        for network in self.networks:
            network.train()
        return self.step


def placed(networks: list[nn.Module], image: Tensor, device: str, way: Way) -> tuple[tuple[nn.Module, ...], Tensor]:
    """Return networks and images on a device, in the memory order of a way."""
    order = torch.channels_last if way.channels_last else torch.contiguous_format
    return tuple(network.to(device, memory_format=order) for network in networks), image.to(device, memory_format=order)


def folded(network: nn.Module, inputs: tuple[Tensor, ...]) -> nn.Module:
    """Return a copy in evaluation mode whose convolutions have taken the batch norms that read them into themselves."""
    network, made, pairs = copy.deepcopy(network).eval(), {}, {}

    def watch(module: nn.Module, given: tuple[Tensor], result: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            made[result] = module
        elif given[0] in made:
            pairs[module] = made[given[0]]

    layers = [module for module in network.modules() if isinstance(module, (nn.Conv2d, nn.BatchNorm2d))]
    handles = [layer.register_forward_hook(watch) for layer in layers]
    with torch.no_grad():
        network(*inputs)
    for handle in handles:
        handle.remove()
    names = {module: name for name, module in network.named_modules()}
    for norm, convolution in pairs.items():
        network.set_submodule(names[convolution], fuse_conv_bn_eval(convolution, norm))
        network.set_submodule(names[norm], nn.Identity())
    return network


def differences(made: Mapping[str, Trained], order: str) -> dict[str, float]:
    """Return each way's largest difference from the usual one, each number as a share of the largest beside it."""
    usual: Sequence[Tensor] = ()
    found = {}
    for name, trained in made.items():  # the usual way is the first
        own = trained.numbers(order)
        usual = usual or own
        found[name] = _apart(usual, own)
    return found


def _apart(usual: Sequence[Tensor], own: Sequence[Tensor]) -> float:
    pairs = zip(usual, own, strict=True)
    return max(float((first - second).abs().max() / first.abs().max()) for first, second in pairs)


def build(system: Any, size: Any, device: str, order: str) -> dict[str, Trained]:
    """Return all ways of a system, alive at once: they take turns when they are timed."""
    return {name: system.build(size, device, way) for name, way in ways(system, size, device, order).items()}


def flop(system: Any, size: Any, order: str) -> float:
    """Return the floating-point operations of the usual way's convolutions and matrix products."""
    trained = system.build(size, "meta", Way(usual=True))  # shapes without numbers
    with FlopCounterMode(display=False) as counter:
        trained.call(order)()
    return float(counter.get_total_flops())


def labels(system: Any, size: Any, device: str, order: str, provider: str) -> dict[str, Any]:
    """Return what names a number in a result file; the type is that of the inputs."""
    operation = getattr(size, "operation", None) or system.OPERATION
    names = {"operation": operation, "size": size.name, "device": device, "dtype": "float32"}
    return names | {"order": order, "provider": provider}


def time(
    system: Any, size: Any, device: str, order: str, *, both_orders: Any, limits: Any, work: float
) -> list[dict[str, Any]]:
    """Return the records of the ways of an order, timed in turns after a check that they give the same."""
    made = build(system, size, device, order)
    apart = differences(made, order)
    for name, trained in made.items():
        if not apart[name] <= limit(order, trained.way):
            allowed = limit(order, trained.way)
            raise AssertionError(f"{name}: {apart[name]:.2g} apart from the usual way, more than {allowed:g}")
    calls = {name: trained.call(order) for name, trained in made.items()}
    known = {name: first(call) for name, call in calls.items()}
    measured = both_orders(calls, known=known, turns=TURNS if max(known.values()) < SLOW else 2)
    return [
        labels(system, size, device, order, name)
        | measured[name]
        | {"floor_s": limits.floor(device, trained.way.dtype, Work(work)), "difference": apart[name]}
        for name, trained in made.items()
    ]


# -------------------------------------------------------------------------------------------------------------- memory


def in_subprocess(system: Any, size: Any, device: str, order: str) -> list[dict[str, Any]]:
    """Return records of the extra memory of each way, with ``extra_bytes`` or the ``reason`` for which there is none.

    It is what a call takes at its peak beyond what stays: weights, gradients, optimizer, batch; see `memory`.
    """
    command = [sys.executable, __file__, system.__name__, device, size.name, order]
    environment = os.environ | {
        "MALLOC_MMAP_THRESHOLD_": "65536",  # freed blocks go back at once, so that the peak is of what is alive
        "PYTHONPATH": str(Path(fastpose.__file__).parents[1]),
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"memory of {system.__name__}, {size.name}, {order} on {device}: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def measure_memory(system: Any, size: Any, device: str, order: str) -> list[dict[str, Any]]:
    """Return the records, measured in this process; no way is made before the one before it is gone."""
    torch.set_num_threads(machine.threads())
    records = []
    for provider, way in ways(system, size, device, order).items():
        named = labels(system, size, device, order, provider)
        records.append(named | _extra(system.build(size, device, way).call(order), device))
        gc.collect()
    return records


def _extra(call: Callable[[], Any], device: str) -> dict[str, Any]:
    call()  # gradients, optimizer, libraries, threads and arranged weights take their memory
    try:
        before = memory.restart(device)
    except NotSupported as reason:
        return {"reason": str(reason)}
    call()
    return {"extra_bytes": max(memory.peak(device) - before, 0)}


def main(arguments: list[str], show: Callable[[str], object] = print) -> None:
    """Print the records as JSON."""
    module, device, name, order = arguments
    system: Any = importlib.import_module(module)
    size = next(size for size in system.SIZES if size.name == name)
    show(json.dumps(measure_memory(system, size, device, order)))


if __name__ == "__main__":
    main(sys.argv[1:])
