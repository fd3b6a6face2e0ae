"""System 004: updates of critic and generator under WGAN-GP, beside the same networks written the usual way.

The usual way renders its poses by plain PyTorch, writes the gradient penalty (Gulrajani et al. 2017) in a few lines,
stores the N x N maps of attention, and lets the generator's loss run back into the critic's weights too, as a plain
``loss.backward()`` does. Both share weights, batch, noise and optimizer. The networks have the halved widths of the
final model; with attention, on the maps of 32 x 32, the double backward of the penalty goes through it.

Beside that the 1-NN two-sample test of the evaluation: `metrics.two_sample` against blocks of torch.cdist, joint by
joint. ``python benchmarks/caption_systems.py DEVICE PROVIDER SIZE UPDATE`` prints an update's extra memory as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transfer_systems
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import fastpose
from fastpose import losses, models, ops
from fastpose.benchmark import baselines, machine, memory
from fastpose.benchmark.cases import BACKWARD, DOUBLE, Work
from fastpose.benchmark.orders import NotSupported
from fastpose.benchmark.results_file import REFERENCE
from fastpose.metrics import two_sample

OPERATION = "system 004"
STEP = "training step"
UPDATES = {"critic": DOUBLE, "generator": BACKWARD}
"""What is timed, and the order of derivative that it takes memory for."""
PROVIDERS = (REFERENCE, "fastpose")
LIMIT = 1e-4
"""By how much loss and gradients may differ from the usual way's, as a share of the loss and the largest gradient.

Sums in another order do by 4e-7.
"""

SIDE, SIGMA, PENALTY, NOISE = 64, 2.0, 10.0, 128
GENERATOR, CRITIC = (256, 128, 64, 32), (32, 64, 128, 256)
JOINTS = 17


@dataclass(frozen=True)
class Size:
    """A configuration of both networks and a batch."""

    name: str
    batch: int
    attention: bool
    generator: tuple[int, ...] = GENERATOR
    critic: tuple[int, ...] = CRITIC

    def label(self, update: str) -> str:
        """Return what an update of this size is called in a result file."""
        return f"{self.name}, update of the {update}"


SIZES = (
    Size("reduced, B=16", 16, attention=False),
    Size("reduced with attention, B=16 N=1024", 16, attention=True),
)


# ------------------------------------------------------------------------------------------------------------- updates


def usual_penalty(critic: nn.Module, real: Tensor, fake: Tensor, share: Tensor) -> Tensor:
    """Return the mean of (norm of the gradient - 1)^2 between real and made poses."""
    at = share[:, None, None, None]
    points = (at * real + (1 - at) * fake).requires_grad_()
    scores = critic(points.view_as(points))  # FlopCounterMode takes no leaf
    (gradient,) = torch.autograd.grad(scores.sum(), points, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def our_penalty(critic: nn.Module, real: Tensor, fake: Tensor, share: Tensor) -> Tensor:
    """Return the same by `losses.gradient_penalty`."""
    return losses.gradient_penalty(critic, (real,), (fake,), share=share)


def usual_maps(points: Tensor) -> Tensor:
    """Return heatmaps (B, K, 64, 64) in [-1, 1] by plain PyTorch."""
    return 2 * baselines.render_separable((points,), size=(SIDE, SIDE), sigma=SIGMA) - 1


def our_maps(points: Tensor) -> Tensor:
    """Return the same by the operation, as the trainer does."""
    return ops.render_gaussian_heatmaps(points, (SIDE, SIDE), SIGMA).mul_(2).sub_(1)


@dataclass(frozen=True)
class Trained:
    """Networks with their optimizers, a batch with its randomness, and what differs."""

    generator: nn.Module
    critic: nn.Module
    optimizers: dict[str, torch.optim.Optimizer]
    keypoints: Tensor
    noise: Tensor
    share: Tensor
    maps: Callable[[Tensor], Tensor]
    penalty: Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]
    ours: bool

    def update(self, name: str) -> Tensor:
        """Do one update of "critic" or "generator"; return its loss."""
        loss = self.gather(name)
        self.optimizers[name].step()
        return loss

    def gather(self, name: str) -> Tensor:
        """Return the loss of an update, the gradients being where the optimizer finds them."""
        self.optimizers[name].zero_grad()
        loss = self.critic_loss() if name == "critic" else -self.critic(self.generator(self.noise)).mean()
        network = self.critic if name == "critic" else self.generator
        loss.backward(inputs=list(network.parameters()) if self.ours else None)
        return loss.detach()

    def critic_loss(self) -> Tensor:
        """Return the whole loss of algorithm 3; the generator is in training mode and gets no gradient."""
        real = self.maps(self.keypoints)  # (B, K, 64, 64)
        with torch.no_grad():
            fake = self.generator(self.noise)
        distance = self.critic(fake).mean() - self.critic(real).mean()
        return distance + PENALTY * self.penalty(self.critic, real, fake, self.share)

    def numbers(self, name: str) -> tuple[Tensor, Tensor]:
        """Return the loss of an update and the gradients of its network in one row; no weight changes."""
        loss = self.gather(name)
        return loss, torch.cat([parameter.grad.flatten() for parameter in getattr(self, name).parameters()])


def build(size: Size, device: str, provider: str) -> Trained:
    """Return the networks of one way, always with the same weights and batch; on "meta" there are no numbers."""
    torch.manual_seed(0)
    networks = [
        models.create("caption.generator", widths=size.generator, self_attention=size.attention, noise=NOISE),
        models.create("caption.discriminator", widths=size.critic, self_attention=size.attention),
    ]
    for name, parameter in (pair for network in networks for pair in network.named_parameters()):
        if name.endswith("gamma"):
            nn.init.constant_(parameter, 0.5)  # as in a trained network
    ours = provider != REFERENCE
    networks = [(network if ours else transfer_systems.usual(network)).to(device).train() for network in networks]
    adam = partial(torch.optim.Adam, lr=1e-4, betas=(0.0, 0.9))
    optimizers = {name: adam(each.parameters()) for name, each in zip(("generator", "critic"), networks, strict=True)}
    batch = (torch.rand(size.batch, JOINTS, 2) * SIDE, torch.randn(size.batch, NOISE), torch.rand(size.batch))
    ways = (our_maps, our_penalty) if ours else (usual_maps, usual_penalty)
    return Trained(*networks, optimizers, *(tensor.to(device) for tensor in batch), *ways, ours)


def difference(size: Size, device: str, provider: str, update: str) -> float:
    """Return a provider's largest difference from the usual way, as a share of the loss or the largest gradient."""
    usual, own = (build(size, device, name).numbers(update) for name in (REFERENCE, provider))
    return max(
        float((first - second).abs().max() / first.abs().max()) for first, second in zip(usual, own, strict=True)
    )


