"""System 002, adversarial 3D pose estimation in the wild (Yang et al., CVPR 2018).

The paper's code was not released. Its generator is the network of Zhou et al. (ICCV 2017) with another depth head; of
its discriminator it says what goes in and that three layers follow, so widths, embeddings and depth maps are ours.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastpose import _checks, ops
from fastpose.models._registry import register
from fastpose.nn.coordinates import at_height_one, heatmap_pixels
from fastpose.nn.hourglass import Hourglass, HourglassStack, Merge, StackedHourglass, Stem, chain
from fastpose.nn.residual import Residual
from fastpose.nn.sizes import check_counts, check_maps, check_normed

DepthHead = Literal["gap", "flatten"]
Source = Literal["image", "geometry", "maps"]
Norm = Literal["batch", "none"]
Geometry = Literal["flatten", "conv"]
DepthMapKind = Literal["gaussian", "constant", "onehot"]
DepthMapOrigin = Literal["heatmaps", "joints"]

SOURCES: tuple[Source, ...] = get_args(Source)
PROFILES = {"gaussian": "gaussian", "constant": "constant", "onehot": "binary"}
"""Our names of depth maps and the profiles of `ops.render_depth_maps`."""
POOLINGS = {"gap": 3, "flatten": 4}
MODULES = {"gap": 1, "flatten": 2}
SMALLEST = {"image": 32, "heatmaps": 8}
"""Height and width that the poolings of an embedding bring down to one."""
TINY = {"stacks": 2, "modules": 1, "width": 16, "depth": 2, "keypoints": 5}


@register("pose3d.generator", tiny=TINY)
def generator(
    *,
    stacks: int = 2,
    modules: int = 1,
    width: int = 256,
    depth: int = 4,
    keypoints: int = 16,
    depth_head: DepthHead = "gap",
    regressor_modules: int | None = None,
    image_size: int = 256,
    stem_width: int | None = None,
) -> Generator:
    """Return the generator: image (B, 3, H, W) -> (list of heatmaps (B, K, H/4, W/4), depth (B, K)).

    ``depth_head="gap"`` is the paper's: three stages of ``regressor_modules`` residual modules (1 unless given) and
    pooling, the mean over the places, one linear layer; how many modules and which pooling it does not say.
    ``"flatten"`` is Zhou et al.'s: four stages (of 2 modules unless given), then a linear layer over all places, for
    images of ``image_size`` x ``image_size`` alone. ``depth`` counts the levels of an hourglass; ``stem_width``
    channels leave the first convolution, a quarter of ``width`` unless given.
    """
    check_counts(stacks=stacks, modules=modules, width=width, depth=depth, keypoints=keypoints)
    _checks.choice("depth_head", depth_head, get_args(DepthHead))
    if width % 8:
        raise ValueError(f"width: expected a multiple of 8, got {width}")
    each = MODULES[depth_head] if regressor_modules is None else regressor_modules
    check_counts(regressor_modules=each, stem_width=stem_width or width // 4)
    side = _flattened_side(image_size) if depth_head == "flatten" else None
    first = Stem(3, stem_width or width // 4, width, skip="conv")
    tails = [_stack(width, keypoints, depth, modules) for _ in range(stacks)]
    stages = [chain(lambda: Residual(width, width), each) for _ in range(POOLINGS[depth_head])]
    regressor = DepthRegressor(Merge(width, keypoints), stages, width, keypoints, side)
    return Generator(StackedHourglass(first, tails, width, keypoints), regressor)


@register("pose3d.discriminator", tiny={"keypoints": 5, "width": 16, "hidden": 8})
def discriminator(
    *,
    sources: Collection[Source] = SOURCES,
    keypoints: int = 16,
    width: int = 256,
    hidden: int = 512,
    norm: Norm = "batch",
    geometry: Geometry = "flatten",
    depth_maps: DepthMapKind = "gaussian",
    depth_maps_from: DepthMapOrigin = "heatmaps",
    sigma: float = 1.0,
    leak: float = 0.2,
) -> Discriminator:
    """Return the multi-source discriminator: (image (B, 3, H, W), heatmaps (B, K, h, w), joints (B, K, 3)) -> (B,).

    Each of ``sources`` is embedded in ``width`` numbers: the ``image``; the ``geometry``, which is the pairwise
    descriptor of the joints (eq. 1); the ``maps``, which are heatmaps and depth maps. The paper's variants are Map
    (image and maps), Geo (image and geometry) and Full (all). Three linear layers, the first two with ``hidden``
    outputs and leaky rectifiers of slope ``leak``, make one logit of them. What follows the paper leaves open.

    ``norm="none"`` leaves out all batch norms, as a gradient penalty wants. ``geometry="conv"`` embeds the descriptor
    by convolutions over pairs of joints instead of one linear layer. A depth map is the joint's depth times its
    heatmap at peak 1 (``gaussian``), everywhere (``constant``), or at one pixel (``onehot``); its place comes from the
    heatmaps, or from the joints' x and y, where it is drawn with ``sigma`` heatmap pixels
    (``depth_maps_from="joints"``).
    """
    check_counts(keypoints=keypoints, width=width, hidden=hidden)
    if width % 8:
        raise ValueError(f"width: expected a multiple of 8, got {width}")
    _checks.choice("norm", norm, get_args(Norm))
    _checks.choice("geometry", geometry, get_args(Geometry))
    if not 0 <= leak < 1:
        raise ValueError(f"leak: expected a slope from 0 up to 1, got {leak}")
    maker = DepthMaps(depth_maps, depth_maps_from, sigma)
    makers = {
        "image": lambda: _image_embedding(width, norm),
        "geometry": lambda: _geometry_embedding(geometry, keypoints, width, leak),
        "maps": lambda: _map_embedding(keypoints, width, norm),
    }
    embeddings: dict[str, nn.Module] = {source: makers[source]() for source in _chosen_sources(sources)}
    layers = (width * len(embeddings), hidden, hidden)
    body = [layer for i, o in pairwise(layers) for layer in (nn.Linear(i, o), nn.LeakyReLU(leak))]
    return Discriminator(nn.ModuleDict(embeddings), nn.Sequential(*body, nn.Linear(hidden, 1)), maker, keypoints)


# ------------------------------------------------------------------------------------------------------------ generator


class DepthRegressor(nn.Module):
    """What the last stack was given, its features and its heatmaps -> the joints' depths (B, keypoints).

    All three are merged as for a next stack, then each stage is followed by 2x2 max pooling. The linear layer sees the
    mean over the places, or with ``side`` all side x side of them. Depths are relative to the root joint in units of
    half a crop side, positive away from the camera.
    """

    def __init__(self, merge: Merge, stages: Sequence[nn.Module], width: int, keypoints: int, side: int | None) -> None:
        super().__init__()
        self.side = side
        self.merge = merge
        self.stages = nn.ModuleList(stages)
        self.regress = nn.Linear(width * (side or 1) ** 2, keypoints)

    def forward(self, x: Tensor, features: Tensor, heatmaps: Tensor) -> Tensor:
        x = self.merge(x, features, heatmaps)  # (B, width, H/4, W/4)
        for stage in self.stages:
            x = functional.max_pool2d(stage(x), 2)  # (B, width, h/2, w/2)
        return self.regress(x.mean((2, 3)) if self.side is None else x.flatten(1))  # (B, keypoints)


class Generator(nn.Module):
    """A stacked hourglass and a depth regressor behind it.

    image (B, 3, H, W) -> (list of heatmaps (B, K, H/4, W/4), one per stack, the best last; depth (B, K)).
    ``two_d`` is an `hourglass` and loads its weights; ``depth`` is all that stands behind it, the last merging
    convolutions included, which no heatmap needs. The image is RGB in 0..1, less the data set's mean. Raises
    ``ValueError`` for an image of another rank or size and, in training mode, for a single image of the least size.
    """

    def __init__(self, two_d: StackedHourglass, depth: DepthRegressor) -> None:
        super().__init__()
        self.two_d = two_d
        self.depth = depth
        self.depth_only = False

    def forward(self, image: Tensor) -> tuple[list[Tensor], Tensor]:
        self._check(image)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.depth_only):
            heatmaps, last = self.two_d.with_last(image)
        return heatmaps, self.depth(*last)

    def two_d_parameters(self) -> Iterator[nn.Parameter]:
        """Return the parameters of the stacked hourglass."""
        return self.two_d.parameters()

    def depth_parameters(self) -> Iterator[nn.Parameter]:
        """Return the parameters of the depth regressor: with the hourglass's, all there are."""
        return self.depth.parameters()

    def train_depth_only(self, only: bool = True) -> Generator:
        """Fix the 2D part from now on ("fix 2D"), or with ``only=False`` let it train again; return the network.

        While it is fixed it stays in evaluation mode through every later ``train()``, so its running statistics stand
        still, and its heatmaps carry no gradient. An optimizer is then given `depth_parameters`. This is a mode and not
        saved with the weights.
        """
        self.depth_only = only
        return self.train(self.training)

    def train(self, mode: bool = True) -> Generator:
        """Set training or evaluation mode; a fixed 2D part stays in evaluation mode."""
        super().train(mode)
        if self.depth_only:
            self.two_d.eval()
        return self

    def _check(self, image: Tensor) -> None:
        check_maps("image", image, 3, 4 * 2 ** len(self.depth.stages))
        expected = None if self.depth.side is None else 4 * self.depth.side * 2 ** len(self.depth.stages)
        if expected is not None and tuple(image.shape[2:]) != (expected, expected):
            raise ValueError(
                f"image: expected {expected} x {expected} for depth_head='flatten', got {image.shape[2]} x "
                f"{image.shape[3]}; resize it, or create the network with another image_size or depth_head='gap'"
            )
        check_normed("image", image, self.two_d.multiple, "batch", self.two_d.training)


