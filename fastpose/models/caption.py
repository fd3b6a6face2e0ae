"""System 004, human poses from captions (Zhang et al., GCPR 2020): heatmaps of joints from noise and a caption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from fastpose import _checks
from fastpose.models._registry import register
from fastpose.nn.init import DEVIATION, normal_
from fastpose.nn.nonlocal_block import NonLocalBlock
from fastpose.nn.rectifiers import leaky_relu
from fastpose.nn.residual import norm_relu
from fastpose.nn.sizes import check_counts

Init = Literal["paper", "released", "scaled"]

SIDE = 64
"""Height and width of the heatmaps."""
WIDTHS = 4
"""Layers between the heatmaps and maps of 4 x 4."""
NAMED = 3
"""Keys of a message."""


@register("caption.generator", tiny={"text_size": 12, "compress": 4, "noise": 8, "widths": (16, 8, 8, 4)})
def generator(
    *,
    conditional: bool = False,
    text_size: int = 300,
    compress: int = 128,
    noise: int = 128,
    widths: Sequence[int] = (512, 256, 128, 64),
    keypoints: int = 17,
    self_attention: bool = False,
    init: Init = "paper",
) -> Generator:
    """Return the generator: (noise (B, noise) [, text (B, text_size)]) -> heatmaps (B, keypoints, 64, 64) in -1..1.

    ``conditional`` makes it see a caption's vector (times 30, as published), compressed to ``compress`` numbers behind
    the noise. ``widths`` are the channels of the maps of 4 x 4 to 32 x 32; the final conditional model has half of
    them, (256, 128, 64, 32). ``self_attention``, which the thesis does not have, attends over the maps of 32 x 32.
    ``init`` says how the batch norms' biases begin: at 0 (``paper``) or from N(0, 0.02) (``released``). ``scaled``
    (ours) draws convolutions wider the fewer channels they have: from N(0, 0.02) the scores of networks much narrower
    than the published ones hardly depend on the poses at first. The deviation is that of He et al. 2015 for leaky
    rectifiers, by channels times the whole kernel; as an output of a transposed convolution sees a quarter of the
    kernel, and of the first one a sixteenth, those begin with a half and a quarter of what He et al. ask.
    """
    check_counts(text_size=text_size, compress=compress, noise=noise, keypoints=keypoints)
    _checks.choice("init", init, get_args(Init))
    sizes = (text_size, compress) if conditional else None
    network = Generator(noise, _four(widths), keypoints, sizes, self_attention)
    _first_weights(network, init)
    return network


@register("caption.discriminator", tiny={"text_size": 12, "compress": 4, "widths": (4, 8, 8, 16)})
def discriminator(
    *,
    conditional: bool = False,
    text_size: int = 300,
    compress: int = 128,
    widths: Sequence[int] = (64, 128, 256, 512),
    keypoints: int = 17,
    batch_norm: bool = False,
    sigmoid: bool = False,
    self_attention: bool = False,
    init: Init = "paper",
) -> Discriminator:
    """Return the discriminator: (heatmaps (B, keypoints, 64, 64) in -1..1 [, text (B, text_size)]) -> scores (B,).

    GAN has ``batch_norm`` and ``sigmoid``, WGAN batch norm alone, WGAN-GP and WGAN-LP neither. Batch norm follows every
    convolution but the last, the first included (Table 2), which DCGAN's does not. ``widths`` are the channels of the
    maps of 32 x 32 to 4 x 4; the final conditional model has half of them. The other options are the generator's.
    """
    check_counts(text_size=text_size, compress=compress, keypoints=keypoints)
    _checks.choice("init", init, get_args(Init))
    sizes = (text_size, compress) if conditional else None
    network = Discriminator(_four(widths), keypoints, sizes, batch_norm, sigmoid, self_attention)
    _first_weights(network, init)
    return network


class Captioned(nn.Module):
    """What both networks do with a caption: text (B, text_size) -> (B, compress); ``None`` where they see none."""

    widened: tuple[str, int]
    """The key of the weight that sees the compressed text, and the dimension of its inputs."""

    def __init__(self, sizes: tuple[int, int] | None) -> None:
        super().__init__()
        self.text_size, self.compressed = sizes or (0, 0)
        self.compress = None if sizes is None else nn.Sequential(nn.Linear(*sizes), leaky_relu())

    def caption(self, text: Tensor | None, batch: int) -> Tensor | None:
        """Return the compressed text; raise ``ValueError`` where it is missing, of no use or of another size."""
        if self.compress is None:
            if text is not None:
                raise ValueError(
                    "text: expected none for an unconditional network, got one; leave it out, or create the network "
                    "with conditional=True"
                )
            return None
        if text is None:
            raise ValueError(
                f"text: expected (B, {self.text_size}) for a conditional network, got none; pass the captions' vectors"
            )
        _checks.tensor("text", text, f"(B, {self.text_size})")
        _checks.shape("text", text, (batch, self.text_size), f"(B, {self.text_size})")
        return self.compress(text)


class Generator(Captioned):
    """Five transposed convolutions from 1 x 1 to 64 x 64: (noise (B, Z) [, text (B, T)]) -> (B, K, 64, 64) in -1..1.

    Raises ``ValueError`` for inputs of other shapes, for a conditional network without text, and for text that an
    unconditional one does not see.
    """

    widened = ("first.0.weight", 0)

    def __init__(
        self,
        noise: int,
        widths: Sequence[int],
        keypoints: int,
        sizes: tuple[int, int] | None,
        self_attention: bool,
    ) -> None:
        super().__init__(sizes)
        self.noise = noise
        start = nn.ConvTranspose2d(noise + self.compressed, widths[0], 4, bias=False)
        self.first = nn.Sequential(start, *norm_relu(widths[0]))
        self.ups = nn.Sequential(*(_up(*channels) for channels in pairwise(widths)))
        self.attention = NonLocalBlock(widths[-1]) if self_attention else nn.Identity()
        end = nn.ConvTranspose2d(widths[-1], keypoints, 4, stride=2, padding=1, bias=False)
        self.last = nn.Sequential(end, nn.Tanh())

    def forward(self, noise: Tensor, text: Tensor | None = None) -> Tensor:
        _checks.tensor("noise", noise, f"(B, {self.noise})")
        _checks.shape("noise", noise, (None, self.noise), f"(B, {self.noise})")
        caption = self.caption(text, noise.shape[0])
        code = noise if caption is None else torch.cat((noise, caption), dim=1)  # (B, Z + compress)
        x = self.ups(self.first(code[:, :, None, None]))  # (B, C, 32, 32)
        return self.last(self.attention(x))


class Discriminator(Captioned):
    """Four convolutions to 4 x 4, where the text joins, and one score: (heatmaps (B, K, 64, 64) [, text]) -> (B,).

    Poses that are judged with several texts may be looked at once, by ``features``, and judged by ``scores``. Raises
    ``ValueError`` for inputs of other shapes, for a conditional network without text, and for text that an
    unconditional one does not see.
    """

    widened = ("joint.0.weight", 1)

    def __init__(
        self,
        widths: Sequence[int],
        keypoints: int,
        sizes: tuple[int, int] | None,
        batch_norm: bool,
        sigmoid: bool,
        self_attention: bool,
    ) -> None:
        super().__init__(sizes)
        self.keypoints = keypoints
        self.batch_norm = batch_norm
        self.first = _down(keypoints, widths[0], batch_norm)
        self.attention = NonLocalBlock(widths[0]) if self_attention else nn.Identity()
        self.downs = nn.Sequential(*(_down(*channels, batch_norm) for channels in pairwise(widths)))
        join = nn.Conv2d(widths[-1] + self.compressed, widths[-1], 1, bias=False)
        self.joint = _rectified(join, batch_norm)
        end = nn.Conv2d(widths[-1], 1, 4, bias=False)
        self.last = nn.Sequential(end, *([nn.Sigmoid()] if sigmoid else []))

    def forward(self, heatmaps: Tensor, text: Tensor | None = None) -> Tensor:
        return self.scores(self.features(heatmaps), text)

    def features(self, heatmaps: Tensor) -> Tensor:
        """Return what is seen in heatmaps (B, K, 64, 64) before the text joins, (B, C, 4, 4)."""
        layout = f"(B, {self.keypoints}, {SIDE}, {SIDE})"
        _checks.tensor("heatmaps", heatmaps, layout)
        _checks.shape("heatmaps", heatmaps, (None, self.keypoints, SIDE, SIDE), layout)
        return self.downs(self.attention(self.first(heatmaps)))

    def scores(self, x: Tensor, text: Tensor | None = None) -> Tensor:
        """Return the scores (B,) of ``features`` (B, C, 4, 4) with a text."""
        caption = self.caption(text, x.shape[0])
        if caption is not None:
            x = torch.cat((x, caption[:, :, None, None].expand(-1, -1, *x.shape[2:])), dim=1)  # (B, C + compress, 4, 4)
        return self.last(self.joint(x)).flatten()


def warm_start(network: nn.Module, weights: Mapping[str, Tensor]) -> list[str]:
    """Copy an unconditional network's weights into a conditional one and return what keeps its first weights.

    ``weights`` is the state dict of a network with the same options but for ``conditional``, such as
    ``checkpoint.load_weights`` gives. All its weights are copied; the one that also sees the text takes them for its
    first inputs, and is returned with the rest of its inputs, such as ``first.0.weight[128:]``. Raises ``ValueError``
    for a network that is not conditional and for weights that do not fit, and copies nothing then.
    """
    if not isinstance(network, Captioned) or network.compress is None:
        raise ValueError("network: expected a caption network with conditional=True; it takes no text")
    places = {key: tensor for key, tensor in network.state_dict().items() if not key.startswith("compress.")}
    key, dimension = network.widened
    known = places[key].shape[dimension] - network.compressed
    places[key] = places[key].narrow(dimension, 0, known)
    _check_fit(places, weights)
    with torch.no_grad():
        for name, place in places.items():
            place.copy_(weights[name])
    return [*(name for name in network.state_dict() if name not in places), f"{key}[{':, ' * dimension}{known}:]"]


def _check_fit(places: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Raise ``ValueError`` unless there is a weight of the right shape for every place, and no other."""
    shared = places.keys() & weights.keys()
    faults = {
        "missing": places.keys() - shared,
        "unexpected": weights.keys() - shared,
        "of another shape": {key for key in shared if places[key].shape != weights[key].shape},
    }
    found = "; ".join(f"{what} {', '.join(sorted(keys)[:NAMED])}" for what, keys in faults.items() if keys)
    if found:
        raise ValueError(
            "weights: expected those of an unconditional network with the same options but for conditional, "
            f"found: {found}"
        )


