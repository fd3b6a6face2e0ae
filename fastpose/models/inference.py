"""Copies of networks that only infer, and do it faster: layers folded into one another, weights arranged once."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from fastpose.nn.fused_convolution import FusedConvolution
from fastpose.nn.hourglass import Merge
from fastpose.nn.residual import Residual, ResidualSum

DTYPES = (torch.float32, torch.bfloat16)
ROOMS = ("torch.nn.", "fastpose.nn.", "fastpose.models.")
"""Where the kinds of modules stand of which it is known that they only call their parts."""


def for_inference(network: nn.Module, *, dtype: torch.dtype | None = None) -> nn.Module:
    """Return a copy of a network that only infers: the same inputs, the same outputs but for rounding, in less time.

    On the CPU the generators of systems 001 and 003 gain most: convolutions take batch norm, rectifiers and sums into
    themselves and their weights into the order of the processor, those of 3x3 with many channels a quarter of the
    multiplications, and maps are channels-last throughout. At the published sizes their images, in -1..1, differ in
    float32 by 2e-4 at most. ``dtype=torch.bfloat16`` computes in that type, with one to two digits; outputs keep the
    type of the inputs. Only networks made of PyTorch's layers and of those in ``fastpose.nn`` and ``fastpose.models``,
    each in one place and without hooks, are rewritten; of others the copy is a plain one in evaluation mode.
    The copy shares nothing with the network, needs several times its memory, gives no gradient and refuses training
    mode and other weights. Weights are arranged at the first call and serve every size.
    Raises ``TypeError`` for what is no network or is such a copy, ``ValueError`` for another ``dtype``.
    """
    if not isinstance(network, nn.Module) or isinstance(network, Inference):
        raise TypeError(f"network: expected a network as models.create makes it, got {type(network).__name__}")
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"dtype: expected None, torch.float32 or torch.bfloat16, got {dtype}")
    own = copy.deepcopy(network).eval().requires_grad_(False)
    known = _known(own)
    if known:
        with torch.no_grad():
            own = _rewritten(own)
    return Inference(own if dtype is None else own.to(dtype), channels_last=known)


class Inference(nn.Module):
    """A network in evaluation mode, rewritten or not: its inputs -> its outputs, without gradient.

    It computes in the number type of its weights, whatever that of the inputs is, and gives outputs, alone or in a
    list, tuple or dict, in that of the inputs.
    """

    def __init__(self, network: nn.Module, *, channels_last: bool) -> None:
        super().__init__()
        self.network = network
        self.channels_last = channels_last
        self.eval()

    def train(self, mode: bool = True) -> Inference:
        """Stay in evaluation mode; raises ``ValueError`` when asked for another."""
        if mode:
            raise ValueError("mode: expected False, got True; train the network that this copy was made from")
        return super().train(False)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> NoReturn:
        """Raise ``ValueError``: the layers of a copy are no longer those of the network."""
        raise ValueError(
            "state_dict: expected none, since a copy that only infers keeps its weights; "
            "load them into the network and make another copy"
        )

    def forward(self, *inputs: Tensor) -> Any:
        dtype = _dtype(chain(self.network.buffers(), self.network.parameters()))
        with torch.no_grad():
            outputs = self.network(*(self._taken(tensor, dtype) for tensor in inputs))
        return _given(outputs, _dtype(inputs))

    def _taken(self, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
        """An input in the order and type of the computation; what has neither is left to the network to judge."""
        if not _is_floating(tensor):
            return tensor
        tensor = tensor.to(dtype or tensor.dtype)
        in_order = self.channels_last and tensor.dim() == 4
        return tensor.contiguous(memory_format=torch.channels_last) if in_order else tensor


class Sum(nn.Module):
    """``skip(x) + body(x)`` with the sum inside the body's last layer."""

    def __init__(self, body: nn.Sequential, skip: nn.Module) -> None:
        super().__init__()
        self.first, self.last, self.skip = body[:-1], body[-1], skip

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x), self.skip(x))


class MergedSum(nn.Module):
    """A `Merge` with both of its sums inside its convolutions."""

    def __init__(self, merge: Merge) -> None:
        super().__init__()
        self.features, self.heatmaps = merge.features, merge.heatmaps

    def forward(self, x: Tensor, features: Tensor, heatmaps: Tensor) -> Tensor:
        return self.heatmaps(heatmaps, self.features(features, x))


def _is_floating(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _dtype(values: Iterable[Any]) -> torch.dtype | None:
    """The type of the first tensor of floating-point numbers; None if there is none."""
    return next((value.dtype for value in values if _is_floating(value)), None)


def _given(outputs: Any, dtype: torch.dtype | None) -> Any:
    """Outputs, alone or in a list, tuple or dict, in the usual order and the type of the inputs."""
    if _is_floating(outputs):
        return outputs.to(dtype or outputs.dtype).contiguous()
    if type(outputs) in (list, tuple):
        return type(outputs)(_given(output, dtype) for output in outputs)
    if type(outputs) is dict:
        return {key: _given(output, dtype) for key, output in outputs.items()}
    return outputs


def _known(network: nn.Module) -> bool:
    """Whether all modules are of known kinds, each in one place and without hooks: only then a rewrite is the same."""
    places = [module for _, module in network.named_modules(remove_duplicate=False)]
    return len(places) == len(set(places)) and all(
        type(module).__module__.startswith(ROOMS) and not (module._forward_hooks or module._forward_pre_hooks)
        for module in places
    )


def _rewritten(module: nn.Module) -> nn.Module:
    """The module after all rewrites, its parts first."""
    for name, child in module.named_children():
        setattr(module, name, _rewritten(child))
    for rewrite in REWRITES:
        module = rewrite(module)
    return module


def _convolution(module: nn.Module) -> nn.Module:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and FusedConvolution.takes(module):
        return FusedConvolution(module)
    return module


def _sequence(module: nn.Module) -> nn.Module:
    """What each convolution can do for the layers behind it is done there; dropout does nothing now."""
    if type(module) is not nn.Sequential:
        return module
    layers: list[nn.Module] = []
    for layer in module:
        before = layers[-1] if layers else None
        joined = isinstance(before, FusedConvolution) and before.append(layer)
        if not (joined or isinstance(layer, nn.Dropout)):
            layers.append(layer)
    return nn.Sequential(*layers).eval()


def _sum(module: nn.Module) -> nn.Module:
    if type(module) not in (Residual, ResidualSum):
        return module
    body, skip = module.body, getattr(module, "skip", None)
    if isinstance(body, nn.Sequential) and len(body) and isinstance(body[-1], FusedConvolution):
        return Sum(body, nn.Identity() if skip is None else skip).eval()
    return module


def _merge(module: nn.Module) -> nn.Module:
    return MergedSum(module).eval() if type(module) is Merge else module


REWRITES = (_convolution, _sequence, _sum, _merge)
"""From a module to what takes its place, which is the module itself where the rewrite does not apply."""
