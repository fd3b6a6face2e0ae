"""What the backbones that are one row of layers share: outputs at chosen layers, and their start values."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor, nn


def outputs(features: nn.Sequential, images: Tensor, ends: Sequence[int]) -> list[Tensor]:
    """Return ``features[:end](images)`` for each of the rising ``ends``, in one pass.

    ``outputs(vgg.features, images, (4, 9))`` gives the rectified conv1_2 and conv2_2 of a VGG. Raises ``ValueError``
    unless the ends rise within 1..len(features).
    """
    rising = all(first < second for first, second in itertools.pairwise(ends))
    if not ends or not rising or ends[0] < 1 or ends[-1] > len(features):
        raise ValueError(f"ends: expected rising layer numbers within 1..{len(features)}, got {tuple(ends)}")
    found = []
    for index in range(ends[-1]):
        images = features[index](images)
        if index + 1 in ends:
            found.append(images)
    return found


def start(module: nn.Module) -> None:
    """Draw convolutions from He's normal (fan out), linear layers from N(0, 0.01); biases are 0, norms the identity."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, 0.0, 0.01)
        if isinstance(part, nn.Conv2d | nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
