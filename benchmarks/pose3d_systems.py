"""System 002: inference and a step of adversarial losses, beside the same networks written the usual way.

The usual way renders its targets to memory with plain PyTorch, finds coordinates by a softmax over a grid of positions
and broadcasts the descriptor. All ways share weights, batch and the order of updates (eq. 3, then eq. 5); they are
named in `whole_systems`. The step is the arithmetic of the trainer's, without what it hides from the critic: every
second sample is real to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import whole_systems
from torch import Tensor, nn
from torch.nn import functional
from whole_systems import Way

from fastpose import losses, models, ops
from fastpose.benchmark import baselines
from fastpose.nn import coordinates

OPERATION = "system 002"
SIGMA, LAMBDA, TEMPERATURE = 1.0, 1e-4, coordinates.TEMPERATURE


@dataclass(frozen=True, eq=False)
class Size:
    """A configuration: the paper's two stacks with all sources, or one that two CPU cores train."""

    name: str
    batch: int
    image: int
    generator: dict[str, Any]
    discriminator: dict[str, Any]


SIZES = (
    Size("Full-2s, B=2, 256x256", 2, 256, {}, {}),
    Size("small, B=12, 128x128", 12, 128, {"width": 48}, {"width": 32, "hidden": 64}),
)


class UsualCritic(nn.Module):
    """A `pose3d.discriminator` whose descriptor is broadcast by plain PyTorch."""

    def __init__(self, critic: Any) -> None:
        super().__init__()
        self.critic = critic

    def forward(self, image: Tensor, heatmaps: Tensor, joints: Tensor) -> Tensor:
        seen = {
            "image": lambda: image,
            "geometry": lambda: baselines.descriptor_broadcast((joints,)),
            "maps": lambda: torch.cat((heatmaps, self.critic.depth_maps(heatmaps, joints)), dim=1),
        }
        codes = [embed(seen[source]()) for source, embed in self.critic.embeddings.items()]
        return self.critic.head(torch.cat(codes, dim=1)).squeeze(1)


@dataclass(frozen=True)
class Ways:
    """The operations that differ."""

    render: Callable[[Tensor, tuple[int, int]], Tensor]
    heatmap_loss: Callable[[list[Tensor], Tensor, Tensor], Tensor]
    joints: Callable[[Tensor, Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]


def usual_joints(heatmaps: Tensor, depth: Tensor) -> Tensor:
    """Return the joints (B, K, 3) of a soft arg-max about the maximum in plain PyTorch."""
    height, width = heatmaps.shape[-2:]
    peak, place = heatmaps.flatten(2).max(dim=-1)  # (B, K)
    columns, rows = (torch.arange(length, device=heatmaps.device) for length in (width, height))
    across = (columns - (place % width)[..., None]).abs() <= coordinates.REACH  # (B, K, W)
    down = (rows - (place // width)[..., None]).abs() <= coordinates.REACH  # (B, K, H)
    even = heatmaps / peak[..., None, None].clamp(min=coordinates.FAINT)
    near = (even / TEMPERATURE).masked_fill(~(down[..., None] & across[..., None, :]), -torch.inf)
    weights = torch.softmax(near.flatten(2), dim=-1).unflatten(2, (height, width))
    x = (weights.sum(2) * columns).sum(-1)  # (B, K)
    y = (weights.sum(3) * rows).sum(-1)
    return torch.stack((2 * x / width - 1, 2 * y / height - 1, depth), dim=-1)


def verdict(logits: Tensor, wanted: float) -> Tensor:
    """Return the log loss of a critic's logits; `losses.gan_loss` is the same, but not for tensors without numbers."""
    return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, wanted))


USUAL = Ways(
    lambda points, size: baselines.render_separable((points,), size=size, sigma=SIGMA),
    lambda heatmaps, points, target: torch.stack([functional.mse_loss(h, target) for h in heatmaps]).sum(),
    usual_joints,
    lambda heatmaps: baselines.decode_quarter((heatmaps,)),
)
OURS = Ways(
    lambda points, size: ops.render_gaussian_heatmaps(points, size, SIGMA),
    lambda heatmaps, points, target: losses.pose_loss(heatmaps, points, SIGMA),
    coordinates.joints_3d,
    lambda heatmaps: ops.decode_heatmaps(heatmaps, method="quarter")[0],
)


@dataclass(frozen=True)
class Trained(whole_systems.Trained):
    """Pose network and critic of system 002 with a batch of which half has 3D truth."""

    keypoints: Tensor
    depth: Tensor
    ways: Ways

    def infer(self, network: nn.Module) -> tuple[Tensor, Tensor]:
        """Return the joints (B, K, 2) and depths (B, K) of the batch."""
        heatmaps, depth = network(self.image)
        return self.ways.decode(heatmaps[-1]), depth

    def maps(self, network: nn.Module) -> tuple[Tensor, ...]:
        """Return the heatmaps (B, K, h, w) of all stacks and the depths (B, K) of the batch."""
        heatmaps, depth = network(self.image)
        return (*heatmaps, depth)

    def step(self) -> tuple[Tensor, ...]:
        """Do one iteration with the first half from the laboratory; return its losses."""
        half, size = len(self.image) // 2, (self.image.shape[-2] // 4, self.image.shape[-1] // 4)
        generator, critic = self.networks
        with self.autocast():
            target = self.ways.render(self.keypoints, size)  # (B, K, h, w)
            heatmaps, depth = generator(self.image)
            last, depth = heatmaps[-1].to(self.image.dtype), depth.to(self.image.dtype)
            joints = self.ways.joints(last, depth)  # (B, K, 3)
            truth = self.ways.joints(target, self.depth)
            real = critic(self.image[:half], target[:half], truth[:half])
            fake = critic(self.image[half:], last[half:].detach(), joints[half:].detach())
            judged = verdict(real, 1) + verdict(fake, 0)
        self.update(1, judged)
        with self.autocast():
            adversarial = verdict(critic(self.image, last, joints), 1)
            pose = self.ways.heatmap_loss(heatmaps, self.keypoints, target) + functional.mse_loss(depth, self.depth)
        self.update(0, pose + LAMBDA * adversarial)
        return judged.detach(), pose.detach(), adversarial.detach()


def build(size: Size, device: str, way: Way) -> Trained:
    """Return the networks of one way, always with the same weights and batch."""
    torch.manual_seed(0)
    generator = models.create("pose3d.generator", **size.generator)
    critic: nn.Module = models.create("pose3d.discriminator", **size.discriminator)
    critic = UsualCritic(critic) if way.usual else critic
    image = torch.rand(size.batch, 3, size.image, size.image)
    keypoints = torch.rand(size.batch, 16, 2) * (size.image // 4)
    depth = torch.rand(size.batch, 16) - 0.5
    networks, image = whole_systems.placed([generator, critic], image, device, way)
    optimizers = tuple(torch.optim.RMSprop(network.parameters(), lr=1e-7) for network in networks)
    ways = USUAL if way.usual else OURS
    return Trained(networks, optimizers, image, way, keypoints.to(device), depth.to(device), ways)
