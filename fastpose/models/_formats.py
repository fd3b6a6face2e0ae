"""How networks were published: the authors' key of each of our parameters, and what their weights say of options."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

Rule = tuple[str, str | Callable[[re.Match[str]], str]]
"""A regular expression over our key and what its matches become; a format's rules apply one after the other."""

WEIGHTS, DIGITS = 4, 4
"""A repeated part has no fewer weights, and its number no more digits."""

Options = Mapping[str, Any]
Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Format:
    """How one network's weights were published.

    ``rules`` turn our keys into the authors', given all options of the network; ``options`` are what the format implies
    where the caller says nothing, ``shown`` what the weights themselves say, ``only`` options in which all published
    weights agree although their keys do not show it. ``clean`` brings the spellings in which
    their keys are found to one; ``unused`` says of such a key that the network, as created, has no use for it. ``bgr``
    is our key of the first convolution where the authors' images were blue first, their bytes over 256, nothing
    subtracted.
    """

    rules: Callable[[Options], Sequence[Rule]]
    options: Options = field(default_factory=dict)
    shown: Callable[[Weights], dict[str, Any]] = lambda published: {}
    only: Options = field(default_factory=dict)
    clean: Callable[[Weights], Weights] = lambda published: published
    unused: Callable[[str, Any], bool] = lambda key, network: False
    bgr: str = ""


def _sizes(published: Weights, **places: tuple[str, int]) -> dict[str, int]:
    """Return each option from the size of a weight in one of its dimensions, where the weight is there."""
    return {
        option: published[key].shape[dimension]
        for option, (key, dimension) in places.items()
        if key in published and published[key].dim() > dimension
    }


def renamed(published: Weights, name: Callable[[str], str]) -> dict[str, Tensor]:
    """Return the weights under other names; raise ``ValueError`` where two would share one."""
    first: dict[str, str] = {}
    for key in published:
        other = first.setdefault(name(key), key)
        if other != key:
            raise ValueError(f"state_dict: expected each weight once, got {other!r} and {key!r}; leave one of them out")
    return {name(key): tensor for key, tensor in published.items()}


def _count(published: Weights, pattern: str) -> int:
    """Return one more than the highest number that ``pattern`` finds in a key, 0 where it finds none."""
    numbers = (found[1] for key in published if (found := re.match(pattern, key)))
    return max((int(number) + 1 for number in numbers if len(number) <= DIGITS), default=0)


def _positive(published: Weights, **counts: int) -> dict[str, int]:
    """Return the counts that found something; what the weights do not show is left to the defaults.

    So are counts of parts in parts for which the weights are too few: no file makes a network larger than itself.
    """
    shown = {option: count for option, count in counts.items() if count > 0}
    return shown if math.prod(shown.values()) * WEIGHTS <= len(published) else {}


def _shows_stem(key: str) -> Callable[[Weights], dict[str, Any]]:
    """Return what tells the network's ``stem_width`` from its first weight."""
    return lambda published: _sizes(published, stem_width=(key, 0))


def _pytorch_pose(options: Options) -> Sequence[Rule]:
    """bearpaw/pytorch-pose: levels count from the inside, and the bottom is the fourth branch of the innermost."""
    inner = options["depth"] - 1
    branch = {"skips": 0, "downs": 1, "ups": 2}
    return (
        (r"^stem\.conv\.", "conv1."),
        (r"^stem\.norm\.", "bn1."),
        (r"^stem\.residuals\.(\d)\.", lambda m: f"layer{int(m[1]) + 1}.0."),
        (r"hourglass\.(skips|downs|ups)\.(\d+)\.", lambda m: f"hourglass.{inner - int(m[2])}.{branch[m[1]]}."),
        (r"hourglass\.bottom\.", "hourglass.0.3."),
        (r"^stacks\.(\d+)\.hourglass\.", r"hg.\1.hg."),
        (r"^stacks\.(\d+)\.residuals\.", r"res.\1."),
        (r"^stacks\.(\d+)\.features\.", r"fc.\1."),
        (r"^stacks\.(\d+)\.score\.", r"score.\1."),
        (r"^merges\.(\d+)\.features\.", r"fc_.\1."),
        (r"^merges\.(\d+)\.heatmaps\.", r"score_.\1."),
        (r"\.body\.(\d)\.", lambda m: f".{'conv' if int(m[1]) % 3 else 'bn'}{int(m[1]) // 3 + 1}."),
        (r"\.skip\.", ".downsample.0."),
    )


