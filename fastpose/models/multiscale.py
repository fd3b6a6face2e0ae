"""System 003, multi-scale attention guided pose transfer (Roy et al., Pattern Recognition 2023)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from fastpose import _checks
from fastpose.models._registry import register
from fastpose.nn.init import normal_
from fastpose.nn.rectifiers import leaky_relu
from fastpose.nn.residual import ResidualSum, norm_relu
from fastpose.nn.sizes import check_counts, check_maps, check_normed, check_pair

Fusion = Literal["sum", "cat"]
FUSIONS: tuple[Fusion, ...] = ("sum", "cat")
RESIDUALS = 4
"""Residual blocks at full resolution, before the image."""


@register("multiscale.generator", tiny={"width": 8, "levels": 2})
def generator(
    *,
    image_channels: int = 3,
    pose_channels: int = 36,
    width: int = 64,
    levels: int = 4,
    gates: Collection[int] | None = None,
    fusion: Fusion | None = None,
) -> Generator:
    """Return the generator: (image (B, image_channels, H, W), poses (B, pose_channels, H, W)) -> image in -1..1.

    Level 1 has half the height and width and twice the ``width``, the deepest, ``levels``, 1 / 2**levels of them.
    ``gates`` are the levels where the poses gate the image features: all unless given, which is (1, 2, 3, 4) (FULL);
    (4,) is A1-LR, (1,) A1-HR. The paper's A0 has none and does not say how the poses enter: ``fusion`` adds the two
    deepest codes (``sum``) or concatenates them (``cat``) instead.
    """
    check_counts(image_channels=image_channels, pose_channels=pose_channels, width=width, levels=levels)
    if fusion is not None:
        _checks.choice("fusion", fusion, FUSIONS)
    return Generator(image_channels, pose_channels, width, levels, _gated_levels(gates, levels, fusion), fusion)


@register("multiscale.discriminator", tiny={"width": 8, "layers": 2})
def discriminator(*, in_channels: int = 6, width: int = 64, layers: int = 3) -> PatchDiscriminator:
    """Return the PatchGAN of pix2pix: maps (B, in_channels, H, W) -> logits of patches (B, 1, h, w).

    Of three ``layers`` each logit sees 70 x 70 pixels; 256 x 256 pixels give 30 x 30 logits.
    """
    check_counts(in_channels=in_channels, width=width, layers=layers)
    return PatchDiscriminator(in_channels, width, layers)


class Encoder(nn.Module):
    """Features of every level: (B, in_channels, H, W) -> maps (B, width * 2**l, H / 2**l, W / 2**l), l = 1..levels."""

    def __init__(self, in_channels: int, width: int, levels: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(in_channels, width, 3, padding=1, bias=False), *norm_relu(width))
        self.downs = nn.ModuleList(_down(width * 2**level) for level in range(levels))

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.first(x)  # (B, width, H, W)
        features = []
        for down in self.downs:
            x = down(x)  # (B, 2C, h/2, w/2)
            features.append(x)
        return features


class Gate(nn.Module):
    """Image features times the sigmoid of pose features: (B, C, h, w) twice -> (B, C, h, w)."""

    def forward(self, image_features: Tensor, pose_features: Tensor) -> Tensor:
        return image_features * torch.sigmoid(pose_features)


class Generator(nn.Module):
    """Two encoders and a decoder of the deepest image features, gated by the poses of each level on its way up.

    (image (B, Ci, H, W), poses (B, Cp, H, W)) -> image (B, Ci, H, W) in -1..1; H and W are divisible by 2**levels. The
    pose encoder ends at the deepest level that is asked of it. Raises ``ValueError`` for inputs of other shapes and, in
    training mode, for a single image of 2**levels x 2**levels.
    """

    def __init__(
        self,
        image_channels: int,
        pose_channels: int,
        width: int,
        levels: int,
        gates: Sequence[int],
        fusion: Fusion | None,
    ) -> None:
        super().__init__()
        self.channels = (image_channels, pose_channels)
        self.levels = levels
        self.fusion = fusion
        self.image_encoder = Encoder(image_channels, width, levels)
        self.pose_encoder = Encoder(pose_channels, width, max(gates) if fusion is None else levels)
        self.gates = nn.ModuleDict({str(level): Gate() for level in sorted(gates, reverse=True)})
        deepest = width * 2**levels * (2 if fusion == "cat" else 1)
        self.ups = nn.ModuleList(
            _up(deepest if level == levels else width * 2**level, width * 2 ** (level - 1))
            for level in range(levels, 0, -1)
        )
        self.residuals = nn.Sequential(*(_residual(width) for _ in range(RESIDUALS)))
        self.last = nn.Sequential(nn.Conv2d(width, image_channels, 1, bias=False), nn.Tanh())
        normal_(self, zero_bias=True)

    def forward(self, image: Tensor, poses: Tensor) -> Tensor:
        check_pair(image, poses, self.channels, 2**self.levels)
        check_normed("image", image, 2**self.levels, "batch", self.training)
        x = self.image_encoder(image)[-1]  # (B, width * 2**levels, h, w)
        guides = self.pose_encoder(poses)
        if self.fusion == "sum":
            x = x + guides[-1]
        elif self.fusion == "cat":
            x = torch.cat((x, guides[-1]), dim=1)  # (B, 2 * width * 2**levels, h, w)
        for level, up in zip(range(self.levels, 0, -1), self.ups, strict=True):
            if str(level) in self.gates:
                x = self.gates[str(level)](x, guides[level - 1])
            x = up(x)  # (B, C/2, 2h, 2w)
        return self.last(self.residuals(x))  # (B, image_channels, H, W)


class PatchDiscriminator(nn.Module):
    """Convolutions whose output judges patches: (B, in_channels, H, W) -> logits (B, 1, h, w).

    The first and all but the last of ``layers`` convolutions halve height and width, then two take one pixel each.
    Raises ``ValueError`` for maps of another shape or too small for one patch.
    """

    def __init__(self, in_channels: int, width: int, layers: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.smallest = 3 * 2**layers
        widths = [width * min(2**layer, 8) for layer in range(layers + 1)]
        strides = [2] * (layers - 1) + [1]
        body: list[nn.Module] = [nn.Conv2d(in_channels, width, 4, stride=2, padding=1), leaky_relu()]
        for before, after, stride in zip(widths, widths[1:], strides, strict=False):
            convolution = nn.Conv2d(before, after, 4, stride=stride, padding=1, bias=False)
            body += [convolution, nn.BatchNorm2d(after), leaky_relu()]
        self.layers = nn.Sequential(*body, nn.Conv2d(widths[-1], 1, 4, padding=1))
        normal_(self, zero_bias=True)

    def forward(self, maps: Tensor) -> Tensor:
        check_maps("maps", maps, self.in_channels, self.smallest)
        return self.layers(maps)


def _residual(channels: int) -> ResidualSum:
    """Two convolutions around a rectifier, added to their input."""
    return ResidualSum(
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        *norm_relu(channels),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
    )


def _down(channels: int) -> nn.Sequential:
    """(B, C, H, W) -> (B, 2C, H/2, W/2)."""
    convolution = nn.Conv2d(channels, 2 * channels, 4, stride=2, padding=1, bias=False)
    return nn.Sequential(convolution, *norm_relu(2 * channels), _residual(2 * channels))


def _up(in_channels: int, out_channels: int) -> nn.Sequential:
    """(B, in_channels, H, W) -> (B, out_channels, 2H, 2W)."""
    convolution = nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1, bias=False)
    return nn.Sequential(convolution, *norm_relu(out_channels), _residual(out_channels))


def _gated_levels(gates: Collection[int] | None, levels: int, fusion: Fusion | None) -> tuple[int, ...]:
    """The levels that are gated; exactly one of gates and fusion brings the poses into the image."""
    if gates is None:
        return () if fusion else tuple(range(1, levels + 1))
    if not isinstance(gates, Collection):
        raise TypeError(f"gates: expected levels such as (1, 2), got {gates!r}")
    chosen = tuple(gates)
    if len(set(chosen)) != len(chosen):
        raise ValueError(f"gates: expected each level once, got {chosen}")
    if any(level not in range(1, levels + 1) for level in chosen):
        raise ValueError(f"gates: expected levels from 1 (finest) to {levels} (deepest), got {chosen}")
    if fusion and chosen:
        raise ValueError(f"gates: expected () beside fusion={fusion!r}, got {chosen}; give one of the two")
    if not fusion and not chosen:
        raise ValueError(
            "gates: expected at least one level, got (): the poses would not reach the image; "
            f"give fusion='sum' or 'cat', or levels from 1 to {levels}"
        )
    return chosen
