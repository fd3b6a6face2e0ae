"""Hourglass networks (Newell et al., ECCV 2016): stem, hourglass, one stack with its heads, and the stacked network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from fastpose import _checks
from fastpose.nn.residual import Residual, Skip, norm_relu

StemKind = Literal["newell", "pytorch_pose"]
STEMS: tuple[StemKind, ...] = ("newell", "pytorch_pose")
Block = Callable[[], nn.Module]


def chain(block: Block, modules: int) -> nn.Sequential:
    """Return ``modules`` blocks in sequence."""
    return nn.Sequential(*(block() for _ in range(modules)))


class Stem(nn.Module):
    """First layers of a network: a convolution and three residual modules that widen the image to ``width`` channels.

    ``pooled=True`` takes an image to a quarter of its size (7x7 convolution of stride 2, pooling behind the first
    residual module); ``pooled=False`` keeps the size (3x3 convolution, no pooling), as discriminators of heatmaps do.
    ``channels`` leave the first convolution; the residual modules make of them twice as many, again twice as many
    as at first (``newell``) or four times (``pytorch_pose``, whose published weights need it), and ``width``.
    """

    def __init__(
        self, in_channels: int, channels: int, width: int, *, kind: StemKind = "newell", skip: Skip, pooled: bool = True
    ) -> None:
        super().__init__()
        _checks.choice("stem", kind, STEMS)
        kernel, stride = (7, 2) if pooled else (3, 1)
        self.conv = nn.Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2)
        self.norm, self.relu = norm_relu(channels)
        self.pool = nn.MaxPool2d(2) if pooled else nn.Identity()
        widths = (channels, 2 * channels, (2 if kind == "newell" else 4) * channels, width)
        self.residuals = nn.ModuleList(Residual(i, o, skip=skip) for i, o in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.conv(x)))  # (B, channels, H/2, W/2)
        first, second, third = self.residuals
        return third(second(self.pool(first(x))))  # (B, width, H/4, W/4)


class Hourglass(nn.Module):
    """Features pooled ``depth`` times and brought back, a branch around each level: (B, C, H, W) -> the same shape.

    H and W are divisible by 2**depth. ``block`` makes one module of the main way, ``skip_block`` one of the branches;
    ``modules`` of them follow one another everywhere. Level 0 is the full resolution.
    """

    def __init__(self, depth: int, modules: int, block: Block, skip_block: Block | None = None) -> None:
        super().__init__()
        levels = range(depth)
        self.multiple = 2**depth
        self.skips = nn.ModuleList(chain(skip_block or block, modules) for _ in levels)
        self.downs = nn.ModuleList(chain(block, modules) for _ in levels)
        self.bottom = chain(block, modules)
        self.ups = nn.ModuleList(chain(block, modules) for _ in levels)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for skip, down in zip(self.skips, self.downs, strict=True):
            kept.append(skip(x))  # (B, C, h, w)
            x = down(functional.max_pool2d(x, 2))  # (B, C, h/2, w/2)
        x = self.bottom(x)
        for up in reversed(self.ups):
            x = kept.pop() + functional.interpolate(up(x), scale_factor=2.0, mode="nearest")  # (B, C, 2h, 2w)
        return x


class HourglassStack(nn.Module):
    """An hourglass, its tail of residual modules, and the heads: (B, width, H, W) -> (features, heatmaps).

    features (B, width, H, W) feed the next stack, heatmaps (B, keypoints, H, W) are supervised. ``attention`` stands
    between hourglass and tail; ``score`` replaces the 1x1 convolution that makes the heatmaps.
    """

    def __init__(
        self,
        hourglass: Hourglass,
        width: int,
        keypoints: int,
        modules: int,
        *,
        attention: nn.Module | None = None,
        score: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.hourglass = hourglass
        self.attention = attention or nn.Identity()
        self.residuals = chain(lambda: Residual(width, width), modules)
        self.features = nn.Sequential(nn.Conv2d(width, width, kernel_size=1), *norm_relu(width))
        self.score = score or nn.Conv2d(width, keypoints, kernel_size=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.attention(self.hourglass(x))
        features = self.features(self.residuals(x))  # (B, width, H, W)
        return features, self.score(features)  # (B, keypoints, H, W)


class Merge(nn.Module):
    """What one stack hands to the next: its input plus its features and heatmaps, each through a 1x1 convolution."""

    def __init__(self, width: int, keypoints: int) -> None:
        super().__init__()
        self.features = nn.Conv2d(width, width, kernel_size=1)
        self.heatmaps = nn.Conv2d(keypoints, width, kernel_size=1)

    def forward(self, x: Tensor, features: Tensor, heatmaps: Tensor) -> Tensor:
        return x + self.features(features) + self.heatmaps(heatmaps)  # (B, width, H, W)


class StackedHourglass(nn.Module):
    """Stem and stacks: image (B, 3, H, W) -> heatmaps (B, keypoints, H/4, W/4) in a list, one per stack, the best last.

    H and W are divisible by 4 * 2**depth; the image is RGB in 0..1, less the data set's mean. Nothing is squashed:
    heatmaps are compared with Gaussians of peak 1. Raises ``ValueError`` for an image of another rank or size.
    """

    def __init__(self, stem: Stem, stacks: Sequence[HourglassStack], width: int, keypoints: int) -> None:
        super().__init__()
        self.stem = stem
        self.stacks = nn.ModuleList(stacks)
        self.merges = nn.ModuleList(Merge(width, keypoints) for _ in stacks[1:])
        self.multiple = 4 * stacks[0].hourglass.multiple

    def forward(self, image: Tensor) -> list[Tensor]:
        return self.with_last(image)[0]

    def with_last(self, image: Tensor) -> tuple[list[Tensor], tuple[Tensor, Tensor, Tensor]]:
        """Return the heatmaps of all stacks, and the last one's input, features and heatmaps, as a `Merge` takes them.

        A regressor behind the last stack goes on from there, where a next stack would.
        """
        check_sizes("image", image, 3, self.multiple)
        x = self.stem(image)
        features, heatmaps = self.stacks[0](x)
        outputs = [heatmaps]
        for merge, stack in zip(self.merges, self.stacks[1:], strict=True):
            x = merge(x, features, heatmaps)
            features, heatmaps = stack(x)
            outputs.append(heatmaps)
        return outputs, (x, features, heatmaps)


def check_sizes(argument: str, maps: Tensor, channels: int, multiple: int) -> None:
    """Raise ``ValueError`` unless ``maps`` is (B, channels, H, W) with H and W divisible by ``multiple``."""
    _checks.shape(argument, maps, (None, channels, None, None), f"(B, {channels}, H, W)")
    height, width = maps.shape[-2:]
    if height % multiple or width % multiple:
        raise ValueError(
            f"{argument}: expected height and width divisible by {multiple}, got {height} x {width}; "
            "resize it, or create the network with a smaller depth"
        )
