"""VGG with 16 and 19 layers, without batch norm (Simonyan and Zisserman), under torchvision's key names."""

from __future__ import annotations

from torch import Tensor, nn

from fastpose.nn.backbones._sequential import start

# Convolutions of each of the five levels; a 2x2 maximum halves the map after each level.
_LEVELS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_WIDTHS = (64, 128, 256, 512, 512)


class VGG(nn.Module):
    """The convolutions of a VGG; ``features`` counts its layers as torchvision does.

    Images (B, 3, H, W), ImageNet-normalised, -> (B, 512, H/32, W/32), or logits (B, 1000) with ``head``. Rectifiers are
    not in place, so the output of any layer may be kept.
    """

    def __init__(self, depth: int, *, head: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width, convolutions in zip(_WIDTHS, _LEVELS[depth], strict=True):
            for _ in range(convolutions):
                layers += [nn.Conv2d(channels, width, kernel_size=3, padding=1), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
        self.features = nn.Sequential(*layers)
        self.classifier = _classifier() if head else None
        start(self)

    def forward(self, images: Tensor) -> Tensor:
        features = self.features(images)
        if self.classifier is None:
            return features
        return self.classifier(nn.functional.adaptive_avg_pool2d(features, 7).flatten(1))


def _classifier() -> nn.Sequential:
    """Three linear layers; the weights are at 0, 3 and 6."""
    return nn.Sequential(
        nn.Linear(512 * 7 * 7, 4096),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(4096, 1000),
    )
