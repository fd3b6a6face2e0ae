"""AlexNet in its single-tower form (Krizhevsky, 2014), under torchvision's key names."""

from __future__ import annotations

from torch import Tensor, nn

from fastpose.nn.backbones._sequential import start


class AlexNet(nn.Module):
    """Images (B, 3, H, W) of 63 x 63 or more, ImageNet-normalised, -> (B, 256, h, w), or logits with ``head``."""

    def __init__(self, *, head: bool = False) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, kernel_size=11, stride=4, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(64, 192, kernel_size=5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(192, 384, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2),
        )
        self.classifier = _classifier() if head else None
        start(self)

    def forward(self, images: Tensor) -> Tensor:
        features = self.features(images)
        if self.classifier is None:
            return features
        return self.classifier(nn.functional.adaptive_avg_pool2d(features, 6).flatten(1))


def _classifier() -> nn.Sequential:
    """Three linear layers; the weights are at 1, 4 and 6."""
    return nn.Sequential(
        nn.Dropout(0.5),
        nn.Linear(256 * 6 * 6, 4096),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Linear(4096, 1000),
    )
