"""System 001, PoNA: pose-guided non-local attention for human pose transfer (Li et al., TIP 2020)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn

from fastpose import _checks
from fastpose.models._registry import register
from fastpose.nn.init import normal_
from fastpose.nn.nonlocal_block import NonLocalBlock
from fastpose.nn.norm import NORMS, Norm, needs_bias, norm_layer
from fastpose.nn.rectifiers import leaky_relu, relu
from fastpose.nn.residual import ResidualSum
from fastpose.nn.sizes import check_counts, check_maps, check_normed, check_pair
from fastpose.nn.spectral_norm import normalise_spectra

Fusion = Literal["head", "middle", "tail", "none"]
Activation = Literal["relu", "leaky_relu"]
FUSIONS: tuple[Fusion, ...] = ("head", "middle", "tail", "none")
ACTIVATIONS: tuple[Activation, ...] = ("relu", "leaky_relu")
Rectifier = Callable[[], nn.Module]


@register("pona.generator", tiny={"blocks": 2, "width": 8})
def generator(
    *,
    blocks: int = 3,
    width: int = 64,
    norm: Norm = "instance",
    fusion: Fusion = "head",
    cross_attention: bool = True,
    self_attention: bool = True,
    self_attention_beta: bool = True,
    dropout: float = 0.5,
    pose_channels: int = 36,
) -> Generator:
    """Return the generator of PoNA: (image (B, 3, H, W), poses (B, pose_channels, H, W)) -> image (B, 3, H, W).

    Images are in -1..1; the poses are maps of the source's and then of the target's key points. ``norm`` is the
    ``instance`` norm of the DeepFashion model or the ``batch`` norm of Market's. Without ``cross_attention`` (table IV)
    the image code never sees the poses: the pose encoder and the pose path of the blocks keep their parameters, which
    the published count holds, but are not run and get no gradient. The other options are those of `block`, whose
    channels are 4 * ``width``.
    """
    check_counts(blocks=blocks, width=width, pose_channels=pose_channels)
    if width % 2:
        raise ValueError(f"width: expected an even number, got {width}")

    def one() -> Block:
        return block(
            channels=4 * width,
            norm=norm,
            fusion=fusion,
            cross_attention=cross_attention,
            self_attention=self_attention,
            self_attention_beta=self_attention_beta,
            dropout=dropout,
        )

    return Generator([one() for _ in range(blocks)], width, norm, pose_channels)


@register("pona.block", tiny={"channels": 16})
def block(
    *,
    channels: int = 256,
    norm: Norm = "instance",
    fusion: Fusion = "head",
    cross_attention: bool = True,
    self_attention: bool = True,
    self_attention_beta: bool = True,
    dropout: float = 0.5,
) -> Block:
    """Return one PoNA block: (image code (B, channels, h, w), pose code of that shape) -> both, updated.

    ``fusion`` says where the image code joins the pose code on its way through four convolutions: before all of them
    (``head``), after two (``middle``), after three (``tail``), nowhere (``none``); table V. ``self_attention`` stands
    where they join, or on the pose code alone; ``self_attention_beta`` is its second scalar, which the released code
    has and the paper has not. ``cross_attention`` lets the pose code guide the image code (eq. 4 to 6).
    """
    check_counts(channels=channels)
    if channels % 8:
        raise ValueError(f"channels: expected a multiple of 8, got {channels}")
    _checks.choice("norm", norm, NORMS)
    _checks.choice("fusion", fusion, FUSIONS)
    _check_dropout(dropout)
    attended = channels if fusion == "none" else 2 * channels
    return Block(
        PoseUpdate(channels, norm, fusion, dropout),
        channels,
        norm,
        dropout,
        self_attention=NonLocalBlock(attended, beta=self_attention_beta) if self_attention else None,
        cross_attention=NonLocalBlock(channels) if cross_attention else None,
    )


@register("pona.discriminator", tiny={"width": 8, "blocks": 1})
def discriminator(
    *,
    in_channels: int = 6,
    width: int = 64,
    norm: Norm = "instance",
    blocks: int = 3,
    sigmoid: bool = False,
    spectral_norm: bool = True,
    self_attention: bool = False,
    activation: Activation = "relu",
    dropout: float = 0.5,
) -> Discriminator:
    """Return a discriminator of PoNA: maps (B, in_channels, H, W) -> scores (B, 4 * width, H/4, W/4).

    Six channels are the appearance discriminator's, two images; 21 the pose discriminator's, an image and the target's
    key-point maps. The released code has rectifiers, spectral norm on every convolution and no attention; the paper
    ``leaky_relu`` and ``self_attention`` behind every residual block. ``sigmoid`` makes probabilities of the scores,
    for the binary cross-entropy of Market. Weights start as PyTorch's, which the released code leaves.
    """
    check_counts(in_channels=in_channels, width=width, blocks=blocks)
    _checks.choice("norm", norm, NORMS)
    _checks.choice("activation", activation, ACTIVATIONS)
    _check_dropout(dropout)
    rectifier = relu if activation == "relu" else leaky_relu
    layers = _down(in_channels, width, norm, rectifier)
    for _ in range(blocks):
        layers.append(ResidualSum(*_reflected_pair(4 * width, norm, rectifier, dropout)))
        if self_attention:
            layers.append(NonLocalBlock(4 * width))
    network = Discriminator(layers, in_channels, sigmoid=sigmoid)
    if spectral_norm:
        normalise_spectra(network)
    return network


class PoseUpdate(nn.Module):
    """The pose code's way through four convolutions in three stages, and the image code's way into it (eq. 2 and 3).

    (image code, pose code), each (B, channels, h, w), and the block's self-attention -> pose code (B, channels, h, w).
    Stage 0 is a residual pair of convolutions, stage 1 the third and stage 2 the fourth; the codes are concatenated
    before one of them, the image first, and the fourth halves the channels again.
    """

    def __init__(self, channels: int, norm: Norm, fusion: Fusion, dropout: float) -> None:
        super().__init__()
        self.joins = fusion != "none"
        self.attended_stage = {"head": 0, "middle": 1, "tail": 2, "none": 0}[fusion]
        first, second, third = (
            2 * channels if self.joins and stage >= self.attended_stage else channels for stage in range(3)
        )
        self.stages = nn.ModuleList(
            (
                ResidualSum(*_pair(first, norm, dropout)),
                nn.Sequential(*_layer(second, second, norm), nn.Dropout(dropout)),
                nn.Sequential(*_layer(third, channels, norm)),
            )
        )
        normal_(self, zero_bias=False)

    def forward(self, image_code: Tensor, pose_code: Tensor, self_attention: nn.Module | None) -> Tensor:
        for number, stage in enumerate(self.stages):
            if number == self.attended_stage:
                if self.joins:
                    pose_code = torch.cat((image_code, pose_code), dim=1)  # (B, 2 * channels, h, w)
                if self_attention is not None:
                    pose_code = self_attention(pose_code)
            pose_code = stage(pose_code)
        return pose_code


class Block(nn.Module):
    """One step of the transfer: (image code (B, C, h, w), pose code (B, C, h, w)) -> both, updated.

    The pose code is updated with a look at the image code; the image code runs through four convolutions and is then
    gathered from where the new pose code looks. What joins, attends and is left out is said in `block`. Raises
    ``ValueError`` for codes of other shapes and, with the instance norm or one image in training, of one position.
    """

    def __init__(
        self,
        pose: PoseUpdate,
        channels: int,
        norm: Norm,
        dropout: float,
        *,
        self_attention: NonLocalBlock | None,
        cross_attention: NonLocalBlock | None,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.norm = norm
        self.self_attention = self_attention
        self.pose = pose
        self.image = nn.Sequential(*(ResidualSum(*_pair(channels, norm, dropout)) for _ in range(2)))
        self.cross_attention = cross_attention
        for module in (self.self_attention, self.image, self.cross_attention):
            if module is not None:
                normal_(module, zero_bias=False)

    def forward(self, image_code: Tensor, pose_code: Tensor) -> tuple[Tensor, Tensor]:
        _checks.shape("image_code", image_code, (None, self.channels, None, None), f"(B, {self.channels}, h, w)")
        _checks.shape("pose_code", pose_code, image_code.shape, "the shape of image_code")
        check_normed("image_code", image_code, 1, self.norm, self.training)
        pose_code = self.pose(image_code, pose_code, self.self_attention)
        image_code = self.image(image_code)
        if self.cross_attention is not None:
            image_code = self.cross_attention(image_code, pose_code)
        return image_code, pose_code


class Generator(nn.Module):
    """Encoders of image and poses, blocks, and a decoder of the image code: (image, poses) -> image in -1..1.

    image (B, 3, H, W), poses (B, pose_channels, H, W); H and W are divisible by 4. The codes have a quarter of the
    height and width. Where no block lets the image code see the pose code, no pose code is computed. Raises
    ``ValueError`` for inputs of other shapes and, with the instance norm or one image in training, for 4 x 4 pixels.
    """

    def __init__(self, blocks: Sequence[Block], width: int, norm: Norm, pose_channels: int) -> None:
        super().__init__()
        self.norm = norm
        self.pose_channels = pose_channels
        self.image_encoder = nn.Sequential(*_down(3, width, norm, relu))
        self.pose_encoder = nn.Sequential(*_down(pose_channels, width, norm, relu))
        self.blocks = nn.ModuleList(blocks)
        self.guided = any(one.cross_attention is not None for one in blocks)
        self.decoder = nn.Sequential(*_up(width, 3, norm))
        for module in (self.image_encoder, self.pose_encoder, self.decoder):
            normal_(module, zero_bias=False)

    def forward(self, image: Tensor, poses: Tensor) -> Tensor:
        check_pair(image, poses, (3, self.pose_channels), multiple=4)
        check_normed("image", image, 4, self.norm, self.training)
        image_code = self.image_encoder(image)  # (B, 4 * width, H/4, W/4)
        if self.guided:
            pose_code = self.pose_encoder(poses)  # (B, 4 * width, H/4, W/4)
            for one in self.blocks:
                image_code, pose_code = one(image_code, pose_code)
        else:
            for one in self.blocks:
                image_code = cast("Block", one).image(image_code)
        return self.decoder(image_code)  # (B, 3, H, W)


class Discriminator(nn.Module):
    """Encoder and residual blocks whose last features are the scores: (B, C, H, W) -> (B, 4 * width, H/4, W/4).

    Odd sizes are rounded up. Raises ``ValueError`` for maps of another shape or sides below 5.
    """

    def __init__(self, layers: Sequence[nn.Module], in_channels: int, *, sigmoid: bool) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.layers = nn.Sequential(*layers)
        self.last = nn.Sigmoid() if sigmoid else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        check_maps("maps", maps, self.in_channels, smallest=5)
        return self.last(self.layers(maps))


def _layer(in_channels: int, out_channels: int, norm: Norm) -> tuple[nn.Module, ...]:
    """A convolution of a block, with a bias under either norm."""
    return nn.Conv2d(in_channels, out_channels, 3, padding=1), norm_layer(norm, out_channels), relu()


def _pair(channels: int, norm: Norm, dropout: float) -> tuple[nn.Module, ...]:
    """Two convolutions of a block, dropout between them."""
    return *_layer(channels, channels, norm), nn.Dropout(dropout), *_layer(channels, channels, norm)


def _reflected_pair(channels: int, norm: Norm, rectifier: Rectifier, dropout: float) -> tuple[nn.Module, ...]:
    """The body of a discriminator's residual block; nothing rectifies its output."""

    def convolution() -> tuple[nn.Module, ...]:
        return (
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3, bias=needs_bias(norm)),
            norm_layer(norm, channels),
        )

    return *convolution(), rectifier(), nn.Dropout(dropout), *convolution()