# -------------------------------------------------------------------------------------------------------- discriminator


class DepthMaps(nn.Module):
    """Planes that say a joint's depth where it is: heatmaps (B, K, h, w), joints (B, K, 3) -> (B, K, h, w).

    ``kind`` and ``origin`` are ``depth_maps`` and ``depth_maps_from`` of `discriminator`. The plane of a heatmap
    without a positive value is zero. Differentiable twice in what it is made of.
    """

    def __init__(self, kind: DepthMapKind, origin: DepthMapOrigin, sigma: float) -> None:
        super().__init__()
        _checks.choice("depth_maps", kind, get_args(DepthMapKind))
        _checks.choice("depth_maps_from", origin, get_args(DepthMapOrigin))
        if not 0 < sigma < float("inf"):
            raise ValueError(f"sigma: expected a positive number of heatmap pixels, got {sigma}")
        self.kind, self.origin, self.sigma = kind, origin, sigma

    def forward(self, heatmaps: Tensor, joints: Tensor) -> Tensor:
        size, depth = heatmaps.shape[2:], joints[..., 2]  # (B, K)
        profile = PROFILES[self.kind]
        if self.origin == "joints":
            points, peaks = heatmap_pixels(joints, size), heatmaps.amax((2, 3))  # (B, K, 2), (B, K)
            return ops.render_depth_maps(points, depth, size, self.sigma, visibility=peaks, profile=profile)
        if self.kind == "onehot":
            points, peaks = ops.decode_heatmaps(heatmaps, method="argmax")
            points = points.to(depth.dtype)
            return ops.render_depth_maps(points, depth, size, self.sigma, visibility=peaks, profile=profile)
        planes = heatmaps.clamp(min=0)  # negative values are no evidence, and over a faint peak they would be huge
        if self.kind == "constant":
            return depth[..., None, None] * (planes.amax((2, 3), keepdim=True) > 0).expand_as(planes)
        return depth[..., None, None] * at_height_one(planes)

    def extra_repr(self) -> str:
        return f"{self.kind}, from {self.origin}"


