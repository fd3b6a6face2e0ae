"""How a conditional model of system 004 begins: with an unconditional run's weights (section 4.3), or at random."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fastpose.data.captions import check_disjoint
from fastpose.models import caption
from fastpose.training import caption_data, resume_point
from fastpose.training.caption_data import CaptionDataConfig
from fastpose.training.config import from_dict
from fastpose.training.run_folder import RunFolder

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fastpose.data.captions import CaptionedPoses
    from fastpose.training.caption_config import CaptionConfig


_WAY_OUT = "run, or train it with the data section of this one"


def warm_start(
    networks: Mapping[str, nn.Module], config: CaptionConfig, validation: Callable[[], CaptionedPoses]
) -> dict[str, list[str]]:
    """Give both networks what the newest resume point of ``start.run`` knows of them.

    The weights are those that were trained, not their average (``run.ema``), as the critic's fit these.

    Args:
        networks: "generator" and "discriminator".
        config: of the run that begins.
        validation: returns the poses that it is evaluated on, of whose photographs the other may have seen none;
            asked when the rest is known to fit.

    Returns:
        the keys that keep their random beginning, by network; empty without a run.

    Raises:
        ValueError: no run where one is needed, a run of something else, one that was trained on photographs of the
            validation poses, or networks of other widths.
        FileNotFoundError: no such folder, or no resume point in it.
    """
    run = config.start.run
    if not run:
        if config.start.needed:
            raise ValueError(
                "start.run: expected the folder of an unconditional run whose weights this model begins with, got "
                "none; name it, or begin at random with start.needed=no"
            )
        return {}
    try:
        states, data = _unconditional(run)
        _check_unseen(data, config.data, validation())
        return {name: _begun(name, network, states[name]) for name, network in networks.items()}
    except ValueError as error:
        raise ValueError(f"start.run {run}: {error}") from None
    except FileNotFoundError as error:
        raise FileNotFoundError(f"start.run: {error}") from None


def _begun(name: str, network: nn.Module, weights: Mapping[str, Tensor]) -> list[str]:
    try:
        return caption.warm_start(network, weights)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _unconditional(run: str) -> tuple[Mapping[str, Mapping[str, Tensor]], Mapping[str, Any]]:
    """Return the state dicts of both networks of an unconditional run, and the section ``data`` it was trained with."""
    state, manifest = resume_point.load(RunFolder.open(run).state)
    if manifest.get("system") != "caption":
        raise ValueError(f"expected a run of system caption, got one of {manifest.get('system')!r}; name another")
    networks: Any = state.get("networks")
    if not isinstance(networks, dict) or not {"generator", "discriminator"} <= networks.keys():
        raise ValueError("expected a resume point with generator and discriminator, found none there; name another run")
    config: Any = manifest.get("config") or {}
    if (config.get("model") or {}).get("conditional"):
        raise ValueError(
            f"expected an unconditional run, got a conditional one ({manifest.get('recipe')}); go on with it by "
            "--resume, or take the generator's weights with run.start"
        )
    return networks, config.get("data") or {}


def _check_unseen(data: Mapping[str, Any], own: CaptionDataConfig, validation: CaptionedPoses) -> None:
    """Raise ``ValueError`` where what a section ``data`` trains on shares photographs with the validation poses."""
    try:
        first = from_dict(CaptionDataConfig, data)
        first = replace(first, root=own.root) if first.name == own.name else first  # the folder may have moved
        trained = caption_data.source(first, "train", captioned=False)
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(
            f"cannot tell whether it was trained on photographs of the validation poses: {error}"
        ) from None
    # The bundled sample has photographs of COCO, under their numbers.
    check_disjoint(replace(trained, name=validation.name), validation, _WAY_OUT)
