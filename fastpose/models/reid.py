"""Person re-identification for the comparison of augmented training sets (system 001, section D and table VI)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fastpose import _checks
from fastpose.models._registry import register
from fastpose.nn import backbones

BACKBONES = ("resnet50", "resnet18", "small")


@register("reid.embedder", tiny={"backbone": "small", "widths": (8, 16), "features": 12, "identities": 5})
def embedder(
    *,
    backbone: str = "resnet50",
    widths: Sequence[int] = (32, 64, 128, 256),
    features: int = 512,
    identities: int = 751,
    dropout: float = 0.5,
    last_stride: int = 2,
) -> Embedder:
    """Return an identity classifier with a bottleneck whose features compare persons: image (B, 3, H, W).

    ``backbone`` is "resnet50" (the published baseline), "resnet18", or "small": for each of ``widths`` two 3x3
    convolutions, the first with stride 2. ``last_stride`` of a resnet is 2 or 1. ``identities`` are the classes: 751 in
    Market-1501.
    """
    _checks.choice("backbone", backbone, BACKBONES)
    for name, count in {"features": features, "identities": identities}.items():
        if count < 1:
            raise ValueError(f"{name}: expected at least 1, got {count}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout: expected a share from 0 up to 1, got {dropout}")
    if last_stride not in (1, 2):
        raise ValueError(f"last_stride: expected 1 or 2, got {last_stride}")
    if backbone != "small":
        network = backbones.create(backbone, last_stride=last_stride)
        return Embedder(network, int(network.channels), features, identities, dropout)  # type: ignore[arg-type]
    if not widths or min(widths) < 1:
        raise ValueError(f"widths: expected at least one positive number, got {tuple(widths)}")
    return Embedder(_small(widths), widths[-1], features, identities, dropout)


class Embedder(nn.Module):
    """Backbone, bottleneck, classifier: image (B, 3, H, W) -> features (B, F) and logits (B, identities).

    The features, batch-normalised and not of unit length, are what is compared; the image is ImageNet-normalised RGB.
    Raises ``ValueError`` for an input of another shape.
    """

    def __init__(self, backbone: nn.Module, channels: int, features: int, identities: int, dropout: float) -> None:
        super().__init__()
        self.backbone = backbone
        reduce = nn.Linear(channels, features)
        self.bottleneck = nn.Sequential(reduce, nn.BatchNorm1d(features))
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(features, identities)
        nn.init.kaiming_normal_(reduce.weight, mode="fan_out")
        nn.init.zeros_(reduce.bias)
        nn.init.normal_(self.classifier.weight, std=0.001)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        _checks.shape("images", images, (None, 3, None, None), "(B, 3, H, W)")
        features = self.bottleneck(self.backbone(images))  # (B, F)
        return features, self.classifier(self.dropout(features))  # (B, identities)


class _Pool(nn.Module):
    """Mean over the places: (B, C, H, W) -> (B, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.mean(x, (2, 3))


def _small(widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for width in widths:
        for stride in (2, 1):
            convolution = nn.Conv2d(channels, width, kernel_size=3, stride=stride, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
    return nn.Sequential(*layers, _Pool())
