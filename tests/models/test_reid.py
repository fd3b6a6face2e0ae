"""The embedder of re-identification: shapes, published sizes, errors."""

from __future__ import annotations

import pytest
import torch

from fastpose import models
from fastpose.models import reid


def test_features_and_logits():
    network = models.create("reid.embedder.tiny").eval()
    features, logits = network(torch.randn(3, 3, 32, 16))
    assert (features.shape, logits.shape) == ((3, 12), (3, 5))
    assert torch.allclose(logits, network.classifier(features))


def test_the_published_baseline_has_its_size():
    """ResNet-50's trunk of 23,508,032 parameters, 2048 -> 512 with a batch norm, 512 -> 751."""
    with torch.device("meta"):
        network = reid.embedder()
    assert models.count_parameters(network) == 23_508_032 + 2048 * 512 + 512 + 2 * 512 + 512 * 751 + 751


@pytest.mark.parametrize("backbone", ["resnet18", "small"])
def test_every_parameter_learns(backbone):
    network = models.create("reid.embedder", backbone=backbone, widths=(4, 8), features=6, identities=3, dropout=0.0)
    _, logits = network(torch.randn(4, 3, 32, 32))
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 0])).backward()
    still = [name for name, weight in network.named_parameters() if weight.grad is None]
    assert still == []
    assert all(weight.grad.isfinite().all() for weight in network.parameters())


def test_last_stride_keeps_finer_maps():
    coarse, fine = (reid.embedder(backbone="resnet18", last_stride=stride).backbone for stride in (2, 1))
    image = torch.zeros(1, 3, 64, 32)
    assert coarse.features(image).shape[2:] == (2, 1)
    assert fine.features(image).shape[2:] == (4, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "resnet5"}, "did you mean 'resnet50'"),
        ({"features": 0}, "features: expected at least 1"),
        ({"identities": 0}, "identities: expected at least 1"),
        ({"dropout": 1.0}, "dropout: expected a share"),
        ({"last_stride": 3}, "last_stride: expected 1 or 2"),
        ({"backbone": "small", "widths": ()}, "widths: expected at least one"),
    ],
)
def test_bad_options_are_one_sentence(options, message):
    with pytest.raises(ValueError, match=message):
        models.create("reid.embedder", **options)


def test_images_must_be_rgb():
    with pytest.raises(ValueError, match=r"images: expected \(B, 3, H, W\)"):
        models.create("reid.embedder.tiny")(torch.zeros(1, 1, 8, 8))
