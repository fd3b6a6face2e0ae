"""Systems 001 and 003: a generator's inference as `models.for_inference` does it, beside the same network as it is.

The usual way is the network in plain PyTorch with the attention map stored. All providers share weights and inputs.
Floors count its products: 3x3 convolutions by tiles need fewer, so a share of the limit may exceed 100 %.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fastpose import models
from fastpose.benchmark.results_file import REFERENCE
from fastpose.nn.nonlocal_block import NonLocalBlock

LIMIT = 2e-4
"""By how much images in -1..1 may differ in float32 from the usual way's; another order of sums alone does by 8e-5."""
SHARES = {"fastpose": 1e-4, "fastpose bf16": 0.2}
"""How large the root mean square of a provider's difference may be, as a share of the images' standard deviation."""
SPREAD = 0.5
"""Standard deviation of what goes into the last tanh; that of the images is then about 0.4."""


@dataclass(frozen=True)
class Size:
    """A published generator at one size of input."""

    name: str
    operation: str
    network: str
    batch: int
    image: tuple[int, int]


SIZES = (
    Size("PoNA-3, B=1, 256x176", "system 001", "pona.generator", 1, (256, 176)),
    Size("PoNA-3, B=8, 128x64", "system 001", "pona.generator", 8, (128, 64)),
    Size("multi-scale, B=1, 256x256", "system 003", "multiscale.generator", 1, (256, 256)),
)


class UsualBlock(nn.Module):
    """The attention of `NonLocalBlock` with its map stored, by plain PyTorch."""

    def __init__(self, learned: NonLocalBlock) -> None:
        super().__init__()
        self.learned = learned

    def forward(self, x: Tensor, guide: Tensor | None = None) -> Tensor:
        learned, guide = self.learned, x if guide is None else guide
        query, key, value = (
            tensor.flatten(2) for tensor in (learned.query(guide), learned.key(guide), learned.value(x))
        )
        weights = torch.softmax(query.mT @ key, dim=-1)  # (B, N, N)
        out = learned.gamma * (value @ weights.mT).unflatten(2, x.shape[2:]) + x
        return out if learned.beta is None else out + learned.beta * x


def usual(network: nn.Module) -> nn.Module:
    """Return a copy of a network with every attention written the usual way."""
    network = copy.deepcopy(network)
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, NonLocalBlock):
                setattr(module, name, UsualBlock(child))
    return network


PROVIDERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    REFERENCE: usual,
    "fastpose": models.for_inference,
    "fastpose bf16": partial(models.for_inference, dtype=torch.bfloat16),
}
BFLOAT16 = ("fastpose bf16",)


@dataclass(frozen=True)
class Built:
    """A network in evaluation mode and what it is given."""

    network: nn.Module
    inputs: tuple[Tensor, Tensor]

    def call(self, provider: str) -> Callable[[], Tensor]:
        """Return what is timed: one inference by this provider, its network made ready before."""
        network = PROVIDERS[provider](self.network)
        return torch.no_grad()(lambda: network(*self.inputs))

    @cached_property
    def usual(self) -> Tensor:
        """The images of the usual way."""
        return self.call(REFERENCE)()

    def difference(self, images: Tensor) -> tuple[float, float]:
        """Return the largest difference from the usual way, and the root mean square as a share of the spread."""
        difference = images - self.usual
        return float(difference.abs().max()), float(difference.square().mean().sqrt() / self.usual.std())


def build(size: Size, device: str) -> Built:
    """Return the network of a size, always with the same weights, and its inputs; on "meta" there are no numbers."""
    torch.manual_seed(0)
    network = models.create(size.network).eval()
    image = 2 * torch.rand(size.batch, 3, *size.image) - 1
    poses = (torch.rand(size.batch, 36, *size.image) > 0.999).float()
    if device != "meta":
        settle(network, (image, poses))
    return Built(network.to(device), (image.to(device), poses.to(device)))


@torch.no_grad()
def settle(network: nn.Module, inputs: tuple[Tensor, Tensor]) -> None:
    """Make a new network like a trained one: scalars off zero, statistics of its maps, images that are not all grey."""
    for name, parameter in network.named_parameters():
        if name.endswith(("gamma", "beta")):
            nn.init.constant_(parameter, 0.5)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean over all batches, of which there is one
            module.train()
    network(*inputs)
    network.eval()
    last = [module for module in network.modules() if isinstance(module, nn.Conv2d)][-1]
    scale = SPREAD / torch.atanh(network(*inputs)).std()
    for parameter in last.parameters():
        parameter.mul_(scale)


def flop(size: Size) -> float:
    """Return the floating-point operations of the usual way's convolutions and matrix products."""
    with FlopCounterMode(display=False) as counter:
        build(size, "meta").call(REFERENCE)()  # shapes without numbers
    return float(counter.get_total_flops())
