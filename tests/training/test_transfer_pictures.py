"""Pictures of a generator at work, for every kind of guide."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fastpose import models
from fastpose.training import transfer_data, transfer_pictures
from fastpose.training.transfer_data import TransferDataConfig

POSES = TransferDataConfig(name="sample-pairs", height=64, width=32)


def is_picture(picture):
    return picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3 and picture.std() > 1


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        ("pona.generator.tiny", {"pairs", "features", "attention"}),
        ("multiscale.generator.tiny", {"pairs", "features", "gates"}),
    ],
)
def test_pictures_of_poses(network, expected):
    pairs = transfer_data.validation_dataset(POSES, seed=0)
    pictures = transfer_pictures.samples(models.create(network).eval(), SimpleNamespace(data=POSES), pairs, pairs=3)
    assert set(pictures) == expected
    assert all(is_picture(picture) for picture in pictures.values())


class MadeUp(torch.utils.data.Dataset):
    """Two pairs with part labels or skeletons."""

    def __init__(self, guide):
        labels = torch.arange(32 * 32, dtype=torch.uint8).view(32, 32) % 17
        skeleton = (labels[None] > 8).to(torch.uint8) * 255
        self.guide = ("labels", labels) if guide == "semantic" else ("skeleton", skeleton)

    def __len__(self):
        return 2

    def __getitem__(self, index):
        name, guide = self.guide
        image = torch.full((3, 32, 32), 100 * index, dtype=torch.uint8)
        sides = {
            f"{side}_{key}": value for side in ("source", "target") for key, value in (("image", image), (name, guide))
        }
        return {**sides, "index": torch.tensor(index)}


@pytest.mark.parametrize(("name", "guide", "channels"), [("semantic", "semantic", 32), ("fonts", "skeleton", 2)])
def test_pictures_of_other_guides(name, guide, channels):
    network = models.create("multiscale.generator.tiny", pose_channels=channels).eval()
    config = SimpleNamespace(data=TransferDataConfig(name=name, height=32, width=32))
    pictures = transfer_pictures.samples(network, config, MadeUp(guide))
    assert is_picture(pictures["pairs"])
    assert "attention" not in pictures