class Discriminator(nn.Module):
    """Judges whether a pose is true and fits its image: (image (B, 3, H, W), heatmaps (B, K, h, w), joints (B, K, 3)).

    The logit (B,) is high for what annotators gave. Joints stand in the crop's cube (`nn.coordinates`), and the depth
    maps are made of them and the heatmaps. What no source needs is not read and may be None: the image without
    ``image``, the heatmaps without ``maps``. Differentiable twice in all three. Raises ``ValueError`` for inputs of
    other shapes, an image below 32 x 32, heatmaps below 8 x 8.
    """

    def __init__(self, embeddings: nn.ModuleDict, head: nn.Sequential, depth_maps: DepthMaps, keypoints: int) -> None:
        super().__init__()
        self.keypoints = keypoints
        self.embeddings = embeddings
        self.depth_maps = depth_maps
        self.head = head

    def forward(self, image: Tensor | None, heatmaps: Tensor | None, joints: Tensor | None) -> Tensor:
        given = self._checked(image=image, heatmaps=heatmaps, joints=joints)
        dtype = next(self.parameters()).dtype
        codes = [embed(self._seen(source, given).to(dtype)) for source, embed in self.embeddings.items()]
        return self.head(torch.cat(codes, dim=1)).squeeze(1)  # (B,)

    def _seen(self, source: str, given: Mapping[str, Tensor]) -> Tensor:
        """What is embedded of one source."""
        if source == "image":
            return given["image"]  # (B, 3, H, W)
        if source == "geometry":
            return ops.pairwise_descriptor(given["joints"])  # (B, 6, K, K)
        heatmaps = given["heatmaps"]
        return torch.cat((heatmaps, self.depth_maps(heatmaps, given["joints"])), dim=1)  # (B, 2 K, h, w)

    def _checked(self, **given: Tensor | None) -> dict[str, Tensor]:
        """Return what the sources read; raise unless it is there, of the expected shapes and of one batch."""
        shapes = {
            "image": ((3, None, None), "(B, 3, H, W)"),
            "heatmaps": ((self.keypoints, None, None), "(B, K, h, w)"),
            "joints": ((self.keypoints, 3), "(B, K, 3)"),
        }
        read: dict[str, Tensor] = {}
        batch = None
        for argument in _read(list(self.embeddings)):
            sizes, names = shapes[argument]
            tensor = _checks.tensor(argument, given[argument], names)
            _checks.shape(argument, tensor, (batch, *sizes), names)
            if argument != "joints":
                check_maps(argument, tensor, tensor.shape[1], SMALLEST[argument])
            batch = tensor.shape[0]
            read[argument] = tensor
        return read


