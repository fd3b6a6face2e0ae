"""Copies of networks that only infer, and do it faster: layers folded into one another, weights arranged once."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from fastpose.models import multiscale, pona
from fastpose.nn.fused_convolution import FusedConvolution

DTYPES = (torch.float32, torch.bfloat16)


def for_inference(network: nn.Module, *, dtype: torch.dtype | None = None) -> nn.Module:
    """Return a copy of a network that only infers: the same inputs, the same outputs within 1e-4, in less time.

    On the CPU the generators of systems 001 and 003 gain most: convolutions take batch norm, rectifiers and sums into
    themselves and their weights into the order of the processor, those of 3x3 with many channels a quarter of the
    multiplications, and maps are channels-last throughout. Other networks are rewritten where they have such layers;
    what is not known stays as it is. ``dtype=torch.bfloat16`` computes in that type, with two to three digits; outputs
    keep the type of the inputs. The copy shares nothing with the network, needs several times its memory, gives no
    gradient and refuses training mode. Weights are arranged at the first call and serve every size.
    Raises ``TypeError`` for what is no network or is such a copy, ``ValueError`` for another ``dtype``.
    """
    if not isinstance(network, nn.Module) or isinstance(network, Inference):
        raise TypeError(f"network: expected a network as models.create makes it, got {type(network).__name__}")
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"dtype: expected None, torch.float32 or torch.bfloat16, got {dtype}")
    own = copy.deepcopy(network).eval().requires_grad_(False)
    with torch.no_grad():
        own = _rewritten(own)
    return Inference(own if dtype is None else own.to(dtype), dtype)


class Inference(nn.Module):
    """A rewritten network in evaluation mode: its inputs -> its outputs, without gradient."""

    def __init__(self, network: nn.Module, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.network = network
        self.dtype = dtype
        self.eval()

    def train(self, mode: bool = True) -> Inference:
        """Stay in evaluation mode; raises ``ValueError`` when asked for another."""
        if mode:
            raise ValueError("mode: expected False, got True; train the network that this copy was made from")
        return super().train(False)

    def forward(self, *inputs: Tensor) -> Any:
        with torch.no_grad():
            outputs = self.network(*(self._taken(tensor) for tensor in inputs))
        return _given(outputs, inputs[0].dtype)

    def _taken(self, tensor: Tensor) -> Tensor:
        """An input in the order and type of the computation; what has neither is left to the network to judge."""
        if not (isinstance(tensor, Tensor) and tensor.is_floating_point()):
            return tensor
        tensor = tensor if self.dtype is None else tensor.to(self.dtype)
        return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


class Sum(nn.Module):
    """``x + body(x)`` with the sum inside the body's last layer."""

    def __init__(self, body: nn.Sequential) -> None:
        super().__init__()
        self.first, self.last = body[:-1], body[-1]

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x), x)


def _given(outputs: Any, dtype: torch.dtype) -> Any:
    """Outputs, alone or in a list or tuple, in the usual order and the type of the inputs."""
    if isinstance(outputs, Tensor):
        return outputs.to(dtype).contiguous()
    if isinstance(outputs, list | tuple):
        return type(outputs)(_given(output, dtype) for output in outputs)
    return outputs


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
    if type(module) not in (pona.Residual, multiscale.Residual):
        return module
    body = module.body
    if isinstance(body, nn.Sequential) and isinstance(body[-1], FusedConvolution):
        return Sum(body).eval()
    return module


REWRITES = (_convolution, _sequence, _sum)
"""From a module to what takes its place, which is the module itself where the rewrite does not apply."""
