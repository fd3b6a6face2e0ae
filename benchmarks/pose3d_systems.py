"""System 002: inference and a step of adversarial losses, beside the same networks written the usual way.

The usual way renders its targets to memory with plain PyTorch, finds coordinates by a softmax over a grid of positions
and broadcasts the descriptor. Both share weights and the order of updates (eq. 3, then eq. 5); ours infers with
`models.for_inference`, "reference folded" does what PyTorch's own functions make of batch norm after convolutions. The
step is the arithmetic of the trainer's, without what it hides from the critic: every second sample is real to it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.flop_counter import FlopCounterMode

from fastpose import losses, models, ops
from fastpose.benchmark import baselines
from fastpose.benchmark.results_file import REFERENCE
from fastpose.nn import coordinates

SIGMA, LAMBDA, TEMPERATURE = 1.0, 1e-4, coordinates.TEMPERATURE
FOLDED = "reference folded"
PROVIDERS = {"forward": (REFERENCE, FOLDED, "fastpose"), "training step": (REFERENCE, "fastpose")}
LIMIT = 1e-4
"""By how much heatmaps, depths and losses may differ from the usual way's; sums in another order do by 2e-6."""


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
    prepare: Callable[[nn.Module, Tensor], nn.Module]


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


def folded(network: nn.Module, image: Tensor) -> nn.Module:
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
        network(image)
    for handle in handles:
        handle.remove()
    names = {module: name for name, module in network.named_modules()}
    for norm, convolution in pairs.items():
        network.set_submodule(names[convolution], fuse_conv_bn_eval(convolution, norm))
        network.set_submodule(names[norm], nn.Identity())
    return network


def verdict(logits: Tensor, wanted: float) -> Tensor:
    """Return the log loss of a critic's logits; `losses.gan_loss` is the same, but not for tensors without numbers."""
    return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, wanted))


USUAL = Ways(
    lambda points, size: baselines.render_separable((points,), size=size, sigma=SIGMA),
    lambda heatmaps, points, target: torch.stack([functional.mse_loss(h, target) for h in heatmaps]).sum(),
    usual_joints,
    lambda heatmaps: baselines.decode_quarter((heatmaps,)),
    lambda network, image: network,
)
OURS = Ways(
    lambda points, size: ops.render_gaussian_heatmaps(points, size, SIGMA),
    lambda heatmaps, points, target: losses.pose_loss(heatmaps, points, SIGMA),
    coordinates.joints_3d,
    lambda heatmaps: ops.decode_heatmaps(heatmaps, method="quarter")[0],
    lambda network, image: models.for_inference(network),
)
WAYS = {REFERENCE: USUAL, FOLDED: replace(USUAL, prepare=folded), "fastpose": OURS}


@dataclass(frozen=True)
class Trained:
    """Networks with their optimizers, a batch of which half has 3D truth, and the operations that differ."""

    generator: nn.Module
    critic: nn.Module
    optimizers: tuple[torch.optim.Optimizer, torch.optim.Optimizer]
    image: Tensor
    keypoints: Tensor
    depth: Tensor
    ways: Ways

    def call(self, order: str) -> Callable[[], Any]:
        """Return what is timed under the name of an order: "forward" or "training step"."""
        for network in (self.generator, self.critic):
            network.train(order != "forward")
        return partial(self.infer, self.prepared()) if order == "forward" else self.step

    def prepared(self) -> nn.Module:
        """Return the network that infers."""
        return self.ways.prepare(self.generator.eval(), self.image)

    @torch.no_grad()
    def infer(self, network: nn.Module) -> tuple[Tensor, Tensor]:
        """Return the joints (B, K, 2) and depths (B, K) of the batch."""
        heatmaps, depth = network(self.image)
        return self.ways.decode(heatmaps[-1]), depth

    @torch.no_grad()
    def maps(self) -> tuple[Tensor, ...]:
        """Return the heatmaps (B, K, h, w) of all stacks and the depths (B, K) of the batch."""
        heatmaps, depth = self.prepared()(self.image)
        return (*heatmaps, depth)

    def step(self) -> tuple[Tensor, Tensor]:
        """Do one iteration with the first half from the laboratory; return the losses of critic and pose network."""
        half, size = len(self.image) // 2, (self.image.shape[-2] // 4, self.image.shape[-1] // 4)
        target = self.ways.render(self.keypoints, size)  # (B, K, h, w)
        heatmaps, depth = self.generator(self.image)
        joints = self.ways.joints(heatmaps[-1], depth)  # (B, K, 3)
        truth = self.ways.joints(target, self.depth)
        real = self.critic(self.image[:half], target[:half], truth[:half])
        fake = self.critic(self.image[half:], heatmaps[-1][half:].detach(), joints[half:].detach())
        judged = verdict(real, 1) + verdict(fake, 0)
        self._update(1, judged)
        adversarial = verdict(self.critic(self.image, heatmaps[-1], joints), 1)
        pose = self.ways.heatmap_loss(heatmaps, self.keypoints, target) + functional.mse_loss(depth, self.depth)
        self._update(0, pose + LAMBDA * adversarial)
        return judged.detach(), pose.detach() + adversarial.detach()

    def _update(self, index: int, loss: Tensor) -> None:
        self.optimizers[index].zero_grad()
        loss.backward()
        self.optimizers[index].step()


def build(size: Size, device: str, provider: str) -> Trained:
    """Return the networks of one way, always with the same weights and batch."""
    torch.manual_seed(0)
    generator = models.create("pose3d.generator", **size.generator).to(device)
    critic: nn.Module = models.create("pose3d.discriminator", **size.discriminator).to(device)
    ways = WAYS[provider]
    critic = critic if ways is OURS else UsualCritic(critic)
    optimizers = tuple(torch.optim.RMSprop(network.parameters(), lr=1e-5) for network in (generator, critic))
    image = torch.rand(size.batch, 3, size.image, size.image)
    keypoints = torch.rand(size.batch, 16, 2) * (size.image // 4)
    depth = torch.rand(size.batch, 16) - 0.5
    batch = (tensor.to(device) for tensor in (image, keypoints, depth))
    return Trained(generator, critic, optimizers, *batch, ways)


def difference(size: Size, device: str, provider: str, order: str) -> float:
    """Return the largest difference of a provider's numbers from the usual way's: maps and depths, or losses."""
    built = [build(size, device, name) for name in (REFERENCE, provider)]
    for one in built:
        one.call(order)
    usual, own = ([*one.maps()] if order == "forward" else [*one.step()] for one in built)
    return max(float((first - second).abs().max()) for first, second in zip(usual, own, strict=True))


def flop(size: Size, order: str) -> float:
    """Return the floating-point operations of the usual way's convolutions and matrix products."""
    trained = build(size, "meta", REFERENCE)  # shapes without numbers
    with FlopCounterMode(display=False) as counter:
        trained.call(order)()
    return float(counter.get_total_flops())