# -------------------------------------------------------------------------------------------------------------- helpers


def _stack(width: int, keypoints: int, depth: int, modules: int) -> HourglassStack:
    return HourglassStack(Hourglass(depth, modules, lambda: Residual(width, width)), width, keypoints, modules)


def _flattened_side(image_size: int) -> int:
    """Height and width of the maps behind the four poolings of the heatmaps' size."""
    least = 4 * 2 ** POOLINGS["flatten"]
    if image_size < least or image_size % least:
        raise ValueError(f"image_size: expected a multiple of {least} for depth_head='flatten', got {image_size}")
    return image_size // least


def _chosen_sources(sources: Collection[Source]) -> list[Source]:
    """The sources in one order, so that the order in which they are named does not matter."""
    if isinstance(sources, str) or not isinstance(sources, Collection):
        raise TypeError(f"sources: expected some of {', '.join(SOURCES)} in a list, got {sources!r}")
    for source in sources:
        _checks.choice("sources", source, SOURCES)
    if not sources or len(set(sources)) != len(sources):
        raise ValueError(f"sources: expected each of {', '.join(SOURCES)} at most once and at least one, got {sources}")
    return [source for source in SOURCES if source in sources]


def _read(sources: Sequence[str]) -> list[str]:
    """The arguments that the sources are made of."""
    needs = {"image": ("image",), "geometry": ("joints",), "maps": ("heatmaps", "joints")}
    return list(dict.fromkeys(argument for source in sources for argument in needs[source]))


def _residual(in_channels: int, out_channels: int, norm: Norm) -> Residual:
    """A residual module; without norms its rectifiers are not in place, as the first would change the skip's input."""
    module = Residual(in_channels, out_channels)
    if norm == "none":
        for place, layer in enumerate(module.body):
            if isinstance(layer, nn.BatchNorm2d):
                module.body[place] = nn.Identity()
            elif isinstance(layer, nn.ReLU):
                module.body[place] = nn.ReLU()
    return module


def _pooled_residuals(widths: Sequence[int], norm: Norm) -> list[nn.Module]:
    """Residual modules, each with 2x2 max pooling behind it, and the mean over the places."""
    layers = [layer for i, o in pairwise(widths) for layer in (_residual(i, o, norm), nn.MaxPool2d(2))]
    return [*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()]


def _image_embedding(width: int, norm: Norm) -> nn.Sequential:
    """(B, 3, H, W) -> (B, width)."""
    first = nn.Conv2d(3, width // 4, 7, stride=2, padding=3)
    normed = nn.BatchNorm2d(width // 4) if norm == "batch" else nn.Identity()
    widths = (width // 4, width // 2, width, width, width)
    return nn.Sequential(first, normed, nn.ReLU(), *_pooled_residuals(widths, norm))


def _map_embedding(keypoints: int, width: int, norm: Norm) -> nn.Sequential:
    """(B, 2 K, h, w) -> (B, width)."""
    first = nn.Conv2d(2 * keypoints, width // 4, 3, padding=1)
    return nn.Sequential(first, *_pooled_residuals((width // 4, width // 2, width, width), norm))


def _geometry_embedding(kind: Geometry, keypoints: int, width: int, leak: float) -> nn.Sequential:
    """(B, 6, K, K) -> (B, width)."""
    if kind == "flatten":
        return nn.Sequential(nn.Flatten(), nn.Linear(6 * keypoints**2, width), nn.LeakyReLU(leak))
    convolutions = (nn.Conv2d(6, width // 4, 1), nn.Conv2d(width // 4, width // 2, 3, padding=1))
    last = nn.Conv2d(width // 2, width, 3, padding=1)
    layers = [layer for convolution in (*convolutions, last) for layer in (convolution, nn.LeakyReLU(leak))]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
