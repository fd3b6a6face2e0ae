"""How a conditional model of system 004 begins: with an unconditional run's weights (section 4.3), or at random."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastpose.models import caption
from fastpose.training import resume_point
from fastpose.training.run_folder import RunFolder

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fastpose.training.caption_config import StartConfig


def warm_start(networks: Mapping[str, nn.Module], config: StartConfig) -> dict[str, list[str]]:
    """Give both networks what the newest resume point of ``config.run`` knows of them.

    The weights are those that were trained, not their average (``run.ema``), as the critic's fit these.

    Returns:
        the keys that keep their random beginning, by network; empty without a run.

    Raises:
        ValueError: no run where one is needed, a run of something else, or networks of other widths.
        FileNotFoundError: no such folder, or no resume point in it.
    """
    if not config.run:
        if config.needed:
            raise ValueError(
                "start.run: expected the folder of an unconditional run whose weights this model begins with, got "
                "none; name it, or begin at random with start.needed=no"
            )
        return {}
    states = _states(config.run)
    fresh = {}
    for name, network in networks.items():
        try:
            fresh[name] = caption.warm_start(network, states[name])
        except ValueError as error:
            raise ValueError(f"start.run {config.run}: {name}: {error}") from None
    return fresh


def _states(run: str) -> Mapping[str, Mapping[str, Tensor]]:
    """Return the state dicts of both networks of an unconditional run."""
    state, manifest = resume_point.load(RunFolder.open(run).state)
    model: Any = (manifest.get("config") or {}).get("model") or {}
    networks: Any = state.get("networks")
    known = isinstance(networks, dict) and {"generator", "discriminator"} <= networks.keys()
    if manifest.get("system") != "caption" or not known:
        raise ValueError(
            f"start.run {run}: expected a run of system caption, got one of {manifest.get('system')!r}; name another"
        )
    if model.get("conditional"):
        raise ValueError(
            f"start.run {run}: expected an unconditional run, got a conditional one ({manifest.get('recipe')}); go on "
            "with it by --resume, or take the generator's weights with run.start"
        )
    return networks
