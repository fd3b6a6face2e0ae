"""Systems 001, 003 and 004: a step as their trainers take it, with all its updates, in the ways of `whole_systems`.

The usual way stores attention maps, lets every loss run back into all networks' weights as a plain ``loss.backward()``
does, looks at true poses once for each caption and takes torch's default Adam. All ways share weights, batch and random
numbers; there is no dropout, whose masks follow the memory order. VGG has weights of its own making.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import torch
import whole_systems
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from whole_systems import STEP, Way

from fastpose.benchmark.cases import FORWARD
from fastpose.nn import backbones
from fastpose.nn.nonlocal_block import NonLocalBlock
from fastpose.training import caption, caption_data, load_recipe, systems, transfer_data, transfer_training
from fastpose.training.phases import Update

WITHOUT_DROPOUT = ("model.dropout=0", "appearance.dropout=0", "pose.dropout=0")
WITHOUT_VGG = ("loss.perceptual.weight=0",)
WITH_CAPTIONS = ("data.name=sample", "text.encoder=sample", "start.needed=no", "loss.critic_steps=1")
STEEP = ("loss.algorithm=wgan-gp", "loss.penalty=10", "model.init=scaled")  # so that the penalty is not 0
ATTENTIVE = (*WITH_CAPTIONS, *STEEP, "model.self_attention=yes", "discriminator.self_attention=yes")
SMALL = ("data.height=128", "data.width=128")


@dataclass(frozen=True)
class Size:
    """A recipe with a batch smaller than the published one; images of the published size for inference alone."""

    name: str
    operation: str
    recipe: str
    batch: int
    overrides: tuple[str, ...]
    orders: tuple[str, ...] = (FORWARD, STEP)


SIZES = (
    Size("PoNA-3, B=1, 256x176", "system 001", "pona/deepfashion", 1, WITHOUT_VGG, (FORWARD,)),
    Size("PoNA-3, B=1, 128x64", "system 001", "pona/market", 1, WITHOUT_DROPOUT, (STEP,)),
    Size("multi-scale, B=1, 256x256", "system 003", "multiscale/full", 1, WITHOUT_VGG, (FORWARD,)),
    Size("multi-scale, B=1, 128x128", "system 003", "multiscale/full", 1, SMALL, (STEP,)),
    Size("WGAN-GP with captions, B=16", "system 004", "caption/wgan-lp", 16, (*WITH_CAPTIONS, *STEEP)),
    Size("the same with self-attention, B=16 N=1024", "system 004", "caption/wgan-lp", 16, ATTENTIVE, (STEP,)),
)


def channels_last(size: Size, order: str) -> bool:
    """Return whether ``fastpose predict`` or ``train`` keeps maps channels last on a CPU where nothing is said."""
    kind = size.recipe.partition("/")[0]
    if order == FORWARD:
        return kind != "caption"  # its generator takes milliseconds
    return "cpu" in getattr(systems.get(kind).trainer, "channels_last_on", ())


class PlainUpdate(Update):
    """What a plain ``loss.backward()`` does: every network's weights get gradients, and they are thrown away."""

    def backward(self, name: str, loss: Tensor, **options: Any) -> None:
        """Leave gradients in all that the loss depends on."""
        loss.backward()
        self._losses[name], self._terms[name] = loss.detach(), {}

    def step(self, name: str) -> bool:
        """Take the step, and leave no gradient behind."""
        changed = super().step(name)
        for network in self._networks.values():
            network.zero_grad()
        return changed


def looked_at_twice(critic: nn.Module, poses: Tensor, texts: Any) -> Callable[[Tensor | None], Tensor]:
    """Return what scores poses with one text or another, each time from the beginning."""
    return lambda text: critic(poses) if text is None else critic(poses, text)


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


