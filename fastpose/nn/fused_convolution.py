"""A convolution with what stands behind it, for inference: computed in the fastest of several equal ways."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from itertools import product
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_weights

from fastpose.nn.norm import EPSILON, InstanceNorm
from fastpose.nn.sync_norm import SyncBatchNorm2d

CHANNELS_LAST = torch.channels_last
Convolution = nn.Conv2d | nn.ConvTranspose2d
_FOLDED = (nn.BatchNorm2d, SyncBatchNorm2d)  # a subclass of somebody else's may compute something else


class FusedConvolution(nn.Module):
    """Convolution, normalisation, rectifier, sum: (x (B, C, H, W), residual or None) -> the maps of the convolution.

    It holds a copy of the convolution's weights; `append` takes over the layers behind it. The residual is added last.
    Maps are channels-last. There is no gradient. What the weights were arranged into at a call is forgotten when they
    are loaded, moved or converted; changes in place are not seen. Copies and pickles arrange them anew.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, convolution: Convolution) -> None:
        super().__init__()
        bias = convolution.bias
        self.register_buffer("weight", convolution.weight.detach().clone(memory_format=CHANNELS_LAST))
        self.register_buffer("bias", None if bias is None else bias.detach().clone())
        self.transposed = isinstance(convolution, nn.ConvTranspose2d)
        self.padding = cast("tuple[int, ...]", convolution.padding)
        self.stride, self.dilation, self.groups = convolution.stride, convolution.dilation, convolution.groups
        self.output_padding = convolution.output_padding
        self.normalised = self.rectified = False
        self._ways: dict[tuple[type[_Plain], torch.device, torch.dtype], _Plain] = {}
        self.eval()

    @staticmethod
    def takes(module: nn.Module) -> bool:
        """Return whether the module is a convolution that this one can stand for."""
        simple = type(module) is nn.Conv2d or (type(module) is nn.ConvTranspose2d and module.groups == 1)
        return simple and module.padding_mode == "zeros" and not isinstance(module.padding, str)

    def append(self, layer: nn.Module) -> bool:
        """Compute the layer behind this one here, if that can be; return whether it is so."""
        self._ways.clear()
        if self.rectified:
            return False
        if type(layer) is nn.ReLU:
            self.rectified = True
        elif self.normalised:
            return False
        elif type(layer) is InstanceNorm:
            self.normalised, self.bias = True, None  # its mean takes a bias away
        elif isinstance(layer, nn.BatchNorm2d) and type(layer) in _FOLDED and layer.running_mean is not None:
            self._fold(layer)
        else:
            return False
        return True

    def _fold(self, norm: nn.BatchNorm2d) -> None:
        mean, variance = cast("Tensor", norm.running_mean), cast("Tensor", norm.running_var)
        weight, bias = fuse_conv_bn_weights(
            self.weight, self.bias, mean, variance, norm.eps, norm.weight, norm.bias, self.transposed
        )
        self.weight, self.bias = weight.detach().contiguous(memory_format=CHANNELS_LAST), bias.detach()

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        x = x.contiguous(memory_format=CHANNELS_LAST)
        way = self._way(x)
        if not self.normalised:
            return way(x, self.rectified, residual)
        out = _standardised_(way(x, False, None))
        out = out.relu_() if self.rectified else out
        return out if residual is None else out.add_(residual)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FusedConvolution:
        self._ways.clear()
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args: Any) -> None:
        self._ways.clear()
        super()._load_from_state_dict(*args)

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and pickled: not the arranged weights, which oneDNN alone can read."""
        return {**self.__dict__, "_ways": {}}

    def _way(self, x: Tensor) -> _Plain:
        """The first way that serves this input, with the weights arranged for it when it is first taken."""
        kind = next(kind for kind in (_Winograd, _Packed, _Plain) if kind.serves(self, x))
        key = (kind, x.device, x.dtype)
        if key not in self._ways:
            self._ways[key] = kind(self, x)
        return self._ways[key]


def _standardised_(x: Tensor) -> Tensor:
    """Bring each channel of each image to mean 0 and deviation 1, in place, as `InstanceNorm` does."""
    if x.dtype in (torch.bfloat16, torch.float16):
        return _standardised_(x.float()).to(x.dtype)
    x.sub_(x.mean((2, 3), keepdim=True))
    return x.mul_(torch.rsqrt(x.square().mean((2, 3), keepdim=True) + EPSILON))


class _Plain:
    """By PyTorch's public functions, wherever the tensors are."""

    def __init__(self, layer: FusedConvolution, x: Tensor) -> None:
        self.layer = layer

    @classmethod
    def serves(cls, layer: FusedConvolution, x: Tensor) -> bool:
        return True

    def __call__(self, x: Tensor, rectified: bool, residual: Tensor | None) -> Tensor:
        """Return the convolution of x, rectified if asked for, plus the residual if there is one: a new tensor."""
        one = self.layer
        if one.transposed:
            out = functional.conv_transpose2d(
                x, one.weight, one.bias, one.stride, one.padding, one.output_padding, one.groups, one.dilation
            )
        else:
            out = functional.conv2d(x, one.weight, one.bias, one.stride, one.padding, one.dilation, one.groups)
        out = out.relu_() if rectified else out
        return out if residual is None else out.add_(residual)