def _port_sarm(kind: str | None, flavour: str) -> Sequence[Rule]:
    """The SARMs of the hgsagan_port_* names; the released ones hold their residual module's parts directly."""
    residual = {("A", "released"): r"\1res_", ("B", "released"): r"\1"}.get((str(kind), flavour), r"\1res.")
    return (
        (r"(^|\.)residual\.", residual),
        (r"(^|\.)attention\.embed\.", r"\1att_conv."),
        (r"(^|\.)attention\.query\.", r"\1g."),
        (r"(^|\.)attention\.key\.", r"\1f."),
        (r"(^|\.)value\.", r"\1h."),
        (r"body\.", "conv."),
    )


def _port(options: Options) -> Sequence[Rule]:
    """hgsagan_port_*: the hourglass nests as up1, low1, low2, low3; a generator's parts carry their stack's number."""
    branch = {"skips": "up1", "downs": "low1", "ups": "low3"}
    return (
        (r"^stem\.conv\.", "c1."),
        (r"^stem\.norm\.", "b1."),
        (r"^stem\.residuals\.(\d)\.", lambda m: f"r{(1, 4, 5)[int(m[1])]}."),
        (r"hourglass\.(skips|downs|ups)\.(\d+)\.", lambda m: f"hg.{'low2.' * int(m[2])}{branch[m[1]]}."),
        (r"hourglass\.bottom\.", f"hg.{'low2.' * options['depth']}"),
        (r"^stack\.score\.", "out."),
        (r"^stack\.", ""),
        (r"^stacks\.(\d+)\.(hg|residuals|features|attention|score)\.", r"\2.\1."),
        (r"^residuals\.", "res."),
        (r"^features\.", "lin."),
        (r"^merges\.(\d+)\.features\.", r"ll.\1."),
        (r"^merges\.(\d+)\.heatmaps\.", r"sl.\1."),
        *_port_sarm(options["sarm"], options["flavour"]),
    )


STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
CRITIC_BLOCKS = 10
"""The place of a PATN discriminator's first residual block."""


def _pona_block(options: Options) -> Sequence[Rule]:
    """PoNA's block: dconv and dconv2 are the two pairs of pose convolutions, conv and conv2 the image's."""
    return (
        (r"self_attention\.(query|key|value)\.", r"att2.\1_conv."),
        (r"self_attention\.", "att2."),
        (r"cross_attention\.(query|key|value)\.", r"\1_conv."),
        (r"cross_attention\.", ""),
        (r"pose\.stages\.0\.body\.", "dconv.conv."),
        (r"pose\.stages\.1\.", "dconv2.conv."),
        (r"pose\.stages\.2\.(\d)\.", lambda m: f"dconv2.conv.{int(m[1]) + 4}."),
        (r"image\.0\.body\.", "conv.conv."),
        (r"image\.1\.body\.", "conv2.conv."),
    )


def _pona_generator(options: Options) -> Sequence[Rule]:
    return (
        (r"^image_encoder\.", "model.stream1_down."),
        (r"^pose_encoder\.", "model.stream2_down."),
        (r"^decoder\.", "model.stream1_up."),
        (r"^blocks\.", "model.att."),
        *_pona_block(options),
    )


def _pona_discriminator(options: Options) -> Sequence[Rule]:
    """PATN's discriminator, under the names that torch.nn.utils.spectral_norm gives to a normalised weight."""
    return (
        (r"^layers\.", "model."),
        (r"\.body\.", ".conv_block."),
        (r"parametrizations\.weight\.original$", "weight_orig"),
        (r"parametrizations\.weight\.0\._([uv])$", r"weight_\1"),
    )


