"""What the tests of pose transfer's trainers share: batches, plain gradient descent, an update that watches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastpose import ops
from fastpose.nn import backbones
from fastpose.training import transfer_data
from fastpose.training.phases import Update

LR = 0.05


def write_vgg(folder: Path) -> Path:
    """Write a file of VGG-19 as torchvision does, with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = backbones.create("vgg19").state_dict()
    torch.save(state, folder / "vgg19.pth")
    return folder / "vgg19.pth"


def with_sgd(trainer: Any, lr: float = LR) -> Any:
    """Plain gradient descent: the change of a weight is its gradient."""
    trainer.optimizers = {name: torch.optim.SGD(n.parameters(), lr=lr) for name, n in trainer.networks.items()}
    return trainer


def descend(network: nn.Module, loss: Tensor) -> None:
    """Take the step of plain gradient descent by hand."""
    gradients = torch.autograd.grad(loss, list(network.parameters()), retain_graph=True, allow_unused=True)
    with torch.no_grad():
        for parameter, gradient in zip(network.parameters(), gradients, strict=True):
            if gradient is not None:
                parameter -= LR * gradient


def batch_for(trainer: Any, seed: int = 0, count: int = 2) -> dict[str, Tensor]:
    """Random photographs with every kind of guide; one joint of the first person is missing."""
    generator = torch.Generator().manual_seed(seed)
    height, width = transfer_data.image_size(trainer.config.data)
    batch: dict[str, Tensor] = {"index": torch.arange(count)}
    for side in ("source", "target"):
        shape = (count, 3, height, width)
        batch[f"{side}_image"] = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        batch[f"{side}_keypoints"] = torch.rand(count, 18, 2, generator=generator) * torch.tensor([width, height])
        batch[f"{side}_visibility"] = torch.ones(count, 18)
        batch[f"{side}_visibility"][0, 4] = 0
        batch[f"{side}_labels"] = torch.randint(0, 17, (count, height, width), generator=generator, dtype=torch.uint8)
        skeleton = torch.rand(count, 1, height, width, generator=generator) > 0.8
        batch[f"{side}_skeleton"] = skeleton.to(torch.uint8) * 255
    return batch


def prepared_by_hand(trainer: Any, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Source and target (B, 3, H, W) in [-1, 1], and the pose maps of both."""
    source, target = (batch[f"{side}_image"].float() / 127.5 - 1 for side in ("source", "target"))
    data = trainer.config.data
    maps = [
        ops.render_gaussian_heatmaps(
            batch[f"{side}_keypoints"],
            tuple(source.shape[2:]),
            data.sigma,
            visibility=batch[f"{side}_visibility"],
            profile=data.pose_map,
        )
        for side in ("source", "target")
    ]
    return source, target, maps


def update_for(trainer: Any, **options: Any) -> Update:
    """An update at the last batch of a step."""
    update = Update(trainer.networks, trainer.optimizers, main="generator", **options)
    update.begin(1, None, last=True)
    return update


def weights(network: nn.Module) -> Tensor:
    """All parameters of a network in one row."""
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


class Recorder(Update):
    """Notes which optimizer was asked, and sees to it that no other network changes with it."""

    def __init__(self, trainer: Any, **options: Any) -> None:
        super().__init__(trainer.networks, trainer.optimizers, main="generator", **options)
        self.begin(1, None, last=True)
        self.order: list[str] = []

    def __call__(self, name: str, *args: Any, **options: Any) -> bool:
        before = {other: weights(network) for other, network in self._networks.items()}
        changed = super().__call__(name, *args, **options)
        moved = [other for other, old in before.items() if not torch.equal(weights(self._networks[other]), old)]
        assert moved == ([name] if changed else [])
        self.order.append(name)
        return changed
