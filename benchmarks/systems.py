"""System 000: inference and a training step, beside the same network written the usual way.

The usual way stores the attention map, renders its targets to memory once for loss and discriminator, and lets the
generator's loss run back into the discriminator's weights too. All ways share weights, batch and the order of updates
(Algorithm 1 of the paper); `whole_systems` names them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import whole_systems
from torch import Tensor, nn
from torch.nn import functional
from whole_systems import Way

from fastpose import losses, models, ops
from fastpose.benchmark import baselines
from fastpose.nn.self_attention import SelfAttention

OPERATION = "system 000"
SIGMA = 1.0
LAMBDA_G, LAMBDA_D = 0.1, 0.5
SOFTER = 0.1
"""On the weights of queries: of a new network's saturated softmax most is denormal numbers, on which the usual way
takes three times as long again."""


@dataclass(frozen=True, eq=False)
class Size:
    """A configuration: Ours-C of the paper, or the one that ``fastpose demo`` trains."""

    name: str
    batch: int
    image: int
    generator: dict[str, Any]
    discriminator: dict[str, Any]


SIZES = (
    Size("Ours-C, B=1, 256x256", 1, 256, {}, {"sarm": "B"}),
    Size("demo, B=8, 128x128", 8, 128, {"stacks": 2, "modules": 1, "width": 48}, {"sarm": "B", "width": 32}),
)


class UsualAttention(nn.Module):
    """The attention of `SelfAttention` with its map stored, by plain PyTorch."""

    def __init__(self, learned: SelfAttention) -> None:
        super().__init__()
        self.learned = learned

    def forward(self, x: Tensor, value: Tensor) -> Tensor:
        query, key = (tensor.flatten(2) for tensor in self.learned.query_and_key(x))  # (B, Ck, N)
        weights = torch.softmax(query.mT @ key, dim=-1)  # (B, N, N)
        return (value.flatten(2) @ weights.mT).unflatten(2, x.shape[2:])

    def add(self, x: Tensor, value: Tensor, residual: Tensor, gamma: Tensor) -> Tensor:
        """Return residual + gamma * attention."""
        return residual + gamma * self(x, value)


def usual(network: nn.Module) -> nn.Module:
    """Return a copy of a network with every attention written the usual way."""
    network = copy.deepcopy(network)
    for module in list(network.modules()):
        if isinstance(getattr(module, "attention", None), SelfAttention):
            module.attention = UsualAttention(module.attention)
    return network


@dataclass(frozen=True)
class Ways:
    """The operations that differ."""

    render: Callable[[Tensor, Sequence[int]], Tensor]
    pose_loss: Callable[[Sequence[Tensor], Tensor, Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]


USUAL = Ways(
    lambda points, size: baselines.render_separable((points,), size=size, sigma=SIGMA),
    lambda heatmaps, points, target: torch.stack([functional.mse_loss(h, target) for h in heatmaps]).sum(),
    lambda heatmaps: baselines.decode_quarter((heatmaps,)),
)
OURS = Ways(
    lambda points, size: ops.render_gaussian_heatmaps(points, size, SIGMA),
    lambda heatmaps, points, target: losses.pose_loss(heatmaps, points, SIGMA),
    lambda heatmaps: ops.decode_heatmaps(heatmaps, method="quarter")[0],
)


@dataclass(frozen=True)
class Trained(whole_systems.Trained):
    """Generator and discriminator of system 000."""

    keypoints: Tensor
    ways: Ways

    def infer(self, network: nn.Module) -> Tensor:
        """Return the joints (B, K, 2) of the batch."""
        return self.ways.decode(network(self.image)[-1])

    def maps(self, network: nn.Module) -> tuple[Tensor, ...]:
        """Return the heatmaps (B, K, h, w) of all stacks."""
        return tuple(network(self.image))

    def step(self) -> tuple[Tensor, ...]:
        """Do one iteration of Algorithm 1 with a constant lambda_D; return its losses."""
        generator, discriminator = self.networks
        mse = functional.mse_loss
        with self.autocast():
            real = self.ways.render(self.keypoints, [side // 4 for side in self.image.shape[2:]])  # (B, K, h, w)
            predictions = generator(self.image)
            fake = predictions[-1].detach()
            real_loss = mse(discriminator(real, self.image), real)
            fake_loss = mse(discriminator(fake, self.image), fake)
        self.update(1, real_loss - LAMBDA_D * fake_loss)
        with self.autocast():
            adversarial = mse(discriminator(predictions[-1], self.image), fake)
            pose = self.ways.pose_loss(predictions, self.keypoints, real)
        self.update(0, pose + LAMBDA_G * adversarial)
        return real_loss.detach(), fake_loss.detach(), pose.detach(), adversarial.detach()


def build(size: Size, device: str, way: Way) -> Trained:
    """Return the networks of one way, always with the same weights and batch."""
    torch.manual_seed(0)
    networks = [
        models.create("sagan.generator", **size.generator),
        models.create("sagan.discriminator", **size.discriminator),
    ]
    for name, parameter in (pair for network in networks for pair in network.named_parameters()):
        if name.endswith("gamma"):
            nn.init.constant_(parameter, 0.5)  # as in a trained network
        if name.endswith("query.weight"):
            parameter.data.mul_(SOFTER)
    networks = [usual(network) for network in networks] if way.usual else networks
    image, keypoints = torch.rand(size.batch, 3, size.image, size.image), torch.rand(size.batch, 16, 2)
    placed, image = whole_systems.placed(networks, image, device, way)
    optimizers = tuple(torch.optim.RMSprop(network.parameters(), lr=1e-7) for network in placed)
    points = (keypoints * (size.image // 4)).to(device)
    return Trained(placed, optimizers, image, way, points, USUAL if way.usual else OURS)