class _Packed(_Plain):
    """By oneDNN with weights in the order that it likes best for the size of the first input.

    These are operators of torch's own compiler, private to it: they are used after they have proved right.
    """

    def __init__(self, layer: FusedConvolution, x: Tensor) -> None:
        self.bias = layer.bias
        self.shape: tuple[tuple[int, ...] | int, ...]
        if layer.transposed:
            self.shape = (layer.padding, layer.output_padding, layer.stride, layer.dilation, layer.groups)
            reorder = torch.ops.mkldnn._reorder_convolution_transpose_weight
            self.convolve = torch.ops.mkldnn._convolution_transpose_pointwise.default
        else:
            self.shape = (layer.padding, layer.stride, layer.dilation, layer.groups)
            reorder = torch.ops.mkldnn._reorder_convolution_weight
            self.convolve = torch.ops.mkldnn._convolution_pointwise.default
        self.fuses_sum = not layer.transposed
        self.weight = reorder(layer.weight, *self.shape, list(x.shape))

    @classmethod
    def serves(cls, layer: FusedConvolution, x: Tensor) -> bool:
        return x.device.type == "cpu" and x.numel() > 0 and packing_works(x.dtype)

    def __call__(self, x: Tensor, rectified: bool, residual: Tensor | None) -> Tensor:
        weights = (self.weight, self.bias, *self.shape)
        if residual is not None and self.fuses_sum and not rectified:
            other = residual.contiguous(memory_format=CHANNELS_LAST)
            sum_of = torch.ops.mkldnn._convolution_pointwise.binary
            return sum_of(x, other, *weights, "add", 1.0, None, [], "")
        out = self.convolve(x, *weights, "relu" if rectified else "none", [], "")
        return out if residual is None else out.add_(residual)