def _down(in_channels: int, width: int, norm: Norm, rectifier: Rectifier) -> list[nn.Module]:
    """(B, in_channels, H, W) -> (B, 4 * width, H/4, W/4)."""
    layers = [
        nn.ReflectionPad2d(3),
        nn.Conv2d(in_channels, width, 7, bias=needs_bias(norm)),
        norm_layer(norm, width),
        rectifier(),
    ]
    for channels in (width, 2 * width):
        convolution = nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1, bias=needs_bias(norm))
        layers += [convolution, norm_layer(norm, 2 * channels), rectifier()]
    return layers


def _up(width: int, out_channels: int, norm: Norm) -> list[nn.Module]:
    """(B, 4 * width, h, w) -> (B, out_channels, 4h, 4w) in -1..1."""
    layers: list[nn.Module] = []
    for channels in (2 * width, width):
        convolution = nn.ConvTranspose2d(
            2 * channels, channels, 3, stride=2, padding=1, output_padding=1, bias=needs_bias(norm)
        )
        layers += [convolution, norm_layer(norm, channels), relu()]
    return [*layers, nn.ReflectionPad2d(3), nn.Conv2d(width, out_channels, 7), nn.Tanh()]


def _check_dropout(dropout: float) -> None:
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout: expected a probability in [0, 1), got {dropout}")
