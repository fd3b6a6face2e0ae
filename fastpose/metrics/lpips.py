"""LPIPS v0.1 (Zhang et al.): weighted distances between the features of a trunk, by VGG, SqueezeNet or AlexNet.

The trunk's weights are a file that the caller names (torchvision's format); the published weights of the distances lie
in the installed torchmetrics, part of the ``eval`` extra.
"""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn

from fastpose._checks import choice
from fastpose._checks import tensor as check_tensor
from fastpose.metrics.image import ImageProtocol
from fastpose.nn import backbones

# Backbone, ends of the five or seven slices of its layers, channels there.
_NETS = {
    "vgg": ("vgg16", (4, 9, 16, 23, 30), (64, 128, 256, 512, 512)),
    "squeeze": ("squeezenet1_1", (2, 5, 8, 10, 11, 12, 13), (64, 128, 256, 384, 384, 512, 512)),
    "alex": ("alexnet", (2, 5, 8, 10, 12), (64, 192, 384, 256, 256)),
}
NETS = tuple(_NETS)
SMALLEST = 32
"""Pixels: the least height and width that every trunk can reduce."""

_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_TINY = 1e-10
_HEADS = "functional/image/lpips_models"


class LPIPS(nn.Module):
    """The distance of image pairs: (generated, target), each (B, 3, H, W) in [-1, 1], to (B,); 0 for equal images.

    Args:
        net: ``"vgg"``, ``"squeeze"`` or ``"alex"``.
        trunk: torchvision's weights of vgg16, squeezenet1_1 or alexnet (.pth or .safetensors), or such a network.
        heads: file of the published distance weights; default the one that torchmetrics carries.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file holds something else, or the name is unknown.
        ImportError: torchmetrics is not installed and no ``heads`` are named.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, net: str, trunk: str | Path | nn.Module, heads: str | Path | None = None) -> None:
        super().__init__()
        choice("net", net, NETS)
        name, self.ends, channels = _NETS[net]
        network = trunk if isinstance(trunk, nn.Module) else backbones.load(name, trunk)
        self.features = _trunk(name, network, self.ends[-1])
        self.heads = nn.ParameterList(_read_heads(net, heads, channels))
        self.register_buffer("shift", torch.tensor(_SHIFT)[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE)[:, None, None], persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, generated: Tensor, target: Tensor) -> Tensor:
        total = torch.zeros(len(generated), dtype=generated.dtype, device=generated.device)
        for ours, truth, head in zip(self._look(generated), self._look(target), self.heads, strict=True):
            squares = (_unit(ours) - _unit(truth)).square()  # (B, C, h, w)
            total = total + (squares.mean((2, 3)) * head).sum(1)
        return total

    def _look(self, images: Tensor) -> list[Tensor]:
        """Return the features at the ends of the slices."""
        images = check_tensor("images", images, "(B, 3, H, W)", ranks=(4,))
        if images.shape[1] != 3 or min(images.shape[2:]) < SMALLEST:
            raise ValueError(
                f"images: expected (B, 3, H, W) of at least {SMALLEST} x {SMALLEST} pixels, got {tuple(images.shape)}"
            )
        return backbones.outputs(self.features, (images - self.shift) / self.scale, self.ends)


def protocol(net: str, trunk: str | Path | nn.Module, heads: str | Path | None = None) -> ImageProtocol:
    """Return LPIPS as an image protocol of uint8 images; arguments and errors as :class:`LPIPS`."""
    network = LPIPS(net, trunk, heads)

    @torch.no_grad()
    def measure(generated: Tensor, target: Tensor) -> Tensor:
        network.to(generated.device)
        values = network(*(images.float() / 127.5 - 1 for images in (generated, target))).double()
        if not bool(values.isfinite().all()):
            raise ValueError(f"LPIPS ({net}): the distance is not finite; the trunk's weights are damaged")
        return values

    return ImageProtocol(
        name=f"LPIPS ({net})",
        sentence=f"LPIPS v0.1 by {_NETS[net][0]}, images in [-1, 1] at their own size, mean over images (system 003)",
        measure=measure,
        smallest=SMALLEST,
    )


def _unit(features: Tensor) -> Tensor:
    """Return features of length 1 over the channels at each place."""
    return features / (torch.linalg.vector_norm(features, dim=1, keepdim=True) + _TINY)


def _trunk(name: str, network: nn.Module, length: int) -> nn.Sequential:
    """Return a copy of the network's first layers, so that the caller's stay as they are; they must be ``name``'s."""
    with torch.device("meta"):
        expected = _shapes(_row(backbones.create(name), length))
    features = copy.deepcopy(_row(network, length))
    if _shapes(features) != expected:
        raise ValueError(f"trunk: expected the layers of {name} as features, got {type(network).__name__} with others")
    return features


def _row(network: nn.Module, length: int) -> nn.Sequential:
    return nn.Sequential(*list(getattr(network, "features", nn.Sequential()).children())[:length])


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in module.state_dict().items()}


def _read_heads(net: str, path: str | Path | None, channels: tuple[int, ...]) -> list[nn.Parameter]:
    """Return the weights of each slice's channels, (C,) each."""
    file = _installed_heads(net) if path is None else Path(path)
    weights = backbones.read(f"LPIPS ({net})", file)
    names = [f"lin{index}.model.1.weight" for index in range(len(channels))]
    shapes = {name: tuple(weights[name].shape) if name in weights else None for name in names}
    if shapes != {name: (1, width, 1, 1) for name, width in zip(names, channels, strict=True)}:
        raise ValueError(f"LPIPS ({net}): expected {', '.join(names)} of (1, C, 1, 1), C = {channels}, in {file}")
    return [nn.Parameter(weights[name].float().flatten()) for name in names]


def _installed_heads(net: str) -> Path:
    """Return the file in torchmetrics, found without importing it."""
    package = importlib.util.find_spec("torchmetrics")
    if package is None or package.origin is None:
        raise ImportError(
            f"LPIPS ({net}) needs the published weights of its distances, which torchmetrics carries and which is not "
            'installed; run: pip install "fastpose[eval]"'
        )
    file = Path(package.origin).parent / _HEADS / f"{net}.pth"
    if not file.is_file():
        raise FileNotFoundError(
            f"LPIPS ({net}): {file} is missing from the installed torchmetrics; name the published weights by heads="
        )
    return file