class _Winograd(_Plain):
    """A 3x3 convolution by products of matrices over tiles of 4x4 outputs, each of 6x6 inputs: F(4x4, 3x3).

    A quarter of the multiplications (Lavin and Gray, CVPR 2016), each result the same but for rounding. With these
    points the error is about that of oneDNN's channels-last sums; the usual 0, 1, -1, 2, -2 have twice as much.
    """

    POINTS: ClassVar = (0.0, math.sqrt(0.5), -math.sqrt(0.5), math.sqrt(2.0), -math.sqrt(2.0))
    TILE, WINDOW = 4, 6
    CHANNELS = 96  # with fewer, moving tiles costs what the products save
    TILES = 48  # with fewer, reading the four times larger weights does
    CHUNK = 256  # tiles at once: what they are transformed into stays in the cache

    def __init__(self, layer: FusedConvolution, x: Tensor) -> None:
        inverse = torch.linalg.inv(self._evaluation(self.WINDOW)).mT
        filters, outputs = self._evaluation(3), self._evaluation(self.TILE).mT
        taps = layer.weight.double().permute(2, 3, 1, 0).reshape(9, -1)  # (9, C * K)
        weight = torch.kron(filters, filters) @ taps
        self.weight = weight.to(x.dtype).reshape(-1, *layer.weight.shape[1::-1])  # (36, C, K)
        self.into = torch.kron(inverse, inverse).to(x.dtype)  # (36, 36)
        self.back = torch.kron(outputs, outputs).to(x.dtype)  # (16, 36)
        self.bias = layer.bias
        self.padding = layer.padding

    @classmethod
    def _evaluation(cls, size: int) -> Tensor:
        """The matrix (6, size) that takes a polynomial's coefficients to its values at the points and at infinity."""
        finite = torch.linalg.vander(torch.tensor(cls.POINTS, dtype=torch.float64), N=size)
        return torch.cat((finite, torch.eye(size, dtype=torch.float64)[-1:]))

    @classmethod
    def serves(cls, layer: FusedConvolution, x: Tensor) -> bool:
        ones = all(number == (1, 1) for number in (layer.stride, layer.dilation))
        tiles = x.shape[0] * math.prod(-(-side // cls.TILE) for side in x.shape[2:])
        return (
            x.device.type == "cpu"
            and x.dtype == torch.float32
            and not layer.transposed
            and layer.weight.shape[2:] == (3, 3)
            and ones
            and layer.groups == 1
            and min(layer.weight.shape[:2]) >= cls.CHANNELS
            and tiles >= cls.TILES
        )

    def __call__(self, x: Tensor, rectified: bool, residual: Tensor | None) -> Tensor:
        height, width = (side + 2 * pad - 2 for side, pad in zip(x.shape[2:], self.padding, strict=True))
        windows = self._windows(x, height, width)
        images, rows, columns = windows.shape[2:5]
        out = x.new_empty(images, rows, self.TILE, columns, self.TILE, self.weight.shape[2])
        some_rows = max(self.CHUNK // columns, 1)
        some_images = max(self.CHUNK // (rows * columns), 1)
        for first, row in product(range(0, images, some_images), range(0, rows, some_rows)):
            chunk = slice(first, first + some_images), slice(row, row + some_rows)
            out[chunk] = self._tiles(windows[:, :, *chunk], rectified).permute(2, 3, 0, 4, 1, 5)
        out = out.reshape(images, rows * self.TILE, columns * self.TILE, -1)[:, :height, :width].permute(0, 3, 1, 2)
        out = out.contiguous(memory_format=CHANNELS_LAST)
        return out if residual is None else out.add_(residual)

    def _windows(self, x: Tensor, height: int, width: int) -> Tensor:
        """The overlapping inputs of the tiles, a view (6, 6, B, rows, columns, C)."""
        margins = []
        for side, made, pad in zip(x.shape[:1:-1], (width, height), self.padding[::-1], strict=True):
            margins += [pad, -(-made // self.TILE) * self.TILE + 2 - side - pad]
        padded = functional.pad(x.permute(0, 2, 3, 1), (0, 0, *margins))
        return padded.unfold(1, self.WINDOW, self.TILE).unfold(2, self.WINDOW, self.TILE).permute(4, 5, 0, 1, 2, 3)

    def _tiles(self, windows: Tensor, rectified: bool) -> Tensor:
        """Windows (6, 6, b, r, c, C) -> tiles (4, 4, b, r, c, K), with bias and rectifier."""
        points = len(self.into)
        inputs = (self.into @ windows.reshape(points, -1)).view(points, -1, windows.shape[-1])  # (36, T, C)
        products = torch.bmm(inputs, self.weight).view(points, -1)  # (36, T * K)
        tiles = (self.back @ products).view(self.TILE, self.TILE, *windows.shape[2:5], -1)
        if self.bias is not None:
            tiles += self.bias
        return tiles.relu_() if rectified else tiles


@functools.cache
def packing_works(dtype: torch.dtype) -> bool:
    """Return whether oneDNN's packed convolutions are there for this number type and agree with PyTorch's own."""
    if not torch.backends.mkldnn.is_available() or dtype not in (torch.float32, torch.bfloat16):
        return False
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 4, 6, 5, generator=generator).to(dtype, memory_format=CHANNELS_LAST)
    convolutions = nn.Conv2d(4, 4, 3, padding=1), nn.ConvTranspose2d(4, 4, 3, padding=1)
    try:
        with torch.no_grad():
            return all(_agree(FusedConvolution(one.to(dtype)), x) for one in convolutions)
    except (AttributeError, RuntimeError, TypeError):  # another torch: no such operators, or other arguments
        return False


def _agree(layer: FusedConvolution, x: Tensor) -> bool:
    """Whether the packed way gives what the plain one does, in each of its forms."""
    limit = 1e-4 if x.dtype == torch.float32 else 0.1
    packed, plain = (way(layer, x) for way in (_Packed, _Plain))
    forms = product((False, True), (None, x))
    return all(torch.allclose(packed(x, *form), plain(x, *form), rtol=limit, atol=limit) for form in forms)
