"""The authors' published weights: which of their keys each of our parameters is, and strict loading."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from fastpose.models import _registry

Rule = tuple[str, str | Callable[[re.Match[str]], str]]
"""A regular expression over our key and what its matches become; a format's rules apply one after the other."""

Options = Mapping[str, Any]
LISTED = 5


@dataclass(frozen=True)
class Format:
    """How one network's weights were published.

    ``rules`` turn our keys into the authors', given all options of the network; ``options`` are what the format implies
    where the caller says nothing; ``stem`` is the weight whose first size is the network's ``stem_width``.
    """

    rules: Callable[[Options], Sequence[Rule]]
    options: Options = field(default_factory=dict)
    stem: str = ""


def import_published(name: str, state_dict: Mapping[str, Any], **options: Any) -> nn.Module:
    """Return the network ``name`` in evaluation mode with weights under their authors' key names.

    ``hourglass`` reads pytorch-pose's keys (whose stem it implies), ``sagan.*`` the ``hgsagan_port_*`` names (whose
    flavour, ``released``, they imply); ``options`` are those of `create`. A whole checkpoint with an entry
    ``state_dict`` will do, as will keys behind DataParallel's ``module.``. Nothing may be missing or left over, except
    the batch counters that old PyTorch did not write. Weights are copied. Raises ``ValueError`` in one sentence that
    lists missing keys, unexpected keys and differing shapes.
    """
    network, implied = _registry.resolve(name)
    if network not in _FORMATS:
        raise ValueError(
            f"model {name!r} has no published weights that can be read; known: {', '.join(sorted(_FORMATS))}"
        )
    published = _plain(state_dict)
    fmt = _FORMATS[network]
    options = {**fmt.options, **_stem_width(published, fmt.stem), **implied, **options}
    model = _registry.create(network, **options)
    rules = fmt.rules({**_registry.defaults(network), **options})
    theirs = {ours: rename(ours, rules) for ours in model.state_dict()}
    _check(name, model.state_dict(), theirs, published)
    model.load_state_dict({ours: published[key] for ours, key in theirs.items() if key in published}, strict=False)
    return model.eval()


def rename(key: str, rules: Sequence[Rule]) -> str:
    """Return a key of ours under the names of a published format."""
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


def _plain(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the weights of a checkpoint without DataParallel's prefix."""
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"state_dict: expected a mapping of key to tensor, got {type(state_dict).__name__}")
    weights = state_dict.get("state_dict", state_dict)
    return {key.removeprefix("module."): tensor for key, tensor in weights.items()}


def _stem_width(published: Mapping[str, Tensor], stem: str) -> dict[str, int]:
    return {"stem_width": published[stem].shape[0]} if stem in published else {}


def _check(name: str, ours: Mapping[str, Tensor], theirs: Mapping[str, str], published: Mapping[str, Tensor]) -> None:
    """Raise unless every weight of ours has one of theirs in the same shape, and none of theirs is left over."""
    missing = [key for key in theirs.values() if key not in published and not key.endswith("num_batches_tracked")]
    unexpected = sorted(published.keys() - set(theirs.values()))
    shapes = [
        f"{key} {tuple(published[key].shape)} instead of {tuple(ours[mine].shape)}"
        for mine, key in theirs.items()
        if key in published and published[key].shape != ours[mine].shape
    ]
    found = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    faults = [f"{len(keys)} {what} ({_first(keys)})" for what, keys in found.items() if keys]
    if faults:
        raise ValueError(
            f"{name}: the state dict does not fit the network, keys: {'; '.join(faults)}; check the options"
        )


def _first(keys: Sequence[str]) -> str:
    return ", ".join(keys[:LISTED]) + (", ..." if len(keys) > LISTED else "")


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


_FORMATS = {
    "hourglass": Format(_pytorch_pose, {"stem": "pytorch_pose"}, "conv1.weight"),
    "sagan.generator": Format(_port, {"flavour": "released"}, "c1.weight"),
    "sagan.discriminator": Format(_port, {"flavour": "released"}, "c1.weight"),
    "sagan.sarm": Format(lambda options: _port_sarm(options["kind"], options["flavour"]), {"flavour": "released"}),
}