def _up(in_channels: int, out_channels: int) -> nn.Sequential:
    """(B, in_channels, h, w) -> (B, out_channels, 2h, 2w)."""
    convolution = nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1, bias=False)
    return nn.Sequential(convolution, *norm_relu(out_channels))


def _down(in_channels: int, out_channels: int, batch_norm: bool) -> nn.Sequential:
    """(B, in_channels, H, W) -> (B, out_channels, H/2, W/2)."""
    return _rectified(nn.Conv2d(in_channels, out_channels, 4, stride=2, padding=1, bias=False), batch_norm)


def _rectified(convolution: nn.Conv2d, batch_norm: bool) -> nn.Sequential:
    """The convolution, its batch norm if there is one, and the leaky rectifier."""
    norms = [nn.BatchNorm2d(convolution.out_channels)] if batch_norm else []
    return nn.Sequential(convolution, *norms, leaky_relu())


def _four(widths: Sequence[int]) -> tuple[int, ...]:
    """The channels of each size of maps; raise unless there are four of them."""
    if not isinstance(widths, Sequence) or isinstance(widths, str) or any(type(width) is not int for width in widths):
        raise TypeError(f"widths: expected four numbers of channels such as (64, 128, 256, 512), got {widths!r}")
    if len(widths) != WIDTHS:
        raise ValueError(f"widths: expected {WIDTHS} numbers of channels, one per size of maps, got {len(widths)}")
    check_counts(**{f"widths[{place}]": width for place, width in enumerate(widths)})
    return tuple(widths)


def _first_weights(network: Captioned, init: Init) -> None:
    """Draw the weights as published; of the linear layer only the released code says how."""
    normal_(network, zero_bias=True)
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight)
            nn.init.normal_(module.bias, 0.0, DEVIATION)
        elif isinstance(module, nn.BatchNorm2d) and init == "released":
            nn.init.normal_(module.bias, 0.0, DEVIATION)
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and init == "scaled":
            # A transposed convolution's channels that come in are the other dimension of its weight. Its whole kernel
            # counts, though the stride leaves an output a part of it: narrower than He's, see ``generator``.
            fan: Literal["fan_in", "fan_out"] = "fan_in" if isinstance(module, nn.Conv2d) else "fan_out"
            nn.init.kaiming_normal_(module.weight, a=0.2, mode=fan, nonlinearity="leaky_relu")