def _pona_prefixed(published: Weights) -> Weights:
    """Put ``model.`` before every key, once; DataParallel's prefix may stand around it."""
    return _without_instance_statistics(
        renamed(published, lambda key: "model." + re.sub(r"^((module|model)\.)*", "", key))
    )


def _without_instance_statistics(published: Weights) -> Weights:
    """Leave out the statistics that old PyTorch wrote of instance norms, which have no weight beside them."""
    if _pona_norm(published) == "batch":
        return published
    return {key: tensor for key, tensor in published.items() if not key.endswith(STATISTICS)}


def _pona_norm(published: Weights) -> str:
    means = [key for key in published if key.endswith("running_mean")]
    return "batch" if any(key.replace("running_mean", "weight") in published for key in means) else "instance"


def _pona_critic_clean(published: Weights) -> Weights:
    """Bring to one the public spectral norms' names, and the places of a residual block's layers without dropout."""
    inside = r"(?<=\d)\.module(?=\.)"  # the public SNGAN code wraps each convolution in a module
    cleaned = renamed(
        _pona_prefixed(published), lambda key: re.sub(inside, "", key).replace("weight_bar", "weight_orig")
    )
    if not any(".conv_block.5." in key for key in cleaned):
        return cleaned
    later = {"5": "6", "6": "7"}  # dropout is a layer of its own, before the second convolution
    return renamed(cleaned, lambda key: re.sub(r"(?<=conv_block\.)[56](?=\.)", lambda m: later[m[0]], key))


def _pona_generator_shows(published: Weights) -> dict[str, Any]:
    sizes = _sizes(
        published, width=("model.stream1_down.1.weight", 0), pose_channels=("model.stream2_down.1.weight", 1)
    )
    return {
        "norm": _pona_norm(published),
        **sizes,
        **_positive(published, blocks=_count(published, r"model\.att\.(\d+)\.")),
    }


def _pona_block_shows(published: Weights) -> dict[str, Any]:
    return {"norm": _pona_norm(published), **_sizes(published, channels=("conv.conv.0.weight", 0))}


def _pona_critic_shows(published: Weights) -> dict[str, Any]:
    spectral = any(key.endswith("weight_orig") for key in published)
    first = "model.1.weight_orig" if spectral else "model.1.weight"
    return {
        "norm": _pona_norm(published),
        "spectral_norm": spectral,
        **_sizes(published, width=(first, 0), in_channels=(first, 1)),
        **_positive(published, blocks=_count(published, r"model\.(\d+)\.conv_block\.") - CRITIC_BLOCKS),
    }


def _multiscale(options: Options) -> Sequence[Rule]:
    """prasunroy/pose-transfer: in1 is the image's encoder, in2 the poses', and levels count from 1."""
    return (
        (r"^image_encoder\.", "in1_"),
        (r"^pose_encoder\.", "in2_"),
        (r"^(in\d_)first\.", r"\1conv1."),
        (r"^(in\d_)downs\.(\d+)\.", lambda m: f"{m[1]}down{int(m[2]) + 1}."),
        (r"^ups\.(\d+)\.", lambda m: f"out_up{int(m[1]) + 1}."),
        (r"^residuals\.", "out_conv1."),
        (r"^last\.0\.", "out_conv1.4."),
        (r"\.body\.", ".layers."),
    )


def _multiscale_shows(published: Weights) -> dict[str, Any]:
    image, pose = "in1_conv1.0.weight", "in2_conv1.0.weight"
    levels = _count(published, r"in1_down(\d+)\.") - 1
    return {
        **_sizes(published, width=(image, 0), image_channels=(image, 1), pose_channels=(pose, 1)),
        **_positive(published, levels=levels),
    }


def _multiscale_unused(key: str, network: Any) -> bool:
    """Pose levels deeper than the deepest gate have no way to the image: in2_down2 to in2_down4 of gates=(1,)."""
    level = re.match(r"in2_down(\d+)\.", key)
    return level is not None and bool(len(network.pose_encoder.downs) < int(level[1]) <= network.levels)