def flop(size: Size, update: str) -> float:
    """Return the floating-point operations of convolutions and matrix products of the usual way.

    Of the generator's update those that run back into the critic's weights are left out: nobody needs them.
    """
    trained = build(size, "meta", REFERENCE)  # shapes without numbers
    if update == "generator":
        trained.critic.requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        trained.gather(update)
    return float(counter.get_total_flops())


# -------------------------------------------------------------------------------------------------------------- memory


def in_subprocess(device: str, provider: str, size: Size, update: str) -> dict[str, Any]:
    """Return a record of the extra memory of an update, with ``extra_bytes`` or the ``reason`` for which there is none.

    It is what one update takes at its peak beyond weights, gradients, optimizer and batch; see `memory`.
    """
    command = [sys.executable, __file__, device, provider, size.name, update]
    environment = os.environ | {
        "MALLOC_MMAP_THRESHOLD_": "65536",  # freed blocks go back at once, so that the peak is of what is alive
        "PYTHONPATH": str(Path(fastpose.__file__).parents[1]),
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"memory of {provider} on {device}: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def measure_memory(device: str, provider: str, size: Size, update: str) -> dict[str, Any]:
    """Return the record, measured in this process."""
    torch.set_num_threads(machine.threads())
    labels = {"operation": OPERATION, "size": size.label(update), "device": device, "dtype": "float32"}
    labels |= {"order": UPDATES[update], "provider": provider}
    trained = build(size, device, provider)
    trained.update(update)  # gradients, optimizer, libraries and threads take their memory
    try:
        before = memory.restart(device)
    except NotSupported as reason:
        return {**labels, "reason": str(reason)}
    trained.update(update)
    return {**labels, "extra_bytes": max(memory.peak(device) - before, 0)}


# ----------------------------------------------------------------------------------------------------- two-sample test

POSES = {"2 x 2,000 poses": 2000, "2 x 17,326 poses": 17326}
"""The sizes of the test."""
ONCE = "2 x 17,326 poses"
"""The published size: timed once and by ours alone, as the usual way takes minutes for it."""
TEST = "two_sample_accuracy"
BLOCK = 512
"""Poses that the usual way compares with all others at a time."""
TOLERANCE = 0.1
"""By how many points the accuracies may differ: poses whose two neighbours are equally far but for rounding."""


def poses(count: int, device: str) -> tuple[Tensor, Tensor]:
    """Return real and generated poses (N, K, 2): of each set a few hundred kinds, with noise."""
    generator = torch.Generator().manual_seed(0)
    kinds = 16 + 32 * torch.rand(2, 300, JOINTS, 2, generator=generator)
    sets = []
    for kind in (kinds[0], torch.cat((kinds[0, :200], kinds[1, :100]))):  # of the generated a third is made up
        chosen = torch.randint(len(kind), (count,), generator=generator)
        sets.append((kind[chosen] + 4 * torch.randn(count, JOINTS, 2, generator=generator)).to(device))
    return sets[0], sets[1]


def usual_accuracy(real: Tensor, fake: Tensor) -> float:
    """Return the accuracy in percent as one writes it down: both sets in one, blocks of rows of the distance matrix."""
    every = torch.cat((real, fake))
    label = torch.arange(len(every), device=every.device) >= len(real)
    right = 0
    for start in range(0, len(every), BLOCK):
        rows = every[start : start + BLOCK]
        distance = sum(torch.cdist(rows[:, joint], every[:, joint]) for joint in range(every.shape[1]))
        distance.diagonal(start).fill_(torch.inf)  # itself
        own = label[start : start + BLOCK, None] == label
        nearest = distance.masked_fill(~own, torch.inf).amin(1)
        right += int((nearest < distance.masked_fill(own, torch.inf).amin(1)).sum())
    return 100 * right / len(every)


def our_accuracy(real: Tensor, fake: Tensor) -> float:
    """Return the same by `metrics.two_sample`."""
    return two_sample.two_sample_accuracy(real, fake)[0].value


TESTS: dict[str, Callable[[Tensor, Tensor], float]] = {REFERENCE: usual_accuracy, "fastpose": our_accuracy}


def work(count: int) -> Work:
    """Return what a test of 2 x ``count`` poses has to do: each pair once, seven operations per joint."""
    pairs = count * (2 * count - 1)
    return Work(flop=7.0 * JOINTS * pairs)


def main(arguments: list[str], show: Callable[[str], object] = print) -> None:
    """Print the record as JSON."""
    device, provider, name, update = arguments
    size = next(size for size in SIZES if size.name == name)
    show(json.dumps(measure_memory(device, provider, size, update)))


if __name__ == "__main__":
    main(sys.argv[1:])
