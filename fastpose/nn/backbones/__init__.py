"""Classification networks that losses and metrics look through, under torchvision's key names.

The weights are the user's: a file that torchvision published, or any file of the same keys and shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from fastpose._checks import unknown
from fastpose.nn.backbones import _files
from fastpose.nn.backbones._files import read
from fastpose.nn.backbones._sequential import outputs
from fastpose.nn.backbones.alexnet import AlexNet
from fastpose.nn.backbones.inception import InceptionV3
from fastpose.nn.backbones.resnet import ResNet
from fastpose.nn.backbones.squeezenet import SqueezeNet
from fastpose.nn.backbones.vgg import VGG

__all__ = ["NAMES", "VGG", "AlexNet", "InceptionV3", "ResNet", "SqueezeNet", "create", "load", "outputs", "read"]

_MAKERS: dict[str, Callable[..., nn.Module]] = {
    "vgg16": partial(VGG, 16),
    "vgg19": partial(VGG, 19),
    "alexnet": AlexNet,
    "squeezenet1_1": SqueezeNet,
    "inception_v3": InceptionV3,
    "resnet18": partial(ResNet, 18),
    "resnet50": partial(ResNet, 50),
}
NAMES = tuple(_MAKERS)

# The keys of the published files that a network without its head (and Inception in evaluation) has no use for.
_UNUSED = {"inception_v3": ("AuxLogits.", "fc."), "resnet18": ("fc.",), "resnet50": ("fc.",)}
_CLASSIFIER = ("classifier.",)


def create(name: str, **options: Any) -> nn.Module:
    """Return the backbone ``name`` with random weights, in training mode.

    Options: ``head`` keeps the classifier (default for inception_v3 alone), ``transform_input`` of inception_v3 takes
    ImageNet-normalised images, ``last_stride`` of the resnets. Raises ``ValueError`` for an unknown name, with the
    nearest known one.
    """
    if name not in _MAKERS:
        raise ValueError(unknown("backbone", name, NAMES))
    return _MAKERS[name](**options)


def load(name: str, path: str | Path, **options: Any) -> nn.Module:
    """Return the backbone ``name`` with the weights of a torchvision-format file, frozen and in evaluation mode.

    The file is .safetensors, or what ``torch.save(network.state_dict())`` wrote; it is read without running code. Keys
    must fit strictly; only ``classifier.*`` (``fc.*`` of a resnet, ``AuxLogits.*`` of inception_v3) are dropped where
    the network has no such part. Options as `create`. Raises ``FileNotFoundError`` or ``ValueError`` in one sentence.
    """
    network = create(name, **options)
    _files.fill(name, network, _files.read(name, path), _UNUSED.get(name, _CLASSIFIER), path)
    return network.requires_grad_(False).eval()
