"""System 000: inference and a training step, beside the same network written the usual way.

The usual way stores the attention map, and renders its targets to memory once for loss and discriminator. Both share
weights, convolutions and the order of updates (Algorithm 1 of the paper); the attention and heatmap operations differ.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from fastpose import losses, models, ops
from fastpose.benchmark import baselines
from fastpose.benchmark.results_file import REFERENCE
from fastpose.nn.self_attention import SelfAttention

SIGMA = 1.0
LAMBDA_G, LAMBDA_D = 0.1, 0.5


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


def usual_pose_loss(predictions: Sequence[Tensor], keypoints: Tensor, target: Tensor) -> Tensor:
    """Return the sum over stacks of mse_loss."""
    return torch.stack([functional.mse_loss(prediction, target) for prediction in predictions]).sum()


def our_pose_loss(predictions: Sequence[Tensor], keypoints: Tensor, target: Tensor) -> Tensor:
    """Return the fused loss of all stacks; the target is not read."""
    return losses.pose_loss(predictions, keypoints, SIGMA)


@dataclass(frozen=True)
class Trained:
    """Networks with their optimizers, a batch, and the operations that differ."""

    generator: nn.Module
    discriminator: nn.Module
    optimizers: tuple[torch.optim.Optimizer, torch.optim.Optimizer]
    image: Tensor
    keypoints: Tensor
    render: Callable[[Tensor], Tensor]
    pose_loss: Callable[[Sequence[Tensor], Tensor, Tensor], Tensor]

    def call(self, order: str) -> Callable[[], Any]:
        """Return what is timed under the name of an order: "forward" or "training step"."""
        for network in (self.generator, self.discriminator):
            network.train(order != "forward")
        return self.infer if order == "forward" else self.step

    def infer(self) -> Tensor:
        """Return the joints (B, K, 2) of the batch."""
        with torch.no_grad():
            return baselines.decode_argmax((self.generator(self.image)[-1],))

    def step(self) -> None:
        """Do one iteration of Algorithm 1 with a constant lambda_D."""
        mse = functional.mse_loss
        real = self.render(self.keypoints)
        predictions = self.generator(self.image)
        fake = predictions[-1].detach()
        real_loss = mse(self.discriminator(real, self.image), real)
        fake_loss = mse(self.discriminator(fake, self.image), fake)
        self._update(1, real_loss - LAMBDA_D * fake_loss)
        adversarial = mse(self.discriminator(predictions[-1], self.image), fake)
        self._update(0, self.pose_loss(predictions, self.keypoints, real) + LAMBDA_G * adversarial)

    def _update(self, index: int, loss: Tensor) -> None:
        self.optimizers[index].zero_grad()
        loss.backward()
        self.optimizers[index].step()


def build(size: Size, device: str, provider: str) -> Trained:
    """Return the networks of one way, always with the same weights and batch."""
    torch.manual_seed(0)
    networks = [
        models.create("sagan.generator", **size.generator),
        models.create("sagan.discriminator", **size.discriminator),
    ]
    for name, parameter in (pair for network in networks for pair in network.named_parameters()):
        if name.endswith("gamma"):
            nn.init.constant_(parameter, 0.5)  # as in a trained network
    if provider == REFERENCE:
        networks = [usual(network) for network in networks]
    networks = [network.to(device) for network in networks]
    plane = size.image // 4
    image, keypoints = torch.rand(size.batch, 3, size.image, size.image), torch.rand(size.batch, 16, 2) * plane

    def usual_render(points: Tensor) -> Tensor:
        return baselines.render_separable((points,), size=(plane, plane), sigma=SIGMA)

    def our_render(points: Tensor) -> Tensor:
        return ops.render_gaussian_heatmaps(points, (plane, plane), SIGMA)

    ours = provider != REFERENCE
    optimizers = tuple(torch.optim.RMSprop(network.parameters(), lr=1e-5) for network in networks)
    ways = (our_render, our_pose_loss) if ours else (usual_render, usual_pose_loss)
    return Trained(*networks, optimizers, image.to(device), keypoints.to(device), *ways)


def flop(size: Size, order: str) -> float:
    """Return the floating-point operations of the usual way's convolutions and matrix products."""
    trained = build(size, "meta", REFERENCE)  # shapes without numbers
    with FlopCounterMode(display=False) as counter:
        trained.call(order)()
    return float(counter.get_total_flops())
