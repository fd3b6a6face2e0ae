"""System 000, the self-attention GAN for human pose (Wang et al., IEEE Access 2019), and the hourglass below it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastpose import _checks
from fastpose.models._registry import register
from fastpose.nn.hourglass import Block, Hourglass, HourglassStack, StackedHourglass, Stem, StemKind, check_sizes
from fastpose.nn.residual import Residual, Skip
from fastpose.nn.self_attention import FLAVOURS, Flavour, Kind, sarm_module

TINY = {"modules": 1, "width": 16, "depth": 2, "keypoints": 5}


@register("hourglass", tiny={**TINY, "stacks": 2})
def hourglass(
    *,
    stacks: int = 8,
    modules: int = 1,
    width: int = 256,
    depth: int = 4,
    keypoints: int = 16,
    stem: StemKind = "newell",
    skip: Skip = "conv",
    stem_width: int | None = None,
) -> StackedHourglass:
    """Return a stacked hourglass (Newell et al., ECCV 2016): image (B, 3, H, W) -> list of (B, keypoints, H/4, W/4).

    ``stem="pytorch_pose"`` is the wider stem of that code's published weights; ``skip="bn_relu_conv"`` the skips of
    PyraNet and Hg-SAGAN. ``stem_width`` channels leave the first convolution, a quarter of ``width`` unless given.
    """
    _check_counts(stacks=stacks, modules=modules, width=width, depth=depth, keypoints=keypoints)
    first = Stem(3, stem_width or width // 4, width, kind=stem, skip=skip)
    tails = [_stack(width, keypoints, depth, modules) for _ in range(stacks)]
    return StackedHourglass(first, tails, width, keypoints)


@register("sagan.generator", tiny={**TINY, "stacks": 2})
def generator(
    *,
    stacks: int = 4,
    modules: int = 2,
    width: int = 256,
    keypoints: int = 16,
    sarm: Kind | None = "B",
    sarm_stacks: Sequence[int] | None = None,
    flavour: Flavour = "paper",
    depth: int = 4,
    skip: Skip = "bn_relu_conv",
    stem_width: int | None = None,
) -> StackedHourglass:
    """Return the generator of Hg-SAGAN: image (B, 3, H, W) -> list of heatmaps (B, keypoints, H/4, W/4), one per stack.

    The stacks named by ``sarm_stacks`` (0-based; all but the first unless given, which is (1, 2, 3) of four) carry a
    SARM: behind the hourglass in the ``paper`` flavour (Fig. 2), as the head that makes the heatmaps in the
    ``released`` one. ``sarm=None`` gives the plain hourglass of Self-GAN, Ours-A and Ours-B.
    """
    _check_counts(stacks=stacks, modules=modules, width=width, depth=depth, keypoints=keypoints)
    _checks.choice("flavour", flavour, FLAVOURS)
    _check_sarm(sarm)
    chosen = _sarm_stacks(sarm_stacks, stacks) if sarm else ()

    def stack(index: int) -> HourglassStack:
        if sarm is None or index not in chosen:
            return _stack(width, keypoints, depth, modules)
        if flavour == "paper":
            return _stack(width, keypoints, depth, modules, attention=sarm_module(sarm, width))
        head = nn.Sequential(sarm_module(sarm, width, keypoints, flavour=flavour), nn.Conv2d(keypoints, keypoints, 1))
        return _stack(width, keypoints, depth, modules, score=head)

    first = Stem(3, stem_width or width // 4, width, skip=skip)
    return StackedHourglass(first, [stack(index) for index in range(stacks)], width, keypoints)


@register("sagan.discriminator", tiny=TINY)
def discriminator(
    *,
    modules: int = 1,
    width: int = 256,
    keypoints: int = 16,
    sarm: Kind | None = "A",
    flavour: Flavour = "paper",
    depth: int = 4,
    skip: Skip = "bn_relu_conv",
    stem_width: int | None = None,
) -> Discriminator:
    """Return the discriminator of Hg-SAGAN: (heatmaps (B, K, h, w), image (B, 3, H, W)) -> heatmaps (B, K, h, w).

    One hourglass that reconstructs the heatmaps it is given. ``sarm`` takes the place of the residual modules on all
    its skip branches (Fig. 3): A in Ours-A, B in Ours-B and Ours-C, none in Self-GAN.
    """
    _check_counts(modules=modules, width=width, depth=depth, keypoints=keypoints)
    _checks.choice("flavour", flavour, FLAVOURS)
    _check_sarm(sarm)
    branch = None if sarm is None else lambda: sarm_module(sarm, width, flavour=flavour)
    first = Stem(3 + keypoints, stem_width or width // 4, width, skip=skip, pooled=False)
    return Discriminator(first, _stack(width, keypoints, depth, modules, branch=branch), keypoints)


@register("sagan.sarm", tiny={"in_channels": 16})
def sarm(
    *, kind: Kind = "B", in_channels: int = 256, out_channels: int | None = None, flavour: Flavour = "paper"
) -> nn.Module:
    """Return one self-attention residual module: (B, in_channels, H, W) -> (B, out_channels, H, W)."""
    return sarm_module(kind, in_channels, out_channels, flavour=flavour)


class Discriminator(nn.Module):
    """Auto-encoder of heatmaps that also sees the image: real heatmaps come back as they were, false ones do not.

    (heatmaps (B, K, h, w), image (B, 3, H, W)) -> reconstructed heatmaps (B, K, h, w), not squashed. The image, less
    its mean as for the generator, is rescaled bilinearly to h x w and stands before the heatmaps; h and w are divisible
    by 2**depth. Raises ``ValueError`` for inputs of other shapes.
    """

    def __init__(self, stem: Stem, stack: HourglassStack, keypoints: int) -> None:
        super().__init__()
        self.stem = stem
        self.stack = stack
        self.keypoints = keypoints

    def forward(self, heatmaps: Tensor, image: Tensor) -> Tensor:
        check_sizes("heatmaps", heatmaps, self.keypoints, self.stack.hourglass.multiple)
        _checks.shape("image", image, (heatmaps.shape[0], 3, None, None), "(B, 3, H, W)")
        image = functional.interpolate(image, heatmaps.shape[-2:], mode="bilinear", align_corners=False)  # (B, 3, h, w)
        _, reconstructed = self.stack(self.stem(torch.cat((image, heatmaps), dim=1)))
        return reconstructed


def _stack(
    width: int,
    keypoints: int,
    depth: int,
    modules: int,
    *,
    branch: Block | None = None,
    attention: nn.Module | None = None,
    score: nn.Module | None = None,
) -> HourglassStack:
    body = Hourglass(depth, modules, lambda: Residual(width, width), branch)
    return HourglassStack(body, width, keypoints, modules, attention=attention, score=score)


def _check_sarm(sarm: str | None) -> None:
    if sarm is not None:
        _checks.choice("sarm", sarm, ("A", "B"))


def _sarm_stacks(chosen: Sequence[int] | None, stacks: int) -> tuple[int, ...]:
    chosen = tuple(range(1, stacks)) if chosen is None else tuple(chosen)
    if any(index not in range(stacks) for index in chosen):
        raise ValueError(f"sarm_stacks: expected 0-based indices below stacks={stacks}, got {chosen}")
    return chosen


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name}: expected at least 1, got {count}")
    if counts["width"] % 8:
        raise ValueError(f"width: expected a multiple of 8, got {counts['width']}")