def _patches_show(published: Weights) -> dict[str, Any]:
    convolutions = sum(tensor.dim() == 4 for tensor in published.values())
    first = "layers.0.weight"
    layers = {"layers": convolutions - 2} if convolutions > 2 else {}
    return {**_sizes(published, width=(first, 0), in_channels=(first, 1)), **layers}


def _hg3d(options: Options) -> Sequence[Rule]:
    """The hg3d branch of pytorch-pose-hg-3d: the last stack's merging convolutions stand beside those of the others."""
    modules, last = options["modules"], options["stacks"] - 1
    regressors = options["regressor_modules"] or 2
    branch = {"skips": "up1_", "downs": "low1_", "ups": "low3_"}
    numbered = (("bn", "conv1"), ("bn1", "conv2"), ("bn2", "conv3"))
    return (
        (r"^two_d\.", ""),
        (r"^stem\.conv\.", "conv1_."),
        (r"^stem\.norm\.", "bn1."),
        (r"^stem\.residuals\.(\d)\.", lambda m: f"r{(1, 4, 5)[int(m[1])]}."),
        (r"hourglass\.(skips|downs|ups)\.(\d+)\.", lambda m: f"hourglass.{'low2.' * int(m[2])}{branch[m[1]]}."),
        (r"hourglass\.bottom\.", f"hourglass.{'low2.' * (options['depth'] - 1)}low2_."),
        (r"^stacks\.(\d+)\.hourglass\.", r"hourglass.\1."),
        (r"^stacks\.(\d+)\.residuals\.(\d+)\.", lambda m: f"Residual.{int(m[1]) * modules + int(m[2])}."),
        (r"^stacks\.(\d+)\.features\.", r"lin_.\1."),
        (r"^stacks\.(\d+)\.score\.", r"tmpOut.\1."),
        (r"^depth\.merge\.", f"merges.{last}."),
        (r"^merges\.(\d+)\.features\.", r"ll_.\1."),
        (r"^merges\.(\d+)\.heatmaps\.", r"tmpOut_.\1."),
        (r"^depth\.stages\.(\d+)\.(\d+)\.", lambda m: f"reg_.{int(m[1]) * regressors + int(m[2])}."),
        (r"^depth\.regress\.", "reg."),
        (r"\.body\.(\d)\.", lambda m: f".{numbered[int(m[1]) // 3][int(m[1]) % 3 // 2]}."),
        (r"\.skip\.", ".conv4."),
    )


