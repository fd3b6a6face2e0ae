"""Strict loading of the authors' published weights; which key of theirs is which of ours stands in ``_formats.py``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastpose.models import _registry
from fastpose.models._formats import FORMATS, Rule, renamed

LISTED, LONGEST = 5, 120
"""Keys of a message, and characters of each."""


def import_published(name: str, state_dict: Mapping[str, Any], **options: Any) -> nn.Module:
    """Return the network ``name`` in evaluation mode with weights under their authors' key names.

    ``hourglass`` reads pytorch-pose's keys (whose stem it implies), ``sagan.*`` the ``hgsagan_port_*`` names (whose
    flavour, ``released``, they imply), ``pona.*`` those of PoNA and, for discriminators, of PATN, ``multiscale.*``
    those of prasunroy/pose-transfer, ``pose3d.generator`` those of the hg3d branch of pytorch-pose-hg-3d (whose flat
    depth head they imply; `pickles.read_module_pickle` reads its files, and see `to_rgb`), ``caption.*`` those of the
    thesis' code. ``options`` are those of `create`; widths, channels, numbers of blocks and whether there is a text
    need not be said, as the weights show them. A whole checkpoint with an entry ``state_dict`` will do, as will keys
    behind DataParallel's ``module.``. Nothing may be missing or left over, except the batch counters that old PyTorch
    did not write, the statistics it wrote of instance norms, pose levels that no gate of system 003 asks for, and the
    layer that system 004's conditional networks inherit and do not run. Weights are copied. Raises ``ValueError`` in
    one sentence that lists missing keys, unexpected keys and differing shapes.

    The weights of ``multiscale.generator`` do not show its gates: without ``gates`` they are those of FULL, all levels.
    Fewer are taken at the caller's word, such as ``gates=(1,)`` for A1-HR; pose levels below the deepest of them are
    not read (``in2_down2`` to ``in2_down4`` in that case, nothing for ``gates=(4,)``, A1-LR). ``fusion`` is refused:
    the authors published no weights that have it. The weights of ``caption.discriminator`` do not show whether a
    ``sigmoid`` follows them, as in GAN: it is said, or there is none.
    """
    network, _ = _registry.resolve(name)
    options = published_options(name, state_dict, **options)
    form = FORMATS[network]
    published = form.clean(_plain(state_dict))
    plan = _plan(network, options)
    rules = form.rules({**_registry.defaults(network), **options})
    theirs = {ours: rename(ours, rules) for ours in plan.state_dict()}
    published = {key: tensor for key, tensor in published.items() if not form.unused(key, plan)}
    _check(name, plan.state_dict(), theirs, published)
    model = _registry.create(network, **options)
    model.load_state_dict({ours: published[key] for ours, key in theirs.items() if key in published}, strict=False)
    return model.eval()


def published_options(name: str, state_dict: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    """Return the options with which `create` makes the network of published weights: implied, shown by them, or said.

    Raises ``ValueError`` for a network without published weights, and for options that none of its weights have.
    """
    network, implied = _registry.resolve(name)
    if network not in FORMATS:
        raise ValueError(
            f"model {name!r} has no published weights that can be read; known: {', '.join(sorted(FORMATS))}"
        )
    form = FORMATS[network]
    options = {**form.options, **form.shown(form.clean(_plain(state_dict))), **implied, **options}
    for option, value in form.only.items():
        if options.get(option, value) != value:
            raise ValueError(
                f"{option}: expected {value} for published weights of {network}, got {options[option]!r}; "
                f"leave it out, as no published weights have it"
            )
    return options


def _plan(network: str, options: Mapping[str, Any]) -> nn.Module:
    """Return the network without memory for its weights: whatever sizes a file shows, they are compared first."""
    try:
        with torch.device("meta"):
            return _registry.create(network, **options)
    except (RuntimeError, OverflowError):  # sizes beyond what a tensor can have
        raise ValueError(f"{network}: the options that the weights show build no network; check the file") from None


def to_rgb(name: str, network: nn.Module) -> bool:
    """Let an imported network see RGB in 0..1, as all networks here do, and return whether anything had to change.

    hg3d's networks were given BGR over 256, and `import_published` leaves them so. The first convolution is turned in
    place, after which both networks give the same for the same photograph: for theirs BGR over 256, for ours RGB over
    255, and for both no mean subtracted.
    """
    first = FORMATS[_registry.resolve(name)[0]].bgr
    if first:
        weight = network.get_parameter(first).data  # (C, 3, h, w)
        weight.copy_(weight.flip(1) * (255 / 256))
    return bool(first)


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
    if not isinstance(weights, Mapping):
        raise TypeError(f"state_dict: expected a mapping of key to tensor, got {type(weights).__name__} inside")
    for key, value in weights.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise TypeError(f"state_dict: expected a mapping of key to tensor, got {type(value).__name__} at {key!r}")
    return renamed(weights, lambda key: key.removeprefix("module."))


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
    """Return a few keys as a line; those of a file may be of any length and hold anything."""
    shown = ["".join(c if c.isprintable() else "?" for c in key[:LONGEST]) for key in keys[:LISTED]]
    return ", ".join(shown) + (", ..." if len(keys) > LISTED else "")
