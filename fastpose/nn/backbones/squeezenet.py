"""SqueezeNet 1.1 (Iandola et al.), under torchvision's key names."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastpose.nn.backbones._sequential import start


class Fire(nn.Module):
    """Squeeze to few channels, expand by a 1x1 and a 3x3 convolution side by side: (B, C, H, W) -> (B, 2 E, H, W)."""

    def __init__(self, channels: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, kernel_size=1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, kernel_size=1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        narrow = torch.relu(self.squeeze(x))
        return torch.relu(torch.cat((self.expand1x1(narrow), self.expand3x3(narrow)), dim=1))


class SqueezeNet(nn.Module):
    """Images (B, 3, H, W), ImageNet-normalised, -> (B, 512, H/16, W/16) about, or logits (B, 1000) with ``head``."""

    def __init__(self, *, head: bool = False) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, kernel_size=3, stride=2),
            nn.ReLU(),
            _halve(),
            Fire(64, 16, 64),
            Fire(128, 16, 64),
            _halve(),
            Fire(128, 32, 128),
            Fire(256, 32, 128),
            _halve(),
            Fire(256, 48, 192),
            Fire(384, 48, 192),
            Fire(384, 64, 256),
            Fire(512, 64, 256),
        )
        self.classifier = _classifier() if head else None
        start(self)

    def forward(self, images: Tensor) -> Tensor:
        features = self.features(images)
        return features if self.classifier is None else self.classifier(features).flatten(1)


def _halve() -> nn.MaxPool2d:
    return nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=True)


def _classifier() -> nn.Sequential:
    """One convolution, at 1, and the mean over the map."""
    return nn.Sequential(nn.Dropout(0.5), nn.Conv2d(512, 1000, kernel_size=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
