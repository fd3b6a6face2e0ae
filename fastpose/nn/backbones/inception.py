"""Inception v3 (Szegedy et al.) for evaluation, under torchvision's key names; the auxiliary head is left out."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastpose.nn.backbones._sequential import start

# From ImageNet's normalisation, by channel, to the mean and deviation 0.5 the network was trained with.
_SCALE = (0.229 / 0.5, 0.224 / 0.5, 0.225 / 0.5)
_SHIFT = ((0.485 - 0.5) / 0.5, (0.456 - 0.5) / 0.5, (0.406 - 0.5) / 0.5)


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm and rectifier; ``kernel`` may be a pair (rows, columns), padded to match."""

    def __init__(
        self, in_channels: int, channels: int, kernel: int | tuple[int, int], *, stride: int = 1, pad: bool = True
    ) -> None:
        super().__init__()
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (sides[0] // 2, sides[1] // 2) if pad else (0, 0)
        self.conv = nn.Conv2d(in_channels, channels, sides, stride=stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(channels, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn(self.conv(x)))


def _mean(x: Tensor) -> Tensor:
    """The 3x3 mean that keeps the size; zeros outside count."""
    return functional.avg_pool2d(x, kernel_size=3, stride=1, padding=1)


def _half(x: Tensor) -> Tensor:
    return functional.max_pool2d(x, kernel_size=3, stride=2)


class MixedA(nn.Module):
    """1x1, 5x5 and double 3x3 branches beside a pooled one, at 35 x 35: (B, C, H, W) -> (B, 224 + pooled, H, W)."""

    def __init__(self, channels: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = ConvNorm(channels, 64, 1)
        self.branch5x5_1 = ConvNorm(channels, 48, 1)
        self.branch5x5_2 = ConvNorm(48, 64, 5)
        self.branch3x3dbl_1 = ConvNorm(channels, 64, 1)
        self.branch3x3dbl_2 = ConvNorm(64, 96, 3)
        self.branch3x3dbl_3 = ConvNorm(96, 96, 3)
        self.branch_pool = ConvNorm(channels, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        five = self.branch5x5_2(self.branch5x5_1(x))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat((self.branch1x1(x), five, double, self.branch_pool(_mean(x))), dim=1)


class ReduceB(nn.Module):
    """From 35 x 35 to 17 x 17: (B, C, H, W) -> (B, C + 480, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch3x3 = ConvNorm(channels, 384, 3, stride=2, pad=False)
        self.branch3x3dbl_1 = ConvNorm(channels, 64, 1)
        self.branch3x3dbl_2 = ConvNorm(64, 96, 3)
        self.branch3x3dbl_3 = ConvNorm(96, 96, 3, stride=2, pad=False)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat((self.branch3x3(x), double, _half(x)), dim=1)


class MixedC(nn.Module):
    """7x7 convolutions as pairs of rows and columns, at 17 x 17: (B, C, H, W) -> (B, 768, H, W)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.branch1x1 = ConvNorm(channels, 192, 1)
        self.branch7x7_1 = ConvNorm(channels, width, 1)
        self.branch7x7_2 = ConvNorm(width, width, (1, 7))
        self.branch7x7_3 = ConvNorm(width, 192, (7, 1))
        self.branch7x7dbl_1 = ConvNorm(channels, width, 1)
        self.branch7x7dbl_2 = ConvNorm(width, width, (7, 1))
        self.branch7x7dbl_3 = ConvNorm(width, width, (1, 7))
        self.branch7x7dbl_4 = ConvNorm(width, width, (7, 1))
        self.branch7x7dbl_5 = ConvNorm(width, 192, (1, 7))
        self.branch_pool = ConvNorm(channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat((self.branch1x1(x), seven, double, self.branch_pool(_mean(x))), dim=1)


class ReduceD(nn.Module):
    """From 17 x 17 to 8 x 8: (B, C, H, W) -> (B, C + 512, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch3x3_1 = ConvNorm(channels, 192, 1)
        self.branch3x3_2 = ConvNorm(192, 320, 3, stride=2, pad=False)
        self.branch7x7x3_1 = ConvNorm(channels, 192, 1)
        self.branch7x7x3_2 = ConvNorm(192, 192, (1, 7))
        self.branch7x7x3_3 = ConvNorm(192, 192, (7, 1))
        self.branch7x7x3_4 = ConvNorm(192, 192, 3, stride=2, pad=False)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return torch.cat((self.branch3x3_2(self.branch3x3_1(x)), self.branch7x7x3_4(seven), _half(x)), dim=1)


class MixedE(nn.Module):
    """3x3 branches that fork into a row and a column, at 8 x 8: (B, C, H, W) -> (B, 2048, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch1x1 = ConvNorm(channels, 320, 1)
        self.branch3x3_1 = ConvNorm(channels, 384, 1)
        self.branch3x3_2a = ConvNorm(384, 384, (1, 3))
        self.branch3x3_2b = ConvNorm(384, 384, (3, 1))
        self.branch3x3dbl_1 = ConvNorm(channels, 448, 1)
        self.branch3x3dbl_2 = ConvNorm(448, 384, 3)
        self.branch3x3dbl_3a = ConvNorm(384, 384, (1, 3))
        self.branch3x3dbl_3b = ConvNorm(384, 384, (3, 1))
        self.branch_pool = ConvNorm(channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        forks = (
            self.branch3x3_2a(single),
            self.branch3x3_2b(single),
            self.branch3x3dbl_3a(double),
            self.branch3x3dbl_3b(double),
        )
        return torch.cat((self.branch1x1(x), *forks, self.branch_pool(_mean(x))), dim=1)


class InceptionV3(nn.Module):
    """Inception v3: images (B, 3, 299, 299) -> logits (B, 1000), or pooled features (B, 2048) without ``head``.

    Images in [-1, 1], or ImageNet-normalised with ``transform_input``; any side from 75 pixels on.
    """

    def __init__(self, *, head: bool = True, transform_input: bool = False) -> None:
        super().__init__()
        self.transform_input = transform_input
        self.Conv2d_1a_3x3 = ConvNorm(3, 32, 3, stride=2, pad=False)
        self.Conv2d_2a_3x3 = ConvNorm(32, 32, 3, pad=False)
        self.Conv2d_2b_3x3 = ConvNorm(32, 64, 3)
        self.Conv2d_3b_1x1 = ConvNorm(64, 80, 1)
        self.Conv2d_4a_3x3 = ConvNorm(80, 192, 3, pad=False)
        self.Mixed_5b = MixedA(192, pooled=32)
        self.Mixed_5c = MixedA(256, pooled=64)
        self.Mixed_5d = MixedA(288, pooled=64)
        self.Mixed_6a = ReduceB(288)
        self.Mixed_6b = MixedC(768, width=128)
        self.Mixed_6c = MixedC(768, width=160)
        self.Mixed_6d = MixedC(768, width=160)
        self.Mixed_6e = MixedC(768, width=192)
        self.Mixed_7a = ReduceD(768)
        self.Mixed_7b = MixedE(1280)
        self.Mixed_7c = MixedE(2048)
        self.fc = nn.Linear(2048, 1000) if head else None
        start(self)

    def features(self, images: Tensor) -> Tensor:
        """Return the mean of the last maps, (B, 2048)."""
        if self.transform_input:
            scale, shift = (images.new_tensor(values)[:, None, None] for values in (_SCALE, _SHIFT))
            images = images * scale + shift
        x = _half(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(images))))
        x = _half(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        for mixed in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c"):
            x = self.get_submodule(f"Mixed_{mixed}")(x)
        return x.mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        pooled = self.features(images)
        return pooled if self.fc is None else self.fc(pooled)
