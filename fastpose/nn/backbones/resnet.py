"""Residual networks with 18 and 50 layers (He et al.), under torchvision's key names."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastpose.nn.backbones._sequential import start

_DEPTHS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
    """Return the 1x1 convolution and norm of a skip that changes the shape; None for the identity, which has no key."""
    if stride == 1 and in_channels == out_channels:
        return None
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a skip, rectified after the sum: (B, C, H, W) -> (B, width, H/stride, W/stride)."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(in_channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        skip = x if self.downsample is None else self.downsample(x)
        body = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(body)) + skip)


class Bottleneck(nn.Module):
    """1x1, 3x3 (which strides) and 1x1 to four times the width, and a skip: (B, C, H, W) -> (B, 4 width, ...)."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = _shortcut(in_channels, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        skip = x if self.downsample is None else self.downsample(x)
        body = torch.relu(self.bn1(self.conv1(x)))
        body = torch.relu(self.bn2(self.conv2(body)))
        return torch.relu(self.bn3(self.conv3(body)) + skip)


class ResNet(nn.Module):
    """Images (B, 3, H, W), ImageNet-normalised, -> pooled features (B, channels), or logits (B, 1000) with ``head``.

    ``channels`` is 512 for depth 18 and 2048 for depth 50. ``last_stride`` is the stride of the last level; 1 keeps its
    maps twice as fine, as re-identification likes them.
    """

    def __init__(self, depth: int, *, head: bool = False, last_stride: int = 2) -> None:
        super().__init__()
        block = BasicBlock if depth == 18 else Bottleneck
        self.conv1 = nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        channels = 64
        for level, (blocks, stride) in enumerate(zip(_DEPTHS[depth], (1, 2, 2, last_stride), strict=True)):
            width = 64 * 2**level
            rows = [block(channels, width, stride)]
            channels = width * block.expansion
            rows += [block(channels, width, 1) for _ in range(blocks - 1)]
            self.add_module(f"layer{level + 1}", nn.Sequential(*rows))
        self.channels = channels
        self.fc = nn.Linear(channels, 1000) if head else None
        start(self)

    def features(self, images: Tensor) -> Tensor:
        """Return the last maps, (B, channels, H/32, W/32)."""
        x = self.maxpool(torch.relu(self.bn1(self.conv1(images))))
        for level in range(1, 5):
            x = self.get_submodule(f"layer{level}")(x)
        return x

    def forward(self, images: Tensor) -> Tensor:
        pooled = self.features(images).mean((2, 3))  # (B, channels)
        return pooled if self.fc is None else self.fc(pooled)