def _hg3d_shows(published: Weights) -> dict[str, Any]:
    """All options: the linear layer behind four poolings sees a sixty-fourth of the image's side, squared."""
    nested = max((key.count("low2.") for key in published if key.startswith("hourglass.0.")), default=-1)
    sizes = _sizes(
        published, width=("lin_.0.0.weight", 0), stem_width=("conv1_.weight", 0), keypoints=("reg.weight", 0)
    )
    places = _sizes(published, places=("reg.weight", 1)).get("places", 0) // (sizes.get("width") or 1)
    return {
        **sizes,
        **({"image_size": 64 * math.isqrt(places)} if places else {}),
        **_positive(
            published,
            stacks=_count(published, r"hourglass\.(\d+)\."),
            modules=_count(published, r"hourglass\.0\.up1_\.(\d+)\."),
            depth=nested + 1,
        ),
        **_positive(published, regressor_modules=_count(published, r"reg_\.(\d+)\.") // 4),
    }


def _caption_generator(options: Options) -> Sequence[Rule]:
    """The thesis code of system 004: ``first`` beside ``main``, which holds the layers from its norm on, in one row."""
    return (
        (r"^first\.0\.", "first2." if options["conditional"] else "first."),
        (r"^first\.1\.", "main.0."),
        (r"^ups\.(\d+)\.(\d)\.", lambda m: f"main.{2 + 3 * int(m[1]) + int(m[2])}."),
        (r"^last\.0\.", "main.11."),
    )


def _caption_discriminator(options: Options) -> Sequence[Rule]:
    """Its discriminator: the numbers are those of a network with batch norms, whether it has them or not."""
    return (
        (r"^first\.(\d)\.", r"main.\1."),
        (r"^downs\.(\d+)\.(\d)\.", lambda m: f"main.{3 + 3 * int(m[1]) + int(m[2])}."),
        (r"^joint\.0\.", "second2." if options["conditional"] else "second."),
        (r"^joint\.1\.", "third.0."),
        (r"^last\.0\.", "third.2."),
    )


def _caption_text_shows(published: Weights) -> dict[str, Any]:
    """Whether the network sees text is shown by what compresses it."""
    compress = "compress.0.weight"
    return {
        "conditional": compress in published,
        **_sizes(published, text_size=(compress, 1), compress=(compress, 0)),
    }


def _widths(published: Weights, *places: tuple[str, int]) -> dict[str, Any]:
    """Return the channels of all sizes of maps, or nothing where one of them is not shown."""
    sizes = _sizes(published, **{str(number): place for number, place in enumerate(places)})
    return {"widths": tuple(sizes.values())} if len(sizes) == len(places) and all(sizes.values()) else {}


def _caption_generator_shows(published: Weights) -> dict[str, Any]:
    text = _caption_text_shows(published)
    first = "first2.weight" if text["conditional"] else "first.weight"
    seen = _sizes(published, inputs=(first, 0)).get("inputs", 0) - text.get("compress", 0)
    layers = ("main.2.weight", "main.5.weight", "main.8.weight", "main.11.weight")
    return {
        **text,
        **({"noise": seen} if seen > 0 else {}),
        **_sizes(published, keypoints=("main.11.weight", 1)),
        **_widths(published, *((layer, 0) for layer in layers)),
    }


def _caption_discriminator_shows(published: Weights) -> dict[str, Any]:
    layers = ("main.0.weight", "main.3.weight", "main.6.weight", "main.9.weight")
    return {
        **_caption_text_shows(published),
        "batch_norm": "main.1.weight" in published,
        **_sizes(published, keypoints=("main.0.weight", 1)),
        **_widths(published, *((layer, 0) for layer in layers)),
    }


def _caption_unused(module: str) -> Callable[[str, Any], bool]:
    """A conditional network inherits the unconditional one's layer, and does not run it."""
    return lambda key, network: key == f"{module}.weight" and network.compress is not None


FORMATS = {
    "hourglass": Format(_pytorch_pose, {"stem": "pytorch_pose"}, _shows_stem("conv1.weight")),
    "sagan.generator": Format(_port, {"flavour": "released"}, _shows_stem("c1.weight")),
    "sagan.discriminator": Format(_port, {"flavour": "released"}, _shows_stem("c1.weight")),
    "sagan.sarm": Format(lambda options: _port_sarm(options["kind"], options["flavour"]), {"flavour": "released"}),
    "pona.generator": Format(_pona_generator, shown=_pona_generator_shows, clean=_pona_prefixed),
    "pona.block": Format(_pona_block, shown=_pona_block_shows, clean=_without_instance_statistics),
    "pona.discriminator": Format(_pona_discriminator, shown=_pona_critic_shows, clean=_pona_critic_clean),
    "multiscale.generator": Format(
        _multiscale, shown=_multiscale_shows, only={"fusion": None}, unused=_multiscale_unused
    ),
    "multiscale.discriminator": Format(lambda options: (), shown=_patches_show),
    "pose3d.generator": Format(
        _hg3d, {"depth_head": "flatten"}, _hg3d_shows, {"depth_head": "flatten"}, bgr="two_d.stem.conv.weight"
    ),
    "caption.generator": Format(
        _caption_generator,
        shown=_caption_generator_shows,
        only={"self_attention": False},
        unused=_caption_unused("first"),
    ),
    "caption.discriminator": Format(
        _caption_discriminator,
        shown=_caption_discriminator_shows,
        only={"self_attention": False},
        unused=_caption_unused("second"),
    ),
}
