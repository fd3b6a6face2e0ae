"""Perceptual loss: L1 between the features that a pretrained network sees (system 001, eq. 11; system 003, 3.3.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fastpose import _checks
from fastpose.nn.backbones import outputs

SCALINGS = ("affine", "minmax_batch", "minmax_sample")
REDUCTIONS = ("mean", "sum")

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's images in 0..1, RGB


def perceptual_losses(
    generated: Tensor,
    target: Tensor,
    features: nn.Sequential,
    layers: Sequence[int] = (4,),
    *,
    scaling: str = "affine",
    reduction: str = "mean",
) -> list[Tensor]:
    """Return the L1 distance between the features of two batches of images, one scalar per entry of ``layers``.

    Args:
        generated: (B, 3, H, W), RGB in [-1, 1].
        target: of the same shape; it gets no gradient.
        features: layers of a pretrained network on ImageNet's normalised images, such as those of VGG-19, rectifiers
            not in place. Images come to them in the type of their weights.
        layers: how many layers lead to the features, rising: 4 of VGG-19 end with conv1_2 and its ReLU, 9 with conv2_2
            and its.
        scaling: how images come into 0..1 before ImageNet's mean and deviation: "affine", (x + 1) / 2;
            "minmax_batch", from the least to the largest value of a whole batch, of generated and target apart (as
            released for system 003); "minmax_sample", of each image.
        reduction: "mean" over all elements (both released codes), or "sum" over maps and positions, averaged over the
            batch (system 001, eq. 11 as printed).

    Returns:
        float32 (or wider) scalars, differentiable in ``generated``, also through a minimum and maximum. Where all
        values of a batch (or sample) are equal, "minmax" gives 0 everywhere.

    Raises:
        ValueError: shapes differ, no image, ``layers`` that do not rise or leave the network, unknown scaling or
            reduction.
    """
    _checks.choice("scaling", scaling, SCALINGS)
    _checks.choice("reduction", reduction, REDUCTIONS)
    if generated.dim() != 4 or generated.shape[1] != 3 or target.shape != generated.shape:
        found = f"{tuple(generated.shape)} and {tuple(target.shape)}"
        raise ValueError(f"generated, target: expected (B, 3, H, W) each, got {found}")
    if generated.numel() == 0:
        raise ValueError(f"generated, target: expected at least one image, got {tuple(generated.shape)}")
    dtype = next((weight.dtype for weight in features.parameters()), None)
    seen = outputs(features, _scaled(generated, scaling).to(dtype), layers)
    with torch.no_grad():
        wanted = outputs(features, _scaled(target, scaling).to(dtype), layers)
    return [_distance(*pair, reduction) for pair in zip(seen, wanted, strict=True)]


def _scaled(images: Tensor, scaling: str) -> Tensor:
    """Return images (B, 3, H, W) as the pretrained network wants them."""
    wide = images.to(torch.promote_types(images.dtype, torch.float32))
    unit = (wide + 1) / 2 if scaling == "affine" else _stretched(wide, (0, 1, 2, 3)[scaling == "minmax_sample" :])
    mean, std = wide.new_tensor(_MEAN).view(1, 3, 1, 1), wide.new_tensor(_STD).view(1, 3, 1, 1)
    return (unit - mean) / std


def _stretched(images: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return images whose least value over ``axes`` is 0 and whose largest is 1; all 0 where they are equal."""
    low, high = images.amin(axes, keepdim=True), images.amax(axes, keepdim=True)
    span = high - low
    return (images - low) / torch.where(span > 0, span, 1)


def _distance(seen: Tensor, wanted: Tensor, reduction: str) -> Tensor:
    wide = torch.promote_types(seen.dtype, torch.float32)
    distance = (seen.to(wide) - wanted.to(wide)).abs()  # (B, C, h, w)
    return distance.mean() if reduction == "mean" else distance.sum() / seen.shape[0]