@dataclass(frozen=True)
class Trained(whole_systems.Trained):
    """A trainer with a batch; what infers is the generator."""

    trainer: Any
    batch: dict[str, Tensor]
    applied: Update
    given: tuple[Tensor, ...]

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What the generator is given."""
        return self.given

    def infer(self, network: nn.Module) -> Tensor:
        """Return the images or heatmaps."""
        return network(*self.given)

    def maps(self, network: nn.Module) -> tuple[Tensor, ...]:
        """Return the same."""
        return (self.infer(network),)

    def step(self) -> tuple[Tensor, ...]:
        """Do one iteration; return its losses in one tensor: some are sums of larger ones that cancel."""
        torch.manual_seed(0)
        self.applied.begin(1, None, last=True)
        seen = looked_at_twice if self.way.usual else caption._seen
        with mock.patch.object(caption, "_seen", seen):
            logged = self.trainer.step(self.batch, self.applied)
        self.applied.finish()
        return (torch.stack(list(logged.values())),)


def build(size: Size, device: str, way: Way) -> Trained:
    """Return the networks of one way, always with the same weights and batch."""
    torch.manual_seed(0)
    with mock.patch.object(transfer_training, "load_features", features):
        trainer = systems.get(size.recipe.partition("/")[0]).trainer(_config(size))
    for name, parameter in (pair for network in trainer.networks.values() for pair in network.named_parameters()):
        if name.endswith(("gamma", "beta")):
            nn.init.constant_(parameter, 0.5)  # as in a trained network
    if way.usual:
        _write_the_usual_way(trainer)
    order = torch.channels_last if way.channels_last else torch.contiguous_format
    for network in trainer.networks.values():
        network.to(device, memory_format=order)
    batch = {name: tensor.to(device) for name, tensor in batch_of(trainer, size.batch).items()}
    given = tuple(tensor.to(device) for tensor in _given(trainer, batch))
    kind = PlainUpdate if way.usual else Update
    applied = kind(trainer.networks, trainer.optimizers, main="generator", precision="bf16" if way.bf16 else "fp32")
    networks = (trainer.networks["generator"], *(n for key, n in trainer.networks.items() if key != "generator"))
    return Trained(networks, tuple(trainer.optimizers.values()), given[0], way, trainer, batch, applied, given)


class Counter(TorchDispatchMode):
    """Counts as torch's ``FlopCounterMode`` does, which refuses gradients of inputs that nothing has made."""

    flop = 0.0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function, and add what it computes."""
        found = function(*args, **(kwargs or {}))
        count = flop_registry.get(function._overloadpacket)
        self.flop += 0 if count is None else count(*args, **(kwargs or {}), out_val=found)
        return found


def flop(size: Size, order: str) -> float:
    """Return the floating-point operations of the usual way's convolutions and matrix products that somebody needs."""
    trained = build(size, "cpu", Way(usual=True))
    if order != STEP:
        call = trained.call(order)
    else:
        applied = Update(trained.trainer.networks, trained.trainer.optimizers, main="generator")
        applied.begin(1, None, last=True)
        call = partial(trained.trainer.step, trained.batch, applied)
    with Counter() as counter:
        call()
    return counter.flop


def features(config: Any) -> nn.Sequential:
    """Return the layers of VGG-19 that a perceptual loss looks through, with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network: Any = backbones.create("vgg19").features
    return network[: config.layers[-1]].requires_grad_(False).eval()


def _config(size: Size) -> Any:
    return load_recipe(size.recipe, size.overrides).config


def _write_the_usual_way(trainer: Any) -> None:
    for name, network in trainer.networks.items():
        trainer.networks[name] = usual(network)
        group = trainer.optimizers[name].param_groups[0]
        parameters = trainer.networks[name].parameters()
        trainer.optimizers[name] = torch.optim.Adam(parameters, lr=group["lr"], betas=group["betas"])


def batch_of(trainer: Any, count: int) -> dict[str, Tensor]:
    """Return random photographs with poses, or poses with captions."""
    generator = torch.Generator().manual_seed(0)
    if isinstance(trainer, caption.CaptionTrainer):
        names = ("caption", "mismatched", "fresh", "first", "second")
        batch = {name: torch.randint(0, 4, (count,), generator=generator) for name in names}
        points = 64 * torch.rand(count, 17, 2, generator=generator)
        return batch | {"keypoints": points, "visibility": torch.ones(count, 17)}
    height, width = transfer_data.image_size(trainer.config.data)
    batch = {}
    for side in ("source", "target"):
        image = torch.randint(0, 256, (count, 3, height, width), generator=generator, dtype=torch.uint8)
        points = torch.rand(count, 18, 2, generator=generator) * torch.tensor([width, height])
        batch |= {f"{side}_image": image, f"{side}_keypoints": points, f"{side}_visibility": torch.ones(count, 18)}
    return batch


def _given(trainer: Any, batch: dict[str, Tensor]) -> tuple[Tensor, ...]:
    if not isinstance(trainer, caption.CaptionTrainer):
        inputs = transfer_data.prepare(batch, trainer.config.data)
        return inputs.source, inputs.guides
    texts = trainer._texts(batch, caption_data.maps(batch["keypoints"], batch["visibility"]))
    return torch.randn(len(batch["caption"]), trainer.config.model.noise), texts.own
